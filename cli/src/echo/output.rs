//! What `shmbus echo` prints of a message, and standard output.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::ser::{Serialize, SerializeMap, Serializer};
use shmbus::{DecodeError, Schema, Value};

use super::Arguments;
use super::source::Message;
use crate::csv;
use crate::field::{self, Condition, Field};
use crate::text::Usage;
use crate::value::Json;

/// Bytes written at once.
const WRITE_LEN: usize = 256 * 1024;
/// Bytes of a line of a dump.
const DUMP_LEN: usize = 16;

/// How a message is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Raw,
    Frames,
    Hex,
    /// The message as JSON.
    Json,
    /// An object in which the message is.
    Envelope,
    Csv,
}

/// What has become of a message.
pub(super) enum Written {
    Printed,
    /// A condition was not met.
    LeftOut,
    /// It is not what the schema says.
    Undecodable(DecodeError),
}

/// Standard output.
pub(super) struct Output {
    form: Form,
    schema: Option<Schema>,
    /// Of a message, those that are printed; none where it is printed whole.
    fields: Option<Vec<Field>>,
    conditions: Vec<Condition>,
    /// What is printed of one message.
    line: Vec<u8>,
    buffer: BufWriter<File>,
}

impl Output {
    /// # Errors
    /// A topic of bytes has no fields, or its schema not those that were asked for.
    pub(super) fn new(arguments: &Arguments, schema: Option<&Schema>) -> Result<Output, Usage> {
        let stdout = io::stdout().as_fd().try_clone_to_owned();
        let stdout =
            stdout.map_err(|error| Usage(format!("cannot use standard output: {error}")))?;
        let buffer = BufWriter::with_capacity(WRITE_LEN, File::from(stdout));
        let (form, fields, conditions, line) = (Form::Raw, None, Vec::new(), Vec::new());
        let mut output = Output { form, schema: None, fields, conditions, line, buffer };
        output.bind(arguments, schema)?;
        Ok(output)
    }

    /// Goes on with the messages of another topic: of a new schema with a new header, if there is one.
    ///
    /// # Errors
    /// As [`Output::new`].
    pub(super) fn follow(
        &mut self,
        arguments: &Arguments,
        schema: Option<&Schema>,
    ) -> Result<(), Usage> {
        if schema == self.schema.as_ref() { Ok(()) } else { self.bind(arguments, schema) }
    }

    fn bind(&mut self, arguments: &Arguments, schema: Option<&Schema>) -> Result<(), Usage> {
        let default = if schema.is_some() { Form::Json } else { Form::Text };
        let form = arguments.form().unwrap_or(default);
        let (mut fields, mut conditions) = (None, Vec::new());
        if form == Form::Csv || !arguments.fields.is_empty() || !arguments.filter.is_empty() {
            let schema = schema
                .ok_or(Usage("carries bytes, which have no fields to choose or compare".into()))?;
            let filters = arguments.filter.iter();
            conditions = filters.map(|filter| filter.bind(schema)).collect::<Result<_, _>>()?;
            fields = match (&arguments.fields[..], form) {
                ([], Form::Csv) => Some(field::columns(schema)),
                ([], _) => None,
                (paths, _) => {
                    Some(paths.iter().map(|path| path.find(schema)).collect::<Result<_, _>>()?)
                }
            };
        }
        self.line.clear();
        if let (Form::Csv, Some(fields)) = (form, &fields) {
            csv::add_record(&mut self.line, fields.iter().map(|field| field.name.clone()));
        }
        // Only buffered, of a new output.
        let written = self.buffer.write_all(&self.line);
        written.map_err(|error| Usage(format!("cannot write: {error}")))?;
        (self.form, self.schema) = (form, schema.cloned());
        (self.fields, self.conditions) = (fields, conditions);
        Ok(())
    }

    /// Prints a message, if it is to be printed.
    pub(super) fn write(&mut self, message: &Message<'_>) -> Result<Written> {
        let bytes = message.bytes();
        let is_decoded = matches!(self.form, Form::Json | Form::Envelope | Form::Csv);
        let value = match &self.schema {
            Some(schema) if is_decoded || !self.conditions.is_empty() => {
                match schema.decode(bytes) {
                    Ok(value) => Some(value),
                    Err(error) => return Ok(Written::Undecodable(error)),
                }
            }
            _ => None,
        };
        if let Some(value) = &value
            && !self.conditions.iter().all(|condition| condition.accepts(value))
        {
            return Ok(Written::LeftOut);
        }
        self.line.clear();
        self.add(message, bytes, value.as_ref())?;
        self.buffer.write_all(&self.line).context("cannot write")?;
        Ok(Written::Printed)
    }

