//! The table of manifests: what is accepted, and what is refused where and why.
//!
//! Each file of `manifests/` begins with comments that say what it is for and what is expected: `accepted`,
//! or `refused by: schema` (the API server refuses it, and so does the offline check) or `refused by:
//! operator` (the API server takes it, the offline check refuses it, and the operator says so in the
//! condition Accepted), with the field and a part of the message. The tests of the real cluster apply the
//! same files.

#![expect(clippy::unwrap_used, reason = "a test may fail by panic")]

use std::{fs, path::Path};

use ringtail_crds::validate;

/// The table that the issue asks for has at least so many rows of each kind.
const ACCEPTED_MIN: usize = 15;
const REFUSED_MIN: usize = 25;

/// One line of the comments at the head of a file.
fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let comments = text.lines().map_while(|line| line.strip_prefix("# "));
    comments.filter_map(|line| line.strip_prefix(name)).map(str::trim).next()
}

/// What differs from what a file expects.
fn judge(text: &str) -> Result<(), String> {
    let told: Vec<String> = match validate(text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect(),
    };
    let refused_by = header(text, "refused by:");
    match (header(text, "accepted").is_some(), refused_by) {
        (true, None) if told.is_empty() => Ok(()),
        (false, Some("schema" | "operator")) => {
            let expected = format!("{}: ", header(text, "field:").unwrap());
            let message = header(text, "message:").unwrap();
            assert!(!message.is_empty(), "no message is expected");
            match told.as_slice() {
                [one] if one.starts_with(&expected) && one.contains(message) => Ok(()),
                _ => Err(format!("expected {expected}{message}, told {told:#?}")),
            }
        }
        (true, None) => Err(format!("should be accepted, told {told:#?}")),
        _ => Err("says neither accepted nor refused by".to_owned()),
    }
}

#[test]
fn every_manifest_of_the_table_gets_its_verdict() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    let (mut accepted, mut refused, mut wrong) = (0, 0, Vec::new());
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        match header(&text, "refused by:") {
            Some(_) => refused += 1,
            None => accepted += 1,
        }
        if let Err(difference) = judge(&text) {
            wrong.push(format!("{name}: {difference}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(accepted >= ACCEPTED_MIN && refused >= REFUSED_MIN, "{accepted} and {refused}");
}
