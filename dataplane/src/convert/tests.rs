//! Configurations and what they become: every directory below `tests/convert` is a case.

use std::path::{Path, PathBuf};

use super::*;

const CASES_MIN: usize = 12;

/// The configurations of a case, under the names that they have there.
fn texts(case: &Path) -> Vec<(String, String)> {
    // A case can lie elsewhere: its directory then says where.
    let elsewhere = std::fs::read_to_string(case.join("inputs"));
    let elsewhere = elsewhere.map(|path| case.join("..").join(path.trim()));
    let case = elsewhere.as_deref().unwrap_or(case);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(case).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
    files.retain(|path| path.file_name().is_some_and(|name| name != "pipeline.yaml"));
    files.sort();
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

fn options(gateways: Gateways) -> ConvertOptions {
    ConvertOptions {
        files: Vec::new(),
        name: "traces".to_owned(),
        gateways,
        variables: vec![("GIVEN".to_owned(), "tempo".to_owned())],
        report: None,
    }
}

/// A file of a case is as it should be; RINGTAIL_GENERATE writes it.
fn compare(path: &Path, told: &str) -> Result<(), String> {
    if std::env::var_os("RINGTAIL_GENERATE").is_some() {
        match told.is_empty() && !path.exists() {
            true => {}
            false => std::fs::write(path, told).unwrap(),
        }
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    if expected == told {
        return Ok(());
    }
    Err(format!("{}: expected\n{expected}\ntold\n{told}", path.display()))
}

#[test]
fn every_case_becomes_what_is_written_beside_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/convert");
    let (mut cases, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let case = entry.unwrap().path();
        cases += 1;
        let external = case.file_name().unwrap().to_string_lossy().contains("external");
        let gateways = if external { Gateways::External } else { Gateways::Managed };
        let (manifest, report) = match convert(&texts(&case), &options(gateways)) {
            Ok(converted) => {
                ringtail_crds::validate(&converted.manifest).unwrap();
                (converted.manifest, converted.report)
            }
            Err(error) => (String::new(), error.to_string() + "\n"),
        };
        wrong.extend(compare(&case.join("pipeline.yaml"), &manifest).err());
        wrong.extend(compare(&case.join("report.txt"), &report).err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases >= CASES_MIN, "only {cases} cases");
}
