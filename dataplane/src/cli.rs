//! The command line of `ringtail`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Loaded;
use crate::convert::{self, ConvertOptions};
use crate::inject::{self, InjectOptions};
use crate::role::{self, AgentOptions, GatewayOptions, RoleError};
use crate::run::control::client::{self, ControlOptions};
use crate::run::{self, RunOptions};
use crate::verdicts::{self, ExplainOptions, TestOptions};

/// Whole traces, sampled at the tail: agents, gateways and a local fleet from one TracePipeline manifest.
#[derive(Debug, Parser)]
#[command(name = "ringtail", version, about, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take spans from services and spread them over the gateways by trace.
    Agent(AgentOptions),
    /// Hold traces until they are complete, decide them, and export the kept ones.
    Gateway(GatewayOptions),
    /// Run a manifest as a local fleet: two agents and its gateways on loopback.
    Run(RunOptions),
    /// Have a local fleet that runs add, drain, kill, freeze or thaw a gateway.
    Control(ControlOptions),
    /// Check manifests and report every problem at once.
    Validate {
        /// Manifests.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Add an agent to the pods of workloads, as a sidecar, and print the manifests.
    Inject(InjectOptions),
    /// Turn the configurations of a Collector's two tiers into a TracePipeline, and say what is not the same.
    Convert(ConvertOptions),
    /// Say what becomes of recorded traces, and why.
    Explain(ExplainOptions),
    /// Compare what becomes of recorded traces with what is expected.
    Test(TestOptions),
}

// === impl Cli ===

impl Cli {
    /// How many threads the runtime of this command needs.
    pub fn runtime_threads(&self) -> usize {
        match &self.command {
            Command::Agent(options) => options.role.threads.unwrap_or(1).max(1),
            // Receivers of a gateway only check and pass on; the work is on the shards' own threads.
            Command::Gateway(_)
            | Command::Run(_)
            | Command::Control(_)
            | Command::Validate { .. }
            | Command::Inject(_)
            | Command::Convert(_)
            | Command::Explain(_)
            | Command::Test(_) => 1,
        }
    }

    /// Carries the command out.
    ///
    /// # Errors
    /// When it cannot start; the error says what to do and which exit code fits.
    pub async fn run(self) -> Result<ExitCode, RoleError> {
        match self.command {
            Command::Agent(options) => {
                let loaded = load(&options.role.pipeline)?;
                role::run_agent(options, loaded).await
            }
            Command::Gateway(options) => {
                let loaded = load(&options.role.pipeline)?;
                role::run_gateway(options, loaded).await
            }
            Command::Run(options) => {
                let loaded = load(&options.file)?;
                run::run(options, loaded.pipeline)
                    .await
                    .map_err(|error| RoleError::Fleet(error.to_string()))
            }
            Command::Control(options) => {
                client::run(options).map_err(|error| RoleError::Fleet(error.to_string()))
            }
            Command::Validate { files } => Ok(validate(&files)),
            Command::Inject(options) => {
                let manifests =
                    inject::run(&options).map_err(|e| RoleError::Usage(e.to_string()))?;
                print!("{manifests}");
                Ok(ExitCode::SUCCESS)
            }
            Command::Convert(options) => {
                let converted =
                    convert::run(&options).map_err(|e| RoleError::Usage(e.to_string()))?;
                eprint!("{}", converted.report);
                print!("{}", converted.manifest);
                Ok(ExitCode::SUCCESS)
            }
            Command::Explain(options) => {
                let loaded = load(&options.file)?;
                let told = verdicts::explain(&options, &loaded.pipeline);
                print!("{}", told.map_err(RoleError::Usage)?);
                Ok(ExitCode::SUCCESS)
            }
            Command::Test(options) => {
                let loaded = load(&options.file)?;
                let outcome = verdicts::test(&options, &loaded.pipeline);
                let outcome = outcome.map_err(RoleError::Usage)?;
                print!("{}", outcome.text);
                Ok(if outcome.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
        }
    }
}

fn load(path: &Path) -> Result<Loaded, RoleError> {
    Loaded::read(path).map_err(RoleError::Usage)
}

fn validate(files: &[PathBuf]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for file in files {
        match load(file) {
            Ok(Loaded { pipeline, .. }) => {
                println!("{}: TracePipeline {} is valid", file.display(), pipeline.name)
            }
            Err(error) => {
                eprintln!("{error}");
                code = error.exit_code();
            }
        }
    }
    code
}
