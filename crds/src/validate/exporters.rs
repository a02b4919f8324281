//! Exporters: their conditions are compiled for real, and what is written becomes what it means.

use ringtail_engine::policy::Condition;
use serde_json::Value;

use super::findings::Findings;
use crate::{
    exporter::{self, SecretKeyRef},
    logs::Signal,
    path::Path,
    resolved::{
        Debug, Destination, Endpoint, Exporter, File, HeaderValue, Otlp, Retry, SecretKey, Tls,
    },
};

/// What is printed or written waits no longer than that takes; this is room for a few large requests.
const LOCAL_QUEUE_BYTES: u64 = 16 << 20;

/// Adds what keeps the conditions of the exporters at `at` from compiling to `findings`.
pub(crate) fn check(list: &Value, at: &Path, findings: &mut Findings) {
    for (index, exporter) in list.as_array().into_iter().flatten().enumerate() {
        let at = at.index(index).key("filter");
        let Some(filter) = exporter.get("filter").and_then(Value::as_str) else { continue };
        if findings.is_broken(&at) {
            continue;
        }
        if let Err(message) = Condition::compile(filter) {
            findings.add(at, message);
        }
    }
}

/// The exporter as plain data. `None` when a text in it cannot be read, which the walk does not let pass.
pub(crate) fn resolve(written: exporter::Exporter, logs: bool) -> Option<Exporter> {
    let mut queue_max_bytes = LOCAL_QUEUE_BYTES;
    let destination = if let Some(otlp) = written.otlp {
        queue_max_bytes = otlp.queue.max_bytes.parse()?;
        Destination::Otlp(Box::new(resolve_otlp(otlp)?))
    } else if let Some(debug) = written.debug {
        Destination::Debug(Debug {
            verbosity: debug.verbosity,
            initial: debug.sampling_initial,
            thereafter: debug.sampling_thereafter,
        })
    } else {
        let file = written.file?;
        Destination::File(File {
            path: file.path,
            max_bytes: file.rotation.max_bytes.parse()?,
            max_backups: file.rotation.max_backups,
        })
    };
    let takes = |signal: &Signal| match &written.signals {
        Some(signals) => signals.contains(signal),
        None => logs || *signal == Signal::Traces,
    };
    let signals = Signal::ALL.into_iter().filter(takes).collect();
    let exporter::Exporter { name, filter, .. } = written;
    Some(Exporter { name, filter, signals, destination, queue_max_bytes })
}

fn resolve_otlp(otlp: exporter::OtlpExporter) -> Option<Otlp> {
    let headers = otlp.headers.into_iter().map(header);
    Some(Otlp {
        protocol: otlp.protocol,
        endpoint: endpoint(&otlp.endpoint, otlp.tls)?,
        headers: headers.collect::<Option<_>>()?,
        bearer_token: otlp.bearer_token_secret_ref.map(secret),
        disk_max_bytes: match otlp.queue.persistent {
            Some(disk) => Some(disk.size_limit.parse()?),
            None => None,
        },
        compression: otlp.compression,
        timeout: otlp.timeout.parse()?,
        retry: Retry {
            max_elapsed: otlp.retry.max_elapsed.parse()?,
            initial_interval: otlp.retry.initial_interval.parse()?,
            max_interval: otlp.retry.max_interval.parse()?,
        },
    })
}

/// An address, a path, and what is spoken there.
pub(super) fn endpoint(text: &str, tls: Option<exporter::TlsSettings>) -> Option<Endpoint> {
    let (scheme, rest) = text.split_once("://")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // The colons of an IPv6 address stand in brackets.
    let has_port = host.rsplit(']').next().is_some_and(|tail| tail.contains(':'));
    let address = if has_port { host.to_owned() } else { format!("{host}:443") };
    let tls = (scheme == "https").then(|| resolve_tls(tls.unwrap_or_default()));
    Some(Endpoint { address, path: path.to_owned(), tls })
}

fn resolve_tls(tls: exporter::TlsSettings) -> Tls {
    Tls {
        authorities: tls.ca_ref.map(|ca| SecretKey { name: ca.name, key: ca.key }),
        client_certificate: tls.client_certificate_ref.map(|reference| reference.name),
        server_name: tls.server_name,
        skip_verify: tls.insecure_skip_verify,
    }
}

fn secret(reference: SecretKeyRef) -> SecretKey {
    SecretKey { name: reference.name, key: reference.key }
}

fn header(written: exporter::Header) -> Option<(String, HeaderValue)> {
    let value = match (written.value, written.secret_key_ref) {
        (Some(text), None) => HeaderValue::Text(text),
        (None, Some(reference)) => HeaderValue::Secret(secret(reference)),
        _ => return None,
    };
    Some((written.name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_a_path_and_tls() {
        let cases = [
            ("http://tempo:4317", "tempo:4317", "", false),
            ("https://otlp.example.com", "otlp.example.com:443", "", true),
            ("https://[::1]", "[::1]:443", "", true),
            ("https://[::1]:9/otlp/v1/traces?x=a:b", "[::1]:9", "/otlp/v1/traces?x=a:b", true),
            ("http://a.b:80/", "a.b:80", "/", false),
        ];
        for (text, address, path, secure) in cases {
            let read = endpoint(text, None).unwrap();
            let found = (read.address.as_str(), read.path.as_str(), read.tls.is_some());
            assert_eq!(found, (address, path, secure), "{text}");
        }
    }
}
