//! Who may do what with which guarded topic.

use std::collections::HashSet;
use std::time::Duration;

use shmbus_sys::unix::{self, Peer};

/// What a broker lets whom do. The first rule that is about a user (or one of its groups) and a topic decides; if there is none, everything is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// In the order in which they are looked at.
    pub rules: Vec<Rule>,
}

/// One rule of a [`Policy`]. The default is about nobody and allows nothing.
///
/// Users and groups are those of the broker's user namespace. A user that it does not map (who shows as the overflow id, 65534) matches no rule, whatever
/// the rule says; nor does a group. Of a process's groups the effective one and the supplementary ones count, as they were when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Users that it is about.
    pub uids: Vec<u32>,
    /// Groups that it is about, beside them. A group may be many users: whoever has subordinate user ids has 65,536 of each of its groups.
    pub gids: Vec<u32>,
    /// Topics that it is about: names, or beginnings of names followed by a `*`: `md/*`.
    pub topics: Vec<String>,
    /// They may be publishers. A publisher writes the topic's memory and is trusted as on any topic.
    pub publish: bool,
    /// They may be subscribers.
    pub subscribe: bool,
    /// And reliable ones: publishers wait for them, for their [`patience`](Rule::patience).
    pub reliable: bool,
    /// For how long a reliable subscriber may hold publishers up, at once and in the ten times as long after; who does it for longer becomes lossy
    /// ([`ReceiveError::Evicted`](crate::ReceiveError::Evicted)).
    pub patience: Duration,
    /// Entries of a topic that one user may have at the same time. They stay that user's as long as any process has one of them mapped.
    pub subscribers: u32,
    /// Entries of a topic that all users of this rule together may have. `None`: half of the topic's where the rule names a group, all of them otherwise.
    pub subscribers_total: Option<u32>,
}

impl Default for Rule {
    fn default() -> Rule {
        Rule {
            uids: Vec::new(),
            gids: Vec::new(),
            topics: Vec::new(),
            publish: false,
            subscribe: false,
            reliable: false,
            patience: Duration::from_millis(100),
            subscribers: 4,
            subscribers_total: None,
        }
    }
}

/// A rule of a [`Policy`] that can never do what it says. Rules are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// It names neither a user nor a group.
    #[error("rule {rule} is about nobody: it has neither uids nor gids")]
    Nobody {
        /// Which one.
        rule: usize,
    },
    /// It names the id that stands for all which the user namespace does not map.
    #[error(
        "rule {rule} names {id}, which stands for every id that is not mapped here: no rule is ever about it"
    )]
    Unmapped {
        /// Which one.
        rule: usize,
        /// The user or group id.
        id: u32,
    },
    /// It names no topic.
    #[error("rule {rule} is about no topic: its topics are empty")]
    NoTopic {
        /// Which one.
        rule: usize,
    },
    /// It names what no topic is called.
    #[error("rule {rule} is about {pattern:?}, and no topic has that name")]
    UnknownTopic {
        /// Which one.
        rule: usize,
        /// As it stands there.
        pattern: String,
    },
    /// Earlier rules decide about each of its users and groups and each of its topics.
    #[error(
        "rule {rule} is never reached: earlier rules decide about all of its users, groups and topics"
    )]
    Unreachable {
        /// Which one.
        rule: usize,
    },
    /// What it says about subscribers is about nobody.
    #[error("rule {rule} has {field}, and lets nobody subscribe")]
    NoSubscriber {
        /// Which one.
        rule: usize,
        /// The field.
        field: &'static str,
    },
}

/// The rule that decides, and the group by which it is about somebody; `None`: by the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision<'a> {
    pub(crate) rule: &'a Rule,
    pub(crate) group: Option<u32>,
}

impl Policy {
    /// Whether each rule can ever decide anything, where a broker has these `topics`.
    ///
    /// # Errors
    /// The first rule that cannot.
    pub fn check(&self, topics: &[&str]) -> Result<(), PolicyError> {
        let mut decided = HashSet::new();
        for (rule, number) in self.rules.iter().zip(1..) {
            rule.check(number, topics)?;
            let about = topics.iter().filter(|topic| rule.is_about_topic(topic));
            let users = rule.uids.iter().map(|uid| (true, *uid));
            let all: Vec<_> = users.chain(rule.gids.iter().map(|gid| (false, *gid))).collect();
            let pairs = about.flat_map(|topic| all.iter().map(move |who| (*who, *topic)));
            if pairs.filter(|pair| decided.insert(*pair)).count() == 0 {
                return Err(PolicyError::Unreachable { rule: number });
            }
        }
        Ok(())
    }

