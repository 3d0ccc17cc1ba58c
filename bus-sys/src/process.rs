//! Facts about processes, for people and for sizing. None is a proof of life: that is
//! [`lease`](crate::lease).

use std::io;

/// This process, in its own pid namespace.
/// See [getpid(2)](https://man7.org/linux/man-pages/man2/getpid.2.html).
pub fn pid() -> u32 {
    std::process::id()
}

/// When a process started, in clock ticks since boot: with the pid, a name that is not used again.
/// `None` where the process or `/proc` is not to be seen. For people to read; about 15 us. See
/// [proc_pid_stat(5)](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html), field 22.
pub fn start_time_ticks(pid: u32) -> Option<u64> {
    start_time_in(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 2 is the program's name in parentheses and may hold anything, also `)`, blanks and bytes
/// that are not UTF-8; behind its last parenthesis there are plain numbers.
fn start_time_in(stat: &[u8]) -> Option<u64> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    std::str::from_utf8(&stat[name_end + 1..])
        .ok()?
        .split_ascii_whitespace()
        .nth(22 - 3)?
        .parse()
        .ok()
}

/// On how many processors this thread may run: those of its affinity mask, at least 1. A cgroup's
/// quota of processor time is not looked at. See
/// [sched_getaffinity(2)](https://man7.org/linux/man-pages/man2/sched_getaffinity.2.html).
pub fn cores() -> usize {
    match rustix::thread::sched_getaffinity(None) {
        Ok(mask) => (mask.count() as usize).max(1),
        // A machine of more than 1024 processors: the mask does not fit.
        Err(_) => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// How many descriptors this process may have open, and up to how many it may raise that (`RLIMIT_NOFILE`); `u64::MAX`: any number. A process without
/// privilege may also have no more than the first number under way to others through sockets.
pub fn descriptor_limits() -> (u64, u64) {
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    (limits.current.unwrap_or(u64::MAX), limits.maximum.unwrap_or(u64::MAX))
}

/// Raises the first of [`descriptor_limits`] to `count`, where it is less; children inherit it. `PermissionDenied` above the second.
pub fn raise_descriptor_limit(count: u64) -> io::Result<()> {
    let mut limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limits.current.is_some_and(|current| current < count) {
        limits.current = Some(count);
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limits)?;
    }
    Ok(())
}

/// How many descriptors this process has open. Needs `/proc`.
pub fn descriptors_open() -> io::Result<u64> {
    Ok((std::fs::read_dir("/proc/self/fd")?.count() as u64).saturating_sub(1)) // without the one that reads
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn a_program_name_with_parentheses_and_blanks_does_not_shift_the_fields() {
        let stat =
            b"7 (a) b) (\xff 9) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 2222 23 24\n";
        assert_eq!(start_time_in(stat), Some(2222));
        assert_eq!(start_time_in(b"7 (a) S 4 5"), None);
        assert_eq!(start_time_in(b""), None);
    }

    #[test]
    fn this_process_has_a_start_time_that_stays_and_no_process_has_pid_0() {
        let start = start_time_ticks(pid());
        assert!(start.is_some_and(|ticks| ticks > 0));
        assert_eq!(start_time_ticks(pid()), start);
        assert_eq!(start_time_ticks(0), None);
    }

    #[test]
    fn cores_are_those_of_the_affinity_mask() {
        assert!(cores() >= 1);
        let pinned = std::thread::spawn(|| {
            let mut one = rustix::thread::CpuSet::new();
            one.set(rustix::thread::sched_getcpu());
            rustix::thread::sched_setaffinity(None, &one).unwrap();
            cores()
        });
        assert_eq!(pinned.join().unwrap(), 1);
    }
}
