//! Input cut into messages: lines, frames with a length in front, or pieces of one size.
//!
//! A message is given as soon as its last byte is there, however the input arrives. What is too long for the topic is reported with its
//! number and passed over, so that the caller may go on with the next one.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Bytes asked for at once.
const READ_LEN: usize = 256 * 1024;
/// How long one wait for input is at most, so that an interrupt is noticed: 100 ms.
const POLL_TIMEOUT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Bytes of the length in front of a frame.
const FRAME_HEADER_LEN: usize = 4;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// A line, without its newline. The last one may lack it.
    Lines,
    /// A length of four bytes, little-endian, then so many bytes.
    Frames,
    /// So many bytes; the last message may have fewer.
    Chunks(usize),
}

impl Framing {
    /// What one message is called.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Framing::Lines => "line",
            Framing::Frames => "frame",
            Framing::Chunks(_) => "chunk",
        }
    }
}

/// The next piece of the input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Message(&'a [u8]),
    TooLong(TooLong),
}

/// A message that is longer than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong {
    /// Its number, from 1.
    pub(crate) number: u64,
    /// Its length in bytes, as far as it has been read.
    pub(crate) len: usize,
    /// Whether that is all of it.
    pub(crate) whole: bool,
}

/// Where a message lies in the buffer, and how many bytes behind it belong to it.
enum Found {
    Message { bytes: Range<usize>, end: usize },
    TooLong { len: usize, whole: bool, rest: Rest },
    End,
}

/// What is to be passed over before the next message.
#[derive(Clone, Copy)]
enum Rest {
    Nothing,
    Bytes(usize),
    Line,
}

/// A file or standard input, as messages.
pub(crate) struct Input<R> {
    source: R,
    name: String,
    framing: Framing,
    len_max: usize,
    check: Box<dyn Fn() -> Result<()>>,
    /// What is read and not given yet is `buffer[start..end]`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    rest: Rest,
    /// Number of the last message that was given.
    number: u64,
}

/// Opens `path`; standard input where it is `-` or `None`.
pub(crate) fn open(path: Option<&Path>) -> Result<(File, String)> {
    match path.filter(|path| *path != Path::new("-")) {
        Some(path) => {
            let name = path.display().to_string();
            let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
            Ok((file, name))
        }
        None => {
            let stdin = io::stdin().as_fd().try_clone_to_owned();
            Ok((stdin.context("cannot use standard input")?.into(), "standard input".into()))
        }
    }
}

/// Longest file of settings.
pub(crate) const SETTINGS_MAX: u64 = 1 << 20;
/// Longest file with a schema: one of 64 KiB, and a byte order mark.
pub(crate) const SCHEMA_MAX: u64 = (64 << 10) + 3;

