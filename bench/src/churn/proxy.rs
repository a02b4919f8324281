//! The way from one gateway to another, which can swallow a direction: what is sent arrives when it is open
//! again, as TCP would have it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What is read at a time.
const CHUNK: usize = 64 << 10;

/// From whom to whom.
pub(super) type Direction = (String, String);

/// Whether bytes flow, by direction.
#[derive(Debug, Default)]
pub(super) struct Gates(Mutex<BTreeMap<Direction, watch::Sender<bool>>>);

// === impl Gates ===

impl Gates {
    /// Opens or closes a direction.
    pub(super) fn set(&self, from: &str, to: &str, open: bool) {
        self.with(from, to, |gate| gate.send_replace(open));
    }

    fn follow(&self, from: &str, to: &str) -> watch::Receiver<bool> {
        self.with(from, to, watch::Sender::subscribe)
    }

    fn with<T>(&self, from: &str, to: &str, act: impl FnOnce(&watch::Sender<bool>) -> T) -> T {
        let mut gates = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let direction = (from.to_owned(), to.to_owned());
        act(gates.entry(direction).or_insert_with(|| watch::channel(true).0))
    }
}

/// A way from one process to the address of another.
pub(super) struct Way {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) target: SocketAddr,
}

/// Carries connections until the task is dropped.
pub(super) async fn serve(listener: TcpListener, way: Way, gates: std::sync::Arc<Gates>) {
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        let there = gates.follow(&way.from, &way.to);
        let back = gates.follow(&way.to, &way.from);
        let target = way.target;
        tokio::task::spawn_local(async move {
            // A target that refuses: the connection breaks at once.
            let Ok(far) = TcpStream::connect(target).await else { return };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let ((near_read, near_write), (far_read, far_write)) =
                (near.into_split(), far.into_split());
            tokio::select! {
                () = pump(near_read, far_write, there) => {}
                () = pump(far_read, near_write, back) => {}
            }
        });
    }
}

/// Carries one direction until either end closes.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut open: watch::Receiver<bool>) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let Ok(length @ 1..) = from.read(&mut chunk).await else { return };
        if open.wait_for(|open| *open).await.is_err() {
            return;
        }
        if to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_closed_direction_holds_what_it_is_given() {
        let done = crate::local::run(async {
            let (listener, target) = (
                TcpListener::bind("127.0.0.1:0").await.unwrap(),
                TcpListener::bind("127.0.0.1:0").await.unwrap(),
            );
            let (address, gates) = (listener.local_addr().unwrap(), Arc::new(Gates::default()));
            let way =
                Way { from: "a".into(), to: "b".into(), target: target.local_addr().unwrap() };
            tokio::task::spawn_local(serve(listener, way, Arc::clone(&gates)));
            let mut near = TcpStream::connect(address).await.unwrap();
            let (mut far, _) = target.accept().await.unwrap();
            gates.set("a", "b", false);
            near.write_all(b"ping").await.unwrap();
            far.write_all(b"pong").await.unwrap();
            let mut word = [0; 4];
            near.read_exact(&mut word).await.unwrap();
            assert_eq!(&word, b"pong", "the other direction is open");
            assert!(far.try_read(&mut word).is_err(), "nothing has come through");
            gates.set("a", "b", true);
            far.read_exact(&mut word).await.unwrap();
            assert_eq!(&word, b"ping");
            Ok(())
        });
        done.unwrap();
    }
}
