//! The derives of bytemuck stand beside that of messages, with no more dependencies than this one.
#![forbid(unsafe_code)]

use shmbus::bytemuck::{self, Pod, Zeroable};
use shmbus::Message;

#[derive(Clone, Copy, Pod, Zeroable, Message)]
#[bytemuck(crate = "shmbus::bytemuck")]
#[repr(C)]
struct Quote {
    bid: i64,
    ask: i64,
}

fn main() {
    let quote = Quote { ask: 1, ..Quote::zeroed() };
    assert_eq!(bytemuck::bytes_of(&quote).len(), <Quote as Message>::KIND.size());
}
