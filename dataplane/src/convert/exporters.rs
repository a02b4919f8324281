//! Exporters of the gateways: otlp, otlphttp, debug.

use ringtail_crds::schema;

use super::Secrets;
use super::environment::{Part, parts};
use super::report::Place;
use super::source::{Entry, Fields, Reader};
use super::tree::Tree;

/// What a queue may hold in bytes.
const QUEUE_BYTES_MIN: u64 = 1 << 20;
const QUEUE_BYTES_MAX: u64 = 64 << 30;
/// Renamed files that are kept at most.
const BACKUPS_MAX: i64 = 1_000;
/// Whether this version of Ringtail has TLS to backends is whether it has settings for it.
const TLS: &str = "spec.exporters[].otlp.tls";
const PROTOCOL: &str = "spec.exporters[].otlp.protocol";

/// One exporter on its way.
pub(super) struct Backend<'a, 'r> {
    pub(super) reader: &'a mut Reader<'r>,
    pub(super) secrets: &'a Secrets,
    pub(super) name: String,
}

/// What an exporter shows of itself in the header `authorization`.
pub(super) struct Token {
    pub(super) scheme: String,
    /// As it is written, variables included.
    pub(super) raw: String,
    pub(super) place: Place,
}

/// Where it is and how it is spoken to.
struct Address {
    url: String,
    tls: bool,
}

// === impl Backend ===

impl Backend<'_, '_> {
    /// The exporter as an entry of `spec.exporters`; `None` when nothing is like it, which is told.
    pub(super) fn convert(
        &mut self,
        type_: &str,
        entry: &Entry<'_>,
        token: Option<Token>,
    ) -> Option<Tree> {
        let mut fields = Fields::of(entry, self.reader.report);
        let otlp = match type_ {
            "otlp" | "otlp_grpc" => self.grpc(&mut fields, token),
            "otlphttp" | "otlp_http" => self.http(&mut fields, token),
            "debug" | "logging" => return self.debug(fields),
            "file" if schema::knows("spec.exporters[].file") => return self.file(fields),
            "nop" => {
                self.reader.report.built_in(&entry.place, "does nothing");
                return None;
            }
            other => {
                let why = format!("Ringtail speaks OTLP to backends, and has no exporter {other}");
                self.reader.report.lost(&entry.place, why);
                return None;
            }
        };
        fields.finish(self.reader.report);
        Some(Tree::map([
            ("name", Tree::text(self.name.clone())),
            ("type", Tree::text("OTLP")),
            ("otlp", otlp?),
        ]))
    }

    fn grpc(&mut self, fields: &mut Fields<'_>, token: Option<Token>) -> Option<Tree> {
        let tls = fields.take("tls");
        let endpoint = fields.take("endpoint");
        let Some(endpoint) = endpoint else {
            self.reader.report.error(&fields.place, "needs an endpoint");
            return None;
        };
        let text = self.reader.text(&endpoint)?;
        let plain = tls.as_ref().and_then(|tls| tls.field("insecure"));
        let plain = plain.and_then(|plain| self.reader.truth(&plain)).unwrap_or_default();
        let (secure, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => (!plain, text.strip_prefix("dns:///").unwrap_or(&text)),
        };
        let rest = rest.trim_end_matches('/');
        let port = if has_port(rest) { "" } else { ":4317" };
        let scheme = if secure { "https" } else { "http" };
        let address = Address { url: format!("{scheme}://{rest}{port}"), tls: secure };
        fields.lost("balancer_name", self.reader.report, "a backend has one connection");
        self.otlp(fields, &endpoint.place, &address, tls, None, token)
    }

