//! Options out of their ranges, one by one and all at once.

use std::fs;

use super::{directory, small};
use shmbus::{CreateError, OptionsError, Topic, TopicOptions};

#[test]
fn an_option_out_of_its_range_is_named_with_limits_that_are_accepted_themselves() {
    let (path, directory) = directory();
    let accepted = |options: &TopicOptions| options.memory::<[u8]>().is_ok();
    for (name, given, change) in [
        ("depth", 0, (|o, value| o.depth = value) as fn(&mut TopicOptions, u64)),
        ("depth", 3, |o, value| o.depth = value),
        ("depth", 1 << 29, |o, value| o.depth = value),
        ("depth", u64::MAX, |o, value| o.depth = value),
        ("subscribers_max", 0, |o, value| o.subscribers_max = value as u32),
        ("subscribers_max", 257, |o, value| o.subscribers_max = value as u32),
        ("subscribers_max", u32::MAX.into(), |o, value| o.subscribers_max = value as u32),
        ("hold_blocks", 4097, |o, value| o.hold_blocks = Some(value as u32)),
        ("hold_blocks", u32::MAX.into(), |o, value| o.hold_blocks = Some(value as u32)),
        ("max_len", (1 << 30) + 1, |o, value| o.max_len = value as u32),
        ("max_len", u32::MAX.into(), |o, value| o.max_len = value as u32),
        ("mode", 0o577, |o, value| o.mode = value as u32),
        ("mode", 0, |o, value| o.mode = value as u32),
        ("mode", 0o1777, |o, value| o.mode = value as u32),
    ] {
        let mut options = small();
        change(&mut options, given);
        let error = options.memory::<[u8]>().unwrap_err();
        let created = Topic::<[u8]>::create_in(&directory, "t", &options);
        assert!(matches!(created, Err(CreateError::Options(found)) if found == error));
        let OptionsError::Range { field, given: stated, min, max } = error else {
            panic!("{name} = {given}: {error:?}")
        };
        assert_eq!((field, stated), (name, given));
        assert!(!(min..=max).contains(&given));
        for limit in [min, max] {
            change(&mut options, limit);
            assert!(accepted(&options), "{name} = {limit}, which is a stated limit");
        }
        assert!(options.memory::<[u8]>().unwrap().total() > 0);
    }
    for depth in [5, 6, 1023, (1 << 26) + 1] {
        let error = TopicOptions { depth, ..small() }.memory::<u64>().unwrap_err();
        let above = depth.next_power_of_two();
        assert_eq!(error, OptionsError::Depth { given: depth, below: above / 2, above });
    }
    assert_eq!(fs::read_dir(path.path()).unwrap().count(), 0);
}

#[test]
fn all_options_at_their_ends_at_once_are_an_error_and_leave_nothing() {
    let (path, directory) = directory();
    for depth in [1 << 26, 1 << 27, 1 << 28] {
        for max_len in [0, 1 << 30] {
            let options = TopicOptions {
                depth,
                max_len,
                subscribers_max: 256,
                hold_blocks: Some(4096),
                ..small()
            };
            let answer = options.memory::<[u8]>();
            if max_len == 0 && answer.is_ok() {
                continue; // that much memory may be there
            }
            match (answer, Topic::<[u8]>::create_in(&directory, "t", &options)) {
                (Ok(memory), Err(CreateError::NoSpace { needed, available, .. })) => {
                    assert_eq!(needed, memory.total());
                    assert!(available < needed);
                }
                (Err(error), Err(CreateError::Options(found))) => assert_eq!(found, error),
                (memory, created) => panic!("{memory:?}, {:?}", created.err()),
            }
        }
    }
    assert_eq!(fs::read_dir(path.path()).unwrap().count(), 0);
}
