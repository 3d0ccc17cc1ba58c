//! Claimed slot -> `&mut T`, pinned slot -> `&T`. The one place that makes references to payload bytes.
//!
//! Two facts make them sound. *Nobody writes what somebody reads*: a slot is written only by the publisher whose sequence it is, before
//! its stamp; it is read only behind its stamp, in a block that the reader pins or holds; and a pinned block is not reused
//! (`docs/ring.md`, section 6). *Every byte is valid*: a payload is plain data without padding, or bytes.
//!
//! This trusts everybody who can write the topic's files to follow the protocol, as [`Topic::open`](crate::Topic::open) states.
#![allow(unsafe_code)] // casts between slots and payloads; says that messages are plain data

use core::mem::MaybeUninit;

use bytemuck::{Pod, TransparentWrapper, Zeroable};

use crate::atomics::{Acquire, AtomicU64, Relaxed, fence};
use crate::layout::{PAGE, PAYLOAD_BYTES, PAYLOAD_FIXED, PAYLOAD_SEQUENCE};
use crate::message::{Message, TypeError};
use crate::region::Region;
use crate::ring::{Corrupt, SlotAt, message_stamp};
use crate::schema::{Schema, Type};

mod sealed {
    pub trait Sealed {}
    impl<T: crate::message::Message> Sealed for T {}
    impl<T: crate::message::Message> Sealed for [T] {}
    impl Sealed for crate::raw::Raw {}
}

/// What a topic carries: a [`Message`], `[T]` of messages whose number each publish chooses (`[u8]` are bytes without a schema), or
/// [`Raw`](crate::Raw).
///
/// A message is plain data that describes itself: fixed-width integers, floats, arrays and
/// `#[repr(C)]` structs of them without padding, pointers, `bool` or `char`. So no byte of the publisher's memory leaks and no byte from another
/// process is an invalid value. The alignment may be up to 4096.
pub trait Payload: sealed::Sealed + Send + Sync + 'static {
    /// Bytes of every message, or `None` where each has its own length.
    #[doc(hidden)]
    const SIZE: Option<usize>;
    /// Whether it is the topic, and not the type, that says which lengths a message can have.
    #[doc(hidden)]
    const ANY: bool = false;
    /// What the header of a topic says about its messages; or why the type is not what it says.
    #[doc(hidden)]
    fn carried() -> Result<Carried, TypeError>;
    #[doc(hidden)]
    fn bytes(&self) -> &[u8];
    #[doc(hidden)]
    fn from_bytes(bytes: &[u8]) -> Option<&Self>;
    #[doc(hidden)]
    fn from_bytes_mut(bytes: &mut [u8]) -> Option<&mut Self>;
}

/// A message, as bytemuck knows it: so that bytemuck does the casts, and messages need not be its `Pod`.
#[derive(Clone, Copy, TransparentWrapper)]
#[repr(transparent)]
struct Plain<T>(T);

// SAFETY: all zeros are a value, as each pattern of bits is (`Message`).
unsafe impl<T: Message> Zeroable for Plain<T> {}
// SAFETY: each pattern of bits is a value, no byte is padding, nothing is changed through a shared reference (`Message`); no pointers, `Copy`, `'static`.
unsafe impl<T: Message> Pod for Plain<T> {}

/// The bytes of a message, to be written.
pub(crate) fn bytes_of_mut<T: Message>(message: &mut T) -> &mut [u8] {
    bytemuck::bytes_of_mut(Plain::wrap_mut(message))
}

/// What a topic carries, as its header says it: messages of a schema, or bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    pub(crate) schema: Option<Schema>,
}

impl Carried {
    pub(crate) fn bytes() -> Carried {
        Carried { schema: None }
    }

    /// A sequence of `u8` is bytes.
    pub(crate) fn of(schema: Schema) -> Carried {
        let is_bytes =
            schema.is_sequence() && matches!(schema.root(), Type::Scalar(crate::Scalar::U8));
        Carried { schema: (!is_bytes).then_some(schema) }
    }

    /// The text of the schema; empty where there is none.
    pub(crate) fn text(&self) -> String {
        self.schema.as_ref().map_or_else(String::new, Schema::to_string)
    }

