//! The listening sockets of a role, and the receivers behind them.

use std::net::{Ipv4Addr, SocketAddr};

use ringtail_crds::resolved::ReceiverPorts;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{RoleError, RoleOptions, print_line};
use crate::admin;
use crate::metrics::Source;
use crate::stats::{Listening, Report};
use crate::transport::{Guard, Handler, Protocol, ServerLimits, bind, serve_guarded};

/// Sockets of a role, bound and not yet serving.
pub(super) struct Sockets {
    grpc: TcpListener,
    http: TcpListener,
    admin: TcpListener,
    peer: Option<TcpListener>,
}

/// Who answers behind a port, and what is asked of whoever comes.
pub(super) struct Door<H> {
    pub(super) handler: H,
    pub(super) guard: Guard,
}

impl<H> Door<H> {
    pub(super) fn new(handler: H, guard: Guard) -> Self {
        Self { handler, guard }
    }
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
        clients: Door<H>,
        peers: Option<Door<H>>,
        source: Source,
        stopping: &watch::Receiver<bool>,
    ) -> Result<Receivers, RoleError> {
        let listening = Listening {
            otlp_grpc: local(&self.grpc)?,
            otlp_http: Some(local(&self.http)?),
            peer: self.peer.as_ref().map(local).transpose()?,
            admin: local(&self.admin)?,
        };
        let admission = source.receiving.clone();
        let mut tasks = JoinSet::new();
        for (listener, protocol) in [(self.grpc, Protocol::Grpc), (self.http, Protocol::Http)] {
            let (limits, admission) = (ServerLimits::default(), admission.clone());
            let (handler, guard) = (clients.handler.clone(), clients.guard.clone());
            let stopping = stopping.clone();
            tasks.spawn(serve_guarded(
                listener, protocol, limits, admission, handler, guard, stopping,
            ));
        }
        if let (Some(listener), Some(Door { handler, guard })) = (self.peer, peers) {
            let (limits, stopping) = (ServerLimits::default(), stopping.clone());
            tasks.spawn(serve_guarded(
                listener,
                Protocol::Grpc,
                limits,
                admission,
                handler,
                guard,
                stopping,
            ));
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
