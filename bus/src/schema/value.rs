//! The bytes of a message <-> a [`Value`], by its schema. Integers of 64 bits and the bits of floats stay as they are.

use std::fmt;

use super::{EnumType, FieldType, Schema, Type};
use crate::checked::text_of;
use crate::kind::Scalar;

/// A message, or a part of one, without its type.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A truth value.
    Bool(bool),
    /// An unsigned integer, or a value of an enum that has no name.
    U64(u64),
    /// A signed integer, likewise.
    I64(i64),
    /// A float of 32 bits.
    F32(f32),
    /// A float of 64 bits.
    F64(f64),
    /// A text, or the name of an enum's value.
    Str(String),
    /// An array of `u8`.
    Bytes(Vec<u8>),
    /// Any other array, or the messages of a sequence.
    List(Vec<Value>),
    /// Fields in order, without padding.
    Struct(Vec<(String, Value)>),
}

/// Bytes are not a message of the schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Their number is wrong.
    #[error("a message has {expected} bytes (or, in a sequence, a multiple), not {len}")]
    Len {
        /// As given.
        len: usize,
        /// Of a message, or of each in a sequence.
        expected: u64,
    },
    /// A byte that should be 0 or 1 is not.
    #[error("{path}: {given} is neither 0 nor 1")]
    Bool {
        /// Where, such as `legs[2].open`.
        path: String,
        /// The byte.
        given: u8,
    },
    /// A text is not UTF-8, or does not end at its first NUL.
    #[error("{path}: not UTF-8 followed by NULs")]
    Text {
        /// Where.
        path: String,
    },
}

/// A value is not a message of the schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A field that the message does not have.
    #[error("{path}: there is no such field")]
    UnknownField {
        /// Where, such as `legs[2].size`.
        path: String,
    },
    /// A field is not given.
    #[error("{path}: the field is missing")]
    MissingField {
        /// Which.
        path: String,
    },
    /// A field is given twice.
    #[error("{path}: the field is given twice")]
    RepeatedField {
        /// Which.
        path: String,
    },
    /// Something else is needed there.
    #[error("{path}: {expected} is needed, not {given}")]
    Kind {
        /// Where.
        path: String,
        /// What is needed.
        expected: String,
        /// What was given.
        given: String,
    },
    /// A number does not fit.
    #[error("{path}: {given} does not fit {expected}")]
    Range {
        /// Where.
        path: String,
        /// The number.
        given: String,
        /// What it does not fit.
        expected: String,
    },
    /// An array has another number of elements.
    #[error("{path}: {expected} elements are needed, not {given}")]
    Count {
        /// Where.
        path: String,
        /// As given.
        given: usize,
        /// As needed.
        expected: u64,
    },
    /// A text is longer than its field, or has a NUL.
    #[error("{path}: {given:?} is not a text without NUL of up to {max} bytes")]
    Text {
        /// Where.
        path: String,
        /// As given.
        given: String,
        /// Bytes of the field.
        max: u64,
    },
    /// The buffer has another length than the message.
    #[error("the message has {expected} bytes, the buffer {len}")]
    Len {
        /// Of the buffer.
        len: usize,
        /// Of the message.
        expected: u64,
    },
}

/// Where one is in a message, for errors: made only when there is one.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Element(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => f.write_str("message"),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(outer, name) => write!(f, "{outer}.{name}"),
            Path::Element(outer, index) => write!(f, "{outer}[{index}]"),
        }
    }
}

impl Schema {
    /// The message in `bytes`. Allocates for every field.
    ///
    /// The value of an enum is its name, or its number where it has none.
    ///
    /// # Errors
    /// See [`DecodeError`]. Never panics, whatever the bytes.
    pub fn decode(&self, bytes: &[u8]) -> Result<Value, DecodeError> {
        let size = self.size();
        let wrong = DecodeError::Len { len: bytes.len(), expected: size };
        if !self.is_sequence() {
            return match bytes.len() as u64 == size {
                true => decode(&self.root, bytes, &Path::Root),
                false => Err(wrong),
            };
        }
        if !(bytes.len() as u64).is_multiple_of(size) {
            return Err(wrong);
        }
        elements(&self.root, bytes, &Path::Root)
    }

