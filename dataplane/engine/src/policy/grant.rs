//! Traces that only a budget may keep: asked when nothing else keeps or drops them, so that no token is spent
//! for a trace that would go the same way without it.

use super::attributes::bit;
use super::budget::{Budget, Occasion, Spent};
use super::program::{Program, Question, Verdict};
use crate::facts::TraceFacts;

/// What was taken from budgets for a verdict.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    pub(super) spent: Vec<Spent>,
    /// The policies that are only counted for which something was taken.
    pub(crate) counted: u64,
}

impl Receipt {
    /// Whether nothing was taken.
    pub fn is_empty(&self) -> bool {
        self.spent.is_empty()
    }

    /// Whether something was taken from a budget.
    pub(super) fn took(&self, budget: usize) -> bool {
        self.spent.iter().any(|spent| spent.budget == budget)
    }
}

/// The budgets of a program and who asks them.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    pub(super) list: Vec<Budget>,
    /// The policies that ask a budget, themselves or through others that they name.
    pub(super) asking: u64,
    /// By place: what each policy asks.
    pub(super) questions: Vec<Question>,
    /// For each budget that is a composite, the places of its parts in order; else nothing.
    pub(super) parts: Vec<Vec<usize>>,
}

impl Program {
    /// Whether any policy has a budget.
    #[inline]
    pub fn has_budgets(&self) -> bool {
        !self.budgets.list.is_empty()
    }

    /// The verdict on a trace, and what it took from budgets. Without budgets it is that of
    /// [`Program::decide`].
    #[inline]
    pub fn decide_within(&self, facts: &TraceFacts, occasion: Occasion) -> (Verdict, Receipt) {
        let verdict = self.decide(facts);
        let undecided = self.has_budgets() && verdict.policy.is_none();
        if !undecided {
            return (verdict, Receipt::default());
        }
        self.ask_budgets(facts, verdict.matched, occasion)
    }

    fn ask_budgets(
        &self,
        facts: &TraceFacts,
        matched: u64,
        occasion: Occasion,
    ) -> (Verdict, Receipt) {
        let yes = self.answers(facts);
        let mut asked = Asked { program: self, facts, occasion, yes, spent: Vec::new() };
        for place in places(self.votes & self.budgets.asking) {
            if asked.grants(place) {
                let policy = u16::try_from(place).ok();
                let verdict = self.verdict(true, policy, matched | bit(place));
                return (verdict, Receipt { spent: asked.spent, counted: 0 });
            }
        }
        // Their budgets are nobody else's.
        let mut counted = 0;
        for place in places(self.shadows & self.budgets.asking & !matched) {
            if asked.grants(place) {
                counted |= bit(place);
            }
        }
        let verdict = self.verdict(false, None, matched | counted);
        (verdict, Receipt { spent: asked.spent, counted })
    }

    /// Gives back what was taken for a verdict that did not come about.
    pub fn refund(&self, receipt: &Receipt) {
        for spent in &receipt.spent {
            if let Some(budget) = self.budgets.list.get(spent.budget) {
                budget.put_back(spent);
            }
        }
    }

    /// Goes on with the budgets of another program, of policies with the same name and settings: whoever
    /// changes something else in a manifest gives no budget a new start.
    pub fn adopt_budgets(&mut self, before: &Self) {
        for (place, question) in self.budgets.questions.iter().enumerate() {
            let Question::Budget(budget) = *question else { continue };
            let name = self.names.get(place);
            let known = before.names.iter().position(|known| Some(known) == name);
            let known = known.and_then(|place| before.budgets.questions.get(place));
            let Some(Question::Budget(known)) = known else { continue };
            if let (Some(own), Some(known)) =
                (self.budgets.list.get_mut(budget), before.budgets.list.get(*known))
                && own.plan == known.plan
            {
                own.adopt(known);
            }
        }
    }
}

/// A trace before the budgets.
struct Asked<'a> {
    program: &'a Program,
    facts: &'a TraceFacts,
    occasion: Occasion,
    /// The policies that say yes without any budget.
    yes: u64,
    spent: Vec<Spent>,
}

impl Asked<'_> {
    /// Whether a policy says yes, with what its budgets have left. What was taken in vain is put back.
    ///
    /// It recurses as deep as containers nest, at most once a policy of the list.
    fn grants(&mut self, place: usize) -> bool {
        if self.yes & bit(place) != 0 {
            return true;
        }
        let budgets = &self.program.budgets;
        if budgets.asking & bit(place) == 0 {
            return false;
        }
        match budgets.questions.get(place) {
            Some(Question::Budget(budget)) => match budgets.parts.get(*budget).map(Vec::as_slice) {
                Some([]) | None => self.takes(*budget, 0),
                Some(parts) => self.shares(*budget, parts),
            },
            Some(Question::All(named)) => {
                // Those without a budget are known, and most often one of them says no.
                if named & !budgets.asking & !self.yes != 0 {
                    return false;
                }
                let before = self.spent.len();
                let granted = places(named & budgets.asking).all(|place| self.grants(place));
                if !granted {
                    self.roll_back(before);
                }
                granted
            }
            Some(Question::Any(named)) => {
                places(named & budgets.asking).any(|place| self.grants(place))
            }
            _ => false,
        }
    }

    /// The first part that says yes and has something left, or can borrow it.
    fn shares(&mut self, budget: usize, parts: &[usize]) -> bool {
        for (part, place) in parts.iter().enumerate() {
            let before = self.spent.len();
            if self.grants(*place) && self.takes(budget, part) {
                return true;
            }
            self.roll_back(before);
        }
        false
    }

    fn takes(&mut self, place: usize, part: usize) -> bool {
        let Some(budget) = self.program.budgets.list.get(place) else { return false };
        let cost = (self.facts.spans, self.facts.bytes);
        let spent = budget.take((place, part), cost, self.occasion);
        self.spent.extend(spent);
        spent.is_some()
    }

    fn roll_back(&mut self, to: usize) {
        for spent in self.spent.drain(to..) {
            if let Some(budget) = self.program.budgets.list.get(spent.budget) {
                budget.put_back(&spent);
            }
        }
    }
}

/// The places of a set of policies, lowest first.
fn places(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(place)
    })
}

#[cfg(test)]
mod tests;
