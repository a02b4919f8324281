//! Prometheus' own judge of rules, `promtool`: what would fire, given samples over time.
//!
//! It is taken from `RINGTAIL_PROMTOOL`, from the path, or out of Debian's package, which is unpacked beside
//! what cargo builds, and not installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Where it is; says that `test` is skipped, and why, when it can be had nowhere.
pub fn find(test: &str) -> Option<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| match std::env::var_os("RINGTAIL_PROMTOOL") {
        Some(named) => Ok(named.into()),
        None if runs(Path::new("promtool")) => Ok("promtool".into()),
        None => unpack(),
    });
    match found {
        Ok(path) => Some(path),
        Err(reason) => {
            eprintln!("skipped: {test}: {reason}");
            None
        }
    }
}

/// Runs `promtool test rules` over a file of rules and tests.
///
/// # Errors
/// What it says when an alert does not fire as expected, or when it cannot be started.
pub fn test_rules(promtool: &Path, file: &Path) -> Result<(), String> {
    said(Command::new(promtool).args(["test", "rules"]).arg(file)).map(drop)
}

fn runs(program: &Path) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn unpack() -> Result<PathBuf, String> {
    let folder = &folder()?;
    let program = folder.join("usr/bin/promtool");
    if runs(&program) {
        return Ok(program);
    }
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    said(Command::new("apt-get").args(["download", "prometheus"]).current_dir(folder))?;
    let files = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
    let package = files
        .filter_map(|file| Some(file.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or("apt-get has brought no package")?;
    said(Command::new("dpkg-deb").arg("-x").arg(package).arg(folder))?;
    if runs(&program) { Ok(program) } else { Err("the package has no promtool that runs".into()) }
}

/// `promtool` beside the test's own program, which lies in `target/PROFILE/deps`.
fn folder() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let target = own.ancestors().nth(3).ok_or("the test lies in no target folder")?;
    Ok(target.join("promtool"))
}

fn said(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(output),
        false => {
            let text = [output.stdout, output.stderr].concat();
            Err(format!("{command:?}: {}", String::from_utf8_lossy(&text).trim()))
        }
    }
}
