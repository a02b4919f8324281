//! The listening sockets of a role, and the receivers behind them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ringtail_crds::resolved::ReceiverPorts;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{RoleError, RoleOptions, print_line};
use crate::admin;
use crate::metrics::Source;
use crate::stats::{Listening, Report};
use crate::transport::{
    Admission, Handler, Keyring, Protocol, ServerLimits, bind, serve, serve_tls,
};

/// Sockets of a role, bound and not yet serving.
pub(super) struct Sockets {
    grpc: TcpListener,
    http: TcpListener,
    admin: TcpListener,
    peer: Option<TcpListener>,
}

/// Who answers on the peer port, and with which certificates.
pub(super) struct PeerDoor<H> {
    pub(super) handler: H,
    pub(super) keyring: Arc<Keyring>,
}

/// Receivers under way.
pub(super) struct Receivers {
    tasks: JoinSet<usize>,
}

// === impl Sockets ===

impl Sockets {
    pub(super) fn bind(
        role: &RoleOptions,
        ports: ReceiverPorts,
        peer: Option<SocketAddr>,
    ) -> Result<Self, RoleError> {
        let everywhere = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        Ok(Self {
            grpc: bind(role.otlp_grpc.unwrap_or_else(|| everywhere(ports.grpc)))?,
            http: bind(role.otlp_http.unwrap_or_else(|| everywhere(ports.http)))?,
            admin: bind(role.admin)?,
            peer: peer.map(bind).transpose()?,
        })
    }

    /// Serves them all and prints the addresses.
    pub(super) fn serve<H: Handler + Clone>(
        self,
        handler: H,
        peers: Option<PeerDoor<H>>,
        source: Source,
        receive_budget: u64,
        stopping: &watch::Receiver<bool>,
    ) -> Result<Receivers, RoleError> {
        let listening = Listening {
            otlp_grpc: local(&self.grpc)?,
            otlp_http: Some(local(&self.http)?),
            peer: self.peer.as_ref().map(local).transpose()?,
            admin: local(&self.admin)?,
        };
        let admission = Admission::new(receive_budget);
        let mut tasks = JoinSet::new();
        for (listener, protocol) in [(self.grpc, Protocol::Grpc), (self.http, Protocol::Http)] {
            let limits = ServerLimits::default();
            let (handler, admission) = (handler.clone(), admission.clone());
            tasks.spawn(serve(listener, protocol, limits, admission, handler, stopping.clone()));
        }
        if let (Some(listener), Some(PeerDoor { handler, keyring })) = (self.peer, peers) {
            let (limits, admission) = (ServerLimits::default(), admission.clone());
            tasks.spawn(serve_tls(listener, keyring, limits, admission, handler, stopping.clone()));
        }
        let admin = admin::serve(self.admin, source, stopping.clone());
        tokio::spawn(async move {
            if let Err(error) = admin.await {
                tracing::error!(%error, "the admin port stopped");
            }
        });
        print_line(&Report::Listening(listening));
        Ok(Receivers { tasks })
    }
}

// === impl Receivers ===

impl Receivers {
    /// Waits until every request under way is answered.
    pub(super) async fn finish(mut self) {
        while let Some(cut_off) = self.tasks.join_next().await {
            if let Ok(connections @ 1..) = cut_off {
                tracing::warn!(connections, "connections were cut off with requests under way");
            }
        }
    }
}

fn local(listener: &TcpListener) -> Result<SocketAddr, RoleError> {
    listener
        .local_addr()
        .map_err(|source| RoleError::System { what: "asking for a socket's address", source })
}
