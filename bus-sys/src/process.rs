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
    stat(pid).map(|stat| stat.start_ticks)
}

/// What `/proc/PID/stat` says of a process, in the pid namespace that `/proc` was mounted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its number.
    pub pid: u32,
    /// Its parent; 0 outside the namespace.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// Its session.
    pub session: u32,
    /// Device of its controlling terminal; 0: it has none.
    pub terminal: i32,
    /// All its threads have ended, and its parent has not reaped it.
    pub has_ended: bool,
    /// As [`start_time_ticks`].
    pub start_ticks: u64,
}

/// Of one process. `None`: it is gone, or not to be seen.
pub fn stat(pid: u32) -> Option<Stat> {
    read_stat(pid, &std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Of all processes that are to be seen, at no single moment: some that are forked meanwhile may be missing.
pub fn all() -> io::Result<Vec<Stat>> {
    let entries = std::fs::read_dir("/proc")?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(pids.filter_map(stat).collect())
}

/// Whether this process has a controlling terminal: after a hang-up it has none. `None`: `/proc` is not to be seen.
pub fn has_terminal() -> Option<bool> {
    stat(pid()).map(|stat| stat.terminal != 0)
}

/// Whether this process gets the children of others that have ended before them: as process 1 of its pid namespace, or as a subreaper. See
/// [PR_SET_CHILD_SUBREAPER](https://man7.org/linux/man-pages/man2/PR_SET_CHILD_SUBREAPER.2const.html).
pub fn adopts_orphans() -> bool {
    pid() == 1 || rustix::process::child_subreaper().is_ok_and(|subreaper| subreaper.is_some())
}

/// Field 2 is the program's name in parentheses and may hold anything, also `)`, blanks and bytes
/// that are not UTF-8; after its last parenthesis there are a letter and plain numbers.
fn read_stat(pid: u32, stat: &[u8]) -> Option<Stat> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let text = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied(); // numbered as in the manual
    let number = |at: usize| field(at)?.parse::<u32>().ok();
    // The first thread of a process may be a zombie while others run: those count.
    let is_alone = field(20)?.parse::<i64>().ok()? <= 1;
    Some(Stat {
        pid,
        parent: number(4)?,
        group: number(5)?,
        session: number(6)?,
        terminal: field(7)?.parse().ok()?,
        has_ended: matches!(field(3)?, "Z" | "X" | "x") && is_alone,
        start_ticks: field(22)?.parse().ok()?,
    })
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
        let line =
            b"7 (a) b) (\xff 9) Z 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 1 21 2222 23 24\n";
        let stat = read_stat(7, line).unwrap();
        assert_eq!(
            (stat.pid, stat.parent, stat.group, stat.session, stat.terminal),
            (7, 4, 5, 6, 7)
        );
        assert_eq!((stat.has_ended, stat.start_ticks), (true, 2222));
        assert_eq!(read_stat(7, b"7 (a) S 4 5"), None);
        assert_eq!(read_stat(7, b""), None);
    }

    #[test]
    fn this_process_is_among_all_and_has_not_ended() {
        let all = all().unwrap();
        let own = all.iter().find(|stat| stat.pid == pid()).unwrap();
        assert!(!own.has_ended && own.parent != 0);
        assert_eq!(has_terminal(), Some(own.terminal != 0));
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
