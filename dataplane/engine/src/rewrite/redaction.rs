//! What must not leave: which attributes are removed, hashed or masked, compiled.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use regex::bytes::Regex;
use thiserror::Error;

use super::limits::{MAX_KEYS, MAX_MASK_REGEX_BYTES, MAX_MASKS, MAX_REPLACEMENT_BYTES};
pub use super::value::Hasher;
use crate::policy::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use crate::policy::pattern;

/// What must not leave, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Keys of attributes that are taken out.
    pub remove: Vec<String>,
    /// Keys of attributes whose values become hashes.
    pub hash: Vec<String>,
    /// What is replaced in values.
    pub masks: Vec<Mask>,
    /// The keys of all attributes that may leave, if there is such a list.
    pub allow_only: Option<Vec<String>>,
    /// Texts beside attributes in which masks without a key are looked for.
    pub texts: Texts,
}

/// What is replaced in values. Without any key it is about all attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mask {
    /// In values of attributes with this key.
    pub key: Option<String>,
    /// In values of attributes in whose key this is found.
    pub key_pattern: Option<String>,
    /// What is replaced; without it the whole value is.
    pub value_pattern: Option<String>,
    /// What stands there instead.
    pub replacement: String,
}

/// Texts beside attributes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Texts {
    /// Names of spans.
    pub span_names: bool,
    /// Names of events.
    pub event_names: bool,
    /// Messages of statuses.
    pub status_messages: bool,
}

/// What is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {message}")]
pub struct Problem {
    /// Where, such as `mask[2].valuePattern`.
    pub field: String,
    /// What, and what to do about it.
    pub message: String,
}

/// What must not leave, ready to be taken out of spans.
#[derive(Debug)]
pub struct Redaction {
    keys: HashMap<Box<[u8]>, Rule, RandomState>,
    /// Patterns of keys, each with the bit of its mask.
    key_patterns: Vec<(Regex, u64)>,
    pub(super) allowed: Option<HashSet<Box<[u8]>, RandomState>>,
    /// The n-th has bit n: its pattern, if it has one, and what it puts there.
    pub(super) masks: Vec<(Option<Regex>, Box<[u8]>)>,
    /// The bits of masks that are about all attributes.
    pub(super) everywhere: u64,
    /// The bits of masks that replace whole values.
    whole: u64,
    pub(super) texts: Texts,
    pub(super) hasher: Hasher,
}

/// What becomes of an attribute, by its key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) remove: bool,
    pub(super) hash: bool,
    /// The bits of masks for its value.
    pub(super) masks: u64,
}

// === impl Redaction ===

