//! Where a running fleet takes commands: a Unix socket that only its user can reach.
//!
//! Not a port: whatever runs on the machine could connect to one, and a page in a browser could make requests
//! of it. The socket lies in a directory of the user with mode 0700, has mode 0600, and who connects is asked
//! by the kernel for their user.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::geteuid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Answer, Asked, Command, LINE_MAX};

/// Who connects says what it wants at once.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// Commands that wait for their answers; a fleet on a laptop has fewer gateways.
const WAITING_MAX: usize = 64;
/// How a socket's name ends.
pub const ENDING: &str = "sock";

/// The socket of this process; its file is removed with it.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    asked: mpsc::Receiver<Asked>,
    // Ends with the socket.
    _tasks: JoinSet<()>,
}

// === impl ControlSocket ===

impl ControlSocket {
    /// Listens at `path`, or in the user's directory under the pipeline's name.
    ///
    /// # Errors
    /// When the directory is not the user's alone, or somebody listens there already.
    pub fn open(path: Option<&Path>, pipeline: &str) -> io::Result<Self> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => directory()?.join(format!("{pipeline}-{}.{ENDING}", std::process::id())),
        };
        remove_stale(&path)?;
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let (asks, asked) = mpsc::channel(WAITING_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, asks));
        Ok(Self { path, asked, _tasks: tasks })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next command.
    pub async fn next(&mut self) -> Option<Asked> {
        self.asked.recv().await
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // What cannot be removed is found stale by whoever tries it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Where the sockets of this user lie: nobody else can enter it.
///
/// # Errors
/// When it cannot be made, or is somebody else's.
pub fn directory() -> io::Result<PathBuf> {
    let uid = geteuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let path = match runtime.filter(|path| path.is_absolute() && path.is_dir()) {
        Some(runtime) => runtime.join("ringtail"),
        None => std::env::temp_dir().join(format!("ringtail-{uid}")),
    };
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // In a directory that all may write to, somebody else may have been first.
    let found = fs::symlink_metadata(&path)?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o077 != 0 {
        let why = format!("{} is not a directory of yours alone (mode 0700)", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(path)
}

/// Removes a socket that nobody listens at any more.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        let why = format!("another fleet listens at {}", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    }
    fs::remove_file(path)
}

async fn serve(listener: UnixListener, asks: mpsc::Sender<Asked>) {
    let mut callers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if callers.len() < WAITING_MAX => {
                let Ok((stream, _)) = accepted else { return };
                callers.spawn(attend(stream, asks.clone()));
            }
            Some(_) = callers.join_next(), if !callers.is_empty() => {}
        }
    }
}

async fn attend(mut stream: UnixStream, asks: mpsc::Sender<Asked>) {
    let ours = stream.peer_cred().is_ok_and(|peer| peer.uid() == geteuid().as_raw());
    let answer = if ours { ask(&mut stream, asks).await } else { Err("not your fleet".to_owned()) };
    let text = match answer {
        Ok(text) => format!("ok {text}\n"),
        Err(text) => format!("no {text}\n"),
    };
    // Who does not wait for the answer does not need it.
    let _ = stream.write_all(text.as_bytes()).await;
}

async fn ask(stream: &mut UnixStream, asks: mpsc::Sender<Asked>) -> Answer {
    let mut line = String::new();
    let mut reader = BufReader::new(stream.take(LINE_MAX as u64));
    match timeout(READ_WITHIN, reader.read_line(&mut line)).await {
        Ok(Ok(_)) if line.ends_with('\n') => {}
        _ => return Err(format!("no command within {READ_WITHIN:?} and {LINE_MAX} bytes")),
    }
    let command = Command::parse(&line)?;
    let (answer, answered) = oneshot::channel();
    let over = || "the fleet ends".to_owned();
    asks.send(Asked { command, answer }).await.map_err(|_| over())?;
    answered.await.map_err(|_| over())?
}
