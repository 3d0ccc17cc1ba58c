//! Instructions of one operation, counted by single steps of a child: the same on a busy machine as on an idle one.
//!
//! ```text
//! cargo bench -p shmbus-bench --bench instructions [-- NAME]
//! ```
//!
//! Prints a table and fails where a figure is more than a tenth above that in `docs/benchmarks-in-process.md`. A system call counts as one.
#![allow(unsafe_code)] // ptrace(2)

use std::hint::black_box;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use shmbus::{Delivery, Directory, Publishers, Start, Subscriber, Topic, TopicOptions, Wake};

/// Operations that are counted: a whole number of blocks.
const COUNT: u64 = 256;
const ATTACHED: u64 = 16;

type Message = [u64; 6];
type Operation = fn(&Directory);

/// In the order of the table in `docs/benchmarks-in-process.md`.
const OPERATIONS: [(&str, Operation); 16] = [
    ("publish", |directory| publish(directory, &options())),
    ("publish, a fence", |directory| {
        publish(directory, &TopicOptions { wake: Wake::Fence, ..options() });
    }),
    ("publish, with the time", |directory| {
        publish(directory, &TopicOptions { timestamp: true, ..options() });
    }),
    ("publish, each opens a block", |directory| {
        publish(directory, &TopicOptions { depth: 4, ..options() });
    }),
    ("publish shared", |directory| {
        publish(directory, &TopicOptions { publishers: Publishers::Shared(4), ..options() });
    }),
    ("publish [u8] of 48", publish_bytes),
    ("publish_all of 256", publish_all),
    ("loan + commit", |directory| loan(directory, &options())),
    ("loan + commit shared", |directory| {
        loan(directory, &TopicOptions { publishers: Publishers::Shared(4), ..options() });
    }),
    ("try_receive", |directory| receive(directory, Delivery::Lossy)),
    ("try_receive, reliable", |directory| receive(directory, Delivery::Reliable)),
    ("receive", receive_waiting),
    ("try_receive, nothing there", receive_nothing),
    ("batch", batch),
    ("try_receive + hold + drop", hold),
    (ATTACH, attach),
];

const ATTACH: &str = "attach a subscriber + leave";
const DOCUMENT: &str = include_str!("../../docs/benchmarks-in-process.md");
/// Counted here, on x86-64.
const COMPARED: bool = cfg!(target_arch = "x86_64");

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let wanted = arguments.next();
    if arguments.next().is_some() {
        return perform(&wanted.expect("a name"));
    }
    let mut all_hold = true;
    println!("| operation | instructions |\n|---|---|");
    for (name, _) in OPERATIONS {
        if wanted.as_ref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        let times = if name == ATTACH { ATTACHED } else { COUNT };
        let counted = count(name) as f64 / times as f64;
        let holds = !COMPARED || stored(name).is_some_and(|stored| counted <= 1.1 * stored);
        let remark = if holds { "" } else { "   more than stored" };
        println!("| {name} | {counted:.1} |{remark}");
        all_hold &= holds;
    }
    if all_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The figure of the document, whose rows begin as those that are printed.
fn stored(name: &str) -> Option<f64> {
    let row = DOCUMENT.lines().find_map(|line| line.strip_prefix(&format!("| {name} | ")))?;
    row.split(' ').next()?.parse().ok()
}

/// Instructions between the two markers of a process that performs `name`.
fn count(name: &str) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "perform"]);
    // SAFETY: ptrace(2) is a system call and may be made between fork and exec.
    unsafe { command.pre_exec(|| traced(libc::PTRACE_TRACEME, 0)) };
    let mut child = command.spawn().unwrap();
    let pid = child.id() as libc::pid_t;
    while stop(pid) != libc::SIGSTOP {
        traced(libc::PTRACE_CONT, pid).unwrap(); // it has come to its exec
    }
    let mut steps = 0;
    loop {
        traced(libc::PTRACE_SINGLESTEP, pid).unwrap();
        if stop(pid) == libc::SIGSTOP {
            break;
        }
        steps += 1;
    }
    traced(libc::PTRACE_CONT, pid).unwrap();
    assert!(child.wait().unwrap().success(), "{name} failed");
    steps
}