    fn http(&mut self, fields: &mut Fields<'_>, token: Option<Token>) -> Option<Tree> {
        let tls = fields.take("tls");
        let (base, own) = (fields.take("endpoint"), fields.take("traces_endpoint"));
        let encoding = fields.take("encoding").and_then(|entry| self.reader.text(&entry));
        for name in ["metrics_endpoint", "logs_endpoint", "profiles_endpoint"] {
            fields.lost(name, self.reader.report, "only traces are sent");
        }
        let protocol = match encoding.as_deref() {
            Some("json") => "HTTPJSON",
            _ => "HTTPProtobuf",
        };
        let Some(entry) = own.as_ref().or(base.as_ref()) else {
            self.reader.report.error(&fields.place, "needs an endpoint");
            return None;
        };
        if !schema::takes(PROTOCOL, protocol) {
            let why =
                format!("this version of Ringtail has no protocol {protocol}; it is left out");
            self.reader.report.lost(&entry.place, why);
            *fields = Fields::empty(&entry.place);
            return None;
        }
        let text = self.reader.text(entry)?;
        let text = text.trim_end_matches('/');
        let path = text.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
        // The Collector appends the path to endpoint, and takes traces_endpoint as it is.
        let url = match (own.is_some(), path) {
            (false, Some(_)) => format!("{text}/v1/traces"),
            _ => with_port(text),
        };
        let address = Address { tls: url.starts_with("https://"), url };
        self.otlp(fields, &entry.place, &address, tls, Some(protocol), token)
    }

    fn otlp(
        &mut self,
        fields: &mut Fields<'_>,
        place: &Place,
        address: &Address,
        tls: Option<Entry<'_>>,
        protocol: Option<&str>,
        token: Option<Token>,
    ) -> Option<Tree> {
        if address.tls && !schema::knows(TLS) {
            self.reader.report.lost(
                place,
                "this version of Ringtail has no TLS to backends; it is left out. If the backend listens \
                 without TLS, say tls.insecure: true",
            );
            *fields = Fields::empty(place);
            return None;
        }
        let otlp = Tree::map([("endpoint", Tree::text(address.url.clone()))]);
        let otlp = otlp.with_some("protocol", protocol.map(Tree::text));
        let otlp = otlp.with_some("tls", tls.and_then(|tls| self.tls(&tls, address.tls)));
        let otlp = otlp.with_some("compression", self.compression(fields));
        let timeout = fields.take("timeout");
        let timeout = timeout.and_then(|entry| super::bounded(self.reader, &entry, 100, 300_000));
        let otlp = otlp.with_some("timeout", timeout);
        let headers = fields.take("headers").map(|entry| self.headers(&entry)).unwrap_or_default();
        let mut headers = headers;
        let bearer = token.as_ref().and_then(|token| self.bearer(token));
        if let Some(token) = token.filter(|_| bearer.is_none()) {
            let value = format!("{} {}", token.scheme, token.raw);
            headers.extend(self.header("authorization", &value, &token.place));
        }
        let otlp = otlp.with_some("bearerTokenSecretRef", bearer);
        let otlp = otlp.with_some("headers", (!headers.is_empty()).then_some(Tree::List(headers)));
        let queue = fields.take_bare("sending_queue").and_then(|queue| self.queue(&queue));
        let retry = fields.take_bare("retry_on_failure").and_then(|retry| self.retry(&retry));
        // Who calls has read it: a token is a header here.
        fields.take("auth");
        for name in ["keepalive", "read_buffer_size", "write_buffer_size", "wait_for_ready"] {
            fields.built_in(name, self.reader.report, "connections are kept without settings");
        }
        Some(otlp.with_some("queue", queue).with_some("retry", retry))
    }

