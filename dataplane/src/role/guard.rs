//! From the flags and the manifest to what clients have to show.

use std::net::SocketAddr;
use std::sync::Arc;

use ringtail_crds::resolved::ReceiverGuard;

use super::{RoleError, RoleOptions};
use crate::transport::{Certificate, Guard, KeyringError, Tls, Tokens};

/// Without peer TLS agents come to the port that clients come to, and have neither certificate nor token.
const NEEDS_PEER_TLS: &str = "TLS or tokens for clients need --peer-tls on a gateway: without it agents \
                              come to the same port";

/// As [`of_clients`], for a gateway, which may have a port of its own for peers.
pub(super) fn of_gateway(
    role: &RoleOptions,
    asked: ReceiverGuard,
    peers_apart: bool,
) -> Result<Guard, RoleError> {
    let guard = of_clients(role, asked)?;
    if guard.asks() && !peers_apart {
        return Err(RoleError::Usage(NEEDS_PEER_TLS.to_owned()));
    }
    Ok(guard)
}

/// Opens the files and follows them from now on. What the manifest asks for must be there: nobody should find
/// out later that a port is open.
pub(super) fn of_clients(role: &RoleOptions, asked: ReceiverGuard) -> Result<Guard, RoleError> {
    if role.otlp_unguarded {
        let on_loopback =
            |address: Option<SocketAddr>| address.is_some_and(|a| a.ip().is_loopback());
        if on_loopback(role.otlp_grpc) && on_loopback(role.otlp_http) {
            return Ok(Guard::default());
        }
        return Err(RoleError::Usage(
            "--otlp-unguarded needs OTLP addresses of loopback".to_owned(),
        ));
    }
    let given = [
        (asked.tls, role.otlp_tls.is_some(), "tls", "--otlp-tls DIR"),
        (
            asked.client_certificates,
            role.otlp_client_ca.is_some(),
            "tls.clientCARef",
            "--otlp-client-ca DIR",
        ),
        (asked.tokens, role.otlp_tokens.is_some(), "bearerTokenSecretRef", "--otlp-tokens FILE"),
    ];
    let missing = given.iter().find(|(asked, given, ..)| *asked && !given);
    if let Some((_, _, field, flag)) = missing {
        let text =
            format!("the manifest has agent.receivers.otlp.{field}: give its files with {flag}");
        return Err(RoleError::Usage(text));
    }
    let wrong = |flag: &str, error: KeyringError| RoleError::Usage(format!("{flag}: {error}"));
    let mut guard = Guard::default();
    if let Some(directory) = &role.otlp_tls {
        let certificate = Certificate::open(directory, role.otlp_client_ca.as_deref())
            .map_err(|error| wrong("--otlp-tls", error))?;
        tokio::spawn(Arc::clone(&certificate).follow());
        guard.tls = Tls::Clients(certificate);
    }
    if let Some(path) = &role.otlp_tokens {
        let tokens = Tokens::open(path).map_err(|error| wrong("--otlp-tokens", error))?;
        tokio::spawn(Arc::clone(&tokens).follow());
        guard.tokens = Some(tokens);
    }
    Ok(guard)
}
