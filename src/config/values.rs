//! The values of single keys: paths, globs, owners, modes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf, absolute};
use std::str::FromStr;

use nix::unistd::{Group, User, geteuid};

use super::unusable::Unusable;

/// A numeric owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// Which lineages are wanted: shell globs over their names.
#[derive(Debug, Clone)]
pub struct Selection {
    include: Vec<glob::Pattern>,
    exclude: Vec<glob::Pattern>,
}

impl Selection {
    /// The lineages that one of `include` matches and none of `exclude`.
    pub(super) fn of(include: &[String], exclude: &[String]) -> Result<Self, Unusable> {
        Ok(Self { include: patterns("include", include)?, exclude: patterns("exclude", exclude)? })
    }

    /// Whether the lineage is wanted.
    #[must_use]
    pub fn includes(&self, lineage: &OsStr) -> bool {
        let name = lineage.to_string_lossy();
        let any = |patterns: &[glob::Pattern]| patterns.iter().any(|pattern| pattern.matches(&name));
        any(&self.include) && !any(&self.exclude)
    }
}

/// An absolute path, without `.` and slashes that say nothing.
pub(super) fn absolute_path(key: &'static str, path: &Path) -> Result<PathBuf, Unusable> {
    absolute(path).map(|path| path.components().collect()).map_err(|_| Unusable::Empty(key))
}

/// Whether it names one file in whatever directory.
pub(super) fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != ".."
}

/// `HOST:PORT`, an IPv6 address in brackets.
pub(super) fn is_host_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        !host.is_empty() && !bare_ipv6 && u16::from_str(port).is_ok_and(|port| port != 0)
    })
}

fn patterns(key: &'static str, globs: &[String]) -> Result<Vec<glob::Pattern>, Unusable> {
    let pattern = |glob: &String| {
        let bad =
            |why: glob::PatternError| Unusable::NotAGlob { key, glob: glob.clone(), why: why.to_string() };
        glob::Pattern::new(glob).map_err(bad)
    };
    globs.iter().map(pattern).collect()
}

/// The permission bits of written files.
pub(super) fn mode(text: &str) -> Result<u32, Unusable> {
    match u32::from_str_radix(text, 8) {
        Err(_) => Err(Unusable::NotAMode(text.to_owned())),
        Ok(mode) if mode & 0o400 == 0 => Err(Unusable::UnreadableMode(text.to_owned())),
        Ok(mode) if mode & !0o640 != 0 => Err(Unusable::WideMode(text.to_owned())),
        Ok(mode) => Ok(mode),
    }
}

/// The user who runs the program: root, as a rule.
pub(super) fn ourselves() -> Owner {
    Owner { uid: geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
}

/// `USER`, `USER:GROUP`, as names or numbers.
pub(super) fn owner(text: &str) -> Result<Owner, Unusable> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let account = User::from_name(user).ok().flatten();
    let numeric = || user.parse().ok();
    let uid = account
        .as_ref()
        .map(|user| user.uid.as_raw())
        .or_else(numeric)
        .ok_or_else(|| Unusable::NoUser(user.to_owned()))?;
    let gid = match group {
        Some(group) => Group::from_name(group)
            .ok()
            .flatten()
            .map(|group| group.gid.as_raw())
            .or_else(|| group.parse().ok())
            .ok_or_else(|| Unusable::NoGroup(group.to_owned()))?,
        None => account
            .or_else(|| User::from_uid(uid.into()).ok().flatten())
            .map(|user| user.gid.as_raw())
            .ok_or(Unusable::NoGroupOf(uid))?,
    };
    Ok(Owner { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_names_or_numbers() {
        assert_eq!(owner("root"), Ok(Owner { uid: 0, gid: 0 }));
        assert_eq!(owner("99:98"), Ok(Owner { uid: 99, gid: 98 }));
        assert_eq!(owner("root:daemon").map(|owner| owner.uid), Ok(0));
    }
}
