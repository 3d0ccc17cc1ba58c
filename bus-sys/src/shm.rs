//! Files in memory: named ones below a directory of a tmpfs, and nameless ones (memfd).
//!
//! Every descriptor is `O_CLOEXEC`; nothing follows a symbolic link in the last path component;
//! what is created is created anew or not at all, with exactly the mode asked, never more for a
//! moment. [`allocate`] makes every page exist, so a full file system is an error here and not a
//! `SIGBUS` at the first touch.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FallocateFlags, FileType, Gid, MemfdFlags, Mode, OFlags, RenameFlags,
    SealFlags,
};
use rustix::io::{Errno, retry_on_intr};

/// What a descriptor may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `O_RDONLY`: the file cannot be mapped writable through it.
    ReadOnly,
    /// `O_RDWR`
    ReadWrite,
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a directory. Fails with `ELOOP` or `ENOTDIR` where the last component of `path` is a
/// symbolic link. See [open(2)](https://man7.org/linux/man-pages/man2/open.2.html).
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(retry_on_intr(|| rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty()))?)
}

/// Opens the directory `name` below `dir`, as [`open_directory`] does.
pub fn open_directory_at(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    Ok(retry_on_intr(|| rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()))?)
}

/// Makes the directory `name` below `dir` with exactly the permission bits `mode`, whatever the
/// umask, and the set-group-ID bit where `dir` has it, so that its files get the group of `dir`; `EEXIST` where the name is taken. It is opened to set the mode: where `mode` or the umask
/// denies the owner to read it, a process without privilege gets `EACCES`. After an error there is
/// no new directory. See [mkdir(2)](https://man7.org/linux/man-pages/man2/mkdir.2.html).
pub fn make_directory_at(dir: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode);
    rustix::fs::mkdirat(dir, name, mode)?;
    let set_mode = || {
        let made = rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())?;
        let inherited = Mode::from_raw_mode(rustix::fs::fstat(&made)?.st_mode) & Mode::SGID;
        rustix::fs::fchmod(made, mode | inherited)
    };
    set_mode().map_err(|error: rustix::io::Errno| {
        _ = remove_directory_at(dir, name);
        error.into()
    })
}

/// Creates the file `name` below `dir`, empty, open for reading and writing, with exactly the
/// permission bits `mode`, whatever the umask. `EEXIST` where the name is taken, be it by a
/// symbolic link. After an error there is no new file. See
/// [open(2)](https://man7.org/linux/man-pages/man2/open.2.html).
pub fn create_at(dir: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(mode);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, mode)?; // the umask only narrows this
    match rustix::fs::fchmod(&fd, mode) {
        Ok(()) => Ok(fd),
        Err(error) => {
            _ = unlink_at(dir, name);
            Err(error.into())
        }
    }
}

/// Opens the file `name` below `dir`. `ELOOP` for a symbolic link. Never blocks: should somebody
/// have put a FIFO there, it is opened (or refused with `ENXIO`) at once, and [`len`] tells that it
/// is no regular file. See [open(2)](https://man7.org/linux/man-pages/man2/open.2.html).
pub fn open_at(dir: BorrowedFd<'_>, name: &str, access: Access) -> io::Result<OwnedFd> {
    let access = match access {
        Access::ReadOnly => OFlags::RDONLY,
        Access::ReadWrite => OFlags::RDWR,
    };
    // NONBLOCK means nothing for a regular file; NOCTTY because a terminal is also a file that one
    // may meet.
    let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(retry_on_intr(|| rustix::fs::openat(dir, name, flags, Mode::empty()))?)
}

/// The file `name` below `dir` as a place: to ask what it is, not to read it. Needs permission to search `dir`, and none on the file. A symbolic link is opened
/// itself.
pub fn open_path_at(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// A file without a name in the file system of `dir`, empty, for reading and writing, of mode 0600: gone with its last descriptor. `EOPNOTSUPP`
/// where the file system has none; tmpfs does. See [open(2)](https://man7.org/linux/man-pages/man2/open.2.html), O_TMPFILE.
pub fn create_nameless_in(dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, ".", flags, Mode::RUSR | Mode::WUSR)?)
}

/// The same file for reading and writing once more, with a description of its own. Needs `/proc`.
pub fn open_again(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    open_again_as(fd, Access::ReadWrite)
}

