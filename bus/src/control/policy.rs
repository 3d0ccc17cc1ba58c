//! Who may do what with which guarded topic.

use std::time::Duration;

use shmbus_sys::unix::{self, Peer};

/// What a broker lets whom do. The first rule that is about a user (or its group) and a topic decides; where none is, everything is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// In the order in which they are looked at.
    pub rules: Vec<Rule>,
}

/// One rule of a [`Policy`]. The default is about nobody and allows nothing.
///
/// Users and groups are those of the broker's user namespace. A user that it does not map (who shows as the overflow id, 65534) matches no rule, whatever
/// the rule says; nor does a group. Of a process's groups only its effective one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Users that it is about.
    pub uids: Vec<u32>,
    /// Groups that it is about, beside them.
    pub gids: Vec<u32>,
    /// Topics that it is about: names, or beginnings of names with a `*` behind: `md/*`.
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
    /// Entries of a topic that one user may ever have at the same time. They stay that user's as long as the topic exists.
    pub subscribers: u32,
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
        }
    }
}

impl Policy {
    /// The rule about `peer` and topic `name`.
    pub(crate) fn decide(&self, peer: Peer, name: &str) -> Option<&Rule> {
        self.rules_about(peer).find(|rule| rule.topics.iter().any(|pattern| fits(pattern, name)))
    }

    /// Whether any rule is about `peer`.
    pub(crate) fn knows(&self, peer: Peer) -> bool {
        self.rules_about(peer).next().is_some()
    }

    fn rules_about(&self, Peer { uid, gid, .. }: Peer) -> impl Iterator<Item = &Rule> {
        let (no_uid, no_gid) = unix::overflow_ids();
        self.rules.iter().filter(move |rule| {
            let by_group = gid != no_gid && rule.gids.contains(&gid);
            uid != no_uid && (rule.uids.contains(&uid) || by_group)
        })
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
        Peer { pid: 1, uid, gid }
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
        assert_eq!(policy.decide(peer(1, 1), "md/quotes"), Some(&first));
        assert_eq!(policy.decide(peer(1, 1), "md/trades"), Some(&second));
        assert_eq!(policy.decide(peer(2, 2), "md/quotes"), Some(&second));
        assert_eq!(policy.decide(peer(3, 9), "md/quotes"), Some(&second), "by its group");
    }

    #[test]
    fn who_and_what_no_rule_is_about_is_refused() {
        let policy = Policy { rules: vec![rule(&[1], &[], &["md/*", "a"])] };
        assert_eq!(policy.decide(peer(2, 1), "a"), None);
        assert_eq!(policy.decide(peer(1, 1), "ab"), None);
        assert_eq!(policy.decide(peer(1, 1), "md"), None);
        assert!(!policy.knows(peer(2, 1)));
        assert_eq!(Policy::default().decide(peer(0, 0), "a"), None, "root too");
    }

    #[test]
    fn a_user_or_group_that_is_not_mapped_matches_nothing_even_where_a_rule_names_its_number() {
        let (uid, gid) = unix::overflow_ids();
        let policy = Policy { rules: vec![rule(&[uid], &[gid, 7], &["*"])] };
        assert_eq!(policy.decide(peer(uid, 7), "a"), None);
        assert_eq!(policy.decide(peer(1, gid), "a"), None);
        assert!(policy.decide(peer(1, 7), "a").is_some());
    }
}
