//! Bytes that belong to no field.
use shmbus::{Bool, FixedStr, Message};

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Before {
    is_open: Bool,
    symbol: FixedStr<11>,
    qty: u64,
}

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Behind {
    price: u64,
    grid: [[u16; 3]; 2],
}

#[derive(Clone, Copy, Message)]
#[repr(C, align(64))]
struct Aligned {
    a: u64,
}

fn main() {}
