//! The book, held against the program and the sources: its console blocks run and print what they say, its pages are all linked, its
//! Rust blocks are all tested, and what it calls a test is one.
//!
//! In a `console` block a line that begins with `$ ` is run by bash; what follows is all that it prints, where `...` stands for anything.
//! A command must succeed. The commands of a page run one after the other, in a directory and with topics of their own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A block between fences: what stands behind the first fence, the line it is on, and what is in it.
struct Block {
    kind: String,
    line: usize,
    text: String,
}

/// A command and what it prints.
#[derive(Debug, PartialEq)]
struct Step {
    line: usize,
    command: String,
    output: String,
}

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(ROOT).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pages of a folder below `docs`, sorted.
fn pages(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(ROOT).join("docs").join(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".md")).collect();
    names.sort();
    names
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (i, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(kind), None) => {
                open = Some(Block { kind: kind.to_owned(), line: i + 1, text: String::new() });
            }
            (None, Some(block)) => block.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block has no end");
    blocks
}

fn steps(block: &Block) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (i, line) in block.text.lines().enumerate() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step {
                line: block.line + 1 + i,
                command: command.to_owned(),
                output: String::new(),
            }),
            (None, Some(step)) => step.output += &format!("{line}\n"),
            (None, None) => panic!("line {}: output without a command", block.line + 1 + i),
        }
    }
    steps
}

/// Whether `found` is `expected`, in which `...` stands for anything.
fn is_as_expected(found: &str, expected: &str) -> bool {
    let lines = |text: &str| text.lines().map(|l| l.trim_end().to_owned() + "\n").collect();
    let (found, expected): (String, String) = (lines(found), lines(expected));
    let mut pieces = expected.split("...").peekable();
    let Some(mut rest) = found.strip_prefix(pieces.next().unwrap_or_default()) else {
        return false;
    };
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.trim_end().ends_with(piece.trim_end());
        }
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    true
}

/// Runs the commands of a page in one shell. What each printed, and whether it succeeded.
fn run(steps: &[Step]) -> Vec<(String, bool)> {
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = |name: String| scratch.path().join(name);
    let mut script = String::from("cd \"$SCRATCH/files\"\n");
    for (i, Step { command, .. }) in steps.iter().enumerate() {
        // In braces, not in a subshell, so that a later `wait` waits for what this one started.
        script += &format!("{{ {command}\n}} > \"$SCRATCH/{i}.out\" 2>&1\n");
        script += &format!("echo $? > \"$SCRATCH/{i}.status\"\n");
    }
    script += "for job in $(jobs -p); do kill \"$job\"; done\nwait\n";
    fs::create_dir(path("files".into())).unwrap();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_shmbus"));
    let mut search = vec![program.parent().unwrap().to_owned()];
    search.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let status = Command::new("timeout")
        .args([
            "300",
            "bash",
            "-c",
            &script.replace("cargo run ", "cargo run --manifest-path \"$MANIFEST\" "),
        ])
        .env("PATH", std::env::join_paths(search).unwrap())
        .env("SCRATCH", scratch.path())
        .env("MANIFEST", Path::new(ROOT).join("Cargo.toml"))
        .env("SHMBUS_DIR", path("topics".into()))
        .stdin(Stdio::null())
        .status()
        .unwrap();
    println!("bash: {status}");
    let text = |name: String| fs::read_to_string(path(name)).unwrap_or_default();
    (0..steps.len())
        .map(|i| (text(format!("{i}.out")), text(format!("{i}.status")).trim() == "0"))
        .collect()
}

#[test]
fn the_commands_of_the_guide_print_what_it_says() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for page in pages("guide") {
        let blocks = blocks(&read(format!("docs/guide/{page}")));
        let consoles = blocks.iter().filter(|block| block.kind == "console");
        let steps: Vec<Step> = consoles.flat_map(steps).collect();
        count += steps.len();
        for (step, (found, succeeded)) in steps.iter().zip(run(&steps)) {
            if !succeeded || !is_as_expected(&found, &step.output) {
                let Step { line, command, output } = step;
                wrong.push(format!(
                    "docs/guide/{page}:{line}: {command}\nexpected:\n{output}found (success: {succeeded}):\n{found}"
                ));
            }
        }
    }
    assert!(count > 15, "only {count} commands were found: this test looks in the wrong place");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn output_is_compared_whole_but_for_three_dots() {
    for (found, expected) in [
        ("", ""),
        ("a\nb\n", "a\nb\n"),
        ("a \nb\n", "a\nb\n"),
        ("in 0.01 s\n", "in ...\n"),
        ("a\nb\nc\n", "a\n...\n"),
        ("1 x 2 y 3\n", "1 ... 2 ... 3\n"),
    ] {
        assert!(is_as_expected(found, expected), "{found:?} {expected:?}");
    }
    for (found, expected) in [
        ("a\n", ""),
        ("", "a\n"),
        ("a\nb\n", "a\n"),
        ("b\na\n", "a\n...\n"),
        ("a 1 b 2\n", "a ... b ... 3\n"),
    ] {
        assert!(!is_as_expected(found, expected), "{found:?} {expected:?}");
    }
}

#[test]
fn every_block_of_the_guide_is_of_a_kind_that_is_tested_or_is_no_code() {
    let guide = read("bus/src/guide.rs");
    for page in pages("guide") {
        assert!(guide.contains(&format!("\"{page}\"")), "bus/src/guide.rs does not have {page}");
        for Block { kind, line, .. } in blocks(&read(format!("docs/guide/{page}"))) {
            let known = ["rust", "console", "text"].contains(&&*kind);
            assert!(known, "docs/guide/{page}:{line}: a block of kind {kind:?}");
        }
    }
}

#[test]
fn every_page_is_in_the_summary() {
    let summary = read("docs/SUMMARY.md");
    let guide = pages("guide").into_iter().map(|page| format!("guide/{page}"));
    for page in guide.chain(pages("")).filter(|page| page != "SUMMARY.md") {
        assert!(summary.contains(&format!("]({page})")), "docs/SUMMARY.md does not link {page}");
    }
}

#[test]
fn what_the_guarantees_are_shown_by_exists() {
    let mut known = BTreeSet::new();
    let claims = read("docs/claims.toml");
    known.extend(
        claims.lines().filter_map(|line| {
            Some(line.strip_prefix("id = \"")?.trim_end_matches('"').to_owned())
        }),
    );
    let mut pending: Vec<PathBuf> =
        ["bus", "bus-sys", "cli"].map(|folder| Path::new(ROOT).join(folder)).to_vec();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(path).unwrap();
            let functions = text.lines().filter_map(|line| line.trim_start().split("fn ").nth(1));
            known.extend(functions.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
        }
    }
    let page = read("docs/guide/guarantees.md");
    let rows = page.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    let mut count = 0;
    for row in rows {
        let shown_by = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for name in shown_by.split('`').skip(1).step_by(2) {
            count += 1;
            assert!(known.contains(name), "docs/guide/guarantees.md: there is no {name}");
        }
    }
    assert!(count > 20, "only {count} names were found: this test looks in the wrong place");
}
