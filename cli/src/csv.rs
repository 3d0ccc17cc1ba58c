//! Messages as CSV (RFC 4180): a line for each, a cell for each field, a header line with their names.
//!
//! Fields of structs within a message have cells of their own (`best.ratio`); an array is one cell, as JSON. A cell is in quotes where it has a
//! comma, a quote or the end of a line in it.

use shmbus::{Scalar, Schema, Type, Value};

use crate::field::{self, Field};
use crate::value::{fit, from_json, to_json};

/// Adds `cells` as one record to `line`.
pub(crate) fn add_record(line: &mut Vec<u8>, cells: impl IntoIterator<Item = String>) {
    let start = line.len();
    for (index, cell) in cells.into_iter().enumerate() {
        if index > 0 {
            line.push(b',');
        }
        let is_plain = !cell.contains([',', '"', '\n', '\r']) && cell.trim() == cell;
        match is_plain {
            true => line.extend(cell.bytes()),
            false => line.extend(format!("\"{}\"", cell.replace('"', "\"\"")).bytes()),
        }
    }
    if line.len() == start {
        line.extend(b"\"\""); // an empty line is no record
    }
    line.push(b'\n');
}

/// The text of a cell.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Str(text) => text.clone(),
        Value::F32(float) if !float.is_finite() => float.to_string(),
        Value::F64(float) if !float.is_finite() => float.to_string(),
        other => to_json(other),
    }
}

/// Lines on their way to become values.
pub(crate) struct Reader {
    /// Which fields the cells are; of the header line.
    columns: Option<Vec<Field>>,
    /// A record of which not all lines are there: one of its cells has the end of a line in it.
    begun: Vec<u8>,
    fill: bool,
}

impl Reader {
    /// `fill`: an empty cell is a field that is not given, unless it is a text.
    pub(crate) fn new(fill: bool) -> Reader {
        Reader { columns: None, begun: Vec::new(), fill }
    }

    /// Whether a record has begun and not ended.
    pub(crate) fn is_inside(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Whether the header line is still to come.
    pub(crate) fn is_at_header(&self) -> bool {
        self.columns.is_none()
    }

    /// The value in the next line; none where it is the header, or only a part of a record.
    ///
    /// # Errors
    /// What is wrong with it. The reader goes on with the next line.
    pub(crate) fn next(&mut self, line: &[u8], schema: &Schema) -> Result<Option<Value>, String> {
        if self.begun.is_empty() && line.trim_ascii().is_empty() {
            return Ok(None);
        }
        self.begun.extend(line);
        if self.begun.iter().filter(|byte| **byte == b'"').count() % 2 == 1 {
            self.begun.push(b'\n');
            return Ok(None);
        }
        let record = String::from_utf8(std::mem::take(&mut self.begun));
        let record = record.map_err(|_| "not UTF-8".to_owned())?;
        let cells = split(record.strip_suffix('\r').unwrap_or(&record))?;
        let Some(columns) = &self.columns else {
            self.columns = Some(header(&cells, schema)?);
            return Ok(None);
        };
        if cells.len() != columns.len() {
            let (found, expected) = (cells.len(), columns.len());
            return Err(format!("{found} cells, and the header line has {expected}"));
        }
        let mut message = Value::Struct(Vec::new());
        for (field, text) in columns.iter().zip(cells) {
            if self.fill && text.is_empty() && !matches!(field.ty, Type::Text(_)) {
                continue;
            }
            let value = parse(&field.ty, text);
            let value = value.map_err(|error| format!("field {}: {error}", field.name))?;
            if !matches!(schema.root(), Type::Struct(_)) || schema.is_sequence() {
                return Ok(Some(value)); // the only one
            }
            put(&mut message, &field.name, value);
        }
        Ok(Some(message))
    }
}

/// The fields that a header line names.
fn header(cells: &[String], schema: &Schema) -> Result<Vec<Field>, String> {
    let mut left = field::columns(schema);
    let mut columns = Vec::new();
    for name in cells {
        let name = name.trim();
        match left.iter().position(|field| field.name == name) {
            Some(at) => columns.push(left.remove(at)),
            None => {
                let all = field::columns(schema);
                let names: Vec<&str> = all.iter().map(|field| &*field.name).take(40).collect();
                return Err(format!(
                    "the header line names fields, and {name:?} is none of them, or given twice; there are {}",
                    names.join(", ")
                ));
            }
        }
    }
    Ok(columns)
}

/// The cells of a record, in which quotes are even.
fn split(record: &str) -> Result<Vec<String>, String> {
    let mut cells = Vec::new();
    let mut rest = record;
    loop {
        let mut cell = String::new();
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted;
            loop {
                let (part, after) = rest.split_once('"').ok_or("a quoted cell has no end")?;
                cell += part;
                rest = after;
                match rest.strip_prefix('"') {
                    Some(after) => (cell, rest) = (cell + "\"", after),
                    None => break,
                }
            }
        } else {
            let len = rest.find(',').unwrap_or(rest.len());
            cell += &rest[..len];
            rest = &rest[len..];
        }
        cells.push(cell);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.is_empty() => return Ok(cells),
            None => return Err("something follows a quoted cell".to_owned()),
        }
    }
}

