//! Schema text -> [`Schema`]. Whatever the text, the answer is a schema that covers every byte of its messages, or an error with a line.
//!
//! What is named must have been defined above, so there are no cycles; text, nesting and sizes are bounded.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Definition, EnumType, FIRST_LINE, FieldType, Schema, StructType, Type, find};
use crate::kind::{
    ALIGN_MAX, DIMENSIONS_MAX, NAME_MAX, NESTING_MAX, SIZE_MAX, Scalar, is_type_name,
};

/// Longest schema text in bytes.
pub(crate) const TEXT_MAX: u64 = 64 * 1024;

/// A text is not a schema. The first line that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema, line {line}: {reason}")]
pub struct SchemaError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Schema {
    /// The schema of a text, as [`Display`](std::fmt::Display) writes it. Lines that are empty or begin with `#` are passed over.
    ///
    /// # Errors
    /// See [`SchemaError`]. Never panics, whatever the text; texts of more than 64 KiB are refused.
    pub fn parse(text: &str) -> Result<Schema, SchemaError> {
        let mut parser =
            Parser { definitions: Vec::new(), names: HashSet::new(), open: Open::Nothing };
        let mut root = None;
        let mut first = true;
        let mut last = 1;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text); // a byte order mark, as some editors write
        if text.len() as u64 > TEXT_MAX {
            return Err(SchemaError { line: 1, reason: "the text has more than 64 KiB" });
        }
        for (number, line) in text.lines().enumerate() {
            last = number + 1;
            let wrong = |reason| SchemaError { line: last, reason };
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if root.is_some() {
                return Err(wrong("nothing follows the line `message` or `sequence`"));
            }
            if first {
                if line != FIRST_LINE {
                    return Err(wrong("the first line is not `shmbus-schema 1`"));
                }
                first = false;
                continue;
            }
            root = parser.line(line).map_err(wrong)?;
        }
        let (root, sequence) = root.ok_or(SchemaError {
            line: last,
            reason: "the text ends without a line `message` or `sequence`",
        })?;
        Ok(Schema { definitions: parser.definitions, root, sequence })
    }
}

/// The definition whose lines are being read.
enum Open {
    Nothing,
    Enum { name: String, scalar: Scalar, variants: Vec<(String, i128)> },
    Struct { name: String, version: u32, size: u64, align: u64, end: u64, fields: Vec<FieldType> },
}

struct Parser {
    definitions: Vec<Definition>,
    /// Of the fields or variants of the open definition.
    names: HashSet<String>,
    open: Open,
}

