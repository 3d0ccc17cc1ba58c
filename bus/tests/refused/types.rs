//! Fields that mean nothing in another process, or of which not every byte is a value.
use shmbus::Message;

#[derive(Message)]
#[repr(C)]
struct Everything {
    size: usize,
    offset: isize,
    is_open: bool,
    letter: char,
    large: u128,
    small: [i128; 2],
    pointer: *const u8,
    reference: &'static [u8],
    function: fn(u8) -> u8,
    text: String,
    list: Vec<u8>,
    boxed: std::boxed::Box<u8>,
    perhaps: Option<u8>,
    not_zero: std::num::NonZero<u8>,
    pair: (u8, u8),
    fine: u64,
}

fn main() {}
