//! What a message of a measurement says, and how a receiver checks it.
//!
//! Words of 64 bits: its number; when it was due (CLOCK_MONOTONIC, ns), from 16 bytes on; and number + index in every word behind, so that one sum over all
//! words tells whether each byte is of this message. The message behind the last one has [`END`] set in its number.

use anyhow::{Result, ensure};

/// Set in the number of the message behind the last one; the rest of that word says how many there were.
pub(crate) const END: u64 = 1 << 63;

/// The length of messages: known when this is compiled, or not.
pub(crate) trait Shape: Copy {
    /// Where a message is put together.
    type Buffer: AsRef<[u64]> + AsMut<[u64]>;
    fn buffer(self) -> Self::Buffer;
    fn len(self) -> usize;
}

/// 48 bytes, which most measurements use.
#[derive(Clone, Copy)]
pub(crate) struct Fixed48;

impl Shape for Fixed48 {
    type Buffer = [u64; 6];

    fn buffer(self) -> [u64; 6] {
        [0; 6]
    }

    #[inline(always)]
    fn len(self) -> usize {
        48
    }
}

/// Any multiple of 8 bytes.
#[derive(Clone, Copy)]
pub(crate) struct Any(pub(crate) usize);

impl Shape for Any {
    type Buffer = Vec<u64>;

    fn buffer(self) -> Vec<u64> {
        vec![0; self.0 / 8]
    }

    #[inline(always)]
    fn len(self) -> usize {
        self.0
    }
}

/// Fills a message.
#[inline(always)]
pub(crate) fn write(words: &mut [u64], number: u64, due_ns: u64) {
    let mut words = words.iter_mut();
    if let Some(first) = words.next() {
        *first = number;
    }
    if let Some(second) = words.next() {
        *second = due_ns;
    }
    let mut value = number.wrapping_add(2);
    for word in words {
        *word = value;
        value = value.wrapping_add(1);
    }
}

/// [`write`] in bytes that need not be aligned.
#[inline(always)]
pub(crate) fn write_bytes(bytes: &mut [u8], number: u64, due_ns: u64) {
    if let Ok(words) = bytemuck::try_cast_slice_mut(bytes) {
        return write(words, number, due_ns);
    }
    for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
        let value = match index {
            0 => number,
            1 => due_ns,
            _ => number.wrapping_add(index as u64),
        };
        word.copy_from_slice(&value.to_ne_bytes());
    }
}

/// Of [`write_bytes`] the first words and the last, which a receiver looks at that does not look at everything.
pub(crate) fn write_ends(bytes: &mut [u8], number: u64, due_ns: u64) {
    let words = (bytes.len() / 8) as u64;
    let (first, rest) = bytes.split_at_mut(bytes.len().min(16));
    write_bytes(first, number, due_ns);
    if let Some(last) = rest.rchunks_exact_mut(8).next() {
        last.copy_from_slice(&number.wrapping_add(words - 1).to_ne_bytes());
    }
}

/// What a receiver has found out about the messages so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    expected: u64,
    /// Received whole and in order.
    pub(crate) received: u64,
    /// Numbers that never came.
    pub(crate) missed: u64,
    /// Messages that were not as they were sent, or came twice or late.
    wrong: u64,
}

/// What a message is, for who counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// One of them, due then.
    Message { due_ns: u64 },
    /// The one behind the last.
    End,
}

#[inline(always)]
fn word(bytes: &[u8], index: usize) -> u64 {
    let at = index * 8;
    bytes.get(at..at + 8).map_or(0, |word| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        u64::from_ne_bytes(bytes)
    })
}

impl Ledger {
    /// Enters a message; `whole`: every byte is looked at, else the first words and the last.
    #[inline(always)]
    pub(crate) fn enter(&mut self, bytes: &[u8], len: usize, whole: bool) -> Taken {
        let number = word(bytes, 0);
        if number & END != 0 {
            self.missed += (number & !END).saturating_sub(self.expected);
            self.expected = number & !END;
            return Taken::End;
        }
        let is_right = bytes.len() == len
            && number >= self.expected
            && if whole { sum(bytes, number) } else { last(bytes, number) };
        if is_right {
            self.missed += number - self.expected;
            self.expected = number + 1;
            self.received += 1;
        } else {
            self.wrong += 1;
        }
        Taken::Message { due_ns: if len >= 16 { word(bytes, 1) } else { 0 } }
    }

