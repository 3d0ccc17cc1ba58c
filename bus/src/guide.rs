//! The guide, `docs/guide`: its Rust blocks are documentation tests. Compiled for those only; `cli/tests/book.rs` sees that every page
//! is here.

macro_rules! pages {
    ($($page:literal as $name:ident,)*) => {
        $(
            #[doc = include_str!(concat!("../../docs/guide/", $page))]
            struct $name;
        )*
    };
}

pages! {
    "quickstart.md" as Quickstart,
    "concepts.md" as Concepts,
    "guarantees.md" as Guarantees,
    "sizing.md" as Sizing,
    "waiting.md" as Waiting,
    "observing.md" as Observing,
    "guarded.md" as Guarded,
    "locks.md" as Locks,
    "operations.md" as Operations,
    "upkeep.md" as Upkeep,
    "processes.md" as Processes,
    "command-line.md" as CommandLine,
}
