//! The measurements across processes, one file each: which cases there are, what is kept, which columns the table has, and the figure.

pub(crate) mod check;
pub(crate) mod latency;
pub(crate) mod throughput;
