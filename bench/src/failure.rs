//! The one error of this crate: nobody branches on it, so it only has to say what went wrong.

/// What failed, in a sentence for a person.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    /// A failure with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Failure>;

/// Adds what was being done to a foreign error.
pub trait Doing<T> {
    /// Turns the error into a [`Failure`] that starts with `what`.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::fmt::Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure(format!("{}: {error}", what())))
    }
}
