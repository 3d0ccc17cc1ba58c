//! Texts that are schemas, texts that are not, and values that are messages.

use super::*;

/// The example of the documentation.
fn example() -> &'static str {
    let document = include_str!("../../../docs/schema.md");
    document.split("```text\n").nth(1).unwrap().split("```").next().unwrap()
}

fn value() -> Value {
    let leg = |ratio, side: &str| {
        Value::Struct(vec![
            ("ratio".into(), Value::I64(ratio)),
            ("side".into(), Value::Str(side.into())),
            ("open".into(), Value::Bool(true)),
            ("weight".into(), Value::F32(0.1)),
        ])
    };
    Value::Struct(vec![
        ("id".into(), Value::U64(u64::MAX)),
        ("legs".into(), Value::List(vec![leg(-2, "Buy"), leg(32_767, "Sell")])),
        ("symbol".into(), Value::Str("ESZ6".into())),
    ])
}

/// The value with one field of its first leg, or of itself, replaced (`None`: left out).
fn with(name: &str, new: Option<Value>) -> Value {
    fn replace(fields: &mut Vec<(String, Value)>, name: &str, new: &Option<Value>) {
        let at = fields.iter().position(|(other, _)| other == name);
        match (at, new) {
            (Some(at), Some(new)) => fields[at].1 = new.clone(),
            (Some(at), None) => _ = fields.remove(at),
            (None, _) => {
                let Some((_, Value::List(legs))) = fields.get_mut(1) else { panic!("no legs") };
                let Value::Struct(leg) = &mut legs[0] else { panic!("no leg") };
                let at = leg.iter().position(|(other, _)| other == name).unwrap();
                match new {
                    Some(new) => leg[at].1 = new.clone(),
                    None => _ = leg.remove(at),
                }
            }
        }
    }
    let Value::Struct(mut fields) = value() else { panic!("no struct") };
    replace(&mut fields, name, &new);
    Value::Struct(fields)
}

#[test]
fn the_example_of_the_document_is_a_schema_and_is_written_as_it_is_read() {
    let schema = Schema::parse(example()).unwrap();
    assert_eq!(schema.to_string(), example());
    assert_eq!((schema.name().as_str(), schema.version(), schema.size()), ("md.Order", 1, 40));
}

#[test]
fn a_value_becomes_bytes_and_the_same_value_again() {
    let schema = Schema::parse(example()).unwrap();
    let mut bytes = [0xAA; 40];
    schema.encode(&value(), &mut bytes).unwrap();
    assert_eq!(schema.decode(&bytes).unwrap(), value());
    assert_eq!(bytes[36..], [0; 4], "padding");
    assert_eq!(bytes[8..12], [0xFE, 0xFF, 1, 1]);
}