/// The same, for the access that is asked for. Who is passed one for reading only can neither map the file writable through it nor, being another
/// user and without privilege, open it anew so where the file's mode denies it.
pub fn open_again_as(fd: BorrowedFd<'_>, access: Access) -> io::Result<OwnedFd> {
    let access = match access {
        Access::ReadOnly => OFlags::RDONLY,
        Access::ReadWrite => OFlags::RDWR,
    };
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = access | OFlags::CLOEXEC;
    Ok(retry_on_intr(|| rustix::fs::openat(CWD, &*path, flags, Mode::empty()))?)
}

/// Renames `from` to `to` below `dir` in one step, or fails with `EEXIST` where `to` is taken (also
/// by an empty directory). `EINVAL` on a file system without `RENAME_NOREPLACE`; tmpfs has it. See
/// [rename(2)](https://man7.org/linux/man-pages/man2/rename.2.html).
pub fn publish_at(dir: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE)?)
}

/// Renames the directory `from` to `to` below `dir` in one step, in the place of an empty directory if
/// there is one. Fails with `ENOTEMPTY` or `EEXIST` if `to` is a directory with something in it, and with
/// `ENOTDIR` if it is no directory. See [rename(2)](https://man7.org/linux/man-pages/man2/rename.2.html).
pub fn replace_empty_at(dir: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()> {
    Ok(rustix::fs::renameat(dir, from, dir, to)?)
}

/// Whether this process may make and remove names in `dir`: `EACCES`, `EROFS` if not. See
/// [faccessat(2)](https://man7.org/linux/man-pages/man2/access.2.html).
pub fn may_change(dir: BorrowedFd<'_>) -> io::Result<()> {
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    Ok(rustix::fs::accessat(dir, ".", access, AtFlags::EACCESS)?)
}

/// Sets all permission bits of a file or directory, set-id bits among them; `EPERM` for all but its
/// owner and root. See [fchmod(2)](https://man7.org/linux/man-pages/man2/fchmod.2.html).
pub fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?)
}

/// Gives a file or directory to a group. `EPERM` for all but root and its owner, who must be in the group. See
/// [fchown(2)](https://man7.org/linux/man-pages/man2/fchown.2.html).
pub fn set_group(fd: BorrowedFd<'_>, gid: u32) -> io::Result<()> {
    Ok(rustix::fs::fchown(fd, None, Some(Gid::from_raw(gid)))?)
}

/// The same of the file `name` below `dir`.
pub fn set_group_at(dir: BorrowedFd<'_>, name: &str, gid: u32) -> io::Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::chownat(dir, name, None, Some(Gid::from_raw(gid)), flags)?)
}

/// Whether the kernel has refused something that only others may do (`EPERM`), as to give a file to a group: not a lack of access (`EACCES`).
pub fn is_not_permitted(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::PERM.raw_os_error())
}

/// Removes the name of a file below `dir`. Mappings and descriptors live on.
/// See [unlink(2)](https://man7.org/linux/man-pages/man2/unlink.2.html).
pub fn unlink_at(dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
}

