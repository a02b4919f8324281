//! The files by which programs find a cluster and say who they are.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::error::{Error, OnFile};
use crate::pki::Identity;

/// How its holder proves who it is.
pub(crate) enum Proof<'a> {
    Certificate(&'a Identity),
    Token(&'a str),
}

/// Writes a kubeconfig that needs no other file, so that it can be copied. JSON is YAML.
pub(crate) fn write(
    path: &Path,
    server: &str,
    authority: &str,
    proof: &Proof<'_>,
) -> Result<(), Error> {
    let user: Value = match proof {
        Proof::Certificate(identity) => json!({
            "client-certificate-data": STANDARD.encode(&identity.certificate),
            "client-key-data": STANDARD.encode(&identity.key),
        }),
        Proof::Token(token) => json!({ "token": token }),
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "ringtail",
            "cluster": { "server": server, "certificate-authority-data": STANDARD.encode(authority) },
        }],
        "users": [{ "name": "ringtail", "user": user }],
        "contexts": [{ "name": "ringtail", "context": { "cluster": "ringtail", "user": "ringtail" } }],
        "current-context": "ringtail",
    });
    fs::write(path, format!("{config:#}\n")).on("write", path)
}
