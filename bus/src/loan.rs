//! A message that is written where its subscribers will read it.

use std::ops::{Deref, DerefMut};

use crate::payload::Payload;
use crate::publisher::Publisher;

/// The next message of a [`Publisher`], in place and not yet published.
///
/// Dropped or forgotten, it never happened: the next loan is the same slot.
#[must_use = "a loan that is not committed never happened"]
pub struct Loan<'a, T: Payload + ?Sized> {
    publisher: &'a mut Publisher<T>,
    message: &'a mut T,
    len: u32,
}

impl<'a, T: Payload + ?Sized> Loan<'a, T> {
    pub(crate) fn new(publisher: &'a mut Publisher<T>, message: &'a mut T, len: u32) -> Self {
        Loan { publisher, message, len }
    }

    /// Publishes the message and returns its sequence. It cannot fail and does not wait.
    #[inline]
    pub fn commit(self) -> u64 {
        self.publisher.commit(self.len)
    }

    /// The sequence that the message will have.
    pub fn sequence(&self) -> u64 {
        self.publisher.sequence()
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
