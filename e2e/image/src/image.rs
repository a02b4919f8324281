//! One image in one tar: an OCI image layout, with Docker's `manifest.json` beside it.

use std::io::{self, Write};

use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::elf::{self, Architecture, ElfError};

/// Nobody: no user of this number exists on a usual node, and `runAsNonRoot` needs a number.
pub const USER: &str = "65532:65532";

/// Nothing in an image says when it was made, so that the same binary makes the same image.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// Media type of what names a configuration and its layers.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What an image is made of.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    /// Its name, also of the binary in its root.
    pub name: &'a str,
    /// Its tag and version.
    pub tag: &'a str,
    /// A static program.
    pub binary: &'a [u8],
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Digest of the manifest, `sha256:...`: what a pod can name instead of a tag.
    pub digest: String,
    /// For which processor it is.
    pub architecture: Architecture,
    /// Bytes of the layer as nodes pull it.
    pub layer_bytes: usize,
}

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The binary is not one that runs in an empty root.
    #[error("the binary cannot be an image: {0}")]
    Binary(#[from] ElfError),
    /// The archive could not be written.
    #[error("cannot write the image: {0}")]
    Write(#[from] io::Error),
}

/// Bytes that are found by their digest.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

/// Writes the image as a tar.
///
/// # Errors
/// When the binary would not run in it, or the tar cannot be written.
pub fn write(image: &Image<'_>, out: impl Write) -> Result<Written, ImageError> {
    let architecture = elf::architecture(image.binary)?;
    let files = layer(image)?;
    let unpacked = digest_of(&files);
    let layer = Blob::new(compress(&files)?);
    let config = Blob::json(&config(image, architecture, &unpacked));
    let manifest = Blob::json(&manifest(&config, &layer));
    let index = index(image, architecture, &manifest);

    let mut archive = tar::Builder::new(out);
    append(
        &mut archive,
        "oci-layout",
        &json_bytes(&json!({"imageLayoutVersion": "1.0.0"})),
        0o644,
    )?;
    append(&mut archive, "index.json", &json_bytes(&index), 0o644)?;
    append(
        &mut archive,
        "manifest.json",
        &json_bytes(&docker_manifest(image, &config, &layer)),
        0o644,
    )?;
    for blob in [&manifest, &config, &layer] {
        append(&mut archive, &blob.path(), &blob.bytes, 0o644)?;
    }
    archive.into_inner()?.flush()?;
    Ok(Written { digest: manifest.digest, architecture, layer_bytes: layer.bytes.len() })
}

// === impl Blob ===

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: digest_of(&bytes), bytes }
    }

    fn json(value: &Value) -> Self {
        Self::new(json_bytes(value))
    }

    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replacen(':', "/", 1))
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"digest": self.digest, "mediaType": media_type, "size": self.bytes.len()})
    }
}

// === documents === Keys are in the order of the alphabet, so that it makes no difference whether
// serde_json sorts or keeps them.

fn config(image: &Image<'_>, architecture: Architecture, layer: &str) -> Value {
    json!({
        "architecture": architecture.name(),
        "config": {
            "Entrypoint": [format!("/{}", image.name)],
            "Labels": {
                "org.opencontainers.image.licenses": "Apache-2.0",
                "org.opencontainers.image.title": image.name,
                "org.opencontainers.image.version": image.tag,
            },
            "User": USER,
            "WorkingDir": "/",
        },
        "created": CREATED,
        "history": [{"created": CREATED, "created_by": "ringtail-image"}],
        "os": "linux",
        "rootfs": {"diff_ids": [layer], "type": "layers"},
    })
}

fn manifest(config: &Blob, layer: &Blob) -> Value {
    json!({
        "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
        "mediaType": MANIFEST,
        "schemaVersion": 2,
    })
}

fn index(image: &Image<'_>, architecture: Architecture, manifest: &Blob) -> Value {
    json!({
        "manifests": [{
            // containerd takes the first one as it stands, and a kubelet asks for the name written in full;
            // other tools read the second one.
            "annotations": {
                "io.containerd.image.name": in_full(image),
                "org.opencontainers.image.ref.name": image.tag,
            },
            "digest": manifest.digest,
            "mediaType": MANIFEST,
            "platform": {"architecture": architecture.name(), "os": "linux"},
            "size": manifest.bytes.len(),
        }],
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "schemaVersion": 2,
    })
}

/// What `docker load` reads.
fn docker_manifest(image: &Image<'_>, config: &Blob, layer: &Blob) -> Value {
    json!([{
        "Config": config.path(),
        "Layers": [layer.path()],
        "RepoTags": [format!("{}:{}", image.name, image.tag)],
    }])
}

