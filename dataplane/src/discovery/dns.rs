//! Gateways by DNS: the addresses of a host name, or SRV records with hosts and ports, asked for again and
//! again.
//!
//! No list becomes shorter because somebody could not be asked: a question that fails or times out, a name
//! that does not exist and an answer without addresses leave the last list as it is. IPv4 and IPv6 are asked
//! for by themselves, and what one of them could not be asked for stays. How long an answer may be kept is
//! of no interest, since the name is asked for every few seconds.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{Resolver, ResolverBuilder, TokioResolver};
use ringtail_crds::resolved::Dns;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{CANDIDATES_MAX, Candidates, Discovery, Health};

/// A tenth of the interval is added or taken away, so that processes that were started together do not ask
/// together.
const JITTER: f64 = 0.1;
/// A name server that is asked twice within the timeout: UDP loses packets.
const ATTEMPTS: usize = 2;

/// The versions of addresses; each is asked for by itself.
const FAMILIES: [LookupIpStrategy; 2] = [LookupIpStrategy::Ipv4Only, LookupIpStrategy::Ipv6Only];

/// Why a name gave no addresses.
#[derive(Debug, thiserror::Error)]
pub enum DnsProblem {
    /// The system's configuration cannot be read.
    #[error("the system's list of name servers cannot be read: {0}")]
    System(NetError),
    /// The question failed.
    #[error("{name} could not be asked for: {source}")]
    Failed {
        /// Of whom.
        name: String,
        /// Why.
        source: NetError,
    },
    /// Nobody answered in time.
    #[error("{name} could not be asked for within {after:?}")]
    TimedOut {
        /// Of whom.
        name: String,
        /// How long it was waited.
        after: Duration,
    },
    /// There are no such records.
    #[error("{0} has no addresses")]
    Empty(String),
}

/// Asks for a name, and remembers what was said.
struct Asker {
    settings: Dns,
    /// One for each of [`FAMILIES`].
    resolvers: [TokioResolver; 2],
    /// What each family said last.
    known: [BTreeSet<SocketAddr>; 2],
}

// === impl Discovery ===

impl Discovery {
    /// What DNS says of a name, with the name servers of the system.
    ///
    /// # Errors
    /// When the system's configuration cannot be read.
    pub fn dns(settings: Dns) -> Result<Self, DnsProblem> {
        let build = || TokioResolver::builder_tokio().map_err(DnsProblem::System);
        Ok(Self::ask(Asker::new(settings, [build()?, build()?])?))
    }

    /// The same with other name servers, and without the hosts of this machine.
    ///
    /// # Errors
    /// When there can be no such resolver.
    pub fn dns_with(settings: Dns, servers: &ResolverConfig) -> Result<Self, DnsProblem> {
        let provider = TokioRuntimeProvider::default;
        let build = || Resolver::builder_with_config(servers.clone(), provider());
        Ok(Self::ask(Asker::new(settings, [build(), build()])?))
    }

    fn ask(asker: Asker) -> Self {
        let (list, candidates) = watch::channel(None);
        let health = Arc::new(Health::new("dns"));
        tokio::spawn(asker.run(list, Arc::clone(&health)));
        Self { candidates, health }
    }
}

// === impl Asker ===

impl Asker {
    fn new(
        settings: Dns,
        builders: [ResolverBuilder<TokioRuntimeProvider>; 2],
    ) -> Result<Self, DnsProblem> {
        let mut resolvers = Vec::new();
        for (mut builder, family) in builders.into_iter().zip(FAMILIES) {
            let options = builder.options_mut();
            options.ip_strategy = family;
            options.timeout = settings.timeout / ATTEMPTS as u32;
            options.attempts = ATTEMPTS;
            options.cache_size = 0;
            resolvers.push(builder.build().map_err(DnsProblem::System)?);
        }
        let resolvers = <[TokioResolver; 2]>::try_from(resolvers)
            .map_err(|_| DnsProblem::Empty(settings.hostname.clone()))?;
        Ok(Self { settings, resolvers, known: Default::default() })
    }

