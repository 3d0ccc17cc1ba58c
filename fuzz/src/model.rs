//! What everybody must see: the stream as a plain vector, and each subscriber's place in it.

use crate::stage::LEN_MAX;

/// What became of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Message(Message),
    /// Taken by a shared publisher that lives; or by one that may settle it at any time.
    Claimed,
    /// Taken, and its publisher is dead or has forgotten it: whoever is stuck there abandons it.
    Lost,
    Abandoned,
}

/// A message as its two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub nonce: u8,
    pub len: u8,
}

impl Message {
    pub fn write(self, to: &mut [u8]) {
        for (place, byte) in to.iter_mut().enumerate() {
            *byte = self.nonce.wrapping_mul(31).wrapping_add(place as u8);
        }
    }

    pub fn bytes(self) -> ([u8; LEN_MAX], usize) {
        let mut bytes = [0; LEN_MAX];
        let len = usize::from(self.len);
        self.write(&mut bytes[..len]);
        (bytes, len)
    }

    pub fn check(self, found: &[u8], who: &str) {
        let (bytes, len) = self.bytes();
        assert_eq!(found, &bytes[..len], "{who}: the content of {self:?}");
    }
}

/// The stream.
pub struct Log {
    pub fates: Vec<Fate>,
    pub block_len: u64,
    pub blocks: u64,
    /// The newest block that was opened.
    pub opened: Option<u64>,
}

impl Log {
    pub fn new(block_len: u64, blocks: u64) -> Log {
        Log { fates: Vec::new(), block_len, blocks, opened: None }
    }

    pub fn next(&self) -> u64 {
        self.fates.len() as u64
    }

    pub fn number(&self, sequence: u64) -> u64 {
        sequence / self.block_len
    }

    pub fn at(&self, sequence: u64) -> Option<Fate> {
        self.fates.get(sequence as usize).copied()
    }

    /// The block of `sequence` has been opened.
    pub fn open(&mut self, sequence: u64) {
        self.opened = self.opened.max(Some(self.number(sequence)));
    }

    pub fn push(&mut self, sequence: u64, fate: Fate) {
        assert_eq!(sequence, self.next(), "the order of the stream");
        self.open(sequence);
        self.fates.push(fate);
    }

    /// The newest message of `from..head`.
    pub fn newest(&self, from: u64, head: u64) -> Option<u64> {
        (from..head.min(self.next()))
            .rev()
            .find(|sequence| matches!(self.fates[*sequence as usize], Fate::Message(_)))
    }

    /// Whether a message is left in `from..`.
    pub fn is_message_left(&self, from: u64) -> bool {
        self.newest(from, self.next()).is_some()
    }
}

/// What the model knows of a subscriber.
#[derive(Clone, Debug)]
pub struct Reader {
    /// The sequence behind the last one that it received; at first, where it began.
    pub expected: u64,
    pub began: u64,
    pub reliable: bool,
    pub may_be_evicted: bool,
    /// It has asked to skip what is below.
    pub skips_to: u64,
}

impl Reader {
    /// A sample was received.
    pub fn received(
        &mut self,
        log: &mut Log,
        sequence: u64,
        (missed, abandoned): (u64, u64),
        found: &[u8],
    ) -> Message {
        assert!(sequence >= self.expected, "received {sequence}, expected {}", self.expected);
        assert_eq!(missed + abandoned, sequence - self.expected, "skipped before {sequence}");
        let Some(Fate::Message(message)) = log.at(sequence) else {
            panic!("received {sequence}, which is {:?}", log.at(sequence));
        };
        message.check(found, "received");
        let first_missed = log.newest(self.expected.max(self.skips_to), sequence);
        if let Some(missed) = first_missed {
            assert!(!self.reliable, "a reliable subscriber missed {missed}");
            let opened = log.opened.unwrap_or(0);
            let displaced = log.number(self.expected) + log.blocks <= opened;
            assert!(displaced, "{missed} was missed, block {opened} is the newest");
        }
        self.passed(log, self.expected, sequence);
        self.expected = sequence + 1;
        message
    }

    /// It has gone past what stands there: it never becomes a message.
    fn passed(&self, log: &mut Log, from: u64, to: u64) {
        // A lossy one may have been lapped, and a sequence may have been skipped: it says nothing about them.
        if self.reliable && from >= self.skips_to {
            for fate in &mut log.fates[from as usize..to as usize] {
                if matches!(fate, Fate::Claimed | Fate::Lost) {
                    *fate = Fate::Abandoned;
                }
            }
        }
    }

    /// It was told that there is nothing; it stood at `before` and stands at `now`.
    pub fn found_nothing(&self, log: &mut Log, before: u64, now: u64) {
        assert!(now >= before, "from {before} back to {now}");
        if self.reliable {
            let missed = log.newest(before.max(self.skips_to), now);
            assert_eq!(missed, None, "a reliable subscriber went past a message");
            self.passed(log, before, now);
        }
        let is_there = matches!(log.at(now), Some(Fate::Message(_)));
        assert!(now != before || !is_there, "message {now} was not received");
    }

    /// Whether publishers may wait for it to open block `number`: its cursor is somewhere in the block of what it received last.
    pub fn may_forbid(&self, log: &Log, number: u64) -> bool {
        let shown = if self.expected > self.began { self.expected - 1 } else { self.began };
        self.reliable && log.number(shown) + log.blocks <= number
    }
}
