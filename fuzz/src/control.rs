//! What a client and a broker say to each other: whatever the bytes are, nothing, or a message that is written as it was read.

use shmbus::internals;

pub fn run(input: &[u8]) {
    for parse in [internals::request, internals::answer] {
        if let Some(again) = parse(input) {
            assert_eq!(again, input);
        }
    }
    // One that is nearly right: the input over a request that is.
    let mut bytes = b"shmbus-q".to_vec();
    bytes.extend([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0]);
    bytes.resize(32, 0);
    bytes.push(b'a');
    bytes.resize(232, 0);
    for (at, byte) in input.chunks_exact(2).map(|pair| (usize::from(pair[0]), pair[1])) {
        bytes[at.min(231)] = byte;
    }
    if let Some(again) = internals::request(&bytes) {
        assert_eq!(again, bytes);
    }
}
