//! Whether all who route traces have the same ring: from what gateways say of themselves and of who talks
//! to them.

use std::collections::BTreeMap;

use super::answer::Answer;

/// What an observer said longer ago says nothing about now. Agents stamp every request, and send one at
/// least every few seconds while there is traffic.
const OBSERVATION_MILLIS_MAX: u64 = 30_000;
/// Polls in a row that show different rings before it is more than a change on its way: with one every 15
/// seconds a split is told after 15 to 30, and views need two or three to settle.
const SPLIT_POLLS_MIN: u32 = 2;
/// Polls in a row with a gateway on its way out: ten minutes, twice what a decision wait of a minute and
/// the largest buffer need.
const DRAIN_POLLS_MAX: u32 = 40;
/// Names in a message.
const NAMED_MAX: usize = 3;

/// How things stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nobody answered lately.
    #[default]
    Unknown,
    /// There is no gateway.
    NoMembers,
    /// All agree.
    Converged,
    /// They do not agree yet, or a gateway is on its way out.
    Changing,
    /// They do not agree, and it does not pass.
    Split,
    /// A gateway does not get rid of what it holds.
    DrainTimeout,
}

/// The ring as the gateways and those who talk to them see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// How things stand.
    pub standing: Standing,
    /// What most have.
    pub digest: String,
    /// Members of the ring that most gateways have.
    pub members: Vec<String>,
    /// Gateways on their way out.
    pub draining: u32,
    /// Agents and gateways whose ring is known.
    pub observers: u32,
    /// Those of them that have `digest`.
    pub agreeing: u32,
    /// Some of those that have another, by name.
    pub dissenting: Vec<String>,
}

/// Remembers how long they have not agreed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    disagreeing_polls: u32,
    draining_polls: u32,
}

// === impl Patience ===

impl Patience {
    /// The ring by these answers, one a pod.
    pub fn judge(&mut self, answers: &BTreeMap<String, Answer>) -> Ring {
        let mut ring = gather(answers);
        let agree = ring.agreeing == ring.observers;
        self.disagreeing_polls = if agree { 0 } else { self.disagreeing_polls.saturating_add(1) };
        let drained = ring.draining == 0;
        self.draining_polls = if drained { 0 } else { self.draining_polls.saturating_add(1) };
        ring.standing = if answers.is_empty() {
            Standing::Unknown
        } else if self.disagreeing_polls >= SPLIT_POLLS_MIN {
            Standing::Split
        } else if self.draining_polls > DRAIN_POLLS_MAX {
            Standing::DrainTimeout
        } else if agree && drained {
            Standing::Converged
        } else {
            Standing::Changing
        };
        ring
    }
}

fn gather(answers: &BTreeMap<String, Answer>) -> Ring {
    let opinions = opinions(answers);
    let digest = favourite(&opinions);
    let agreeing = opinions.values().filter(|(_, opinion)| *opinion == digest).count();
    let dissenting = opinions.iter().filter(|(_, (_, opinion))| *opinion != digest);
    let majority = answers.values().find(|answer| answer.ring.digest == digest);
    let mut members = majority.map(|answer| answer.ring.members.clone()).unwrap_or_default();
    members.sort();
    Ring {
        standing: Standing::Unknown,
        digest: digest.to_owned(),
        members,
        draining: answers.values().map(|answer| answer.ring.draining).max().unwrap_or_default(),
        observers: count(opinions.len()),
        agreeing: count(agreeing),
        dissenting: dissenting.take(NAMED_MAX).map(|(name, _)| (*name).to_owned()).collect(),
    }
}

// Who has which digest: a gateway's own word first, then the youngest observation of anybody.
fn opinions(answers: &BTreeMap<String, Answer>) -> BTreeMap<&str, (u64, &str)> {
    let mut opinions = BTreeMap::new();
    for answer in answers.values() {
        opinions.insert(answer.identity.as_str(), (0, answer.ring.digest.as_str()));
    }
    let heard = answers.values().flat_map(|answer| &answer.ring.observers);
    for observer in heard.filter(|observer| observer.age_millis <= OBSERVATION_MILLIS_MAX) {
        let opinion = (observer.age_millis, observer.digest.as_str());
        let known = opinions.entry(observer.identity.as_str()).or_insert(opinion);
        *known = (*known).min(opinion);
    }
    opinions
}

