//! `ringtail-operator`: parses, builds and runs the operator.

use std::process::ExitCode;

use clap::Parser;
use ringtail_operator::{check::Check, cli::Cli, runtime};
use tracing_subscriber::EnvFilter;

/// The variable that says what is logged, as in the data plane.
const LOG_VARIABLE: &str = "RINGTAIL_LOG";

fn main() -> ExitCode {
    // Not a subcommand to clap: the operator itself has none, and its flags are required.
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|first| first == "check").is_some() {
        return check(&Check::parse_from(arguments));
    }
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(runtime::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn check(options: &Check) -> ExitCode {
    let asked = tokio::runtime::Runtime::new()
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(options.run()).map_err(|error| error.to_string()));
    match asked {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("ringtail-operator check: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    tracing::error!("{error}");
    ExitCode::FAILURE
}
