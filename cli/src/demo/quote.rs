//! The message: a quote of 48 bytes, and what makes a damaged one show.
//!
//! A message is a [`Quote`] followed by as many bytes as `--payload` asks for. Those bytes follow from the quote's
//! sequence and incarnation, and the checksum covers everything: a message that is a mixture of two others, or of
//! one and what was in memory before it, does not pass [`Quote::read`].

use bytemuck::{Pod, Zeroable};

/// The instrument of the message that closes a stream.
const CLOSING: u32 = u32::MAX;

/// The fixed part of every message. Native byte order: sender and receiver are on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Quote {
    /// Position in the stream of one feed process, from 0.
    pub(super) sequence: u64,
    /// When the schedule wanted the message sent: CLOCK_MONOTONIC, nanoseconds.
    pub(super) due_ns: u64,
    /// Which feed process sent it, from 0: each restart counts one up.
    pub(super) incarnation: u32,
    /// What is quoted, or [`CLOSING`].
    pub(super) instrument: u32,
    /// Price in hundredths of a cent.
    pub(super) bid: i64,
    /// Price in hundredths of a cent.
    pub(super) ask: i64,
    /// Over all other bytes of the message.
    checksum: u64,
}

/// Bytes of a [`Quote`]; the shortest message.
pub(super) const QUOTE_LEN: usize = size_of::<Quote>();

const CHECKSUM_AT: usize = std::mem::offset_of!(Quote, checksum);

impl Quote {
    /// The quote that a feed sends at `sequence`. The prices wander with the sequence.
    pub(super) fn new(incarnation: u32, sequence: u64, due_ns: u64) -> Quote {
        let noise = scramble(sequence);
        let bid = 1_000_000 + (noise % 2_000) as i64;
        Quote {
            sequence,
            due_ns,
            incarnation,
            instrument: (noise >> 32) as u32 % 500,
            bid,
            ask: bid + 1 + (noise >> 24) as i64 % 16,
            checksum: 0,
        }
    }

    /// The message after the last: its sequence is the number of quotes that were sent.
    pub(super) fn closing(incarnation: u32, sequence: u64, due_ns: u64) -> Quote {
        Quote { instrument: CLOSING, ..Quote::new(incarnation, sequence, due_ns) }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.instrument == CLOSING
    }

    /// Makes `message` this quote. `message` has at least [`QUOTE_LEN`] bytes; what it held before does not matter.
    pub(super) fn write(mut self, message: &mut [u8]) {
        write_padding(self.incarnation, self.sequence, message);
        self.checksum = 0;
        message[..QUOTE_LEN].copy_from_slice(bytemuck::bytes_of(&self));
        let checksum = checksum(message);
        message[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(&checksum.to_ne_bytes());
    }

    /// Makes the first half of `message` this quote and the rest neither it nor what was there before.
    pub(super) fn begin(self, message: &mut [u8]) {
        self.write(message);
        let half = message.len() / 2;
        message[half..].fill(!0);
    }

    /// The quote in `message`, or `None` if the message is shorter than a quote or its checksum is wrong.
    pub(super) fn read(message: &[u8]) -> Option<Quote> {
        let quote: Quote = bytemuck::pod_read_unaligned(message.get(..QUOTE_LEN)?);
        (quote.checksum == checksum(message)).then_some(quote)
    }
}

/// Fills what follows the quote: different bytes for each message.
fn write_padding(incarnation: u32, sequence: u64, message: &mut [u8]) {
    let mut word = scramble(sequence ^ u64::from(incarnation) << 48);
    for chunk in message[QUOTE_LEN..].chunks_mut(8) {
        word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
        chunk.copy_from_slice(&word.to_ne_bytes()[..chunk.len()]);
    }
}

/// A checksum of all bytes of `message` except the eight that hold the checksum. Four independent lanes, so that
/// large payloads measure the transport and not this.
fn checksum(message: &[u8]) -> u64 {
    let mut lanes = [1_u64, 2, 3, 4];
    add_to(&mut lanes, &message[..CHECKSUM_AT]);
    add_to(&mut lanes, &message[CHECKSUM_AT + 8..]);
    lanes.iter().fold(message.len() as u64, |sum, lane| scramble(sum ^ lane))
}

fn add_to(lanes: &mut [u64; 4], bytes: &[u8]) {
    const ODD: u64 = 0xff51_afd7_ed55_8ccd;
    let mut groups = bytes.chunks_exact(32);
    for group in &mut groups {
        for (lane, word) in lanes.iter_mut().zip(group.chunks_exact(8)) {
            *lane = (*lane ^ word_of(word)).wrapping_mul(ODD).rotate_left(29);
        }
    }
    for (word, lane) in groups.remainder().chunks(8).zip(lanes) {
        *lane = (*lane ^ word_of(word)).wrapping_mul(ODD).rotate_left(29);
    }
}

/// Up to eight bytes as a number.
fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_ne_bytes(word)
}

/// The last step of splitmix64: neighbouring numbers come out unlike each other.
fn scramble(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: usize, incarnation: u32, sequence: u64) -> Vec<u8> {
        let mut message = vec![0xAA; len];
        Quote::new(incarnation, sequence, 7).write(&mut message);
        message
    }

    #[test]
    fn what_was_written_is_read() {
        for len in [48, 49, 56, 80, 81, 1000, 4096] {
            let quote = Quote::read(&message(len, 3, 12)).expect("an undamaged message");
            assert_eq!((quote.incarnation, quote.sequence, quote.due_ns), (3, 12, 7));
            assert!(quote.ask > quote.bid && !quote.is_closing());
        }
    }

    #[test]
    fn every_damaged_byte_shows() {
        for len in [48, 61, 200] {
            let good = message(len, 0, 5);
            for at in 0..len {
                let mut bad = good.clone();
                bad[at] ^= 1;
                assert_eq!(Quote::read(&bad), None, "byte {at} of {len}");
            }
        }
    }

    #[test]
    fn a_mixture_of_two_messages_shows_wherever_they_meet() {
        let (old, new) = (message(200, 0, 5), message(200, 0, 6));
        for at in 1..200 {
            let mixture = [&new[..at], &old[at..]].concat();
            if mixture != old && mixture != new {
                assert_eq!(Quote::read(&mixture), None, "the first {at} bytes are new");
            }
        }
    }

    #[test]
    fn a_quote_that_was_only_begun_shows() {
        for len in [48, 49, 1000] {
            let mut begun = message(len, 0, 5);
            Quote::new(0, 6, 7).begin(&mut begun);
            assert_eq!(Quote::read(&begun), None, "{len}");
        }
    }

    #[test]
    fn a_message_that_is_too_short_is_refused() {
        assert_eq!(Quote::read(&message(48, 0, 0)[..47]), None);
        assert_eq!(Quote::read(&[]), None);
    }
}