// The digest of most; of two that as many have, the smaller, so that the same answers give the same status.
fn favourite<'a>(opinions: &BTreeMap<&str, (u64, &'a str)>) -> &'a str {
    let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, digest) in opinions.values() {
        *votes.entry(digest).or_default() += 1;
    }
    let mut best = ("", 0);
    for (digest, count) in votes {
        if count > best.1 {
            best = (digest, count);
        }
    }
    best.0
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::answer::{self, Observer};

    // "gw-0=a agent-1:a agent-2:b@90000 -1" is gateway gw-0 with digest a, which heard two agents and has
    // one draining.
    fn answers(text: &str) -> BTreeMap<String, Answer> {
        text.split(';').filter(|gateway| !gateway.trim().is_empty()).map(gateway).collect()
    }

    fn gateway(text: &str) -> (String, Answer) {
        let mut answer = Answer::default();
        for word in text.split_whitespace() {
            if let Some((identity, digest)) = word.split_once('=') {
                answer.identity = identity.to_owned();
                answer.ring = answer::Ring { digest: digest.to_owned(), ..answer.ring };
            } else if let Some((identity, digest)) = word.split_once(':') {
                let (digest, age) = digest.split_once('@').unwrap_or((digest, "0"));
                answer.ring.observers.push(Observer {
                    identity: identity.to_owned(),
                    digest: digest.to_owned(),
                    age_millis: age.parse().unwrap(),
                    unprotected_spans: 0,
                });
            } else {
                answer.ring.draining = word.trim_start_matches('-').parse().unwrap();
            }
        }
        (answer.identity.clone(), answer)
    }

    #[test]
    fn tells_agreement_from_change_and_change_from_a_split() {
        use Standing::{Changing, Converged, Split, Unknown};
        let cases = [
            ("nobody answers", vec![""], Unknown, "", 0, 0),
            ("all agree", vec!["g0=a n1:a; g1=a n2:a"], Converged, "a", 4, 4),
            ("a change", vec!["g0=a n1:b; g1=a"], Changing, "a", 3, 2),
            ("a split", vec!["g0=a n1:b; g1=a", "g0=a n1:b; g1=a"], Split, "a", 3, 2),
            ("healed", vec!["g0=a n1:b", "g0=a n1:b", "g0=a n1:a"], Converged, "a", 2, 2),
            (
                "the youngest word counts",
                vec!["g0=a n1:b@900; g1=a n1:a@100"],
                Converged,
                "a",
                3,
                3,
            ),
            ("an old word does not", vec!["g0=a n1:b@90000"], Converged, "a", 1, 1),
            ("its own word counts", vec!["g0=a; g1=a g0:b@500"], Converged, "a", 2, 2),
            ("on its way out", vec!["g0=a -1; g1=a -1"], Changing, "a", 2, 2),
            ("a tie", vec!["g0=b; g1=a"], Changing, "a", 2, 1),
        ];
        for (name, polls, standing, digest, observers, agreeing) in cases {
            let mut patience = Patience::default();
            let ring = polls.iter().map(|poll| patience.judge(&answers(poll))).last().unwrap();
            let got = (ring.standing, ring.digest.as_str(), ring.observers, ring.agreeing);
            assert_eq!(got, (standing, digest, observers, agreeing), "{name}");
        }
    }

    #[test]
    fn a_drain_without_end_is_told() {
        let mut patience = Patience::default();
        let standings: Vec<_> =
            (0..=DRAIN_POLLS_MAX).map(|_| patience.judge(&answers("g0=a -1")).standing).collect();
        assert_eq!(standings.last(), Some(&Standing::DrainTimeout));
        assert!(standings[..standings.len() - 1].iter().all(|s| *s == Standing::Changing));
    }
}
