//! A memory barrier on all running threads of all registered processes, asked for by one side. With
//! it the other side (a publisher) needs no fence of its own, only a compiler fence. See
//! [membarrier(2)](https://man7.org/linux/man-pages/man2/membarrier.2.html).

use std::io;

use rustix::thread::{MembarrierCommand, MembarrierQuery};

/// What this kernel (and the filter of system calls around this process) lets one do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Support {
    /// [`global_expedited`] works.
    pub global_expedited: bool,
    /// [`register_global_expedited`] works.
    pub register_global_expedited: bool,
}

/// Asks the kernel. Never fails: an unknown or forbidden system call supports nothing.
pub fn query() -> Support {
    let supported = rustix::thread::membarrier_query();
    Support {
        global_expedited: supported.contains(MembarrierQuery::GLOBAL_EXPEDITED),
        register_global_expedited: supported.contains(MembarrierQuery::REGISTER_GLOBAL_EXPEDITED),
    }
}

/// Lets [`global_expedited`] of any process reach the threads of this one, from now on. Lasts until
/// exec or exit; a forked child inherits it. More than once is as once.
pub fn register_global_expedited() -> io::Result<()> {
    Ok(rustix::thread::membarrier(MembarrierCommand::RegisterGlobalExpedited)?)
}

/// On return, every running thread of every registered process has passed a full memory barrier
/// since the call, and so has this thread. Interrupts the processors they run on: 2-24 us measured.
/// Needs no registration of the caller.
pub fn global_expedited() -> io::Result<()> {
    Ok(rustix::thread::membarrier(MembarrierCommand::GlobalExpedited)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_to_be_supported_works_and_the_rest_is_refused() {
        let support = query();
        println!("membarrier: {support:?}");
        assert_eq!(register_global_expedited().is_ok(), support.register_global_expedited);
        assert_eq!(register_global_expedited().is_ok(), support.register_global_expedited);
        assert_eq!(global_expedited().is_ok(), support.global_expedited);
    }
}
