//! Messages that describe themselves: their schema in the topic, tools that know no type, and what is said where two programs disagree.
#![allow(unsafe_code)] // descriptions by hand that lie

use bytemuck::{Pod, Zeroable};
use shmbus::{
    Bool, Corrupt, CreateError, Delivery, Directory, Enum, Field, FixedStr, GuardedTopic, Kind,
    Message, MessageEnum, OpenError, OptionsError, Payload, PublishError, Raw, RawTopic,
    ReceiveError, Scalar, Schema, Topic, TopicOptions, TypeError, Value, Variant,
};

fn directory() -> (tempfile::TempDir, Directory) {
    let path = tempfile::tempdir_in("/dev/shm").unwrap();
    let directory = Directory::at(path.path()).unwrap();
    (path, directory)
}

fn small() -> TopicOptions {
    TopicOptions { depth: 16, subscribers_max: 2, hold_blocks: Some(2), ..Default::default() }
}

#[derive(Clone, Copy, Debug, PartialEq, MessageEnum)]
#[repr(u8)]
#[message(name = "md.Side")]
enum Side {
    Buy = 1,
    Sell = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable, Message)]
#[repr(C)]
#[message(name = "md.Leg", version = 3)]
struct Leg {
    ratio: i16,
    side: Enum<Side>,
    open: Bool,
    weight: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable, Message)]
#[repr(C)]
#[message(name = "md.Order", version = 2)]
struct Order {
    id: u64,
    price: i64,
    legs: [Leg; 2],
    r#type: u32,
    _reserved: [u8; 4],
    symbol: FixedStr<12>,
    grid: [[u16; 3]; 2],
}

fn order() -> Order {
    let leg =
        |ratio, side| Leg { ratio, side: Enum::new(side), open: Bool::new(true), weight: 0.5 };
    Order {
        id: u64::MAX,
        price: i64::MIN,
        legs: [leg(-1, Side::Buy), leg(2, Side::Sell)],
        r#type: 7,
        _reserved: [0; 4],
        symbol: FixedStr::new("ESZ6-ESH7").unwrap(),
        grid: [[1, 2, 3], [4, 5, 6]],
    }
}

const TEXT: &str = "\
shmbus-schema 1
enum md.Side: u8
  Buy = 1
  Sell = 2
struct md.Leg version 3 size 8 align 4
  ratio: i16 at 0
  side: md.Side at 2
  open: bool at 3
  weight: f32 at 4
struct md.Order version 2 size 64 align 8
  id: u64 at 0
  price: i64 at 8
  legs: md.Leg[2] at 16
  type: u32 at 32
  _reserved: u8[4] at 36
  symbol: text(12) at 40
  grid: u16[2][3] at 52
message md.Order
";

#[test]
fn a_schema_says_everything_about_a_type_and_its_text_says_everything_about_the_schema() {
    let schema = Schema::of::<Order>();
    assert_eq!(schema.to_string(), TEXT);
    assert_eq!(Schema::parse(TEXT).unwrap(), schema);
    assert_eq!(schema.layout_hash(), Order::LAYOUT_HASH);
    assert_eq!((Order::NAME, Order::VERSION, Order::FIELDS.len()), ("md.Order", 2, 7));
    assert_eq!((schema.size(), schema.align()), (64, 8));
}

