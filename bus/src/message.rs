//! What a message is: a name, a version and fields, known at compile time, from which the schema text and the layout hash are made.
//!
//! A [`Message`] is plain data whose every byte belongs to a named field. [`derive(Message)`](derive@crate::Message) describes a
//! struct and refuses, at compile time, what two processes could read differently. `kind` has the description that it makes, `schema` the same at run time, as text.
#![allow(unsafe_code)] // says of numbers and arrays what they are

use crate::kind::{FNV_OFFSET, Kind, Scalar};
use crate::schema::SchemaError;

/// Plain data that describes itself: what a topic carries.
///
/// Implemented by [`derive(Message)`](derive@crate::Message) for `#[repr(C)]` structs, and here for integers of 8 to 64 bits, floats,
/// arrays, [`FixedStr`](crate::FixedStr), [`Bool`](crate::Bool) and [`Enum`](crate::Enum). Not meant to be implemented by hand.
///
/// A message is plain data: no byte of the publisher's memory leaks by it, and no byte from another process is an invalid value. All of this is known at compile time; nothing of it
/// costs anything when a message is published or received. The derive needs no other one beside it but `Clone` and `Copy`. bytemuck's `Pod` and `Zeroable` may stand beside it, for
/// programs that cast messages themselves, or keep one in a [`RobustMutex`](crate::sync::RobustMutex): bytemuck is [here](crate::bytemuck).
///
/// # Safety
/// - Every byte of the type belongs to a value that is written, so that none is padding.
/// - Every pattern of bits is a value of the type: there is no `bool`, `char`, enum, reference or pointer in it.
/// - Nothing in it can be changed through a shared reference: no cells, no atomics.
/// - [`KIND`](Message::KIND) describes it: its [size](Kind::size) and alignment are those of the type, at least 1 and at most 4096; and what it describes stands where it says, so that
///   who reads the bytes by the schema alone reads what was written.
///
/// The derive keeps all of this. Size and alignment are compared all the same whenever a topic is created or opened: [`TypeError`](crate::TypeError).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message, nor a field of one",
    label = "neither a number, nor an array, nor a type that derives `Message`",
    note = "a struct is one with `#[derive(Clone, Copy, Message)] #[repr(C)]`",
    note = "an enum is a field as `Enum<{Self}>`, with `#[derive(Clone, Copy, MessageEnum)]`"
)]
pub unsafe trait Message: Copy + Send + Sync + 'static {
    /// Its name in every language: chosen by `#[message(name = "md.Quote")]`, else that of the struct. An array has its element's.
    const NAME: &'static str;
    /// Its version: chosen by `#[message(version = 2)]`, else 1; 0 of what is not a struct.
    const VERSION: u32;
    /// Its fields in order, padding among them; none of what is not a struct.
    const FIELDS: &'static [Field];
    /// What it is, with all that is in it.
    const KIND: &'static Kind;
    /// FNV-1a, 64 bits, over name, version, size, alignment and every field; `docs/schema.md` says over which bytes.
    const LAYOUT_HASH: u64 = Self::KIND.hash(FNV_OFFSET);
}

/// A type whose [`Message`] was implemented by hand is not what it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TypeError {
    /// Its size or alignment is not that of its description.
    #[error(
        "{type_name} has {size} bytes aligned to {align}, and its KIND describes {described_size} bytes aligned to {described_align}"
    )]
    Layout {
        /// Name of the type.
        type_name: &'static str,
        /// `size_of` the type.
        size: u64,
        /// `align_of` the type.
        align: u64,
        /// Size of what `KIND` describes.
        described_size: u64,
        /// Alignment of what `KIND` describes.
        described_align: u64,
    },
    /// It has no bytes.
    #[error("{type_name} has no bytes: a message has at least one")]
    ZeroSized {
        /// Name of the type.
        type_name: &'static str,
    },
    /// Its description cannot be read back: a name that is none, or a limit that is exceeded.
    #[error("the description of {type_name} is not a schema")]
    Schema {
        /// Name of the message type.
        type_name: String,
        /// What is wrong with it; nothing if another schema is read back.
        source: Option<SchemaError>,
    },
}

/// A field of a message.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name. That of padding begins with `_`.
    pub name: &'static str,
    /// What it is.
    pub kind: &'static Kind,
    /// Bytes from the start of the struct.
    pub offset: usize,
}

impl Field {
    /// A field called `name` at `offset`.
    pub const fn new(name: &'static str, kind: &'static Kind, offset: usize) -> Field {
        Field { name, kind, offset }
    }

    /// Whether it is padding, which tools do not show.
    pub const fn is_padding(&self) -> bool {
        matches!(self.name.as_bytes().first(), Some(b'_'))
    }
}

macro_rules! scalars {
    ($($type:ident $scalar:ident),+) => {$(
        // SAFETY: a number is its scalar.
        unsafe impl Message for $type {
            const NAME: &'static str = stringify!($type);
            const VERSION: u32 = 0;
            const FIELDS: &'static [Field] = &[];
            const KIND: &'static Kind = &Kind::Scalar(Scalar::$scalar);
        }
    )+};
}

scalars!(u8 U8, i8 I8, u16 U16, i16 I16, u32 U32, i32 I32, u64 U64, i64 I64, f32 F32, f64 F64);

// SAFETY: `N` elements without a gap, each as `T::KIND` says; an empty array does not compile (`of_array`).
unsafe impl<T: Message, const N: usize> Message for [T; N] {
    const NAME: &'static str = T::NAME;
    const VERSION: u32 = T::VERSION;
    const FIELDS: &'static [Field] = &[];
    const KIND: &'static Kind = &Kind::of_array(T::KIND, N);
}

/// For the words of an error: a type whose name is that of a well-known one that is no field. What it is decides, so that another type of that name is a field all the same.
macro_rules! hints {
    ($($name:ident $message:literal),+ $(,)?) => {$(
        #[doc(hidden)]
        #[diagnostic::on_unimplemented(message = $message, label = "not a field of a message")]
        pub trait $name: Sized {
            const KIND: &'static Kind;
        }

        #[diagnostic::do_not_recommend]
        impl<T: Message> $name for T {
            const KIND: &'static Kind = <T as Message>::KIND;
        }
    )+};
}

hints!(
    NoUsize "the size of `{Self}` depends on the machine: use `u64` or `u32`",
    NoIsize "the size of `{Self}` depends on the machine: use `i64` or `i32`",
    NoBool "not every byte is a `{Self}`: use `shmbus::Bool`, which is checked when it is read",
    NoChar "not every number is a `{Self}`: use `u32`, or `shmbus::FixedStr`",
    NoLarge "few tools know the 128 bits of `{Self}`: use `[u64; 2]`",
    NoText "the text of `{Self}` lives elsewhere in memory: use `shmbus::FixedStr<N>`, which holds it",
    NoList "the elements of `{Self}` live elsewhere in memory: use an array, or a topic of slices",
    NoPointer "the address in `{Self}` means nothing in another process: put the data itself here, as an array or a message",
    NoNonZero "0 would be an invalid value of `{Self}`: use the plain integer",
    NoOption "the layout of `{Self}` is not fixed: use a value that means none, or a `Bool` beside it",
);