/// The name that every container runtime makes of a short one.
fn in_full(image: &Image<'_>) -> String {
    format!("docker.io/library/{}:{}", image.name, image.tag)
}

// === bytes ===

/// The root of the container: one file.
fn layer(image: &Image<'_>) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, image.name, image.binary, 0o555)?;
    archive.into_inner()
}

/// Appends a file of root's, of no time.
fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &str,
    bytes: &[u8],
    mode: u32,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    archive.append_data(&mut header, path, bytes)
}

fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn digest_of(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn json_bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;
    use crate::elf::tests::program;

    fn image(binary: &[u8]) -> Image<'_> {
        Image { name: "ringtail", tag: "1.2.3", binary }
    }

    /// `(mode, mtime, uid, bytes)` of every file in a tar.
    fn files(tar: &[u8]) -> BTreeMap<String, (u32, u64, u64, Vec<u8>)> {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().unwrap().map(Result::unwrap);
        entries
            .map(|mut entry| {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                let header = entry.header();
                let facts =
                    (header.mode().unwrap(), header.mtime().unwrap(), header.uid().unwrap());
                let path = entry.path().unwrap().to_string_lossy().into_owned();
                (path, (facts.0, facts.1, facts.2, bytes))
            })
            .collect()
    }

    fn json_at(files: &BTreeMap<String, (u32, u64, u64, Vec<u8>)>, path: &str) -> Value {
        serde_json::from_slice(&files.get(path).unwrap_or_else(|| panic!("{path} is missing")).3)
            .unwrap()
    }

    fn blob(descriptor: &Value) -> String {
        format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"))
    }

    #[test]
    fn the_layout_leads_from_the_index_to_the_binary() {
        let binary = program(62, &[1]);
        let mut tar = Vec::new();
        let written = write(&image(&binary), &mut tar).unwrap();
        let files = files(&tar);
        for (path, (_, mtime, uid, bytes)) in &files {
            assert_eq!((*mtime, *uid), (0, 0), "{path}");
            if let Some(hex) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(digest_of(bytes), format!("sha256:{hex}"));
            }
        }
        assert_eq!(json_at(&files, "oci-layout")["imageLayoutVersion"], "1.0.0");
        let entry = &json_at(&files, "index.json")["manifests"][0];
        assert_eq!(entry["digest"], *written.digest);
        assert_eq!(entry["platform"], json!({"architecture": "amd64", "os": "linux"}));
        assert_eq!(
            entry["annotations"]["io.containerd.image.name"],
            "docker.io/library/ringtail:1.2.3"
        );
        let manifest = json_at(&files, &blob(entry));
        let config = json_at(&files, &blob(&manifest["config"]));
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Entrypoint"], json!(["/ringtail"]));
        let layer = &files[&blob(&manifest["layers"][0])].3;
        assert_eq!(
            (manifest["layers"][0]["size"].as_u64(), layer.len()),
            (Some(layer.len() as u64), written.layer_bytes)
        );
        let mut unpacked = Vec::new();
        GzDecoder::new(layer.as_slice()).read_to_end(&mut unpacked).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!([digest_of(&unpacked)]));
        let root = super::tests::files(&unpacked);
        assert_eq!(root, BTreeMap::from([("ringtail".to_owned(), (0o555, 0, 0, binary))]));
    }

    #[test]
    fn docker_finds_the_same_files() {
        let mut tar = Vec::new();
        write(&image(&program(183, &[1])), &mut tar).unwrap();
        let files = files(&tar);
        let docker = &json_at(&files, "manifest.json")[0];
        assert_eq!(docker["RepoTags"], json!(["ringtail:1.2.3"]));
        assert_eq!(json_at(&files, docker["Config"].as_str().unwrap())["architecture"], "arm64");
        assert!(files.contains_key(docker["Layers"][0].as_str().unwrap()));
    }

    #[test]
    fn the_same_binary_makes_the_same_image() {
        let binary = program(62, &[1]);
        let once = || {
            let mut tar = Vec::new();
            (write(&image(&binary), &mut tar).unwrap().digest, tar)
        };
        assert_eq!(once(), once());
        // Recorded: on another machine or day the digest must be this one, or pods pinned by digest would
        // roll. A new version of the compressor may change it, and then this line with it.
        assert_eq!(
            once().0,
            "sha256:ce22e09a1aa0f29ccc20e7f8afb5d68377afb2d3c8a154dfef59a981c2dc623c"
        );
    }

    #[test]
    fn a_binary_that_would_not_start_is_refused() {
        let refused = write(&image(&program(62, &[3])), &mut Vec::new()).unwrap_err();
        assert!(refused.to_string().contains("crt-static"), "{refused}");
    }
}
