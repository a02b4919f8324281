//! What of a decision travels with it as a note of 29 bits, so that every kept span can tell it: those that
//! are here, those that another gateway holds, and those that come late.
//!
//! | bits | what |
//! |---|---|
//! | 0 to 6 | the policy that decided, from one |
//! | 7 to 13 | the part of that composite policy that did, from one |
//! | 14 to 20 | how likely the trace was kept: unknown, always, or the n-th level of `levels` from two |
//! | 21 | whether chance was what the trace state says, and no hash |
//! | 22 to 28 | some bits of a hash of the program, so that a note of other policies is not misread |

use super::grant::Receipt;
use super::probability::Probability;
use super::program::{Program, Question, Verdict};
use crate::facts::TraceFacts;
use crate::rewrite::sampling::{self, Chance, Mark};

const PART_SHIFT: u32 = 7;
const CHANCE_SHIFT: u32 = 14;
const DRAWN: u32 = 1 << 21;
const STAMP_SHIFT: u32 = 22;
/// Seven bits hold 64 policies, or 64 levels and two more.
const FIELD: u32 = (1 << PART_SHIFT) - 1;
const UNKNOWN: u32 = 0;
const ALWAYS: u32 = 1;
const FIRST_LEVEL: u32 = 2;

/// What kept spans tell of their decision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Records {
    /// The policy that kept them.
    pub policy: bool,
    /// How likely they were kept: `th` in the trace state. It makes probabilistic policies heed the `th` and
    /// `rv` that spans come with.
    pub threshold: bool,
}

impl Records {
    /// Whether anything is told.
    pub fn any(self) -> bool {
        self.policy || self.threshold
    }
}