    /// Whether whoever opens the topic reads the schema that its creator meant.
    pub(crate) fn check_text(&self) -> Result<(), TypeError> {
        let Some(schema) = &self.schema else { return Ok(()) };
        let parsed = Schema::parse(&schema.to_string());
        if parsed.as_ref() == Ok(schema) {
            return Ok(());
        }
        Err(TypeError::Schema { type_name: schema.name(), source: parsed.err() })
    }

    pub(crate) fn kind(&self) -> u32 {
        match &self.schema {
            None => PAYLOAD_BYTES,
            Some(schema) if schema.is_sequence() => PAYLOAD_SEQUENCE,
            Some(_) => PAYLOAD_FIXED,
        }
    }

    pub(crate) fn align(&self) -> u64 {
        self.schema.as_ref().map_or(8, Schema::align)
    }

    /// Every length of a message is a multiple of this.
    pub(crate) fn unit(&self) -> u64 {
        self.schema.as_ref().map_or(1, Schema::size)
    }

    /// Bytes of every message, or `None` where each has its own length.
    pub(crate) fn size(&self) -> Option<u64> {
        self.schema.as_ref().filter(|schema| !schema.is_sequence()).map(Schema::size)
    }

    /// Whether a message can have `len` bytes, as far as its type goes.
    #[inline]
    pub(crate) fn has(&self, len: u64) -> bool {
        self.size().map_or_else(|| len.is_multiple_of(self.unit()), |size| len == size)
    }

    pub(crate) fn type_name(&self) -> String {
        self.schema.as_ref().map_or_else(|| "[u8]".to_owned(), Schema::name)
    }
}

/// The schema of `T`, which has the size and the alignment of `T`: the schema is compared with the topic's header, and what is written has the size of `T`.
fn described<T: Message>() -> Result<Schema, TypeError> {
    let type_name = core::any::type_name::<T>();
    let (size, align) = (size_of::<T>() as u64, align_of::<T>() as u64);
    if size == 0 {
        return Err(TypeError::ZeroSized { type_name });
    }
    let schema = Schema::of::<T>();
    let (described_size, described_align) = (schema.size(), schema.align());
    if (size, align) != (described_size, described_align) {
        return Err(TypeError::Layout { type_name, size, align, described_size, described_align });
    }
    Ok(schema)
}

impl<T: Message> Payload for T {
    const SIZE: Option<usize> = Some(size_of::<T>());

    fn carried() -> Result<Carried, TypeError> {
        Ok(Carried::of(described::<T>()?))
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(Plain::wrap_ref(self))
    }

    #[inline]
    fn from_bytes(bytes: &[u8]) -> Option<&T> {
        bytemuck::try_from_bytes(bytes).ok().map(Plain::peel_ref)
    }

    #[inline]
    fn from_bytes_mut(bytes: &mut [u8]) -> Option<&mut T> {
        bytemuck::try_from_bytes_mut(bytes).ok().map(Plain::peel_mut)
    }
}

impl<T: Message> Payload for [T] {
    const SIZE: Option<usize> = None;

    fn carried() -> Result<Carried, TypeError> {
        Ok(Carried::of(described::<T>()?.into_sequence()))
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(Plain::wrap_slice(self))
    }

    #[inline]
    fn from_bytes(bytes: &[u8]) -> Option<&[T]> {
        bytemuck::try_cast_slice(bytes).ok().map(Plain::peel_slice)
    }

    #[inline]
    fn from_bytes_mut(bytes: &mut [u8]) -> Option<&mut [T]> {
        bytemuck::try_cast_slice_mut(bytes).ok().map(Plain::peel_slice_mut)
    }
}

