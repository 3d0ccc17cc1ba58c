//! What a message is made of, as constants: kinds, the checks that the compiler makes on them, and the layout hash.
//!
//! [`Kind::of_struct`] is where a message with a byte that belongs to no field, or with one name for two types, stops compiling.

use crate::message::Field;

/// Longest name of a message type or an enum, in bytes.
pub(crate) const NAME_MAX: usize = 120;
/// Deepest nesting of structs.
pub(crate) const NESTING_MAX: usize = 16;
/// Most dimensions of an array.
pub(crate) const DIMENSIONS_MAX: usize = 8;
/// Largest message in bytes.
pub(crate) const SIZE_MAX: u64 = 1 << 30;
/// Largest alignment in bytes: a page.
pub(crate) const ALIGN_MAX: u64 = 4096;

/// What a message or a field is, at compile time.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A number.
    Scalar(Scalar),
    /// A [`Bool`](crate::Bool).
    Bool,
    /// A [`FixedStr`](crate::FixedStr) of so many bytes.
    Text(usize),
    /// An [`Enum`](crate::Enum).
    Enum(EnumKind),
    /// So many of another kind.
    Array(&'static Kind, usize),
    /// A struct that derives `Message`.
    Struct(StructKind),
}

/// A number of fixed width, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the Rust type of that name")]
pub enum Scalar {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

/// A struct, at compile time. Made by [`Kind::of_struct`].
#[derive(Clone, Copy, Debug)]
pub struct StructKind {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) size: usize,
    pub(crate) align: usize,
    pub(crate) fields: &'static [Field],
    hash: u64,
}

/// An enum, at compile time. Made by [`Kind::of_enum`].
#[derive(Clone, Copy, Debug)]
pub struct EnumKind {
    pub(crate) name: &'static str,
    pub(crate) scalar: Scalar,
    pub(crate) variants: &'static [Variant],
    hash: u64,
}

/// One named value of an enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name.
    pub name: &'static str,
    /// Its value, of an integer of at most 64 bits.
    pub value: i128,
}

impl Scalar {
    pub(crate) const ALL: [Scalar; 10] = {
        use Scalar::*;
        [U8, I8, U16, I16, U32, I32, U64, I64, F32, F64]
    };

    /// Its name, as in Rust.
    pub const fn name(self) -> &'static str {
        match self {
            Scalar::U8 => "u8",
            Scalar::I8 => "i8",
            Scalar::U16 => "u16",
            Scalar::I16 => "i16",
            Scalar::U32 => "u32",
            Scalar::I32 => "i32",
            Scalar::U64 => "u64",
            Scalar::I64 => "i64",
            Scalar::F32 => "f32",
            Scalar::F64 => "f64",
        }
    }

    /// Its size in bytes, which is its alignment too.
    pub const fn size(self) -> usize {
        match self {
            Scalar::U8 | Scalar::I8 => 1,
            Scalar::U16 | Scalar::I16 => 2,
            Scalar::U32 | Scalar::I32 | Scalar::F32 => 4,
            Scalar::U64 | Scalar::I64 | Scalar::F64 => 8,
        }
    }

    /// Smallest and largest value, or `None` of a float.
    pub(crate) const fn range(self) -> Option<(i128, i128)> {
        let bits = 8 * self.size() as u32;
        match self {
            Scalar::F32 | Scalar::F64 => None,
            Scalar::U8 | Scalar::U16 | Scalar::U32 | Scalar::U64 => Some((0, (1 << bits) - 1)),
            _ => Some((-(1 << (bits - 1)), (1 << (bits - 1)) - 1)),
        }
    }
}