    /// Writes `value` to `bytes`, which is as long as [`encoded_len`](Schema::encoded_len) says. Padding becomes 0.
    ///
    /// Any integer is taken where it fits, a float of either size for a float (rounded), a list or bytes for an array of `u8`, the name or
    /// the number for an enum.
    ///
    /// # Errors
    /// See [`EncodeError`]; it names the first field that is wrong. What `bytes` holds then does not matter.
    pub fn encode(&self, value: &Value, bytes: &mut [u8]) -> Result<(), EncodeError> {
        let expected = self.encoded_len(value)?;
        if bytes.len() as u64 != expected {
            return Err(EncodeError::Len { len: bytes.len(), expected });
        }
        match self.is_sequence() {
            true => encode_elements(&self.root, value, bytes, &Path::Root),
            false => encode(&self.root, value, bytes, &Path::Root),
        }
    }

    /// Bytes that [`encode`](Schema::encode) needs.
    ///
    /// # Errors
    /// The messages of a sequence are given by something else than a list.
    pub fn encoded_len(&self, value: &Value) -> Result<u64, EncodeError> {
        match (self.is_sequence(), value) {
            (false, _) => Ok(self.size()),
            (true, Value::List(values)) => Ok(self.size() * values.len() as u64),
            (true, Value::Bytes(values)) => Ok(self.size() * values.len() as u64),
            (true, _) => Err(wrong_kind(&Path::Root, "a list", value)),
        }
    }
}

fn decode(ty: &Type, bytes: &[u8], path: &Path<'_>) -> Result<Value, DecodeError> {
    Ok(match ty {
        Type::Scalar(scalar) => number(*scalar, bytes),
        Type::Bool => match bytes.first() {
            Some(byte @ (0 | 1)) => Value::Bool(*byte == 1),
            other => {
                let given = other.copied().unwrap_or(0);
                return Err(DecodeError::Bool { path: path.to_string(), given });
            }
        },
        Type::Text(_) => match text_of(bytes) {
            Ok(text) => Value::Str(text.to_owned()),
            Err(_) => return Err(DecodeError::Text { path: path.to_string() }),
        },
        Type::Enum(enumeration) => {
            let value = number(enumeration.scalar, bytes);
            match enumeration.variants.iter().find(|(_, other)| integer(&value) == Some(*other)) {
                Some((name, _)) => Value::Str(name.clone()),
                None => value,
            }
        }
        Type::Array(of, _) => elements(of, bytes, path)?,
        Type::Struct(structure) => {
            let shown = structure.fields.iter().filter(|field| !field.is_padding());
            let fields = shown.map(|field| {
                let path = Path::Field(path, &field.name);
                Ok((field.name.clone(), decode(&field.ty, field.of(bytes), &path)?))
            });
            Value::Struct(fields.collect::<Result<_, _>>()?)
        }
    })
}

fn elements(of: &Type, bytes: &[u8], path: &Path<'_>) -> Result<Value, DecodeError> {
    if matches!(of, Type::Scalar(Scalar::U8)) {
        return Ok(Value::Bytes(bytes.to_vec()));
    }
    let chunks = bytes.chunks_exact(of.size() as usize).enumerate();
    let values = chunks.map(|(index, chunk)| decode(of, chunk, &Path::Element(path, index)));
    Ok(Value::List(values.collect::<Result<_, _>>()?))
}

