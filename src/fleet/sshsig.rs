//! Signatures as OpenSSH makes them (`PROTOCOL.sshsig` of OpenSSH, version 1), with Ed25519 alone.
//!
//! What is signed is a text, and anybody can check it: `ssh-keygen -Y verify -n haproxy-certs-fleet …`.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::{self, Write as _};
use std::str::FromStr;

use aws_lc_rs::digest::{self, SHA256, SHA512};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use zeroize::Zeroizing;

use crate::certified_key::sha256;

/// What the signatures are for: one made for something else isn't accepted.
pub const NAMESPACE: &str = "haproxy-certs-fleet";

/// An armored signature begins with this line.
pub const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";

const END: &str = "-----END SSH SIGNATURE-----";
const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;
const ALGORITHM: &str = "ssh-ed25519";

/// `ssh-keygen` breaks its lines here.
const COLUMNS: usize = 70;

/// More than any armored Ed25519 signature has.
const MAX_ARMOR: usize = 2048;

/// A signature or a key line that isn't one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// It isn't an armored SSH signature.
    #[error("it is not an armored SSH signature")]
    Armor,
    /// It is of another version or kind than Ed25519.
    #[error("it is not an Ed25519 signature in the format of OpenSSH, version 1")]
    Kind,
    /// It was made for something else.
    #[error("it was made for another purpose than {NAMESPACE}")]
    Namespace,
    /// The text was changed, or the signature.
    #[error("it does not belong to this text")]
    Wrong,
    /// Not a line as in `id_ed25519.pub`.
    #[error("a public key is \"ssh-ed25519 AAAA...\"")]
    KeyLine,
}

/// A private key for signatures.
pub struct SigningKey {
    seed: Zeroizing<[u8; 32]>,
    public: VerifyingKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[private key]")
    }
}

impl SigningKey {
    /// The key of these 32 random bytes (RFC 8032, section 5.1.5). `None`: the library refuses, which it never should.
    #[must_use]
    pub fn of_seed(seed: Zeroizing<[u8; 32]>) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).ok()?;
        let public = VerifyingKey(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { seed, public })
    }

    /// The bytes that it was made of.
    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> VerifyingKey {
        self.public
    }

    /// Signs a text, armored as `ssh-keygen -Y sign` writes it.
    #[must_use]
    pub fn sign(&self, text: &[u8]) -> String {
        // The seed made a key before.
        let Ok(pair) = Ed25519KeyPair::from_seed_unchecked(&*self.seed) else { return String::new() };
        let made = pair.sign(&signed_data(NAMESPACE.as_bytes(), b"sha512", text));
        let mut signature = Vec::with_capacity(128);
        push(&mut signature, ALGORITHM.as_bytes());
        push(&mut signature, made.as_ref());
        let mut blob = MAGIC.to_vec();
        blob.extend(VERSION.to_be_bytes());
        for part in [&self.public.blob()[..], NAMESPACE.as_bytes(), b"", b"sha512", &signature] {
            push(&mut blob, part);
        }
        armored(&blob)
    }
}

/// The key that a signature is checked with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerifyingKey(pub [u8; 32]);

impl VerifyingKey {
    /// As `ssh-keygen -l` shows it: `SHA256:…`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", BASE64_STANDARD_NO_PAD.encode(sha256(&self.blob())))
    }

    /// As in an `id_ed25519.pub`, without the line's end.
    #[must_use]
    pub fn line(&self, comment: &str) -> String {
        format!("{self} {comment}")
    }

    fn blob(&self) -> Vec<u8> {
        let mut blob = Vec::with_capacity(51);
        push(&mut blob, ALGORITHM.as_bytes());
        push(&mut blob, &self.0);
        blob
    }

    fn of_blob(blob: &[u8]) -> Option<Self> {
        let mut parts = Parts(blob);
        let is_ours = parts.string()? == ALGORITHM.as_bytes();
        let key = parts.string()?.try_into().ok()?;
        (is_ours && parts.0.is_empty()).then_some(Self(key))
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM} {}", BASE64_STANDARD.encode(self.blob()))
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

impl FromStr for VerifyingKey {
    type Err = BadSignature;

    /// Reads a line as in an `id_ed25519.pub`, whatever its comment is.
    fn from_str(line: &str) -> Result<Self, BadSignature> {
        let mut words = line.split_ascii_whitespace();
        let (kind, key) = (words.next(), words.next().unwrap_or_default());
        let blob = BASE64_STANDARD.decode(key).map_err(|_| BadSignature::KeyLine)?;
        let key = Self::of_blob(&blob).filter(|_| kind == Some(ALGORITHM) && !line.trim().contains('\n'));
        key.ok_or(BadSignature::KeyLine)
    }
}

