//! `ringtail-bench`: load, sink, raw relay, and the runs that compare them side by side.

use clap::{Parser, Subcommand};
use ringtail_bench::failure::Result;
use ringtail_bench::{churn, collector, generate, local, relay, run, sink};

/// The product's allocator, so that the relay is a fair limit.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Ringtail beside the raw limit of its stack and beside the OpenTelemetry Collector.
#[derive(Parser)]
#[command(name = "ringtail-bench", version)]
struct Arguments {
    /// Without one: `run`.
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Generate(generate::Options),
    Sink(sink::Options),
    Relay(relay::Options),
    Run(run::Options),
    Churn(churn::Options),
    Collector(collector::Options),
}

fn main() -> std::process::ExitCode {
    let whole = || Arguments::parse_from(["ringtail-bench", "run"]).command;
    let Some(command) = Arguments::parse().command.or_else(whole) else {
        return std::process::ExitCode::FAILURE;
    };
    match execute(command) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ringtail-bench: {failure}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<()> {
    match command {
        Command::Generate(options) => {
            println!("{}", local::run(generate::run(options))?);
            Ok(())
        }
        Command::Sink(options) => local::run(sink::run(options)),
        Command::Relay(options) => local::run(relay::run(options)),
        Command::Run(options) => run::run(options),
        Command::Churn(options) => churn::run(options),
        Command::Collector(options) => collector::run(options),
    }
}