impl Kind {
    /// The kind of a struct. Evaluated at compile time by the derive.
    ///
    /// # Panics
    /// Where a byte belongs to no field, a name is not one or stands for two types, or a limit is exceeded: the message says how to
    /// mend it.
    #[track_caller] // the error stands at the derive
    pub const fn of_struct(
        name: &'static str,
        version: u32,
        size: usize,
        align: usize,
        fields: &'static [Field],
    ) -> Kind {
        check_struct(name, size, align, fields);
        let mut hash = feed_text(FNV_OFFSET, "struct");
        hash = feed_text(hash, name);
        hash = feed_number(hash, version as u64);
        hash = feed_number(hash, size as u64);
        hash = feed_number(hash, align as u64);
        hash = feed_number(hash, fields.len() as u64);
        let mut i = 0;
        while i < fields.len() {
            hash = feed_text(hash, fields[i].name);
            hash = feed_number(hash, fields[i].offset as u64);
            hash = fields[i].kind.hash(hash);
            i += 1;
        }
        let kind = Kind::Struct(StructKind { name, version, size, align, fields, hash });
        kind.check_names(&kind);
        assert!(kind.nesting() <= NESTING_MAX, "structs are nested more than 16 deep");
        kind
    }

    /// The kind of an enum. Evaluated at compile time by the derive.
    ///
    /// # Panics
    /// The name is not one.
    pub const fn of_enum(name: &'static str, scalar: Scalar, variants: &'static [Variant]) -> Kind {
        check_name(name);
        let mut hash = feed_text(FNV_OFFSET, "enum");
        hash = feed_text(hash, name);
        hash = feed_text(hash, scalar.name());
        hash = feed_number(hash, variants.len() as u64);
        let mut i = 0;
        while i < variants.len() {
            hash = feed_text(hash, variants[i].name);
            hash = feed_number(hash, variants[i].value as u64);
            i += 1;
        }
        Kind::Enum(EnumKind { name, scalar, variants, hash })
    }

    /// The kind of an array.
    ///
    /// # Panics
    /// It is empty, or larger than 1 GiB, or has more than 8 dimensions.
    pub const fn of_array(of: &'static Kind, count: usize) -> Kind {
        assert!(count > 0, "an array in a message has at least one element");
        assert!(
            of.size() as u128 * count as u128 <= SIZE_MAX as u128,
            "a message is not larger than 1 GiB"
        );
        let mut dimensions = 1;
        let mut inner = of;
        while let Kind::Array(next, _) = inner {
            inner = next;
            dimensions += 1;
        }
        assert!(dimensions <= DIMENSIONS_MAX, "an array in a message has at most 8 dimensions");
        Kind::Array(of, count)
    }

    /// Size in bytes.
    pub const fn size(&self) -> usize {
        match self {
            Kind::Scalar(scalar) => scalar.size(),
            Kind::Bool => 1,
            Kind::Text(len) => *len,
            Kind::Enum(enumeration) => enumeration.scalar.size(),
            Kind::Array(of, count) => of.size() * *count,
            Kind::Struct(structure) => structure.size,
        }
    }

    /// Continues `hash` with this kind.
    pub(crate) const fn hash(&self, hash: u64) -> u64 {
        match self {
            Kind::Scalar(scalar) => feed_text(hash, scalar.name()),
            Kind::Bool => feed_text(hash, "bool"),
            Kind::Text(len) => feed_number(feed_text(hash, "text"), *len as u64),
            Kind::Enum(enumeration) => feed_number(hash, enumeration.hash),
            Kind::Array(of, count) => of.hash(feed_number(feed_text(hash, "array"), *count as u64)),
            Kind::Struct(structure) => feed_number(hash, structure.hash),
        }
    }

    const fn nesting(&self) -> usize {
        match self {
            Kind::Struct(structure) => {
                let mut deepest = 0;
                let mut i = 0;
                while i < structure.fields.len() {
                    let nesting = structure.fields[i].kind.nesting();
                    if nesting > deepest {
                        deepest = nesting;
                    }
                    i += 1;
                }
                deepest + 1
            }
            Kind::Array(of, _) => of.nesting(),
            _ => 0,
        }
    }

    /// Name and hash of a struct or enum.
    const fn definition(&self) -> Option<(&'static str, u64)> {
        match self {
            Kind::Struct(structure) => Some((structure.name, structure.hash)),
            Kind::Enum(enumeration) => Some((enumeration.name, enumeration.hash)),
            _ => None,
        }
    }

