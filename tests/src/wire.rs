//! A wire between a process and a server: it can be cut, which ends every connection over it, and taken away.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A wire on a loopback port of its own.
#[derive(Debug)]
pub struct Wire {
    /// Where it begins.
    pub address: SocketAddr,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    here: bool,
    cuts: u64,
}

// === impl Wire ===

impl Wire {
    /// Leads to `server`.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().unwrap();
        let (state, follow) = watch::channel(State { here: true, cuts: 0 });
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(carry(stream, server, follow.clone()));
            }
        });
        Self { address, state, task }
    }

    /// Ends every connection; new ones are carried.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Ends every connection and carries none, or carries them again.
    pub fn set_here(&self, here: bool) {
        self.state.send_modify(|state| *state = State { here, cuts: state.cuts + 1 });
    }

    /// A copy of a kubeconfig that takes this way, in `folder`.
    pub fn kubeconfig(&self, original: &Path, server: &str, folder: &Path) -> PathBuf {
        let text = std::fs::read_to_string(original).expect("a kubeconfig");
        assert!(text.contains(server), "{server} is not the server of {text}");
        let path = folder.join("kubeconfig");
        let way = format!("https://{}", self.address);
        std::fs::write(&path, text.replace(server, &way)).expect("it is written");
        path
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.send_modify(|state| *state = State { here: false, cuts: state.cuts + 1 });
        self.task.abort();
    }
}

async fn carry(mut near: TcpStream, server: SocketAddr, mut state: watch::Receiver<State>) {
    let begun = *state.borrow_and_update();
    if !begun.here {
        return;
    }
    let Ok(mut far) = TcpStream::connect(server).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = state.wait_for(|state| *state != begun) => {}
    }
}
