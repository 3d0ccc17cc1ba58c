//! The schema of a topic at run time: what [`message`](crate::Message) knows at compile time, for tools that know no types.
//!
//! A [`Schema`] is made from a type or parsed from its text, which stands in every typed topic. It never refers to anything outside of itself, and it
//! covers every byte of a message. `docs/schema.md` has the grammar of the text and the definition of the hash.

mod compare;
mod parse;
mod ros2msg;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::sync::Arc;

pub(crate) use self::compare::other_type;
pub use self::parse::SchemaError;
pub(crate) use self::parse::TEXT_MAX;
pub use self::value::{DecodeError, EncodeError, Value};
use crate::kind::{FNV_OFFSET, Kind, Scalar, feed_number, feed_text};
use crate::message::Message;

/// First line of a schema's text.
const FIRST_LINE: &str = "shmbus-schema 1";

/// What the messages of a topic are made of, readable without their type.
///
/// Its text ([`Display`](fmt::Display), [`Schema::parse`]) is complete: two schemas are equal if their texts are.
#[derive(Clone)]
pub struct Schema {
    /// Structs and enums, each before those that contain it.
    definitions: Vec<Definition>,
    root: Type,
    sequence: bool,
}

/// What a message or a field is.
#[derive(Clone)]
pub enum Type {
    /// A number.
    Scalar(Scalar),
    /// A byte that is 0 or 1.
    Bool,
    /// UTF-8 of up to so many bytes, followed by NULs.
    Text(u64),
    /// One of a set of names.
    Enum(Arc<EnumType>),
    /// So many elements of another type.
    Array(Box<Type>, u64),
    /// Fields.
    Struct(Arc<StructType>),
}

/// A struct of a schema.
pub struct StructType {
    name: String,
    version: u32,
    size: u64,
    align: u64,
    fields: Vec<FieldType>,
    hash: u64,
    nesting: usize,
}

/// A field of a struct of a schema.
pub struct FieldType {
    name: String,
    ty: Type,
    offset: u64,
}

/// An enum of a schema.
pub struct EnumType {
    name: String,
    scalar: Scalar,
    variants: Vec<(String, i128)>,
    hash: u64,
}

#[derive(Clone)]
enum Definition {
    Enum(Arc<EnumType>),
    Struct(Arc<StructType>),
}

impl Schema {
    /// The schema of messages of type `T`.
    pub fn of<T: Message>() -> Schema {
        let mut definitions = Vec::new();
        let root = define(T::KIND, &mut definitions);
        Schema { definitions, root, sequence: false }
    }

    /// The schema of messages that are each a number of these: of a topic of `[T]`.
    pub fn into_sequence(self) -> Schema {
        Schema { sequence: true, ..self }
    }

    /// Whether a message is any number of [`root`](Schema::root), one after the other, and not one of it.
    pub fn is_sequence(&self) -> bool {
        self.sequence
    }

    /// What a message is, or an element of a sequence.
    pub fn root(&self) -> &Type {
        &self.root
    }

    /// The fields of a message that is a struct, padding among them; else none.
    pub fn fields(&self) -> &[FieldType] {
        match &self.root {
            Type::Struct(structure) => &structure.fields,
            _ => &[],
        }
    }

    /// Name of the message type, such as `md.Quote`, `u64[3]`, or of a sequence `[md.Quote]`.
    pub fn name(&self) -> String {
        if self.sequence { format!("[{}]", self.root) } else { self.root.to_string() }
    }

    /// Version of the message type; 0 where it is not a struct, nor an array of one.
    pub fn version(&self) -> u32 {
        match self.root.innermost() {
            Type::Struct(structure) => structure.version,
            _ => 0,
        }
    }

    /// Bytes of a message, or of an element of a sequence.
    pub fn size(&self) -> u64 {
        self.root.size()
    }

    /// Alignment of a message in bytes.
    pub fn align(&self) -> u64 {
        self.root.align()
    }

    /// As [`Message::LAYOUT_HASH`].
    pub fn layout_hash(&self) -> u64 {
        self.root.hash(FNV_OFFSET)
    }
}

impl Type {
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Type::Scalar(scalar) => scalar.size() as u64,
            Type::Bool => 1,
            Type::Text(len) => *len,
            Type::Enum(enumeration) => enumeration.scalar.size() as u64,
            Type::Array(of, count) => of.size().saturating_mul(*count), // of a kind that was made by hand
            Type::Struct(structure) => structure.size,
        }
    }

    /// Alignment in bytes.
    pub fn align(&self) -> u64 {
        match self {
            Type::Scalar(scalar) => scalar.size() as u64,
            Type::Bool | Type::Text(_) => 1,
            Type::Enum(enumeration) => enumeration.scalar.size() as u64,
            Type::Array(of, _) => of.align(),
            Type::Struct(structure) => structure.align,
        }
    }

    /// Of an array of arrays, what they are of.
    fn innermost(&self) -> &Type {
        match self {
            Type::Array(of, _) => of.innermost(),
            other => other,
        }
    }

    /// Depth of structs in it.
    fn nesting(&self) -> usize {
        match self.innermost() {
            Type::Struct(structure) => structure.nesting,
            _ => 0,
        }
    }

    /// The same as `Kind::hash`.
    fn hash(&self, hash: u64) -> u64 {
        match self {
            Type::Scalar(scalar) => feed_text(hash, scalar.name()),
            Type::Bool => feed_text(hash, "bool"),
            Type::Text(len) => feed_number(feed_text(hash, "text"), *len),
            Type::Enum(enumeration) => feed_number(hash, enumeration.hash),
            Type::Array(of, count) => of.hash(feed_number(feed_text(hash, "array"), *count)),
            Type::Struct(structure) => feed_number(hash, structure.hash),
        }
    }
}