    /// Every struct and enum in `self` against every one in `root`: one name, one type.
    #[track_caller]
    const fn check_names(&self, root: &Kind) {
        if let Some((name, hash)) = self.definition() {
            root.check_name_in(name, hash);
        }
        match self {
            Kind::Array(of, _) => of.check_names(root),
            Kind::Struct(structure) => {
                let mut i = 0;
                while i < structure.fields.len() {
                    structure.fields[i].kind.check_names(root);
                    i += 1;
                }
            }
            _ => {}
        }
    }

    #[track_caller]
    const fn check_name_in(&self, name: &str, hash: u64) {
        if let Some((own, own_hash)) = self.definition()
            && own_hash != hash
            && same(own, name)
        {
            let line =
                Line::new().text("two different types of one message are called `").text(own);
            let line = line.text("`: give one of them another `#[message(name = \"...\")]`");
            panic!("{}", line.as_str());
        }
        match self {
            Kind::Array(of, _) => of.check_name_in(name, hash),
            Kind::Struct(structure) => {
                let mut i = 0;
                while i < structure.fields.len() {
                    structure.fields[i].kind.check_name_in(name, hash);
                    i += 1;
                }
            }
            _ => {}
        }
    }
}

/// Every byte belongs to a field, and nothing is beyond the limits.
#[track_caller]
const fn check_struct(name: &str, size: usize, align: usize, fields: &[Field]) {
    check_name(name);
    assert!(!fields.is_empty(), "a message has at least one field");
    assert!(align as u64 <= ALIGN_MAX, "a message is not aligned to more than 4096");
    assert!(size as u64 <= SIZE_MAX, "a message is not larger than 1 GiB");
    let mut end = 0;
    let mut i = 0;
    while i < fields.len() {
        if fields[i].offset > end {
            let line = Line::new().text(name).text(": padding before `").text(fields[i].name);
            gap(line, fields[i].offset - end, "before it");
        }
        assert!(fields[i].offset == end, "the fields of a message do not overlap");
        end += fields[i].kind.size();
        i += 1;
    }
    if size > end {
        let last = fields[fields.len() - 1].name;
        let line = Line::new().text(name).text(": padding behind `").text(last);
        gap(line, size - end, "as the last field");
    }
    assert!(size == end, "the fields of a message are not larger than it is");
}

#[track_caller]
const fn gap(line: Line, bytes: usize, place: &str) {
    let line =
        line.text("`, ").number(bytes).text(" bytes that belong to no field: add `_padding: [u8; ");
    let line = line.number(bytes).text("]` ").text(place);
    panic!("{}", line.as_str());
}

#[track_caller]
const fn check_name(name: &str) {
    if !is_type_name(name) {
        let line = Line::new()
            .text("`")
            .text(name)
            .text("` is not a name of a message: letters, digits, `_` and `.`, ");
        let line = line.text("a letter or `_` first, up to 120 bytes, and no word of the schema");
        panic!("{}", line.as_str());
    }
}

/// `md.Quote`: segments of letters, digits and `_`, with dots between; not a word that the schema text uses.
pub(crate) const fn is_type_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    if bytes.len() > NAME_MAX {
        return false;
    }
    let mut first = true;
    let mut i = 0;
    while i < bytes.len() {
        let good = match bytes[i] {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => true,
            b'0'..=b'9' | b'.' => !first,
            _ => false,
        };
        if !good {
            return false;
        }
        first = bytes[i] == b'.';
        i += 1;
    }
    let mut i = 0;
    while i < Scalar::ALL.len() {
        if same(name, Scalar::ALL[i].name()) {
            return false;
        }
        i += 1;
    }
    !first && !same(name, "bool") && !same(name, "text")
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

/// Where FNV-1a begins.
pub(crate) const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

const fn feed(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x0100_0000_01b3)
}