    fn add(&mut self, message: &Message<'_>, bytes: &[u8], value: Option<&Value>) -> Result<()> {
        let line = &mut self.line;
        let content = value.map(|value| Content { value, fields: self.fields.as_deref() });
        match self.form {
            Form::Raw => line.extend(bytes),
            Form::Text => {
                line.extend(bytes);
                line.push(b'\n');
            }
            Form::Frames => {
                line.extend((bytes.len() as u32).to_le_bytes()); // messages have up to 2^30 bytes
                line.extend(bytes);
            }
            Form::Hex => {
                writeln!(line, "sequence {}, {} bytes", message.sequence(), bytes.len())?;
                dump(line, bytes)?;
            }
            Form::Json => {
                serde_json::to_writer(&mut *line, &content)?;
                line.push(b'\n');
            }
            Form::Envelope => {
                serde_json::to_writer(&mut *line, &Envelope { message, bytes, content })?;
                line.push(b'\n');
            }
            Form::Csv => {
                let fields = self.fields.iter().flatten();
                let cells = fields.map(|field| {
                    value.and_then(|value| field.of(value)).map_or(String::new(), |v| csv::cell(&v))
                });
                csv::add_record(line, cells);
            }
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.buffer.flush().context("cannot write")
    }

    /// # Errors
    /// Nobody reads any more: without this, only the next message would show it.
    pub(super) fn check(&self) -> Result<()> {
        let mut output = [PollFd::new(self.buffer.get_ref(), PollFlags::empty())];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut output, Some(&at_once)) {
            Ok(_) if output[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => {
                Err(io::Error::from(io::ErrorKind::BrokenPipe).into())
            }
            _ => Ok(()),
        }
    }
}

/// A message as JSON, or those of its fields that were asked for, by their paths.
struct Content<'a> {
    value: &'a Value,
    fields: Option<&'a [Field]>,
}

impl Serialize for Content<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(fields) = self.fields else { return Json(self.value).serialize(serializer) };
        let mut map = serializer.serialize_map(Some(fields.len()))?;
        for field in fields {
            map.serialize_entry(&field.name, &field.of(self.value).as_deref().map(Json))?;
        }
        map.end()
    }
}

/// A message with what is known about it.
struct Envelope<'a> {
    message: &'a Message<'a>,
    bytes: &'a [u8],
    content: Option<Content<'a>>,
}

impl Serialize for Envelope<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(6))?;
        map.serialize_entry("sequence", &self.message.sequence())?;
        map.serialize_entry("timestamp_ns", &self.message.timestamp_ns())?;
        map.serialize_entry("publisher", &self.message.publisher())?;
        map.serialize_entry("missed_before", &self.message.missed_before())?;
        map.serialize_entry("abandoned_before", &self.message.abandoned_before())?;
        match (&self.content, std::str::from_utf8(self.bytes)) {
            (Some(content), _) => map.serialize_entry("message", content)?,
            (None, Ok(text)) => map.serialize_entry("message", text)?,
            (None, Err(_)) => {
                let hex: String = self.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                map.serialize_entry("message_hex", &hex)?;
            }
        }
        map.end()
    }
}

/// Adds the bytes as `hexdump -C` shows them, every line of them.
fn dump(line: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    for (index, row) in bytes.chunks(DUMP_LEN).enumerate() {
        write!(line, "{:08x} ", index * DUMP_LEN)?;
        for place in 0..DUMP_LEN {
            let gap = if place == DUMP_LEN / 2 { " " } else { "" };
            match row.get(place) {
                Some(byte) => write!(line, "{gap} {byte:02x}")?,
                None => write!(line, "{gap}   ")?,
            }
        }
        let shown = |byte: &u8| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '.' };
        writeln!(line, "  |{}|", row.iter().map(shown).collect::<String>())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_as_hexdump_has_it() {
        let mut line = Vec::new();
        dump(&mut line, b"hello world\n\x00\xff0123").unwrap();
        let expected = "\
00000000  68 65 6c 6c 6f 20 77 6f  72 6c 64 0a 00 ff 30 31  |hello world...01|
00000010  32 33                                             |23|
";
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }
}
