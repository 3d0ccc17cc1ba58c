//! What `derive(Message)` and `derive(MessageEnum)` refuse, and what they say then. The texts are made by the macros, so that they are the same with
//! every compiler; `TRYBUILD=overwrite` writes those of a run.

#[test]
fn what_two_processes_could_read_differently_does_not_compile_and_the_message_says_how_to_mend_it()
{
    trybuild::TestCases::new().compile_fail("tests/refused/*.rs");
}
