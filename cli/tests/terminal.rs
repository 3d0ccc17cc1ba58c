//! `shmbus top` on a terminal of the test's own.

mod program;

use std::io::{Read, Write};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use program::{Place, terminal};

/// It read on and on at the end of a terminal that is gone, at the full speed of a processor, and nobody could see it any more. Mended, it
/// complained to that terminal, and panicked over it.
#[test]
fn top_ends_when_its_terminal_is_gone() {
    let place = Place::new();
    place.run_with(b"a\n", &["pub", "t"]).ok();
    let (mut person, program) = terminal();
    let end = || program.try_clone().unwrap();
    let mut command = place.command(&["top", "--interval", "0.1"]);
    command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end());
    let mut top = command.spawn().unwrap();
    drop((command, program));
    let mut shown = [0; 256];
    assert!(person.read(&mut shown).unwrap() > 0, "it shows something");
    drop(person);
    let status = end_of(&mut top, "it goes on without a terminal");
    assert!(status.code().is_some(), "it ends by itself: {status}");
}

/// Keys that come together are in one read: what was behind the first one waited for the next key.
#[test]
fn top_loses_no_key_of_several_that_come_together() {
    let place = Place::new();
    place.run_with(b"a\n", &["pub", "t"]).ok();
    let (mut person, program) = terminal();
    let end = || program.try_clone().unwrap();
    let mut command = place.command(&["top", "--interval", "0.1"]);
    command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end());
    let mut top = command.spawn().unwrap();
    drop((command, program));
    let mut shown = [0; 4096];
    assert!(person.read(&mut shown).unwrap() > 0, "it shows something");
    // Whoever does not read what it shows stops it in the end.
    let mut reader = person.try_clone().unwrap();
    let reading =
        std::thread::spawn(move || while reader.read(&mut shown).is_ok_and(|len| len > 0) {});
    person.write_all(b"jsr/t\rjq").unwrap();
    let status = end_of(&mut top, "the last of the keys, q, is not heard");
    assert_eq!(status.code(), Some(0));
    drop(person);
    reading.join().unwrap();
}

fn end_of(top: &mut Child, otherwise: &str) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = top.try_wait().unwrap() {
            return status;
        }
        if begin.elapsed() > Duration::from_secs(20) {
            top.kill().unwrap();
            top.wait().unwrap();
            panic!("{otherwise}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
