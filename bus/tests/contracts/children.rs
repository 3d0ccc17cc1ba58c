//! Processes of a test, forked and not executed: what a case does in one, no other test of this program shares.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static HOOK: Once = Once::new();
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// A forked child; killed and reaped when dropped, unless it is reaped already.
pub(crate) struct Child {
    pub(crate) pid: libc::pid_t,
    pub(crate) is_reaped: bool,
}

/// How a child was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Exited(i32),
    Killed(i32),
    Stopped,
}

impl Child {
    /// Forks; the child ends with the result of `work`, or with 101 where it panics.
    pub(crate) fn new(work: impl FnOnce() -> i32) -> Child {
        shmbus_sys::fork::install();
        HOOK.call_once(|| {
            let usual = std::panic::take_hook();
            // In a child not by std's way, whose locks another thread may have had at the fork.
            std::panic::set_hook(Box::new(move |panic| {
                if !IS_CHILD.load(Relaxed) {
                    return usual(panic);
                }
                let text = format!("in a child: {panic}\n");
                // SAFETY: the bytes of `text`, to a descriptor.
                unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
            }));
        });
        // SAFETY: glibc's allocator is fit for use in a child; the child uses no other lock that a thread of the parent can have held.
        let pid = unsafe { libc::fork() };
        assert_ne!(pid, -1, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: it takes numbers only.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            IS_CHILD.store(true, Relaxed);
            let code = catch_unwind(AssertUnwindSafe(work)).unwrap_or(101);
            // SAFETY: it does not return, and runs nothing of the parent's.
            unsafe { libc::_exit(code) };
        }
        Child { pid, is_reaped: false }
    }

    /// Waits until it has ended or is stopped.
    pub(crate) fn wait(&mut self) -> State {
        let mut status = 0;
        // SAFETY: `status` is valid for writes; the child is not reaped, so the pid is its.
        let pid = unsafe { libc::waitpid(self.pid, &raw mut status, libc::WUNTRACED) };
        assert_eq!(pid, self.pid);
        if libc::WIFSTOPPED(status) {
            return State::Stopped;
        }
        self.is_reaped = true;
        match libc::WIFEXITED(status) {
            true => State::Exited(libc::WEXITSTATUS(status)),
            false => State::Killed(libc::WTERMSIG(status)),
        }
    }

    pub(crate) fn signal(&self, signal: i32) {
        assert!(!self.is_reaped);
        // SAFETY: it takes numbers only; the child is not reaped, so the pid is its.
        unsafe { libc::kill(self.pid, signal) };
    }

    /// Kills it, and returns when it is gone.
    pub(crate) fn kill(mut self) {
        self.signal(libc::SIGKILL);
        assert_eq!(self.wait(), State::Killed(libc::SIGKILL));
    }

    /// Its state as the kernel shows it: `R`, `S`, `Z`, ...
    pub(crate) fn letter(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        stat.rsplit(") ").next().unwrap().chars().next().unwrap()
    }

    /// Whether it does nothing, however often one looks.
    pub(crate) fn is_asleep(&self) -> bool {
        (0..40).all(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            self.letter() == 'S'
        })
    }

    /// Waits until it does nothing.
    pub(crate) fn wait_until_asleep(&self) {
        while !self.is_asleep() {
            assert_ne!(self.letter(), 'Z', "it has ended");
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.signal(libc::SIGKILL);
            while self.wait() == State::Stopped {}
        }
    }
}

/// Runs `work` in a child, to its end.
pub(crate) fn in_child(work: impl FnOnce() -> i32) -> i32 {
    match Child::new(work).wait() {
        State::Exited(code) => code,
        state => panic!("{state:?}"),
    }
}

/// Stops the calling process until somebody continues it.
pub(crate) fn stop() {
    // SAFETY: it takes a number.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Says something through a pipe once.
pub(crate) fn tell(mut pipe: &PipeWriter) {
    pipe.write_all(&[1]).unwrap();
}

/// Waits for it; `false` where all who could say it are gone.
pub(crate) fn is_told(mut pipe: &PipeReader) -> bool {
    pipe.read(&mut [0]).unwrap() == 1
}

/// Closes a descriptor that a value of this process still has, as if it were not there: in a child of one case only.
pub(crate) fn close(fd: &impl AsRawFd) {
    // SAFETY: the value is forgotten, or never used, by this child.
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// A page of zeros that children share.
pub(crate) fn shared_page() -> *mut u8 {
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, at an address that the kernel chooses; it is never unmapped.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    page.cast()
}