#[test]
fn a_tool_that_knows_no_type_reads_and_writes_any_topic() {
    let (_path, directory) = directory();
    let topic = Topic::<Order>::create_in(&directory, "t", &small()).unwrap();
    let raw = RawTopic::open_in(&directory, "t").unwrap();
    let schema = raw.schema().unwrap();
    assert_eq!(schema.to_string(), TEXT);
    let mut typed = topic.subscriber(Delivery::Lossy).unwrap();
    let mut subscriber = raw.subscriber(Delivery::Lossy).unwrap();
    topic.publisher().unwrap().publish(&order()).unwrap();
    assert_eq!(*typed.receive().unwrap(), order());
    let Value::Struct(fields) = schema.decode(&subscriber.receive().unwrap()).unwrap() else {
        panic!("not a struct")
    };
    assert_eq!(fields[0], ("id".to_owned(), Value::U64(u64::MAX)));
    assert_eq!(fields[1], ("price".to_owned(), Value::I64(i64::MIN)));
    assert_eq!(fields[3].0, "type");
    assert_eq!(fields[4], ("symbol".to_owned(), Value::Str("ESZ6-ESH7".to_owned())));

    let mut publisher = raw.publisher().unwrap();
    let mut bytes = [0xAA; 64];
    schema.encode(&Value::Struct(fields), &mut bytes).unwrap();
    publisher.publish(Raw::new(&bytes)).unwrap();
    assert_eq!(*typed.receive().unwrap(), order());
    let mut loan = publisher.loan(64).unwrap();
    loan.copy_from_slice(bytemuck::bytes_of(&Order { id: 5, ..order() }));
    loan.commit().unwrap();
    assert_eq!(typed.receive().unwrap().id, 5);
    for len in [0, 63, 65, 128] {
        let error = publisher.publish(Raw::new(&vec![0; len])).unwrap_err();
        assert!(
            matches!(
                error,
                PublishError::Length { size: 64, .. } | PublishError::TooLong { max: 64, .. }
            ),
            "{error:?}"
        );
        assert!(publisher.loan(len).is_err());
    }
}

#[test]
fn a_tool_creates_a_topic_that_programs_open_as_their_type() {
    let (_path, directory) = directory();
    let schema = Schema::parse(TEXT).unwrap();
    let options = small();
    let raw = RawTopic::create_with_schema_in(&directory, "t", &options, &schema).unwrap();
    let mut subscriber = raw.subscriber(Delivery::Lossy).unwrap();
    let topic = Topic::<Order>::open_in(&directory, "t").unwrap();
    topic.publisher().unwrap().publish(&order()).unwrap();
    assert_eq!(&**subscriber.receive().unwrap(), bytemuck::bytes_of(&order()));
    let sequence = schema.into_sequence();
    let options = TopicOptions { max_len: 640, ..small() };
    RawTopic::create_with_schema_in(&directory, "s", &options, &sequence).unwrap();
    Topic::<[Order]>::open_in(&directory, "s").unwrap();
    let bytes = Schema::of::<u8>().into_sequence();
    RawTopic::create_with_schema_in(&directory, "b", &options, &bytes).unwrap();
    assert!(Topic::<[u8]>::open_in(&directory, "b").unwrap().schema().is_none());
}

#[test]
fn a_topic_of_slices_carries_any_number_of_messages_and_no_part_of_one() {
    let (_path, directory) = directory();
    let options = TopicOptions { max_len: 64 * 3 + 10, ..small() };
    let topic = Topic::<[Order]>::create_in(&directory, "t", &options).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    for count in 0..=3 {
        publisher.publish(&vec![order(); count]).unwrap();
        assert_eq!(*subscriber.receive().unwrap(), vec![order(); count]);
    }
    let too_long = publisher.publish(&[order(); 4]).unwrap_err();
    assert_eq!(too_long, PublishError::TooLong { len: 256, max: 202 });
    assert!(matches!(publisher.loan(usize::MAX), Err(PublishError::TooLong { .. })));
    let mut loan = publisher.loan(2).unwrap();
    loan.fill(order());
    loan.commit().unwrap();
    assert_eq!(*subscriber.receive().unwrap(), [order(); 2]);
    drop(publisher);

    let raw = RawTopic::open_in(&directory, "t").unwrap();
    assert_eq!(raw.info().type_name, "[md.Order]");
    let mut publisher = raw.publisher().unwrap();
    let error = publisher.publish(Raw::new(&[0; 65])).unwrap_err();
    assert_eq!(error, PublishError::Length { len: 65, size: 64 });
    publisher.publish(Raw::new(&[0; 128])).unwrap();
    assert_eq!(subscriber.receive().unwrap().len(), 2);
    assert!(matches!(Topic::<Order>::open_in(&directory, "t"), Err(OpenError::Type { .. })));
    assert!(matches!(Topic::<[u8]>::open_in(&directory, "t"), Err(OpenError::Type { .. })));
    let tiny = TopicOptions { max_len: 63, ..small() };
    assert!(matches!(
        Topic::<[Order]>::create_in(&directory, "tiny", &tiny),
        Err(CreateError::Options(_))
    ));
}

