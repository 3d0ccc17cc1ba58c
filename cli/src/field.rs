//! Fields of a message by their path, such as `legs[0].ratio`, and conditions on them.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::str::FromStr;

use shmbus::{Scalar, Schema, Type, Value};

use crate::csv;
use crate::text::Usage;
use crate::value::whole;

/// Most paths that an error names.
const PATHS_MAX: usize = 40;
/// What a message is called that is not a struct.
const MESSAGE: &str = "message";

/// A path as it was written.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    text: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Field(String),
    Element(usize),
}

/// A path that leads somewhere in messages of one type.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) ty: Type,
    /// Of each struct, the place among its fields that are shown; of each array, the element.
    steps: Vec<usize>,
}

impl FromStr for Path {
    type Err = String;

    fn from_str(text: &str) -> Result<Path, String> {
        let wrong = || format!("{text:?} is no path of a field, such as id or legs[0].ratio");
        let is_name = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        let mut steps = Vec::new();
        for part in text.split('.') {
            let (name, mut rest) = part.split_at(part.find('[').unwrap_or(part.len()));
            if !is_name(name) {
                return Err(wrong());
            }
            steps.push(Step::Field(name.to_owned()));
            while !rest.is_empty() {
                let element = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
                let (index, after) = element.ok_or_else(wrong)?;
                steps.push(Step::Element(index.parse().map_err(|_| wrong())?));
                rest = after;
            }
        }
        Ok(Path { text: text.to_owned(), steps })
    }
}

impl Path {
    /// Where it leads in messages of `schema`.
    ///
    /// # Errors
    /// Nowhere; the error names the fields there are.
    pub(crate) fn find(&self, schema: &Schema) -> Result<Field, Usage> {
        let nowhere = || {
            let mut names: Vec<String> =
                columns(schema).into_iter().map(|field| field.name).collect();
            if names.len() > PATHS_MAX {
                names.truncate(PATHS_MAX);
                names.push("...".to_owned());
            }
            let (name, path) = (schema.name(), &self.text);
            Usage(format!("{name} has no field {path}; it has {}", names.join(", ")))
        };
        let mut ty = whole(schema);
        let mut steps = Vec::new();
        if !matches!(ty, Type::Struct(_)) && self.text == MESSAGE {
            return Ok(Field { name: self.text.clone(), ty, steps });
        }
        for step in &self.steps {
            let (index, inner) = match (step, &ty) {
                (Step::Field(name), Type::Struct(structure)) => {
                    let mut shown = structure.fields().iter().filter(|field| !field.is_padding());
                    let mut found = shown.by_ref().enumerate();
                    let found = found.find(|(_, field)| field.name() == name);
                    let (index, field) = found.ok_or_else(nowhere)?;
                    (index, field.ty().clone())
                }
                (Step::Element(index), Type::Array(of, count)) if (*index as u64) < *count => {
                    (*index, (**of).clone())
                }
                _ => return Err(nowhere()),
            };
            steps.push(index);
            ty = inner;
        }
        Ok(Field { name: self.text.clone(), ty, steps })
    }
}

impl Field {
    /// Its value in a message that was decoded by the schema in which it was found.
    pub(crate) fn of<'a>(&self, message: &'a Value) -> Option<Cow<'a, Value>> {
        let mut value = message;
        for (depth, &index) in self.steps.iter().enumerate() {
            value = match value {
                Value::Struct(fields) => &fields.get(index)?.1,
                Value::List(values) => values.get(index)?,
                Value::Bytes(bytes) if depth + 1 == self.steps.len() => {
                    return Some(Cow::Owned(Value::U64((*bytes.get(index)?).into())));
                }
                _ => return None,
            };
        }
        Some(Cow::Borrowed(value))
    }
}

/// All fields of a message; those of structs within it by themselves, arrays whole. A message that is no struct is one field, `message`.
pub(crate) fn columns(schema: &Schema) -> Vec<Field> {
    let mut found = Vec::new();
    match whole(schema) {
        ty @ Type::Struct(_) => add_columns(&ty, "", &[], &mut found),
        ty => found.push(Field { name: MESSAGE.to_owned(), ty, steps: Vec::new() }),
    }
    found
}

fn add_columns(ty: &Type, prefix: &str, steps: &[usize], found: &mut Vec<Field>) {
    let Type::Struct(structure) = ty else { return };
    let shown = structure.fields().iter().filter(|field| !field.is_padding());
    for (index, field) in shown.enumerate() {
        let name = format!("{prefix}{}", field.name());
        let steps = [steps, &[index]].concat();
        match field.ty() {
            inner @ Type::Struct(_) => add_columns(inner, &format!("{name}."), &steps, found),
            ty => found.push(Field { name, ty: ty.clone(), steps }),
        }
    }
}

