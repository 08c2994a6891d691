//! Whether HAProxy can load what a file holds.

use std::sync::Arc;

use crate::certified_key::{CertifiedKey, Flaw, has_private_key, read_leaf};
use crate::serving::loads::Contents;

/// The first version that refuses a file whose last certificates are damaged, rather than to shorten the chain.
const STRICT_CHAINS_SINCE: (u32, u32) = (2, 8);

/// The first version that can be told the passphrase of a key (`ssl-passphrase-cmd`).
const PASSPHRASES_SINCE: (u32, u32) = (3, 3);

/// Judges the bytes of a file whose key is taken from another one, which a line names: HAProxy starts although they don't
/// belong together, and its handshakes fail (measured, 3.0 to 3.4). `why` says of that file how it is no good.
pub fn with_named_key(pem: &[u8], key: Result<&[u8], &String>, why: &dyn Fn(&str) -> String) -> Contents {
    let Some(leaf) = read_leaf(pem).ok().map(Arc::new) else {
        return contents(pem, None, None);
    };
    match key.map(|key| CertifiedKey::prove(key, pem)) {
        Err(how) => Contents::Unloadable { leaf: Some(leaf), why: why(how) },
        Ok(Err(unproved)) if matches!(unproved.flaw, Flaw::KeyMismatch) => {
            Contents::Unserved { leaf, why: why("belongs to another certificate") }
        }
        Ok(_) => Contents::Pair(leaf),
    }
}

/// Judges the bytes of a file. `key` is the file beside it that HAProxy takes the key from where there is none in it.
///
/// What can't be proved here may be loaded all the same (an uncommon curve, say): only what HAProxy is known to refuse
/// is called unloadable (measured, 2.2 to 3.4).
pub fn contents(pem: &[u8], key: Option<&[u8]>, version: Option<(u32, u32)>) -> Contents {
    let leaf = read_leaf(pem).ok().map(Arc::new);
    let unloadable = |why: &str| Contents::Unloadable { leaf: leaf.clone(), why: why.to_owned() };
    let key = match key {
        _ if has_private_key(pem) => pem,
        Some(key) => key,
        None if leaf.is_some() => return unloadable("it has no private key"),
        None => pem,
    };
    let unproved = match CertifiedKey::prove(key, pem) {
        Ok(proved) => return Contents::Pair(Arc::new(proved.leaf().clone())),
        Err(unproved) => unproved,
    };
    let at_least = |since| version.is_none_or(|version| version >= since);
    match (unproved.flaw, &leaf) {
        (Flaw::KeyMismatch, _) => unloadable("its key belongs to another certificate"),
        (Flaw::KeyMissing, Some(_)) => unloadable("it has no private key"),
        (Flaw::KeyUnreadable, Some(_)) => unloadable("its private key is damaged"),
        (Flaw::CertificateMissing | Flaw::KeyMissing | Flaw::KeyUnreadable, _) => {
            unloadable(if pem.trim_ascii().is_empty() { "it is empty" } else { "it holds no certificate" })
        }
        (Flaw::CertificateUnreadable, None) => unloadable("its certificate is damaged"),
        (Flaw::CertificateUnreadable, Some(_)) if at_least(STRICT_CHAINS_SINCE) => {
            unloadable("a certificate of its chain is damaged")
        }
        (Flaw::KeyEncrypted, _) if version.is_none_or(|version| version < PASSPHRASES_SINCE) => {
            unloadable("its private key is protected by a passphrase")
        }
        (_, Some(leaf)) => Contents::Pair(Arc::clone(leaf)),
        (_, None) => Contents::Unseen("its certificate is of an uncommon kind".to_owned()),
    }
}
