//! The task that asks gateways, publishes what they say, and writes `status.ring` and `status.sampling`.
//!
//! It is not a reconcile and starts none, save when a verdict changes that a condition repeats. Agents are
//! not asked: they stamp their digest on what they send, and gateways pass on whom they heard.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{StreamExt, stream};
use kube::{Client, ResourceExt, api::DynamicObject, runtime::reflector::ObjectRef};
use ringtail_crds::TracePipeline;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    answer::Answer,
    fetch,
    ring::{Patience, Standing},
    tally::Tally,
    view::{Degraded, Loaded, View, Views},
    write,
};
use crate::{
    labels,
    metrics::Metrics,
    stores::{Guarded, Stores},
};

/// Twenty polls in the window of `status.sampling`, and two before a split is told.
pub const INTERVAL: Duration = Duration::from_secs(15);
/// Open connections to gateways. A hundred pipelines of ten gateways that all time out take 1,000 / 16 * 2
/// s, two minutes; healthy ones a second.
const REQUESTS_MAX: usize = 16;
/// After three windows without an answer what was known is no longer worth showing.
const SILENT_POLLS_MAX: u32 = 3;
/// Status is written at most this often unless the ring's standing changes: 100 pipelines make two writes a
/// second.
const WRITE_INTERVAL: Duration = Duration::from_secs(60);
/// Late spans of a thousand decided traces that are worth a condition: 1 %.
const LATE_PERMILLE_MIN: u64 = 10;

/// The task.
pub struct Poll {
    /// Behind the gate.
    pub client: Client,
    /// What is known of the cluster.
    pub stores: Stores,
    /// Where the views go.
    pub views: watch::Sender<Views>,
    /// Pipelines whose conditions change by what gateways say.
    pub flips: mpsc::Sender<ObjectRef<Guarded>>,
    /// For the members of rings.
    pub metrics: Metrics,
    /// Where gateways listen; [`fetch::ADMIN_PORT`] but in tests.
    pub port: u16,
    /// [`INTERVAL`] but in tests.
    pub interval: Duration,
}

/// What is remembered of one pipeline between polls.
#[derive(Default)]
struct Tracker {
    tally: Tally,
    patience: Patience,
    silent_polls: u32,
    view: Arc<View>,
    written: Option<(Instant, write::Written)>,
}

// === impl Poll ===