/// A condition as it was written: `qty >= 100`.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    path: Path,
    operator: Operator,
    operand: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    Contains,
}

/// A condition on messages of one type.
#[derive(Debug)]
pub(crate) struct Condition {
    field: Field,
    operator: Operator,
    operand: Operand,
}

#[derive(Debug)]
enum Operand {
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(String),
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Filter, String> {
        const OPERATORS: [(&str, Operator); 7] = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::MoreOrEqual),
            ("<", Operator::Less),
            (">", Operator::More),
            ("~", Operator::Contains),
        ];
        let wrong = || format!("{text:?} is not as in 'qty >= 100' (== != < <= > >=, ~ contains)");
        let at = text.find(['=', '!', '<', '>', '~']).ok_or_else(wrong)?;
        let (path, rest) = text.split_at(at);
        let mut operators = OPERATORS.into_iter();
        let (sign, operator) =
            operators.find(|(sign, _)| rest.starts_with(sign)).ok_or_else(wrong)?;
        let operand = rest[sign.len()..].trim();
        let quoted = |mark| operand.strip_prefix(mark).and_then(|text| text.strip_suffix(mark));
        let operand = quoted('"').or_else(|| quoted('\'')).unwrap_or(operand).to_owned();
        Ok(Filter { path: path.trim().parse()?, operator, operand })
    }
}

impl Filter {
    /// The condition on messages of `schema`.
    ///
    /// # Errors
    /// There is no such field, or what it is compared with is none of its values.
    pub(crate) fn bind(&self, schema: &Schema) -> Result<Condition, Usage> {
        let Filter { path, operator, operand } = self;
        let (field, operator) = (path.find(schema)?, *operator);
        let name = &field.name;
        let needed = |what: &str| Usage(format!("{name} is {}: {what}", field.ty));
        let integer = || operand.parse::<i128>().ok().map(Operand::Integer);
        let not_a = |kind: &str| needed(&format!("{kind} is needed, not {operand:?}"));
        let in_range = |float| match csv::is_what_it_says(operand, float) {
            true => Ok(float),
            false => Err(needed(&format!("{operand} is out of its range"))),
        };
        let is_text = matches!(field.ty, Type::Text(_) | Type::Enum(_));
        if operator == Operator::Contains && !is_text {
            return Err(needed("~ is for texts"));
        }
        let operand = match &field.ty {
            Type::Scalar(Scalar::F32) => {
                let float: f64 = operand.parse::<f32>().map_err(|_| not_a("a number"))?.into();
                Operand::Float(in_range(float)?)
            }
            Type::Scalar(Scalar::F64) => {
                Operand::Float(in_range(operand.parse().map_err(|_| not_a("a number"))?)?)
            }
            Type::Scalar(_) => integer().ok_or_else(|| not_a("an integer"))?,
            Type::Bool if !matches!(operator, Operator::Equal | Operator::NotEqual) => {
                return Err(needed("only == and != are for truth values"));
            }
            Type::Bool => Operand::Bool(operand.parse().map_err(|_| not_a("true or false"))?),
            Type::Text(_) => Operand::Text(operand.clone()),
            Type::Enum(_) if operator == Operator::Contains => Operand::Text(operand.clone()),
            Type::Enum(enumeration) => {
                let variants = enumeration.variants();
                let value = variants.iter().find(|(name, _)| name == operand);
                let named = value.map(|(_, value)| Operand::Integer(*value));
                named.or_else(integer).ok_or_else(|| {
                    let names: Vec<&str> = variants.iter().map(|(name, _)| &**name).collect();
                    not_a(&format!("one of {}", names.join(", ")))
                })?
            }
            Type::Array(..) | Type::Struct(_) => {
                return Err(needed("compare one of its values"));
            }
        };
        Ok(Condition { field, operator, operand })
    }
}

impl Condition {
    /// Whether a message meets it.
    pub(crate) fn accepts(&self, message: &Value) -> bool {
        let Some(value) = self.field.of(message) else { return false };
        let order = match (&self.operand, &*value) {
            (Operand::Text(part), Value::Str(text)) if self.operator == Operator::Contains => {
                return text.contains(part);
            }
            (Operand::Text(other), Value::Str(text)) => Some((**text).cmp(other)),
            (Operand::Bool(other), Value::Bool(value)) => Some(value.cmp(other)),
            (Operand::Float(other), Value::F32(value)) => f64::from(*value).partial_cmp(other),
            (Operand::Float(other), Value::F64(value)) => value.partial_cmp(other),
            (Operand::Integer(other), value) => {
                self.integer(value).map(|integer| integer.cmp(other))
            }
            _ => None,
        };
        match self.operator {
            Operator::Equal => order == Some(Ordering::Equal),
            Operator::NotEqual => order != Some(Ordering::Equal),
            Operator::Less => order == Some(Ordering::Less),
            Operator::LessOrEqual => order.is_some_and(Ordering::is_le),
            Operator::More => order == Some(Ordering::Greater),
            Operator::MoreOrEqual => order.is_some_and(Ordering::is_ge),
            Operator::Contains => false,
        }
    }

