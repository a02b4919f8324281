//! The committed files that are made from the types are current, and small enough for every tool.
//!
//! `make generate` runs this with `RINGTAIL_GENERATE` set, and then it writes the files instead of
//! comparing them.

#![expect(clippy::unwrap_used, reason = "a test may fail by panic")]

use std::{env, fs, path::Path};

use ringtail_crds::{generated, schema};

/// `kubectl apply` puts the whole object into an annotation as JSON without blanks, and annotations end at
/// 262,144 bytes. A quarter less leaves room for what the chart adds. (More than half of the YAML is
/// indentation, which reaches no cluster.)
const DEFINITION_BYTES_MAX: usize = 200_000;

/// Compares the file with what `generate` makes of it, or writes that.
fn check(file: &str, generate: impl Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let generated = generate(&committed);
    if env::var_os("RINGTAIL_GENERATE").is_some() {
        fs::write(&path, generated).unwrap();
    } else {
        assert!(committed == generated, "{file} is not current: run `make generate` and commit");
    }
}

#[test]
fn the_definition_is_current() {
    let definition = generated::definition_yaml().unwrap();
    let bytes = serde_json::to_string(&schema::definition()).unwrap().len();
    assert!(bytes < DEFINITION_BYTES_MAX, "{bytes} bytes");
    check("tracepipeline.yaml", |_| definition.clone());
}

#[test]
fn the_reference_page_is_current() {
    check("../docs/tracepipeline.md", |page| {
        assert!(page.contains(generated::MARKER));
        generated::with_fields(page)
    });
}
