//! The generations of policies that a shard still needs: a reload applies to traces first seen after it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::policy::Program;

/// A program with the traces that were first seen under it.
#[derive(Debug)]
struct Generation {
    program: Arc<Program>,
    traces: u64,
    /// For each policy of the program, its row in the shard's statistics.
    rows: Vec<usize>,
}

/// The current program and those before it that undecided traces still follow.
#[derive(Debug)]
pub(super) struct Programs {
    /// Oldest first; the current one is last and never missing.
    generations: VecDeque<Generation>,
    /// The number of the first.
    first: u32,
}

impl Programs {
    pub(super) fn new(program: Arc<Program>, rows: Vec<usize>) -> Self {
        let generations = VecDeque::from([Generation { program, traces: 0, rows }]);
        Self { generations, first: 0 }
    }

    /// Makes a program the current one.
    pub(super) fn push(&mut self, program: Arc<Program>, rows: Vec<usize>) {
        self.generations.push_back(Generation { program, traces: 0, rows });
        self.retire();
    }

    /// Counts a trace that is first seen now and returns the number of the generation that it follows.
    pub(super) fn join(&mut self) -> u32 {
        if let Some(current) = self.generations.back_mut() {
            current.traces += 1;
        }
        self.first + self.generations.len() as u32 - 1
    }

    /// Counts a trace of a generation as decided.
    pub(super) fn leave(&mut self, number: u32) {
        if let Some(generation) = self.generations.get_mut((number - self.first) as usize) {
            generation.traces -= 1;
        }
        self.retire();
    }

    #[inline]
    pub(super) fn program(&self, number: u32) -> Option<&Program> {
        self.find(number).map(|(program, _)| program)
    }

    /// The program of a generation, and for each of its policies the row in the statistics.
    #[inline]
    pub(super) fn find(&self, number: u32) -> Option<(&Program, &[usize])> {
        let generation = self.generations.get((number - self.first) as usize)?;
        Some((&generation.program, &generation.rows))
    }

    fn retire(&mut self) {
        while self.generations.len() > 1
            && self.generations.front().is_some_and(|oldest| oldest.traces == 0)
        {
            self.generations.pop_front();
            self.first += 1;
        }
    }
}
