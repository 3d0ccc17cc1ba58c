//! Schema -> the text of a ROS 2 `.msg`, where the bytes of a message are what that text says.
//!
//! The encoding is XCDR1, little-endian: behind its four bytes of header (`00 01 00 00`) each primitive is aligned to its size, counted from there.
//! That is what `repr(C)` does where every byte belongs to a field, so recorders write messages as they are and stock viewers read them.

use std::collections::HashMap;
use std::fmt::Write;

use super::{Schema, StructType, Type};
use crate::kind::Scalar;

/// Between definitions, as rosbag2 and MCAP have it.
const RULE: &str =
    "================================================================================";

impl Schema {
    /// The message type as text of a ROS 2 `.msg` with the definitions it needs: what MCAP calls `ros2msg`.
    ///
    /// Texts become `uint8` arrays, enums their integers, arrays of arrays one array, padding fields `padding_0` and so on; names are made lower case.
    /// `None` where ROS 2 would read the bytes otherwise or not at all: sequences, alignments above 8, names that are none there.
    pub fn ros2msg(&self) -> Option<String> {
        if self.is_sequence() || self.align() > 8 {
            return None;
        }
        let mut names = HashMap::new();
        let mut parts = Vec::new();
        match &self.root {
            Type::Struct(structure) => {
                fields(structure, &mut names, &mut parts).map(|own| parts.insert(0, own))?
            }
            other => {
                let ty = field_type(other, &mut names, &mut parts)?;
                parts.insert(0, format!("{ty} data\n"));
            }
        }
        Some(parts.join(&format!("{RULE}\n")))
    }
}

/// The lines of a struct. What it needs is added to `parts`, each once.
fn fields(
    structure: &StructType,
    names: &mut HashMap<String, String>,
    parts: &mut Vec<String>,
) -> Option<String> {
    let mut lines = String::new();
    let mut used = std::collections::HashSet::new();
    let mut paddings = 0;
    for field in &structure.fields {
        let name = if field.is_padding() {
            paddings += 1;
            format!("padding_{}", paddings - 1)
        } else {
            field_name(&field.name)?
        };
        let ty = field_type(&field.ty, names, parts)?;
        writeln!(lines, "{ty} {name}").ok()?;
        if !used.insert(name) {
            return None;
        }
    }
    Some(lines)
}

fn field_type(
    ty: &Type,
    names: &mut HashMap<String, String>,
    parts: &mut Vec<String>,
) -> Option<String> {
    let (mut count, mut inner, mut is_array) = (1_u64, ty, false);
    while let Type::Array(of, elements) = inner {
        count = count.checked_mul(*elements)?;
        is_array = true;
        inner = of;
    }
    let base = match inner {
        Type::Scalar(scalar) => scalar_name(*scalar).to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Enum(enumeration) => scalar_name(enumeration.scalar).to_owned(),
        Type::Text(len) => {
            (count, is_array) = (count.checked_mul(*len)?, true);
            "uint8".to_owned()
        }
        Type::Struct(structure) => {
            let name = type_name(&structure.name)?;
            match names.get(&name) {
                Some(known) if *known == structure.name => {}
                Some(_) => return None, // two types, one name there
                None => {
                    names.insert(name.clone(), structure.name.clone());
                    let lines = fields(structure, names, parts)?;
                    parts.push(format!("MSG: {name}\n{lines}"));
                }
            }
            name
        }
        Type::Array(..) => return None,
    };
    Some(if is_array { format!("{base}[{count}]") } else { base })
}

fn scalar_name(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::U8 => "uint8",
        Scalar::I8 => "int8",
        Scalar::U16 => "uint16",
        Scalar::I16 => "int16",
        Scalar::U32 => "uint32",
        Scalar::I32 => "int32",
        Scalar::U64 => "uint64",
        Scalar::I64 => "int64",
        Scalar::F32 => "float32",
        Scalar::F64 => "float64",
    }
}

/// Lower case, and no `_` at the end or twice.
fn field_name(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let good = name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('_')
        && !name.contains("__");
    good.then_some(name)
}

/// `md.Quote` -> `md/Quote`; without a package, `shmbus/Quote`.
fn type_name(name: &str) -> Option<String> {
    let (package, name) = name.rsplit_once('.').unwrap_or(("shmbus", name));
    let package = field_name(&package.replace('.', "_"))?;
    let good = name.starts_with(|c: char| c.is_ascii_uppercase()) && !name.contains('_');
    good.then(|| format!("{package}/{name}"))
}