/// Copies `message` into the slot of the sequence that the caller is about to commit.
///
/// # Safety
/// `at` is the caller's next slot (`ExclusiveRing::next_slot`), nothing else refers to its payload, the region is writable,
/// and `bytes.len() <= payload_max`.
#[inline]
pub(crate) unsafe fn write<T: Payload + ?Sized>(region: &Region, at: SlotAt, bytes: &[u8]) {
    debug_assert!(bytes.len() <= region.geometry().payload_max as usize);
    debug_assert!(region.is_writable());
    let to = region.payload(at).as_ptr();
    if T::SIZE.is_some_and(|size| size <= WORDS_MAX && size.is_multiple_of(8)) {
        for (index, word) in bytes.chunks_exact(8).enumerate() {
            let word = u64::from_ne_bytes(word.try_into().unwrap_or_default());
            // SAFETY: inside the payload, which has `payload_max` writable bytes that are nobody else's until the stamp (the caller's promise).
            let to = unsafe { to.add(index * 8) };
            // SAFETY: as above; a payload begins at a multiple of 8, and atomics are valid whatever the bytes.
            unsafe { &*to.cast::<AtomicU64>() }.store(word, Relaxed);
        }
        return;
    }
    // SAFETY: `to` has `payload_max` writable bytes that are nobody else's until the stamp (the caller's promise), in a mapping
    // that no Rust reference covers, so they do not overlap `bytes`.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
}

/// Messages of a type of up to this many bytes are copied word by word.
///
/// Their fields were written just before, as a rule one by one: a load of 16 bytes that two stores have written has to wait until both have come to the
/// cache, behind all the stores before them, and those wait for lines of other cores. Words are forwarded from the store buffer. Atomics, because nothing else keeps
/// the compiler from making the wide loads of it.
const WORDS_MAX: usize = 64;

/// Calls `f` with a copy of a message of few bytes, so that one that was built in registers need not be in memory for the sake of a call that an exclusive publisher never makes.
/// Larger ones are passed as they are: no message is ever on the stack because of this.
#[inline(always)]
pub(crate) fn apart<T: Payload + ?Sized, R>(bytes: &[u8], f: impl FnOnce(&[u8]) -> R) -> R {
    match T::SIZE {
        Some(size) if size <= WORDS_MAX => {
            assert!(bytes.len() <= size);
            let mut copy = MaybeUninit::<[u64; WORDS_MAX / 8]>::uninit();
            let to = copy.as_mut_ptr().cast::<u8>();
            // SAFETY: `copy` has `WORDS_MAX` bytes, which nobody else knows.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
            // SAFETY: as many bytes as were just written.
            f(unsafe { core::slice::from_raw_parts(to, bytes.len()) })
        }
        _ => f(bytes),
    }
}

/// Has the line a page behind a slot's first one fetched, to be written soon: with small messages the line of the slot that many further on. For an
/// exclusive publisher.
///
/// Subscribers read that line a lap ago and have it in their caches. A publisher close before one of them gets it back late: the stores of six or so messages
/// fill the store buffer, and what is fetched further ahead the subscriber's hardware takes away again, which reads ahead as well, but, as a rule, not
/// beyond the page. Nothing depends on it: where the slots of the next block lie elsewhere, a line is fetched that nobody needs.
#[inline]
pub(crate) fn fetch_ahead(region: &Region, at: SlotAt) {
    shmbus_sys::prefetch::for_writing(region.payload(at).as_ptr().wrapping_add(PAGE as usize));
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

/// Copies the message in a slot whose stamp of `sequence` was seen, by atomic loads: for who does not trust its publisher to leave it alone. Nothing refers to
/// the shared bytes as plain memory; where the stamp is another one afterwards, what was copied is none.
pub(crate) fn copy(
    region: &Region,
    at: SlotAt,
    sequence: u64,
    into: &mut [u8],
) -> Result<(), Corrupt> {
    let slot = region.slot(at);
    let len = slot.len.load(Relaxed); // stored before the stamp
    let max = region.geometry().payload_max;
    if len > max || len as usize != into.len() {
        return Err(Corrupt::Length { len, max });
    }
    for (bytes, word) in into.chunks_mut(8).zip(region.words(at)) {
        bytes.copy_from_slice(&word.load(Relaxed).to_ne_bytes()[..bytes.len()]);
    }
    fence(Acquire); // [observed]: of whatever was written there meanwhile, the stamp that went before it
    match slot.stamp.load(Relaxed) == message_stamp(sequence) {
        true => Ok(()),
        false => Err(Corrupt::Stream),
    }
}
