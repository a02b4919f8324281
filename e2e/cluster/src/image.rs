//! The one image that every node needs of us: what holds a pod's namespaces open.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::command;
use crate::error::{Error, OnFile};

/// Its name. With a tag other than `latest`, so that nothing ever tries to pull it.
pub const PAUSE: &str = "ringtail.local/pause:1";

/// Writes an archive of the pause image into `folder` and returns its path.
pub(crate) fn write(pause: &Path, folder: &Path) -> Result<PathBuf, Error> {
    let (root, layout) = (folder.join("root"), folder.join("layout"));
    fs::create_dir_all(&root).on("create", &root)?;
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).on("create", &blobs)?;
    fs::copy(pause, root.join("pause")).on("copy", pause)?;
    let layer = tar(&root, &folder.join("layer.tar"))?;
    let bytes = fs::read(&layer).on("read", &layer)?;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let platform = json!({ "architecture": architecture, "os": "linux" });
    let layer = blob(&blobs, "application/vnd.oci.image.layer.v1.tar", &bytes)?;
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Entrypoint": ["/pause"], "User": "65532:65532" },
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config =
        blob(&blobs, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer],
    });
    let mut manifest = blob(&blobs, manifest_type, manifest.to_string().as_bytes())?;
    manifest["platform"] = platform;
    manifest["annotations"] = json!({ "io.containerd.image.name": PAUSE });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    for (name, value) in
        [("index.json", index), ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }))]
    {
        fs::write(layout.join(name), value.to_string()).on("write", layout.join(name))?;
    }
    tar(&layout, &folder.join("pause.tar"))
}

fn tar(folder: &Path, archive: &Path) -> Result<PathBuf, Error> {
    let words =
        ["--create".as_ref(), "--owner=0".as_ref(), "--group=0".as_ref(), "--file".as_ref()];
    let words = words.into_iter().chain([archive.as_os_str(), "--directory".as_ref()]);
    command::run("tar", words.chain([folder.as_os_str(), ".".as_ref()]))?;
    Ok(archive.to_owned())
}

/// Stores bytes by their digest; returns how others refer to them.
fn blob(folder: &Path, media_type: &str, bytes: &[u8]) -> Result<Value, Error> {
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let path = folder.join(&digest);
    fs::write(&path, bytes).on("write", &path)?;
    Ok(
        json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() }),
    )
}
