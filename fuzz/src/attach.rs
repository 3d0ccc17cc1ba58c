//! Header bytes against the check that decides what is mapped: a pure function, no files.
//!
//! The input changes some bytes of the headers of a real topic, or is headers itself. What is accepted fits the files.

use shmbus::internals::{CONTROL_HEADER, DATA_HEADER, Headers};
use shmbus::{Publishers, TopicOptions, Wake};

use crate::input::Input;

pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let options = TopicOptions {
        depth: 4 << input.below(12),
        subscribers_max: 1 + u32::from(input.byte()) % 256,
        hold_blocks: Some(u32::from(input.byte())),
        publishers: match input.below(3) {
            0 | 1 => Publishers::Exclusive,
            _ => Publishers::Shared(1 + input.below(64) as u32),
        },
        max_len: 1 << input.below(21),
        timestamp: input.below(2) == 1,
        wake: input.of(&[Wake::Auto, Wake::Fence, Wake::Membarrier, Wake::Never]),
        ..Default::default()
    };
    let fixed = input.below(2) == 1;
    let made = match fixed {
        true => Headers::new::<[u64; 3]>(&options),
        false => Headers::new::<[u8]>(&options),
    };
    let Ok(mut headers) = made else { return };
    let mut changed = false;
    match input.below(4) {
        0 => {
            changed = true;
            let len = input.0.len().min(DATA_HEADER);
            headers.data[..len].copy_from_slice(&input.0[..len]);
            let rest = &input.0[len..];
            let len = rest.len().min(CONTROL_HEADER);
            headers.control[..len].copy_from_slice(&rest[..len]);
        }
        _ => {
            while !input.is_empty() {
                change(&mut input, &mut headers);
                changed = true;
            }
        }
    }
    let checked = match fixed {
        true => headers.check::<[u64; 3]>(),
        false => headers.check::<[u8]>(),
    };
    match checked {
        Ok(memory) => {
            assert!(memory.live + memory.spare + memory.table <= headers.data_len, "data is too short");
            assert!(memory.control <= headers.control_len, "ctl is too short");
        }
        Err(error) => {
            assert!(changed, "the headers of a new topic were refused: {error}");
            assert!(!error.to_string().is_empty());
        }
    }
}

/// One number of a header, or of the lengths of the files.
fn change(input: &mut Input<'_>, headers: &mut Headers) {
    let Headers { data, control, schema, data_len, control_len } = headers;
    let what = input.byte();
    let value = match input.below(4) {
        0 => u64::from(input.byte()),
        1 => 1 << (input.byte() % 64),
        2 => u64::MAX - u64::from(input.byte()),
        _ => input.word(),
    };
    let field = |bytes: &mut [u8], at: usize, len: usize| {
        let at = at % (bytes.len() - len);
        bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    };
    match what {
        0..=99 => field(data, usize::from(what) * 4, 4),
        100..=149 => field(data, usize::from(what - 100) * 8, 8),
        150..=179 => field(data, usize::from(input.byte()), 1),
        180..=199 => field(control, usize::from(what - 180) * 4, 4),
        200..=219 => field(control, usize::from(what - 200) * 8, 8),
        220..=229 => *data_len = data_len.wrapping_add(value),
        230..=239 => {
            let at = value as usize % (schema.len() + 1);
            match schema.get_mut(at) {
                Some(byte) => *byte = input.byte(),
                None => schema.push(input.byte()),
            }
        }
        _ => *control_len = control_len.wrapping_add(value),
    }
}
