//! The problems that a check has found so far.

use super::document::Node;
use crate::{path::Path, problem::Problem};

/// Problems with their places, in the order in which they were found.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<(Path, String)>);

impl Findings {
    pub(crate) fn add(&mut self, at: Path, message: impl Into<String>) {
        self.0.push((at, message.into()));
    }

    /// Adds what a later check found, unless an earlier one spoke about the same place.
    pub(crate) fn add_unless_known(&mut self, at: Path, message: impl Into<String>) {
        if !self.is_broken(&at) {
            self.add(at, message);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something is wrong with the node itself.
    pub(crate) fn is_broken(&self, at: &Path) -> bool {
        self.0.iter().any(|(path, _)| path == at)
    }

    /// Whether something is wrong with the node or anything in it.
    pub(crate) fn touches(&self, at: &Path) -> bool {
        self.0.iter().any(|(path, _)| path.starts_with(at))
    }

    /// The problems in the order of the file's lines, if there is a file.
    pub(crate) fn into_problems(self, file: Option<&Node>) -> Vec<Problem> {
        let placed = self.0.into_iter().map(|(path, message)| Problem {
            line: file.and_then(|root| root.line_of(&path)),
            path: path.to_string(),
            message,
        });
        let mut problems: Vec<_> = placed.collect();
        problems.sort_by_key(|problem| problem.line);
        problems
    }
}