impl Parser {
    fn line(&mut self, line: &str) -> Result<Option<(Type, bool)>, &'static str> {
        let is_member = line.starts_with("  ");
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        if is_member {
            self.member(&words)?;
            return Ok(None);
        }
        self.close()?;
        match words[..] {
            ["enum", name, scalar] => {
                let name = self.new_name(name.strip_suffix(':').ok_or("`:` is missing")?)?;
                let scalar = scalar_of(scalar).ok_or("an enum is an integer of 8 to 64 bits")?;
                scalar.range().ok_or("an enum is an integer, not a float")?;
                self.open = Open::Enum { name, scalar, variants: Vec::new() };
            }
            ["struct", name, "version", version, "size", size, "align", align] => {
                let name = self.new_name(name)?;
                let version = number(version)?;
                let version = u32::try_from(version).map_err(|_| "the version is not a u32")?;
                let (size, align) = (number(size)?, number(align)?);
                if size == 0 || size > SIZE_MAX {
                    return Err("a size is 1 to 2^30");
                }
                if !align.is_power_of_two() || align > ALIGN_MAX || size % align != 0 {
                    return Err("an alignment is a power of two up to 4096 that divides the size");
                }
                self.open = Open::Struct { name, version, size, align, end: 0, fields: Vec::new() };
            }
            ["message", ty] => return Ok(Some((self.type_of(ty)?, false))),
            ["sequence", ty] => return Ok(Some((self.type_of(ty)?, true))),
            _ => return Err("neither `enum`, `struct`, `message`, `sequence`, nor a field"),
        }
        Ok(None)
    }

    /// A field or a variant.
    fn member(&mut self, words: &[&str]) -> Result<(), &'static str> {
        match *words {
            [name, "=", value] => {
                let name = self.new_member(name)?;
                let Open::Enum { scalar, variants, .. } = &mut self.open else {
                    return Err("a variant that is in no enum");
                };
                let value: i128 = value.parse().map_err(|_| "the value is not an integer")?;
                let (min, max) = scalar.range().unwrap_or((0, 0));
                if !(min..=max).contains(&value) {
                    return Err("the value does not fit the integer of the enum");
                }
                if variants.iter().any(|(_, other)| *other == value) {
                    return Err("two variants have one value");
                }
                variants.push((name, value));
            }
            [name, ty, "at", offset] => {
                let name = self.new_member(name.strip_suffix(':').ok_or("`:` is missing")?)?;
                let ty = self.type_of(ty)?;
                let offset = number(offset)?;
                let Open::Struct { size, align, end, fields, .. } = &mut self.open else {
                    return Err("a field that is in no struct");
                };
                if offset != *end {
                    return Err("the field does not begin where the one before it ends");
                }
                if offset % ty.align() != 0 || ty.align() > *align {
                    return Err("the field is not aligned");
                }
                if ty.nesting() >= NESTING_MAX {
                    return Err("structs are nested more than 16 deep");
                }
                *end += ty.size(); // both at most 2^30
                if *end > *size {
                    return Err("the field ends beyond its struct");
                }
                fields.push(FieldType { name, ty, offset });
            }
            _ => return Err("neither `name: type at offset` nor `name = value`"),
        }
        Ok(())
    }

    /// Ends the open definition.
    fn close(&mut self) -> Result<(), &'static str> {
        self.names.clear();
        let made = match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => return Ok(()),
            Open::Enum { variants, .. } if variants.is_empty() => {
                return Err("the enum above has no variants");
            }
            Open::Enum { name, scalar, variants } => {
                Definition::Enum(Arc::new(EnumType::new(name, scalar, variants)))
            }
            Open::Struct { size, end, .. } if size != end => {
                return Err("the fields of the struct above do not cover it");
            }
            Open::Struct { name, version, size, align, fields, .. } => {
                Definition::Struct(Arc::new(StructType::new(name, version, size, align, fields)))
            }
        };
        self.definitions.push(made);
        Ok(())
    }

    fn new_name(&self, name: &str) -> Result<String, &'static str> {
        if !is_type_name(name) {
            return Err("not a name of a type");
        }
        if find(&self.definitions, name).is_some() {
            return Err("the name is defined twice");
        }
        Ok(name.to_owned())
    }

    fn new_member(&mut self, name: &str) -> Result<String, &'static str> {
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.len() <= NAME_MAX
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            return Err("not a name of a field or variant");
        }
        if !self.names.insert(name.to_owned()) {
            return Err("the name stands twice");
        }
        Ok(name.to_owned())
    }

    /// `u8`, `text(16)`, `md.Leg`, and arrays: `u8[3][2]`.
    fn type_of(&self, text: &str) -> Result<Type, &'static str> {
        let (base, mut dimensions) = match text.find('[') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let text_len = base.strip_prefix("text(").and_then(|rest| rest.strip_suffix(')'));
        let mut ty = match (scalar_of(base), text_len) {
            (Some(scalar), _) => Type::Scalar(scalar),
            (None, Some(len)) => Type::Text(count(len)?),
            (None, None) if base == "bool" => Type::Bool,
            _ => find(&self.definitions, base).ok_or("a type that is not defined above")?,
        };
        let mut counts = Vec::new();
        while !dimensions.is_empty() {
            let rest = dimensions.strip_prefix('[').and_then(|rest| rest.split_once(']'));
            let (inside, rest) = rest.ok_or("not a dimension of an array")?;
            counts.push(count(inside)?);
            dimensions = rest;
        }
        if counts.len() > DIMENSIONS_MAX {
            return Err("an array has at most 8 dimensions");
        }
        for count in counts.into_iter().rev() {
            if ty.size() * count > SIZE_MAX {
                return Err("an array has more than 2^30 bytes");
            }
            ty = Type::Array(Box::new(ty), count);
        }
        Ok(ty)
    }
}

fn scalar_of(text: &str) -> Option<Scalar> {
    Scalar::ALL.into_iter().find(|scalar| scalar.name() == text)
}

/// A number without sign.
fn number(text: &str) -> Result<u64, &'static str> {
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().map_err(|_| "not a number of 64 bits"),
        false => Err("not a number"),
    }
}

/// Of elements or bytes: 1 to 2^30, so that no product of two overflows.
fn count(text: &str) -> Result<u64, &'static str> {
    match number(text)? {
        count @ 1..=SIZE_MAX => Ok(count),
        _ => Err("a count is 1 to 2^30"),
    }
}
