//! A message that is written where its subscribers will read it.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

use crate::error::PublishError;
use crate::payload::Payload;
use crate::publisher::Publisher;
use crate::ring::shared::Claim;

/// The next message of a [`Publisher`], in place and not yet published.
///
/// Dropped, it is no message, and nobody has missed one. On an exclusive topic nothing has happened. A shared publisher had taken a sequence: it is abandoned,
/// which subscribers count apart ([`Sample::abandoned_before`](crate::Sample::abandoned_before)). Forgotten, it is no message either: an exclusive publisher's next
/// loan is the same slot, and a shared publisher's sequence is revoked after the topic's `claim_timeout`, or abandoned at its next publish.
#[must_use = "a loan that is not committed is no message"]
pub struct Loan<'a, T: Payload + ?Sized> {
    publisher: &'a mut Publisher<T>,
    message: &'a mut T,
    /// The sequence that it has taken, where publishers are shared.
    claim: Option<Claim>,
}

impl<'a, T: Payload + ?Sized> Loan<'a, T> {
    pub(crate) fn new(
        publisher: &'a mut Publisher<T>,
        message: &'a mut T,
        claim: Option<Claim>,
    ) -> Self {
        Loan { publisher, message, claim }
    }

    /// Publishes the message and returns its sequence.
    ///
    /// On an exclusive topic it does not wait, and fails only in a forked child. On a shared one its sequence may have been revoked while it was open for longer than
    /// the topic's `claim_timeout`: then it is copied to a new one, for which it waits as [`Publisher::publish`] does.
    ///
    /// # Errors
    /// As [`Publisher::publish`]; on an exclusive topic only [`PublishError::Forked`].
    #[inline]
    pub fn commit(self) -> Result<u64, PublishError> {
        let mut loan = ManuallyDrop::new(self);
        let Loan { publisher, message, claim } = &mut *loan;
        publisher.commit_loan(message, *claim)
    }
}

impl<T: Payload + ?Sized> Loan<'_, T> {
    /// The sequence that the message will have, unless it is revoked on a shared topic.
    pub fn sequence(&self) -> u64 {
        self.claim.map_or_else(|| self.publisher.sequence(), |claim| claim.sequence)
    }
}

impl<T: Payload + ?Sized> Drop for Loan<'_, T> {
    fn drop(&mut self) {
        if let Some(claim) = self.claim {
            self.publisher.abandon_loan(claim);
        }
    }
}

impl<T: Payload + ?Sized> Deref for Loan<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.message
    }
}

impl<T: Payload + ?Sized> DerefMut for Loan<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.message
    }
}