impl Poll {
    /// Asks until it is dropped.
    pub async fn run(self) {
        self.stores.wait_until_ready().await;
        let mut trackers: HashMap<String, Tracker> = HashMap::new();
        loop {
            self.round(&mut trackers).await;
            // Operators that restarted together do not ask together.
            tokio::time::sleep(self.interval.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
        }
    }

    async fn round(&self, trackers: &mut HashMap<String, Tracker>) {
        let state = self.stores.pipelines.state();
        let pipelines: Vec<&TracePipeline> =
            state.iter().filter_map(|pipeline| pipeline.0.as_ref().ok()).collect();
        let mut answers = self.ask_all(&pipelines).await;
        let mut seen = HashMap::new();
        let mut flipped = Vec::new();
        for pipeline in pipelines {
            let uid = pipeline.uid().unwrap_or_default();
            let mut tracker = trackers.remove(&uid).unwrap_or_default();
            let (expected, answers) = answers.remove(&uid).unwrap_or_default();
            let before = Arc::clone(&tracker.view);
            tracker.take(expected, &answers);
            if tracker.view != before {
                flipped.push(pipeline);
            }
            self.metrics.ring_members(pipeline, tracker.view.ring.members.len());
            seen.insert(uid, tracker);
        }
        *trackers = seen;
        let views = trackers.iter().map(|(uid, tracker)| (uid.clone(), Arc::clone(&tracker.view)));
        self.views.send_replace(Arc::new(views.collect()));
        for pipeline in flipped {
            let name = ObjectRef::new(&pipeline.name_any());
            let name = name.within(&pipeline.namespace().unwrap_or_default());
            // The receiver goes only when the process does.
            let _ = self.flips.send(name).await;
        }
        self.write_all(&state, trackers).await;
    }

    // The answers of each pipeline's gateways by pod, and how many there should be.
    async fn ask_all(
        &self,
        pipelines: &[&TracePipeline],
    ) -> HashMap<String, (u32, BTreeMap<String, Answer>)> {
        let mut answers: HashMap<String, (u32, BTreeMap<String, Answer>)> = HashMap::new();
        let mut asked = Vec::new();
        for pipeline in pipelines {
            let uid = pipeline.uid().unwrap_or_default();
            let gateways = self.gateways_of(pipeline);
            let expected = u32::try_from(gateways.len()).unwrap_or(u32::MAX);
            answers.insert(uid.clone(), (expected, BTreeMap::new()));
            asked
                .extend(gateways.into_iter().filter_map(|(pod, ip)| Some((uid.clone(), pod, ip?))));
        }
        let requests = asked.into_iter().map(async |(uid, pod, ip)| {
            let answer = fetch::fetch(ip, self.port).await;
            (uid, pod, answer)
        });
        let mut requests = stream::iter(requests).buffer_unordered(REQUESTS_MAX);
        while let Some((uid, pod, answer)) = requests.next().await {
            self.metrics.polled(answer.is_ok());
            match answer {
                Ok(answer) => {
                    answers.entry(uid).or_default().1.insert(pod, answer);
                }
                Err(error) => tracing::debug!(pod, %error, "a gateway counts as missing"),
            }
        }
        answers
    }

    // Pods that should answer, with their addresses where they have one. Pods that have ended, or were told
    // to, need not answer.
    fn gateways_of(&self, pipeline: &TracePipeline) -> Vec<(String, Option<IpAddr>)> {
        let namespace = pipeline.namespace().unwrap_or_default();
        let pods = self.stores.pods_of(&namespace, &pipeline.name_any());
        pods.iter()
            .filter(|pod| should_answer(pod))
            .map(|pod| (pod.name_any(), address(pod)))
            .collect()
    }

    async fn write_all(&self, state: &[Arc<Guarded>], trackers: &mut HashMap<String, Tracker>) {
        for pipeline in state.iter().filter_map(|pipeline| pipeline.0.as_ref().ok()) {
            let Some(tracker) = pipeline.uid().and_then(|uid| trackers.get_mut(&uid)) else {
                continue;
            };
            let Some(wanted) = tracker.due() else { continue };
            match write::write(&self.client, pipeline, &wanted).await {
                Ok(()) => {
                    self.metrics.status_patched("stats", true);
                    tracker.written = Some((Instant::now(), wanted));
                }
                Err(error) => {
                    self.metrics.status_patched("stats", false);
                    tracing::debug!(pipeline = pipeline.name_any(), %error, "statistics not written");
                }
            }
        }
    }
}

fn should_answer(pod: &DynamicObject) -> bool {
    let is_gateway = pod.labels().get(labels::COMPONENT).is_some_and(|tier| tier == "gateway");
    let phase = pod.data["status"]["phase"].as_str();
    is_gateway
        && pod.metadata.deletion_timestamp.is_none()
        && !matches!(phase, Some("Succeeded" | "Failed"))
}

fn address(pod: &DynamicObject) -> Option<IpAddr> {
    pod.data["status"]["podIP"].as_str()?.parse().ok()
}

// === impl Tracker ===

impl Tracker {
    // Takes the answers of one poll into the view.
    fn take(&mut self, expected: u32, answers: &BTreeMap<String, Answer>) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now_millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.tally.advance(now_millis);
        for (pod, answer) in answers {
            self.tally.record(pod, now_millis, answer);
        }
        for (agent, spans) in unprotected(answers) {
            self.tally.record_agent(agent, now_millis, spans);
        }
        if expected == 0 {
            *self = Self { view: Arc::new(View::default()), ..Self::default() };
            Arc::make_mut(&mut self.view).ring.standing = Standing::NoMembers;
            return;
        }
        self.silent_polls =
            if answers.is_empty() { self.silent_polls.saturating_add(1) } else { 0 };
        if answers.is_empty() && self.silent_polls < SILENT_POLLS_MAX {
            // One poll without an answer is a hiccup of the network; what was known is kept.
            let view = Arc::make_mut(&mut self.view);
            (view.answered, view.expected) = (0, expected);
            return;
        }
        let ring = self.patience.judge(answers);
        let mut view = View {
            ring,
            answered: u32::try_from(answers.len()).unwrap_or(u32::MAX),
            expected,
            configs: answers.iter().map(|(pod, answer)| loaded(pod, answer)).collect(),
            degraded: self.degraded(),
        };
        if answers.is_empty() {
            // The last ring that was seen stays in the status; that it is old stands in its standing.
            view.ring = super::ring::Ring { standing: Standing::Unknown, ..self.view.ring.clone() };
        }
        self.view = Arc::new(view);
    }

    fn degraded(&self) -> Vec<Degraded> {
        let sums = self.tally.sums();
        let late = sums.late_spans.saturating_mul(1_000)
            > sums.decided().saturating_mul(LATE_PERMILLE_MIN);
        let found = [
            (sums.early > 0, Degraded::Evictions),
            (sums.unexported_spans > 0, Degraded::Exporters),
            (late, Degraded::LateSpans),
        ];
        found.into_iter().filter_map(|(is, what)| is.then_some(what)).collect()
    }

    // What should be written now, if anything should.
    fn due(&self) -> Option<write::Written> {
        if self.view.expected == 0 && self.written.is_none() {
            return None;
        }
        let wanted = write::Written::of(&self.view, self.tally.sums());
        match &self.written {
            Some((_, written)) if *written == wanted => None,
            Some((at, written)) => {
                let flipped = written.standing != wanted.standing;
                (flipped || at.elapsed() >= WRITE_INTERVAL).then_some(wanted)
            }
            None => Some(wanted),
        }
    }
}

// Every gateway that an agent polls hears of it; what it says only grows.
fn unprotected(answers: &BTreeMap<String, Answer>) -> BTreeMap<&str, u64> {
    let mut spans: BTreeMap<&str, u64> = BTreeMap::new();
    for observer in answers.values().flat_map(|answer| &answer.ring.observers) {
        let known = spans.entry(observer.identity.as_str()).or_default();
        *known = observer.unprotected_spans.max(*known);
    }
    spans
}

fn loaded(pod: &str, answer: &Answer) -> Loaded {
    Loaded {
        pod: pod.to_owned(),
        hash: answer.config.hash.clone(),
        error: answer.config.error.clone(),
    }
}
