//! The committed files that are made from the types are current, and small enough for every tool.

#![expect(clippy::unwrap_used, reason = "a test may fail by panic")]

use std::{fs, path::Path};

use ringtail_crds::generated;

/// `kubectl apply` puts the whole object into an annotation, and annotations end at 262,144 bytes. A fifth less leaves
/// room for what the chart adds.
const DEFINITION_BYTES_MAX: usize = 200_000;

fn committed(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

#[test]
fn the_committed_definition_is_current() {
    let definition = generated::definition_yaml().unwrap();
    assert!(
        committed("tracepipeline.yaml") == definition,
        "run `make generate` and commit"
    );
    assert!(
        definition.len() < DEFINITION_BYTES_MAX,
        "{} bytes",
        definition.len()
    );
}

#[test]
fn the_reference_page_is_current() {
    let page = committed("../docs/tracepipeline.md");
    assert!(page.contains(generated::MARKER));
    assert!(
        page == generated::with_fields(&page),
        "run `make generate` and commit"
    );
}
