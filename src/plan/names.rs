//! The names of files: which one a lineage gets, and which ones HAProxy loads.

use std::ffi::{OsStr, OsString};

use crate::plan::reason::Reason;
use crate::plan::refusal::Refusal;
use crate::serving::beside::SIBLINGS;

/// The file that HAProxy loads for a lineage.
///
/// # Errors
/// The name can't be one that every HAProxy version loads and every report can show.
pub fn site_file(lineage: &OsStr) -> Result<OsString, Refusal> {
    let unsafe_name = |why: &str| {
        Err(Refusal::new(
            Reason::NameUnsafe,
            format!("the lineage's name {why}; issue it again with --cert-name and delete this one"),
        ))
    };
    let Some(name) = lineage.to_str() else { return unsafe_name("is not UTF-8") };
    match name {
        _ if name.starts_with('.') => unsafe_name("begins with a dot, and HAProxy skips such files"),
        _ if name.bytes().any(|byte| byte.is_ascii_control()) => unsafe_name("holds a control byte"),
        _ if name.len() > 251 => unsafe_name("is longer than 251 bytes"),
        _ => Ok(OsString::from(format!("{name}.pem"))),
    }
}

/// Whether HAProxy takes a file of this name in its directory for a certificate.
#[must_use]
pub fn is_loaded_name(file: &OsStr) -> bool {
    let name = file.as_encoded_bytes();
    let ending = name.rsplit(|&byte| byte == b'.').next().unwrap_or_default();
    // Dotfiles are skipped since 2.6 only; counting on them would be wrong both ways, so they never count.
    !name.starts_with(b".") && !SIBLINGS.iter().any(|sibling| sibling.as_bytes() == ending)
}