/// What no publisher writes: half a message.
#[test]
fn a_length_that_is_no_number_of_messages_is_corrupt() {
    use std::os::unix::fs::FileExt;

    let (path, directory) = directory();
    let options = TopicOptions { max_len: 100, ..small() };
    let topic = Topic::<[u64]>::create_in(&directory, "t", &options).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    topic.publisher().unwrap().publish(&[1, 2, 3]).unwrap();
    let info = topic.info();
    let file = path.path().join("t/.topic/data");
    let data = std::fs::File::options().write(true).open(file).unwrap();
    for slot in 0..u64::from(info.blocks + info.spares) * info.block_len {
        let at = info.memory.table + slot * info.slot_size + 8;
        data.write_all_at(&20_u32.to_le_bytes(), at).unwrap();
    }
    let error = subscriber.try_receive().err().unwrap();
    assert_eq!(error, ReceiveError::Corrupt(Corrupt::Length { len: 20, max: 100 }));
}

mod earlier {
    use super::*;

    /// As it was before `qty` grew.
    #[derive(Clone, Copy, Pod, Zeroable, Message)]
    #[repr(C)]
    #[message(name = "md.Trade", version = 1)]
    pub(crate) struct Trade {
        pub(crate) price: i64,
        pub(crate) qty: u32,
        pub(crate) venue: u32,
    }
}

#[derive(Clone, Copy, Pod, Zeroable, Message)]
#[repr(C)]
#[message(name = "md.Trade", version = 2)]
struct Trade {
    price: i64,
    qty: u64,
    venue: u32,
    flags: u32,
}

