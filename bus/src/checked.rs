//! Field types of which not every byte is a value: checked when they are read, so that they are plain data all the same.
//!
//! [`FixedStr`] is text, [`Bool`] a truth value, [`Enum`] one of a set of names. Each is as large as the bytes that it wraps, and
//! reading one costs the check.
#![allow(unsafe_code)] // says of the three what they are; of `Enum` also that it is plain data, which bytemuck's derive cannot

use core::fmt;

use bytemuck::{Pod, Zeroable};

use crate::kind::{Kind, Scalar, Variant};
use crate::message::{Field, Message};

/// Text of up to `N` bytes of UTF-8, followed by NUL bytes.
///
/// ```
/// use shmbus::FixedStr;
///
/// let symbol = FixedStr::<8>::new("MSFT")?;
/// assert_eq!(symbol.as_str()?, "MSFT");
/// assert!(FixedStr::<3>::new("MSFT").is_err()); // never cut short silently
/// # Ok::<(), shmbus::TextError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct FixedStr<const N: usize>([u8; N]);

/// A text cannot be written to, or read from, a [`FixedStr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// It is longer than the field.
    #[error("the text has {len} bytes, the field takes {max}")]
    TooLong {
        /// Bytes of the text.
        len: usize,
        /// Bytes of the field.
        max: usize,
    },
    /// It has a NUL, which would end it.
    #[error("the text has a NUL at byte {at}")]
    Nul {
        /// Where.
        at: usize,
    },
    /// The bytes are not UTF-8 followed by NULs.
    #[error("byte {at} of the field is not UTF-8, or follows the NUL that ends the text")]
    Invalid {
        /// Where.
        at: usize,
    },
}

impl<const N: usize> FixedStr<N> {
    /// `text`, whole.
    ///
    /// # Errors
    /// It is longer than `N` bytes, or has a NUL.
    pub fn new(text: &str) -> Result<Self, TextError> {
        if text.len() > N {
            return Err(TextError::TooLong { len: text.len(), max: N });
        }
        if let Some(at) = text.bytes().position(|byte| byte == 0) {
            return Err(TextError::Nul { at });
        }
        let mut bytes = [0; N];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(FixedStr(bytes))
    }

    /// The text.
    ///
    /// # Errors
    /// Its publisher wrote what is not text.
    pub fn as_str(&self) -> Result<&str, TextError> {
        text_of(&self.0)
    }
}

/// The text in the bytes of a [`FixedStr`].
pub(crate) fn text_of(bytes: &[u8]) -> Result<&str, TextError> {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (text, rest) = bytes.split_at(len);
    if let Some(at) = rest.iter().position(|byte| *byte != 0) {
        return Err(TextError::Invalid { at: len + at });
    }
    core::str::from_utf8(text).map_err(|error| TextError::Invalid { at: error.valid_up_to() })
}

impl<const N: usize> Default for FixedStr<N> {
    fn default() -> Self {
        FixedStr([0; N])
    }
}

impl<const N: usize> TryFrom<&str> for FixedStr<N> {
    type Error = TextError;

    fn try_from(text: &str) -> Result<Self, TextError> {
        FixedStr::new(text)
    }
}

impl<const N: usize> core::str::FromStr for FixedStr<N> {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        FixedStr::new(text)
    }
}

impl<const N: usize> fmt::Debug for FixedStr<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_str() {
            Ok(text) => text.fmt(f),
            Err(_) => write!(f, "b\"{}\"", self.0.escape_ascii()),
        }
    }
}

// SAFETY: `N` bytes (`repr(transparent)`); none do not compile.
unsafe impl<const N: usize> Message for FixedStr<N> {
    const NAME: &'static str = "text";
    const VERSION: u32 = 0;
    const FIELDS: &'static [Field] = &[];
    const KIND: &'static Kind = {
        assert!(N > 0, "a text in a message has room for at least one byte");
        &Kind::Text(N)
    };
}

/// A number that stands for no value of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given} is no value of {name}")]
pub struct UnknownValue {
    /// The enum, or `bool`.
    pub name: &'static str,
    /// The number.
    pub given: i128,
}

/// A truth value: one byte, 0 or 1.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Bool(u8);

impl Bool {
    /// `value`, as a byte.
    pub const fn new(value: bool) -> Bool {
        Bool(value as u8)
    }

    /// The value.
    ///
    /// # Errors
    /// Its publisher wrote neither 0 nor 1.
    pub const fn get(self) -> Result<bool, UnknownValue> {
        match self.0 {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(UnknownValue { name: "bool", given: other as i128 }),
        }
    }
}

impl From<bool> for Bool {
    fn from(value: bool) -> Bool {
        Bool::new(value)
    }
}

impl fmt::Debug for Bool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Ok(value) => value.fmt(f),
            Err(unknown) => write!(f, "Bool({})", unknown.given),
        }
    }
}

// SAFETY: one byte (`repr(transparent)`).
unsafe impl Message for Bool {
    const NAME: &'static str = "bool";
    const VERSION: u32 = 0;
    const FIELDS: &'static [Field] = &[];
    const KIND: &'static Kind = &Kind::Bool;
}

mod sealed {
    pub trait Sealed {}
}