    /// The rule about `peer` and topic `name`.
    pub(crate) fn decide(&self, peer: &Peer, name: &str) -> Option<Decision<'_>> {
        self.about(peer).map(|(_, decision)| decision).find(|found| found.rule.is_about_topic(name))
    }

    /// The number of the first rule that is about `peer`.
    pub(crate) fn first_about(&self, peer: &Peer) -> Option<usize> {
        self.about(peer).next().map(|(number, _)| number)
    }

    fn about(&self, peer: &Peer) -> impl Iterator<Item = (usize, Decision<'_>)> {
        let (no_uid, no_gid) = unix::overflow_ids();
        let is_known = peer.uid != no_uid;
        let groups = [peer.gid].into_iter().chain(peer.groups.iter().copied());
        let groups: Vec<u32> = groups.filter(|gid| *gid != no_gid).collect();
        let uid = peer.uid;
        self.rules.iter().enumerate().filter_map(move |(number, rule)| {
            let by_group = || groups.iter().copied().find(|gid| rule.gids.contains(gid));
            let group = match (is_known, rule.uids.contains(&uid)) {
                (false, _) => return None,
                (true, true) => None,
                (true, false) => Some(by_group()?),
            };
            Some((number, Decision { rule, group }))
        })
    }
}

impl Rule {
    fn check(&self, rule: usize, topics: &[&str]) -> Result<(), PolicyError> {
        if self.uids.is_empty() && self.gids.is_empty() {
            return Err(PolicyError::Nobody { rule });
        }
        let (no_uid, no_gid) = unix::overflow_ids();
        for (ids, unmapped) in [(&self.uids, no_uid), (&self.gids, no_gid)] {
            if ids.contains(&unmapped) {
                return Err(PolicyError::Unmapped { rule, id: unmapped });
            }
        }
        if self.topics.is_empty() {
            return Err(PolicyError::NoTopic { rule });
        }
        let unknown = |pattern: &&String| !topics.iter().any(|topic| fits(pattern, topic));
        if let Some(pattern) = self.topics.iter().find(unknown) {
            return Err(PolicyError::UnknownTopic { rule, pattern: pattern.clone() });
        }
        let no_entry = self.subscribers == 0 || self.subscribers_total == Some(0);
        match (self.subscribe, self.reliable, no_entry) {
            (false, true, _) => Err(PolicyError::NoSubscriber { rule, field: "reliable" }),
            (true, _, true) => Err(PolicyError::NoSubscriber { rule, field: "0 subscribers" }),
            _ => Ok(()),
        }
    }

    fn is_about_topic(&self, name: &str) -> bool {
        self.topics.iter().any(|pattern| fits(pattern, name))
    }

    /// How many of `entries` all of its users together may have.
    pub(crate) fn total(&self, entries: u32) -> usize {
        let total = match self.subscribers_total {
            Some(total) => total,
            None if self.gids.is_empty() => entries,
            None => (entries / 2).max(1),
        };
        total.min(entries) as usize
    }

    /// Whether an entry that `owner` got counts as one of this rule's.
    pub(crate) fn has(&self, owner: Owner) -> bool {
        match owner.group {
            Some(gid) => self.gids.contains(&gid),
            None => self.uids.contains(&owner.uid),
        }
    }
}

/// Whose an entry is: a user, and the group by which a rule let it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) group: Option<u32>,
}

impl Owner {
    /// As it stands in a grant: see `docs/layout.md`. No id is `u32::MAX`.
    pub(crate) fn word(self) -> u64 {
        let group = self.group.map_or(0, |gid| u64::from(gid) + 1);
        group << 32 | (u64::from(self.uid) + 1)
    }

    pub(crate) fn of(word: u64) -> Option<Owner> {
        let uid = (word as u32).checked_sub(1)?;
        Some(Owner { uid, group: ((word >> 32) as u32).checked_sub(1) })
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32) -> Peer {
        Peer { pid: 1, uid, gid, groups: Vec::new() }
    }

