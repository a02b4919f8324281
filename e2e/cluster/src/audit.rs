//! Reads the API server's audit log: who asked for what, and with which answer.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use serde::Deserialize;

use crate::error::{Error, OnFile};

/// What the API server writes down: every request of everybody but Kubernetes itself. A watch is written
/// down when it begins, everything else when it has been answered.
pub(crate) const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    users:
      - system:apiserver
      - system:kube-controller-manager
      - system:kube-proxy
      - system:kube-scheduler
  - level: None
    userGroups: [system:nodes, "system:serviceaccounts:kube-system"]
  - level: None
    nonResourceURLs: ["/livez*", "/readyz*", "/healthz*", "/openapi/*", "/api*", "/version"]
  - level: Metadata
"#;

/// One request and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// Who asked, such as `system:serviceaccount:ringtail:ringtail-operator`.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, ...
    pub verb: String,
    /// API group; empty for the core group.
    pub group: String,
    /// Plural name of the resource, with `/status` and the like when a subresource was asked for.
    pub resource: String,
    /// Namespace; empty for what has none.
    pub namespace: String,
    /// Name of the object; empty for lists, watches and generated names.
    pub name: String,
    /// The status code of the answer.
    pub code: u16,
    /// What the program calls itself, field manager included for writes.
    pub agent: String,
    /// Path and query.
    pub uri: String,
    /// When the request came in, as the API server wrote it.
    pub time: String,
}

/// A reader of the audit log that goes on where it stopped.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    offset: u64,
}

// === impl AuditEvent ===

impl AuditEvent {
    /// Whether it asked for a change.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

// === impl Audit ===

impl Audit {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, offset: 0 }
    }

    /// Skips everything that is written by now.
    pub fn skip(&mut self) -> Result<(), Error> {
        self.offset = std::fs::metadata(&self.path).on("look at", &self.path)?.len();
        Ok(())
    }

    /// The events since the last call, or since the beginning, in the order in which they were answered.
    ///
    /// An answer may reach its asker a moment before its event is written.
    pub fn events(&mut self) -> Result<Vec<AuditEvent>, Error> {
        let mut file = File::open(&self.path).on("open", &self.path)?;
        file.seek(SeekFrom::Start(self.offset)).on("read", &self.path)?;
        let mut reader = BufReader::new(file);
        let mut events = Vec::new();
        let mut line = String::new();
        loop {
            line.clear();
            let bytes = reader.read_line(&mut line).on("read", &self.path)?;
            // A line that is still being written is left for the next call.
            if bytes == 0 || !line.ends_with('\n') {
                return Ok(events);
            }
            self.offset += u64::try_from(bytes).unwrap_or_default();
            events.extend(serde_json::from_str::<Line>(&line).ok().and_then(Line::event));
        }
    }
}

/// The part of an audit event that we read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    #[serde(rename = "requestURI")]
    uri: String,
    verb: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: Status,
    request_received_timestamp: String,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    api_group: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: u16,
}

// === impl Line ===

impl Line {
    fn event(self) -> Option<AuditEvent> {
        // A watch ends only with its client; the stage that says it has begun is the one that counts.
        let counts = if self.verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
        let object = self.object_ref;
        let resource = match object.subresource.as_str() {
            "" => object.resource,
            sub => format!("{}/{sub}", object.resource),
        };
        (self.stage == counts).then_some(AuditEvent {
            user: self.user.username,
            verb: self.verb,
            group: object.api_group,
            resource,
            namespace: object.namespace,
            name: object.name,
            code: self.response_status.code,
            agent: self.user_agent,
            uri: self.uri,
            time: self.request_received_timestamp,
        })
    }
}
