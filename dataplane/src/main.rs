//! The `ringtail` binary: parse the command line, make a runtime, run.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use ringtail::cli::Cli;

// Splitting allocates and frees megabyte buffers on every batch; glibc's allocator costs several times more
// for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The Kubernetes client calls every failed request an error; we tell it once, with what follows from it.
const LOG_DEFAULT: &str = "info,kube_client=off";

/// What sysexits.h calls EX_USAGE: the command line or the manifest is wrong.
const EX_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code =
                if error.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS };
            // Nothing to be done when even the terminal is gone.
            let _ = error.print();
            return code;
        }
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("RINGTAIL_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(LOG_DEFAULT)),
        )
        .init();
    let threads = cli.runtime_threads();
    let mut builder = if threads > 1 {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = match builder.worker_threads(threads).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ringtail: the operating system refused a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(cli.run()).unwrap_or_else(|error| {
        eprintln!("{error}");
        error.exit_code()
    })
}
