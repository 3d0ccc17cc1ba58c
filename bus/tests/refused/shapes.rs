//! Structs without a layout or without names.
use shmbus::Message;

#[derive(Clone, Copy, Message)]
struct NoRepr {
    a: u64,
}

#[derive(Clone, Copy, Message)]
#[repr(transparent)]
struct Transparent {
    a: u64,
    b: (),
}

#[derive(Clone, Copy, Message)]
#[repr(transparent)]
#[message(name = "md.Price", version = 2)]
struct Price(i64);

#[derive(Clone, Copy, Message)]
#[repr(transparent)]
struct Generic2<T>(T);

#[derive(Clone, Copy, Message)]
#[repr(C, packed)]
struct Packed {
    a: u8,
    b: u64,
}

#[derive(Clone, Copy, Message)]
#[repr(C, align(8192))]
struct Aligned {
    a: [u8; 8192],
}

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Generic<T> {
    a: T,
}

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Tuple(u64);

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Empty {}

#[derive(Clone, Copy, Message)]
#[repr(u8)]
enum Side {
    Buy,
}

#[derive(Clone, Copy, Message)]
#[repr(C)]
union Either {
    a: u64,
    b: f64,
}

#[derive(Clone, Copy, Message)]
#[repr(C)]
#[message(name = "md/Quote")]
struct Named {
    a: u64,
}

#[derive(Clone, Copy, Message)]
#[repr(C)]
#[message(title = "md.Quote")]
struct Attribute {
    größe: u64,
}

fn main() {}
