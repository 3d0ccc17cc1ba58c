//! Enums whose size or values are not fixed.
use shmbus::MessageEnum;

#[derive(Clone, Copy, MessageEnum)]
enum NoRepr {
    A,
}

#[derive(Clone, Copy, MessageEnum)]
#[repr(usize)]
enum Machine {
    A,
}

#[derive(Clone, Copy, MessageEnum)]
#[repr(u8)]
enum Data {
    A(u8),
    B { b: u8 },
    C,
}

#[derive(Clone, Copy, MessageEnum)]
#[repr(u8)]
#[message(name = "u8", version = 2)]
enum Named {
    A,
}

#[derive(Clone, Copy, MessageEnum)]
struct NotOne {
    a: u8,
}

fn main() {}
