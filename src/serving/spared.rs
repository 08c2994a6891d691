//! What is known of files already, so that they needn't be looked at or read once more.

use std::collections::HashMap;
use std::ffi::OsStr;

use super::loads::{Contents, Identity};

/// Contents that are known already, by the file that holds them: they aren't read again.
pub type Known = HashMap<Identity, Contents>;

/// Which regular file has this name in the sites directory, where this run has looked at it and leaves it as it is.
pub type SeenFiles<'a> = dyn Fn(&OsStr) -> Option<Identity> + 'a;

/// What is known of files, so that they needn't be looked at or read once more.
#[derive(Clone, Copy)]
pub struct Spared<'a> {
    /// What files hold.
    pub known: Option<&'a Known>,
    /// Which directory the sites directory is.
    pub sites: Option<Identity>,
    /// Which files are in it.
    pub seen: &'a SeenFiles<'a>,
    /// Whether no file of it is read, known or not.
    pub is_unread: bool,
}

impl Default for Spared<'_> {
    fn default() -> Self {
        Self { known: None, sites: None, seen: &|_| None, is_unread: false }
    }
}
