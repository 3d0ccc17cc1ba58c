//! Two definitions of a message, side by side, for the error of who opened a topic as the wrong type.

use std::fmt::Write;

use super::{Schema, Type};

/// Most lines of a definition that are shown.
const ROWS_MAX: usize = 100;

/// A line of a definition: what it is about (a field, by its path; else what is no path), and what it says.
struct Row {
    key: String,
    text: String,
}

/// `found` (of the topic) and `expected` (of the caller) in two columns; `None` is bytes. Lines that differ begin with `*`.
pub(super) fn side_by_side(found: Option<&Schema>, expected: Option<&Schema>) -> String {
    let (found, expected) = (rows(found), rows(expected));
    let mut pairs: Vec<(Option<&Row>, Option<&Row>)> = Vec::new();
    for row in &found {
        pairs.push((Some(row), expected.iter().find(|other| other.key == row.key)));
    }
    let only_here = expected.iter().filter(|row| found.iter().all(|other| other.key != row.key));
    pairs.extend(only_here.map(|row| (None, Some(row))));
    let text = |row: Option<&Row>| row.map_or("-".to_owned(), |row| row.text.clone());
    let width = pairs.iter().map(|(found, _)| text(*found).chars().count()).max();
    let width = width.unwrap_or(0).max("in the topic".len());
    let mut lines = format!("\n    {:width$}   here", "in the topic");
    for (found, expected) in pairs {
        let (found, expected) = (text(found), text(expected));
        let mark = if found == expected { ' ' } else { '*' };
        let _ = write!(lines, "\n  {mark} {found:width$}   {expected}"); // to a String: cannot fail
    }
    lines
}

fn rows(schema: Option<&Schema>) -> Vec<Row> {
    let mut rows = Vec::new();
    let Some(schema) = schema else {
        rows.push(Row { key: String::new(), text: "bytes, any number".to_owned() });
        return rows;
    };
    let each = if schema.is_sequence() { ", any number" } else { "" };
    let (size, align) = (schema.size(), schema.align());
    let text = format!("size {size}, align {align}{each}");
    rows.push(Row { key: String::new(), text });
    match &schema.root {
        Type::Struct(_) => fields(&schema.root, "", &mut rows),
        root => {
            rows.push(Row { key: ".".to_owned(), text: format!("each: {}", described(root)) });
            fields(root, "", &mut rows);
        }
    }
    rows
}

/// Fields of structs that are in `ty`, and theirs.
fn fields(ty: &Type, prefix: &str, rows: &mut Vec<Row>) {
    let Type::Struct(structure) = ty.innermost() else { return };
    for field in &structure.fields {
        if rows.len() >= ROWS_MAX {
            if rows.len() == ROWS_MAX {
                rows.push(Row { key: "...".to_owned(), text: "...".to_owned() });
            }
            return;
        }
        let key = format!("{prefix}{}", field.name);
        let text = format!("{key}: {} at {}", described(&field.ty), field.offset);
        fields_of(key, text, &field.ty, rows);
    }
}

fn fields_of(key: String, text: String, ty: &Type, rows: &mut Vec<Row>) {
    let prefix = format!("{key}.");
    rows.push(Row { key, text });
    fields(ty, &prefix, rows);
}

/// A type with what its name does not say.
fn described(ty: &Type) -> String {
    match ty.innermost() {
        Type::Struct(structure) => format!("{ty} version {}", structure.version),
        Type::Enum(enumeration) => {
            let variants = enumeration.variants.iter().take(8);
            let mut values: Vec<String> =
                variants.map(|(name, value)| format!("{name} {value}")).collect();
            if enumeration.variants.len() > 8 {
                values.push(format!("{} more", enumeration.variants.len() - 8));
            }
            format!("{ty} ({}: {})", enumeration.scalar.name(), values.join(", "))
        }
        _ => ty.to_string(),
    }
}

/// Both types by name, with their versions where only these tell them apart, then by field.
pub(crate) fn other_type(name: &str, found: Option<&Schema>, expected: Option<&Schema>) -> String {
    let names = [found, expected].map(|schema| match schema {
        Some(schema) => (schema.name(), schema.version()),
        None => ("[u8]".to_owned(), 0),
    });
    let [found_name, expected_name] = match names {
        [(found, old), (expected, new)] if found == expected && old != new => {
            [format!("{found} version {old}"), format!("version {new}")]
        }
        [(found, _), (expected, _)] if found == expected => {
            [found, "as it is defined here".to_owned()]
        }
        [(found, _), (expected, _)] => [found, expected],
    };
    let columns = side_by_side(found, expected);
    format!("topic {name} carries {found_name}, not {expected_name}{columns}")
}
