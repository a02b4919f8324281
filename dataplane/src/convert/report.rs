//! What somebody who converts has to know: every option that has no counterpart, means something else or
//! is done by Ringtail itself, with its line.

use std::fmt;

/// A place in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Which file, by its place on the command line.
    pub(super) order: usize,
    pub(super) line: u64,
    pub(super) file: String,
    pub(super) path: String,
}

/// What became of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Lost,
    Differs,
    Built,
    Do,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Note {
    place: Place,
    kind: Kind,
    text: String,
}

/// Notes on a conversion, and what keeps it from being one.
#[derive(Debug, Default)]
pub(super) struct Report {
    notes: Vec<Note>,
    errors: Vec<(Place, String)>,
}

// === impl Report ===

impl Report {
    /// There is nothing like it in Ringtail.
    pub(super) fn lost(&mut self, place: &Place, text: impl Into<String>) {
        self.note(Kind::Lost, place, text.into());
    }

    /// It was converted, and does not mean quite the same.
    pub(super) fn differs(&mut self, place: &Place, text: impl Into<String>) {
        self.note(Kind::Differs, place, text.into());
    }

    /// Ringtail does it without being told.
    pub(super) fn built_in(&mut self, place: &Place, text: impl Into<String>) {
        self.note(Kind::Built, place, text.into());
    }

    /// Somebody has to do something.
    pub(super) fn yours_to_do(&mut self, place: &Place, text: impl Into<String>) {
        self.note(Kind::Do, place, text.into());
    }

    /// Nothing can be written.
    pub(super) fn error(&mut self, place: &Place, text: impl Into<String>) {
        self.errors.push((place.clone(), text.into()));
    }

    /// What keeps the manifest from being written, a line each.
    pub(super) fn errors(&self) -> Vec<String> {
        let mut errors = self.errors.clone();
        errors.sort();
        errors.dedup();
        errors.iter().map(|(place, text)| format!("{place}: {text}")).collect()
    }

    /// The notes, a line each, in the order of the configuration.
    pub(super) fn text(&self) -> String {
        let mut notes = self.notes.clone();
        notes.sort();
        notes.dedup();
        notes.iter().map(|note| format!("{}: {}: {}\n", note.place, note.kind, note.text)).collect()
    }

    fn note(&mut self, kind: Kind, place: &Place, text: String) {
        self.notes.push(Note { place: place.clone(), kind, text });
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "no counterpart",
            Self::Differs => "differs",
            Self::Built => "not needed",
            Self::Do => "to do",
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        Ok(())
    }
}