    /// # Errors
    /// Where a message was not as it was sent, or anything is missing although nothing may be lost.
    pub(crate) fn close(&self, lossless: bool) -> Result<()> {
        let Ledger { received, missed, wrong, .. } = self;
        ensure!(*wrong == 0, "{wrong} messages were not as they were sent, of {received} others");
        ensure!(!lossless || *missed == 0, "{missed} messages are missing, of {received} others");
        Ok(())
    }
}

/// Whether all words behind the second are those of message `number`.
#[inline(always)]
fn sum(bytes: &[u8], number: u64) -> bool {
    let words = (bytes.len() / 8) as u64;
    if words < 3 {
        return true;
    }
    let behind = bytes.chunks_exact(8).skip(2);
    let sum = behind.fold(0u64, |sum, one| sum.wrapping_add(word(one, 0)));
    let count = words - 2;
    // number + 2, number + 3, ...
    let first = number.wrapping_add(2);
    sum == count.wrapping_mul(first).wrapping_add(count.wrapping_mul(count - 1) / 2)
}

#[inline(always)]
fn last(bytes: &[u8], number: u64) -> bool {
    let words = bytes.len() / 8;
    words < 3 || word(bytes, words - 1) == number.wrapping_add(words as u64 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: usize, number: u64) -> Vec<u8> {
        let mut words = vec![0; len / 8];
        write(&mut words, number, 77);
        bytemuck::cast_slice(&words).to_vec()
    }

    #[test]
    fn messages_of_every_length_are_recognised_and_gaps_counted() {
        for len in [8, 16, 24, 48, 1024] {
            let mut ledger = Ledger::default();
            let due_ns = if len >= 16 { 77 } else { 0 };
            for number in [0, 1, 5] {
                let taken = ledger.enter(&message(len, number), len, true);
                assert_eq!(taken, Taken::Message { due_ns });
            }
            assert_eq!(ledger.enter(&message(len, END | 8), len, true), Taken::End);
            assert_eq!((ledger.received, ledger.missed), (3, 5));
            ledger.close(false).unwrap();
            assert!(ledger.close(true).unwrap_err().to_string().contains("5 messages are missing"));
        }
    }

    #[test]
    fn a_changed_byte_a_repeated_message_and_a_short_one_are_wrong() {
        let mut changed = message(48, 0);
        changed[33] ^= 1;
        let cases = [vec![changed], vec![message(48, 3), message(48, 3)], vec![message(40, 0)]];
        for messages in cases {
            let mut ledger = Ledger::default();
            for message in &messages {
                ledger.enter(message, 48, true);
            }
            assert!(ledger.close(false).is_err(), "{messages:?}");
        }
    }

    #[test]
    fn the_last_word_alone_tells_an_old_message_in_a_large_payload() {
        let mut ledger = Ledger::default();
        let mut mixed = message(1024, 1);
        mixed[1016..].copy_from_slice(&message(1024, 0)[1016..]);
        ledger.enter(&mixed, 1024, false);
        assert!(ledger.close(false).is_err());
    }

    #[test]
    fn what_lies_between_the_ends_is_not_looked_at_unless_all_is() {
        for len in [8, 16, 24, 64] {
            let mut bytes = vec![0; len];
            write_ends(&mut bytes, 3, 77);
            let mut ledger = Ledger::default();
            let due_ns = if len >= 16 { 77 } else { 0 };
            assert_eq!(ledger.enter(&bytes, len, false), Taken::Message { due_ns });
            ledger.close(false).unwrap();
        }
        let mut bytes = vec![0; 64];
        write_ends(&mut bytes, 3, 77);
        let mut ledger = Ledger::default();
        ledger.enter(&bytes, 64, true);
        assert!(ledger.close(false).is_err());
    }

    #[test]
    fn a_message_written_at_an_odd_address_is_the_same() {
        let mut bytes = [0; 65];
        for start in [0, 1] {
            write_bytes(&mut bytes[start..start + 64], 9, 77);
            assert_eq!(bytes[start..start + 64], message(64, 9));
        }
    }
}
