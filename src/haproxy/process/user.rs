//! Whom a process runs as.

use crate::config::Owner;

/// The number that no user has (`chown(2)`).
const NO_ID: u32 = u32::MAX;

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(super) groups: Vec<u32>,
}

impl User {
    /// Whether it has the rights of this group.
    pub(crate) fn is_in(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }

    /// Who has the rights of this group, and no others.
    pub(crate) fn of_group(gid: u32) -> Self {
        Self { uid: NO_ID, gid, groups: Vec::new() }
    }

    /// Whether a process of this user without more rights may do this (`rwx` as the lowest three bits) with what has this
    /// owner and these permission bits: the first class that fits decides.
    pub(crate) fn may(&self, bits: u32, owner: Owner, mode: u32) -> bool {
        let class = match owner {
            Owner { uid, .. } if uid == self.uid => 6,
            Owner { gid, .. } if self.is_in(gid) => 3,
            Owner { .. } => 0,
        };
        mode >> class & bits == bits
    }

    pub(crate) fn parse(status: &str) -> Option<Self> {
        let numbers = |key: &str| -> Option<Vec<u32>> {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_ascii_whitespace().map(|word| word.parse().ok()).collect()
        };
        // Real, effective, saved, file system.
        Some(Self {
            uid: *numbers("Uid:")?.get(1)?,
            gid: *numbers("Gid:")?.get(1)?,
            groups: numbers("Groups:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_the_effective_ones() {
        let status = "Name:\tx\nUid:\t0\t99\t0\t0\nGid:\t0\t98\t0\t0\nGroups:\t98 5 \n";
        assert_eq!(User::parse(status), Some(User { uid: 99, gid: 98, groups: vec![98, 5] }));
        assert_eq!(User::parse("Uid:\t0\n"), None);
    }

    #[test]
    fn the_first_class_that_fits_decides_as_in_the_kernel() {
        let user = User::parse("Uid:\t9\t9\t9\t9\nGid:\t8\t8\t8\t8\nGroups:\t7 6\n").unwrap();
        for (uid, gid, mode, can) in [
            (0, 0, 0o400, false),
            (0, 0, 0o444, true),
            (9, 0, 0o400, true),
            (9, 8, 0o044, false),
            (0, 8, 0o440, true),
            (0, 6, 0o640, true),
            (0, 6, 0o604, false),
            (0, 5, 0o440, false),
        ] {
            assert_eq!(user.may(0o4, Owner { uid, gid }, mode), can, "{uid} {gid} {mode:o}");
        }
        for (uid, gid, mode, lists) in [
            (9, 0, 0o711, true),
            (0, 0, 0o711, false),
            (0, 8, 0o711, false),
            (0, 8, 0o750, true),
            (0, 8, 0o705, false),
            (0, 0, 0o704, false),
            (0, 0, 0o705, true),
        ] {
            assert_eq!(user.may(0o5, Owner { uid, gid }, mode), lists, "{uid} {gid} {mode:o}");
        }
    }
}