/// Whose signature of `text` this is. Whether that one counts is for the caller to say.
///
/// # Errors
/// It is no signature of this text.
pub fn signer(armor: &str, text: &[u8]) -> Result<VerifyingKey, BadSignature> {
    // One signature has one armor: otherwise a store could make two values of one.
    let blob = unarmored(armor).filter(|blob| armored(blob) == armor).ok_or(BadSignature::Armor)?;
    let mut parts = Parts(blob.strip_prefix(MAGIC).ok_or(BadSignature::Armor)?);
    if parts.number() != Some(VERSION) {
        return Err(BadSignature::Kind);
    }
    let mut string = || parts.string().ok_or(BadSignature::Armor);
    let (key, namespace, reserved, hash, signature) = (string()?, string()?, string()?, string()?, string()?);
    if !parts.0.is_empty() || !reserved.is_empty() {
        return Err(BadSignature::Armor);
    }
    let key = VerifyingKey::of_blob(key).ok_or(BadSignature::Kind)?;
    if namespace != NAMESPACE.as_bytes() {
        return Err(BadSignature::Namespace);
    }
    if hash != b"sha512" && hash != b"sha256" {
        return Err(BadSignature::Kind);
    }
    let mut parts = Parts(signature);
    let (Some(algorithm), Some(made)) = (parts.string(), parts.string()) else {
        return Err(BadSignature::Armor);
    };
    if algorithm != ALGORITHM.as_bytes() || !parts.0.is_empty() {
        return Err(BadSignature::Kind);
    }
    let verified = UnparsedPublicKey::new(&ED25519, key.0).verify(&signed_data(namespace, hash, text), made);
    verified.map(|()| key).map_err(|_| BadSignature::Wrong)
}

/// What is really signed: the text's hash, and what it is for.
fn signed_data(namespace: &[u8], hash: &[u8], text: &[u8]) -> Vec<u8> {
    let algorithm = if hash == b"sha256" { &SHA256 } else { &SHA512 };
    let digest = digest::digest(algorithm, text);
    let mut data = MAGIC.to_vec();
    for part in [namespace, b"", hash, digest.as_ref()] {
        push(&mut data, part);
    }
    data
}

fn armored(blob: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(blob);
    let mut armor = format!("{BEGIN}\n");
    for (column, character) in base64.chars().enumerate() {
        if column > 0 && column % COLUMNS == 0 {
            armor.push('\n');
        }
        armor.push(character);
    }
    // Writing to a String never fails.
    let _ = writeln!(armor, "\n{END}");
    armor
}

fn unarmored(armor: &str) -> Option<Vec<u8>> {
    if armor.len() > MAX_ARMOR {
        return None;
    }
    let inside = armor.strip_prefix(BEGIN)?.strip_prefix('\n')?;
    let inside = inside.strip_suffix('\n')?.strip_suffix(END)?.strip_suffix('\n')?;
    let base64: String = inside.split('\n').collect();
    BASE64_STANDARD.decode(base64).ok()
}

/// Writes a string of the SSH protocol (RFC 4251, section 5).
fn push(to: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    to.extend(length.to_be_bytes());
    to.extend(bytes);
}

