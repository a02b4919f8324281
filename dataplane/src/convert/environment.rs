//! Variables in a Collector's configuration: `${env:NAME}`, `${env:NAME:-default}`, `${NAME}`, `$$`.

use std::collections::BTreeMap;

/// What variables stand for, as far as the command line says it.
#[derive(Debug, Default)]
pub(super) struct Environment {
    given: BTreeMap<String, String>,
}

/// A part of a text.
#[derive(Debug, PartialEq)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Variable {
        name: &'a str,
        default: Option<&'a str>,
    },
    /// `${file:…}` and other providers.
    Foreign(&'a str),
}

// === impl Environment ===

impl Environment {
    pub(super) fn new(given: &[(String, String)]) -> Self {
        Self { given: given.iter().cloned().collect() }
    }

    /// The text with the values of its variables, or what is missing.
    pub(super) fn expand(&self, raw: &str) -> Result<String, String> {
        let mut text = String::new();
        for part in parts(raw) {
            match part {
                Part::Text(piece) => text.push_str(piece),
                Part::Variable { name, default } => match (self.given.get(name), default) {
                    (Some(value), _) => text.push_str(value),
                    (None, Some(default)) => text.push_str(default),
                    (None, None) => {
                        return Err(format!(
                            "needs the value of ${{env:{name}}}: give it with --env {name}=VALUE"
                        ));
                    }
                },
                Part::Foreign(whole) => {
                    return Err(format!(
                        "holds {whole}, which cannot be read here: write the value"
                    ));
                }
            }
        }
        Ok(text)
    }

    /// The text with a word in the place of everything that is not known.
    pub(super) fn expand_loosely(&self, raw: &str) -> String {
        let piece = |part| match part {
            Part::Text(text) => text.to_owned(),
            Part::Variable { name, default } => {
                let given = self.given.get(name).map(String::as_str);
                given.or(default).unwrap_or("unknown").to_owned()
            }
            Part::Foreign(_) => "unknown".to_owned(),
        };
        parts(raw).into_iter().map(piece).collect()
    }

    /// The variables of a text that have no value.
    pub(super) fn open<'a>(&self, raw: &'a str) -> Vec<&'a str> {
        let open = parts(raw).into_iter().filter_map(|part| match part {
            Part::Variable { name, default: None } => Some(name),
            _ => None,
        });
        open.filter(|name| !self.given.contains_key(*name)).collect()
    }
}

/// A text in parts.
pub(super) fn parts(raw: &str) -> Vec<Part<'_>> {
    let (mut parts, mut rest) = (Vec::new(), raw);
    while let Some(at) = rest.find('$') {
        let (before, tail) = rest.split_at(at);
        if !before.is_empty() {
            parts.push(Part::Text(before));
        }
        let whole = tail.strip_prefix("${").and_then(|inner| inner.split_once('}'));
        (rest, parts) = match (tail.strip_prefix("$$"), whole) {
            (Some(after), _) => (after, with(parts, Part::Text("$"))),
            (None, Some((inner, after))) => {
                let length = tail.len() - after.len();
                (after, with(parts, reference(inner, &tail[..length])))
            }
            (None, None) => (&tail[1..], with(parts, Part::Text("$"))),
        };
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest));
    }
    parts
}

fn with<'a>(mut parts: Vec<Part<'a>>, part: Part<'a>) -> Vec<Part<'a>> {
    parts.push(part);
    parts
}

fn reference<'a>(inner: &'a str, whole: &'a str) -> Part<'a> {
    let name = inner.strip_prefix("env:").unwrap_or(inner);
    let (name, default) = match name.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (name, None),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(is_name) {
        return Part::Foreign(whole);
    }
    Part::Variable { name, default }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found_as_the_collector_finds_them() {
        let given = [("HOST".to_owned(), "tempo".to_owned())];
        let environment = Environment::new(&given);
        let cases = [
            ("plain", Ok("plain")),
            ("${env:HOST}:4317", Ok("tempo:4317")),
            ("${HOST}:4317", Ok("tempo:4317")),
            ("${env:PORT:-4317}", Ok("4317")),
            ("${env:EMPTY:-}", Ok("")),
            ("a$$b", Ok("a$b")),
            ("$$${env:HOST}", Ok("$tempo")),
            ("costs 5$", Ok("costs 5$")),
            ("${env:HOST", Ok("${env:HOST")),
            ("${env:TOKEN}", Err("--env TOKEN=VALUE")),
            ("${file:/etc/token}", Err("${file:/etc/token}")),
        ];
        for (raw, expected) in cases {
            let told = environment.expand(raw);
            match expected {
                Ok(text) => assert_eq!(told.as_deref(), Ok(text), "{raw}"),
                Err(part) => assert!(told.is_err_and(|told| told.contains(part)), "{raw}"),
            }
        }
        assert_eq!(environment.open("${env:A}-${HOST}-${env:B:-x}"), ["A"]);
    }
}
