//! Who may search or list a directory, and the least that lets somebody do so. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::config::Owner;
use crate::haproxy::process::user::User;

/// The group that root's directories have, and nobody else is meant by.
const ROOTS: u32 = 0;

/// What HAProxy does with a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Right {
    /// It opens what is in it, by name.
    Search,
    /// It reads the names in it, too.
    List,
}

/// A directory's owner and permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Folder {
    pub(crate) owner: Owner,
    pub(crate) mode: u32,
}

/// A step that opens a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Another group.
    Group(u32),
    /// Other permission bits, as chmod(1) has them.
    Mode(String),
}

impl Right {
    fn bits(self) -> u32 {
        match self {
            Self::Search => 0o1,
            Self::List => 0o5,
        }
    }

    fn letters(self) -> &'static str {
        match self {
            Self::Search => "x",
            Self::List => "rx",
        }
    }
}

impl Folder {
    /// Whether a process of this user without more rights may do so.
    pub(crate) fn admits(&self, user: &User, right: Right) -> bool {
        user.may(right.bits(), self.owner, self.mode)
    }

    /// The least that lets this user in, who isn't admitted, and what is then. `groups`: those that it is best known by come
    /// first. Everybody is let in only where the directory's group has a meaning of its own.
    pub(crate) fn opened(self, user: &User, right: Right, groups: &[u32]) -> (Self, Vec<Opening>) {
        let Owner { uid, gid } = self.owner;
        let mode = |class: char| Opening::Mode(format!("{class}+{}", right.letters()));
        let with = |bits: u32| Self { mode: self.mode | bits, ..self };
        if uid == user.uid {
            return (with(right.bits() << 6), vec![mode('u')]);
        }
        if user.is_in(gid) {
            return (with(right.bits() << 3), vec![mode('g')]);
        }
        let is_free = gid == ROOTS || self.mode & 0o050 == 0;
        let group = groups.iter().copied().find(|&group| group != ROOTS && user.is_in(group));
        match group.filter(|_| is_free) {
            Some(gid) => {
                let steps = vec![Opening::Group(gid), Opening::Mode(format!("g={}", right.letters()))];
                let mode = self.mode & !0o070 | right.bits() << 3;
                (Self { owner: Owner { uid, gid }, mode }, steps)
            }
            None => (with(right.bits()), vec![mode('o')]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_few_as_may_be_are_let_in() {
        let user = User::parse("Uid:\t9\t9\t9\t9\nGid:\t8\t8\t8\t8\nGroups:\t7 6\n").unwrap();
        for (uid, gid, mode, right, expected) in [
            (9, 0, 0o311, Right::List, "u+rx"),
            (0, 6, 0o700, Right::List, "g+rx"),
            (0, 6, 0o705, Right::Search, "g+x"),
            // What root's group might do is nothing that another group is given.
            (0, 0, 0o770, Right::List, "8 g=rx"),
            (0, 0, 0o711, Right::List, "8 g=rx"),
            (5, 5, 0o700, Right::Search, "8 g=x"),
            // Somebody else is let in by it.
            (0, 5, 0o750, Right::List, "o+rx"),
            (0, 5, 0o710, Right::Search, "o+x"),
        ] {
            let folder = Folder { owner: Owner { uid, gid }, mode };
            assert!(!folder.admits(&user, right));
            let (then, steps) = folder.opened(&user, right, &[4, 8]);
            let words = steps.into_iter().map(|step| match step {
                Opening::Group(group) => group.to_string(),
                Opening::Mode(mode) => mode,
            });
            assert_eq!(words.collect::<Vec<_>>().join(" "), expected, "{uid} {gid} {mode:o}");
            assert!(then.admits(&user, right), "{then:?}");
        }
    }
}
