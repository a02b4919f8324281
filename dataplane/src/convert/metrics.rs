//! The spanmetrics connector, and the pipelines of metrics behind it.

use ringtail_crds::schema;

use super::bounded;
use super::conversion::Conversion;
use super::exporters::Backend;
use super::pipelines::{Config, Tier, type_of};
use super::report::Place;
use super::source::{Entry, Fields};
use super::tree::Tree;

/// The most series of a gateway, and exemplars of a series, in the schema.
const SERIES_MAX: i64 = 1_000_000;
const EXEMPLARS_MAX: i64 = 20;

/// What a connector says of its metrics on their way.
#[derive(Debug, Default)]
pub(super) struct Push {
    interval: Option<(Tree, Place)>,
    temporality: Option<Place>,
}

impl Conversion<'_> {
    /// A connector's settings as `spec.spanMetrics`.
    pub(super) fn span_metrics(&mut self, entry: &Entry<'_>) {
        if std::mem::replace(&mut self.measured, true) {
            return;
        }
        let place = &entry.place;
        if !schema::knows("spec.spanMetrics") {
            self.report.lost(place, "this version of Ringtail has no spec.spanMetrics");
            return;
        }
        let mut fields = Fields::of(entry, &mut self.report);
        self.draft.set(&mut self.report, "spanMetrics", Tree::Map(Vec::new()), place);
        if let Some(histogram) = fields.take("histogram") {
            self.histogram(&histogram);
        }
        let dimensions = fields.take("dimensions").map(|list| (self.dimensions(&list), list.place));
        if let Some((list, place)) = dimensions.filter(|(list, _)| !list.is_empty()) {
            self.draft.set(&mut self.report, "spanMetrics.dimensions", Tree::List(list), &place);
        }
        if let Some(excluded) = fields.take("exclude_dimensions") {
            let path = "spanMetrics.excludeDimensions";
            let known = |name: &String| schema::takes(&format!("spec.{path}[]"), name);
            let (names, others): (Vec<_>, Vec<_>) =
                self.reader().texts(&excluded).into_iter().partition(known);
            for name in others {
                let why = format!("{name} is no dimension that every series has");
                self.report.lost(&excluded.place, why);
            }
            let tree = Tree::texts(names);
            self.draft.set(&mut self.report, path, tree, &excluded.place);
        }
        self.bounds(&mut fields);
        if let Some(events) = fields.take("events") {
            self.events(&events);
        }
        let interval = fields.take("metrics_flush_interval");
        self.push.interval = interval.and_then(|entry| {
            // Read now, used where they are pushed.
            let tree = bounded(&mut self.reader(), &entry, 1_000, 600_000)?;
            Some((tree, entry.place))
        });
        self.push.temporality = fields.take("aggregation_temporality").and_then(|entry| {
            let text = self.reader().text(&entry)?;
            (text == "AGGREGATION_TEMPORALITY_DELTA").then_some(entry.place)
        });
        let why = "a gateway knows the resources of its own spans, within maxSeries";
        for name in
            ["resource_metrics_cache_size", "dimensions_cache_size", "metric_timestamp_cache_size"]
        {
            fields.built_in(name, &mut self.report, why);
        }
        fields.finish(&mut self.report);
    }

    fn bounds(&mut self, fields: &mut Fields<'_>) {
        let limit = fields.take("aggregation_cardinality_limit");
        if let Some((limit, place)) =
            limit.and_then(|limit| Some((self.reader().number(&limit)?, limit.place)))
            && limit > 0
        {
            let tree = Tree::Number(limit.min(SERIES_MAX));
            self.draft.set(&mut self.report, "spanMetrics.maxSeries", tree, &place);
        } else {
            let why = "the number of series is bounded by maxSeries, 10000 unless it is set";
            self.report.differs(&fields.place, why);
        }
        let series = fields.take("series_expiration");
        let all = fields.take("metrics_expiration");
        let mut expires = false;
        for expiry in [series, all].into_iter().flatten() {
            let set = self.reader().micros(&expiry).is_some_and(|micros| micros > 0);
            if !set || std::mem::replace(&mut expires, set) {
                continue;
            }
            if let Some(tree) = bounded(&mut self.reader(), &expiry, 60_000, 86_400_000) {
                self.draft.set(&mut self.report, "spanMetrics.expiry", tree, &expiry.place);
            }
        }
        if !expires {
            let why = "series that stand still are forgotten after a while (expiry); there they never are";
            self.report.differs(&fields.place, why);
        }
        if let Some(exemplars) = fields.take("exemplars") {
            let on = exemplars.field("enabled").and_then(|on| self.reader().truth(&on));
            let most = exemplars.field("max_per_data_point");
            let most = most
                .and_then(|most| self.reader().number(&most))
                .map(|most| Tree::Number(most.clamp(1, EXEMPLARS_MAX)));
            if on == Some(true) {
                let tree = Tree::map([("enabled", Tree::Truth(true))]);
                let tree = tree.with_some("maxPerDataPoint", most);
                let path = "spanMetrics.exemplars";
                self.draft.set(&mut self.report, path, tree, &exemplars.place);
            }
        }
    }

    fn histogram(&mut self, entry: &Entry<'_>) {
        let mut fields = Fields::of(entry, &mut self.report);
        let explicit = fields.take("explicit").and_then(|explicit| explicit.field("buckets"));
        let exponential = fields.take_bare("exponential");
        let unit = fields.take("unit");
        fields.finish(&mut self.report);
        if let Some(buckets) = explicit {
            let items = buckets.items();
            let micros: Vec<u64> =
                items.iter().filter_map(|item| self.reader().micros(item)).collect();
            if micros.iter().any(|micros| !micros.is_multiple_of(1_000)) {
                self.report.differs(&buckets.place, "bounds are whole milliseconds");
            }
            let tree = Tree::texts(micros.into_iter().map(super::duration));
            self.draft.set(&mut self.report, "spanMetrics.buckets", tree, &buckets.place);
        }
        if let Some(exponential) = exponential {
            let size = exponential.field("max_size").and_then(|size| self.reader().number(&size));
            let tree = Tree::map([("maxSize", Tree::Number(size.unwrap_or(160)))]);
            let path = "spanMetrics.exponential";
            self.draft.set(&mut self.report, path, tree, &exponential.place);
        }
        if let Some((text, place)) =
            unit.and_then(|unit| Some((self.reader().text(&unit)?, unit.place)))
        {
            let word = if text == "s" { "Seconds" } else { "Milliseconds" };
            if schema::takes("spec.spanMetrics.unit", word) {
                self.draft.set(&mut self.report, "spanMetrics.unit", Tree::text(word), &place);
            } else if text != "ms" {
                self.report.lost(&place, "durations are in milliseconds");
            }
        }
    }

    fn dimensions(&mut self, list: &Entry<'_>) -> Vec<Tree> {
        let mut dimensions = Vec::new();
        for item in list.items() {
            let mut fields = Fields::of(&item, &mut self.report);
            let name = fields.take("name").and_then(|name| self.reader().text(&name));
            let default = fields.take("default").and_then(|text| self.reader().text(&text));
            fields.lost("glob", &mut self.report, "dimensions are named one by one");
            fields.finish(&mut self.report);
            if let Some(name) = name {
                let tree = Tree::map([("name", Tree::Text(name))]);
                dimensions.push(tree.with_some("default", default.map(Tree::Text)));
            }
        }
        dimensions
    }

    fn events(&mut self, entry: &Entry<'_>) {
        let on = entry.field("enabled").and_then(|on| self.reader().truth(&on));
        let dimensions = entry.field("dimensions").map(|list| self.dimensions(&list));
        if on == Some(true) {
            let list = Tree::List(dimensions.unwrap_or_default());
            let tree = Tree::map([("dimensions", list)]);
            self.draft.set(&mut self.report, "spanMetrics.events", tree, &entry.place);
        }
    }

    /// Where span metrics go: gateways show them, and push them to one receiver of OTLP/gRPC.
    fn metrics_exporter(&mut self, config: &Config<'_>, id: &str, place: &Place) {
        let why = "span metrics are read from every gateway: port 8888, path /metrics";
        self.report.differs(place, why);
        let path = "spanMetrics.otlp";
        let entry = config.component("exporters", id);
        let Some(entry) = entry.filter(|_| matches!(type_of(id), "otlp" | "otlp_grpc")) else {
            return;
        };
        let insecure = entry.field("tls").and_then(|tls| tls.field("insecure"));
        let insecure = insecure.and_then(|insecure| self.reader().truth(&insecure));
        let endpoint = entry.field("endpoint").and_then(|entry| self.reader().text(&entry));
        let (Some(endpoint), true) = (endpoint, self.measured) else {
            self.report.lost(&entry.place, "metrics are not pushed there");
            return;
        };
        let (scheme, host) = endpoint.split_once("://").unwrap_or(("", endpoint.as_str()));
        let secure = scheme == "https" || scheme != "http" && insecure != Some(true);
        let scheme = if secure { "https" } else { "http" };
        let push = Tree::map([("endpoint", Tree::text(format!("{scheme}://{host}")))]);
        let tls = entry.field("tls").and_then(|tls| {
            let (secrets, name) = (self.secrets, "span-metrics".to_owned());
            Backend { reader: &mut self.reader(), secrets, name }.tls(&tls, secure)
        });
        let temporality = self.push.temporality.take().map(|_| Tree::text("Delta"));
        let push = push
            .with_some("tls", tls)
            .with_some("interval", self.push.interval.take().map(|(tree, _)| tree))
            .with_some("aggregationTemporality", temporality);
        self.draft.set(&mut self.report, path, push, &entry.place);
    }

    /// Settings of a push that there is none of.
    fn not_pushed(&mut self) {
        let Push { interval, temporality } = std::mem::take(&mut self.push);
        for place in interval.map(|(_, place)| place).into_iter().chain(temporality) {
            let why = "series are cumulative, and read when they are asked for";
            self.report.built_in(&place, why);
        }
    }

    /// Pipelines of other signals, extensions, and what the Collector says of itself.
    pub(super) fn others(&mut self, config: &Config<'_>) {
        for pipeline in config.of(Tier::Other) {
            let measured = |(id, _): &(String, _)| type_of(id) == "spanmetrics";
            let of_spans = pipeline.receivers.iter().any(measured);
            match (pipeline.signal.as_str(), of_spans) {
                ("metrics", true) => {
                    for (id, place) in &pipeline.exporters {
                        self.metrics_exporter(config, id, place);
                    }
                }
                ("logs", _) => {}
                (signal, _) => {
                    let why =
                        format!("Ringtail carries traces and logs: leave a Collector for {signal}");
                    self.report.lost(&pipeline.place, why);
                }
            }
        }
        self.not_pushed();
        let why = "every process serves /livez, /readyz, /metrics and /stats on port 8888";
        for (name, entry) in
            config.entry.field("extensions").iter().flat_map(|extensions| extensions.fields())
        {
            match type_of(name) {
                "health_check" | "healthcheckv2" => self.report.built_in(&entry.place, why),
                // The exporters that use it have told.
                "bearertokenauth" => {}
                other => {
                    self.report.lost(&entry.place, format!("Ringtail has no extension {other}"))
                }
            }
        }
        let telemetry =
            config.entry.field("service").and_then(|service| service.field("telemetry"));
        if let Some(telemetry) = telemetry {
            self.report.built_in(&telemetry.place, why);
        }
    }
}
