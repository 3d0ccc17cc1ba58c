//! Names decide nothing: what a type is, the traits say. In a crate that forbids unsafe code, with one derive.
#![forbid(unsafe_code)]

use shmbus::{Field, Kind, Message, Schema};

mod facade {
    pub mod bus {
        pub use shmbus::{__derive, Enum, Message, MessageEnum};
    }
}

mod math {
    #[derive(Clone, Copy, shmbus::Message)]
    #[repr(C)]
    pub struct Vec {
        pub x: f32,
        pub y: f32,
    }
}

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Box {
    left: i32,
    right: i32,
}

mod md {
    #[derive(Clone, Copy, shmbus::Message)]
    #[repr(C)]
    pub struct Option {
        pub strike: i64,
    }
}

/// Four bytes, where that of this project has one.
#[derive(Clone, Copy, Message)]
#[repr(transparent)]
struct Bool(u32);

#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Message)]
#[repr(transparent)]
struct usize(u64);

#[derive(Clone, Copy, Message)]
#[repr(transparent)]
struct Price {
    ticks: i64,
}

#[derive(Clone, Copy, facade::bus::MessageEnum)]
#[repr(u8)]
#[message(crate = "facade::bus")]
enum Side {
    Buy = 1,
}

#[derive(Clone, Copy, facade::bus::Message)]
#[repr(C)]
#[message(crate = "facade::bus", name = "md.All", version = 3)]
struct All {
    position: math::Vec,
    frame: Box,
    option: md::Option,
    is_open: Bool,
    side: facade::bus::Enum<Side>,
    _padding: [u8; 3],
    size: usize,
    price: [Price; 2],
}

fn kind<T: Message>() -> &'static Kind {
    T::KIND
}

fn main() {
    assert_eq!(std::mem::size_of::<All>(), kind::<All>().size());
    assert!(matches!(kind::<Price>(), Kind::Scalar(shmbus::Scalar::I64)));
    assert!(<Price as Message>::FIELDS.is_empty() && <Price as Message>::NAME == "i64");
    assert_eq!(<Price as Message>::LAYOUT_HASH, <i64 as Message>::LAYOUT_HASH);
    let field = |name| All::FIELDS.iter().find(|field: &&Field| field.name == name).unwrap();
    assert!(matches!(field("is_open").kind, Kind::Scalar(shmbus::Scalar::U32)));
    assert!(Schema::of::<All>().to_string().contains("  price: i64[2] at "));
}