/// The integer that an enum is in memory: `#[repr(u8)]` to `#[repr(i64)]`.
pub trait EnumRepr: Pod + Eq + Send + Sync + sealed::Sealed {
    #[doc(hidden)]
    const SCALAR: Scalar;
    #[doc(hidden)]
    fn value(self) -> i128;
}

macro_rules! reprs {
    ($($type:ident $scalar:ident),+) => {$(
        impl sealed::Sealed for $type {}
        impl EnumRepr for $type {
            const SCALAR: Scalar = Scalar::$scalar;
            fn value(self) -> i128 {
                self.into()
            }
        }
    )+};
}

reprs!(u8 U8, i8 I8, u16 U16, i16 I16, u32 U32, i32 I32, u64 U64, i64 I64);

/// An enum without data that a message may carry, as [`Enum`].
///
/// Implemented by [`derive(MessageEnum)`](derive@crate::MessageEnum). Names and values stand in the schema, so that tools print names.
pub trait MessageEnum: Copy + Send + Sync + 'static {
    /// Its name in every language: chosen by `#[message(name = "md.Side")]`, else that of the enum.
    const NAME: &'static str;
    /// Names and values.
    const VARIANTS: &'static [Variant];
    /// The integer of its `#[repr]`.
    type Repr: EnumRepr;
    /// As an integer.
    fn to_repr(self) -> Self::Repr;
    /// The variant of an integer, if there is one.
    fn from_repr(repr: Self::Repr) -> Option<Self>;
}

/// A value of the enum `E` as a message carries it: its integer, checked when it is read.
///
/// ```
/// use shmbus::{Enum, MessageEnum};
///
/// #[derive(Clone, Copy, Debug, PartialEq, MessageEnum)]
/// #[repr(u8)]
/// enum Side { Buy = 1, Sell = 2 }
///
/// let side = Enum::new(Side::Sell);
/// assert_eq!(side.get(), Ok(Side::Sell));
/// let stale: Enum<Side> = bytemuck::Zeroable::zeroed();
/// assert_eq!(stale.get().unwrap_err().to_string(), "0 is no value of Side");
/// ```
#[repr(transparent)]
pub struct Enum<E: MessageEnum>(E::Repr);

impl<E: MessageEnum> Enum<E> {
    /// `value`, as its integer.
    pub fn new(value: E) -> Self {
        Enum(value.to_repr())
    }

    /// The value.
    ///
    /// # Errors
    /// Its publisher wrote an integer that is none.
    pub fn get(self) -> Result<E, UnknownValue> {
        let unknown = UnknownValue { name: E::NAME, given: self.0.value() };
        E::from_repr(self.0).ok_or(unknown)
    }
}

impl<E: MessageEnum> Clone for Enum<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E: MessageEnum> Copy for Enum<E> {}

// SAFETY: it is its integer (`repr(transparent)`), for which all zeros are a value (`EnumRepr: Pod`).
unsafe impl<E: MessageEnum> Zeroable for Enum<E> {}
// SAFETY: it is its integer, which is `Pod`; `E` itself is not in it.
unsafe impl<E: MessageEnum> Pod for Enum<E> {}

impl<E: MessageEnum> PartialEq for Enum<E> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<E: MessageEnum> Eq for Enum<E> {}

impl<E: MessageEnum> From<E> for Enum<E> {
    fn from(value: E) -> Self {
        Enum::new(value)
    }
}

impl<E: MessageEnum> fmt::Debug for Enum<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0.value();
        match E::VARIANTS.iter().find(|variant| variant.value == value) {
            Some(variant) => f.write_str(variant.name),
            None => write!(f, "{}({value})", E::NAME),
        }
    }
}

// SAFETY: it is its integer (`repr(transparent)`), whose scalar `EnumRepr` states, which nobody else implements.
unsafe impl<E: MessageEnum> Message for Enum<E> {
    const NAME: &'static str = E::NAME;
    const VERSION: u32 = 0;
    const FIELDS: &'static [Field] = &[];
    const KIND: &'static Kind = &Kind::of_enum(E::NAME, E::Repr::SCALAR, E::VARIANTS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_whole_or_refused() {
        assert_eq!(FixedStr::<4>::new("abcd").unwrap().as_str(), Ok("abcd"));
        assert_eq!(FixedStr::<4>::new("").unwrap().as_str(), Ok(""));
        let too_long = Err(TextError::TooLong { len: 5, max: 4 });
        assert_eq!(FixedStr::<4>::new("abcde"), too_long);
        assert_eq!(FixedStr::<2>::new("äö"), Err(TextError::TooLong { len: 4, max: 2 }));
        assert_eq!(FixedStr::<4>::new("a\0"), Err(TextError::Nul { at: 1 }));
    }

    #[test]
    fn bytes_that_are_no_text_are_an_error_when_they_are_read() {
        assert_eq!(FixedStr(*b"a\0b\0").as_str(), Err(TextError::Invalid { at: 2 }));
        assert_eq!(FixedStr(*b"ab\xff\0").as_str(), Err(TextError::Invalid { at: 2 }));
        assert_eq!(format!("{:?}", FixedStr(*b"ab\xff\0")), r#"b"ab\xff\x00""#);
    }

    #[test]
    fn a_bool_is_zero_or_one() {
        assert_eq!(Bool(0).get(), Ok(false));
        assert_eq!(Bool::from(true).get(), Ok(true));
        assert_eq!(Bool(2).get(), Err(UnknownValue { name: "bool", given: 2 }));
    }
}
