//! Who holds a lease, for those who may not open its file: the kernel lists the locks of all files
//! to everybody, with device, inode and range, in `/proc/locks`
//! ([proc_locks(5)](https://man7.org/linux/man-pages/man5/proc_locks.5.html)).
//!
//! For people. **Nothing may be decided by it**: the list is read in pieces, and a lock may be missed
//! while others come and go; and on file systems other than tmpfs its device number may be another
//! than that of `stat`. A process that may open the file asks the kernel instead ([`lease`](crate::lease)).

use std::fs;
use std::io;

use crate::spawn::FileId;

/// How often the list is read at most. A lock that is held all the time is missed only if it is
/// missed each time.
const LOOKS: usize = 4;

/// The bytes of one file that somebody held, by any lock that would be in a lease's way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldBytes {
    /// First and last byte of each lock.
    ranges: Vec<(u64, u64)>,
}

impl HeldBytes {
    /// Of the file `file`, now. Reads the list of the whole machine at least twice: about 0.05 ms, and
    /// 1.5 ms more for every 1,000 locks on the machine.
    ///
    /// # Errors
    /// There is no `/proc`, or the list is hidden.
    pub fn of(file: FileId) -> io::Result<HeldBytes> {
        let mut held = HeldBytes::default();
        for look in 0..LOOKS {
            let known = held.ranges.len();
            held.add(&fs::read("/proc/locks")?, file);
            if look > 0 && held.ranges.len() == known {
                break;
            }
        }
        Ok(held)
    }

    /// Whether somebody held the byte.
    pub fn contains(&self, byte: u64) -> bool {
        self.ranges.iter().any(|&(first, last)| (first..=last).contains(&byte))
    }

    /// Adds what `list` says of `file`. A line that is not understood says nothing.
    fn add(&mut self, list: &[u8], file: FileId) {
        for line in list.split(|&byte| byte == b'\n') {
            if let Some(range) = str::from_utf8(line).ok().and_then(|line| range(line, file))
                && !self.ranges.contains(&range)
            {
                self.ranges.push(range);
            }
        }
    }
}

/// First and last byte of a record lock on `file`: `ID: TYPE ADVISORY ACCESS PID MAJOR:MINOR:INODE
/// FIRST LAST`, device numbers in hexadecimal. `None` for other files, for locks of other families,
/// and for lines with `->`, which are of those who wait.
fn range(line: &str, file: FileId) -> Option<(u64, u64)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    if !matches!(fields.next()?, "OFDLCK" | "POSIX") {
        return None;
    }
    let mut place = fields.nth(3)?.split(':');
    let mut number = || u32::from_str_radix(place.next()?, 16).ok();
    let device = libc::makedev(number()?, number()?);
    let inode: u64 = place.next()?.parse().ok()?;
    if (FileId { device, inode }) != file {
        return None;
    }
    let first = fields.next()?.parse().ok()?;
    let last = match fields.next()? {
        "EOF" => u64::MAX,
        last => last.parse().ok()?,
    };
    Some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"1: FLOCK  ADVISORY  WRITE 10 103:1b:77 0 EOF
2: OFDLCK ADVISORY  WRITE -1 103:1b:77 1 2
2: -> OFDLCK ADVISORY  WRITE -1 103:1b:77 9 9
3: POSIX  ADVISORY  READ 11 103:1b:77 100 EOF
4: OFDLCK ADVISORY  WRITE -1 103:1b:78 4 4
5: OFDLCK ADVISORY  WRITE -1 00:1b:77 5 5
6: OFDLCK ADVISORY  WRITE -1 <none>:0 6 6
7: OFDLCK
\xff";

    #[test]
    fn a_list_says_which_bytes_of_a_file_are_held_and_nothing_else() {
        let mut held = HeldBytes::default();
        held.add(LIST, FileId { device: libc::makedev(0x103, 0x1b), inode: 77 });
        assert_eq!(held.ranges, [(1, 2), (100, u64::MAX)]);
        let bytes = [0, 1, 2, 3, 4, 5, 6, 9, 99, 100, 1 << 40];
        let found: Vec<u64> = bytes.into_iter().filter(|&byte| held.contains(byte)).collect();
        assert_eq!(found, [1, 2, 100, 1 << 40]);
    }
}
