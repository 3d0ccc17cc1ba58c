//! The Linux facilities that `shmbus` stands on: one file per facility, typed, without policy.
//! Nothing here knows of rings, topics or messages.
//!
//! | File         | What it holds                                                             |
//! |--------------|---------------------------------------------------------------------------|
//! | `clock`      | the monotonic and the real-time clock in nanoseconds, sleep until a time  |
//! | `shm`        | files in memory: create, open, publish, allocate, seal                    |
//! | `map`        | the only place that maps memory, besides the two pages of a `life`        |
//! | `exit`       | what is done when the process ends in order                               |
//! | `futex`      | sleep on a 32-bit word that processes share, and wake its sleepers        |
//! | `kept`       | descriptors that are closed only if they still are those of their file    |
//! | `lease`      | proof of life: a lock on one byte of a file, which ends with its holder   |
//! | `lock_list`  | who holds a lease, for those who may not open its file: `/proc/locks`       |
//! | `life`       | a word in a file that the kernel marks when its thread ends               |
//! | `fork`       | what a child that was forked and did not exec must not keep               |
//! | `membarrier` | a memory barrier on the running threads of all registered processes       |
//! | `process`    | processes as `/proc` tells of them, number of cores                       |
//! | `record`     | shared and exclusive locks on ranges of a file, with deadlines             |
//! | `probe`      | what this machine offers: tried, or read where the kernel states it       |
//! | `robust`     | the kernel marks the lock word of a thread that dies, and wakes one       |
//! | `spawn`      | what a child is and has when it begins, beyond what `Command` can say     |
//! | `pidfd`      | a process by descriptor                                                   |
//! | `signal`     | signals that are read from a descriptor                                   |
//! | `prefetch`   | hints to the cache                                                         |
//! | `ready`      | sleep until one of several descriptors is ready                           |
//! | `unix`       | sockets that pass descriptors and say who is at the other end             |
//!
//! Errors are [`std::io::Error`] with the number the kernel gave; where this crate refuses by
//! itself, the function says so. Times are nanoseconds of `CLOCK_MONOTONIC` unless the name says
//! otherwise. A function that takes a `name` below a directory wants a single path component: a `/`
//! in it is not refused here, and `O_NOFOLLOW` looks at the last component only.

#![warn(missing_docs)]

pub mod clock;
pub mod exit;
pub mod fork;
pub mod futex;
pub mod kept;
pub mod lease;
pub mod life;
pub mod lock_list;
pub mod map;
pub mod membarrier;
pub mod pidfd;
pub mod prefetch;
pub mod probe;
pub mod process;
pub mod ready;
pub mod record;
pub mod robust;
pub mod shm;
pub mod signal;
pub mod spawn;
pub mod unix;

/// Whether the same call may succeed in a moment, with nothing done about it: the process or the machine had too few descriptors or locks or too
/// little memory, or a signal came. Nobody concludes anything lasting from such an error.
pub fn is_passing(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [
        Errno::INTR,
        Errno::AGAIN,
        Errno::NOMEM,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOLCK,
    ];
    Errno::from_io_error(error).is_some_and(|error| passing.contains(&error))
}