fn encode(ty: &Type, value: &Value, bytes: &mut [u8], path: &Path<'_>) -> Result<(), EncodeError> {
    match ty {
        Type::Scalar(scalar) => put_number(*scalar, value, bytes, path),
        Type::Bool => match value {
            Value::Bool(value) => {
                bytes.fill((*value).into());
                Ok(())
            }
            _ => Err(wrong_kind(path, "true or false", value)),
        },
        Type::Text(max) => match value {
            Value::Str(text) if text.len() as u64 <= *max && !text.contains('\0') => {
                bytes.fill(0);
                bytes[..text.len()].copy_from_slice(text.as_bytes());
                Ok(())
            }
            Value::Str(text) => {
                let given = text.chars().take(80).collect();
                Err(EncodeError::Text { path: path.to_string(), given, max: *max })
            }
            _ => Err(wrong_kind(path, "a text", value)),
        },
        Type::Enum(enumeration) => put_enum(enumeration, value, bytes, path),
        Type::Array(of, count) => {
            let given = match value {
                Value::List(values) => values.len(),
                Value::Bytes(values) => values.len(),
                _ => return Err(wrong_kind(path, &format!("{ty}, a list,"), value)),
            };
            if given as u64 != *count {
                return Err(EncodeError::Count { path: path.to_string(), given, expected: *count });
            }
            encode_elements(of, value, bytes, path)
        }
        Type::Struct(structure) => {
            let Value::Struct(values) = value else {
                return Err(wrong_kind(path, &format!("{ty}, with its fields,"), value));
            };
            put_fields(&structure.fields, values, bytes, path)
        }
    }
}

/// Elements of a list whose number has been compared with the length of `bytes`.
fn encode_elements(
    of: &Type,
    value: &Value,
    bytes: &mut [u8],
    path: &Path<'_>,
) -> Result<(), EncodeError> {
    let chunks = bytes.chunks_exact_mut(of.size() as usize).enumerate();
    match value {
        Value::Bytes(values) => {
            for ((index, chunk), value) in chunks.zip(values) {
                encode(of, &Value::U64((*value).into()), chunk, &Path::Element(path, index))?;
            }
        }
        Value::List(values) => {
            for ((index, chunk), value) in chunks.zip(values) {
                encode(of, value, chunk, &Path::Element(path, index))?;
            }
        }
        _ => return Err(wrong_kind(path, "a list", value)),
    }
    Ok(())
}

fn put_fields(
    fields: &[FieldType],
    values: &[(String, Value)],
    bytes: &mut [u8],
    path: &Path<'_>,
) -> Result<(), EncodeError> {
    let mut given = std::collections::HashMap::new();
    for (name, value) in values {
        if given.insert(name.as_str(), value).is_some() {
            return Err(EncodeError::RepeatedField { path: Path::Field(path, name).to_string() });
        }
    }
    let unknown =
        |name: &str| EncodeError::UnknownField { path: Path::Field(path, name).to_string() };
    for field in fields {
        let place = Path::Field(path, &field.name);
        if field.is_padding() {
            field.of_mut(bytes).fill(0);
            continue;
        }
        let Some(value) = given.remove(field.name.as_str()) else {
            // A name that is wrong makes another one missing: it is the reason.
            let is_field =
                |name: &str| fields.iter().any(|one| one.name == name && !one.is_padding());
            return Err(match values.iter().find(|(name, _)| !is_field(name)) {
                Some((name, _)) => unknown(name),
                None => EncodeError::MissingField { path: place.to_string() },
            });
        };
        encode(&field.ty, value, field.of_mut(bytes), &place)?;
    }
    match values.iter().find(|(name, _)| given.contains_key(name.as_str())) {
        None => Ok(()),
        Some((name, _)) => Err(unknown(name)),
    }
}

impl FieldType {
    /// Its bytes; they are inside, because the fields of a struct cover exactly its size.
    fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.offset as usize..][..self.ty.size() as usize]
    }

    fn of_mut<'a>(&self, bytes: &'a mut [u8]) -> &'a mut [u8] {
        &mut bytes[self.offset as usize..][..self.ty.size() as usize]
    }
}

