//! What a fleet needs around it, on one thread: the backend, the list of gateways in both forms, and ways
//! that can be closed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::mpsc;

use super::arrivals::{self, Arrivals, Shared};
use super::directory::Directory;
use super::proxy::{self, Gates, Way};
use super::{api, dns};
use crate::failure::{Doing, Failure, Result};
use crate::local;
use crate::server;
use crate::truth::World;

/// Where every gateway takes OTLP/gRPC: one port for all, as the Collector's DNS resolver wants it. Nothing
/// well known listens there.
pub(super) const PORT: u16 = 14_317;
/// Loopback networks 127.x.0.0/16 that fleets choose from: the first ones are used by others.
const NETWORKS: std::ops::Range<u8> = 32..250;

/// See the module.
pub(super) struct Board {
    /// When the clock of the fleet started.
    pub(super) epoch: Instant,
    /// Second byte of the fleet's addresses.
    network: u8,
    pub(super) backend: SocketAddr,
    pub(super) api: SocketAddr,
    pub(super) arrivals: Shared,
    pub(super) directory: Arc<Directory>,
    pub(super) gates: Arc<Gates>,
    ways: mpsc::UnboundedSender<(TcpListener, Way)>,
    /// Dropped, the thread ends.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
    /// Held for as long as the fleet lives, so that no other fleet takes its network.
    _claim: TcpListener,
}

/// What the thread starts with.
struct Sockets {
    backend: TcpListener,
    api: TcpListener,
    /// Only a fleet with Collectors has one.
    dns: Option<std::net::UdpSocket>,
}

// === impl Board ===

impl Board {
    /// Starts everything; DNS needs the right to listen on port 53.
    pub(super) fn start(world: World, with_dns: bool) -> Result<Self> {
        let (network, claim) = claim()?;
        let any = || TcpListener::bind("127.0.0.1:0").doing(|| "listening on loopback".into());
        let dns = with_dns.then(|| std::net::UdpSocket::bind((nameserver(network), 53)));
        let dns = dns.transpose().doing(|| {
            "a nameserver for the Collector's resolver needs port 53, so it needs root".into()
        })?;
        let sockets = Sockets { backend: any()?, api: any()?, dns };
        let address =
            |listener: &TcpListener| listener.local_addr().doing(|| "asking for an address".into());
        let (backend, api) = (address(&sockets.backend)?, address(&sockets.api)?);
        let epoch = Instant::now();
        let arrivals = Arc::new(Mutex::new(Arrivals::new(world, epoch)?));
        let (directory, gates) = (Arc::new(Directory::new()), Arc::default());
        let (ways, wanted) = mpsc::unbounded_channel();
        let (stop, stopped) = mpsc::channel(1);
        let serving = Serving {
            arrivals: Arc::clone(&arrivals),
            directory: Arc::clone(&directory),
            gates: Arc::clone(&gates),
        };
        let thread = std::thread::spawn(|| local::run(serving.run(sockets, wanted, stopped)));
        Ok(Self {
            epoch,
            network,
            backend,
            api,
            arrivals,
            directory,
            gates,
            ways,
            stop: Some(stop),
            thread: Some(thread),
            _claim: claim,
        })
    }

    /// The address of gateway number `number`; each has an IP of its own.
    pub(super) fn gateway(&self, number: u8) -> SocketAddr {
        (Ipv4Addr::new(127, self.network, 1, number), PORT).into()
    }

    /// The nameserver of this fleet.
    pub(super) fn nameserver(&self) -> IpAddr {
        IpAddr::V4(nameserver(self.network))
    }

    /// A way from one gateway to another, and its address.
    pub(super) fn open_way(&self, way: Way) -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").doing(|| "listening on loopback".into())?;
        let address = listener.local_addr().doing(|| "asking for an address".into())?;
        let ended = |_| Failure::new("the thread around the fleet has ended");
        self.ways.send((listener, way)).map_err(ended)?;
        Ok(address)
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Ok(Err(failure))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("around the fleet: {failure}");
        }
    }
}

fn nameserver(network: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, network, 0, 53)
}

/// A network that no other fleet on this machine uses now.
fn claim() -> Result<(u8, TcpListener)> {
    let networks = NETWORKS.start + (std::process::id() % 64) as u8..NETWORKS.end;
    let claim = |network| {
        let address = (Ipv4Addr::new(127, network, 0, 1), PORT);
        Some((network, TcpListener::bind(address).ok()?))
    };
    let none = || Failure::new(format!("port {PORT} is in use on every loopback network"));
    networks.into_iter().find_map(claim).ok_or_else(none)
}

/// What the thread works with.
struct Serving {
    arrivals: Shared,
    directory: Arc<Directory>,
    gates: Arc<Gates>,
}

impl Serving {
    async fn run(
        self,
        sockets: Sockets,
        mut ways: mpsc::UnboundedReceiver<(TcpListener, Way)>,
        mut stopped: mpsc::Receiver<()>,
    ) -> Result<()> {
        let arrivals = self.arrivals;
        let take = move |received| arrivals::take(&arrivals, &received);
        let backend = server::serve(listener(sockets.backend)?, Rc::new(take));
        tokio::task::spawn_local(backend);
        let directory = Arc::clone(&self.directory);
        tokio::task::spawn_local(api::serve(listener(sockets.api)?, directory));
        if let Some(socket) = sockets.dns {
            socket.set_nonblocking(true).doing(adopting)?;
            let socket = tokio::net::UdpSocket::from_std(socket).doing(adopting)?;
            tokio::task::spawn_local(dns::serve(socket, self.directory));
        }
        loop {
            tokio::select! {
                // Nobody ever sends: it is dropped at the end.
                _ = stopped.recv() => return Ok(()),
                Some((socket, way)) = ways.recv() => {
                    let gates = Arc::clone(&self.gates);
                    tokio::task::spawn_local(proxy::serve(listener(socket)?, way, gates));
                }
            }
        }
    }
}

fn listener(listener: TcpListener) -> Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true).doing(adopting)?;
    tokio::net::TcpListener::from_std(listener).doing(adopting)
}

fn adopting() -> String {
    "taking over a socket".into()
}
