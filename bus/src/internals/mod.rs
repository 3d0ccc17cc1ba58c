//! What this project's own tests and fuzz targets need of the inside. Behind the feature `internals`; nothing here is promised to anybody.

mod control;
mod headers;
mod lock;

pub use control::{answer, request};
pub use headers::{CONTROL_HEADER, DATA_HEADER, Headers, open_writable};
pub use lock::{Lock, asked, with_lock_of};
/// Sets the clock of this process forward.
pub use shmbus_sys::clock::advance_ns;
/// Has this process believe in pages of another size.
pub use shmbus_sys::map::pretend_page_size;
