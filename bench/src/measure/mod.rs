//! The measurements across processes, one file each: which cases there are, what is kept, which columns the table has, and the figure.

pub(crate) mod check;
pub(crate) mod contention;
pub(crate) mod fanout;
pub(crate) mod handover;
pub(crate) mod latency;
pub(crate) mod payload;
pub(crate) mod publish;
pub(crate) mod recovery;
pub(crate) mod throughput;
pub(crate) mod wake;
