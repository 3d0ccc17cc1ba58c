//! Fields that mean nothing in another process, or of which not every byte is a value.
use shmbus::Message;

#[derive(Clone, Copy)]
struct Own(u64);

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Everything {
    size: usize,
    offset: isize,
    is_open: bool,
    letter: char,
    large: u128,
}

#[derive(Message)]
#[repr(C)]
struct Elsewhere {
    text: String,
    list: Vec<u8>,
    boxed: std::boxed::Box<u8>,
}

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Rest {
    perhaps: Option<u8>,
    not_zero: std::num::NonZero<u8>,
    own: Own,
}

fn main() {}
