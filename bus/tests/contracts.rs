//! What is said of processes and locks, and what is so: the statements of `docs/contracts.md`, each with its test.

#![allow(unsafe_code)] // fork, exec, locks of the C library in memory that children share

#[path = "contracts/children.rs"]
mod children;
#[path = "contracts/files.rs"]
mod files;
#[path = "contracts/posix.rs"]
mod posix;

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn document() -> String {
    std::fs::read_to_string(root().join("docs/contracts.md")).unwrap()
}

#[test]
fn every_statement_names_a_test_that_exists_and_a_verdict() {
    let mut tests = String::new();
    let mut pending = vec![root().join("bus"), root().join("bus-sys")];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            tests += &std::fs::read_to_string(path).unwrap();
        }
    }
    let mut count = 0;
    let document = document();
    let tables = document.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    for line in tables {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let names: Vec<&str> = cells.last().unwrap().split('`').skip(1).step_by(2).collect();
        let is_name = |name: &&str| {
            name.contains('_')
                && name.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        for name in names.iter().filter(|name| is_name(name)) {
            count += 1;
            let is_test = [format!("fn {name}("), format!("as {name} ="), format!("::{name},")]
                .iter()
                .any(|form| tests.contains(form));
            assert!(is_test, "there is no test {name}");
        }
    }
    assert!(count > 30, "only {count} names were found: this test looks in the wrong place");
    for part in ["Processes", "Locks and semaphores"] {
        let statements = document.split("\n## ").find(|text| text.starts_with(part)).unwrap();
        for line in statements.lines().filter(|line| line.starts_with("| ")).skip(1) {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
            assert_eq!(cells.len(), 3, "{line}");
            assert!(cells[1].starts_with("true") || cells[1].starts_with("corrected"), "{line}");
            assert!(cells[2].contains('`'), "no test: {line}");
        }
    }
}
