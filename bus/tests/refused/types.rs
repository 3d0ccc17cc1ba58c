//! Fields that no type of could be shared, whatever is in it.
use shmbus::Message;

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Everything {
    pointer: *const u8,
    reference: &'static [u8],
    function: fn(u8) -> u8,
    pair: (u8, u8),
    fine: u64,
}

#[derive(Clone, Copy, Message)]
#[repr(transparent)]
struct Pointer(*const u8);

fn main() {}
