//! Whom a process runs as.

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
}

impl User {
    /// Whether it has the rights of this group.
    pub(crate) fn is_in(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
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
}