/// Removes an empty directory below `dir`; `ENOTEMPTY` where it is not.
/// See [rmdir(2)](https://man7.org/linux/man-pages/man2/rmdir.2.html).
pub fn remove_directory_at(dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// The names in a directory, in no order, without `.` and `..`. Names that are not UTF-8 are left
/// out. Names that come or go meanwhile may or may not be in it. The offset of `dir` is neither
/// used nor changed. See [readdir(3)](https://man7.org/linux/man-pages/man3/readdir.3.html).
pub fn list_at(dir: BorrowedFd<'_>) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().to_str()
            && name != "."
            && name != ".."
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Makes the first `len` bytes of the file exist, in memory and zero where they were not there, and
/// the file at least that long. `ENOSPC` where the file system has no room: a file that was empty
/// is then empty again. `EINVAL` for 0. `EFBIG` if the process may not make so long a file (`RLIMIT_FSIZE`): the kernel would send
/// `SIGXFSZ`, which ends a process. In pieces, so that a signal (a profiler's timer, say) costs
/// no more than one of them. Costs a page clear per new page (about 0.3 ms per MiB). See
/// [fallocate(2)](https://man7.org/linux/man-pages/man2/fallocate.2.html).
pub fn allocate(fd: BorrowedFd<'_>, len: u64) -> io::Result<()> {
    if file_size_limit().is_some_and(|limit| limit < len) {
        return Err(Errno::FBIG.into());
    }
    let before = rustix::fs::fstat(fd)?;
    // Before the first piece: what cannot be had is not taken from others even for a moment.
    let missing = len.saturating_sub(before.st_blocks as u64 * 512);
    let room = filesystem(fd)?;
    if room.total_bytes != 0 && missing > room.available_bytes {
        return Err(Errno::NOSPC.into());
    }
    let allocated = in_pieces(len, |offset, len| {
        rustix::fs::fallocate(fd, FallocateFlags::empty(), offset, len)
    });
    if allocated.is_err() && rustix::fs::fstat(fd)?.st_size > before.st_size {
        _ = retry_on_intr(|| rustix::fs::ftruncate(fd, before.st_size as u64));
    }
    Ok(allocated?)
}

/// Allocates `len` bytes by calls of `allocate` with offset and length. An interrupted call of tmpfs takes back what it has done: the
/// next one asks for half, down to a page, and each that succeeds for twice as much again.
fn in_pieces(
    len: u64,
    mut allocate: impl FnMut(u64, u64) -> Result<(), Errno>,
) -> Result<(), Errno> {
    const LEAST: u64 = 4096;
    const MOST: u64 = 2 << 20; // a huge page
    let (mut done, mut piece) = (0, MOST);
    loop {
        let next = piece.min(len - done);
        match allocate(done, next) {
            Ok(()) => {
                done += next;
                piece = (2 * piece).min(MOST);
            }
            Err(Errno::INTR) => piece = (piece / 2).max(LEAST),
            Err(error) => return Err(error),
        }
        if done == len {
            return Ok(());
        }
    }
}

/// The longest file that this process may make (`RLIMIT_FSIZE`); `None`: any.
/// See [getrlimit(2)](https://man7.org/linux/man-pages/man2/getrlimit.2.html).
pub fn file_size_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current
}

/// The length of a regular file in bytes; `InvalidInput` for anything else. Ask before mapping, and
/// refuse a file that is shorter than what will be touched: touching a page behind the end is a
/// `SIGBUS`. See [fstat(2)](https://man7.org/linux/man-pages/man2/fstat.2.html).
pub fn len(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let stat = rustix::fs::fstat(fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(stat.st_size as u64)
}

/// Reads all of `buffer` from `offset` on; `UnexpectedEof` where the file ends before, and `buffer`
/// is then partly written. See [pread(2)](https://man7.org/linux/man-pages/man2/pread.2.html).
pub fn read_exact_at(fd: BorrowedFd<'_>, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match retry_on_intr(|| rustix::io::pread(fd, &mut *buffer, offset))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
        }
    }
    Ok(())
}

/// Writes all of `buffer` at `offset`; the file grows where need be. After an error a part may be
/// written. See [pwrite(2)](https://man7.org/linux/man-pages/man2/pwrite.2.html).
pub fn write_all_at(fd: BorrowedFd<'_>, mut buffer: &[u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match retry_on_intr(|| rustix::io::pwrite(fd, buffer, offset))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => {
                buffer = &buffer[count..];
                offset += count as u64;
            }
        }
    }
    Ok(())
}

/// What [`filesystem`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// It is a tmpfs: pages in memory, a limit that [`allocate`] respects. ramfs and hugetlbfs are
    /// not.
    pub is_tmpfs: bool,
    /// Bytes that a process without privilege may still allocate. Memory or the memory cgroup may
    /// end before.
    pub available_bytes: u64,
    /// Size of the file system in bytes. 0: a tmpfs without a limit, whose `available_bytes` is 0
    /// also.
    pub total_bytes: u64,
    /// Files and directories that may still be made.
    pub available_inodes: u64,
    /// How many there may be. 0: no limit is known, and `available_inodes` says nothing.
    pub total_inodes: u64,
}

