//! An OTLP/gRPC receiver of metrics that keeps the last point of every series, or the sum of its deltas.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogramDataPoint, Metric,
};
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::certificates::{Authority, Presented};
use crate::exposition::Labels;

/// A sink on a free loopback port, for as long as it is held.
#[derive(Debug)]
pub struct MetricsSink {
    /// Where it listens.
    pub address: SocketAddr,
    points: Points,
    task: tokio::task::JoinHandle<()>,
}

/// The last points, by metric, attributes of the resource and of the point.
type Points = Arc<Mutex<BTreeMap<(String, Labels, Labels), Point>>>;

/// A point.
#[derive(Clone, Debug, PartialEq)]
pub enum Point {
    /// Of a sum.
    Sum(i64),
    /// Of an exponential histogram.
    Exponential(Box<ExponentialHistogramDataPoint>),
    /// Of an explicit one: spans and their durations.
    Explicit(Vec<u64>, f64),
}

struct Service(Points);

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let mut points = self.0.lock().unwrap();
        for of_resource in request.into_inner().resource_metrics {
            let resource = labels(of_resource.resource.map(|it| it.attributes).unwrap_or_default());
            for metric in of_resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                let name = metric.name.clone();
                let delta = is_delta(&metric);
                for (of_point, point) in points_of(metric) {
                    let key = (name.clone(), resource.clone(), of_point);
                    let point = match points.get(&key).filter(|_| delta) {
                        Some(before) => before.plus(&point),
                        None => point,
                    };
                    points.insert(key, point);
                }
            }
        }
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn is_delta(metric: &Metric) -> bool {
    let temporality = match &metric.data {
        Some(Data::Sum(sum)) => sum.aggregation_temporality,
        Some(Data::Histogram(histogram)) => histogram.aggregation_temporality,
        Some(Data::ExponentialHistogram(histogram)) => histogram.aggregation_temporality,
        other => panic!("not a metric of spans: {other:?}"),
    };
    temporality == i32::from(AggregationTemporality::Delta)
}

fn points_of(metric: Metric) -> Vec<(Labels, Point)> {
    match metric.data {
        Some(Data::Sum(sum)) => {
            let point = |point: opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| {
                let Some(Number::AsInt(value)) = point.value else { panic!("{point:?}") };
                (labels(point.attributes), Point::Sum(value))
            };
            sum.data_points.into_iter().map(point).collect()
        }
        Some(Data::ExponentialHistogram(histogram)) => {
            let point = |mut point: ExponentialHistogramDataPoint| {
                let of = labels(std::mem::take(&mut point.attributes));
                (of, Point::Exponential(Box::new(point)))
            };
            histogram.data_points.into_iter().map(point).collect()
        }
        Some(Data::Histogram(histogram)) => {
            let points = histogram.data_points.into_iter();
            points
                .map(|point| {
                    let sum = point.sum.unwrap_or_default();
                    (labels(point.attributes), Point::Explicit(point.bucket_counts, sum))
                })
                .collect()
        }
        other => panic!("not a metric of spans: {other:?}"),
    }
}

fn labels(attributes: Vec<KeyValue>) -> Labels {
    let text = |value| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(yes)) => yes.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pair = |pair: KeyValue| (pair.key, text(pair.value.and_then(|any| any.value)));
    attributes.into_iter().map(pair).collect()
}

// === impl Point ===

impl Point {
    fn plus(&self, more: &Self) -> Self {
        match (self, more) {
            (Self::Sum(one), Self::Sum(other)) => Self::Sum(one + other),
            (Self::Explicit(counts, sum), Self::Explicit(more, rest)) => {
                let counts = counts.iter().zip(more).map(|(one, other)| one + other);
                Self::Explicit(counts.collect(), sum + rest)
            }
            other => panic!("no sum of these: {other:?}"),
        }
    }
}

// === impl MetricsSink ===

impl MetricsSink {
    /// Starts on a free port.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same in TLS, with clients that must show a certificate.
    pub async fn start_tls(own: &Presented, clients: &Authority) -> Self {
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&own.certificate, &own.key))
            .client_ca_root(Certificate::from_pem(clients.pem()));
        Self::start_with(Some(tls)).await
    }

    async fn start_with(tls: Option<ServerTlsConfig>) -> Self {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).expect("a free port");
        let address = incoming.local_addr().unwrap();
        let points = Points::default();
        let service = MetricsServiceServer::new(Service(Arc::clone(&points)))
            .accept_compressed(CompressionEncoding::Gzip);
        let task = tokio::spawn(async move {
            let mut server = tonic::transport::Server::builder();
            if let Some(tls) = tls {
                server = server.tls_config(tls).expect("certificates of the test");
            }
            let server = server.add_service(service);
            server.serve_with_incoming(incoming).await.expect("the sink serves");
        });
        Self { address, points, task }
    }

    /// The last points.
    pub fn points(&self) -> BTreeMap<(String, Labels, Labels), Point> {
        self.points.lock().unwrap().clone()
    }

    /// The sum of the last points of a metric.
    pub fn sum(&self, name: &str) -> i64 {
        let points = self.points.lock().unwrap();
        let values =
            points.iter().filter(|((of, ..), _)| of == name).map(|(_, point)| match point {
                Point::Sum(value) => *value,
                other => panic!("{name} is no sum: {other:?}"),
            });
        values.sum()
    }
}

impl Drop for MetricsSink {
    fn drop(&mut self) {
        self.task.abort();
    }
}
