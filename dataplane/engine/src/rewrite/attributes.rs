//! Attributes of resources and spans inserted, updated, deleted and hashed, one action after the other, as
//! the OpenTelemetry Collector's `attributes` and `resource` processors do.

use thiserror::Error;

use super::copy::{Copy, put_bytes};
use super::limits::{MAX_ACTION_VALUE_BYTES, MAX_ACTIONS};
pub use super::value::{Given, Hasher};
use super::value::{KEY, VALUE, key_of, put_text_pair, value_of};
use crate::policy::limits::MAX_KEY_BYTES;
use crate::wire::Value as Wire;

/// Where attributes are: those of a resource, and those of a span.
const RESOURCE: u32 = 1;
const RESOURCE_ATTRIBUTES: u32 = 1;
const SPAN_ATTRIBUTES: u32 = 9;

/// Tags and lengths of an attribute with the longest key and value, five of each at most.
const PAIR_OVERHEAD: u64 = 20;
/// Hexadecimal digits of a hash.
const HASH_BYTES: u64 = 64;

/// Whose attribute it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// Of each span.
    Span,
    /// Of their resource.
    Resource,
}

/// What is done to an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Verb {
    /// It gets this value, if it is not there.
    Insert(Given),
    /// It gets this value, if it is there.
    Update(Given),
    /// It gets this value.
    Upsert(Given),
    /// It goes.
    Delete,
    /// Its value becomes the hash of it.
    Hash,
}

/// One action.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// Whose attribute it is about.
    pub home: Home,
    /// Its key.
    pub key: String,
    /// What is done.
    pub verb: Verb,
}

/// What is wrong with a list of actions.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Problem {
    /// Which action; none when it is the list as a whole.
    pub place: Option<usize>,
    /// What, and what to do about it.
    pub message: String,
}

/// Actions, ready to be done.
#[derive(Debug, Default)]
pub struct Actions {
    span: Vec<Step>,
    resource: Vec<Step>,
    hasher: Hasher,
}

#[derive(Debug)]
struct Step {
    key: Box<[u8]>,
    what: What,
    /// The `KeyValue` with the value that is given.
    pair: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Insert,
    Update,
    Upsert,
    Delete,
    Hash,
}

/// An attribute on its way.
struct Pair<'a> {
    key: &'a [u8],
    body: std::borrow::Cow<'a, [u8]>,
}

// === impl Actions ===

