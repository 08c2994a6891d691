//! Reading a pidfile.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::sys::procfs::Proc;

/// A pidfile holds a number or a few.
const LARGEST: u64 = 4096;

/// The process id in the first line; `None` where there is none.
///
/// # Errors
/// It can't be read, or isn't a regular file.
pub fn read(path: &Path) -> io::Result<Option<i32>> {
    // A FIFO in its place must not hang us.
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut text = Vec::new();
    file.take(LARGEST).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().next().and_then(|line| line.trim().parse().ok()).filter(|&pid| pid > 0))
}

/// The HAProxy that the pidfile names; `None`: it names none that runs.
pub(crate) fn haproxy(proc: &Proc, path: &Path) -> Option<i32> {
    read(path).ok().flatten().filter(|&pid| proc.haproxy(pid).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        for (text, pid) in [
            ("123\n", Some(123)),
            (" 7 \n8\n", Some(7)),
            ("", None),
            ("\n5\n", None),
            ("1\n", Some(1)),
            ("0", None),
            ("-5", None),
            ("99999999999", None),
            ("12x", None),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(&path).unwrap(), pid, "{text:?}");
        }
        assert!(read(folder.path()).is_err());
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read(&fifo).unwrap_err().to_string().contains("regular"));
    }
}
