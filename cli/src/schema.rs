//! `shmbus schema`: what the messages of a topic are.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use shmbus::{Directory, FieldType, OpenError, Schema, Type};

use crate::input;

const EXAMPLES: &str = "\
Examples:
  shmbus schema md/ticks
  shmbus schema md/ticks > tick.schema; shmbus pub other --schema tick.schema --message '{\"px\":100,\"qty\":5}'
  shmbus schema md/ticks --check tick.schema
  shmbus schema md/ticks --json | jq '.fields[] | {name, type, offset}'";

/// Show what the messages of a topic are
///
/// As the text that the topic carries (docs/schema.md), which `shmbus pub --schema` takes. A topic of bytes has none: status 1.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name of the topic, such as md/ticks
    topic: String,
    /// As a JSON object: name, version, hash, size, alignment and fields, padding among them
    #[arg(long)]
    json: bool,
    /// As the text of a ROS 2 .msg
    #[arg(long, conflicts_with = "json")]
    ros2: bool,
    /// Compare with the schema in FILE; show the differences, with status 1 where there are some
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "ros2"])]
    check: Option<PathBuf>,
}

/// A schema, for programs. Sizes and offsets in bytes.
#[derive(Serialize)]
struct Description<'a> {
    topic: &'a str,
    name: String,
    version: u32,
    hash: String,
    size: u64,
    align: u64,
    sequence: bool,
    fields: Vec<Member<'a>>,
}

/// A field, of an array all of it; `count` elements of `kind`.
#[derive(Serialize)]
struct Member<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    type_name: String,
    kind: &'static str,
    count: u64,
    offset: u64,
    size: u64,
    padding: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    variants: Option<Vec<Variant<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<Member<'a>>>,
}

#[derive(Serialize)]
struct Variant<'a> {
    name: &'a str,
    value: i128,
}

impl<'a> Member<'a> {
    fn of(field: &'a FieldType) -> Member<'a> {
        let (mut inner, mut count) = (field.ty(), 1);
        while let Type::Array(of, elements) = inner {
            (inner, count) = (of, count * elements); // at most 2^30
        }
        let kind = match inner {
            Type::Scalar(scalar) => scalar.name(),
            Type::Bool => "bool",
            Type::Text(_) => "text",
            Type::Enum(_) => "enum",
            Type::Struct(_) => "struct",
            Type::Array(..) => "array",
        };
        let variants = match inner {
            Type::Enum(enumeration) => {
                let variants = enumeration.variants().iter();
                Some(variants.map(|(name, value)| Variant { name, value: *value }).collect())
            }
            _ => None,
        };
        let fields = match inner {
            Type::Struct(structure) => Some(structure.fields().iter().map(Member::of).collect()),
            _ => None,
        };
        Member {
            name: field.name(),
            type_name: field.ty().to_string(),
            kind,
            count,
            offset: field.offset(),
            size: field.ty().size(),
            padding: field.is_padding(),
            variants,
            fields,
        }
    }
}

/// The schema in a file.
///
/// # Errors
/// It cannot be read, or is not one; the error names file and line.
pub(crate) fn read(path: &Path) -> Result<Schema> {
    let name = path.display();
    let text =
        input::read_text(path, input::SCHEMA_MAX).with_context(|| format!("cannot read {name}"))?;
    Schema::parse(&text).with_context(|| name.to_string())
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    let topic = &arguments.topic;
    let info = directory.inspect(topic)?;
    let expected = arguments.check.as_deref().map(read).transpose()?;
    if let (Some(path), true) = (&arguments.check, info.schema != expected) {
        let found = info.schema.map(Box::new);
        let expected = expected.map(Box::new);
        let difference = OpenError::Type { name: topic.clone(), found, expected }.to_string();
        // What differs is the result; that it does is the failure.
        let (summary, fields) = difference.split_once('\n').unwrap_or((&difference, ""));
        let file = path.display();
        print(&format!("{}\n", fields.replacen("   here", &format!("   in {file}"), 1)))?;
        match summary.strip_suffix(" here") {
            Some(summary) => bail!("{summary} in {file}"),
            None => bail!("{summary} as in {file}"),
        }
    }
    let Some(schema) = &info.schema else {
        bail!("topic {topic} carries bytes, which have no schema");
    };
    if arguments.check.is_some() {
        return Ok(());
    }
    if arguments.ros2 {
        return match schema.ros2msg() {
            Some(text) => print(&text),
            None => bail!(
                "topic {topic}: {} is nothing that ROS 2 can have as it is: a sequence, an alignment above 8, or a name \
                 that is none there (docs/schema.md)",
                schema.name()
            ),
        };
    }
    if arguments.json {
        let description = Description {
            topic,
            name: schema.name(),
            version: schema.version(),
            hash: format!("{:016x}", schema.layout_hash()),
            size: schema.size(),
            align: schema.align(),
            sequence: schema.is_sequence(),
            fields: schema.fields().iter().map(Member::of).collect(),
        };
        return print(&(serde_json::to_string(&description)? + "\n"));
    }
    print(&schema.to_string())
}

fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}