/// A whole file, as text.
///
/// # Errors
/// It cannot be read, is not UTF-8, or is longer than `len_max` bytes, as `/dev/zero` is.
pub(crate) fn read_text(path: &Path, len_max: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(len_max.saturating_add(1)).read_to_string(&mut text)?;
    if text.len() as u64 > len_max {
        let error = format!("it has more than {len_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
    }
    Ok(text)
}

impl<R: Read + AsFd> Input<R> {
    /// Cuts `source` into messages of `len_max` bytes at most. `name` is for errors; `check` ends a wait.
    pub(crate) fn new(
        source: R,
        name: String,
        framing: Framing,
        len_max: usize,
        check: impl Fn() -> Result<()> + 'static,
    ) -> Input<R> {
        let buffer = vec![0; READ_LEN];
        let (start, end, number) = (0, 0, 0);
        let rest = Rest::Nothing;
        let check = Box::new(check);
        Input { source, name, framing, len_max, check, buffer, start, end, rest, number }
    }

    /// The next piece, or `None` at the end. Waits for it.
    ///
    /// # Errors
    /// The input cannot be read, or ends inside a frame; what the check says.
    pub(crate) fn next(&mut self) -> Result<Option<Piece<'_>>> {
        if !self.pass_over()? {
            return Ok(None);
        }
        let found = match self.framing {
            Framing::Lines => self.line()?,
            Framing::Frames => self.frame()?,
            Framing::Chunks(len) => self.chunk(len)?,
        };
        match found {
            Found::End => Ok(None),
            Found::Message { bytes, end } => {
                self.number += 1;
                self.start = end;
                Ok(Some(Piece::Message(&self.buffer[bytes])))
            }
            Found::TooLong { len, whole, rest } => {
                self.number += 1;
                self.rest = rest;
                Ok(Some(Piece::TooLong(TooLong { number: self.number, len, whole })))
            }
        }
    }

    fn line(&mut self) -> Result<Found> {
        let mut searched = 0;
        loop {
            let unread = &self.buffer[self.start..self.end];
            let newline = unread[searched..].iter().position(|&byte| byte == b'\n');
            let len = newline.map_or(unread.len(), |at| searched + at);
            let whole = newline.is_some();
            if len > self.len_max {
                return Ok(Found::TooLong { len, whole, rest: Rest::Line });
            }
            if whole {
                return Ok(self.found(0, len, 1));
            }
            searched = len;
            if !self.fill()? {
                return Ok(if len == 0 { Found::End } else { self.found(0, len, 0) });
            }
        }
    }

    fn frame(&mut self) -> Result<Found> {
        let there = self.fill_up_to(FRAME_HEADER_LEN)?;
        let Some(header) = self.buffer[self.start..self.end].first_chunk() else {
            return match there {
                0 => Ok(Found::End),
                _ => self.cut_off(there, "the 4 bytes of its length"),
            };
        };
        let len = u32::from_le_bytes(*header) as usize;
        if len > self.len_max {
            let rest = Rest::Bytes(FRAME_HEADER_LEN + len);
            return Ok(Found::TooLong { len, whole: true, rest });
        }
        let there = self.fill_up_to(FRAME_HEADER_LEN + len)? - FRAME_HEADER_LEN;
        if there < len {
            return self.cut_off(there, &format!("{len} bytes"));
        }
        Ok(self.found(FRAME_HEADER_LEN, len, 0))
    }

    fn chunk(&mut self, len: usize) -> Result<Found> {
        let there = self.fill_up_to(len)?;
        if there > self.len_max {
            return Ok(Found::TooLong { len: there, whole: true, rest: Rest::Bytes(there) });
        }
        Ok(if there == 0 { Found::End } else { self.found(0, there, 0) })
    }

    fn found(&self, before: usize, len: usize, behind: usize) -> Found {
        let first = self.start + before;
        Found::Message { bytes: first..first + len, end: first + len + behind }
    }

    fn cut_off<T>(&self, there: usize, expected: &str) -> Result<T> {
        let (name, number) = (&self.name, self.number + 1);
        bail!("{name} ends inside frame {number}: {there} bytes of {expected} are there")
    }

    /// Passes over the rest of what was too long. False at the end of the input.
    fn pass_over(&mut self) -> Result<bool> {
        loop {
            let unread = &self.buffer[self.start..self.end];
            let (passed, rest) = match self.rest {
                Rest::Nothing => return Ok(true),
                Rest::Bytes(bytes) if bytes <= unread.len() => (bytes, Rest::Nothing),
                Rest::Bytes(bytes) => (unread.len(), Rest::Bytes(bytes - unread.len())),
                Rest::Line => match unread.iter().position(|&byte| byte == b'\n') {
                    Some(at) => (at + 1, Rest::Nothing),
                    None => (unread.len(), Rest::Line),
                },
            };
            self.start += passed;
            self.rest = rest;
            match rest {
                Rest::Nothing => {}
                _ if self.fill()? => {}
                Rest::Bytes(_) => bail!("{} ends inside frame {}", self.name, self.number),
                Rest::Line => return Ok(false),
            }
        }
    }

    /// Reads until `len` bytes are unread, or the input ends. How many of them are there.
    fn fill_up_to(&mut self, len: usize) -> Result<usize> {
        while self.end - self.start < len && self.fill()? {}
        Ok(len.min(self.end - self.start))
    }

    /// Reads once, with room for it. False at the end of the input.
    fn fill(&mut self) -> Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0); // less than one message
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        loop {
            (self.check)()?;
            let mut source = [PollFd::new(&self.source, PollFlags::IN)];
            match poll(&mut source, Some(&POLL_TIMEOUT)) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error).with_context(|| self.refused()),
            }
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(len) => {
                    self.end += len;
                    return Ok(len > 0);
                }
                Err(error) if is_for_a_moment(&error) => {}
                Err(error) => return Err(error).with_context(|| self.refused()),
            }
        }
    }

    fn refused(&self) -> String {
        format!("cannot read {}", self.name)
    }
}

