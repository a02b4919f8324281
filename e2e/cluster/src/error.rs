//! What can go wrong, said with what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a cluster, or a part of one, does not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program could not be run or ended with an error.
    #[error("`{command}` {outcome}\n{output}")]
    Command {
        /// Program and arguments.
        command: String,
        /// How it ended.
        outcome: String,
        /// What it printed.
        output: String,
    },
    /// A process of the cluster ended, or is not ready in time.
    #[error("{name} {state}; the end of {}:\n{tail}", log.display())]
    Process {
        /// Which one.
        name: String,
        /// What is wrong with it.
        state: String,
        /// Where it logs to.
        log: PathBuf,
        /// The last lines of that log.
        tail: String,
    },
    /// The machine or the cache lacks something; each line names it and the remedy.
    #[error("this machine lacks what the cluster needs:\n{0}")]
    Lacking(String),
    /// The API server refused or could not be reached.
    #[error("Kubernetes API: {0}")]
    Api(#[from] Box<kube::Error>),
    /// The kubeconfig that the harness wrote could not be read back.
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] Box<kube::config::KubeconfigError>),
    /// A key or certificate could not be made.
    #[error("certificates: {0}")]
    Certificate(#[from] rcgen::Error),
    /// An image could not be written.
    #[error(transparent)]
    Image(#[from] ringtail_image::image::ImageError),
    /// What was waited for did not happen.
    #[error("{what} did not happen within {seconds} s")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// The call makes no sense for this cluster, for example a thirteenth node.
    #[error("{0}")]
    Misuse(String),
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

impl From<kube::config::KubeconfigError> for Error {
    fn from(error: kube::config::KubeconfigError) -> Self {
        Self::Kubeconfig(Box::new(error))
    }
}

/// Names the file in an IO error.
pub(crate) trait OnFile<T> {
    fn on(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, Error>;
}

impl<T> OnFile<T> for io::Result<T> {
    fn on(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, Error> {
        self.map_err(|source| Error::File { action, path: path.as_ref().to_owned(), source })
    }
}
