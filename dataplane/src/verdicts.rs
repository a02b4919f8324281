//! `ringtail explain` and `ringtail test`: recorded traces against the policies of a manifest.
//!
//! The recordings go through what gateways use: the scanner, the compiled policies, their budgets. Nothing
//! is started and nothing waits. Budgets are those of a fleet whose gateways decide each trace when the
//! decision wait after its first span is over, on the clock of the recording.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ringtail_crds::ValidPipeline;
use ringtail_engine::policy;

use self::judge::Judged;
use self::recording::Recording;

mod expected; //  what should become of traces
mod judge; //     what becomes of them
mod reason; //    why, in words
mod recording; // files -> traces
mod show; //      text and JSON
#[cfg(test)]
mod tests;

/// Flags of `ringtail explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainOptions {
    /// The TracePipeline.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Recorded traces: OTLP/JSON, one request a line or a document, or requests in protobuf; gzip and zstd
    /// are recognised.
    #[arg(long, required = true, num_args = 1.., value_name = "RECORDED")]
    pub traces: Vec<PathBuf>,
    /// Tell of this trace only; the others still spend budgets.
    #[arg(long, value_name = "TRACE ID")]
    pub trace: Option<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value = "text")]
    pub output: Output,
}

/// Flags of `ringtail test`.
#[derive(Args, Clone, Debug)]
pub struct TestOptions {
    /// The TracePipeline.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Recorded traces, as for `ringtail explain`.
    #[arg(long, required = true, num_args = 1.., value_name = "RECORDED")]
    pub traces: Vec<PathBuf>,
    /// The expected verdicts.
    #[arg(long, value_name = "EXPECTED")]
    pub expect: PathBuf,
    /// Write the present verdicts to that file instead of comparing with it.
    #[arg(long)]
    pub write: bool,
}

/// How verdicts are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What `ringtail test` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What to print.
    pub text: String,
    /// Whether everything is as expected.
    pub passed: bool,
}

/// Says what becomes of recorded traces and why.
///
/// # Errors
/// What cannot be read, with its line where it has one.
pub fn explain(options: &ExplainOptions, pipeline: &ValidPipeline) -> Result<String, String> {
    let (recording, judged) = verdicts(pipeline, &options.traces)?;
    let wanted = options.trace.as_ref().map(|id| id.to_ascii_lowercase());
    let shown: Vec<&Judged> =
        judged.iter().filter(|trace| wanted.as_ref().is_none_or(|id| trace.id == *id)).collect();
    if let (Some(id), true) = (&wanted, shown.is_empty()) {
        return Err(format!("the trace {id} is not recorded"));
    }
    match options.output {
        Output::Text => {
            let mut text = show::text(&pipeline.policies, &shown);
            text.push_str(&summary(&recording, &judged));
            Ok(text)
        }
        Output::Json => {
            let document = show::document(&pipeline.policies, &shown);
            let text =
                serde_json::to_string_pretty(&document).map_err(|error| error.to_string())?;
            Ok(text + "\n")
        }
    }
}

/// Compares what becomes of recorded traces with what is expected, or writes it down.
///
/// # Errors
/// What cannot be read or written, with its line where it has one.
pub fn test(options: &TestOptions, pipeline: &ValidPipeline) -> Result<Outcome, String> {
    let (_, judged) = verdicts(pipeline, &options.traces)?;
    let shown = options.expect.display();
    let told = |error: std::io::Error| format!("{shown}: {error}");
    if options.write {
        let text = expected::write(&pipeline.policies, &judged)?;
        std::fs::write(&options.expect, text).map_err(told)?;
        let text = format!("{shown}: {} verdicts written\n", judged.len());
        return Ok(Outcome { text, passed: true });
    }
    let text = std::fs::read_to_string(&options.expect).map_err(told)?;
    let expected = expected::read(&text).map_err(|problem| format!("{shown}: {problem}"))?;
    let differences = expected::compare(&pipeline.policies, &judged, &expected);
    let lines: String = differences.iter().map(|told| format!("{shown}: {told}\n")).collect();
    let wrong = differences.len();
    let total = expected.len();
    let text = match wrong {
        0 => format!("{total} verdicts are as expected, of {} traces\n", judged.len()),
        _ => format!("{lines}{wrong} differences in {total} expected verdicts\n"),
    };
    Ok(Outcome { text, passed: wrong == 0 })
}

fn verdicts(
    pipeline: &ValidPipeline,
    paths: &[impl AsRef<Path>],
) -> Result<(Recording, Vec<Judged>), String> {
    let program = policy::compile(&pipeline.policies)
        .map_err(|problems| format!("the policies do not compile: {problems:?}"))?;
    let recording = Recording::read(paths)?;
    let wait_ms = u64::try_from(pipeline.decision_wait.as_millis()).unwrap_or(u64::MAX);
    let judged = judge::judge(&program, &pipeline.policies, wait_ms, &recording);
    Ok((recording, judged))
}

fn summary(recording: &Recording, judged: &[Judged]) -> String {
    let kept = judged.iter().filter(|trace| trace.keep).count();
    let mut text = format!("{kept} of {} traces are kept\n", judged.len());
    if recording.invalid > 0 {
        text.push_str(&format!("{} spans have no valid trace ID\n", recording.invalid));
    }
    if recording.duplicates > 0 {
        text.push_str(&format!("{} spans came twice and count once\n", recording.duplicates));
    }
    text
}
