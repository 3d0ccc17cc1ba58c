//! A child made by `fork` without exec, for tests of what such a child has and has not.

use std::io::{PipeReader, Read};
use std::os::fd::AsRawFd;

/// A forked child; killed and reaped when dropped.
pub(crate) struct Forked {
    pub(crate) pid: libc::pid_t,
    from_child: PipeReader,
}

impl Forked {
    /// Forks. The child runs `work`, tells its result, and then does nothing until it is killed.
    /// Other threads of the test may hold any lock at that moment, also the allocator's: `work`
    /// makes system calls only, and neither panics nor allocates.
    pub(crate) fn new(work: impl FnOnce() -> bool) -> Forked {
        shmbus_sys::fork::install();
        let (from_child, to_parent) = std::io::pipe().unwrap();
        // SAFETY: the child calls async-signal-safe functions only, as asked above.
        let pid = unsafe { libc::fork() };
        assert_ne!(pid, -1, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: it takes numbers only.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let result = [u8::from(work())];
            // SAFETY: one byte of `result`, to a descriptor that is open.
            unsafe { libc::write(to_parent.as_raw_fd(), result.as_ptr().cast(), 1) };
            loop {
                // SAFETY: it takes nothing.
                unsafe { libc::pause() };
            }
        }
        Forked { pid, from_child }
    }

    /// Waits for the result of the child's work. A child that died without one is a failure of the
    /// test.
    pub(crate) fn result(&mut self) -> bool {
        let mut byte = [0];
        self.from_child.read_exact(&mut byte).expect("the child died in its work");
        byte[0] == 1
    }

    /// Sends SIGSTOP, and returns when the child is stopped.
    #[allow(dead_code)] // not every file that has children stops them
    pub(crate) fn stop(&self) {
        let mut status = 0;
        // SAFETY: it takes numbers only; the child is not reaped, so the pid is its.
        unsafe { libc::kill(self.pid, libc::SIGSTOP) };
        // SAFETY: `status` is valid for writes.
        let pid = unsafe { libc::waitpid(self.pid, &raw mut status, libc::WUNTRACED) };
        assert!(pid == self.pid && libc::WIFSTOPPED(status));
    }

    /// Sends SIGKILL, and returns when the child is gone.
    #[allow(dead_code)] // dropping it is the same
    pub(crate) fn kill(self) {}
}

impl Drop for Forked {
    fn drop(&mut self) {
        // SAFETY: it takes numbers only; the child is not reaped, so the pid is its.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        // SAFETY: a null pointer asks for no status.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
    }
}
