//! The bodies of the fuzz targets: functions of bytes, so that `tests/replay.rs` runs the corpus without a fuzzer.

pub mod attach;
pub mod attach_files;
pub mod control;
pub mod corrupt;
pub mod input;
pub mod model;
pub mod ops;
pub mod schema;
pub mod stage;

/// A target, by its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("attach", attach::run),
    ("attach_files", attach_files::run),
    ("control", control::run),
    ("corrupt", corrupt::run),
    ("ops", ops::run),
    ("schema", schema::run),
];
