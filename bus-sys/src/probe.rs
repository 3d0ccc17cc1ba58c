//! What this machine offers, each thing tried or read where the kernel states it; nothing is concluded from a version. For people and
//! for reports: nothing that works here is asked for its permission first.

#![allow(unsafe_code)] // io_uring_setup, which is tried with a valid argument only

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::AtomicU32;

use rustix::process::{Resource, getrlimit};

use crate::futex;

/// The release of the running kernel, such as `6.1.0-18-amd64`. See
/// [proc_sys_kernel(5)](https://man7.org/linux/man-pages/man5/proc_sys_kernel.5.html).
pub fn kernel_release() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned())
}

/// Tries `futex_waitv` on a word that has another value, so that it does not sleep. `ENOSYS` before Linux 5.16, or what a filter of system
/// calls answers.
pub fn futex_waitv() -> io::Result<()> {
    let word = AtomicU32::new(0);
    futex::wait_any(&[(&word, 1)], Some(0)).map(drop)
}

/// Makes an io_uring of one entry and closes it. `ENOSYS`: the kernel has none; `EPERM`: it is disabled (`kernel.io_uring_disabled`) or
/// filtered. See [io_uring_setup(2)](https://man7.org/linux/man-pages/man2/io_uring_setup.2.html).
pub fn io_uring() -> io::Result<()> {
    let mut parameters = [0_u64; 15]; // struct io_uring_params: 120 bytes, all of them 0
    // SAFETY: `parameters` is as long as the structure that this call reads and writes.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made it, with O_CLOEXEC, and nobody else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    Ok(())
}

/// A limit of this process; `None` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What holds.
    pub soft: Option<u64>,
    /// Up to what the process may raise it.
    pub hard: Option<u64>,
}

/// What a process has a limit of. See [getrlimit(2)](https://man7.org/linux/man-pages/man2/getrlimit.2.html).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// `RLIMIT_NOFILE`: the number of open descriptors.
    Descriptors,
    /// `RLIMIT_MEMLOCK`: bytes that are locked in memory.
    LockedBytes,
    /// `RLIMIT_CORE`: bytes of a core dump.
    CoreBytes,
    /// `RLIMIT_FSIZE`: bytes of a file.
    FileBytes,
}

/// A limit of this process, now.
pub fn limit(of: Limited) -> Limit {
    let limit = getrlimit(match of {
        Limited::Descriptors => Resource::Nofile,
        Limited::LockedBytes => Resource::Memlock,
        Limited::CoreBytes => Resource::Core,
        Limited::FileBytes => Resource::Fsize,
    });
    Limit { soft: limit.current, hard: limit.maximum }
}

/// Huge pages, as the kernel states it; `None` where it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HugePages {
    /// Whether shared memory gets them where the mount option does not say so: the word of
    /// `/sys/kernel/mm/transparent_hugepage/shmem_enabled` that is in force, such as `never` or `advise`.
    pub shmem: Option<String>,
    /// Pages that are set aside: `HugePages_Total` of `/proc/meminfo`. shmbus uses none of them.
    pub reserved: Option<u64>,
}

/// Reads what the kernel says about huge pages.
pub fn huge_pages() -> HugePages {
    let shmem = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    HugePages {
        shmem: shmem.ok().and_then(|text| chosen(&text)),
        reserved: meminfo
            .lines()
            .find_map(|line| line.strip_prefix("HugePages_Total:"))
            .and_then(|value| value.trim().parse().ok()),
    }
}

/// The word in brackets: `always within_size advise [never] deny force`.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// Which clock the kernel reads, such as `tsc`: anything that the vDSO does not serve makes reading the time a system call. `None` where
/// `/sys` does not tell.
pub fn clock_source() -> Option<String> {
    line("/sys/devices/system/clocksource/clocksource0/current_clocksource")
}

/// Which governor sets the frequency of the first processor, such as `performance`; `None` where none does (as in most virtual machines).
pub fn frequency_governor() -> Option<String> {
    line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
}

/// Whether several threads share a core; `None` where the kernel does not tell.
pub fn smt_active() -> Option<bool> {
    line("/sys/devices/system/cpu/smt/active").map(|text| text == "1")
}

fn line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_answers_and_leaves_no_descriptor() {
        let open = || fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        println!("futex_waitv: {:?}, io_uring: {:?}", futex_waitv(), io_uring());
        for _ in 0..50 {
            _ = io_uring();
        }
        assert!(open() < before + 50, "other tests have a few open at the same time");
        assert!(kernel_release().unwrap().starts_with(|c: char| c.is_ascii_digit()));
    }

    #[test]
    fn the_word_in_brackets_is_the_one_in_force() {
        let text = "always within_size advise [never] deny force\n";
        assert_eq!(chosen(text).as_deref(), Some("never"));
        assert_eq!(chosen("never"), None);
        assert_eq!(chosen("[never"), None);
    }

    #[test]
    fn limits_are_those_of_this_process() {
        let Limit { soft, hard } = limit(Limited::Descriptors);
        assert!(soft.is_some_and(|soft| soft > 2 && hard.is_none_or(|hard| soft <= hard)));
    }
}
