//! `shmbus doctor`: what may be in the way on this machine, and what to do about it.
//!
//! The checks are in three files: `machine` is what the kernel offers, `place` what is in the directory, `locks` what of that is locks. Each makes findings; here they are printed.

mod locks;
mod machine;
mod place;

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Error, Result, bail};
use serde::Serialize;
use serde_json::{Map, Value};
use shmbus::Directory;
use shmbus_sys::lease::Lease;
use shmbus_sys::shm;

const EXAMPLES: &str = "\
Examples:
  shmbus doctor
  shmbus doctor --json | jq -c 'select(.level != \"ok\")'

Levels: ok; note (worth knowing); warning (it works, not as well as it could); problem (something does not work). The status \
is 1 where there is a problem. Nothing is changed: `shmbus gc` gives back what is left over.";

/// Look what may be in the way on this machine, and say what to do about it
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Note,
    Warning,
    Problem,
}

/// What one check has found. Sizes in bytes.
#[derive(Serialize)]
struct Finding {
    check: &'static str,
    level: Level,
    finding: String,
    /// What to do about it, in one line.
    advice: Option<String>,
    /// The same as numbers and words, for programs.
    facts: Map<String, Value>,
}

impl Finding {
    fn new(check: &'static str, level: Level, finding: impl Into<String>) -> Finding {
        Finding { check, level, finding: finding.into(), advice: None, facts: Map::new() }
    }

    fn advice(mut self, advice: impl Into<String>) -> Finding {
        self.advice = Some(advice.into());
        self
    }

    fn fact(mut self, name: &str, value: impl Into<Value>) -> Finding {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    fn text(&self) -> String {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Problem => "problem",
        };
        let mut text = format!("{level:<8} {:<14} {}\n", self.check, self.finding);
        if let Some(advice) = &self.advice {
            text += &format!("{:23} -> {advice}\n", "");
        }
        text
    }
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    let mut findings = place::directory(directory);
    findings.extend(machine::all());
    findings.extend(place::contents(directory));
    let mut output = String::new();
    for finding in &findings {
        match arguments.json {
            true => output += &(serde_json::to_string(finding)? + "\n"),
            false => output += &finding.text(),
        }
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(output.as_bytes())?;
    stdout.flush()?;
    match findings.iter().filter(|finding| finding.level == Level::Problem).count() {
        0 => Ok(()),
        1 => bail!("there is a problem"),
        count => bail!("there are {count} problems"),
    }
}

const AGAIN: &str = "it could not be looked at now, which says nothing about it: again, with more descriptors (ulimit -n) or memory";

/// What to do about an error: try again, if it says nothing about what was looked at.
fn advice_about(error: &Error, otherwise: impl Into<String>) -> String {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    if causes.any(shmbus_sys::is_passing) { AGAIN.to_owned() } else { otherwise.into() }
}

/// What to do about files that were read and are wrong: `remove`, unless somebody lives there, or may.
fn advice_about_damage(files: &Path, remove: &str) -> String {
    let ask = || {
        let live = Lease::open_at(shm::open_directory(files)?.as_fd(), "live")?;
        live.first_held_by_another(0, i64::MAX as u64)
    };
    match ask() {
        Ok(Some(_)) => format!("a living process takes part in it; when that has ended: {remove}"),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            format!("whether a living process takes part in it cannot be seen ({error})")
        }
        _ => format!("it cannot be repaired: {remove}"),
    }
}
