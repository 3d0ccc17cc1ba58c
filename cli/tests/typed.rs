//! Topics of any type through the program: what `shmbus pub` takes as JSON or CSV, `shmbus echo` prints the same, by the schema that the topic
//! carries; what is no message is refused with line and field.

mod program;

use std::fmt::Write;

use program::{Place, Running};
use rustix::process::Signal;
use serde_json::Value;
use shmbus::{Topic, TopicOptions};

/// Every kind of field.
const EVERY: &str = "\
shmbus-schema 1
enum t.Side: i16
  Buy = 1
  Sell = -2
  None = 0
struct t.Leg version 3 size 8 align 4
  ratio: i16 at 0
  side: t.Side at 2
  weight: f32 at 4
struct t.Every version 2 size 120 align 8
  u64: u64 at 0
  i64: i64 at 8
  f64: f64 at 16
  u32: u32 at 24
  i32: i32 at 28
  f32: f32 at 32
  u16: u16 at 36
  i16: i16 at 38
  u8: u8 at 40
  i8: i8 at 41
  open: bool at 42
  _gap: u8 at 43
  leg: t.Leg at 44
  legs: t.Leg[2] at 52
  text: text(13) at 68
  bytes: u8[3] at 81
  grid: i32[2][3] at 84
  flags: bool[4] at 108
  side: t.Side at 112
  _end: u8[6] at 114
message t.Every
";

const TICK: &str = "\
shmbus-schema 1
enum md.Side: u8
  Buy = 1
  Sell = 2
struct md.Tick version 1 size 24 align 8
  px: f64 at 0
  qty: u16 at 8
  side: md.Side at 10
  open: bool at 11
  symbol: text(12) at 12
message md.Tick
";

/// The same sequence in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.next() as usize % choices.len()]
    }

    fn f64(&mut self) -> String {
        let float = f64::from_bits(self.next());
        if float.is_finite() { serde_json::to_string(&float).unwrap() } else { special(float) }
    }

    fn f32(&mut self) -> String {
        let float = f32::from_bits(self.next() as u32);
        if float.is_finite() {
            serde_json::to_string(&float).unwrap()
        } else {
            special(float.into())
        }
    }

    fn text(&mut self) -> &'static str {
        self.of(&["", "ESZ6", "ä,ö \"ü\"", "two\\nlines", " a ", "1", "\\\\", "thirteen byte", "'"])
    }

    fn leg(&mut self) -> String {
        let (ratio, side) = (self.next() as i16, self.of(&["Buy", "Sell", "None"]));
        format!(r#"{{"ratio":{ratio},"side":"{side}","weight":{}}}"#, self.f32())
    }
}

fn special(float: f64) -> String {
    format!("\"{float}\"")
}

