//! What a client asks of a broker, and what it answers: one message each way, of fixed size, little-endian, versioned. Lengths are compared, never
//! trusted; parsing is a pure function of the bytes.
//!
//! | request | offset | length | |
//! |---|---:|---:|---|
//! | magic | 0 | 8 | `shmbus-q` |
//! | version | 8 | 4 | 1 |
//! | operation | 12 | 4 | 1 describe, 2 subscribe, 3 publish |
//! | kind | 16 | 4 | to subscribe: 2 lossy, 3 reliable; else 0 |
//! | name length | 20 | 4 | 1 to 200 |
//! | patience | 24 | 8 | nanoseconds; 0 = as much as there is |
//! | name | 32 | 200 | filled up with 0 |
//!
//! | answer | offset | length | |
//! |---|---:|---:|---|
//! | magic | 0 | 8 | `shmbus-a` |
//! | version | 8 | 4 | 1 |
//! | status | 12 | 4 | [`Status`] |
//! | entry | 16 | 4 | the entry that was granted |
//! | descriptors | 20 | 4 | how many come with it |
//! | generation | 24 | 8 | of the entry |
//! | detail | 32 | 8 | `Full`: the limit; `PublisherAlive`: its process id |

/// Bytes of a request.
pub(crate) const REQUEST_LEN: usize = 232;
/// Bytes of an answer.
pub(crate) const ANSWER_LEN: usize = 40;
const REQUEST_MAGIC: [u8; 8] = *b"shmbus-q";
const ANSWER_MAGIC: [u8; 8] = *b"shmbus-a";
const VERSION: u32 = 1;
const NAME_MAX: usize = 200;
const NAME_AT: usize = 32;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// What the topic is: to look at it.
    Describe,
    Subscribe {
        reliable: bool,
        patience_ns: u64,
    },
    Publish,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) name: String,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Status {
    Done = 0,
    /// By the policy. Said before anything about the topic is.
    Refused = 1,
    NotFound = 2,
    /// Every entry that the caller may have is in use.
    Full = 3,
    PublisherAlive = 4,
    /// The request is none.
    Malformed = 5,
    Version = 6,
    /// The broker could not: no descriptors, no memory.
    Failed = 7,
    /// Too many of this user, or of its rule, ask at the same time: to be asked again.
    Busy = 8,
}

/// An answer, without its descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: Status,
    pub(crate) entry: u32,
    pub(crate) descriptors: u32,
    pub(crate) generation: u64,
    pub(crate) detail: u64,
}

impl Answer {
    pub(crate) fn of(status: Status) -> Answer {
        Answer { status, entry: 0, descriptors: 0, generation: 0, detail: 0 }
    }
}

impl Request {
    pub(crate) fn bytes(&self) -> [u8; REQUEST_LEN] {
        let (operation, kind, patience_ns): (u32, u32, u64) = match self.operation {
            Operation::Describe => (1, 0, 0),
            Operation::Subscribe { reliable, patience_ns } => {
                (2, if reliable { 3 } else { 2 }, patience_ns)
            }
            Operation::Publish => (3, 0, 0),
        };
        let name = self.name.as_bytes();
        let name = &name[..name.len().min(NAME_MAX)];
        let mut bytes = [0; REQUEST_LEN];
        bytes[..8].copy_from_slice(&REQUEST_MAGIC);
        put(&mut bytes, 8, VERSION);
        put(&mut bytes, 12, operation);
        put(&mut bytes, 16, kind);
        put(&mut bytes, 20, name.len() as u32);
        bytes[24..32].copy_from_slice(&patience_ns.to_le_bytes());
        bytes[NAME_AT..NAME_AT + name.len()].copy_from_slice(name);
        bytes
    }