    /// Whom to trust and what to show.
    pub(super) fn tls(&mut self, entry: &Entry<'_>, secure: bool) -> Option<Tree> {
        let mut fields = Fields::of(entry, self.reader.report);
        fields.take("insecure");
        if !secure {
            for (_, option) in entry.fields().iter().filter(|(name, _)| *name != "insecure") {
                self.reader.report.built_in(&option.place, "the connection is not encrypted");
            }
            return None;
        }
        let skip = fields.take("insecure_skip_verify");
        let name = fields.take("server_name_override").and_then(|entry| self.reader.text(&entry));
        let mut secret = |names: &[&str], part: &str, keys: &str, reader: &mut Reader<'_>| {
            let found: Vec<_> = names.iter().filter_map(|name| fields.take(name)).collect();
            let place = &found.first()?.place;
            let secret = format!("{}-{part}", self.name);
            let why =
                format!("put it into a Secret {secret} of the pipeline's namespace, as {keys}");
            reader.report.yours_to_do(place, why);
            Some(Tree::map([("name", Tree::text(secret))]))
        };
        let ca = secret(&["ca_file", "ca_pem"], "ca", "ca.crt", self.reader);
        let names = ["cert_file", "cert_pem", "key_file", "key_pem"];
        let client = secret(&names, "client", "tls.crt and tls.key", self.reader);
        self.versions(&mut fields);
        fields.built_in("reload_interval", self.reader.report, "files are read every second");
        if let Some(pool) = fields.take("include_system_ca_certs_pool")
            && self.reader.truth(&pool) == Some(true)
            && ca.is_some()
        {
            let why =
                "caRef stands instead of the public authorities: put those that you need into it";
            self.reader.report.differs(&pool.place, why);
        }
        fields.finish(self.reader.report);
        let skip = skip.filter(|skip| self.reader.truth(skip) == Some(true));
        let skip = match (skip, &ca) {
            (Some(skip), Some(_)) => {
                let why = "is left out: certificates are checked against caRef";
                self.reader.report.differs(&skip.place, why);
                None
            }
            (skip, _) => skip.map(|_| Tree::Truth(true)),
        };
        let settings = Tree::Map(Vec::new())
            .with_some("caRef", ca)
            .with_some("clientCertificateRef", client)
            .with_some("serverName", name.filter(|name| !name.is_empty()).map(Tree::Text))
            .with_some("insecureSkipVerify", skip);
        (settings != Tree::Map(Vec::new())).then_some(settings)
    }

    /// TLS 1.2 and 1.3 are spoken, which is also what the Collector does unless it is told.
    fn versions(&mut self, fields: &mut Fields<'_>) {
        for (name, usual) in [("min_version", "1.2"), ("max_version", "1.3")] {
            let Some(entry) = fields.take(name) else { continue };
            match self.reader.text(&entry) {
                Some(version) if version == usual => {
                    self.reader.report.built_in(&entry.place, "TLS 1.2 and 1.3 are spoken");
                }
                _ => self.reader.report.lost(&entry.place, "TLS 1.2 and 1.3 are spoken, always"),
            }
        }
    }

    fn compression(&mut self, fields: &mut Fields<'_>) -> Option<Tree> {
        fields.lost("compression_params", self.reader.report, "levels cannot be chosen");
        let entry = fields.take("compression")?;
        match self.reader.text(&entry)?.as_str() {
            "none" | "" => Some(Tree::text("None")),
            "gzip" => Some(Tree::text("Gzip")),
            "zstd" => Some(Tree::text("Zstd")),
            other => {
                let why = format!("{other} is not one of None, Gzip and Zstd; Gzip is used");
                self.reader.report.differs(&entry.place, why);
                Some(Tree::text("Gzip"))
            }
        }
    }

    fn headers(&mut self, entry: &Entry<'_>) -> Vec<Tree> {
        let table = self.reader.table(entry);
        let mut headers = Vec::new();
        for (name, (value, place)) in table {
            headers.extend(self.header(&name, &value, &place));
        }
        headers
    }

    /// A header; what stands in the environment of a Collector is a Secret here.
    fn header(&mut self, name: &str, raw: &str, place: &Place) -> Option<Tree> {
        let name = name.to_ascii_lowercase();
        let open = self.reader.environment.open(raw);
        let Some(variable) = open.first() else {
            let value = match self.reader.environment.expand(raw) {
                Ok(value) => value,
                Err(problem) => {
                    self.reader.report.error(place, problem);
                    return None;
                }
            };
            return Some(Tree::map([("name", Tree::text(name)), ("value", Tree::text(value))]));
        };
        let (secret, key) = self.secrets.place_of(variable);
        let whole = parts(raw).len() == 1 && matches!(parts(raw)[..], [Part::Variable { .. }]);
        let shape = match whole {
            true => String::new(),
            false => format!(", the whole value: {raw}"),
        };
        let why = format!("put it into the Secret {secret} under the key {key}{shape}");
        self.reader.report.yours_to_do(place, why);
        let reference = Tree::map([("name", Tree::text(secret)), ("key", Tree::text(key))]);
        Some(Tree::map([("name", Tree::text(name)), ("secretKeyRef", reference)]))
    }

    /// A token that stands in the environment, where the version has a field for it.
    fn bearer(&mut self, token: &Token) -> Option<Tree> {
        let field = "spec.exporters[].otlp.bearerTokenSecretRef";
        let whole = matches!(parts(&token.raw)[..], [Part::Variable { default: None, .. }]);
        let variable = *self.reader.environment.open(&token.raw).first()?;
        if token.scheme != "Bearer" || !whole || !schema::knows(field) {
            return None;
        }
        let (secret, key) = self.secrets.place_of(variable);
        let why = format!("put the token into the Secret {secret} under the key {key}");
        self.reader.report.yours_to_do(&token.place, why);
        Some(Tree::map([("name", Tree::text(secret)), ("key", Tree::text(key))]))
    }

    fn queue(&mut self, entry: &Entry<'_>) -> Option<Tree> {
        let mut fields = Fields::of(entry, self.reader.report);
        let enabled = fields.take("enabled").and_then(|entry| self.reader.truth(&entry));
        let sizer = fields.take("sizer").and_then(|entry| self.reader.text(&entry));
        let size = fields.take("queue_size");
        let storage = fields.take("storage");
        let report = &mut *self.reader.report;
        fields.built_in(
            "num_consumers",
            report,
            "requests wait in one queue and go out side by side",
        );
        fields.built_in(
            "block_on_overflow",
            report,
            "a full queue drops, and counts it, for its backend alone",
        );
        fields.built_in("wait_for_result", report, "answers are given when spans are stored");
        fields.built_in("batch", report, "what is kept within a moment goes out together");
        fields.finish(report);
        if enabled == Some(false) {
            report.differs(
                &entry.place,
                "there is always a queue: spans wait while a request is tried again",
            );
        }
        let disk = storage.and_then(|storage| self.disk(&storage));
        let memory = size.and_then(|size| self.queue_bytes(&size, sizer.as_deref()));
        let queue = Tree::Map(Vec::new());
        let queue = queue.with_some("maxBytes", memory).with_some("persistent", disk);
        (queue != Tree::Map(Vec::new())).then_some(queue)
    }

    fn disk(&mut self, storage: &Entry<'_>) -> Option<Tree> {
        if !schema::knows("spec.exporters[].otlp.queue.persistent") {
            self.reader
                .report
                .lost(&storage.place, "this version of Ringtail has queues in memory only");
            return None;
        }
        let why = "the queue on disk is bounded in bytes, and lies in an emptyDir: 1Gi is used";
        self.reader.report.differs(&storage.place, why);
        Some(Tree::map([("sizeLimit", Tree::text("1Gi"))]))
    }

    fn queue_bytes(&mut self, size: &Entry<'_>, sizer: Option<&str>) -> Option<Tree> {
        let count = self.reader.number(size)?;
        if sizer != Some("bytes") {
            let unit = sizer.unwrap_or("requests");
            let why =
                format!("queues are measured in bytes, not in {unit}: the default of 64Mi is used");
            self.reader.report.differs(&size.place, why);
            return None;
        }
        let bytes = count.unsigned_abs().clamp(QUEUE_BYTES_MIN, QUEUE_BYTES_MAX);
        if bytes != count.unsigned_abs() {
            self.reader.report.differs(&size.place, "a queue has from 1Mi to 64Gi");
        }
        Some(Tree::Text(super::size(bytes)))
    }

    fn retry(&mut self, entry: &Entry<'_>) -> Option<Tree> {
        let mut fields = Fields::of(entry, self.reader.report);
        let enabled = fields.take("enabled").and_then(|entry| self.reader.truth(&entry));
        let (first, longest) = (fields.take("initial_interval"), fields.take("max_interval"));
        let elapsed = fields.take("max_elapsed_time");
        for name in ["multiplier", "randomization_factor"] {
            fields.built_in(name, self.reader.report, "waits double, with a random part");
        }
        fields.finish(self.reader.report);
        if enabled == Some(false) {
            let why = "requests are always tried again; it is for as short as can be";
            self.reader.report.differs(&entry.place, why);
            return Some(Tree::map([("maxElapsed", Tree::text("1s"))]));
        }
        // The Collector's defaults, for comparing: 5 s and 30 s.
        let micros = |entry: &Option<Entry<'_>>, reader: &mut Reader<'_>, default| {
            entry.as_ref().and_then(|entry| reader.micros(entry)).unwrap_or(default)
        };
        let (begin, end) =
            (micros(&first, self.reader, 5_000_000), micros(&longest, self.reader, 30_000_000));
        let elapsed = elapsed.and_then(|entry| match self.reader.micros(&entry)? {
            0 => {
                let why = "a request is tried for at most a day; the Collector never gives up";
                self.reader.report.differs(&entry.place, why);
                Some(Tree::text("24h"))
            }
            _ => super::bounded(self.reader, &entry, 1_000, 86_400_000),
        });
        let retry = Tree::Map(Vec::new()).with_some("maxElapsed", elapsed);
        let bound = |micros: u64| micros.clamp(10_000, 600_000_000);
        let named = first.is_some() || longest.is_some();
        let retry = match named {
            true => retry
                .with("initialInterval", Tree::Text(super::duration(bound(begin))))
                .with("maxInterval", Tree::Text(super::duration(bound(end.max(begin))))),
            false => retry,
        };
        (retry != Tree::Map(Vec::new())).then_some(retry)
    }

    fn debug(&mut self, mut fields: Fields<'_>) -> Option<Tree> {
        let place = fields.place.clone();
        if !schema::knows("spec.exporters[].debug") {
            self.reader.report.lost(&place, "this version of Ringtail has no exporter that prints");
            return None;
        }
        let verbosity = fields.take("verbosity").and_then(|entry| self.reader.text(&entry));
        let verbosity = match verbosity.as_deref() {
            Some("detailed") => "Detailed",
            Some("normal") => "Normal",
            _ => "Basic",
        };
        let mut count = |name: &str| {
            let count = fields.take(name).and_then(|entry| self.reader.number(&entry));
            count.filter(|count| *count > 0).map(Tree::Number)
        };
        let (first, then) = (count("sampling_initial"), count("sampling_thereafter"));
        fields.finish(self.reader.report);
        let debug = Tree::map([("verbosity", Tree::text(verbosity))])
            .with_some("samplingInitial", first)
            .with_some("samplingThereafter", then);
        Some(Tree::map([
            ("name", Tree::text(self.name.clone())),
            ("type", Tree::text("Debug")),
            ("debug", debug),
        ]))
    }

    fn file(&mut self, mut fields: Fields<'_>) -> Option<Tree> {
        let place = fields.place.clone();
        let path = fields.take("path").and_then(|path| self.reader.text(&path))?;
        let rotation = fields.take("rotation");
        if let Some(format) = fields.take("format")
            && self.reader.text(&format).as_deref() != Some("json")
        {
            self.reader.report.differs(&format.place, "the file is OTLP/JSON, a request a line");
        }
        fields.finish(self.reader.report);
        let why = "mount a volume there with gateway.volumes and gateway.volumeMounts";
        self.reader.report.yours_to_do(&place, why);
        let rotation = rotation.map(|entry| {
            let mut fields = Fields::of(&entry, self.reader.report);
            let mut number = |name: &str, reader: &mut Reader<'_>| {
                fields.take(name).and_then(|entry| reader.number(&entry))
            };
            let megabytes = number("max_megabytes", self.reader).unwrap_or(100).max(1);
            let backups = number("max_backups", self.reader).unwrap_or(100).clamp(0, BACKUPS_MAX);
            fields.finish(self.reader.report);
            Tree::map([
                ("maxBytes", Tree::Text(super::size(megabytes.unsigned_abs() << 20))),
                ("maxBackups", Tree::Number(backups)),
            ])
        });
        let file = Tree::map([("path", Tree::Text(path))]).with_some("rotation", rotation);
        Some(Tree::map([
            ("name", Tree::text(self.name.clone())),
            ("type", Tree::text("File")),
            ("file", file),
        ]))
    }
}

/// A host with a port, an IPv6 address in brackets included.
fn has_port(rest: &str) -> bool {
    let tail = rest.rsplit(']').next().unwrap_or(rest);
    tail.contains(':')
}

/// With the port of its scheme, where none is written.
fn with_port(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = match rest.split_once('/') {
        Some((host, path)) => (host, format!("/{path}")),
        None => (rest, String::new()),
    };
    let port = match (has_port(host), scheme) {
        (true, _) => "",
        (false, "https") => ":443",
        (false, _) => ":80",
    };
    format!("{scheme}://{host}{port}{path}")
}
