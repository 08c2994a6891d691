//! Looking for private keys where they must not be.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};

use memchr::memmem;

use super::pki::{KeyKind, Leaf};

/// What gives a private key away: pieces of the lines of its PEM, in whatever they are written. The modulus of an RSA
/// key is in its certificate too: what is public isn't looked for.
pub fn needles(leaf: &Leaf) -> Vec<String> {
    let (pem, public) = (leaf.key.pem(), leaf.fullchain().replace('\n', ""));
    let lines = pem.lines().filter(|line| !line.starts_with("-----") && line.len() >= 16);
    // The first line of a P-256 key in PKCS#8 is the same up to its 36th byte for all of them.
    let pieces = lines.map(|line| line[line.len().min(48).saturating_sub(12)..].to_owned());
    pieces.filter(|piece| piece.len() >= 12 && !public.contains(piece.as_str())).collect()
}

/// The writable memory of a process at one moment: it is read at once, and searched while the process goes on.
pub struct Memory(Vec<Vec<u8>>);

impl Memory {
    /// That of this process now.
    pub fn of(pid: u32) -> Self {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let mut memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let mut regions = Vec::new();
        for line in
            maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw")))
        {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
            let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
            memory.seek(SeekFrom::Start(from)).unwrap();
            if memory.read_exact(&mut bytes).is_ok() {
                regions.push(bytes);
            }
        }
        Self(regions)
    }

    /// How often a needle is in it.
    pub fn times(&self, needle: &[u8]) -> usize {
        let finder = memmem::Finder::new(needle);
        self.0.iter().map(|bytes| finder.find_iter(bytes).count()).sum()
    }
}

/// What gives a private key away in any form: the pieces of its PEM, and the secret part of its DER.
pub fn all_needles(leaf: &Leaf, kind: KeyKind) -> Vec<Vec<u8>> {
    let der = leaf.key.openssl().private_key_to_pkcs8().unwrap();
    // The end of a P-256 or P-384 PKCS#8 is the public key: the middle is the secret.
    let (from, length) = match kind {
        KeyKind::P256 => (36, 32),
        KeyKind::P384 => (35, 48),
        KeyKind::Ed25519 => (der.len() - 32, 32),
        _ => (der.len() - 400, 64),
    };
    let most = if matches!(kind, KeyKind::P256 | KeyKind::P384 | KeyKind::Ed25519) { 1 } else { 99 };
    let mut all: Vec<Vec<u8>> = needles(leaf).into_iter().take(most).map(String::into_bytes).collect();
    all.push(der[from..from + length].to_vec());
    all
}