#[test]
fn what_is_wrong_with_a_value_is_named() {
    let schema = Schema::parse(example()).unwrap();
    let text = |text: &str| Some(Value::Str(text.into()));
    for (name, new, expected) in [
        ("id", None, "id: the field is missing"),
        ("id", Some(Value::I64(-1)), "id: -1 does not fit u64"),
        ("id", Some(Value::F64(1.0)), "id: u64 is needed, not 1.0"),
        ("legs", Some(Value::List(vec![])), "legs: 2 elements are needed, not 0"),
        ("legs", Some(Value::U64(2)), "legs: md.Leg[2], a list, is needed, not 2"),
        ("ratio", Some(Value::U64(32_768)), "legs[0].ratio: 32768 does not fit i16"),
        ("side", text("Hold"), "legs[0].side: md.Side (Buy, Sell) is needed, not \"Hold\""),
        ("side", Some(Value::U64(3)), "legs[0].side: md.Side (Buy, Sell) is needed, not 3"),
        ("open", Some(Value::U64(1)), "legs[0].open: true or false is needed, not 1"),
        ("weight", Some(Value::F64(1e39)), "legs[0].weight: 1e39 does not fit f32"),
        ("weight", None, "legs[0].weight: the field is missing"),
        (
            "symbol",
            text("thirteen byte"),
            "symbol: \"thirteen byte\" is not a text without NUL of up to 12 bytes",
        ),
        ("symbol", text("a\0b"), "symbol: \"a\\0b\" is not a text without NUL of up to 12 bytes"),
    ] {
        let error = schema.encode(&with(name, new), &mut [0; 40]).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let Value::Struct(mut fields) = value() else { panic!("no struct") };
    fields.push(("extra".into(), Value::Bool(true)));
    let error = schema.encode(&Value::Struct(fields.clone()), &mut [0; 40]).unwrap_err();
    assert_eq!(error, EncodeError::UnknownField { path: "extra".into() });
    // In the place of another one it is the reason, and not that the other one is missing.
    fields.remove(0);
    let error = schema.encode(&Value::Struct(fields.clone()), &mut [0; 40]).unwrap_err();
    assert_eq!(error, EncodeError::UnknownField { path: "extra".into() });
    let Value::Struct(mut fields) = value() else { panic!("no struct") };
    fields.push(("id".into(), Value::U64(1)));
    let error = schema.encode(&Value::Struct(fields), &mut [0; 40]).unwrap_err();
    assert_eq!(error, EncodeError::RepeatedField { path: "id".into() });
    let error = schema.encode(&value(), &mut [0; 39]).unwrap_err();
    assert_eq!(error, EncodeError::Len { len: 39, expected: 40 });
}

#[test]
fn bytes_that_are_no_message_are_an_error_that_says_where() {
    let schema = Schema::parse(example()).unwrap();
    let mut bytes = [0; 40];
    schema.encode(&value(), &mut bytes).unwrap();
    assert_eq!(schema.decode(&bytes[1..]), Err(DecodeError::Len { len: 39, expected: 40 }));
    let changed = |at: usize, byte| {
        let mut bytes = bytes;
        bytes[at] = byte;
        schema.decode(&bytes)
    };
    let error = changed(19, 2).unwrap_err();
    assert_eq!(error, DecodeError::Bool { path: "legs[1].open".into(), given: 2 });
    assert_eq!(changed(25, 0xFF).unwrap_err(), DecodeError::Text { path: "symbol".into() });
    assert_eq!(changed(30, b'x').unwrap_err(), DecodeError::Text { path: "symbol".into() });
    let unnamed = format!("{:?}", changed(18, 77).unwrap());
    assert!(unnamed.contains("U64(77)"), "{unnamed}");
}

#[test]
fn whatever_bytes_decode_to_is_encoded_to_them_again() {
    let text = example().replace("message", "sequence");
    let schema = Schema::parse(&text).unwrap();
    let mut word = 1_u64;
    let mut decoded = 0;
    for round in 0..3000_usize {
        let mut bytes = vec![0; 40 * (round % 4)];
        for (at, byte) in bytes.iter_mut().enumerate() {
            word = word
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let random = (word >> 33) as u8;
            *byte = match at % 40 {
                10 | 18 => 1 + random % 2, // sides
                11 | 19 => random % 2,     // bools; seldom wrong
                24..36 => {
                    if random < 250 {
                        b'x'
                    } else {
                        random
                    }
                }
                36.. => 0, // padding
                _ => random,
            };
        }
        if let Ok(value) = schema.decode(&bytes) {
            decoded += 1;
            let mut again = vec![0xAA; schema.encoded_len(&value).unwrap() as usize];
            schema.encode(&value, &mut again).unwrap();
            assert_eq!(again, bytes);
        }
    }
    assert!(decoded > 500, "{decoded}");
}

#[test]
fn texts_that_are_no_schema_are_refused_with_the_line() {
    let ok = example();
    let wrong = |from: &str, to: &str| {
        assert!(ok.contains(from), "{from}");
        let error = Schema::parse(&ok.replacen(from, to, 1)).unwrap_err();
        (error.line, error.reason)
    };
    assert_eq!(wrong("schema 1", "schema 2"), (1, "the first line is not `shmbus-schema 1`"));
    assert_eq!(wrong("enum md.Side: u8", "enum md.Side: f32").0, 2);
    assert_eq!(
        wrong("Buy = 1", "Buy = 256"),
        (3, "the value does not fit the integer of the enum")
    );
    assert_eq!(wrong("Buy = 1", "Buy = 2"), (4, "two variants have one value"));
    assert_eq!(wrong("  Sell", "  Buy"), (4, "the name stands twice"));
    assert_eq!(wrong("size 8", "size 12"), (10, "the fields of the struct above do not cover it"));
    assert_eq!(wrong("align 4", "align 3").0, 5);
    assert_eq!(wrong("align 4", "align 2"), (9, "the field is not aligned"));
    assert_eq!(wrong("at 2", "at 4"), (7, "the field does not begin where the one before it ends"));
    assert_eq!(wrong("md.Leg[2]", "md.Order[2]"), (12, "a type that is not defined above"));
    assert_eq!(wrong("md.Leg[2]", "md.Leg[0]"), (12, "a count is 1 to 2^30"));
    assert_eq!(wrong("md.Leg[2]", "md.Leg[1073741824]"), (12, "an array has more than 2^30 bytes"));
    assert_eq!(wrong("md.Leg[2]", "md.Leg[1][1][1][1][1][1][1][1][1]").0, 12);
    assert_eq!(wrong("md.Leg[2]", "md.Leg[2").0, 12);
    assert_eq!(wrong("struct md.Order", "struct md.Leg"), (10, "the name is defined twice"));
    assert_eq!(wrong("struct md.Leg", "struct u8"), (5, "not a name of a type"));
    assert_eq!(
        wrong("message md.Order\n", "").1,
        "the text ends without a line `message` or `sequence`"
    );
    assert_eq!(wrong("message md.Order\n", "message u8\nmessage u8\n").0, 16);
    assert!(Schema::parse("").is_err());
    assert!(Schema::parse(&" ".repeat(TEXT_MAX as usize + 1)).is_err());
}

#[test]
fn structs_are_nested_sixteen_deep_and_no_deeper() {
    let nested = |depth: usize| {
        let mut text =
            String::from("shmbus-schema 1\nstruct s1 version 1 size 1 align 1\n  f: u8 at 0\n");
        for n in 2..=depth {
            text += &format!("struct s{n} version 1 size 1 align 1\n  f: s{} at 0\n", n - 1);
        }
        Schema::parse(&(text + &format!("message s{depth}\n")))
    };
    nested(16).unwrap().decode(&[1]).unwrap();
    assert_eq!(nested(17).unwrap_err().reason, "structs are nested more than 16 deep");
}

/// 16 levels of structs with 60 fields of the next: every walk must be over definitions, not over fields.
#[test]
fn a_schema_that_multiplies_is_read_hashed_and_compared_at_once() {
    let mut text =
        String::from("shmbus-schema 1\nstruct s0 version 1 size 1 align 1\n  f: u8 at 0\n");
    let mut size: u64 = 1;
    for n in 1..=6 {
        size *= 30;
        text += &format!("struct s{n} version 1 size {size} align 1\n");
        for field in 0..30 {
            text += &format!("  f{field}: s{} at {}\n", n - 1, field * size / 30);
        }
    }
    let schema = Schema::parse(&(text.clone() + "message s6\n")).unwrap();
    let other = Schema::parse(&(text.replace("f: u8", "f: i8") + "message s6\n")).unwrap();
    assert_ne!(schema.layout_hash(), other.layout_hash());
    assert_ne!(schema, other);
    assert!(compare::side_by_side(Some(&schema), Some(&other)).lines().count() < 300);
    assert!(schema.ros2msg().is_none(), "small letters");
}

#[test]
fn no_text_makes_the_parser_panic() {
    let mut word = 7_u64;
    let mut next = move |end: usize| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (word >> 33) as usize % end
    };
    const PIECES: [&str; 16] = [
        " ",
        "\n",
        "[",
        "]",
        "u8",
        "text(",
        ")",
        "18446744073709551615",
        "1073741824",
        "-1",
        "at",
        ":",
        "=",
        "  ",
        "md.Leg",
        "\u{e4}",
    ];
    let mut schemas = 0;
    for _ in 0..20_000 {
        let mut text = example().to_owned();
        for _ in 0..=next(3) {
            let mut at = next(text.len() + 1);
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let mut end = (at + next(4)).min(text.len());
            while !text.is_char_boundary(end) {
                end += 1;
            }
            text.replace_range(at..end, PIECES[next(PIECES.len())]);
        }
        if let Ok(schema) = Schema::parse(&text) {
            schemas += 1;
            assert_eq!(Schema::parse(&schema.to_string()).as_ref(), Ok(&schema), "{text}");
            _ = schema.decode(&vec![1; schema.size().min(1 << 16) as usize]);
            _ = schema.ros2msg();
        }
    }
    assert!(schemas > 100, "{schemas}");
}

#[test]
fn ros2msg_is_the_definition_as_ros_has_it_or_nothing() {
    let schema = Schema::parse(example()).unwrap();
    let expected = "\
uint64 id
md/Leg[2] legs
uint8[12] symbol
uint8[4] padding_0
================================================================================
MSG: md/Leg
int16 ratio
uint8 side
bool open
float32 weight
";
    assert_eq!(schema.ros2msg().unwrap(), expected);
    assert_eq!(Schema::of::<[[f32; 3]; 2]>().ros2msg().unwrap(), "float32[6] data\n");
    assert_eq!(schema.clone().into_sequence().ros2msg(), None);
    let aligned = example().replace("md.Leg", "md.leg");
    assert_eq!(Schema::parse(&aligned).unwrap().ros2msg(), None, "a name without a capital");
    let wide =
        "shmbus-schema 1\nstruct W version 1 size 16 align 16\n  a: u64[2] at 0\nmessage W\n";
    assert_eq!(Schema::parse(wide).unwrap().ros2msg(), None, "aligned to more than CDR knows");
}