    /// An integer, or what the name of an enum's value stands for.
    fn integer(&self, value: &Value) -> Option<i128> {
        match (value, &self.field.ty) {
            (Value::U64(value), _) => Some((*value).into()),
            (Value::I64(value), _) => Some((*value).into()),
            (Value::Str(name), Type::Enum(enumeration)) => {
                let mut variants = enumeration.variants().iter();
                variants.find(|(known, _)| known == name).map(|(_, value)| *value)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "shmbus-schema 1\nenum md.Side: i8\n  Buy = 1\n  Sell = -2\n\
                        struct md.Leg version 1 size 4 align 2\n  ratio: i16 at 0\n  side: md.Side at 2\n  open: bool at 3\n\
                        struct md.Order version 1 size 32 align 8\n  id: u64 at 0\n  legs: md.Leg[2] at 8\n  best: md.Leg at 16\n\
                        \x20 symbol: text(4) at 20\n  weight: f32 at 24\n  raw: u8[2] at 28\n  _pad: u8[2] at 30\nmessage md.Order\n";

    fn message() -> (Schema, Value) {
        let schema = Schema::parse(TEXT).unwrap();
        let mut bytes = [0; 32];
        bytes[..8].fill(0xFF);
        bytes[8..12].copy_from_slice(&[0xFE, 0xFF, 1, 1]);
        bytes[16..20].copy_from_slice(&[5, 0, 0xFE, 0]);
        bytes[20..24].copy_from_slice(b"ESZ6");
        bytes[24..28].copy_from_slice(&0.1_f32.to_le_bytes());
        bytes[28..30].copy_from_slice(&[7, 9]);
        let value = schema.decode(&bytes).unwrap();
        (schema, value)
    }

    #[test]
    fn a_path_leads_to_a_value() {
        let (schema, message) = message();
        for (path, expected) in [
            ("id", Value::U64(u64::MAX)),
            ("legs[0].ratio", Value::I64(-2)),
            ("legs[1].side", Value::I64(0)),
            ("best.side", Value::Str("Sell".into())),
            ("raw[1]", Value::U64(9)),
        ] {
            let field = path.parse::<Path>().unwrap().find(&schema).unwrap();
            assert_eq!(field.of(&message).unwrap().into_owned(), expected, "{path}");
        }
        let names: Vec<String> = columns(&schema).into_iter().map(|field| field.name).collect();
        let expected = "id legs best.ratio best.side best.open symbol weight raw";
        assert_eq!(names.join(" "), expected);
    }

    #[test]
    fn a_path_that_leads_nowhere_names_the_fields_there_are() {
        let (schema, _) = message();
        for path in ["ids", "legs[2]", "legs.ratio", "id.x", "_pad", "message"] {
            let error = path.parse::<Path>().unwrap().find(&schema).unwrap_err();
            assert!(error.0.contains(path) && error.0.contains("best.side, best.open"), "{error}");
        }
        for path in ["", ".", "a.", "a[", "a[x]", "a[1]b", "[0]", "a b"] {
            assert!(path.parse::<Path>().is_err(), "{path}");
        }
    }

    #[test]
    fn a_filter_compares_as_the_type_of_its_field_does() {
        let (schema, message) = message();
        let accepts = |filter: &str| {
            filter.parse::<Filter>().unwrap().bind(&schema).unwrap().accepts(&message)
        };
        for filter in [
            "id == 18446744073709551615",
            "id>18446744073709551614",
            "legs[0].ratio < -1",
            "best.side == Sell",
            "best.side<0",
            "best.side ~ ell",
            "legs[1].side != Buy",
            "best.open==false",
            "symbol ~ Z6",
            "symbol < \"EZ\"",
            "weight == 0.1",
            "raw[0] >= 7",
        ] {
            assert!(accepts(filter), "{filter}");
        }
        for filter in ["id != 18446744073709551615", "symbol ~ ZZ", "weight > 0.1", "raw[0]>7"] {
            assert!(!accepts(filter), "{filter}");
        }
    }

    #[test]
    fn a_filter_that_cannot_be_meant_is_refused() {
        let (schema, _) = message();
        for filter in ["id", "id = 3", "== 3", "id ! 3"] {
            assert!(filter.parse::<Filter>().is_err(), "{filter}");
        }
        for filter in [
            "id == x",
            "id ~ 3",
            "best.open < true",
            "best.open == 1",
            "best == 1",
            "weight < x",
            "best.side == Hold",
        ] {
            assert!(filter.parse::<Filter>().unwrap().bind(&schema).is_err(), "{filter}");
        }
    }
}
