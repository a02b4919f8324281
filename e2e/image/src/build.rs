//! Builds a package of this workspace as one static binary.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// How to build.
#[derive(Clone, Debug)]
pub struct Build {
    /// Cargo's profile.
    pub profile: String,
    /// Cargo's target.
    pub target: String,
}

/// Why there is no binary.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Cargo is not there.
    #[error("cannot run cargo: {0}")]
    Cargo(io::Error),
    /// The compiler has said why.
    #[error("{0} does not build")]
    Failed(String),
    /// A library, perhaps.
    #[error("{0} has no binary of its own name")]
    NoBinary(String),
    /// It was built, and is gone.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The binary.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

// === impl Build ===

impl Build {
    /// The C library goes into the binary, and what the image does not need stays out of it: the paths of the
    /// machine that builds, which would make every machine's image another one, and the debug information.
    fn flags() -> String {
        let mut flags = "-C target-feature=+crt-static -C strip=debuginfo".to_owned();
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().ok();
        let home = env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(env::home_dir()?.join(".cargo")));
        for (from, to) in [(home, "/cargo"), (workspace, "/ringtail")] {
            if let Some(from) = from {
                flags = format!("{flags} --remap-path-prefix={}={to}", from.display());
            }
        }
        flags
    }

    /// The bytes of the package's binary, without the features that are on by default: those are for laptops.
    ///
    /// # Errors
    /// When it cannot be built or read.
    pub fn binary(&self, package: &str) -> Result<Vec<u8>, BuildError> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--locked", "--no-default-features", "--package", package])
            .args(["--profile", &self.profile, "--target", &self.target])
            .arg("--message-format=json-render-diagnostics")
            // With --target the flags are not for build scripts, and the folder of the target is not shared
            // with builds for this machine.
            .env("RUSTFLAGS", Self::flags())
            .stderr(Stdio::inherit())
            .output()
            .map_err(BuildError::Cargo)?;
        if !output.status.success() {
            return Err(BuildError::Failed(package.to_owned()));
        }
        let messages = String::from_utf8_lossy(&output.stdout);
        let path = executable(&messages, package)
            .ok_or_else(|| BuildError::NoBinary(package.to_owned()))?;
        fs::read(&path).map_err(|error| BuildError::Read { path, error })
    }
}

/// The path of the binary in cargo's messages, one JSON object a line.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let mut messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages.find_map(|message| {
        let path = message["executable"].as_str().filter(|_| message["target"]["name"] == name)?;
        Some(PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_found_among_what_cargo_says() {
        let messages = r#"
            {"reason":"compiler-artifact","target":{"name":"ringtail","kind":["lib"]},"executable":null}
            {"reason":"compiler-artifact","target":{"name":"other","kind":["bin"]},"executable":"/t/other"}
            {"reason":"compiler-artifact","target":{"name":"ringtail"},"executable":"/t/ringtail"}
            {"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "ringtail"), Some(PathBuf::from("/t/ringtail")));
        assert_eq!(executable(messages, "ringtail-operator"), None);
    }
}
