//! `shmbus completions` and `shmbus man`: what shells and man(1) want to know of the commands.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  shmbus completions bash > ~/.local/share/bash-completion/completions/shmbus
  shmbus completions fish > ~/.config/fish/completions/shmbus.fish";

/// Print the completions for a shell
#[derive(clap::Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub(crate) struct CompletionsArguments {
    /// Which shell
    shell: Shell,
}

const MAN_EXAMPLES: &str = "\
Examples:
  shmbus man | man -l -
  shmbus man pub | man -l -
  shmbus man --output ~/.local/share/man/man1";

/// Print a manual page, or write all of them
#[derive(clap::Args)]
#[command(after_help = MAN_EXAMPLES)]
pub(crate) struct ManArguments {
    /// Of which command [default: of the program]
    #[arg(conflicts_with = "output")]
    verb: Option<String>,
    /// Write the pages of the program and of each command into this directory, which must exist
    #[arg(long, value_name = "PATH")]
    output: Option<PathBuf>,
}

pub(crate) fn completions(command: Command, arguments: &CompletionsArguments) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut shown(&command), "shmbus", &mut script);
    print(&script)
}

pub(crate) fn man(command: Command, arguments: &ManArguments) -> Result<()> {
    let mut command = shown(&command);
    command.build();
    let page = |command: &Command| -> Result<Vec<u8>> {
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone()).render(&mut page)?;
        Ok(page)
    };
    let verbs = || command.get_subcommands().filter(|verb| verb.get_name() != "help");
    let Some(path) = &arguments.output else {
        let chosen = match &arguments.verb {
            Some(name) => verbs()
                .find(|verb| verb.get_name() == name)
                .with_context(|| format!("there is no command {name} (see shmbus --help)"))?,
            None => &command,
        };
        return print(&page(chosen)?);
    };
    for one in std::iter::once(&command).chain(verbs()) {
        // As in `man shmbus-pub`.
        let file = path.join(format!("{}.1", one.get_display_name().unwrap_or("shmbus")));
        fs::write(&file, page(one)?).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// The program without what is hidden.
fn shown(command: &Command) -> Command {
    without_hidden(command).version(env!("CARGO_PKG_VERSION"))
}

fn without_hidden(command: &Command) -> Command {
    let mut shown = Command::new(command.get_name().to_owned());
    shown = shown.args(command.get_arguments().cloned());
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    if let Some(examples) = command.get_after_help() {
        shown = shown.after_help(examples.clone());
    }
    if let Some(about) = command.get_long_about() {
        shown = shown.long_about(about.clone());
    }
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    let has_verbs = command.has_subcommands();
    shown.subcommand_required(has_verbs).subcommands(verbs.map(without_hidden))
}

fn print(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}
