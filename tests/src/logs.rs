//! Log records to send, and what arrived of them.

use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tonic::Status;
use tonic::codec::CompressionEncoding;

use crate::traces::text;

/// A record of a trace, or of none if the ID is empty, with a text of its own.
pub fn record(trace_id: Vec<u8>, body: &str) -> LogRecord {
    LogRecord {
        trace_id,
        time_unix_nano: 1_700_000_000_000_000_000,
        severity_text: "INFO".to_owned(),
        severity_number: 9,
        body: Some(AnyValue { value: Some(Value::StringValue(body.to_owned())) }),
        attributes: vec![text("thread", "main")],
        ..LogRecord::default()
    }
}

/// A request with these records of one service.
pub fn request(service: &str, log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: vec![text("service.name", service)],
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs {
                scope: Some(InstrumentationScope { name: "tests".into(), ..Default::default() }),
                log_records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
}

/// Every record of these requests.
pub fn records(requests: &[ExportLogsServiceRequest]) -> Vec<LogRecord> {
    let resources = requests.iter().flat_map(|request| &request.resource_logs);
    let scopes = resources.flat_map(|resource| &resource.scope_logs);
    scopes.flat_map(|scope| &scope.log_records).cloned().collect()
}

/// The text of a record.
pub fn body(record: &LogRecord) -> String {
    match record.body.as_ref().and_then(|body| body.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => panic!("a body of text: {other:?}"),
    }
}

/// How often each text came.
pub fn bodies(requests: &[ExportLogsServiceRequest]) -> HashMap<String, usize> {
    let mut bodies = HashMap::new();
    for record in records(requests) {
        *bodies.entry(body(&record)).or_default() += 1;
    }
    bodies
}

/// A client of a receiver.
pub async fn client(address: &str) -> LogsServiceClient<tonic::transport::Channel> {
    LogsServiceClient::connect(format!("http://{address}"))
        .await
        .expect("the receiver listens")
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip)
        .max_encoding_message_size(64 << 20)
}

/// Sends one request to a receiver.
pub async fn send(
    address: &str,
    request: ExportLogsServiceRequest,
) -> Result<ExportLogsServiceResponse, Status> {
    client(address).await.export(request).await.map(tonic::Response::into_inner)
}
