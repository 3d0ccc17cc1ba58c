//! What an operation of a participant is, and what it is like.

use crate::world::World;

/// An operation of a participant.
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    /// The role of the process.
    pub(crate) role: &'static str,
    /// One of many publishers' topic.
    pub(crate) shared: bool,
    /// A guarded topic's.
    pub(crate) guarded: bool,
    /// It is, or wants to be, the only publisher.
    pub(crate) takes_place: bool,
    /// Messages that it publishes between the marks.
    pub(crate) in_hand: u64,
    /// It may hold publishers up while it stands.
    pub(crate) holds_up: bool,
    pub(crate) may_sleep: bool,
    /// Sequences are revoked also where it is to be killed.
    pub(crate) revoked: bool,
    /// Whoever lives keeps its sequence, however long it stands.
    pub(crate) patient: bool,
    /// Others come while it stands, and take all entries.
    pub(crate) crowded: bool,
    /// Who is in the way leaves while it stands, and another one takes its entry.
    pub(crate) replaced: bool,
    /// A subscriber sleeps, and is to be woken.
    pub(crate) wakes: bool,
    /// A subscriber that may not write has asked for help.
    pub(crate) wished: bool,
    /// Before it is started.
    pub(crate) before: fn(&mut World),
    /// When it stands at the first mark.
    pub(crate) begun: fn(&mut World),
    /// When it sleeps.
    pub(crate) wake: fn(&mut World),
}

/// Of a subscriber of an exclusive topic that does nothing special.
pub(crate) const PLAIN: Operation = Operation {
    role: "",
    shared: false,
    guarded: false,
    takes_place: false,
    in_hand: 0,
    holds_up: false,
    may_sleep: false,
    revoked: false,
    patient: false,
    crowded: false,
    replaced: false,
    wakes: false,
    wished: false,
    before: |_| {},
    begun: |_| {},
    wake: |_| {},
};