/// What is still to be read of the SSH protocol's data types.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (string, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(string)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the judge is another program")]

    use std::fs;
    use std::process::{Command, Stdio};

    use super::*;

    fn key(byte: u8) -> SigningKey {
        SigningKey::of_seed(Zeroizing::new([byte; 32])).unwrap()
    }

    /// Runs the real `ssh-keygen`; the text goes to its stdin.
    fn ssh_keygen(arguments: &[&str], folder: &std::path::Path, text: &[u8]) -> bool {
        fs::write(folder.join("text"), text).unwrap();
        let mut command = Command::new("ssh-keygen");
        command.args(arguments).current_dir(folder).stdin(fs::File::open(folder.join("text")).unwrap());
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    #[test]
    fn ssh_keygen_accepts_ours() {
        let folder = tempfile::tempdir().unwrap();
        let key = key(7);
        let text = b"a head\nof a fleet\n";
        fs::write(folder.path().join("sig"), key.sign(text)).unwrap();
        fs::write(folder.path().join("allowed"), format!("lb-admin {}\n", key.public().line("lb-admin")))
            .unwrap();
        let verify = ["-Y", "verify", "-f", "allowed", "-I", "lb-admin", "-n", NAMESPACE, "-s", "sig"];
        assert!(ssh_keygen(&verify, folder.path(), text));
        assert!(!ssh_keygen(&verify, folder.path(), b"another text"));
        let mut other = verify;
        other[7] = "file";
        assert!(!ssh_keygen(&other, folder.path(), text));
    }

    #[test]
    fn we_accept_those_of_ssh_keygen() {
        let folder = tempfile::tempdir().unwrap();
        let made = ["-q", "-t", "ed25519", "-N", "", "-C", "lb admin", "-f", "id"];
        assert!(ssh_keygen(&made, folder.path(), b""));
        let line = fs::read_to_string(folder.path().join("id.pub")).unwrap();
        let key: VerifyingKey = line.parse().unwrap();
        assert_eq!(key.line("lb admin"), line.trim_end());
        for hash in ["sha512", "sha256"] {
            let hash = format!("hashalg={hash}");
            let sign = ["-Y", "sign", "-f", "id", "-n", NAMESPACE, "-O", &hash, "text"];
            let _ = fs::remove_file(folder.path().join("text.sig"));
            assert!(ssh_keygen(&sign, folder.path(), b"a text"));
            let armor = fs::read_to_string(folder.path().join("text.sig")).unwrap();
            assert_eq!(signer(&armor, b"a text"), Ok(key));
            assert_eq!(signer(&armor, b"another"), Err(BadSignature::Wrong));
        }
        let sign = ["-Y", "sign", "-f", "id", "-n", "file", "text"];
        fs::remove_file(folder.path().join("text.sig")).unwrap();
        assert!(ssh_keygen(&sign, folder.path(), b"a text"));
        let armor = fs::read_to_string(folder.path().join("text.sig")).unwrap();
        assert_eq!(signer(&armor, b"a text"), Err(BadSignature::Namespace));
        let shown =
            Command::new("ssh-keygen").args(["-l", "-f", "id.pub"]).current_dir(folder.path()).output();
        let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
        assert!(shown.contains(&key.fingerprint()), "{shown}");
    }

    #[test]
    fn the_signature_of_a_known_key_is_always_the_same() {
        // RFC 8032 makes it so; two hosts that publish the same text write the same bytes.
        assert_eq!(key(1).sign(b"x"), key(1).sign(b"x"));
        assert_ne!(key(1).sign(b"x"), key(2).sign(b"x"));
        assert_eq!(format!("{:?}", key(1)), "[private key]");
    }

    #[test]
    fn no_bit_of_a_signature_can_be_changed() {
        let armor = key(3).sign(b"text");
        assert_eq!(signer(&armor, b"text"), Ok(key(3).public()));
        let blob = unarmored(&armor).unwrap();
        for at in 0..blob.len() {
            for bit in 0..8 {
                let mut changed = blob.clone();
                changed[at] ^= 1 << bit;
                assert!(signer(&armored(&changed), b"text") != Ok(key(3).public()), "{at} {bit}");
            }
            assert!(signer(&armored(&blob[..at]), b"text").is_err());
        }
    }

    #[test]
    fn a_signature_has_one_armor() {
        let armor = key(3).sign(b"text");
        let lines: Vec<&str> = armor.lines().collect();
        for other in [
            armor.trim_end().to_owned(),
            format!("{armor}\n"),
            armor.replace('\n', "\r\n"),
            format!("{}\n{}\n{}\n", lines[0], lines[1..lines.len() - 1].concat(), lines[lines.len() - 1]),
            armor.replacen("\nU", "\n\nU", 1),
        ] {
            assert_ne!(other, armor);
            assert_eq!(signer(&other, b"text"), Err(BadSignature::Armor), "{other}");
        }
    }

    #[test]
    fn lines_that_are_no_key() {
        let line = key(4).public().to_string();
        for bad in
            ["", "ssh-ed25519", &line.replace("ssh-ed25519", "ssh-rsa"), &line[..40], &format!("{line}A")]
        {
            assert_eq!(bad.parse::<VerifyingKey>(), Err(BadSignature::KeyLine), "{bad}");
        }
        assert_eq!(format!("  {line}   a comment\n").parse(), Ok(key(4).public()));
    }

    proptest::proptest! {
        #[test]
        fn no_armor_makes_it_panic(bytes: Vec<u8>, text: String) {
            let _ = signer(&armored(&bytes), b"");
            let _ = signer(&armored(&[MAGIC, &[0, 0, 0, 1], &bytes].concat()), b"");
            let _ = signer(&text, b"");
            let _ = text.parse::<VerifyingKey>();
        }
    }
}
