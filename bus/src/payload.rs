//! Claimed slot -> `&mut T`, pinned slot -> `&T`. The one place that makes references to payload bytes.
//!
//! Two facts make them sound. *Nobody writes what somebody reads*: a slot is written only by the publisher whose sequence it is, before
//! its stamp; it is read only behind its stamp, in a block that the reader pins or holds; and a pinned block is not reused
//! (`docs/ring.md`, section 6). *Every byte is valid*: a payload is plain data without padding, or bytes.
//!
//! This trusts everybody who can write the topic's files to follow the protocol, as [`Topic::open`](crate::Topic::open) states.
#![allow(unsafe_code)] // casts between slots and payloads

use bytemuck::{AnyBitPattern, NoUninit};

use crate::layout::{PAYLOAD_BYTES, PAYLOAD_FIXED};
use crate::region::Region;
use crate::ring::{Corrupt, SlotAt};

mod sealed {
    pub trait Sealed {}
    impl<T: bytemuck::NoUninit + bytemuck::AnyBitPattern> Sealed for T {}
    impl Sealed for [u8] {}
}

/// What a topic carries: a plain-data type, or `[u8]` of a length that each message chooses.
///
/// Plain data is what bytemuck calls [`NoUninit`] and [`AnyBitPattern`]: fixed-width integers, floats, arrays and `#[repr(C)]` structs of
/// them without padding, pointers, `bool` or `char`. So no byte of the publisher's memory leaks and no byte from another
/// process is an invalid value. The alignment may be up to 4096.
pub trait Payload: sealed::Sealed + Send + Sync + 'static {
    #[doc(hidden)]
    const KIND: u32;
    #[doc(hidden)]
    const ALIGN: usize;
    /// Bytes of every message, or `None` where each has its own length.
    #[doc(hidden)]
    const SIZE: Option<usize>;
    /// Name of the type without its path: paths differ between programs that mean the same type.
    #[doc(hidden)]
    fn type_name() -> &'static str;
    #[doc(hidden)]
    fn bytes(&self) -> &[u8];
    #[doc(hidden)]
    fn from_bytes(bytes: &[u8]) -> Option<&Self>;
    #[doc(hidden)]
    fn from_bytes_mut(bytes: &mut [u8]) -> Option<&mut Self>;
}

impl<T: NoUninit + AnyBitPattern + Send + Sync> Payload for T {
    const KIND: u32 = PAYLOAD_FIXED;
    const ALIGN: usize = align_of::<T>();
    const SIZE: Option<usize> = Some(size_of::<T>());

    fn type_name() -> &'static str {
        let name = core::any::type_name::<T>();
        let path_end = name.find('<').unwrap_or(name.len());
        name[..path_end].rfind("::").map_or(name, |colons| &name[colons + 2..])
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }

    #[inline]
    fn from_bytes(bytes: &[u8]) -> Option<&T> {
        bytemuck::try_from_bytes(bytes).ok()
    }

    #[inline]
    fn from_bytes_mut(bytes: &mut [u8]) -> Option<&mut T> {
        bytemuck::try_from_bytes_mut(bytes).ok()
    }
}

impl Payload for [u8] {
    const KIND: u32 = PAYLOAD_BYTES;
    const ALIGN: usize = 8;
    const SIZE: Option<usize> = None;

    fn type_name() -> &'static str {
        "[u8]"
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        self
    }

    #[inline]
    fn from_bytes(bytes: &[u8]) -> Option<&[u8]> {
        Some(bytes)
    }

    #[inline]
    fn from_bytes_mut(bytes: &mut [u8]) -> Option<&mut [u8]> {
        Some(bytes)
    }
}

/// Copies `message` into the slot of the sequence that the caller is about to commit.
///
/// # Safety
/// `at` is the caller's next slot (`ExclusiveRing::next_slot`), nothing else refers to its payload, the region is writable,
/// and `bytes.len() <= payload_max`.
#[inline]
pub(crate) unsafe fn write(region: &Region, at: SlotAt, bytes: &[u8]) {
    debug_assert!(bytes.len() <= region.geometry().payload_max as usize);
    debug_assert!(region.is_writable());
    let to = region.payload(at).as_ptr();
    // SAFETY: `to` has `payload_max` writable bytes that are nobody else's until the stamp (the caller's promise), in a mapping
    // that no Rust reference covers, so they do not overlap `bytes`.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
}

/// The payload of the caller's next slot, to be written in place; it shows whatever stood there before.
///
/// # Safety
/// As [`write`], for as long as the result lives.
#[inline]
pub(crate) unsafe fn write_in_place<'a, T: Payload + ?Sized>(
    region: &Region,
    at: SlotAt,
    len: usize,
) -> Option<&'a mut T> {
    debug_assert!(len <= region.geometry().payload_max as usize);
    debug_assert!(region.is_writable());
    let to = region.payload(at).as_ptr();
    // SAFETY: `len` bytes of the slot, initialised (a file's bytes always are), and nobody else's until the stamp.
    let bytes = unsafe { core::slice::from_raw_parts_mut(to, len) };
    T::from_bytes_mut(bytes)
}

/// The payload of a message, as its publisher left it.
///
/// # Safety
/// The caller has seen the message's stamp in this slot (Acquire), in a block that it pins or holds for as long as the
/// result lives.
#[inline]
pub(crate) unsafe fn read<'a, T: Payload + ?Sized>(
    region: &Region,
    at: SlotAt,
    len: u32,
) -> Result<&'a T, Corrupt> {
    let max = region.geometry().payload_max;
    let wrong = Corrupt::Length { len, max };
    if len > max {
        return Err(wrong);
    }
    let from = region.payload(at).as_ptr();
    // SAFETY: in bounds (`len <= payload_max`), initialised, and unchanged while the block is pinned or held: the caller's
    // promise, and the protocol's.
    let bytes = unsafe { core::slice::from_raw_parts(from, len as usize) };
    T::from_bytes(bytes).ok_or(wrong)
}
