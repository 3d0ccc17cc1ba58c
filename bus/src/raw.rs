//! Messages without their type: for tools that carry, show and record any topic.

use std::ops::{Deref, DerefMut};

use bytemuck::TransparentWrapper;

use crate::directory::Directory;
use crate::error::{CreateError, PublishAllError, PublishError};
use crate::loan::Loan;
use crate::message::TypeError;
use crate::options::TopicOptions;
use crate::payload::{Carried, Payload};
use crate::publisher::Publisher;
use crate::schema::Schema;
use crate::topic::Topic;

/// The bytes of a message of any topic. [`Topic::schema`] says what they are.
///
/// ```
/// # let directory = tempfile::tempdir_in("/dev/shm")?;
/// # let directory = shmbus::Directory::at(directory.path())?;
/// use shmbus::{Delivery, Raw, RawTopic, Topic, TopicOptions, Value};
///
/// let topic = Topic::<u64>::create_in(&directory, "t", &TopicOptions::default())?;
/// let raw = RawTopic::open_in(&directory, "t")?; // no type is needed
/// let mut subscriber = raw.subscriber(Delivery::Lossy)?;
/// topic.publisher()?.publish(&7)?;
/// let schema = raw.schema().ok_or("a topic of bytes has none")?;
/// assert_eq!(schema.decode(&subscriber.receive()?)?, Value::U64(7));
/// raw.publisher()?.publish(Raw::new(&8_u64.to_le_bytes()))?;
/// assert!(raw.publisher()?.publish(Raw::new(b"too short")).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, PartialEq, Eq, TransparentWrapper)]
#[repr(transparent)]
pub struct Raw([u8]);

/// A topic of any type, opened without knowing it. Created by [`Topic::create`], it is one of bytes, as `Topic<[u8]>` is.
pub type RawTopic = Topic<Raw>;

impl Raw {
    /// These bytes as a message.
    pub fn new(bytes: &[u8]) -> &Raw {
        Raw::wrap_ref(bytes)
    }
}

impl Deref for Raw {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Raw {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Payload for Raw {
    const SIZE: Option<usize> = None;
    const ANY: bool = true;

    fn carried() -> Result<Carried, TypeError> {
        Ok(Carried::bytes())
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    #[inline]
    fn from_bytes(bytes: &[u8]) -> Option<&Raw> {
        Some(Raw::wrap_ref(bytes))
    }

    #[inline]
    fn from_bytes_mut(bytes: &mut [u8]) -> Option<&mut Raw> {
        Some(Raw::wrap_mut(bytes))
    }
}

impl RawTopic {
    /// Creates topic `name` of messages that `schema` describes, in [`Directory::from_env`]. Programs that know a type with the same schema
    /// open it as that type.
    ///
    /// # Errors
    /// As [`Topic::create`].
    pub fn create_with_schema(
        name: &str,
        options: &TopicOptions,
        schema: &Schema,
    ) -> Result<RawTopic, CreateError> {
        Self::create_with_schema_in(&Directory::from_env()?, name, options, schema)
    }

    /// [`RawTopic::create_with_schema`] in a directory of choice.
    ///
    /// # Errors
    /// As [`Topic::create`].
    pub fn create_with_schema_in(
        directory: &Directory,
        name: &str,
        options: &TopicOptions,
        schema: &Schema,
    ) -> Result<RawTopic, CreateError> {
        Self::create_carrying(directory, name, options, &Carried::of(schema.clone()))
    }
}

impl Publisher<Raw> {
    /// Publishes a copy of each of `messages`, in order; else as for topics of one type.
    ///
    /// # Errors
    /// [`PublishAllError`] says how many were published before the one that was not.
    pub fn publish_all(&mut self, messages: &[&Raw]) -> Result<u64, PublishAllError> {
        self.publish_each(messages.iter().copied())
    }

    /// The next slot as a message of `len` bytes, to be written in place; else as for topics of one type.
    ///
    /// # Errors
    /// As [`Publisher::publish`]; [`PublishError::Length`] where no message of the topic's type has that length.
    pub fn loan(&mut self, len: usize) -> Result<Loan<'_, Raw>, PublishError> {
        self.loan_bytes(len)
    }
}