impl StructType {
    fn new(name: String, version: u32, size: u64, align: u64, fields: Vec<FieldType>) -> Self {
        let mut hash = feed_text(feed_text(FNV_OFFSET, "struct"), &name);
        for number in [version.into(), size, align, fields.len() as u64] {
            hash = feed_number(hash, number);
        }
        for field in &fields {
            hash = field.ty.hash(feed_number(feed_text(hash, &field.name), field.offset));
        }
        let nesting = 1 + fields.iter().map(|field| field.ty.nesting()).max().unwrap_or(0);
        StructType { name, version, size, align, fields, hash, nesting }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Its fields in order, padding among them. They cover all its bytes.
    pub fn fields(&self) -> &[FieldType] {
        &self.fields
    }
}

impl FieldType {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is.
    pub fn ty(&self) -> &Type {
        &self.ty
    }

    /// Bytes from the start of its struct.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether it is padding, which is not shown.
    pub fn is_padding(&self) -> bool {
        self.name.starts_with('_')
    }
}

impl EnumType {
    fn new(name: String, scalar: Scalar, variants: Vec<(String, i128)>) -> EnumType {
        let mut hash = feed_text(feed_text(FNV_OFFSET, "enum"), &name);
        hash = feed_number(feed_text(hash, scalar.name()), variants.len() as u64);
        for (name, value) in &variants {
            hash = feed_number(feed_text(hash, name), *value as u64);
        }
        EnumType { name, scalar, variants, hash }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The integer that it is in memory.
    pub fn scalar(&self) -> Scalar {
        self.scalar
    }

    /// Names and values.
    pub fn variants(&self) -> &[(String, i128)] {
        &self.variants
    }
}

/// The type of a kind; what it is made of is added to `definitions`, each once.
fn define(kind: &Kind, definitions: &mut Vec<Definition>) -> Type {
    match kind {
        Kind::Scalar(scalar) => Type::Scalar(*scalar),
        Kind::Bool => Type::Bool,
        Kind::Text(len) => Type::Text(*len as u64),
        Kind::Array(of, count) => Type::Array(Box::new(define(of, definitions)), *count as u64),
        Kind::Enum(kind) => {
            if let Some(known) = find(definitions, kind.name) {
                return known;
            }
            let variants = kind.variants.iter();
            let variants = variants.map(|variant| (variant.name.to_owned(), variant.value));
            let made = EnumType::new(kind.name.to_owned(), kind.scalar, variants.collect());
            let made = Arc::new(made);
            definitions.push(Definition::Enum(Arc::clone(&made)));
            Type::Enum(made)
        }
        Kind::Struct(kind) => {
            if let Some(known) = find(definitions, kind.name) {
                return known;
            }
            let fields = kind.fields.iter().map(|field| FieldType {
                name: field.name.to_owned(),
                ty: define(field.kind, definitions),
                offset: field.offset as u64,
            });
            let fields = fields.collect();
            let (size, align) = (kind.size as u64, kind.align as u64);
            let made = StructType::new(kind.name.to_owned(), kind.version, size, align, fields);
            let made = Arc::new(made);
            definitions.push(Definition::Struct(Arc::clone(&made)));
            Type::Struct(made)
        }
    }
}

/// The struct or enum called `name`.
fn find(definitions: &[Definition], name: &str) -> Option<Type> {
    definitions.iter().find_map(|definition| match definition {
        Definition::Enum(known) if known.name == name => Some(Type::Enum(Arc::clone(known))),
        Definition::Struct(known) if known.name == name => Some(Type::Struct(Arc::clone(known))),
        _ => None,
    })
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Scalar(scalar) => f.write_str(scalar.name()),
            Type::Bool => f.write_str("bool"),
            Type::Text(len) => write!(f, "text({len})"),
            Type::Enum(enumeration) => f.write_str(&enumeration.name),
            Type::Struct(structure) => f.write_str(&structure.name),
            Type::Array(..) => {
                // As Rust has it from outside to inside: `[[u8; 2]; 3]` is `u8[3][2]`.
                self.innermost().fmt(f)?;
                let mut array = self;
                while let Type::Array(of, count) = array {
                    write!(f, "[{count}]")?;
                    array = of;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        for definition in &self.definitions {
            match definition {
                Definition::Enum(made) => {
                    writeln!(f, "enum {}: {}", made.name, made.scalar.name())?;
                    for (name, value) in &made.variants {
                        writeln!(f, "  {name} = {value}")?;
                    }
                }
                Definition::Struct(made) => {
                    let StructType { name, version, size, align, .. } = &**made;
                    writeln!(f, "struct {name} version {version} size {size} align {align}")?;
                    for field in &made.fields {
                        writeln!(f, "  {}: {} at {}", field.name, field.ty, field.offset)?;
                    }
                }
            }
        }
        let word = if self.sequence { "sequence" } else { "message" };
        writeln!(f, "{word} {}", self.root)
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({self})")
    }
}

impl fmt::Debug for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Schema) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Schema {}
