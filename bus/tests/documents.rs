//! What `docs/` says of the code, held against the code: the name of every memory ordering, the files that may be unsafe, the crash points.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn document(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// A source file: its path below the root and its text, without the tests at its end.
struct Source {
    path: String,
    text: String,
}

/// All source files below `folders`, sorted.
fn sources(folders: &[&str]) -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    let mut pending: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => pending.push(path),
                Some(extension) if extension == "rs" => paths.push(path),
                _ => {}
            }
        }
    }
    paths.sort();
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let tests = text
            .match_indices("\n#[cfg(")
            .find(|(at, _)| {
                let line = text[at + 1..].lines().next().unwrap_or("");
                line.contains("test") && text[at + 1 + line.len()..].starts_with("\nmod tests {")
            })
            .map_or(text.len(), |(at, _)| at);
        let path = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        Source { path, text: text[..tests].to_owned() }
    };
    paths.into_iter().map(source).collect()
}

/// The sources of the protocol: what shares memory with other processes. Not its models, which weaken nothing on purpose.
fn protocol() -> Vec<Source> {
    let mut sources = sources(&["bus/src", "bus-sys/src"]);
    sources.retain(|source| {
        !is_model(&source.path)
            && !["bus/src/crash.rs", "bus/src/atomics.rs"].contains(&&*source.path)
    });
    sources
}

fn is_model(path: &str) -> bool {
    path.starts_with("bus/src/models")
}

/// Code and plain comment of a line. A documentation comment is neither.
fn split(line: &str) -> (&str, &str) {
    match line.split_once("//") {
        Some((code, comment)) if comment.starts_with(['/', '!']) => (code, ""),
        Some(parts) => parts,
        None => (line, ""),
    }
}

/// Whether code orders memory: names an ordering that is not `Relaxed`, other than to import it.
fn orders(code: &str) -> bool {
    let code = code.trim_start();
    let imports = ["use ", "pub use ", "pub(crate) use "].iter().any(|use_| code.starts_with(use_));
    !imports
        && code
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|word| ["Acquire", "Release", "AcqRel", "SeqCst"].contains(&word))
}

/// The names in brackets in a comment: `[message]: payload and length; [last use]`.
fn labels(comment: &str) -> Vec<String> {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c == ' ' || c == '/')
    };
    comment
        .split('[')
        .skip(1)
        .filter_map(|rest| rest.split_once(']'))
        .filter(|(name, _)| is_name(name))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The first cells of the rows of the tables below a heading, without backquotes and brackets.
fn first_cells(document: &str, heading: &str) -> BTreeSet<String> {
    let section = document.split("\n## ").find(|section| section.starts_with(heading));
    section
        .unwrap_or_else(|| panic!("there is no section {heading}"))
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .filter(|cell| cell.starts_with(['`', '[']))
        .map(|cell| cell.trim_matches(['`', '[', ']']).to_owned())
        .collect()
}

#[test]
fn every_ordering_has_a_name_beside_it() {
    let mut nameless = Vec::new();
    let mut count = 0;
    for Source { path, text } in protocol() {
        let lines: Vec<_> = text.lines().map(split).collect();
        for (i, (code, _)) in lines.iter().enumerate() {
            if orders(code) {
                count += 1;
                let beside = &lines[i.saturating_sub(1)..lines.len().min(i + 2)];
                if beside.iter().all(|(_, comment)| labels(comment).is_empty()) {
                    nameless.push(format!("{path}:{}: {}", i + 1, code.trim()));
                }
            }
        }
    }
    assert!(count > 50, "only {count} orderings were found: this test looks in the wrong place");
    assert!(nameless.is_empty(), "no `// [name]` beside:\n{}", nameless.join("\n"));
}

#[test]
fn every_name_of_an_ordering_stands_on_both_sides_and_in_the_document() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Source { path, text } in protocol() {
        for (i, line) in text.lines().enumerate() {
            for name in labels(split(line).1) {
                places.entry(name).or_default().push(format!("{path}:{}", i + 1));
            }
        }
    }
    let alone: Vec<_> = places.iter().filter(|(_, places)| places.len() < 2).collect();
    assert!(alone.is_empty(), "a name on one side only: {alone:?}");
    let used: BTreeSet<String> = places.into_keys().collect();
    let documented = first_cells(&document("memory-model.md"), "The edges");
    let missing: Vec<_> = used.difference(&documented).collect();
    let unused: Vec<_> = documented.difference(&used).collect();
    assert!(missing.is_empty(), "in the code and not in docs/memory-model.md: {missing:?}");
    assert!(unused.is_empty(), "in docs/memory-model.md and not in the code: {unused:?}");
}