/// A cell as a value of type `ty`. What is none stays a text: encoding it is the error.
fn parse(ty: &Type, text: String) -> Result<Value, String> {
    let float = |text: &str| text.parse::<f64>().ok();
    let integer = |text: &str| {
        let unsigned = text.parse().ok().map(Value::U64);
        unsigned.or_else(|| text.parse().ok().map(Value::I64))
    };
    let trimmed = text.trim();
    let is_float = matches!(ty, Type::Scalar(Scalar::F32 | Scalar::F64));
    if is_float && float(trimmed).is_some_and(|float| !is_what_it_says(trimmed, float)) {
        return Err(format!("{trimmed} is out of the range of {ty}"));
    }
    let value = match ty {
        Type::Text(_) => None,
        Type::Array(..) => {
            return Ok(fit(ty, from_json(trimmed.as_bytes())?, false));
        }
        Type::Bool => trimmed.parse().ok().map(Value::Bool),
        // Once, and not by way of a f64, where it fits.
        Type::Scalar(Scalar::F32) => match (trimmed.parse::<f32>(), float(trimmed)) {
            (Ok(single), Some(double)) if double.is_finite() && !single.is_finite() => {
                Some(Value::F64(double))
            }
            (Ok(single), _) => Some(Value::F32(single)),
            _ => None,
        },
        Type::Scalar(Scalar::F64) => float(trimmed).map(Value::F64),
        Type::Scalar(_) | Type::Enum(_) => integer(trimmed),
        Type::Struct(_) => None,
    };
    Ok(value.unwrap_or(Value::Str(text)))
}

/// Whether a number is the one that was written: one that is too large is parsed as infinite.
pub(crate) fn is_what_it_says(text: &str, float: f64) -> bool {
    !float.is_infinite() || !text.contains(|c: char| c.is_ascii_digit())
}

/// Adds a field by its path, in which there are names only.
fn put(message: &mut Value, path: &str, value: Value) {
    let Value::Struct(fields) = message else { return };
    let Some((name, rest)) = path.split_once('.') else {
        fields.push((path.to_owned(), value));
        return;
    };
    if fields.iter().all(|(known, _)| known != name) {
        fields.push((name.to_owned(), Value::Struct(Vec::new())));
    }
    if let Some((_, inner)) = fields.iter_mut().find(|(known, _)| known == name) {
        put(inner, rest, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_come_back_whatever_is_in_them() {
        for cells in [
            &["a", "b,c", "", " d ", "say \"e\"", "two\nlines\r", "ä"][..],
            &[""],
            &["", ""],
            &["\""],
        ] {
            let mut line = Vec::new();
            add_record(&mut line, cells.iter().map(|cell| (*cell).to_owned()));
            let text = String::from_utf8(line).unwrap();
            assert_eq!(split(text.strip_suffix('\n').unwrap()).unwrap(), cells, "{text}");
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for record in ["\"a\"b", "\"a", "a,\"b\"\"", "\"a\"\"\"\"b"] {
            assert!(split(record).is_err(), "{record}");
        }
    }

    #[test]
    fn a_record_may_have_several_lines_and_the_header_chooses_the_order() {
        let text = "shmbus-schema 1\nstruct m.N version 1 size 8 align 2\n  t: text(6) at 0\n  n: i16 at 6\nmessage m.N\n";
        let schema = Schema::parse(text).unwrap();
        let mut reader = Reader::new(false);
        let mut next = |line: &str| reader.next(line.as_bytes(), &schema);
        assert_eq!(next("n,t\r"), Ok(None));
        assert_eq!(next("-3,\"a"), Ok(None));
        let value = |n, t: &str| {
            Value::Struct(vec![("n".into(), Value::I64(n)), ("t".into(), Value::Str(t.into()))])
        };
        assert_eq!(next("b\"\r"), Ok(Some(value(-3, "a\nb"))));
        assert_eq!(next(""), Ok(None));
        assert_eq!(next("1"), Err("1 cells, and the header line has 2".to_owned()));
        let error = Reader::new(false).next(b"n,n", &schema).unwrap_err();
        assert!(error.contains("there are t"), "{error}");
    }
}