/// Continues a hash with a text and a NUL.
pub(crate) const fn feed_text(mut hash: u64, text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        hash = feed(hash, bytes[i]);
        i += 1;
    }
    feed(hash, 0)
}

/// Continues a hash with the eight bytes of a number, least first.
pub(crate) const fn feed_number(mut hash: u64, number: u64) -> u64 {
    let mut i = 0;
    while i < 8 {
        hash = feed(hash, (number >> (8 * i)) as u8);
        i += 1;
    }
    hash
}

/// A line of text that is made at compile time; what does not fit is left out.
struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Line {
    const fn new() -> Line {
        Line { bytes: [0; 512], len: 0 }
    }

    const fn text(mut self, text: &str) -> Line {
        let text = text.as_bytes();
        let mut i = 0;
        while i < text.len() && self.len < self.bytes.len() {
            self.bytes[self.len] = text[i];
            self.len += 1;
            i += 1;
        }
        self
    }

    const fn number(mut self, number: usize) -> Line {
        if number >= 10 {
            self = self.number(number / 10);
        }
        if self.len < self.bytes.len() {
            self.bytes[self.len] = b'0' + (number % 10) as u8;
            self.len += 1;
        }
        self
    }

    const fn as_str(&self) -> &str {
        match core::str::from_utf8(self.bytes.split_at(self.len).0) {
            Ok(text) => text,
            Err(_) => "the fields do not fill the message",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;
    use crate::message::Message;

    fn complaint(size: usize, fields: Vec<Field>) -> String {
        let fields: &'static [Field] = fields.leak();
        let made = catch_unwind(|| Kind::of_struct("md.T", 1, size, 8, fields));
        *made.unwrap_err().downcast::<String>().unwrap()
    }

    #[test]
    fn padding_that_no_field_names_is_refused_with_its_place_its_size_and_the_mend() {
        let field = Field::new;
        assert_eq!(
            complaint(16, vec![field("a", u32::KIND, 0), field("b", u64::KIND, 8)]),
            "md.T: padding before `b`, 4 bytes that belong to no field: add `_padding: [u8; 4]` before it"
        );
        assert_eq!(
            complaint(24, vec![field("a", u64::KIND, 0), field("b", u16::KIND, 8)]),
            "md.T: padding behind `b`, 14 bytes that belong to no field: add `_padding: [u8; 14]` as the last field"
        );
    }

    #[test]
    fn one_name_is_not_two_types() {
        const A: Kind = Kind::of_struct("x.A", 1, 8, 8, &[Field::new("a", u64::KIND, 0)]);
        const OTHER: Kind = Kind::of_struct("x.A", 1, 8, 8, &[Field::new("b", u64::KIND, 0)]);
        let twice = complaint(16, vec![Field::new("p", &A, 0), Field::new("q", &OTHER, 8)]);
        assert!(twice.contains("two different types of one message are called `x.A`"), "{twice}");
        let fields: &'static [Field] = vec![Field::new("p", &A, 0), Field::new("q", &A, 8)].leak();
        Kind::of_struct("md.T", 1, 16, 8, fields);
    }

    #[test]
    fn names_are_segments_of_letters_digits_and_underscores() {
        for good in ["Quote", "md.Quote", "_a.b9", "a._"] {
            assert!(is_type_name(good), "{good}");
        }
        let long = "x".repeat(NAME_MAX + 1);
        for bad in
            ["", ".", "a.", ".a", "a..b", "9a", "a.9", "a b", "a/b", "ä", "u64", "text", &long]
        {
            assert!(!is_type_name(bad), "{bad}");
        }
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(feed(FNV_OFFSET, b'a'), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(u64::LAYOUT_HASH, feed_text(FNV_OFFSET, "u64"));
        assert_ne!(<[u64; 2]>::LAYOUT_HASH, <[u64; 3]>::LAYOUT_HASH);
        assert_ne!(<[[u8; 2]; 3]>::LAYOUT_HASH, <[[u8; 3]; 2]>::LAYOUT_HASH);
    }
}
