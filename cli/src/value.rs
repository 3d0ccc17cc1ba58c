//! Messages as JSON: [`Value`] <-> text.
//!
//! Integers stay exact, floats are the shortest text that is the same float again. What JSON has no number for, is a text: `"NaN"`, `"inf"`, `"-inf"`.

use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde::{Deserialize, Deserializer};
use shmbus::{Scalar, Schema, Type, Value};

/// A value, to be written as JSON.
pub(crate) struct Json<'a>(pub(crate) &'a Value);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::U64(value) => serializer.serialize_u64(*value),
            Value::I64(value) => serializer.serialize_i64(*value),
            Value::F32(value) if value.is_finite() => serializer.serialize_f32(*value),
            Value::F64(value) if value.is_finite() => serializer.serialize_f64(*value),
            Value::F32(value) => serializer.collect_str(value), // NaN, inf, -inf
            Value::F64(value) => serializer.collect_str(value),
            Value::Str(value) => serializer.serialize_str(value),
            Value::Bytes(bytes) => serializer.collect_seq(bytes),
            Value::List(values) => serializer.collect_seq(values.iter().map(Json)),
            Value::Struct(fields) => {
                serializer.collect_map(fields.iter().map(|(name, value)| (name, Json(value))))
            }
            _ => Err(serde::ser::Error::custom("a value of a kind that is not known here")),
        }
    }
}

/// The text of [`Json`].
pub(crate) fn to_json(value: &Value) -> String {
    serde_json::to_string(&Json(value)).unwrap_or_default() // only values of unknown kinds fail
}

/// A value read from JSON. Fields that are given twice stay so.
struct FromJson(Value);

/// The value that `text` is, as far as JSON says; [`fit`] goes on.
///
/// # Errors
/// What is wrong with it, and in which column.
pub(crate) fn from_json(text: &[u8]) -> Result<Value, String> {
    match serde_json::from_slice(text) {
        Ok(FromJson(value)) => Ok(value),
        Err(error) => {
            let error = error.to_string().replace(" at line 1 column ", " at column ");
            Err(format!("not JSON of a message: {error}"))
        }
    }
}

impl<'de> Deserialize<'de> for FromJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FromJson, D::Error> {
        deserializer.deserialize_any(Json2Value).map(FromJson)
    }
}

struct Json2Value;

impl<'de> Visitor<'de> for Json2Value {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a truth value, a number, a text, a list or an object")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::U64(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::I64(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::F64(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Str(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::Str(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(FromJson(value)) = elements.next_element()? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, FromJson(value))) = entries.next_entry()? {
            fields.push((name, value));
        }
        Ok(Value::Struct(fields))
    }
}

/// What a whole message is. A sequence is written as an array of 0: its number of elements is looked at by nobody here.
pub(crate) fn whole(schema: &Schema) -> Type {
    match schema.is_sequence() {
        true => Type::Array(Box::new(schema.root().clone()), 0),
        false => schema.root().clone(),
    }
}

/// A value for a message or field of type `ty`: floats that JSON has as texts become floats and, where `fill` says so, fields that are missing are 0.
/// What does not fit stays as it is: encoding it is the error.
pub(crate) fn fit(ty: &Type, value: Value, fill: bool) -> Value {
    match (ty, value) {
        (Type::Scalar(Scalar::F32 | Scalar::F64), Value::Str(text)) => match &*text {
            "NaN" => Value::F64(f64::NAN),
            "inf" => Value::F64(f64::INFINITY),
            "-inf" => Value::F64(f64::NEG_INFINITY),
            _ => Value::Str(text),
        },
        (Type::Array(of, _), Value::List(values)) => {
            Value::List(values.into_iter().map(|value| fit(of, value, fill)).collect())
        }
        (Type::Struct(structure), Value::Struct(mut values)) => {
            let shown = structure.fields().iter().filter(|field| !field.is_padding());
            for field in shown {
                match values.iter_mut().find(|(name, _)| name == field.name()) {
                    Some((_, value)) => {
                        let given = std::mem::replace(value, Value::Bool(false));
                        *value = fit(field.ty(), given, fill);
                    }
                    None if fill => values.push((field.name().to_owned(), zero(field.ty()))),
                    None => {}
                }
            }
            Value::Struct(values)
        }
        (_, value) => value,
    }
}

/// The value of a type whose bytes are all 0.
fn zero(ty: &Type) -> Value {
    match ty {
        Type::Bool => Value::Bool(false),
        Type::Text(_) => Value::Str(String::new()),
        Type::Array(of, count) if matches!(**of, Type::Scalar(Scalar::U8)) => {
            Value::Bytes(vec![0; *count as usize])
        }
        Type::Array(of, count) => Value::List(vec![zero(of); *count as usize]),
        Type::Struct(_) => fit(ty, Value::Struct(Vec::new()), true),
        Type::Scalar(_) | Type::Enum(_) => Value::U64(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_has_no_number_for_is_a_text_and_comes_back() {
        let floats = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.1, -0.0, 5e-324];
        let list = Value::List(floats.map(Value::F64).to_vec());
        let text = to_json(&list);
        assert_eq!(text, r#"["NaN","inf","-inf",0.1,-0.0,5e-324]"#);
        let ty = Type::Array(Box::new(Type::Scalar(Scalar::F64)), 6);
        let Value::List(back) = fit(&ty, from_json(text.as_bytes()).unwrap(), false) else {
            panic!("not a list")
        };
        for (value, float) in back.iter().zip(floats) {
            let Value::F64(value) = value else { panic!("{value:?}") };
            assert!(value.to_bits() == float.to_bits() || value.is_nan() && float.is_nan());
        }
    }

    #[test]
    fn integers_of_64_bits_are_exact() {
        let text = format!("[{},{}]", u64::MAX, i64::MIN);
        let value = from_json(text.as_bytes()).unwrap();
        assert_eq!(value, Value::List(vec![Value::U64(u64::MAX), Value::I64(i64::MIN)]));
        assert_eq!(to_json(&value), text);
    }

    #[test]
    fn a_field_given_twice_stays_so_and_what_is_no_value_is_refused() {
        let twice = from_json(br#"{"a":1,"a":2}"#).unwrap();
        assert!(matches!(twice, Value::Struct(fields) if fields.len() == 2));
        for text in ["", "null", "{", "[1,]", "{\"a\":null}", "1 2", "nan"] {
            assert!(from_json(text.as_bytes()).unwrap_err().contains("column"), "{text}");
        }
    }
}
