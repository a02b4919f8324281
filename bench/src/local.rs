//! Runs hyper's tasks on the one thread that everything else of a command runs on.

use std::future::Future;

use crate::failure::{Doing, Result};

/// An executor of the current `LocalSet`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Runs a command to its end on a single-thread runtime.
pub fn run<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "starting the runtime".into())?;
    tokio::task::LocalSet::new().block_on(&runtime, command)
}
