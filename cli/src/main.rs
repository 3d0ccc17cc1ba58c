//! The program `shmbus`. Each command has a file; here are only the list of them and the exit codes:
//! 0 done, 1 failed, 2 wrong usage, 130 interrupted. A reader that closes its end of a pipe is no failure.
//! Results go to standard output, diagnostics to standard error.

mod bandwidth;
mod bench;
mod completions;
mod csv;
mod delay;
mod demo;
mod doctor;
mod echo;
mod field;
mod gc;
mod holdups;
mod hz;
mod info;
mod input;
mod interrupt;
mod list;
mod lock;
mod metrics;
mod publish;
mod rates;
mod remove;
mod run;
mod schema;
mod serve;
mod stat;
mod status;
mod text;
mod top;
mod value;
mod windows;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser, Subcommand};
use shmbus::{Directory, DirectoryError, PathSource};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  vmstat 1 | shmbus pub stats/vm
  shmbus echo stats/vm

Exit status:
  0    done; also when whoever read the output has closed it
  1    failed
  2    wrong usage
  130  interrupted (Ctrl-C, termination, hang-up)";

/// A zero-copy shared-memory message bus for Linux.
#[derive(Parser)]
#[command(name = "shmbus", version, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    /// Where topics live [default: $SHMBUS_DIR, else $XDG_RUNTIME_DIR/shmbus, else /dev/shm/shmbus-UID]
    #[arg(long, global = true, value_name = "PATH")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(name = "pub")]
    Publish(publish::Arguments),
    Echo(echo::Arguments),
    List(list::Arguments),
    Info(info::Arguments),
    Schema(schema::Arguments),
    Hz(hz::Arguments),
    #[command(name = "bw")]
    Bandwidth(bandwidth::Arguments),
    Delay(delay::Arguments),
    Top(top::Arguments),
    Stat(stat::Arguments),
    Run(run::Arguments),
    Status(status::Arguments),
    Doctor(doctor::Arguments),
    Gc(gc::Arguments),
    Metrics(metrics::Arguments),
    Serve(serve::Arguments),
    #[command(name = "rm")]
    Remove(remove::Arguments),
    Completions(completions::CompletionsArguments),
    Man(completions::ManArguments),
    Demo(demo::Arguments),
    /// Measure shmbus beside pipes, sockets, queues and the limits of the machine
    #[command(after_help = bench::EXAMPLES)]
    Bench(shmbus_bench::Arguments),
    #[command(hide = true)]
    DemoChild(demo::ChildArguments),
}

fn main() -> ExitCode {
    if let Some(guarded) = run::leftover::guard() {
        return if guarded.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let arguments = Arguments::try_parse().unwrap_or_else(|error| without_hidden(error).exit());
    let Arguments { dir, command } = arguments;
    match run(command, dir.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<interrupt::Interrupted>() => ExitCode::from(130),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(run::Ended(code)) = error.downcast_ref() {
                return ExitCode::from(*code); // why was said
            }
            let is_usage = error.is::<text::Usage>() || error.is::<run::config::Wrong>();
            if is_usage {
                text::tell(&format!("{error:#}"))
            } else {
                text::tell_error(&error)
            }
            match () {
                () if is_usage => 2.into(),
                () => ExitCode::FAILURE,
            }
        }
    }
}

fn run(command: Command, dir: Option<&Path>) -> anyhow::Result<()> {
    match command {
        Command::Publish(arguments) => publish::run(&made(dir)?, &arguments),
        Command::Echo(arguments) => echo::run(&named(dir), &arguments),
        Command::List(arguments) => list::run(&named(dir), &arguments),
        Command::Info(arguments) => info::run(&named(dir), &arguments),
        Command::Schema(arguments) => schema::run(&named(dir), &arguments),
        Command::Hz(arguments) => hz::run(&named(dir), &arguments),
        Command::Bandwidth(arguments) => bandwidth::run(&named(dir), &arguments),
        Command::Delay(arguments) => delay::run(&named(dir), &arguments),
        Command::Top(arguments) => top::run(&named(dir), &arguments),
        Command::Stat(arguments) => stat::run(&named(dir), &arguments),
        Command::Run(arguments) => run::run(&made(dir)?, &arguments),
        Command::Status(arguments) => status::run(&named(dir), &arguments),
        Command::Doctor(arguments) => doctor::run(&named(dir), &arguments),
        Command::Gc(arguments) => gc::run(&named(dir), &arguments),
        Command::Metrics(arguments) => metrics::run(&named(dir), &arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Remove(arguments) => remove::run(&named(dir), &arguments),
        Command::Completions(a) => completions::completions(Arguments::command(), &a),
        Command::Man(arguments) => completions::man(Arguments::command(), &arguments),
        Command::Demo(arguments) => demo::run(&made(dir)?, &arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::DemoChild(arguments) => demo::run_child(&arguments),
    }
}

/// Where topics are. It is not made: a command that reads leaves nothing, and one that writes a topic finds it there.
fn named(path: Option<&Path>) -> Directory {
    let (path, source) = match path {
        Some(path) => (path.to_owned(), PathSource::Given),
        None => Directory::path_from_env(),
    };
    let directory = Directory::named(path, source);
    text::topics_are_in(&directory);
    directory
}

/// The same, made if it is missing: for commands that create topics.
fn made(path: Option<&Path>) -> Result<Directory, DirectoryError> {
    let named = named(path);
    path.map_or_else(Directory::from_env, Directory::at).map(|_| named)
}

/// An error of usage that proposes nothing which is in no help.
fn without_hidden(mut error: clap::Error) -> clap::Error {
    fn hidden(command: &clap::Command, names: &mut Vec<String>) {
        for verb in command.get_subcommands() {
            names.extend(verb.is_hide_set().then(|| verb.get_name().to_owned()));
            let options = verb.get_arguments().filter(|option| option.is_hide_set());
            names.extend(options.filter_map(|option| Some(format!("--{}", option.get_long()?))));
            hidden(verb, names);
        }
    }
    let mut names = Vec::new();
    hidden(&Arguments::command(), &mut names);
    for kind in [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg] {
        let kept = match error.get(kind) {
            Some(ContextValue::String(name)) if names.contains(name) => ContextValue::None,
            Some(ContextValue::Strings(all)) => {
                let kept: Vec<_> = all.iter().filter(|name| !names.contains(name)).collect();
                match kept[..] {
                    [] => ContextValue::None,
                    _ => ContextValue::Strings(kept.into_iter().cloned().collect()),
                }
            }
            _ => continue,
        };
        error.insert(kind, kept);
    }
    error
}

/// Whoever read our output has seen enough, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
