//! What `derive(Message)` and `derive(MessageEnum)` refuse, and what they say then; and what they accept. The words are ours, those of `fields` and `padding` in a frame of
//! the compiler's; `TRYBUILD=overwrite` writes those of a run.

#[test]
fn what_two_processes_could_read_differently_does_not_compile_and_the_message_says_how_to_mend_it()
{
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/refused/*.rs");
    cases.pass("tests/derived/*.rs");
}
