//! The process under test, and others that are killed beside it.

use std::sync::atomic::Ordering::SeqCst;

use shmbus::{Publisher, Topic};
use shmbus_sys::clock;

use crate::guarded;
use crate::message::Message;
use crate::processes::Role;
use crate::tracee::{mark, trace_me};
use crate::world::{CONFIRMED, READY, SEEN, TOPIC};

/// The process under test.
pub(crate) struct Victim<'a> {
    role: &'a Role,
    pub(crate) topic: Topic<Message>,
    feed: u64,
    counter: u64,
}

impl Victim<'_> {
    pub(crate) fn new(role: &Role) -> Victim<'_> {
        let [feed] = role.numbers();
        trace_me();
        Victim { role, topic: open(role), feed, counter: 0 }
    }

    /// The next message that it publishes.
    pub(crate) fn message(&self) -> Message {
        Message::new(self.feed, self.counter)
    }

    /// One more was published.
    pub(crate) fn confirm(&mut self) {
        self.counter += 1;
        self.role.board.word(CONFIRMED).store(self.counter, SeqCst);
    }

    /// Its clock stands from here on, at a time that nobody in this topic has come to: whether it looks around, and how often, is not decided by how long
    /// its steps take. It sleeps until it is woken.
    pub(crate) fn stop_the_clock(&self) {
        const STEP_NS: u64 = 1_000_000_000; // a round's time is over in the next one
        let number = self.feed + 1000;
        clock::stand_at_ns(clock::monotonic_ns() + number * STEP_NS);
    }

    pub(crate) fn publish(&mut self, publisher: &mut Publisher<Message>) {
        publisher.publish(&self.message()).unwrap();
        self.confirm();
    }

    /// Publishes until the next sequence has place `place` in its block.
    pub(crate) fn publish_to(&mut self, publisher: &mut Publisher<Message>, place: u64) {
        while publisher.sequence() % self.topic.info().block_len != place {
            self.publish(publisher);
        }
    }

    /// It has received this, which is looked at only now.
    pub(crate) fn seen(&self, sequence: u64, message: &Message) {
        assert!(message.is_whole(), "torn: sequence {sequence}: {message:?}");
        for (word, value) in [(1, message.feed), (2, message.counter), (0, sequence + 1)] {
            self.role.board.word(SEEN + word).store(value, SeqCst);
        }
    }
}

/// Does `operation` between two marks.
pub(crate) fn between_marks<R>(operation: impl FnOnce() -> R) -> R {
    mark();
    let done = operation();
    mark();
    done
}

pub(crate) fn open(role: &Role) -> Topic<Message> {
    match guarded::socket(role.directory.path()) {
        socket if socket.exists() => Topic::connect(&socket, TOPIC).unwrap(),
        _ => Topic::open_in(&role.directory, TOPIC).unwrap(),
    }
}

/// Says that a bystander is ready, and waits to be killed.
pub(crate) fn ready(role: &Role) -> ! {
    role.board.word(READY).store(1, SeqCst);
    loop {
        std::thread::park();
    }
}
