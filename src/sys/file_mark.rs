//! Whether files are still what they were.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::sys::change_time::changed_at;

/// What a file was when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileMark {
    device: u64,
    inode: u64,
    size: u64,
    /// The newest change time of it and of the links on the way to it.
    changed: Option<SystemTime>,
}

impl FileMark {
    /// `None`: there is no such file. A pipe is never the same.
    fn look(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok().filter(Metadata::is_file)?;
        Some(Self { device: found.dev(), inode: found.ino(), size: found.size(), changed: changed_at(path) })
    }
}

/// Files that were read, or not found, as they were before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileMarks(BTreeMap<PathBuf, Option<FileMark>>);

impl FileMarks {
    /// Looks at these files, before they are read.
    #[must_use]
    pub fn look<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        Self(paths.into_iter().map(|path| (path.to_owned(), FileMark::look(path))).collect())
    }

    /// These and others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Whether any of them is another one by now, was changed, came or went.
    #[must_use]
    pub fn are_outdated(&self) -> bool {
        self.0.iter().any(|(path, mark)| FileMark::look(path) != *mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_comes_changes_or_goes_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let look = || FileMarks::look([path.as_path()]);
        let none = look();
        assert!(!none.are_outdated());
        fs::write(&path, "one").unwrap();
        assert!(none.are_outdated());
        let one = look();
        assert!(!one.are_outdated());
        fs::write(&path, "longer").unwrap();
        assert!(one.are_outdated());
        // Another file of the same size and of the same moment.
        let longer = look();
        fs::write(folder.path().join("other"), "LONGER").unwrap();
        fs::rename(folder.path().join("other"), &path).unwrap();
        assert!(longer.are_outdated());
        let other = look();
        fs::remove_file(&path).unwrap();
        assert!(other.are_outdated());
        assert_eq!(look(), none);
    }
}
