//! The whole command surface, as the program prints it, beside files: an option that changes or goes away is noticed. And what is
//! made from the same definitions: completions and manual pages.
//!
//! `SHMBUS_UPDATE_HELP=1 cargo test -p shmbus-cli --test help` writes the files anew.

mod program;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use program::Place;

fn help_of(place: &Place, arguments: &[&str]) -> String {
    let mut command = place.command(arguments);
    let output = command.env("COLUMNS", "100").output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/help/{name}.txt"))
}

#[test]
fn the_help_of_every_command_is_as_in_its_file() {
    let place = Place::new();
    let mut helps = vec![("shmbus".to_owned(), help_of(&place, &["--help"]))];
    for verb in place.verbs() {
        let help = help_of(&place, &[&verb, "--help"]);
        helps.push((verb, help));
    }
    if std::env::var_os("SHMBUS_UPDATE_HELP").is_some() {
        for (name, help) in &helps {
            fs::write(file(name), help).unwrap();
        }
    }
    let names: BTreeSet<String> = helps.iter().map(|(name, _)| name.clone()).collect();
    let files = fs::read_dir(file("x").parent().unwrap()).unwrap();
    let files: BTreeSet<String> = files
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        names, files,
        "commands, and files in tests/help (SHMBUS_UPDATE_HELP=1 writes them)"
    );
    let differ: Vec<String> = helps
        .into_iter()
        .filter(|(name, help)| fs::read_to_string(file(name)).unwrap() != *help)
        .map(|(name, help)| format!("{name}:\n{help}"))
        .collect();
    assert!(
        differ.is_empty(),
        "not as in tests/help (if that is wanted: SHMBUS_UPDATE_HELP=1 writes them):\n{}",
        differ.join("\n")
    );
}

#[test]
fn every_command_has_an_example_and_hidden_ones_are_in_no_help() {
    let place = Place::new();
    for verb in place.verbs() {
        let help = help_of(&place, &[&verb, "--help"]);
        let (_, examples) = help.split_once("\nExamples:\n").expect("examples");
        assert!(examples.contains(&format!("shmbus {verb}")), "{verb}: {examples}");
    }
    assert!(!help_of(&place, &["--help"]).contains("demo-child"));
    assert!(!help_of(&place, &["bench", "--help"]).contains("endpoint"));
}

#[test]
fn help_is_wrapped_once_and_has_no_marks_of_its_source() {
    let place = Place::new();
    let mut helps = vec![vec![]];
    helps.extend(place.verbs().into_iter().map(|verb| vec![verb]));
    let bench = help_of(&place, &["bench", "--help"]);
    let (_, list) = bench.split_once("\nCommands:\n").unwrap();
    let listed = list.lines().take_while(|line| !line.is_empty());
    let listed = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    helps.extend(
        listed
            .filter(|verb| !verb.is_empty())
            .map(|verb| vec!["bench".to_owned(), verb.to_owned()]),
    );
    for mut verb in helps.into_iter().filter(|verb| verb.last().is_none_or(|one| one != "help")) {
        verb.push("--help".to_owned());
        let arguments: Vec<&str> = verb.iter().map(String::as_str).collect();
        let help = help_of(&place, &arguments);
        assert!(!help.contains("\\\""), "{verb:?}: {help}");
        let lines: Vec<&str> = help.lines().collect();
        for pair in lines.windows(2) {
            let is_text = |line: &str| !line.is_empty() && !line.starts_with(' ');
            let next = pair[1].split(' ').next().unwrap();
            let fits = pair[0].chars().count() + 1 + next.chars().count() <= 100;
            let is_broken = is_text(pair[0]) && is_text(pair[1]) && !pair[0].ends_with(':') && fits;
            assert!(!is_broken, "{verb:?}: wrapped too early:\n{}\n{}", pair[0], pair[1]);
        }
    }
}

#[test]
fn a_typo_proposes_nothing_that_is_hidden() {
    let place = Place::new();
    for (arguments, proposed) in [
        (&["demo-chlid"][..], Some("demo")),
        (&["demochild"], None),
        (&["lsit"], Some("list")),
        (&["bench", "endpoin"], None),
        (&["serve", "--worke"], None),
    ] {
        let done = place.run(arguments).failed(2, proposed.as_slice());
        let hidden = ["'demo-child'", "'endpoint'", "'--worker'"];
        assert!(hidden.iter().all(|name| !done.stderr.contains(name)), "{}", done.stderr);
    }
}

#[test]
fn completions_of_every_shell_know_the_commands_and_not_the_hidden_ones() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = help_of(&place, &["completions", shell]);
        for verb in place.verbs() {
            assert!(script.contains(&verb), "{shell}: {verb}");
        }
        assert!(script.contains("reliable"), "{shell}: options");
        assert!(!script.contains("demo-child") && !script.contains("endpoint"), "{shell}");
    }
    // The shell that is here for certain takes it.
    let script =
        place.written("completions.bash", help_of(&place, &["completions", "bash"]).as_bytes());
    let bash = std::process::Command::new("bash").args(["-n", &script]).status().unwrap();
    assert!(bash.success());
    place.run(&["completions", "tcsh"]).failed(2, &["tcsh", "bash"]);
}

#[test]
fn there_is_a_manual_page_of_the_program_and_of_every_command() {
    let place = Place::new();
    let pages = place.file("pages");
    place
        .run(&["man", "--output", pages.to_str().unwrap()])
        .failed(1, &["shmbus.1", "No such file"]);
    fs::create_dir(&pages).unwrap();
    place.run(&["man", "--output", pages.to_str().unwrap()]).ok();
    let mut expected: BTreeSet<String> =
        place.verbs().iter().map(|verb| format!("shmbus-{verb}.1")).collect();
    expected.insert("shmbus.1".to_owned());
    let written: BTreeSet<String> = fs::read_dir(&pages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(written, expected);
    let page = fs::read_to_string(pages.join("shmbus-echo.1")).unwrap();
    for word in [".TH shmbus-echo 1", "\\-\\-reliable", "Examples:"] {
        assert!(page.contains(word), "{word} is not in {page}");
    }
    assert_eq!(help_of(&place, &["man", "echo"]), page);
    let program = help_of(&place, &["man"]);
    assert!(program.contains("shmbus\\-pub(1)") && !program.contains("child"), "{program}");
    place.run(&["man", "nothing"]).failed(1, &["no command nothing"]);
}

#[test]
fn what_needs_no_topics_makes_no_directory() {
    let place = Place::new();
    for arguments in [&["completions", "bash"][..], &["man"], &["doctor"], &["--help"]] {
        help_of(&place, arguments);
        assert!(!place.topics_path().exists(), "{arguments:?}");
    }
}