    /// A request, or what to answer instead. The name has characters that a topic's can have, or there is no topic of it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Request, Status> {
        if bytes.len() != REQUEST_LEN || bytes[..8] != REQUEST_MAGIC {
            return Err(Status::Malformed);
        }
        if word(bytes, 8) != VERSION {
            return Err(Status::Version);
        }
        let patience_ns = long(bytes, 24);
        let operation = match (word(bytes, 12), word(bytes, 16), patience_ns) {
            (1, 0, 0) => Operation::Describe,
            (2, 2, 0) => Operation::Subscribe { reliable: false, patience_ns },
            (2, 3, _) => Operation::Subscribe { reliable: true, patience_ns },
            (3, 0, 0) => Operation::Publish,
            _ => return Err(Status::Malformed),
        };
        let len = word(bytes, 20) as usize;
        let (name, rest) = bytes[NAME_AT..].split_at_checked(len).ok_or(Status::Malformed)?;
        let name = str::from_utf8(name).map_err(|_| Status::Malformed)?;
        if name.is_empty() || rest.iter().any(|byte| *byte != 0) {
            return Err(Status::Malformed);
        }
        Ok(Request { operation, name: name.to_owned() })
    }
}

impl Answer {
    pub(crate) fn bytes(&self) -> [u8; ANSWER_LEN] {
        let mut bytes = [0; ANSWER_LEN];
        bytes[..8].copy_from_slice(&ANSWER_MAGIC);
        put(&mut bytes, 8, VERSION);
        put(&mut bytes, 12, self.status as u32);
        put(&mut bytes, 16, self.entry);
        put(&mut bytes, 20, self.descriptors);
        bytes[24..32].copy_from_slice(&self.generation.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.detail.to_le_bytes());
        bytes
    }

    /// `None` of what is no answer of this version.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
        if bytes.len() != ANSWER_LEN || bytes[..8] != ANSWER_MAGIC || word(bytes, 8) != VERSION {
            return None;
        }
        let status = match word(bytes, 12) {
            0 => Status::Done,
            1 => Status::Refused,
            2 => Status::NotFound,
            3 => Status::Full,
            4 => Status::PublisherAlive,
            5 => Status::Malformed,
            6 => Status::Version,
            7 => Status::Failed,
            8 => Status::Busy,
            _ => return None,
        };
        let (entry, descriptors) = (word(bytes, 16), word(bytes, 20));
        let (generation, detail) = (long(bytes, 24), long(bytes, 32));
        Some(Answer { status, entry, descriptors, generation, detail })
    }
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// The bytes are there: the length of the whole was compared.
fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let mut long = [0; 8];
    long.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(long)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_parsed_as_it_was_written() {
        for operation in [
            Operation::Describe,
            Operation::Subscribe { reliable: false, patience_ns: 0 },
            Operation::Subscribe { reliable: true, patience_ns: 7 },
            Operation::Publish,
        ] {
            for name in ["a".to_owned(), "x".repeat(NAME_MAX)] {
                let request = Request { operation, name };
                assert_eq!(Request::parse(&request.bytes()), Ok(request));
            }
        }
    }

    #[test]
    fn what_is_not_a_whole_request_is_refused() {
        let good = Request { operation: Operation::Publish, name: "a".to_owned() }.bytes();
        for len in 0..REQUEST_LEN {
            assert_eq!(Request::parse(&good[..len]), Err(Status::Malformed), "{len} bytes");
        }
        let changed = |at: usize, value: u32| {
            let mut bytes = good;
            put(&mut bytes, at, value);
            Request::parse(&bytes)
        };
        assert_eq!(changed(0, 1), Err(Status::Malformed));
        assert_eq!(changed(8, 2), Err(Status::Version));
        assert_eq!(changed(12, 4), Err(Status::Malformed));
        assert_eq!(changed(16, 1), Err(Status::Malformed));
        for len in [0, 2_000, u32::MAX] {
            assert_eq!(changed(20, len), Err(Status::Malformed), "a name of {len}");
        }
        assert_eq!(changed(NAME_AT + 100, 1), Err(Status::Malformed), "bytes behind the name");
        assert_eq!(changed(NAME_AT, 0xffff_ffff), Err(Status::Malformed), "not UTF-8");
    }

    #[test]
    fn an_answer_is_parsed_as_it_was_written() {
        let answer = Answer {
            status: Status::PublisherAlive,
            entry: 3,
            descriptors: 4,
            generation: 1 << 40,
            detail: 5,
        };
        assert_eq!(Answer::parse(&answer.bytes()), Some(answer));
        let mut bytes = answer.bytes();
        put(&mut bytes, 12, 99);
        assert_eq!(Answer::parse(&bytes), None);
    }
}
