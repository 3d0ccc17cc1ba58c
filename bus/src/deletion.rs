//! Files of a topic that something else than a remover has deleted: noticed by those who take part, by the link count of `live`, which they have open.

use std::sync::Arc;

use shmbus_sys::clock;

use crate::atomics::{AtomicU64, Relaxed};
use crate::participant::Attachment;

/// How often who waits looks: 100 ms.
const INTERVAL_NS: u64 = 100_000_000;
/// How many messages lie between two looks of a publisher that does not wait, unless a block has more: it looks at openings only.
const MESSAGES: u64 = 256;

/// When it was last looked.
pub(crate) struct Looked(AtomicU64);

impl Looked {
    pub(crate) fn never() -> Looked {
        Looked(AtomicU64::new(0))
    }

    /// Whether it is time to look again; then that counts as done. Of several threads more than one may be told so.
    pub(crate) fn is_long_ago(&self, now_ns: u64) -> bool {
        let is_long_ago = now_ns.saturating_sub(self.0.load(Relaxed)) >= INTERVAL_NS;
        if is_long_ago {
            self.0.store(now_ns, Relaxed);
        }
        is_long_ago
    }
}

impl Attachment {
    /// Retires the topic if `live` has no name any more, so that nobody can join. Whether it is retired.
    pub(crate) fn look_for_deletion(&self) -> bool {
        if self.region.control().notices.0.joins.is_retired() {
            return true;
        }
        let is_deleted = self.is_deleted();
        if is_deleted {
            self.retire();
        }
        is_deleted
    }

    /// The same, at most every 100 ms of all handles of this attachment.
    #[cold]
    pub(crate) fn look_for_deletion_at(&self, now_ns: u64) {
        if self.looked.is_long_ago(now_ns) {
            self.look_for_deletion();
        }
    }

    /// The same for a publisher that is about to open the block of `sequence`.
    #[inline]
    pub(crate) fn look_for_deletion_before(&self, sequence: u64) {
        if sequence.is_multiple_of(MESSAGES) {
            self.look_for_deletion_at(clock::monotonic_ns());
        }
    }

    /// The same for one of several publishers, which may enter any block.
    pub(crate) fn look_for_deletion_at_blocks(self: Arc<Self>) -> impl FnMut(u64) + Send + Sync {
        let mut last = u64::MAX;
        move |sequence| {
            if core::mem::replace(&mut last, sequence / MESSAGES) != last {
                self.look_for_deletion_at(clock::monotonic_ns());
            }
        }
    }
}
