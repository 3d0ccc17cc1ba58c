//! The six functions by which an object is made and opened: the same for all primitives with members.

/// For a type with `SHAPE` and `join`. `initial` is what a new object holds, made of the arguments that creating takes beside name and options.
macro_rules! opening {
    ($noun:literal, ($($argument:ident: $type:ty = $what:literal),*), $initial:expr) => {
        #[doc = concat!("Creates the ", $noun, " `name` in [`Directory::from_env`], ", $($what, ", ",)* "and opens it.")]
        ///
        /// # Errors
        /// See [`SyncCreateError`]; [`SyncCreateError::Exists`] where there is an object of that name.
        pub fn create(name: &str, options: &SyncOptions, $($argument: $type),*) -> Result<Self, SyncCreateError> {
            Self::create_in(&Directory::from_env()?, name, options, $($argument),*)
        }

        #[doc = concat!("Opens the ", $noun, " `name` in [`Directory::from_env`].")]
        ///
        /// # Errors
        /// See [`SyncOpenError`].
        pub fn open(name: &str) -> Result<Self, SyncOpenError> {
            Self::open_in(&Directory::from_env()?, name)
        }

        #[doc = concat!("Opens the ", $noun, " `name` in [`Directory::from_env`], or creates it, ", $($what, ", ",)* "and opens that.")]
        ///
        /// # Errors
        /// See [`SyncCreateError`]; [`SyncCreateError::Open`] where it exists and cannot be opened, or was created otherwise ([`SyncOpenError::Parameter`]).
        pub fn open_or_create(name: &str, options: &SyncOptions, $($argument: $type),*) -> Result<Self, SyncCreateError> {
            Self::open_or_create_in(&Directory::from_env()?, name, options, $($argument),*)
        }

        /// `create` in a directory of choice.
        ///
        /// # Errors
        /// As `create`.
        pub fn create_in(directory: &Directory, name: &str, options: &SyncOptions, $($argument: $type),*) -> Result<Self, SyncCreateError> {
            let object = Object::create(directory, name, options, &Self::SHAPE, &$initial)?;
            Self::join(object).map_err(SyncCreateError::Open)
        }

        /// `open` in a directory of choice.
        ///
        /// # Errors
        /// As `open`.
        pub fn open_in(directory: &Directory, name: &str) -> Result<Self, SyncOpenError> {
            Self::join(Object::open(directory, name, &Self::SHAPE)?)
        }

        /// `open_or_create` in a directory of choice.
        ///
        /// # Errors
        /// As `open_or_create`.
        pub fn open_or_create_in(directory: &Directory, name: &str, options: &SyncOptions, $($argument: $type),*) -> Result<Self, SyncCreateError> {
            Object::open_or_create(directory, name, options, &Self::SHAPE, &$initial, Self::join)
        }
    };
}
pub(crate) use opening;