#[test]
fn the_files_that_may_be_unsafe_are_those_of_the_document() {
    let unsafe_files: BTreeSet<String> = sources(&[
        "bus/src",
        "bus-derive/src",
        "bus-sys/src",
        "cli/src",
        "bench/src",
        "bench/benches",
    ])
    .into_iter()
    .filter(|source| source.text.lines().any(|line| split(line).0.contains("allow(unsafe_code)")))
    .map(|source| source.path)
    .collect();
    let documented = first_cells(&document("unsafe.md"), "The files");
    let missing: Vec<_> = unsafe_files.difference(&documented).collect();
    let unused: Vec<_> = documented.difference(&unsafe_files).collect();
    assert!(missing.is_empty(), "allow unsafe code and are not in docs/unsafe.md: {missing:?}");
    assert!(unused.is_empty(), "in docs/unsafe.md and allow no unsafe code: {unused:?}");
}

/// The cells of the rows of the tables below a heading.
fn rows(document: &str, heading: &str) -> Vec<Vec<String>> {
    let section = document.split("\n## ").find(|section| section.starts_with(heading));
    let lines = section.unwrap_or_else(|| panic!("there is no section {heading}")).lines();
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect();
    let tables = lines.filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    tables.map(cells).skip(2).collect()
}

/// What stands in backquotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The text of all sources below `folder` whose path begins so.
fn texts(folder: &str, begin: &str) -> String {
    let mut sources = sources(&[folder]);
    sources.retain(|source| source.path.starts_with(begin));
    sources.into_iter().map(|source| source.text).collect()
}

/// Crash points by the file that has them.
fn crash_points() -> BTreeMap<String, String> {
    let mut points = BTreeMap::new();
    for Source { path, text } in protocol() {
        let calls = text.split("crash::point(\"").skip(1);
        let names = calls.filter_map(|rest| rest.split('"').next());
        // Models have points of their own.
        let names = names.filter(|_| !path.starts_with("bus/src/models"));
        points.extend(names.map(|name| (name.to_owned(), path.clone())));
    }
    assert!(points.len() > 50, "only {} crash points were found", points.len());
    points
}

#[test]
fn every_crash_point_has_a_row_and_every_row_a_crash_point() {
    let points: BTreeSet<String> = crash_points().into_keys().collect();
    let documented = first_cells(&document("crash-matrix.md"), "The points");
    let missing: Vec<_> = points.difference(&documented).collect();
    let unused: Vec<_> = documented.difference(&points).collect();
    assert!(missing.is_empty(), "in the code and not in docs/crash-matrix.md: {missing:?}");
    assert!(unused.is_empty(), "in docs/crash-matrix.md and not in the code: {unused:?}");
}

#[test]
fn every_crash_point_has_a_test_of_real_processes() {
    let matrix = document("crash-matrix.md");
    let tests = texts("bus/tests", "bus/tests/crash");
    let functions: BTreeMap<String, Vec<String>> = rows(&matrix, "What each test does")
        .into_iter()
        .map(|row| (row[0].clone(), quoted(&row[1])))
        .collect();
    for function in functions.values().flatten() {
        assert!(tests.contains(&format!("fn {function}(")), "there is no test {function}");
        assert!(tests.contains(&format!("::{function},")), "the test {function} is not run");
    }
    for row in rows(&matrix, "The points") {
        let [point, who, seen, repaired, test, _] = &row[..] else { panic!("{row:?}") };
        let name = point.trim_matches('`');
        let is_complete = [who, seen, repaired, test].iter().all(|cell| !cell.is_empty());
        assert!(is_complete, "the row of {point} is not complete");
        for test in test.split(", ") {
            assert!(functions.contains_key(test), "{point}: there is no test {test}");
        }
        let is_named = [format!("\"{name}\""), format!("\"{name}:")];
        assert!(is_named.iter().any(|name| tests.contains(name)), "no test goes to {point}");
    }
}

#[test]
fn a_model_kills_where_the_matrix_says_so() {
    let models = texts("bus/src", "bus/src/models");
    let points = crash_points();
    let mut killed = 0;
    for row in rows(&document("crash-matrix.md"), "The points") {
        let (point, model) = (row[0].trim_matches('`'), &row[5]);
        let publishes = ["bus/src/ring/exclusive.rs", "bus/src/ring/shared.rs"];
        let needs = publishes.contains(&&*points[point]);
        assert!(!needs || !model.is_empty(), "no model, and no reason for it: {point}");
        for name in quoted(model).into_iter().filter(|name| !points.contains_key(name)) {
            killed += 1;
            assert!(models.contains(&format!("fn {name}(")), "{point}: there is no model {name}");
            // A model may have points of its own: naming one is not killing there.
            let kill = format!("\"{point}\"");
            let kills =
                models.matches(&kill).count() > models.matches(&format!("point({kill})")).count();
            assert!(kills, "no model kills at {point}");
        }
    }
    assert!(killed >= 10, "only {killed} models were found");
}
