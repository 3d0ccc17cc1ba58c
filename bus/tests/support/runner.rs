//! What the test programs share that have no harness: they choose tests as it does, run one after the other, and run themselves
//! again for every process that a test needs.

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use rustix::process::WaitOptions;

use crate::processes::{self, Part};

/// How much of what a test is to do.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) kills: u64,
}

/// The share of a test whose rounds take as long as `weight` kills.
pub(crate) fn kills(plan: &Plan, weight: u64) -> u64 {
    plan.kills.div_ceil(weight)
}

/// A test by its name.
pub(crate) type Test = (&'static str, fn(&Plan));

/// The tests of a program, by module and name.
macro_rules! tests {
    ($($module:ident :: $name:ident),* $(,)?) => {
        const TESTS: &[$crate::runner::Test] = &[$((stringify!($name), $module::$name)),*];
    };
}
pub(crate) use tests;

/// Plays the role that it is called for, or runs the tests that its arguments choose.
pub(crate) fn main(tests: &[Test], roles: &[Part]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == processes::ROLE) {
        processes::play(roles, &arguments[1..]);
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let parts: Vec<&String> = arguments.iter().filter(|part| !part.starts_with('-')).collect();
    let is_wanted = |name: &str| {
        parts.is_empty()
            || parts
                .iter()
                .any(|part| if has("--exact") { name == *part } else { name.contains(*part) })
    };
    let wanted = tests.iter().filter(|(name, _)| is_wanted(name));
    if has("--list") {
        if !has("--ignored") {
            wanted.for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = number("SHMBUS_TEST_SEED").unwrap_or(now.as_nanos() as u64);
    let plan = Plan { seed, kills: number("SHMBUS_TEST_KILLS").unwrap_or(800) };
    println!("SHMBUS_TEST_SEED={seed} SHMBUS_TEST_KILLS={}", plan.kills);
    processes::watch();
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, test) in wanted {
        println!("{name} ...");
        let begin = Instant::now();
        match catch_unwind(|| run(&plan, *test)) {
            Ok(()) => {
                passed += 1;
                println!("  ok, {:.1?}", begin.elapsed());
            }
            Err(_) => {
                failed.push(*name);
                println!("  FAILED, {:.1?}", begin.elapsed());
            }
        }
    }
    println!("{passed} passed, {} failed", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a test, and sees that neither processes nor descriptors are left of it.
fn run(plan: &Plan, test: fn(&Plan)) {
    let before = descriptors();
    processes::begin();
    test(plan);
    let children = rustix::process::waitpid(None, WaitOptions::NOHANG);
    assert_eq!(children.err(), Some(rustix::io::Errno::CHILD), "a process was left behind");
    assert_eq!(descriptors(), before, "descriptors were left open");
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is no number")))
}