/// The file system that a file or directory lies on, at this moment.
/// See [statfs(2)](https://man7.org/linux/man-pages/man2/statfs.2.html).
pub fn filesystem(fd: BorrowedFd<'_>) -> io::Result<Filesystem> {
    const TMPFS_MAGIC: u32 = 0x0102_1994;
    let stat = rustix::fs::fstatfs(fd)?;
    let block_bytes = stat.f_bsize as u64; // the unit of f_blocks and f_bavail
    Ok(Filesystem {
        is_tmpfs: stat.f_type as u32 == TMPFS_MAGIC,
        available_bytes: stat.f_bavail.saturating_mul(block_bytes),
        total_bytes: stat.f_blocks.saturating_mul(block_bytes),
        available_inodes: stat.f_ffree,
        total_inodes: stat.f_files,
    })
}

/// Who owns a file and who may do what with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, with set-id and sticky bits (`0o7777`).
    pub mode: u32,
    /// Names that it has; 0 of a directory that was removed.
    pub links: u64,
}

/// Owner and permission bits of a file or directory.
/// See [fstat(2)](https://man7.org/linux/man-pages/man2/fstat.2.html).
pub fn owner(fd: BorrowedFd<'_>) -> io::Result<Owner> {
    let stat = rustix::fs::fstat(fd)?;
    let (uid, gid, mode) = (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777);
    Ok(Owner { uid, gid, mode, links: stat.st_nlink as u64 })
}

/// The effective user of this process, to compare with [`Owner::uid`].
/// See [geteuid(2)](https://man7.org/linux/man-pages/man2/geteuid.2.html).
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A file in memory without a path, empty, of mode 0600, not executable where the kernel can (6.3),
/// that can be sealed. `name` is for `/proc` only, at most 249 bytes. With mode 0600 another user
/// who is passed a read-only descriptor cannot open it anew for writing; with the kernel's default,
/// 0777, they could. See
/// [memfd_create(2)](https://man7.org/linux/man-pages/man2/memfd_create.2.html).
pub fn memfd(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags)?, // before Linux 6.3
        result => result?,
    };
    rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
    Ok(fd)
}

/// Fixes the length of a [`memfd`] for ever: after this nobody can cut it under a mapping, not even
/// its creator. Twice is as once. `EPERM` or `EINVAL` for a file that cannot be sealed. See
/// [fcntl(2)](https://man7.org/linux/man-pages/man2/fcntl.2.html), F_ADD_SEALS.
pub fn seal_size(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::fcntl_add_seals(fd, SealFlags::SHRINK | SealFlags::GROW)?)
}

/// [`seal_size`], and no seal can be added any more: nobody can forbid writing, either.
pub fn seal(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::fcntl_add_seals(fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?)
}

/// Whether the length is fixed by [`seal_size`]. A receiver asks this and [`len`] before it maps.
/// `false` for files of a kind that cannot be sealed.
pub fn size_is_sealed(fd: BorrowedFd<'_>) -> io::Result<bool> {
    match rustix::fs::fcntl_get_seals(fd) {
        Ok(seals) => Ok(seals.contains(SealFlags::SHRINK | SealFlags::GROW)),
        Err(Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that clears `speed` bytes between two signals, and begins anew with each call.
    #[test]
    fn what_is_allocated_stays_so_however_often_signals_come() {
        for speed in [4096_u64, 5000, 100_000, 3 << 20, 1 << 30] {
            for total in [1, 4096, 4097, 1 << 20, (64 << 20) + 5] {
                let (mut done, mut left, mut calls) = (0, speed, 0_u64);
                in_pieces(total, |offset, len| {
                    calls += 1;
                    let enough = 4 * (total / 4096 + 16);
                    assert!(calls <= enough, "{calls} calls for {total} at {speed}");
                    assert_eq!(offset, done, "from where it stands");
                    if len > left {
                        left = speed;
                        return Err(Errno::INTR);
                    }
                    left -= len;
                    done = offset + len;
                    Ok(())
                })
                .unwrap();
                assert_eq!(done, total);
            }
        }
    }

    #[test]
    fn another_error_ends_it() {
        assert_eq!(in_pieces(10 << 20, |_, _| Err(Errno::NOSPC)), Err(Errno::NOSPC));
        assert_eq!(
            in_pieces(0, |_, len| if len == 0 { Err(Errno::INVAL) } else { Ok(()) }),
            Err(Errno::INVAL)
        );
    }
}
