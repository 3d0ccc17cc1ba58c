//! The header pages, without files.

use crate::directory::Directory;
use crate::error::{OpenError, OptionsError};
use crate::header;
use crate::layout::{ControlHeader, DataHeader};
use crate::options::{Memory, TopicOptions};
use crate::payload::Payload;
use crate::topic::Topic;

/// Bytes of the header of `data`.
pub const DATA_HEADER: usize = size_of::<DataHeader>();
/// Bytes of the header of `ctl`.
pub const CONTROL_HEADER: usize = size_of::<ControlHeader>();

/// What decides what is mapped of a topic's files.
pub struct Headers {
    /// Page 0 of `data`.
    pub data: [u8; DATA_HEADER],
    /// Page 0 of `ctl`.
    pub control: [u8; CONTROL_HEADER],
    /// The schema text behind the block table.
    pub schema: Vec<u8>,
    /// Length of `data`.
    pub data_len: u64,
    /// Length of `ctl`.
    pub control_len: u64,
}

impl Headers {
    /// Those of a new topic.
    ///
    /// # Errors
    /// As [`TopicOptions::memory`].
    pub fn new<T: Payload + ?Sized>(options: &TopicOptions) -> Result<Headers, OptionsError> {
        let carried = T::carried()?;
        let geometry = options.geometry(&carried)?;
        let (data, control) = header::write(&carried, &geometry, options, 1, 2);
        Ok(Headers {
            data: bytemuck::cast(data),
            control: bytemuck::cast(control),
            schema: carried.text().into_bytes(),
            data_len: geometry.data_len(),
            control_len: geometry.control_len(),
        })
    }

    /// What opening a topic of `T` says about them; and, where it accepts them, what it would map.
    ///
    /// # Errors
    /// As [`Topic::open`].
    pub fn check<T: Payload + ?Sized>(&self) -> Result<Memory, OpenError> {
        let (data, control): (DataHeader, ControlHeader) =
            (bytemuck::cast(self.data), bytemuck::cast(self.control));
        let (geometry, _) = header::check("t", &data, &control, self.data_len, self.control_len)?;
        let text = self.schema.get(..geometry.schema_len as usize).unwrap_or(&self.schema);
        header::check_type::<T>("t", &header::check_schema("t", &data, text)?)?;
        Ok(Memory::of(&geometry))
    }
}

/// [`Topic::open_in`] with one mapping, a writable one, for publishers and subscribers: joining costs no mapping then.
///
/// # Errors
/// As [`Topic::open`].
pub fn open_writable<T: Payload + ?Sized>(
    directory: &Directory,
    name: &str,
) -> Result<Topic<T>, OpenError> {
    Topic::open_writable(directory, name)
}
