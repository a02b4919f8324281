//! In which order the fragments of the load are sent, and to whom.
//!
//! Traces come in blocks, one request a fragment. A fragment leaves `lag` blocks after the one before it and
//! goes to the next target, so that a trace is spread over time and over agents.

/// One request to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// Which block of traces.
    pub block: u64,
    /// Which fragment of its traces.
    pub fragment: usize,
    /// Which of the targets receives it.
    pub target: usize,
}

/// The sequence of steps; endless until it is closed, then it completes the traces that were begun.
#[derive(Debug)]
pub struct Plan {
    fragments: u64,
    lag: u64,
    targets: u64,
    blocks_max: u64,
    tick: u64,
    fragment: u64,
}

impl Plan {
    /// At most `blocks_max` blocks of `fragments` fragments that are `lag` blocks apart.
    pub fn new(fragments: usize, lag: u64, targets: usize, blocks_max: u64) -> Self {
        let [fragments, targets] = [fragments, targets].map(|count| count.max(1) as u64);
        Self { fragments, lag, targets, blocks_max, tick: 0, fragment: 0 }
    }

    /// Begins no further block.
    pub fn close(&mut self) {
        self.blocks_max = self.blocks_max.min(self.blocks());
    }

    /// How many blocks were begun.
    pub fn blocks(&self) -> u64 {
        // The first fragment of a tick begins its block.
        self.blocks_max.min(self.tick + u64::from(self.fragment > 0))
    }

    /// How many steps of a steady load come before this one. While traces begin and while they end some of
    /// those are missing: the times between the fragments of a trace are always the same.
    pub fn place(&self, step: &Step) -> u64 {
        let fragment = step.fragment as u64;
        (step.block + fragment * self.lag) * self.fragments + fragment
    }

    fn advance(&mut self) {
        self.fragment += 1;
        if self.fragment == self.fragments {
            self.fragment = 0;
            self.tick += 1;
        }
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let ticks = self.blocks_max.saturating_add((self.fragments - 1) * self.lag);
        while self.tick < ticks && self.blocks_max > 0 {
            let (tick, fragment) = (self.tick, self.fragment);
            self.advance();
            let block = tick.checked_sub(fragment * self.lag);
            if let Some(block) = block.filter(|block| *block < self.blocks_max) {
                let target = ((block + fragment) % self.targets) as usize;
                return Some(Step { block, fragment: fragment as usize, target });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_fragment_is_sent_once_and_in_order() {
        for (fragments, lag, targets, blocks) in
            [(1, 1, 1, 5), (8, 3, 2, 10), (4, 0, 3, 7), (2, 9, 1, 3)]
        {
            let steps: Vec<Step> = Plan::new(fragments, lag, targets, blocks).collect();
            let distinct: HashSet<_> = steps.iter().map(|s| (s.block, s.fragment)).collect();
            assert_eq!(steps.len(), fragments * blocks as usize);
            assert_eq!(distinct.len(), steps.len());
            for block in 0..blocks {
                let order: Vec<usize> =
                    steps.iter().filter(|s| s.block == block).map(|s| s.fragment).collect();
                assert!(order.is_sorted(), "{order:?}");
            }
        }
    }

    #[test]
    fn a_trace_crosses_the_targets() {
        let steps = Plan::new(2, 1, 2, 4);
        let targets: HashSet<usize> =
            steps.filter(|step| step.block == 1).map(|step| step.target).collect();
        assert_eq!(targets.len(), 2);
    }

    #[test]
    fn fragments_of_a_trace_are_equally_far_apart() {
        let (plan, steps) = (Plan::new(4, 3, 2, 20), Plan::new(4, 3, 2, 20));
        let steps: Vec<Step> = steps.collect();
        assert!(steps.iter().map(|step| plan.place(step)).is_sorted());
        for block in 0..20 {
            let of_block = steps.iter().filter(|step| step.block == block);
            let places: Vec<u64> = of_block.map(|step| plan.place(step)).collect();
            assert!(places.windows(2).all(|pair| pair[1] - pair[0] == 13), "{places:?}");
        }
    }

    #[test]
    fn a_closed_plan_completes_what_it_began() {
        let mut plan = Plan::new(4, 2, 1, u64::MAX);
        let mut steps: Vec<Step> = plan.by_ref().take(9).collect();
        plan.close();
        let blocks = plan.blocks();
        steps.extend(plan);
        assert!(blocks > 0);
        assert_eq!(steps.len() as u64, 4 * blocks);
    }

    #[test]
    fn a_plan_closed_at_once_is_empty() {
        let mut plan = Plan::new(4, 2, 1, u64::MAX);
        plan.close();
        assert_eq!((plan.next(), plan.blocks()), (None, 0));
    }
}