/// The signal with which `pid` has stopped, once it has.
fn stop(pid: libc::pid_t) -> libc::c_int {
    let mut status = 0;
    // SAFETY: `status` may be written.
    let stopped = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert!(stopped == pid && libc::WIFSTOPPED(status), "the child ended: {status:#x}");
    libc::WSTOPSIG(status)
}

fn traced(request: libc::c_uint, pid: libc::pid_t) -> std::io::Result<()> {
    // SAFETY: none of these requests reads or writes memory of this process.
    match unsafe { libc::ptrace(request, pid, 0, 0) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Stops, for the parent to begin or to end counting.
fn marker() {
    // SAFETY: no handler is called, and a parent is there that goes on with this process.
    unsafe { libc::raise(libc::SIGSTOP) };
}

fn perform(name: &str) -> ExitCode {
    let (_, operation) =
        OPERATIONS.iter().find(|(known, _)| *known == name).expect("one of the operations");
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    operation(&Directory::at(scratch.path()).unwrap());
    ExitCode::SUCCESS
}

/// Does it `COUNT` times, between the markers.
#[inline(always)]
fn counted(mut operation: impl FnMut()) {
    marker();
    for _ in 0..COUNT {
        operation();
    }
    marker();
}

fn options() -> TopicOptions {
    TopicOptions { depth: 4096, ..Default::default() }
}

fn create(directory: &Directory, options: &TopicOptions) -> Topic<Message> {
    Topic::create_in(directory, "bench", options).unwrap()
}

fn publish(directory: &Directory, options: &TopicOptions) {
    let mut publisher = create(directory, options).publisher().unwrap();
    counted(|| {
        publisher.publish(black_box(&[7; 6])).unwrap();
    });
}

fn publish_bytes(directory: &Directory) {
    let topic = Topic::<[u8]>::create_in(directory, "bench", &options()).unwrap();
    let mut publisher = topic.publisher().unwrap();
    counted(|| {
        publisher.publish(black_box(&[7; 48])).unwrap();
    });
}

fn publish_all(directory: &Directory) {
    let mut publisher = create(directory, &options()).publisher().unwrap();
    let messages = [[7; 6]; COUNT as usize];
    marker();
    publisher.publish_all(black_box(&messages)).unwrap();
    marker();
}

fn loan(directory: &Directory, options: &TopicOptions) {
    let mut publisher = create(directory, options).publisher().unwrap();
    counted(|| {
        let mut loan = publisher.loan().unwrap();
        *loan = *black_box(&[7; 6]);
        loan.commit().unwrap();
    });
}

/// A subscriber of a topic, in front of more messages than are counted.
fn before_messages(directory: &Directory, delivery: Delivery) -> Subscriber<Message> {
    let topic = create(directory, &options());
    let mut publisher = topic.publisher().unwrap();
    for i in 0..2 * COUNT {
        publisher.publish(&[i; 6]).unwrap();
    }
    topic.subscriber_from(delivery, Start::Oldest).unwrap()
}

fn receive(directory: &Directory, delivery: Delivery) {
    let mut subscriber = before_messages(directory, delivery);
    counted(|| {
        black_box(&*subscriber.try_receive().unwrap().unwrap());
    });
}

fn receive_waiting(directory: &Directory) {
    let mut subscriber = before_messages(directory, Delivery::Lossy);
    counted(|| {
        black_box(&*subscriber.receive().unwrap());
    });
}

fn receive_nothing(directory: &Directory) {
    let mut subscriber = create(directory, &options()).subscriber(Delivery::Lossy).unwrap();
    counted(|| assert!(subscriber.try_receive().unwrap().is_none()));
}

fn batch(directory: &Directory) {
    let mut subscriber = before_messages(directory, Delivery::Lossy);
    let mut left = COUNT as usize;
    marker();
    while left > 0 {
        let batch = subscriber.try_receive_batch().unwrap().unwrap();
        batch.take(left).for_each(|message| {
            black_box(&*message);
            left -= 1;
        });
    }
    marker();
}

fn hold(directory: &Directory) {
    let mut subscriber = before_messages(directory, Delivery::Lossy);
    counted(|| drop(black_box(subscriber.try_receive().unwrap().unwrap().hold().unwrap())));
}

fn attach(directory: &Directory) {
    let topic = create(directory, &options());
    marker();
    for _ in 0..ATTACHED {
        drop(topic.subscriber(Delivery::Reliable).unwrap());
    }
    marker();
}