impl Program {
    /// Has kept spans tell so much of their decision.
    #[must_use]
    pub fn recording(mut self, records: Records) -> Self {
        self.records = records;
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut eat = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        };
        self.names.iter().for_each(|name| eat(&[name.as_bytes(), b"\0"].concat()));
        self.probabilities().for_each(|known| eat(&known.level().to_be_bytes()));
        let mut levels: Vec<u64> = self.probabilities().map(Probability::level).collect();
        levels.retain(|level| *level > 0);
        levels.sort_unstable();
        levels.dedup();
        for step in &mut self.steps {
            if let Question::Probability(known) = &mut step.question {
                let level = known.level();
                // At most one level a policy, of which there are at most 64.
                known.rank = levels.iter().filter(|other| **other <= level).count() as u8;
            }
        }
        self.levels = levels;
        // All bits fold into the few there is room for.
        let folded = (0..9).fold(0, |sum, place| sum ^ (hash >> (7 * place)));
        // Never 0, which is the stamp of notes that record nothing.
        self.stamp = folded as u32 % FIELD + 1;
        self
    }

    /// What kept spans tell of their decision.
    pub fn records(&self) -> Records {
        self.records
    }

    /// The policy of a note, by its place.
    pub(crate) fn policy_of(note: u32) -> Option<u16> {
        u16::try_from((note & FIELD).checked_sub(1)?).ok()
    }

    /// The note of a verdict.
    pub(crate) fn note(&self, verdict: &Verdict, receipt: &Receipt, facts: &TraceFacts) -> u32 {
        let policy = verdict.policy.map_or(0, |policy| u32::from(policy) + 1);
        if !self.records.any() || !verdict.keep {
            return policy;
        }
        let part = self.part_of(verdict, receipt).map_or(0, |place| place as u32 + 1);
        let drawn = if facts.drawn == 0 { 0 } else { DRAWN };
        let chance = if self.records.threshold { self.chance_of(facts) } else { UNKNOWN };
        let stamp = self.stamp << STAMP_SHIFT;
        policy | part << PART_SHIFT | chance << CHANCE_SHIFT | drawn | stamp
    }

    /// What a note of this program says; `None` when it is of another one.
    pub fn mark(&self, note: u32, late: bool) -> Option<Mark> {
        if note >> STAMP_SHIFT & FIELD != self.stamp {
            return None;
        }
        let name = |number: u32| {
            let place = (number & FIELD).checked_sub(1).filter(|_| self.records.policy)?;
            self.names.get(place as usize).cloned()
        };
        let chance = match note >> CHANCE_SHIFT & FIELD {
            _ if !self.records.threshold => None,
            UNKNOWN => Some(Chance::Unknown),
            ALWAYS => Some(Chance::Always),
            level => self.levels.get((level - FIRST_LEVEL) as usize).map(|least| {
                let salt = self.probabilities().next().map_or(0, Probability::state);
                match note & DRAWN {
                    0 => Chance::Hashed { least: *least, salt },
                    _ => Chance::Drawn { least: *least },
                }
            }),
        };
        let late = late && self.records.policy;
        Some(Mark { policy: name(note), part: name(note >> PART_SHIFT), late, chance })
    }

    /// The mark of kept spans of which nothing is known: `th` that they came with is not true any more.
    pub fn unknown_mark(&self) -> Mark {
        let chance = self.records.threshold.then_some(Chance::Unknown);
        Mark { chance, ..Mark::default() }
    }

    /// The part by which a composite policy kept a trace, by its place.
    fn part_of(&self, verdict: &Verdict, receipt: &Receipt) -> Option<usize> {
        let question = self.budgets.questions.get(usize::from(verdict.policy?))?;
        let Question::Budget(budget) = question else { return None };
        let spent = receipt.spent.iter().rev().find(|spent| spent.budget == *budget)?;
        self.budgets.parts.get(*budget)?.get(spent.part).copied()
    }

    fn probabilities(&self) -> impl Iterator<Item = &Probability> {
        self.steps.iter().filter_map(|step| match &step.question {
            Question::Probability(probability) => Some(probability),
            _ => None,
        })
    }

    /// What a trace state says of sampling, for the facts of its trace.
    pub(super) fn drawn(&self, state: &[u8]) -> u8 {
        match sampling::said(state) {
            Some((Some(randomness), _)) => {
                2 + self.levels.partition_point(|level| *level <= randomness) as u8
            }
            Some((None, Some(_))) => 1,
            _ => 0,
        }
    }

    /// How likely a trace with these facts is kept, over all randomness that it could have had. It is known
    /// when there is a least one from which on the policies keep it, whatever budgets say.
    fn chance_of(&self, facts: &TraceFacts) -> u32 {
        let mut salts = self.probabilities().map(Probability::state);
        let salt = salts.next();
        let several = facts.drawn == 0 && salts.any(|other| Some(other) != salt);
        if several && !self.grows() {
            return UNKNOWN;
        }
        // With several salts chances are not of one kind; still, what none of them is needed for is certain.
        let regions = if several { 1 } else { self.levels.len() + 1 };
        let kept: Vec<bool> = (0..regions).map(|region| self.keeps_at(facts, region)).collect();
        let Some(first) = kept.iter().position(|kept| *kept) else { return UNKNOWN };
        let steady = kept.iter().skip(first).all(|kept| *kept);
        // What a budget would have kept on another day is not in these answers.
        let limited = self.votes & self.budgets.asking != 0;
        match first {
            _ if !steady => UNKNOWN,
            0 => ALWAYS,
            _ if limited => UNKNOWN,
            _ => u32::try_from(first - 1).map_or(UNKNOWN, |level| level + FIRST_LEVEL),
        }
    }

    /// Whether more policies that say yes never make a trace less wanted.
    fn grows(&self) -> bool {
        let inverts = |question: &Question| matches!(question, Question::None(_));
        self.drops == 0 && !self.steps.iter().any(|step| inverts(&step.question))
    }

    /// Whether the trace is kept with a randomness between two levels: below the first is region 0.
    fn keeps_at(&self, facts: &TraceFacts, region: usize) -> bool {
        let least = region.checked_sub(1).and_then(|place| self.levels.get(place));
        let mut yes = 0;
        for step in &self.steps {
            let holds = match &step.question {
                Question::Probability(known) => known.level() <= least.copied().unwrap_or_default(),
                question => question.holds(facts, yes),
            };
            yes |= if holds { step.bit } else { 0 };
        }
        yes & self.drops == 0 && yes & self.votes != 0
    }
}

#[cfg(test)]
mod tests;