#[test]
fn an_older_version_of_a_message_is_refused_with_both_field_by_field() {
    let (_path, directory) = directory();
    Topic::<earlier::Trade>::create_in(&directory, "t", &small()).unwrap();
    let error = Topic::<Trade>::open_in(&directory, "t").err().unwrap();
    let expected = "\
topic t carries md.Trade version 1, not version 2
    in the topic       here
  * size 16, align 8   size 24, align 8
    price: i64 at 0    price: i64 at 0
  * qty: u32 at 8      qty: u64 at 8
  * venue: u32 at 12   venue: u32 at 16
  * -                  flags: u32 at 20";
    assert_eq!(error.to_string(), expected);
    let OpenError::Type { found: Some(found), expected: Some(expected), .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(*found, Schema::of::<earlier::Trade>());
    assert_eq!(*expected, Schema::of::<Trade>());
}

#[test]
fn another_version_of_the_same_fields_is_another_message() {
    #[derive(Clone, Copy, Pod, Zeroable, Message)]
    #[repr(C)]
    #[message(name = "md.Trade", version = 9)]
    struct Later {
        price: i64,
        qty: u64,
        venue: u32,
        flags: u32,
    }
    let (_path, directory) = directory();
    Topic::<Later>::create_in(&directory, "t", &small()).unwrap();
    let error = Topic::<Trade>::open_in(&directory, "t").err().unwrap().to_string();
    assert!(error.starts_with("topic t carries md.Trade version 9, not version 2\n"), "{error}");
}

#[test]
fn reordered_fields_of_one_size_are_refused() {
    #[derive(Clone, Copy, Pod, Zeroable, Message)]
    #[repr(C)]
    #[message(name = "md.Trade", version = 2)]
    struct Reordered {
        qty: i64,
        price: u64,
        flags: u32,
        venue: u32,
    }
    let (_path, directory) = directory();
    Topic::<Reordered>::create_in(&directory, "t", &small()).unwrap();
    let error = Topic::<Trade>::open_in(&directory, "t").err().unwrap().to_string();
    assert!(error.starts_with("topic t carries md.Trade, not as it is defined here\n"), "{error}");
    assert!(error.contains("\n  * flags: u32 at 16   flags: u32 at 20"), "{error}");
    assert!(error.contains("\n    size 24, align 8"), "{error}");
}

#[test]
fn a_difference_in_a_message_within_a_message_is_found_and_shown() {
    mod other {
        use super::*;

        #[derive(Clone, Copy, Debug, PartialEq, MessageEnum)]
        #[repr(u8)]
        #[message(name = "md.Side")]
        pub(super) enum Side {
            Sell = 1,
            Buy = 2,
        }

        #[derive(Clone, Copy, Pod, Zeroable, Message)]
        #[repr(C)]
        #[message(name = "md.Leg", version = 3)]
        pub(super) struct Leg {
            ratio: u16,
            side: Enum<Side>,
            open: Bool,
            weight: f32,
        }

        #[derive(Clone, Copy, Pod, Zeroable, Message)]
        #[repr(C)]
        #[message(name = "md.Order", version = 2)]
        pub(super) struct Order {
            id: u64,
            price: i64,
            legs: [Leg; 2],
            r#type: u32,
            _reserved: [u8; 4],
            symbol: FixedStr<12>,
            grid: [[u16; 3]; 2],
        }
    }
    let (_path, directory) = directory();
    Topic::<other::Order>::create_in(&directory, "t", &small()).unwrap();
    let error = Topic::<Order>::open_in(&directory, "t").err().unwrap().to_string();
    let different: Vec<&str> = error.lines().filter(|line| line.starts_with("  * ")).collect();
    assert_eq!(different.len(), 2, "{error}");
    assert!(different[0].contains("legs.ratio: u16 at 0"), "{error}");
    assert!(different[1].contains("(u8: Sell 1, Buy 2) at 2"), "{error}");
}

/// `Message` was a safe trait, and nobody compared a type with its description: this one published 4 MiB into a slot of 64 bytes.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Big([u64; 524_288]);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Aligned([u8; 64]);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Nothing;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Nameless(u64);

/// Says of a type what it is not.
macro_rules! lies {
    ($($type:ident $kind:expr),+) => {$(
        // SAFETY: broken, to see that it is found out before anything is written.
        unsafe impl Message for $type {
            const NAME: &'static str = "u64";
            const VERSION: u32 = 0;
            const FIELDS: &'static [Field] = &[];
            const KIND: &'static Kind = $kind;
        }
    )+};
}

lies!(
    Big & Kind::Scalar(Scalar::U64),
    Aligned & Kind::Array(&Kind::Scalar(Scalar::U8), 64),
    Nothing & Kind::Text(0),
    Nameless & Kind::of_enum("u", Scalar::U64, &[Variant { name: "no name", value: 0 }])
);

/// What creating and opening a topic of `T` says of the type.
fn wrong<T: Payload + ?Sized>(directory: &Directory) -> [TypeError; 2] {
    let created = match Topic::<T>::create_in(directory, "lie", &small()).map(drop) {
        Err(CreateError::Options(OptionsError::Type(error))) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(directory.topics().unwrap(), ["truth"], "something was made");
    let opened = match Topic::<T>::open_in(directory, "truth").map(drop) {
        Err(OpenError::Description { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    assert_eq!(small().memory::<T>(), Err(OptionsError::Type(created.clone())));
    [created, opened]
}

#[test]
fn a_type_that_is_not_as_it_says_is_refused_where_a_topic_is_created_and_where_it_is_opened() {
    let (_path, directory) = directory();
    Topic::<u64>::create_in(&directory, "truth", &small()).unwrap();
    let layout = |error| {
        let TypeError::Layout { size, align, described_size, described_align, .. } = error else {
            panic!("{error}")
        };
        (size, align, described_size, described_align)
    };
    for [created, opened] in [wrong::<Big>(&directory), wrong::<[Big]>(&directory)] {
        assert_eq!(layout(created), (4 << 20, 8, 8, 8));
        assert_eq!(layout(opened), (4 << 20, 8, 8, 8));
    }
    for [created, opened] in [wrong::<Aligned>(&directory), wrong::<[Aligned]>(&directory)] {
        assert_eq!(layout(created), (64, 64, 64, 1));
        assert_eq!(layout(opened), (64, 64, 64, 1));
    }
    for errors in [wrong::<Nothing>(&directory), wrong::<[Nothing]>(&directory)] {
        for error in errors {
            assert!(matches!(error, TypeError::ZeroSized { .. }), "{error}");
        }
    }
    assert!(GuardedTopic::create::<Big>("lie", &small()).is_err());
}

/// The topic was made, and nobody could open it.
#[test]
fn a_type_whose_description_is_no_schema_makes_no_topic() {
    let (_path, directory) = directory();
    match Topic::<Nameless>::create_in(&directory, "t", &small()).map(drop) {
        Err(CreateError::Options(OptionsError::Type(TypeError::Schema { .. }))) => {}
        other => panic!("{other:?}"),
    }
    assert!(directory.topics().unwrap().is_empty(), "something was made");
}
