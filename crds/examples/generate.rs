//! Writes the files that are made from the types: `make generate`.

use std::{error::Error, fs, path::Path};

use ringtail_crds::generated;

fn main() -> Result<(), Box<dyn Error>> {
    let crds = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::write(
        crds.join("tracepipeline.yaml"),
        generated::definition_yaml()?,
    )?;
    let page = crds.join("../docs/tracepipeline.md");
    fs::write(&page, generated::with_fields(&fs::read_to_string(&page)?))?;
    Ok(())
}
