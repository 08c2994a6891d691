//! The directories that are searched on the way to a path, links followed.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::{read_link, symlink_metadata};
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// The way that a process takes to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    /// The directories that it searches.
    pub(crate) searched: BTreeSet<PathBuf>,
    /// Where it ends.
    pub(crate) end: PathBuf,
}

/// The way to a path from this directory, both as a process with this root directory means them; all that is found is as we
/// reach it. `None`: it leads nowhere.
pub(crate) fn way(root: &Path, start: &Path, path: &Path) -> Option<Way> {
    let reached = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let mut left: VecDeque<OsString> = components(path).collect();
    let mut at = if path.is_absolute() { PathBuf::from("/") } else { start.to_owned() };
    let mut searched = BTreeSet::new();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        searched.insert(reached(&at));
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let there = reached(&next);
        if !symlink_metadata(&there).ok()?.is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        let target = read_link(&there).ok().filter(|_| links <= MAX_LINKS)?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for name in components(&target).rev() {
            left.push_front(name);
        }
    }
    Some(Way { searched, end: reached(&at) })
}

/// The names in a path.
fn components(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_through_other_directories() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["a/b", "c/d"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        for (to, link) in [("../c", "a/link"), ("/c/d", "a/root"), ("loop", "a/loop")] {
            std::os::unix::fs::symlink(to, at(link)).unwrap();
        }
        let found = |path: &str| {
            let way = way(folder.path(), Path::new("/a"), Path::new(path))?;
            Some((way.searched.into_iter().collect::<Vec<_>>(), way.end))
        };
        let expected =
            |searched: &[&str], end: &str| Some((searched.iter().map(|it| at(it)).collect(), at(end)));
        assert_eq!(found("/a/b"), expected(&["", "a"], "a/b"));
        assert_eq!(found("b"), expected(&["a"], "a/b"));
        assert_eq!(found("./link/d"), expected(&["", "a", "c"], "c/d"));
        assert_eq!(found("/a/root"), expected(&["", "a", "c"], "c/d"));
        assert_eq!(found("b/../link"), expected(&["", "a", "a/b"], "c"), "its link begins in a");
        assert_eq!(found("/a/loop"), None);
        assert_eq!(found("/a/missing/x"), None);
    }
}