/// A line of JSON for `EVERY`.
fn line(random: &mut Random) -> String {
    let r = random;
    let text = r.text().replace('"', "\\\"");
    let mut line = format!(
        r#"{{"u64":{},"i64":{},"f64":{},"u32":{},"i32":{},"f32":{},"u16":{},"i16":{},"u8":{},"i8":{},"open":{},"leg":{},"legs":[{},{}],"text":"{text}""#,
        r.next(),
        r.next() as i64,
        r.f64(),
        r.next() as u32,
        r.next() as i32,
        r.f32(),
        r.next() as u16,
        r.next() as i16,
        r.next() as u8,
        r.next() as i8,
        r.of(&["true", "false"]),
        r.leg(),
        r.leg(),
        r.leg(),
    );
    write!(line, r#","bytes":[{},0,255]"#, r.next() as u8).unwrap();
    let mut number = || r.next() as i32;
    let [a, b, c, d, e, f] = std::array::from_fn(|_| number());
    write!(line, r#","grid":[[{a},{b},{c}],[{d},{e},{f}]]"#).unwrap();
    write!(line, r#","flags":[true,false,{},true]"#, r.of(&["true", "false"])).unwrap();
    let side = r.of(&["Buy", "Sell", "None"]);
    write!(line, r#","side":"{side}"}}"#).unwrap();
    line
}

fn schema(place: &Place, text: &str) -> String {
    place.written("schema", text.as_bytes())
}

/// Publishes `lines` to a topic of ticks, which stays.
fn ticks(place: &Place, lines: &str) {
    let file = schema(place, TICK);
    place.run_with(lines.as_bytes(), &["pub", "t", "--schema", &file]).ok();
}

const TICKS: &str = r#"{"px":100.5,"qty":5,"side":"Buy","open":true,"symbol":"ESZ6"}
{"px":"NaN","qty":65535,"side":"Sell","open":false,"symbol":"a, \"b\""}
{"px":-0.1,"qty":70,"side":"Sell","open":true,"symbol":""}
"#;

fn echo(place: &Place, options: &[&str]) -> String {
    let arguments = [&["echo", "t", "--drain", "--from", "oldest"], options].concat();
    place.run(&arguments).ok().text().to_owned()
}

#[test]
fn ten_thousand_messages_of_every_kind_come_out_as_json_and_csv_as_they_went_in() {
    let place = Place::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut input = String::new();
    for _ in 0..10_000 {
        input += &line(&mut random);
        input.push('\n');
    }
    let file = schema(&place, EVERY);
    let publish = ["pub", "t", "--schema", &file, "--depth", "16384"];
    let done = place.run_with(input.as_bytes(), &publish).ok();
    assert_eq!(done.total("published").0, 10_000);

    let output = echo(&place, &[]);
    let mut count = 0;
    for (given, printed) in input.lines().zip(output.lines()) {
        let value = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        assert_eq!(value(given), value(printed), "{given}");
        count += 1;
    }
    assert_eq!((count, output.lines().count()), (10_000, 10_000));

    // And the second time letter by letter, by way of either form and by that of the bytes.
    let csv = echo(&place, &["--csv"]);
    for (topic, options, bytes) in [
        ("json", &[][..], output.clone().into_bytes()),
        ("csv", &["--csv"], csv.into_bytes()),
        ("frames", &["--frames"], {
            let frames = ["echo", "t", "--drain", "--from", "oldest", "--frames"];
            place.run(&frames).ok().stdout
        }),
    ] {
        let again = ["pub", topic, "--schema", &file, "--depth", "16384"];
        place.run_with(&bytes, &[&again, options].concat()).ok();
        let printed = place.run(&["echo", topic, "--drain", "--from", "oldest"]).ok();
        assert!(printed.text() == output, "{topic}");
    }
}

#[test]
fn each_form_of_output_is_as_documented() {
    let place = Place::new();
    ticks(&place, TICKS);
    assert_eq!(echo(&place, &[]), TICKS);
    let csv = "px,qty,side,open,symbol\n100.5,5,Buy,true,ESZ6\nNaN,65535,Sell,false,\"a, \"\"b\"\"\"\n-0.1,70,Sell,true,\n";
    assert_eq!(echo(&place, &["--csv"]), csv);
    assert_eq!(echo(&place, &["--csv", "--fields", "qty,px", "--count", "1"]), "qty,px\n5,100.5\n");
    assert_eq!(
        echo(&place, &["--json", "--count", "1", "--fields", "qty"]),
        "{\"sequence\":0,\"timestamp_ns\":null,\"publisher\":null,\"missed_before\":0,\"abandoned_before\":0,\"message\":{\"qty\":5}}\n"
    );
    assert_eq!(
        echo(&place, &["--hex", "--count", "1"]),
        "sequence 0, 24 bytes\n\
         00000000  00 00 00 00 00 20 59 40  05 00 01 01 45 53 5a 36  |..... Y@....ESZ6|\n\
         00000010  00 00 00 00 00 00 00 00                           |........|\n"
    );
    let raw = ["echo", "t", "--from", "oldest", "--drain", "--raw"];
    assert_eq!(place.run(&raw).ok().stdout.len(), 3 * 24);
}

#[test]
fn an_envelope_has_the_time_and_bytes_are_text_or_hexadecimal() {
    let place = Place::new();
    let publish = ["pub", "b", "--timestamp", "--shared", "3", "--chunk", "2", "--depth", "64"];
    place.run_with(b"ab\xff\n", &publish).ok();
    let done = place.run(&["echo", "b", "--from", "oldest", "--drain", "--json"]).ok();
    let values: Vec<Value> =
        done.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&values[0]["message"], &values[1]["message_hex"]), (&"ab".into(), &"ff0a".into()));
    assert_eq!((&values[1]["sequence"], &values[1]["publisher"]), (&1.into(), &0.into()));
    assert!(values[0]["timestamp_ns"].as_u64() <= values[1]["timestamp_ns"].as_u64());
    assert!(values[0]["timestamp_ns"].as_u64() > Some(0));
    place.run(&["pub", "b", "--shared", "3"]).ok();
    place.run(&["pub", "b", "--shared", "4"]).failed(1, &["--shared 3, not 4"]);
    ticks(&place, "");
    place.run(&["pub", "t", "--timestamp"]).failed(1, &["without --timestamp"]);
    place.run(&["pub", "t", "--shared", "2"]).failed(1, &["without --shared"]);
}

#[test]
fn filters_choose_messages_and_all_of_several_must_be_met() {
    let place = Place::new();
    ticks(&place, TICKS);
    let quantities = |filters: &[&str]| {
        let mut options = vec!["--fields", "qty", "--csv"];
        filters.iter().for_each(|filter| options.extend(["--filter", filter]));
        echo(&place, &options).lines().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(quantities(&["qty >= 70"]), "65535 70");
    assert_eq!(quantities(&["qty >= 70", "open == true"]), "70");
    assert_eq!(quantities(&["side == Sell", "symbol ~ b"]), "65535");
    assert_eq!(quantities(&["px < 0"]), "70");
    assert_eq!(quantities(&["px != 100.5"]), "65535 70");
    assert_eq!(quantities(&["qty > 65535"]), "");
    let counted = ["echo", "t", "--from", "oldest", "--count", "1", "--filter", "qty == 70"];
    let done = place.run(&counted).ok();
    assert_eq!(done.stderr, "shmbus: received 3, missed 0, printed 1\n");
}

#[test]
fn a_field_that_is_none_is_wrong_usage_and_the_error_names_those_there_are() {
    let place = Place::new();
    ticks(&place, TICKS);
    let fields = "px, qty, side, open, symbol";
    place.run(&["echo", "t", "--filter", "size > 3"]).failed(2, &["topic t", "size", fields]);
    place.run(&["echo", "t", "--fields", "px,size"]).failed(2, &["topic t", "size", fields]);
    place.run(&["echo", "t", "--filter", "qty > x"]).failed(2, &["qty is u16", "integer"]);
    place.run(&["echo", "t", "--filter", "side == Hold"]).failed(2, &["Buy, Sell", "Hold"]);
    place.run_with(b"a\n", &["pub", "b"]).ok();
    for option in [&["--filter", "a == 1"][..], &["--fields", "a"], &["--csv"]] {
        let arguments = [&["echo", "b"], option].concat();
        place.run(&arguments).failed(2, &["topic b", "carries bytes"]);
    }
}

#[test]
fn what_is_no_message_is_refused_with_line_and_field_and_what_was_before_it_stays() {
    let good = TICKS.lines().next().unwrap();
    for (bad, words) in [
        (good.replace(":5,", ":70000,"), "line 3: field qty: 70000 does not fit u16"),
        (good.replace("\"qty\":5,", ""), "line 3: field qty: the field is missing"),
        (good.replace(":5,", ":\"5\","), "line 3: field qty: u16 is needed"),
        (good.replace("qty", "size"), "line 3: field size: there is no such field"),
        (good.replace("}", ",\"x\":1}"), "line 3: field x: there is no such field"),
        (good.replace("}", ",\"qty\":6}"), "line 3: field qty: the field is given twice"),
        (good.replace("Buy", "Hold"), "line 3: field side: md.Side (Buy, Sell)"),
        (good.replace("ESZ6", "thirteen byte"), "line 3: field symbol:"),
        (good.replace("}", ""), "line 3: not JSON"),
        ("7".to_owned(), "line 3: message: md.Tick"),
    ] {
        let place = Place::new();
        let file = schema(&place, TICK);
        let input = format!("{good}\n\n{bad}\n{good}\n");
        let publish = ["pub", "t", "--schema", &file];
        place.run_with(input.as_bytes(), &publish).failed(1, &[words, "--skip-invalid"]);
        assert_eq!(echo(&place, &[]), format!("{good}\n"));
        let skipping = [&publish[..], &["--skip-invalid"]].concat();
        let done = place.run_with(input.as_bytes(), &skipping).ok();
        assert!(done.stderr.contains("published 2,"), "{}", done.stderr);
        assert!(done.stderr.contains("skipped 1 that are no messages; the first: line 3"));
    }
}

#[test]
fn csv_that_is_wrong_is_refused_with_line_and_field() {
    let place = Place::new();
    ticks(&place, "");
    let publish = |input: &str, options: &[&str]| {
        place.run_with(input.as_bytes(), &[&["pub", "t", "--csv"], options].concat())
    };
    let header = "px,qty,side,open,symbol\n";
    publish("px,size\n", &["--skip-invalid"]).failed(1, &["line 1: ", "\"size\"", "qty, side"]);
    let bad = format!("{header}1,2,Buy,true,\"a\nb\"\n1,x,Buy,true,c\n");
    publish(&bad, &[]).failed(1, &["line 4: field qty: u16 is needed, not \"x\""]);
    publish(&format!("{header}1,2\n"), &[]).failed(1, &["line 2: 2 cells", "has 5"]);
    publish(&format!("{header}1,2,Buy,true,\"a\n"), &[]).failed(1, &["line 2: ", "quoted cell"]);
    publish("qty,px\n3,\n", &[]).failed(1, &["line 2: field px"]);
    publish("qty,px,side\n3,,Buy\n", &["--default-zero"]).ok();
    let last = place.run(&["echo", "t", "--from", "1-back", "--drain"]).ok();
    assert_eq!(
        last.text(),
        "{\"px\":0.0,\"qty\":3,\"side\":\"Buy\",\"open\":false,\"symbol\":\"\"}\n"
    );
    place.run(&["pub", "b", "--csv"]).failed(1, &["no topic b", "--schema"]);
    place.run(&["pub", "b"]).ok();
    place.run(&["pub", "b", "--csv"]).failed(1, &["topic b carries bytes"]);
}

#[test]
fn a_byte_order_mark_is_passed_over_and_no_number_becomes_another_one() {
    let place = Place::new();
    let marked = |text: &str| [b"\xef\xbb\xbf", text.as_bytes()].concat();
    let file = place.written("tick.schema", &marked(TICK));
    place.run(&["pub", "t", "--schema", &file]).ok();
    let json = r#"{"px":1,"qty":1,"side":"Buy","open":true,"symbol":"A"}"#;
    place.run_with(&marked(&format!("{json}\n{json}\n")), &["pub", "t"]).ok();
    let csv = "px,qty,side,open,symbol\n2,2,Buy,true,B\n";
    place.run_with(&marked(csv), &["pub", "t", "--csv"]).ok();
    assert_eq!(echo(&place, &["--csv"]).lines().count(), 4);
    for px in ["1e400", "-1e400"] {
        let csv = format!("px,qty,side,open,symbol\n{px},2,Buy,true,B\n");
        let words = [&format!("field px: {px} is out of the range of f64")[..]];
        place.run_with(csv.as_bytes(), &["pub", "t", "--csv"]).failed(1, &words);
        place.run(&["pub", "t", "--message", &json.replacen('1', px, 1)]).failed(1, &["range"]);
        let filter = format!("px < {px}");
        place.run(&["echo", "t", "--drain", "--filter", &filter]).failed(2, &["out of its range"]);
    }
    place.run_with(csv.replace("2,2", "inf,2").as_bytes(), &["pub", "t", "--csv"]).ok();
    let message = |json: &str| place.run(&["pub", "t", "--message", json]);
    message(&json.replace("\"qty\":1", "\"qty\":1.0")).failed(1, &["u16 is needed, not 1.0"]);
    let words = ["\"extra\"", "there are px, qty, side, open, symbol"];
    place.run_with(b"px,qty,side,open,symbol,extra\n", &["pub", "t", "--csv"]).failed(1, &words);
    // The name that is wrong is the reason, not the one that is missing for it.
    let done = message(&json.replace("symbol", "symbl")).failed(1, &["field symbl"]);
    assert!(!done.stderr.contains("missing"), "{}", done.stderr);
    message(&json.replace("px", "side")).failed(1, &["side"]);
}

#[test]
fn fields_that_are_missing_are_zero_only_if_asked_for() {
    let place = Place::new();
    let file = schema(&place, EVERY);
    let publish =
        ["pub", "t", "--schema", &file, "--message", r#"{"u8":7,"legs":[{},{"ratio":1}]}"#];
    place.run(&publish).failed(1, &["message 1: field u64: the field is missing"]);
    place.run(&[&publish[..], &["--default-zero"]].concat()).ok();
    let printed = echo(&place, &["--fields", "u8,legs[0].side,legs[1].ratio,text,bytes,grid"]);
    let expected = r#"{"u8":7,"legs[0].side":"None","legs[1].ratio":1,"text":"","bytes":[0,0,0],"grid":[[0,0,0],[0,0,0]]}"#;
    assert_eq!(printed, format!("{expected}\n"));
}

#[test]
fn frames_and_chunks_have_the_size_of_a_message() {
    let place = Place::new();
    ticks(&place, "");
    place.run(&["pub", "t", "--chunk", "23"]).failed(1, &["md.Tick has 24 bytes, not 23"]);
    let chunks = ["pub", "t", "--chunk", "24"];
    place.run_with(&[0; 50], &chunks).failed(1, &["chunk 3 has 2 bytes, topic t takes 24"]);
    let frames: Vec<u8> = [&[24, 0, 0, 0][..], &[0; 24], &[3, 0, 0, 0, 1, 2, 3]].concat();
    let done = place.run_with(&frames, &["pub", "t", "--frames"]);
    done.failed(1, &["frame 2 has 3 bytes, topic t takes 24", "published 1,"]);
    let done = place.run_with(&frames, &["pub", "t", "--frames", "--skip-invalid"]).ok();
    assert!(done.stderr.contains("skipped 1 that are no messages"), "{}", done.stderr);
}

#[test]
fn messages_that_are_no_struct_are_values_and_sequences_lists() {
    let place = Place::new();
    let directory = place.directory();
    Topic::<u64>::create_in(&directory, "n", &TopicOptions::default()).unwrap();
    Topic::<[f32]>::create_in(&directory, "s", &TopicOptions::default()).unwrap();
    let through = |topic: &str, input: &str, options: &[&str]| {
        place.run_with(input.as_bytes(), &[&["pub", topic], options].concat()).ok();
        let echo = ["echo", topic, "--drain", "--from", "oldest"];
        place.run(&[&echo[..], options].concat()).ok().text().to_owned()
    };
    assert_eq!(through("n", "18446744073709551615\n0\n", &[]), "18446744073709551615\n0\n");
    assert_eq!(through("n", "message\n7\n", &["--csv"]), "message\n18446744073709551615\n0\n7\n");
    assert_eq!(through("s", "[]\n[0.1,\"NaN\",3]\n", &[]), "[]\n[0.1,\"NaN\",3.0]\n");
    let echo = ["echo", "n", "--from", "oldest", "--drain", "--filter", "message == 7"];
    assert_eq!(place.run(&echo).ok().text(), "7\n");
    place.run_with(b"{}\n", &["pub", "s"]).failed(1, &["line 1: message: a list is needed"]);
}

#[test]
fn a_file_is_published_again_and_again_until_there_are_enough() {
    let place = Place::new();
    let file = place.written("lines", b"a\nb\nc\n");
    let done = place.run(&["pub", "b", &file, "--loop", "--count", "7"]).ok();
    assert_eq!(done.total("published").0, 7);
    let all = place.run(&["echo", "b", "--from", "oldest", "--drain", "--raw"]).ok();
    assert_eq!(all.text(), "abcabca");
    let given = ["pub", "b", "--loop", "--count", "3", "--message", "x", "--message", "y"];
    assert_eq!(place.run(&given).ok().total("published").0, 3);
    let publisher = place.start(&["pub", "endless", &file, "--loop"]);
    place.wait_until("endless", |info| info.head > 100);
    let mut publisher = publisher;
    publisher.signal(Signal::INT);
    publisher.finish().failed(130, &["published"]);
    let empty = place.written("empty", b"");
    place.run(&["pub", "b", &empty, "--loop"]).failed(1, &["nothing to publish"]);
    place.run(&["pub", "b", "--loop"]).failed(1, &["--loop", "standard input"]);
    ticks(&place, "");
    let csv = place.written("csv", b"qty,px,side\n3,1,Buy\n");
    place.run(&["pub", "t", &csv, "--csv", "--default-zero", "--loop", "--count", "5"]).ok();
    assert_eq!(echo(&place, &[]).lines().count(), 5);
}

#[test]
fn the_schema_of_a_topic_is_printed_compared_and_described() {
    let place = Place::new();
    ticks(&place, TICKS);
    let file = schema(&place, TICK);
    assert_eq!(place.run(&["schema", "t"]).ok().text(), TICK);
    assert_eq!(place.run(&["schema", "t", "--check", &file]).ok().text(), "");
    let other = TICK.replace("qty: u16", "size: u16").replace("Sell = 2", "Sell = 3");
    let other = place.written("other", other.as_bytes());
    let done = place.run(&["schema", "t", "--check", &other]).failed(1, &["topic t", &other]);
    let headings = done.text().lines().next().unwrap();
    assert!(headings.contains("in the topic ") && headings.ends_with(&format!(" in {other}")));
    assert!(done.stderr.contains(&format!("not as it is defined in {other}")), "{}", done.stderr);
    let differs = |line: &&str| line.trim_start().starts_with('*');
    let differing: Vec<&str> = done.text().lines().filter(differs).collect();
    assert_eq!(differing.len(), 3, "qty, size and side: {}", done.text());
    place
        .run(&["pub", "t", "--schema", &other])
        .failed(1, &["topic t carries md.Tick", "qty: u16"]);
    let bad = place.written("bad", b"shmbus-schema 1\nstruct x\n");
    place.run(&["schema", "t", "--check", &bad]).failed(1, &["/bad", "line 2"]);
    place.run(&["pub", "new", "--schema", &bad]).failed(1, &["/bad", "line 2"]);

    let done = place.run(&["schema", "t", "--json"]).ok();
    let json: Value = serde_json::from_str(done.text()).unwrap();
    assert_eq!((&json["name"], &json["size"]), (&"md.Tick".into(), &24.into()));
    assert_eq!(json["hash"].as_str().unwrap().len(), 16);
    let side = &json["fields"][2];
    assert_eq!((&side["kind"], &side["offset"]), (&"enum".into(), &10.into()));
    assert_eq!(side["variants"][1]["value"], 2);
    assert!(place.run(&["schema", "t", "--ros2"]).ok().text().contains("float64 px\nuint16 qty\n"));

    place.run(&["pub", "b"]).ok();
    place.run(&["schema", "b"]).failed(1, &["topic b carries bytes"]);
    place.run(&["schema", "b", "--check", &file]).failed(1, &["topic b carries [u8]"]);
    Topic::<[u64]>::create_in(&place.directory(), "s", &TopicOptions::default()).unwrap();
    place.run(&["schema", "s", "--ros2"]).failed(1, &["topic s", "sequence"]);
}

#[test]
fn an_echo_takes_no_part_and_maps_the_topic_without_the_right_to_write() {
    let place = Place::new();
    ticks(&place, TICKS);
    let mut echo = place.start_into("out", &["echo", "t", "--from", "oldest"]);
    let has = |echo: &mut Running, text: &str| {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", echo.pid())).unwrap();
        maps.lines().filter(|line| line.contains(text)).map(str::to_owned).collect::<Vec<_>>()
    };
    while std::fs::read_to_string(place.file("out")).unwrap() != TICKS {
        std::thread::yield_now();
    }
    let mappings = has(&mut echo, "/.topic/");
    assert!(mappings.len() >= 2, "data and ctl");
    assert!(mappings.iter().all(|line| line.contains(" r--s ")), "{mappings:?}");
    assert!(place.directory().inspect("t").unwrap().participants.is_empty());
    // Nobody is in the way of a removal, and who reads is told.
    place.run_with(TICKS.as_bytes(), &["pub", "t"]).ok();
    place.run(&["rm", "t"]).ok();
    assert_eq!(echo.finish().ok().total("received"), (6, 0));
    assert_eq!(std::fs::read_to_string(place.file("out")).unwrap(), TICKS.repeat(2));
}

#[test]
fn a_message_that_is_not_what_the_schema_says_is_told_and_the_others_are_printed() {
    let place = Place::new();
    ticks(&place, TICKS);
    let mut bad = [0; 24];
    bad[11] = 7; // a truth value
    place.run_with(&bad, &["pub", "t", "--chunk", "24"]).ok();
    let echo = ["echo", "t", "--from", "oldest", "--drain"];
    let done = place.run(&echo).failed(1, &["sequence 3", "open: 7 is neither 0 nor 1", "--hex"]);
    assert_eq!(done.text(), TICKS);
    place.run(&[&echo[..], &["--hex"]].concat()).ok();
}
