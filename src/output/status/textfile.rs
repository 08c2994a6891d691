//! The metrics as a file for the textfile collector of Prometheus's node exporter, which must never see half of one.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::sys::escape::escaped_path;
use crate::sys::failure::{Failure, FailureKind};

/// Writes `text` to a file beside `path` and renames it into place, readable by everybody.
///
/// # Errors
/// It can't be written, or something else than a regular file has this name; what was there stays.
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    if let Ok(found) = path.symlink_metadata()
        && !found.is_file()
    {
        let what = if found.is_dir() {
            "a directory"
        } else if found.is_symlink() {
            "a symbolic link"
        } else {
            "a device, a pipe or a socket"
        };
        let message = format!("cannot write {}: it is {what}, not a regular file", escaped_path(path));
        return Err(Failure::new(FailureKind::Io, message));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let fail = |e: &std::io::Error| Failure::io("write", path, e);
    let mut file = tempfile::Builder::new()
        .prefix(".haproxy-certs-")
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(|e| fail(&e))?;
    // The umask may have taken something away.
    let mode = std::fs::Permissions::from_mode(0o644);
    file.write_all(text.as_bytes())
        .and_then(|()| file.as_file().set_permissions(mode))
        .map_err(|e| fail(&e))?;
    file.persist(path).map_err(|e| fail(&e.error))?;
    Ok(())
}