fn put_enum(
    enumeration: &EnumType,
    value: &Value,
    bytes: &mut [u8],
    path: &Path<'_>,
) -> Result<(), EncodeError> {
    let variants = &enumeration.variants;
    let known = match value {
        Value::Str(given) => variants.iter().find(|(name, _)| name == given),
        other => variants.iter().find(|(_, value)| integer(other) == Some(*value)),
    };
    match known {
        Some((_, value)) => put_integer(*value, bytes),
        None => {
            let names: Vec<&str> =
                variants.iter().take(20).map(|(name, _)| name.as_str()).collect();
            let expected = format!("{} ({})", enumeration.name, names.join(", "));
            return Err(wrong_kind(path, &expected, value));
        }
    }
    Ok(())
}

fn number(scalar: Scalar, bytes: &[u8]) -> Value {
    let mut word = [0; 8];
    word[..bytes.len().min(8)].copy_from_slice(&bytes[..bytes.len().min(8)]);
    let word = u64::from_le_bytes(word);
    match scalar {
        Scalar::U8 | Scalar::U16 | Scalar::U32 | Scalar::U64 => Value::U64(word),
        Scalar::I8 => Value::I64((word as i8).into()),
        Scalar::I16 => Value::I64((word as i16).into()),
        Scalar::I32 => Value::I64((word as i32).into()),
        Scalar::I64 => Value::I64(word as i64),
        Scalar::F32 => Value::F32(f32::from_bits(word as u32)),
        Scalar::F64 => Value::F64(f64::from_bits(word)),
    }
}

fn put_number(
    scalar: Scalar,
    value: &Value,
    bytes: &mut [u8],
    path: &Path<'_>,
) -> Result<(), EncodeError> {
    let range = || EncodeError::Range {
        path: path.to_string(),
        given: describe(value),
        expected: scalar.name().to_owned(),
    };
    let kind = || wrong_kind(path, scalar.name(), value);
    if let Some((min, max)) = scalar.range() {
        let integer = integer(value).ok_or_else(kind)?;
        if !(min..=max).contains(&integer) {
            return Err(range());
        }
        put_integer(integer, bytes);
        return Ok(());
    }
    if scalar == Scalar::F32 {
        let float = match value {
            Value::F32(float) => *float,
            Value::F64(float) => *float as f32,
            other => integer(other).ok_or_else(kind)? as f32,
        };
        let was_finite = !matches!(value, Value::F32(_))
            && !matches!(value, Value::F64(float) if !float.is_finite());
        if was_finite && !float.is_finite() {
            return Err(range());
        }
        bytes.copy_from_slice(&float.to_le_bytes());
        return Ok(());
    }
    let float = match value {
        Value::F32(float) => (*float).into(),
        Value::F64(float) => *float,
        other => integer(other).ok_or_else(kind)? as f64,
    };
    bytes.copy_from_slice(&float.to_le_bytes());
    Ok(())
}

fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::U64(value) => Some((*value).into()),
        Value::I64(value) => Some((*value).into()),
        _ => None,
    }
}

/// An integer that fits: the low bytes of it.
fn put_integer(value: i128, bytes: &mut [u8]) {
    let len = bytes.len();
    bytes.copy_from_slice(&value.to_le_bytes()[..len]);
}

fn wrong_kind(path: &Path<'_>, expected: &str, value: &Value) -> EncodeError {
    EncodeError::Kind {
        path: path.to_string(),
        expected: expected.to_owned(),
        given: describe(value),
    }
}

/// A value, short.
fn describe(value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::F32(value) => format!("{value:?}"), // 1.0, which is no integer
        Value::F64(value) => format!("{value:?}"),
        Value::Str(text) => format!("{:?}", text.chars().take(80).collect::<String>()),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
        Value::List(values) => format!("a list of {}", values.len()),
        Value::Struct(_) => "a struct".to_owned(),
    }
}
