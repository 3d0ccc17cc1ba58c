//! Guarded topics: for subscribers of other users, whom publishers need not trust.
//!
//! | file | what it holds |
//! |---|---|
//! | `message` | what client and broker say to each other: bytes to values and back, nothing else |
//! | `policy` | who may do what |
//! | `files` | a topic in files without a name, sealed |
//! | `listener` | the socket: made where nobody else can put one, and removed only if it is its own |
//! | `broker` | answers who connects: asks the policy, hands out descriptors |
//! | `served` | a topic of a broker: which entry goes to whom, and what is handed out with it |
//! | `client` | connects, asks, checks and maps what it was handed |
//!
//! `docs/guarded.md` says against whom this protects whom, and what each attack gets.

pub(crate) mod broker;
pub(crate) mod client;
pub(crate) mod files;
pub(crate) mod listener;
pub(crate) mod message;
pub(crate) mod policy;
pub(crate) mod served;
