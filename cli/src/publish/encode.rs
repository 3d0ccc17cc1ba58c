//! Lines that say what is in a message -> its bytes, by the schema of the topic.

use shmbus::{Schema, Value};

use crate::csv;
use crate::value::{fit, from_json, whole};

/// Makes messages of lines of JSON or CSV.
pub(super) struct Encoder {
    schema: Schema,
    csv: Option<csv::Reader>,
    default_zero: bool,
    /// The line with which the present record of CSV began.
    first: u64,
    message: Vec<u8>,
}

/// What is wrong with a line.
pub(super) struct Invalid {
    pub(super) error: String,
    /// What follows means nothing either: it is the header of CSV.
    pub(super) is_fatal: bool,
}

impl Encoder {
    pub(super) fn new(schema: &Schema, csv: bool, default_zero: bool) -> Encoder {
        let csv = csv.then(|| csv::Reader::new(default_zero));
        Encoder { schema: schema.clone(), csv, default_zero, first: 0, message: Vec::new() }
    }

    /// The message in the next line, which is the `unit` of that number. None in an empty line, in a header, or in the first lines of a record of
    /// several.
    ///
    /// # Errors
    /// What is wrong, with the number of the line and, where there is one, the field.
    pub(super) fn encode(
        &mut self,
        unit: &str,
        number: u64,
        line: &[u8],
    ) -> Result<Option<&[u8]>, Invalid> {
        // A byte order mark is written by spreadsheets and some editors.
        let mark = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf") } else { None };
        let line = mark.unwrap_or(line);
        let read = match &mut self.csv {
            Some(reader) => {
                if !reader.is_inside() {
                    self.first = number;
                }
                reader.next(line, &self.schema)
            }
            None => {
                self.first = number;
                match line.trim_ascii() {
                    [] => Ok(None),
                    text => from_json(text).map(Some),
                }
            }
        };
        let is_fatal = self.csv.as_ref().is_some_and(csv::Reader::is_at_header);
        let first = self.first;
        let at_line =
            |error: String| Invalid { error: format!("{unit} {first}: {error}"), is_fatal };
        let Some(value) = read.map_err(at_line)? else { return Ok(None) };
        let value = fit(&whole(&self.schema), value, self.default_zero);
        match put(&self.schema, &value, &mut self.message) {
            Ok(()) => Ok(Some(&self.message)),
            Err(error) => Err(at_line(error)),
        }
    }

    /// What is wrong with an input that ends here.
    pub(super) fn unfinished(&self) -> Option<String> {
        let is_inside = self.csv.as_ref().is_some_and(csv::Reader::is_inside);
        is_inside.then(|| format!("line {}: the input ends inside a quoted cell", self.first))
    }
}

/// Makes `message` the bytes of `value`.
fn put(schema: &Schema, value: &Value, message: &mut Vec<u8>) -> Result<(), String> {
    let encoded = schema.encoded_len(value).and_then(|len| {
        message.resize(len as usize, 0); // of the type, or of a list that is in memory
        schema.encode(value, message)
    });
    encoded.map_err(|error| {
        let error = error.to_string();
        // Errors begin with the path of the field, or with `message` where it is all of it.
        if error.starts_with("message: ") { error } else { format!("field {error}") }
    })
}