    async fn run(mut self, list: watch::Sender<Candidates>, health: Arc<Health>) {
        let mut told = false;
        loop {
            match self.resolve().await {
                Ok(addresses) => {
                    health.succeed();
                    told = false;
                    let candidates = health.bounded(Self::serving(&addresses));
                    list.send_if_modified(|last| {
                        let changed = last.as_ref() != Some(&candidates);
                        if changed {
                            *last = Some(Arc::clone(&candidates));
                        }
                        changed
                    });
                }
                Err(problem) => {
                    health.fail();
                    // Once, and not every few seconds: the metric counts.
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%problem, "gateways stay as they were");
                    }
                }
            }
            tokio::select! {
                () = sleep(self.pause()) => {}
                () = list.closed() => return,
            }
        }
    }

    fn serving(addresses: &BTreeSet<SocketAddr>) -> Vec<super::Candidate> {
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        Discovery::serving(&texts)
    }

    fn pause(&self) -> Duration {
        let part = (fastrand::f64() * 2.0 - 1.0) * JITTER;
        self.settings.interval.mul_f64(1.0 + part)
    }

    /// All addresses now; never none.
    async fn resolve(&mut self) -> Result<BTreeSet<SocketAddr>, DnsProblem> {
        let hosts = match self.settings.hostname.starts_with('_') {
            true => self.hosts().await?,
            false => vec![(self.settings.hostname.clone(), self.settings.port)],
        };
        let hosts = &hosts;
        let (v4, v6) = tokio::join!(self.family(0, hosts), self.family(1, hosts));
        let mut problem = None;
        let mut fresh = self.known.clone();
        for (known, answer) in fresh.iter_mut().zip([v4, v6]) {
            match answer {
                Ok(addresses) => *known = addresses,
                Err(told) => problem = Some(told),
            }
        }
        let all: BTreeSet<SocketAddr> = fresh.iter().flatten().copied().collect();
        match (all.is_empty(), problem) {
            (true, problem) => {
                Err(problem.unwrap_or_else(|| DnsProblem::Empty(self.settings.hostname.clone())))
            }
            // What one family could not be asked for stays; when the other has nothing, nothing was learned.
            (false, Some(problem)) if fresh == self.known => Err(problem),
            (false, _) => {
                self.known = fresh;
                Ok(all)
            }
        }
    }

    /// Hosts and ports of the SRV records, at most [`CANDIDATES_MAX`].
    async fn hosts(&self) -> Result<Vec<(String, u16)>, DnsProblem> {
        let [resolver, _] = &self.resolvers;
        let name = &self.settings.hostname;
        let asked = resolver.lookup(name.as_str(), RecordType::SRV);
        let records = within(name, self.settings.timeout, asked).await?;
        let mut hosts: Vec<(String, u16)> = records
            .iter()
            .flat_map(|lookup| lookup.answers())
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => Some((srv.target.to_string(), srv.port)),
                _ => None,
            })
            .collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts.truncate(CANDIDATES_MAX);
        if hosts.is_empty() {
            return Err(DnsProblem::Empty(name.clone()));
        }
        Ok(hosts)
    }

    /// The addresses of hosts in one family; none when they have none.
    async fn family(
        &self,
        family: usize,
        hosts: &[(String, u16)],
    ) -> Result<BTreeSet<SocketAddr>, DnsProblem> {
        let [v4, v6] = &self.resolvers;
        let resolver = if family == 0 { v4 } else { v6 };
        let after = self.settings.timeout;
        let mut questions = JoinSet::new();
        for (host, port) in hosts {
            questions.spawn(addresses_of(resolver.clone(), host.clone(), *port, after));
        }
        let mut all = BTreeSet::new();
        for answer in questions.join_all().await {
            all.extend(answer?);
        }
        Ok(all)
    }
}

/// The addresses of a host; none when it has none.
async fn addresses_of(
    resolver: TokioResolver,
    host: String,
    port: u16,
    after: Duration,
) -> Result<Vec<SocketAddr>, DnsProblem> {
    let found = within(&host, after, resolver.lookup_ip(host.as_str())).await?;
    let addresses = found.iter().flat_map(|found| found.iter());
    Ok(addresses.map(|ip| SocketAddr::new(ip, port)).collect())
}

/// An answer in time; `None` when there are no such records.
async fn within<T>(
    name: &str,
    after: Duration,
    question: impl Future<Output = Result<T, NetError>>,
) -> Result<Option<T>, DnsProblem> {
    let name = || name.to_owned();
    match timeout(after, question).await {
        Err(_) => Err(DnsProblem::TimedOut { name: name(), after }),
        Ok(Ok(answer)) => Ok(Some(answer)),
        Ok(Err(NetError::Dns(DnsError::NoRecordsFound(_)))) => Ok(None),
        Ok(Err(source)) => Err(DnsProblem::Failed { name: name(), source }),
    }
}

#[cfg(test)]
mod tests;
