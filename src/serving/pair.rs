//! Whether HAProxy can load what a file holds.

use std::sync::Arc;

use crate::certified_key::{CertifiedKey, Flaw, OpensslReads, has_private_key, openssl_reads, read_leaf};
use crate::serving::disk::Illegible;
use crate::serving::loads::Contents;

/// The first version that refuses a file whose last certificates are damaged, rather than to shorten the chain.
const STRICT_CHAINS_SINCE: (u32, u32) = (2, 8);

/// The first version that can be told the passphrase of a key (`ssl-passphrase-cmd`).
const PASSPHRASES_SINCE: (u32, u32) = (3, 3);

/// Judges the bytes of a file whose key is taken from another one, which a line names: HAProxy starts although they don't
/// belong together, and its handshakes fail (measured, 3.0 to 3.4). `why` says of that file how it is no good.
pub(super) fn with_named_key(
    pem: &[u8],
    key: Result<&[u8], &Illegible>,
    why: &dyn Fn(&str) -> String,
) -> Contents {
    let reads = openssl_reads(pem);
    let Some(leaf) = read_leaf(&reads.text).ok().map(Arc::new) else {
        return contents(pem, None, None);
    };
    match key.map(|key| CertifiedKey::prove(&openssl_reads(key).text, &reads.text)) {
        Err(how) => Contents::Unloadable { leaf: Some(leaf), why: why(&format!("cannot be read: {how}")) },
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
    let reads = openssl_reads(pem);
    let of_key = key.map(openssl_reads);
    let judged = as_read(pem, &reads, key.zip(of_key.as_ref()), version);
    let why = reads.unclear.or(of_key.and_then(|key| key.unclear));
    match (judged, why) {
        (Contents::Pair(_) | Contents::Unloadable { .. }, Some(why)) if !is_hopeless(pem) => {
            Contents::Unseen(format!("whether HAProxy loads it depends on its OpenSSL: {why}"))
        }
        (judged, _) => judged,
    }
}

/// How many certificates follow the leaf in these bytes.
#[must_use]
pub fn chain_len(pem: &[u8]) -> usize {
    let text = openssl_reads(pem).text;
    text.split(|&byte| byte == b'\n').filter(|line| is_certificate(line)).count().saturating_sub(1)
}

fn is_certificate(line: &[u8]) -> bool {
    [
        &b"-----BEGIN CERTIFICATE-----"[..],
        b"-----BEGIN X509 CERTIFICATE-----",
        b"-----BEGIN TRUSTED CERTIFICATE-----",
    ]
    .contains(&line)
}

/// Whether it holds nothing that anybody would read.
fn is_hopeless(pem: &[u8]) -> bool {
    read_leaf(pem).is_err()
}

/// The same by what OpenSSL reads of them.
fn as_read(
    pem: &[u8],
    reads: &OpensslReads,
    beside: Option<(&[u8], &OpensslReads)>,
    version: Option<(u32, u32)>,
) -> Contents {
    let text: &[u8] = &reads.text;
    let leaf = read_leaf(pem).ok().map(Arc::new);
    let unloadable = |why: &str| Contents::Unloadable { leaf: leaf.clone(), why: why.to_owned() };
    let at_least = |since| version.is_none_or(|version| version >= since);
    let is_unread = read_leaf(text).is_err() && leaf.is_some();
    match reads.breaks_off_in {
        Some(line) if is_unread => return unloadable(&format!("OpenSSL can't read its line {line}")),
        None if is_unread => return unloadable("OpenSSL finds no certificate in it"),
        Some(line) if at_least(STRICT_CHAINS_SINCE) && leaf.is_some() && has_private_key(text) => {
            return unloadable(&format!("OpenSSL can't read its line {line}"));
        }
        _ => {}
    }
    let key = match beside {
        _ if has_private_key(text) => text,
        // OpenSSL 3 may find a key behind what it can't read.
        _ if has_private_key(pem) && reads.breaks_off_in.is_some() && !at_least(STRICT_CHAINS_SINCE) => {
            return Contents::Unseen("OpenSSL can't read all of it".to_owned());
        }
        Some((_, key)) if has_private_key(&key.text) => &key.text,
        Some((key, _)) if has_private_key(key) => {
            return unloadable("OpenSSL finds no private key beside it");
        }
        _ if leaf.is_some() && has_private_key(pem) => {
            return unloadable("OpenSSL finds no private key in it");
        }
        _ if leaf.is_some() => return unloadable("it has no private key"),
        _ => pem,
    };
    let unproved = match CertifiedKey::prove(key, text) {
        Ok(proved) => return Contents::Pair(Arc::new(proved.leaf().clone())),
        // What OpenSSL doesn't read at all is said as it is.
        Err(unproved) if leaf.is_none() => CertifiedKey::prove(pem, pem).err().unwrap_or(unproved),
        Err(unproved) => unproved,
    };
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
