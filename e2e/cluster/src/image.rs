//! The one image that every node needs of us: what holds a pod's namespaces open.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ringtail_image::image::{self, Image};

use crate::error::{Error, OnFile};

/// Its name in full. With a tag other than `latest`, so that nothing ever tries to pull it.
pub const PAUSE: &str = "docker.io/library/ringtail-pause:1";

/// Writes an archive of the pause image.
pub(crate) fn write(pause: &Path, archive: &Path) -> Result<PathBuf, Error> {
    let binary = fs::read(pause).on("read", pause)?;
    let image = Image { name: "ringtail-pause", tag: "1", binary: &binary };
    let out = File::create(archive).on("create", archive)?;
    image::write(&image, out)?;
    Ok(archive.to_owned())
}
