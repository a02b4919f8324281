//! Where the spans of a delivery go, asked by the shard as it walks over them.

use std::collections::BTreeMap;

use ringtail_engine::Millis;
use ringtail_engine::batch::{Batch, GroupRef};
use ringtail_engine::key::TraceKey;
use ringtail_engine::ownership::facts::Name;
use ringtail_engine::ownership::message::{Outcome, Part, Verdict};
use ringtail_engine::ownership::{Admission, Stand, Traces};
use ringtail_engine::rewrite::sampling::Mark;
use ringtail_engine::scan::Group;
use ringtail_engine::shard::custody::{Guide, Place, Steady};

use super::marked::Marked;
use crate::peer::messages::Manner;

/// What of a delivery is not simply held here. Used again for the next one, so that nothing is allocated for
/// either.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// Places of traces that are asked for at each of their runs.
    places: BTreeMap<TraceKey, Place>,
    /// Traces that are held for others.
    pub(super) foreign: Vec<TraceKey>,
    /// The traces that are not held here.
    pub(super) parts: Vec<Known>,
    /// What is passed on, by to whom.
    pub(super) batches: Vec<(Name, Batch)>,
    /// Of each batch: the current group in it.
    groups: Vec<Option<GroupRef>>,
    /// What late spans tell of their decision.
    marks: Vec<Mark>,
}

/// A trace of a delivery that is not simply held here.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) part: Part,
    /// Its spans, as far as they are passed on or refused.
    pub(super) spans: u32,
    pub(super) went: Went,
}

/// Where it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Went {
    /// It is known what became of it.
    There(Outcome),
    /// Into the batch with this place.
    On(usize),
}

/// Asks the state machine, for one delivery.
pub(super) struct Way<'a> {
    pub(super) traces: &'a mut Traces,
    pub(super) stand: &'a Stand,
    pub(super) manner: &'a Manner,
    pub(super) now: Millis,
    pub(super) elsewhere: &'a mut Elsewhere,
    /// Where late spans go that tell of their decision.
    pub(super) marked: &'a mut Marked,
}

/// Knows beforehand where each trace goes: of a parcel that is read again.
pub(super) struct Laid<'a, F> {
    pub(super) place: F,
    /// Takes what is to be passed.
    pub(super) batch: &'a mut Batch,
    pub(super) group: Option<GroupRef>,
}

// === impl Elsewhere ===

impl Elsewhere {
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.foreign.clear();
        self.parts.clear();
        self.batches.clear();
        self.groups.clear();
        self.marks.clear();
    }

    fn note(&mut self, part: Part, went: Went) -> usize {
        self.parts.push(Known { part, spans: 0, went });
        self.parts.len() - 1
    }

    fn batch_for(&mut self, to: Name) -> usize {
        let known = self.batches.iter().position(|(name, _)| *name == to);
        known.unwrap_or_else(|| {
            self.batches.push((to, Batch::default()));
            self.groups.push(None);
            self.batches.len() - 1
        })
    }
}

// === impl Way ===

impl Way<'_> {
    fn ask(&mut self, part: Part) -> Place {
        let Self { traces, stand, manner, elsewhere, .. } = self;
        let went = match traces.admit(stand, &part, manner.hops, self.now) {
            Admission::Store { first, foreign: false, origin } => {
                return Place::Store(first, Steady::new(origin));
            }
            Admission::Store { first, .. } => {
                elsewhere.foreign.push(part.key);
                return Place::Store(first, Steady::default());
            }
            Admission::Follow(decision) => {
                elsewhere.note(part, Went::There(Outcome::Decided(decision)));
                let Verdict { keep, note } = decision.verdict;
                if keep && self.marked.is_on() {
                    elsewhere.marks.push(self.marked.mark(note, true));
                    return Place::Recorded(elsewhere.marks.len() - 1);
                }
                return Place::Follow(keep);
            }
            Admission::Repeated(decision) => {
                elsewhere.note(part, Went::There(Outcome::Decided(decision)));
                return Place::Repeated;
            }
            Admission::Pass(to) => Went::On(elsewhere.batch_for(to)),
            Admission::Refuse => Went::There(Outcome::Refused),
        };
        Place::Pass(elsewhere.note(part, went))
    }
}

impl Guide for Way<'_> {
    fn place(&mut self, key: TraceKey) -> Place {
        if let Some(place) = self.elsewhere.places.get(&key) {
            return *place;
        }
        let Some(part) = self.manner.part(key, 0) else { return Place::Nowhere };
        let place = self.ask(part);
        let joins = matches!(place, Place::Store(_, steady) if steady != Steady::default());
        if !joins || !self.manner.is_plain() {
            self.elsewhere.places.insert(key, place);
        }
        place
    }

    fn pass(&mut self, part: usize, group: &Group<'_>, span: &[u8]) {
        let Elsewhere { parts, batches, groups, .. } = &mut *self.elsewhere;
        let Some(known) = parts.get_mut(part) else { return };
        known.spans += 1;
        known.part.bytes = known.part.bytes.saturating_add(span.len() as u32);
        let Went::On(place) = known.went else { return };
        if let Some(((_, batch), known)) = batches.get_mut(place).zip(groups.get_mut(place)) {
            let place = *known.get_or_insert_with(|| batch.intern(&group.resource, &group.scope));
            batch.push(place, span);
        }
    }

    fn keep(&mut self, number: usize, group: &Group<'_>, span: &[u8]) {
        let Some(mark) = self.elsewhere.marks.get(number) else { return };
        // Late spans are few.
        let batch = self.marked.batch(mark);
        let place = batch.intern(&group.resource, &group.scope);
        batch.push(place, span);
    }

    fn leave_group(&mut self) {
        self.elsewhere.groups.fill(None);
    }
}

// === impl Laid ===

impl<F: Fn(TraceKey) -> Option<Place>> Guide for Laid<'_, F> {
    fn place(&mut self, key: TraceKey) -> Place {
        (self.place)(key).unwrap_or(Place::Nowhere)
    }

    fn pass(&mut self, _part: usize, group: &Group<'_>, span: &[u8]) {
        let Self { batch, group: known, .. } = self;
        let place = *known.get_or_insert_with(|| batch.intern(&group.resource, &group.scope));
        batch.push(place, span);
    }

    // Nothing of a parcel was decided.
    fn keep(&mut self, _number: usize, _group: &Group<'_>, _span: &[u8]) {}

    fn leave_group(&mut self) {
        self.group = None;
    }
}
