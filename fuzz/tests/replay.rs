//! Every file of the corpus through its target, without a fuzzer: what was found once stays mended.
//!
//! `SHMBUS_FUZZ_RANDOM=n` adds n random inputs to each target.

use std::path::Path;

use shmbus_fuzz::TARGETS;

fn replay(name: &str, random: u64) {
    let (name, target) = TARGETS.iter().find(|(target, _)| *target == name).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut count = 0;
    for file in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
        let input = std::fs::read(file.path()).unwrap();
        let done = std::panic::catch_unwind(|| target(&input));
        assert!(done.is_ok(), "{}", file.path().display());
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 33) as u8
    };
    for _ in 0..random {
        let len = usize::from(next()) * 2;
        let input: Vec<u8> = (0..len).map(|_| next()).collect();
        let done = std::panic::catch_unwind(|| target(&input));
        assert!(done.is_ok(), "{name} with {input:?}");
    }
}

fn random() -> u64 {
    std::env::var("SHMBUS_FUZZ_RANDOM").map_or(100, |count| count.parse().unwrap())
}

#[test]
fn the_corpus_of_attach_is_answered_by_errors_or_by_what_fits_the_files() {
    replay("attach", random());
}

#[test]
fn the_corpus_of_attach_files_is_answered_by_errors_or_by_a_topic() {
    replay("attach_files", random());
}

#[test]
fn the_corpus_of_control_is_answered_by_nothing_or_by_messages_that_are_written_as_they_were_read() {
    replay("control", random());
}

#[test]
fn the_corpus_of_corrupt_is_answered_by_results_or_errors() {
    replay("corrupt", random());
}

#[test]
fn the_corpus_of_ops_is_what_the_model_says() {
    replay("ops", random());
}

#[test]
fn the_corpus_of_schema_is_answered_by_errors_or_by_schemas_that_say_the_same_again() {
    replay("schema", random());
}
