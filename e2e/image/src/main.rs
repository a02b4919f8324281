//! `make image`: builds static binaries and writes an image of each.

use std::error::Error;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ringtail_image::build::Build;
use ringtail_image::image::{self, Image};

/// Builds packages as static binaries and writes an image of each, OUT/PACKAGE.tar, without a container
/// engine.
#[derive(Debug, Parser)]
#[command(name = "ringtail-image", max_term_width = 110)]
struct Options {
    /// Packages with a binary of their own name.
    #[arg(value_name = "PACKAGE", default_values = ["ringtail", "ringtail-operator"])]
    packages: Vec<String>,
    /// Cargo's profile.
    #[arg(long, default_value = "dist")]
    profile: String,
    /// Cargo's target. The processor of the image follows from the binary.
    #[arg(long, default_value_t = format!("{}-unknown-linux-gnu", std::env::consts::ARCH))]
    target: String,
    /// Tag of the images.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// Folder for the images.
    #[arg(long, default_value = "target/images")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringtail-image: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let build = Build { profile: options.profile.clone(), target: options.target.clone() };
    fs::create_dir_all(&options.out)?;
    for name in &options.packages {
        let binary = build.binary(name)?;
        let path = options.out.join(format!("{name}.tar"));
        // Whoever waits for the file must not find half of it.
        let unfinished = path.with_extension("tar.unfinished");
        let image = Image { name, tag: &options.tag, binary: &binary };
        let written = image::write(&image, BufWriter::new(File::create(&unfinished)?))?;
        fs::rename(&unfinished, &path)?;
        let (megabytes, processor) = (written.layer_bytes / 1_000_000, written.architecture.name());
        println!(
            "{} {name}:{} {processor} {megabytes} MB {}",
            path.display(),
            options.tag,
            written.digest
        );
    }
    Ok(())
}
