//! Regular expressions as the OpenTelemetry Collector reads them, on the regex crate.
//!
//! The Collector uses Go's syntax, where `\d`, `\w`, `\s` and `\b` mean ASCII, `\Q…\E` quotes, and a
//! bracket inside a class is a character like others. The regex crate reads these differently, so a pattern
//! is translated first.

use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use super::limits::{MAX_REGEX_BYTES, MAX_REGEX_CACHE_BYTES};

/// Why a pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    #[error("not a regular expression: {0}")]
    Syntax(String),
    #[error("compiles to more than {0} bytes: shorten counted repetitions or Unicode classes")]
    TooBig(usize),
}

/// Checks one pattern by itself.
pub(super) fn check(pattern: &str) -> Result<(), PatternError> {
    RegexBuilder::new(&translate(pattern))
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(MAX_REGEX_CACHE_BYTES)
        .build()
        .map(|_| ())
        .map_err(explain)
}

/// Compiles one pattern that may take so many bytes.
pub(crate) fn one(pattern: &str, bytes: usize) -> Result<Regex, PatternError> {
    RegexBuilder::new(&translate(pattern))
        .size_limit(bytes)
        .dfa_size_limit(MAX_REGEX_CACHE_BYTES)
        .build()
        .map_err(explain)
}

/// Compiles patterns into one set that says whether any of them is found anywhere in a value.
pub(super) fn compile(patterns: &[String]) -> Result<RegexSet, PatternError> {
    RegexSetBuilder::new(patterns.iter().map(|pattern| translate(pattern)))
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(MAX_REGEX_CACHE_BYTES)
        .build()
        .map_err(explain)
}

fn explain(error: regex::Error) -> PatternError {
    match error {
        regex::Error::CompiledTooBig(limit) => PatternError::TooBig(limit),
        // The crate draws the pattern with a caret under it; its last line says what is wrong.
        other => {
            let text = other.to_string();
            let last = text.lines().next_back().unwrap_or_default();
            PatternError::Syntax(last.trim_start_matches("error: ").to_owned())
        }
    }
}

/// Rewrites what the regex crate would read differently from Go.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    // Whether `rest` begins inside a bracketed class.
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '\\' => escape(rest, in_class, &mut out),
            '[' if !in_class => {
                in_class = true;
                open_class(rest, &mut out)
            }
            '[' => bracket_in_class(rest, &mut out),
            ']' => {
                in_class = false;
                copy(rest, 1, &mut out)
            }
            // Doubled, these are operators between classes in the regex crate and mere characters in Go.
            '&' | '~' if in_class => {
                out.push('\\');
                copy(rest, 1, &mut out)
            }
            '-' if in_class && rest.starts_with("--") => {
                // A range up to the character '-'.
                out.push_str(r"-\-");
                2
            }
            other => copy(rest, other.len_utf8(), &mut out),
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    out
}

/// Copies `length` bytes and says how many it took.
fn copy(rest: &str, length: usize, out: &mut String) -> usize {
    out.push_str(rest.get(..length).unwrap_or(rest));
    length
}

/// A backslash and what follows it.
fn escape(rest: &str, in_class: bool, out: &mut String) -> usize {
    let Some(escaped) = rest.chars().nth(1) else {
        return copy(rest, 1, out);
    };
    let replacement = match escaped {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        's' => r"[\t\n\f\r ]",
        'S' => r"[^\t\n\f\r ]",
        'b' if !in_class => r"(?-u:\b)",
        'B' if !in_class => r"(?-u:\B)",
        '<' => "<",
        '>' => ">",
        'Q' if !in_class => return quoted(rest, out),
        _ => return copy(rest, 1 + escaped.len_utf8(), out),
    };
    out.push_str(replacement);
    2
}

/// `\Q…\E`, or `\Q…` up to the end.
fn quoted(rest: &str, out: &mut String) -> usize {
    let body = rest.get(2..).unwrap_or_default();
    let (literal, length) = match body.find(r"\E") {
        Some(end) => (body.get(..end).unwrap_or_default(), 2 + end + 2),
        None => (body, rest.len()),
    };
    out.push_str(&regex::escape(literal));
    length
}

/// `[` or `[^`, and a `]` or `-` right after it, which is a character of the class.
fn open_class(rest: &str, out: &mut String) -> usize {
    let length = copy(rest, if rest.starts_with("[^") { 2 } else { 1 }, out);
    match rest.as_bytes().get(length) {
        Some(first @ (b']' | b'-')) => {
            out.push('\\');
            out.push(char::from(*first));
            length + 1
        }
        _ => length,
    }
}

/// A bracket inside a class: `[:alpha:]`, or itself.
fn bracket_in_class(rest: &str, out: &mut String) -> usize {
    if rest.starts_with("[:")
        && let Some(end) = rest.find(":]")
    {
        return copy(rest, end + 2, out);
    }
    out.push_str(r"\[");
    1
}

#[cfg(test)]
mod tests;