impl Redaction {
    /// Compiles a plan, or says everything that is wrong with it.
    ///
    /// # Errors
    /// With at least one problem.
    pub fn new(plan: &Plan, hasher: Hasher) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut compiled = Self {
            keys: HashMap::default(),
            key_patterns: Vec::new(),
            allowed: None,
            masks: Vec::new(),
            everywhere: 0,
            whole: 0,
            texts: plan.texts,
            hasher,
        };
        check_keys("remove", &plan.remove, &mut problems);
        check_keys("hash", &plan.hash, &mut problems);
        for key in &plan.remove {
            compiled.rule(key).remove = true;
        }
        for key in &plan.hash {
            compiled.rule(key).hash = true;
        }
        if plan.masks.len() > MAX_MASKS {
            let many = plan.masks.len();
            problems
                .push(problem("mask", format!("{many} masks, at most {MAX_MASKS} are possible")));
        }
        for (place, mask) in plan.masks.iter().take(MAX_MASKS).enumerate() {
            compiled.add(place, mask, &mut problems);
        }
        if let Some(keys) = &plan.allow_only {
            check_keys("allowOnly", keys, &mut problems);
            compiled.allowed = Some(keys.iter().map(|key| key.as_bytes().into()).collect());
        }
        if problems.is_empty() { Ok(compiled) } else { Err(problems) }
    }

    fn rule(&mut self, key: &str) -> &mut Rule {
        self.keys.entry(key.as_bytes().into()).or_default()
    }

    fn add(&mut self, place: usize, mask: &Mask, problems: &mut Vec<Problem>) {
        let bit = 1 << place;
        let mut pattern = |name: &str, text: &Option<String>| {
            let text = text.as_ref()?;
            let field = format!("mask[{place}].{name}");
            match compile(text) {
                Ok(pattern) => return Some(pattern),
                Err(message) => problems.push(problem(&field, message)),
            }
            None
        };
        let key_pattern = pattern("keyPattern", &mask.key_pattern);
        let value_pattern = pattern("valuePattern", &mask.value_pattern);
        if mask.replacement.len() > MAX_REPLACEMENT_BYTES {
            let field = format!("mask[{place}].replacement");
            problems.push(problem(&field, too_long(mask.replacement.len(), MAX_REPLACEMENT_BYTES)));
        }
        if mask.value_pattern.is_none() {
            self.whole |= bit;
        }
        match (&mask.key, &mask.key_pattern) {
            (Some(_), Some(_)) => {
                let field = format!("mask[{place}]");
                let message = "has both key and keyPattern: give one of them".to_owned();
                problems.push(problem(&field, message));
            }
            (Some(key), None) => {
                check_key(&format!("mask[{place}].key"), key, problems);
                self.rule(key).masks |= bit;
            }
            (None, Some(_)) => self.key_patterns.extend(key_pattern.map(|found| (found, bit))),
            (None, None) if mask.value_pattern.is_none() => {
                let field = format!("mask[{place}]");
                let message = "has neither a key nor a valuePattern, and would replace everything: give \
                               key, keyPattern or valuePattern";
                problems.push(problem(&field, message.to_owned()));
            }
            (None, None) => self.everywhere |= bit,
        }
        self.masks.push((value_pattern, mask.replacement.as_bytes().into()));
    }

    /// What becomes of an attribute with this key. Inside of values the list of allowed keys is not asked.
    #[inline]
    pub(super) fn rule_of(&self, key: &[u8], outermost: bool) -> Rule {
        let mut rule = self.keys.get(key).copied().unwrap_or_default();
        if outermost && self.allowed.as_ref().is_some_and(|allowed| !allowed.contains(key)) {
            rule.remove = true;
        }
        if !rule.remove && !rule.hash {
            for (pattern, bit) in &self.key_patterns {
                if rule.masks & bit == 0 && pattern.is_match(key) {
                    rule.masks |= bit;
                }
            }
        }
        rule
    }

    /// The replacement of the first of these masks that replaces whole values.
    pub(super) fn replacement(&self, masks: u64) -> Option<&[u8]> {
        let first = masks & self.whole;
        let (_, replacement) = self.masks.get(first.trailing_zeros() as usize)?;
        Some(replacement)
    }
}

fn problem(field: &str, message: String) -> Problem {
    Problem { field: field.to_owned(), message }
}

fn too_long(bytes: usize, most: usize) -> String {
    format!("has {bytes} bytes, at most {most} are possible")
}

fn check_keys(field: &str, keys: &[String], problems: &mut Vec<Problem>) {
    if keys.len() > MAX_KEYS {
        problems
            .push(problem(field, format!("{} keys, at most {MAX_KEYS} are possible", keys.len())));
    }
    for (place, key) in keys.iter().enumerate() {
        check_key(&format!("{field}[{place}]"), key, problems);
    }
}

fn check_key(field: &str, key: &str, problems: &mut Vec<Problem>) {
    if key.is_empty() {
        problems.push(problem(field, "is empty".to_owned()));
    } else if key.len() > MAX_KEY_BYTES {
        problems.push(problem(field, too_long(key.len(), MAX_KEY_BYTES)));
    }
}

fn compile(text: &str) -> Result<Regex, String> {
    if text.is_empty() {
        return Err("is empty and would be found in everything".to_owned());
    }
    if text.len() > MAX_VALUE_BYTES {
        return Err(too_long(text.len(), MAX_VALUE_BYTES));
    }
    let pattern = pattern::one(text, MAX_MASK_REGEX_BYTES).map_err(|error| error.to_string())?;
    // Replacements would be put between all characters.
    match pattern.is_match(b"") {
        true => Err("is found in an empty text, so it says nothing of a value".to_owned()),
        false => Ok(pattern),
    }
}
