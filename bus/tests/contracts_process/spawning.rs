//! std's `Command` and `Child`. With `pre_exec` it forks and execs; without, it calls `posix_spawn`, which is a vfork.
#![allow(unsafe_code)] // pre_exec, and system calls in it

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, test_kill_process, waitid,
    waitpid,
};
use shmbus_sys::signal::Signals;
use shmbus_sys::spawn;

use crate::Plan;

fn no_child_remains() -> bool {
    waitpid(None, WaitOptions::NOHANG).err() == Some(rustix::io::Errno::CHILD)
}

/// Without it, `Command` takes `posix_spawn`.
fn forked(command: &mut Command) -> &mut Command {
    // SAFETY: it does nothing.
    unsafe { command.pre_exec(|| Ok(())) }
}

pub(crate) fn a_command_hands_over_arguments_and_environment_byte_for_byte_and_a_nul_is_seen_at_spawn(
    _: &Plan,
) {
    let odd = OsStr::from_bytes(b"\xff blank 'quote' $HOME \n *");
    let script = "printf '%s\\0%s\\0%s' \"$1\" \"$ODD\" \"$(pwd)\"";
    for use_fork in [false, true] {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(odd).env("ODD", odd).current_dir("/proc");
        if use_fork {
            forked(&mut command);
        }
        let output = command.output().unwrap();
        assert_eq!(output.stdout, [odd.as_bytes(), b"\0", odd.as_bytes(), b"\0/proc"].concat());
    }
    let mut command = Command::new("true");
    command.arg("a\0b"); // no error here
    assert_eq!(command.spawn().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert!(no_child_remains());
}

pub(crate) fn a_spawn_that_fails_has_run_code_in_a_child_that_is_gone(_: &Plan) {
    // What runs before exec writes its pid into a pipe, and then fails itself, or exec does.
    for (program, fails, error) in
        [("true", true, libc::EXDEV), ("/no/such/program", false, libc::ENOENT)]
    {
        let (mut reader, writer) = io::pipe().unwrap();
        let writer = OwnedFd::from(writer);
        let number = writer.as_raw_fd();
        let mut command = Command::new(program);
        let run = move || {
            let pid = std::process::id().to_ne_bytes();
            // SAFETY: four bytes, to a descriptor that the parent keeps open until the child is gone.
            unsafe { libc::write(number, pid.as_ptr().cast(), 4) };
            if fails { Err(io::Error::from_raw_os_error(libc::EXDEV)) } else { Ok(()) }
        };
        // SAFETY: system calls only.
        unsafe { command.pre_exec(run) };
        assert_eq!(command.spawn().unwrap_err().raw_os_error(), Some(error));
        drop(writer);
        let mut ran = Vec::new();
        reader.read_to_end(&mut ran).unwrap();
        let ran = u32::from_ne_bytes(ran.try_into().expect("one child has run"));
        assert_ne!(ran, std::process::id());
        assert!(no_child_remains(), "and was reaped");
    }
    // By `posix_spawn`, with nothing of ours in between.
    for (program, error) in
        [("/no/such/program", libc::ENOENT), ("/proc/self/status", libc::EACCES)]
    {
        assert_eq!(Command::new(program).spawn().unwrap_err().raw_os_error(), Some(error));
        assert!(no_child_remains());
    }
    let gone = Command::new("true").current_dir("/no/such/folder").spawn();
    assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(no_child_remains());
}

pub(crate) fn a_spawn_that_succeeds_does_not_prove_that_the_program_ran(_: &Plan) {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = place.path().join("ran");
    let mut command = Command::new("touch");
    command.arg(&file);
    let die = || {
        // SAFETY: numbers only.
        unsafe { libc::raise(libc::SIGKILL) };
        Ok(())
    };
    // SAFETY: system calls only.
    unsafe { command.pre_exec(die) };
    let mut child = command.spawn().expect("it ended before exec, and that is no error");
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    assert!(!file.exists());
}

pub(crate) fn a_file_that_is_no_program_is_an_error_or_a_script_depending_on_how_it_is_started(
    _: &Plan,
) {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = |name: &str, text: &str| {
        let path = place.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let start = |path: &Path, fork: bool| {
        let mut command = Command::new(path);
        if fork {
            forked(&mut command);
        }
        command.spawn().map(|mut child| child.wait().unwrap().code())
    };
    // Without `#!`: execvp gives it to a shell, posix_spawn does not.
    let bare = file("bare", "exit 5\n");
    assert_eq!(start(&bare, false).unwrap_err().raw_os_error(), Some(libc::ENOEXEC));
    assert_eq!(start(&bare, true).unwrap(), Some(5));
    // The interpreter is what is not found, and the error does not say so.
    let script = file("script", "#!/no/such/interpreter\n");
    for fork in [false, true] {
        assert_eq!(start(&script, fork).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
    assert!(no_child_remains());
}

/// A child that has ended and is not reaped.
fn zombie() -> std::process::Child {
    let child = Command::new("true").spawn().unwrap();
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(Pid::from_child(&child)), look).unwrap();
    child
}

fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

pub(crate) fn killing_a_child_that_has_ended_is_no_error(_: &Plan) {
    let mut child = zombie();
    child.kill().expect("ended, not reaped");
    assert!(child.wait().unwrap().success(), "and its status stays what it was");
    child.kill().expect("reaped: nothing is sent to anybody");
    assert!(child.wait().unwrap().success());
    // Killing only asks: the child is there until it is waited for.
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    child.kill().unwrap();
    assert!(state(child.id()).is_some());
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
}

pub(crate) fn a_dropped_child_goes_on_and_then_stays_as_a_zombie(_: &Plan) {
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    let (pid, id) = (Pid::from_child(&child), child.id());
    drop(child);
    assert!(test_kill_process(pid).is_ok());
    assert_ne!(state(id), Some('Z'), "not killed");
    kill_process(pid, Signal::KILL).unwrap();
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(pid), look).unwrap();
    assert_eq!(state(id), Some('Z'), "not reaped");
    waitpid(Some(pid), WaitOptions::empty()).unwrap();
    assert_eq!(state(id), None);
    // Standard input is what a drop does close.
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

pub(crate) fn wait_gives_the_status_each_time_and_leaves_no_zombie(_: &Plan) {
    let run = |script: &str| {
        let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(child.wait().unwrap(), status);
        assert_eq!(child.try_wait().unwrap(), Some(status));
        assert_eq!(state(child.id()), None);
        (status.code(), status.signal(), status.success())
    };
    assert_eq!(run("exit 0"), (Some(0), None, true));
    assert_eq!(run("exit 3"), (Some(3), None, false));
    assert_eq!(run("exit 259"), (Some(3), None, false), "eight bits of it");
    assert_eq!(run("kill -TERM $$"), (None, Some(15), false));
    assert_eq!(run("exit 143"), (Some(143), None, false), "a status, not a signal");
    // It waits with standard input closed, or it would wait for ever.
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(no_child_remains());
}

pub(crate) fn a_child_inherits_what_is_blocked_and_ignored_unless_it_is_reset(_: &Plan) {
    // On a thread of its own: its mask ends with it.
    let seen = std::thread::spawn(|| {
        Signals::take(&[Signal::USR1]).unwrap();
        // SAFETY: a number and a constant; it is undone below.
        let before = unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
        let seen = [0, 1, 2].map(|how| {
            let mut command = Command::new("grep");
            command.args(["-E", "^Sig(Blk|Ign):", "/proc/self/status"]);
            match how {
                0 => {}
                1 => drop(forked(&mut command)),
                _ => spawn::reset_signals(&mut command),
            }
            let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
            let bits = text.lines().map(|line| u64::from_str_radix(line[7..].trim(), 16).unwrap());
            let bit = |bits: u64, signal: i32| bits >> (signal - 1) & 1;
            let bits: Vec<u64> = bits.collect();
            (bit(bits[0], libc::SIGUSR1), bit(bits[1], libc::SIGUSR2))
        });
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGUSR2, before) };
        seen
    });
    assert_eq!(seen.join().unwrap(), [(1, 1), (1, 1), (0, 0)]);
}