fn is_for_a_moment(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::Interrupt;
    use std::io::Write;

    /// A message, or number and length of what is too long.
    type Cut = Result<Vec<u8>, (u64, usize)>;

    fn cut(input: &[u8], framing: Framing, len_max: usize) -> Result<Vec<Cut>> {
        let (reader, mut writer) = io::pipe()?;
        let bytes = input.to_vec();
        // In pieces that end anywhere.
        let writing = std::thread::spawn(move || {
            bytes.chunks(7).try_for_each(|piece| writer.write_all(piece))
        });
        let interrupt = Interrupt::install()?;
        let mut input =
            Input::new(reader, "it".into(), framing, len_max, move || Ok(interrupt.check()?));
        let mut pieces = Vec::new();
        while let Some(piece) = input.next()? {
            pieces.push(match piece {
                Piece::Message(bytes) => Ok(bytes.to_vec()),
                Piece::TooLong(TooLong { number, len, .. }) => Err((number, len)),
            });
        }
        writing.join().expect("it does not panic")?;
        Ok(pieces)
    }

    fn ok(messages: &[&[u8]]) -> Vec<Cut> {
        messages.iter().map(|message| Ok(message.to_vec())).collect()
    }

    #[test]
    fn a_line_is_a_message_and_the_last_one_may_lack_its_newline() {
        let lines = |input: &[u8]| cut(input, Framing::Lines, 100).unwrap();
        assert_eq!(lines(b""), ok(&[]));
        assert_eq!(lines(b"\n"), ok(&[b""]));
        assert_eq!(lines(b"first line\n\nthird\r\n"), ok(&[b"first line", b"", b"third\r"]));
        assert_eq!(lines(b"a\nand the last"), ok(&[b"a", b"and the last"]));
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_whole() {
        let input = b"1234\n12345\n1\n123456789012345678901234567890\n12\n1234567890";
        let pieces = cut(input, Framing::Lines, 4).unwrap();
        assert_eq!(pieces.len(), 6);
        assert_eq!(pieces[0], Ok(b"1234".to_vec()));
        assert_eq!(pieces[1].as_ref().unwrap_err().0, 2);
        assert_eq!(pieces[2], Ok(b"1".to_vec()));
        assert!(pieces[3].as_ref().is_err_and(|&(number, len)| number == 4 && len > 4));
        assert_eq!(pieces[4], Ok(b"12".to_vec()));
        assert_eq!(pieces[5].as_ref().unwrap_err().0, 6);
    }

    #[test]
    fn a_frame_is_a_length_and_so_many_bytes() {
        let mut input = Vec::new();
        for message in [&b"four"[..], b"", b"\n", b"too long, this one", b"end"] {
            input.extend(u32::try_from(message.len()).unwrap().to_le_bytes());
            input.extend(message);
        }
        let pieces = cut(&input, Framing::Frames, 5).unwrap();
        let mut expected = ok(&[b"four", b"", b"\n"]);
        expected.extend([Err((4, 18)), Ok(b"end".to_vec())]);
        assert_eq!(pieces, expected);
    }

    #[test]
    fn input_that_ends_inside_a_frame_is_an_error() {
        let error = |input: &[u8]| cut(input, Framing::Frames, 5).unwrap_err().to_string();
        assert_eq!(
            error(b"\x01\0\0\0a\x02\0"),
            "it ends inside frame 2: 2 bytes of the 4 bytes of its length are there"
        );
        assert_eq!(error(b"\x04\0\0\0abc"), "it ends inside frame 1: 3 bytes of 4 bytes are there");
        assert_eq!(error(b"\x09\0\0\0abc"), "it ends inside frame 1"); // passed over
    }

    #[test]
    fn chunks_are_of_one_size_but_the_last() {
        assert_eq!(cut(b"", Framing::Chunks(3), 3).unwrap(), ok(&[]));
        assert_eq!(cut(b"abcdef", Framing::Chunks(3), 3).unwrap(), ok(&[b"abc", b"def"]));
        assert_eq!(cut(b"abc\nefgh", Framing::Chunks(5), 5).unwrap(), ok(&[b"abc\ne", b"fgh"]));
    }

    #[test]
    fn messages_larger_than_one_read_are_whole() {
        let long = vec![b'x'; 3 * READ_LEN + 5];
        assert_eq!(cut(&long, Framing::Lines, long.len()).unwrap(), ok(&[&long]));
        assert_eq!(cut(&long, Framing::Chunks(long.len()), long.len()).unwrap(), ok(&[&long]));
    }
}