impl Actions {
    /// Takes actions in their order, or says everything that is wrong with them.
    ///
    /// # Errors
    /// With at least one problem.
    pub fn new(list: &[Action], hasher: Hasher) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut report = |place, message| problems.push(Problem { place, message });
        if list.len() > MAX_ACTIONS {
            let many = list.len();
            report(None, format!("has {many} actions, at most {MAX_ACTIONS} are possible"));
        }
        for (place, action) in list.iter().enumerate() {
            let long = |bytes, most| format!("has {bytes} bytes, at most {most} are possible");
            if action.key.is_empty() {
                report(Some(place), "has an empty key".to_owned());
            } else if action.key.len() > MAX_KEY_BYTES {
                report(Some(place), format!("key {}", long(action.key.len(), MAX_KEY_BYTES)));
            }
            if let Some(Given::Text(text)) = action.verb.given()
                && text.len() > MAX_ACTION_VALUE_BYTES
            {
                report(Some(place), format!("value {}", long(text.len(), MAX_ACTION_VALUE_BYTES)));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let of = |home| list.iter().filter(move |action| action.home == home).map(Step::new);
        Ok(Self { span: of(Home::Span).collect(), resource: of(Home::Resource).collect(), hasher })
    }

    /// Actions that give resources attributes that they do not have, the first of a key first.
    pub fn detected(facts: &[(String, String)]) -> Self {
        let insert = |(key, value): &(String, String)| {
            let verb = Verb::Insert(Given::Text(value.clone()));
            Step::new(&Action { home: Home::Resource, key: key.clone(), verb })
        };
        Self { resource: facts.iter().map(insert).collect(), ..Self::default() }
    }

    /// Whether there is nothing to do to spans.
    pub fn leaves_spans(&self) -> bool {
        self.span.is_empty()
    }

    /// Whether there is nothing to do to resources.
    pub fn leaves_resources(&self) -> bool {
        self.resource.is_empty()
    }

    /// At most how many bytes a span grows by.
    pub fn span_growth(&self) -> u64 {
        self.span.iter().map(Step::growth).sum()
    }

    /// At most how many bytes a resource grows by.
    pub fn resource_growth(&self) -> u64 {
        let longer: u64 = self.resource.iter().map(Step::growth).sum();
        // Its own length may take four bytes more, and it may not have been there.
        if self.resource.is_empty() { 0 } else { longer + PAIR_OVERHEAD }
    }

    /// Appends the body of a span.
    pub fn span(&self, span: &[u8], out: &mut Vec<u8>) {
        self.message(span, SPAN_ATTRIBUTES, &self.span, out);
    }

    /// Appends the fields of a `ResourceSpans` other than its spans.
    pub fn resource(&self, fields: &[u8], out: &mut Vec<u8>) {
        // Several resources merge, which for messages means one after the other.
        let mut whole = Vec::new();
        let mut copy = Copy::new(fields, out);
        while let Some(field) = copy.next_field() {
            if let (RESOURCE, Wire::Bytes(body)) = (field.number, field.value) {
                copy.replace();
                whole.extend_from_slice(body);
            }
        }
        let out = copy.finish();
        let mut changed = Vec::with_capacity(whole.len());
        self.message(&whole, RESOURCE_ATTRIBUTES, &self.resource, &mut changed);
        put_bytes(out, RESOURCE, &changed);
    }

    fn message(&self, message: &[u8], number: u32, steps: &[Step], out: &mut Vec<u8>) {
        let mut pairs = Vec::new();
        let mut copy = Copy::new(message, out);
        while let Some(field) = copy.next_field() {
            if let Wire::Bytes(pair) = field.value
                && field.number == number
            {
                copy.replace();
                pairs.push(Pair { key: key_of(pair), body: pair.into() });
            }
        }
        let out = copy.finish();
        for step in steps {
            step.apply(&mut pairs, &self.hasher);
        }
        for pair in &pairs {
            put_bytes(out, number, &pair.body);
        }
    }
}

// === impl Verb ===

impl Verb {
    fn given(&self) -> Option<&Given> {
        match self {
            Self::Insert(value) | Self::Update(value) | Self::Upsert(value) => Some(value),
            Self::Delete | Self::Hash => None,
        }
    }
}

// === impl Step ===

impl Step {
    fn new(action: &Action) -> Self {
        let key = action.key.as_bytes();
        let mut pair = Vec::new();
        if let Some(given) = action.verb.given() {
            put_bytes(&mut pair, KEY, key);
            put_bytes(&mut pair, VALUE, &given.encoded());
        }
        let what = match action.verb {
            Verb::Insert(_) => What::Insert,
            Verb::Update(_) => What::Update,
            Verb::Upsert(_) => What::Upsert,
            Verb::Delete => What::Delete,
            Verb::Hash => What::Hash,
        };
        Self { key: key.into(), what, pair }
    }

    fn growth(&self) -> u64 {
        let given = match self.what {
            What::Delete => return 0,
            What::Hash => self.key.len() as u64 + HASH_BYTES,
            What::Insert | What::Update | What::Upsert => self.pair.len() as u64,
        };
        given + PAIR_OVERHEAD
    }

    /// Keys are unique in OTLP. Where one is there twice, the first gets the value and the others go, so
    /// that no other value of it is left.
    fn apply<'a>(&'a self, pairs: &mut Vec<Pair<'a>>, hasher: &Hasher) {
        let first = pairs.iter().position(|pair| *pair.key == *self.key);
        let pair = || Pair { key: &self.key, body: self.pair.as_slice().into() };
        let changed = match (self.what, first) {
            (What::Insert, Some(_)) | (What::Update | What::Delete | What::Hash, None) => return,
            (What::Insert | What::Upsert, None) => return pairs.push(pair()),
            (What::Delete, Some(_)) => None,
            (What::Update | What::Upsert, Some(_)) => Some(pair()),
            (What::Hash, Some(place)) => pairs.get(place).map(|found| {
                let mut body = Vec::new();
                let digits = hasher.hash(&value_of(&found.body));
                put_text_pair(&mut body, &self.key, digits.as_bytes());
                Pair { key: &self.key, body: body.into() }
            }),
        };
        pairs.retain(|pair| *pair.key != *self.key);
        if let (Some(changed), Some(place)) = (changed, first) {
            pairs.insert(place.min(pairs.len()), changed);
        }
    }
}
