//! `ringtail-cluster`: builds the programs of a cluster, says what this machine lacks, keeps one up for a
//! person.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use ringtail_cluster::{Capabilities, Cluster, Error, Options, Toolchain};

/// A real Kubernetes on this machine, for tests and for people.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Say what this machine can carry and what it lacks.
    Doctor,
    /// Build the programs that are missing; as root on Debian also install what nodes need.
    Build,
    /// Start a cluster and keep it up until Ctrl-C or `ringtail-cluster down`.
    Up {
        /// How many nodes; 0 needs no root and runs no pods.
        #[arg(long, default_value_t = 3)]
        nodes: u8,
    },
    /// End every cluster of this user, running or left behind.
    Down,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.action {
        Action::Doctor => {
            print!("{}", Capabilities::report());
            Ok(())
        }
        Action::Build => build(),
        Action::Up { nodes } => up(nodes).await,
        Action::Down => down().await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Error> {
    let mut progress = std::io::stderr();
    // Nodes may be impossible here for other reasons as well; `doctor` and the skipped tests will say so.
    if let Err(error) = Capabilities::install(&mut progress) {
        eprintln!("packages for nodes could not be installed: {error}");
    }
    Toolchain::build(&mut progress).map(|_| ())
}

async fn up(nodes: u8) -> Result<(), Error> {
    build()?;
    let options = if nodes == 0 { Options::control_plane() } else { Options::nodes(nodes) };
    let started = std::time::Instant::now();
    let cluster = Cluster::start(options).await?;
    println!(
        "up after {:.1} s; logs in {}",
        started.elapsed().as_secs_f64(),
        cluster.logs().display()
    );
    let kubectl = cluster.command("kubectl", [""; 0]);
    println!("alias kubectl={}", kubectl.get_program().to_string_lossy());
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    ended().await;
    println!("going down");
    drop(cluster);
    Ok(())
}

/// Ctrl-C, or what `down` sends.
async fn ended() {
    let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    match terminate {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => (),
                _ = terminate.recv() => (),
            }
        }
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

async fn down() -> Result<(), Error> {
    for name in ringtail_cluster::end_others(Duration::from_secs(30)).await? {
        println!("{name} is gone");
    }
    Ok(())
}
