//! `ringtail convert`: the configurations of a Collector's two tiers as one TracePipeline.
//!
//! Every option of a component that a pipeline uses is looked at: it becomes a field of the manifest, or a
//! line of the report that says that nothing is like it, that it means something else, or that Ringtail does
//! it without being told. What the manifest says is checked as `ringtail validate` would, before it is
//! written. Fields that a version of the schema does not have go into the report.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use ringtail_crds::duration::DurationText;
use ringtail_crds::size::SizeText;

use self::conversion::Conversion;
use self::environment::Environment;
use self::pipelines::Config;
use self::report::Report;
use self::source::{Entry, File, Reader};
use self::tree::Tree;
use crate::input;

mod agent; //       the agents' part
mod balancing; //   the way to the gateways
mod conversion; //  what was read so far
mod environment; // ${env:NAME}
mod exporters; //   backends
mod gateway; //     the gateways' part
mod leaves; //      policies that ask something themselves
mod logs; //        log records
mod metrics; //     span metrics, and what is no trace
mod pipelines; //   what is in use, and in which tier
mod policies; //    policies inside policies
mod redaction; //   what gateways take out
mod report; //      what somebody has to know
mod source; //      options that know their line
mod tree; //        the manifest as it grows

/// More than any configuration; the reader of YAML has its own limit below it.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// Flags of `ringtail convert`.
#[derive(Args, Clone, Debug)]
pub struct ConvertOptions {
    /// The configuration of the agents, that of the gateways, or one that has both. `-`: standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// What the pipeline is called.
    #[arg(long, value_name = "NAME", default_value = "traces")]
    pub name: String,
    /// Who runs the gateways: `managed` by the operator, or `external`, so that agents go on sending to
    /// those that run already.
    #[arg(long, value_enum, default_value = "managed")]
    pub gateways: Gateways,
    /// The value of a variable `${env:NAME}` of the configuration; may be given several times.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    pub variables: Vec<(String, String)>,
    /// Where the report goes; standard error unless it is given.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// Who runs the gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Gateways {
    /// The operator.
    Managed,
    /// Somebody else.
    External,
}

/// A manifest, and what to know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The TracePipeline.
    pub manifest: String,
    /// A line for each option that is not the same.
    pub report: String,
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which one.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// What is wrong with the configuration, a line each, and the report so far.
    #[error("{report}{problems}\nnothing was converted")]
    Configuration {
        /// The report so far.
        report: String,
        /// A line each.
        problems: String,
    },
}

/// The Secret for what stands in the environment of a Collector.
#[derive(Debug)]
struct Secrets {
    name: String,
}

/// Reads the files and converts them.
///
/// # Errors
/// When a file cannot be read, or holds what no manifest can say.
pub fn run(options: &ConvertOptions) -> Result<Converted, ConvertError> {
    let mut texts = Vec::new();
    for path in &options.files {
        texts.push((path.display().to_string(), read(path)?));
    }
    let converted = convert(&texts, options)?;
    if let Some(path) = &options.report {
        std::fs::write(path, &converted.report).map_err(|source| failed(path, source))?;
        return Ok(Converted { report: String::new(), ..converted });
    }
    Ok(converted)
}

/// Converts texts, each with the name of its file.
///
/// # Errors
/// When they hold what no manifest can say.
pub fn convert(
    texts: &[(String, String)],
    options: &ConvertOptions,
) -> Result<Converted, ConvertError> {
    let broken = |problems: Vec<String>, report: &Report| ConvertError::Configuration {
        report: report.text(),
        problems: problems.join("\n"),
    };
    let (mut files, mut unread) = (Vec::new(), Vec::new());
    for (order, (name, text)) in texts.iter().enumerate() {
        match File::parse(name, order, text) {
            Ok(read) => files.extend(read),
            Err(problem) => unread.push(problem),
        }
    }
    if !unread.is_empty() {
        return Err(broken(unread, &Report::default()));
    }
    let environment = Environment::new(&options.variables);
    let secrets = Secrets { name: format!("{}-environment", options.name) };
    let mut conversion = Conversion::new(&environment, &secrets, options.gateways);
    let configs = Config::read_all(&files, &mut conversion.report);
    conversion.read(&configs);
    let manifest = match conversion.report.errors().is_empty() {
        true => conversion.write(&options.name),
        false => None,
    };
    let report = conversion.report;
    match manifest {
        Some(manifest) => Ok(Converted { manifest, report: report.text() }),
        None => Err(broken(report.errors(), &report)),
    }
}

fn read(path: &Path) -> Result<String, ConvertError> {
    input::read(path, TEXT_BYTES_MAX).map_err(|source| failed(path, source))
}

fn failed(path: &Path, source: std::io::Error) -> ConvertError {
    ConvertError::File { path: path.display().to_string(), source }
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

/// A duration as a manifest writes it, in whole milliseconds and at least one.
fn duration(micros: u64) -> String {
    DurationText::from(Duration::from_millis((micros / 1_000).max(1))).to_string()
}

fn size(bytes: u64) -> String {
    SizeText::from(bytes).to_string()
}

/// A duration between bounds in milliseconds; what lies outside is told and moved.
fn bounded(reader: &mut Reader<'_>, entry: &Entry<'_>, least: u64, most: u64) -> Option<Tree> {
    let micros = reader.micros(entry)?;
    let within = micros.clamp(least * 1_000, most * 1_000);
    if within != micros {
        let (least, most) = (duration(least * 1_000), duration(most * 1_000));
        let why = format!("is from {least} to {most} in Ringtail: {} is used", duration(within));
        reader.report.differs(&entry.place, why);
    }
    Some(Tree::Text(duration(within)))
}

// === impl Secrets ===

impl Secrets {
    /// Where the value of a variable belongs.
    fn place_of(&self, variable: &str) -> (String, String) {
        (self.name.clone(), variable.to_owned())
    }
}

#[cfg(test)]
mod tests;
