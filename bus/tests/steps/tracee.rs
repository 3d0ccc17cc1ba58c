//! A process under `ptrace(2)`: it stands at a mark, and goes on by single instructions.
#![allow(unsafe_code)] // ptrace, and the breakpoint that is the mark

use std::io;
use std::mem::offset_of;
use std::ptr::null_mut;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions};

use crate::processes::Process;

const RIP: usize = offset_of!(libc::user_regs_struct, rip);
const BREAKPOINT: i64 = 0xcc;

static FIXED: AtomicBool = AtomicBool::new(false);

/// What a process came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It stands before an instruction.
    Stands,
    /// It stands at a mark.
    Mark,
    /// It sleeps in the kernel, in a system call that has not come back.
    Asleep,
}

/// Lets the parent of the calling process trace it. Where that is not allowed, the test fails.
pub(crate) fn trace_me() {
    request(libc::PTRACE_TRACEME, 0, 0, 0);
}

/// Begin and end of an operation: the process stands here until its tracer lets it go on.
#[inline(never)]
pub(crate) fn mark() {
    // SAFETY: a breakpoint changes nothing; without a tracer it ends the process.
    unsafe { core::arch::asm!("int3") };
}

/// Has programs that are started from here on loaded at the same addresses each time, where the kernel allows it: a place that one process
/// came to is then one that the next comes to.
pub(crate) fn load_at_fixed_addresses() {
    // SAFETY: changes a setting of the process, for the programs that it executes.
    let before = unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) };
    FIXED.store(before >= 0, Relaxed);
    if before < 0 {
        println!("addresses are random: every process is stepped through from the mark on");
    }
}

/// Whether they are.
pub(crate) fn addresses_are_fixed() -> bool {
    FIXED.load(Relaxed)
}

fn request(what: libc::c_uint, pid: i32, address: usize, data: i64) {
    // SAFETY: the requests that this file makes read and write the tracee, and take no pointer of this process.
    let done = unsafe { libc::ptrace(what, pid, address, data) };
    assert!(done >= 0, "ptrace is not allowed here, or failed: {}", io::Error::last_os_error());
}

fn peek(what: libc::c_uint, pid: i32, address: usize) -> i64 {
    // SAFETY: as above. The word may be -1, so that only a change of errno would tell; the tracee stands, so that it does not fail.
    unsafe { libc::ptrace(what, pid, address, null_mut::<libc::c_void>()) }
}

/// A traced process. Dropped, it is killed.
pub(crate) struct Tracee {
    process: Process,
    pid: i32,
    /// Where it stands when it is at a mark.
    mark: usize,
    /// Where it stands.
    at: usize,
    may_sleep: bool,
}

impl Tracee {
    /// Waits until `process` is at its first mark.
    pub(crate) fn new(process: Process, may_sleep: bool) -> Tracee {
        let pid = process.pid().as_raw_nonzero().get();
        let mut tracee = Tracee { process, pid, mark: 0, at: 0, may_sleep };
        while tracee.wait() == Event::Asleep {} // waits for an answer
        request(libc::PTRACE_SETOPTIONS, pid, 0, libc::PTRACE_O_EXITKILL.into());
        tracee.mark = tracee.at;
        tracee
    }

    /// The address of the instruction that comes next.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Whether the next instruction is `syscall`.
    pub(crate) fn is_at_a_system_call(&self) -> bool {
        peek(libc::PTRACE_PEEKTEXT, self.pid, self.at) & 0xffff == 0x050f
    }

    /// Whether the next instruction is one of the system calls that sleep, or wake.
    pub(crate) fn is_at_a_futex(&self) -> bool {
        const RAX: usize = offset_of!(libc::user_regs_struct, rax);
        let number = peek(libc::PTRACE_PEEKUSER, self.pid, RAX);
        [libc::SYS_futex, libc::SYS_futex_waitv].contains(&number) && self.is_at_a_system_call()
    }

    /// One instruction. One that is repeated counts once.
    pub(crate) fn step(&mut self) -> Event {
        let before = self.at;
        loop {
            request(libc::PTRACE_SINGLESTEP, self.pid, 0, 0);
            let event = self.wait();
            if event != Event::Stands || self.at != before {
                return event;
            }
        }
    }

    /// To the next mark.
    pub(crate) fn run(&mut self) -> Event {
        request(libc::PTRACE_CONT, self.pid, 0, 0);
        self.wait()
    }

    /// Has it stand when it comes to `address`; [`Tracee::clear`] takes that back. What stood there.
    pub(crate) fn stop_at(&mut self, address: usize) -> i64 {
        let word = peek(libc::PTRACE_PEEKTEXT, self.pid, address);
        request(libc::PTRACE_POKETEXT, self.pid, address, word & !0xff | BREAKPOINT);
        word
    }

    /// Puts back what stood at `address`; if it stands there, it does so before the instruction.
    pub(crate) fn clear(&mut self, address: usize, word: i64) {
        request(libc::PTRACE_POKETEXT, self.pid, address, word);
        if self.at == address + 1 {
            request(libc::PTRACE_POKEUSER, self.pid, RIP, address as i64);
            self.at = address;
        }
    }

    /// Waits until it stands, or sleeps.
    pub(crate) fn wait(&mut self) -> Event {
        let pid = WaitId::Pid(Pid::from_raw(self.pid).expect("a process"));
        let mut looks = 0;
        let status = loop {
            let how = if self.may_sleep { WaitIdOptions::NOHANG } else { WaitIdOptions::empty() };
            // Not `EXITED`: who ends is reaped elsewhere, and refused here.
            match rustix::process::waitid(pid.clone(), WaitIdOptions::STOPPED | how) {
                Ok(Some(status)) => break status,
                Ok(None) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => panic!("the process has ended, where it was to stand"),
            }
            looks += 1;
            std::thread::yield_now();
            if looks > 200 {
                if self.process.is_asleep() {
                    return Event::Asleep;
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        };
        assert_eq!(status.trapping_signal(), Some(libc::SIGTRAP), "another signal has come");
        self.at = peek(libc::PTRACE_PEEKUSER, self.pid, RIP) as usize;
        if self.at == self.mark { Event::Mark } else { Event::Stands }
    }

    /// SIGKILL, where it stands or sleeps.
    pub(crate) fn kill(self) {
        self.process.kill();
    }

    /// Is not traced any more, goes on, and comes to its end.
    pub(crate) fn let_go(self) {
        request(libc::PTRACE_DETACH, self.pid, 0, 0);
        self.process.done();
    }
}