    fn decided<'a>(policy: &'a Policy, peer: &Peer, name: &str) -> Option<&'a Rule> {
        policy.decide(peer, name).map(|decision| decision.rule)
    }

    fn rule(uids: &[u32], gids: &[u32], topics: &[&str]) -> Rule {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        Rule { uids: uids.to_vec(), gids: gids.to_vec(), topics, ..Rule::default() }
    }

    #[test]
    fn the_first_rule_about_user_and_topic_decides() {
        let first = Rule { publish: true, ..rule(&[1], &[], &["md/quotes"]) };
        let second = Rule { subscribe: true, ..rule(&[1, 2], &[9], &["md/*"]) };
        let policy = Policy { rules: vec![first.clone(), second.clone()] };
        assert_eq!(decided(&policy, &peer(1, 1), "md/quotes"), Some(&first));
        assert_eq!(decided(&policy, &peer(1, 1), "md/trades"), Some(&second));
        assert_eq!(decided(&policy, &peer(2, 2), "md/quotes"), Some(&second));
        assert_eq!(decided(&policy, &peer(3, 9), "md/quotes"), Some(&second), "by its group");
    }

    #[test]
    fn who_and_what_no_rule_is_about_is_refused() {
        let policy = Policy { rules: vec![rule(&[1], &[], &["md/*", "a"])] };
        assert_eq!(decided(&policy, &peer(2, 1), "a"), None);
        assert_eq!(decided(&policy, &peer(1, 1), "ab"), None);
        assert_eq!(decided(&policy, &peer(1, 1), "md"), None);
        assert_eq!(policy.first_about(&peer(2, 1)), None);
        assert_eq!(decided(&Policy::default(), &peer(0, 0), "a"), None, "root too");
    }

    #[test]
    fn a_user_or_group_that_is_not_mapped_matches_nothing_even_where_a_rule_names_its_number() {
        let (uid, gid) = unix::overflow_ids();
        let policy = Policy { rules: vec![rule(&[uid], &[gid, 7], &["*"])] };
        assert_eq!(decided(&policy, &peer(uid, 7), "a"), None);
        assert_eq!(decided(&policy, &peer(1, gid), "a"), None);
        assert!(decided(&policy, &peer(1, 7), "a").is_some());
    }

    #[test]
    fn a_supplementary_group_counts_as_the_effective_one() {
        let policy = Policy { rules: vec![rule(&[], &[9], &["a"])] };
        let member = Peer { groups: vec![5, 9], ..peer(1, 1) };
        assert_eq!(policy.decide(&member, "a").and_then(|decision| decision.group), Some(9));
        assert_eq!(decided(&policy, &Peer { groups: vec![5], ..peer(1, 1) }, "a"), None);
        let (_, no_gid) = unix::overflow_ids();
        let policy = Policy { rules: vec![rule(&[], &[no_gid], &["a"])] };
        assert_eq!(decided(&policy, &Peer { groups: vec![no_gid], ..peer(1, 1) }, "a"), None);
    }

    #[test]
    fn a_rule_that_can_never_decide_anything_is_found() {
        use PolicyError::{NoSubscriber, NoTopic, Nobody, UnknownTopic, Unmapped, Unreachable};
        let topics = ["md/quotes", "a"];
        let check = |rules: &[&Rule]| {
            Policy { rules: rules.iter().map(|rule| (*rule).clone()).collect() }.check(&topics)
        };
        let good = rule(&[1], &[], &["md/*"]);
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[&good, &rule(&[1], &[], &["a"]), &rule(&[], &[1], &["*"])]), Ok(()));
        assert_eq!(check(&[&good, &rule(&[], &[], &["a"])]), Err(Nobody { rule: 2 }));
        assert_eq!(check(&[&rule(&[1], &[], &[])]), Err(NoTopic { rule: 1 }));
        let pattern = "md/quote".to_owned();
        let typo = rule(&[1], &[], &["a", &pattern]);
        assert_eq!(check(&[&typo]), Err(UnknownTopic { rule: 1, pattern }));
        let (no_uid, no_gid) = unix::overflow_ids();
        assert_eq!(check(&[&rule(&[no_uid], &[], &["a"])]), Err(Unmapped { rule: 1, id: no_uid }));
        assert_eq!(check(&[&rule(&[], &[no_gid], &["a"])]), Err(Unmapped { rule: 1, id: no_gid }));
        let both = rule(&[1, 2], &[3], &["*"]);
        assert_eq!(check(&[&both, &good]), Err(Unreachable { rule: 2 }));
        assert_eq!(check(&[&good, &both]), Ok(()));
        let only_reliable = Rule { reliable: true, ..good.clone() };
        assert_eq!(check(&[&only_reliable]), Err(NoSubscriber { rule: 1, field: "reliable" }));
        let none = Rule { subscribe: true, subscribers: 0, ..good };
        assert_eq!(check(&[&none]), Err(NoSubscriber { rule: 1, field: "0 subscribers" }));
    }

    #[test]
    fn an_owner_is_read_as_it_was_written() {
        assert_eq!(Owner::of(0), None);
        for uid in [0, 7, u32::MAX - 1] {
            for group in [None, Some(0), Some(9), Some(u32::MAX - 1)] {
                let owner = Owner { uid, group };
                assert_eq!(Owner::of(owner.word()), Some(owner));
            }
        }
    }
}
