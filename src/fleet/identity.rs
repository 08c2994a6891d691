//! This host's private keys: one that epoch keys are sealed to, one that heads and reports are signed with.
//!
//! They are made once and never written over. The file is text, for root alone:
//!
//! ```text
//! haproxy-certs identity 1
//! x25519 BASE64
//! ed25519 BASE64
//! ```

use std::fmt;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use aws_lc_rs::agreement::{PrivateKey, X25519};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::fs::{AtFlags, Mode, OFlags, fchmod, fstat, fsync, linkat, open, openat, stat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use zeroize::Zeroizing;

use super::node_key::NodeKey;
use super::sshsig::SigningKey;
use crate::sys::escape::{escaped_path, shell_word};
use crate::sys::failure::io_cause;
use crate::sys::safe_read::{Unopened, read_opened};
use crate::sys::shared_folder::make_shared;

const FIRST_LINE: &str = "haproxy-certs identity 1";

/// More than an identity has, in bytes.
const MAX_BYTES: usize = 4096;

/// Why there is no identity to work with.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is one already.
    #[error("{} is there already and is never written over", escaped_path(.0))]
    Exists(PathBuf),
    /// Others could read it.
    #[error(
        "others than its owner may use the private keys in {}; run: chmod 0400 {}",
        escaped_path(.0), shell_word(.0.as_os_str())
    )]
    Loose(PathBuf),
    /// A stranger put it there, or could replace it.
    #[error("{} belongs to user {uid}, not to who runs this", escaped_path(.path))]
    Foreign {
        /// The file or its directory.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Anybody could replace it.
    #[error("anybody may write to {}; run: chmod o-w {}", escaped_path(.0), shell_word(.0.as_os_str()))]
    Replaceable(PathBuf),
    /// It was changed, or is of a later version.
    #[error("{} is not an identity that this version can read", escaped_path(.0))]
    Malformed(PathBuf),
    /// It is no regular file.
    #[error("{} is {what}, not a regular file", escaped_path(.path))]
    NotRegular {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The operating system's error.
    #[error("cannot {deed} {}: {}", escaped_path(.path), io_cause(.cause))]
    Io {
        /// What failed.
        deed: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The library made no keys.
    #[error("no keys could be made")]
    NoKeys,
}

/// A host's private keys, cleared from memory when dropped.
pub struct HostIdentity {
    sealing: Zeroizing<[u8; 32]>,
    signing: SigningKey,
    public: NodeKey,
}

impl fmt::Debug for HostIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[private keys]")
    }
}

impl HostIdentity {
    /// New keys, in memory alone.
    ///
    /// # Errors
    /// The library made none.
    pub fn generate() -> Result<Self, IdentityError> {
        let mut keys = [Zeroizing::new([0; 32]), Zeroizing::new([0; 32])];
        for key in &mut keys {
            aws_lc_rs::rand::fill(&mut **key).map_err(|_| IdentityError::NoKeys)?;
        }
        let [sealing, signing] = keys;
        Self::of(sealing, signing).ok_or(IdentityError::NoKeys)
    }

    fn of(sealing: Zeroizing<[u8; 32]>, signing: Zeroizing<[u8; 32]>) -> Option<Self> {
        let private = PrivateKey::from_private_key(&X25519, &*sealing).ok()?;
        let public = private.compute_public_key().ok()?.as_ref().try_into().ok()?;
        let signing = SigningKey::of_seed(signing)?;
        let public = NodeKey { sealing: public, signing: signing.public() };
        Some(Self { sealing, signing, public })
    }

    /// Reads the text of an identity.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = str::from_utf8(text).ok().filter(|text| text.len() <= MAX_BYTES)?;
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let mut key = |kind: &str| {
            let base64 = lines.next()?.strip_prefix(kind)?.strip_prefix(' ')?;
            let mut key = Zeroizing::new([0; 32]);
            let length = BASE64_STANDARD.decode_slice(base64, &mut *key).ok()?;
            (length == 32 && base64.len() == 44).then_some(key)
        };
        let (sealing, signing) = (key("x25519")?, key("ed25519")?);
        if lines.next().is_some() {
            return None;
        }
        Self::of(sealing, signing)
    }

    /// The public halves.
    #[must_use]
    pub fn public(&self) -> NodeKey {
        self.public
    }

    /// The key that heads and reports are signed with.
    #[must_use]
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// The private X25519 number.
    pub(super) fn sealing(&self) -> &[u8; 32] {
        &self.sealing
    }

    /// Reads the identity; `None`: there is no such file.
    ///
    /// # Errors
    /// It can't be read, others may read it, or it isn't one.
    pub fn load(path: &Path) -> Result<Option<Self>, IdentityError> {
        // A device or a FIFO does no harm: it is looked at before it is read.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match open(path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => {
                return Err(IdentityError::NotRegular { path: path.to_owned(), what: "a link" });
            }
            Err(e) => return Err(failed("open", path, e)),
        };
        let look = fstat(&fd).map_err(|e| failed("look at", path, e))?;
        must_be_ours(path, look.st_uid)?;
        if look.st_mode & 0o077 != 0 {
            return Err(IdentityError::Loose(path.to_owned()));
        }
        nobody_else_may_replace(path)?;
        let (text, _) = read_opened(fd).map_err(|unopened| match unopened {
            Unopened::NotRegular(what) => IdentityError::NotRegular { path: path.to_owned(), what },
            Unopened::TooLarge(_) => IdentityError::Malformed(path.to_owned()),
            Unopened::Io(cause) => IdentityError::Io { deed: "read", path: path.to_owned(), cause },
        })?;
        Self::parse(&text).map(Some).ok_or_else(|| IdentityError::Malformed(path.to_owned()))
    }

    /// Makes new keys and writes them, and their public halves beside them (`.pub`). What is there is never written over:
    /// the name appears with the whole file.
    ///
    /// # Errors
    /// There is one already, or it can't be written.
    pub fn create(path: &Path, comment: &str) -> Result<Self, IdentityError> {
        if path.symlink_metadata().is_ok() {
            return Err(IdentityError::Exists(path.to_owned()));
        }
        let made = Self::generate()?;
        let folder = folder_of(path);
        if !folder.is_dir() {
            make_shared(folder).map_err(|cause| IdentityError::Io {
                deed: "create",
                path: folder.to_owned(),
                cause,
            })?;
        }
        nobody_else_may_replace(path)?;
        let text = text(&made);
        match place(path, &text, 0o400) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(IdentityError::Exists(path.to_owned())),
            Err(e) => return Err(failed("write", path, e)),
        }
        made.write_public(path, comment)?;
        Ok(made)
    }

    /// Reads the identity, or makes one where there is none; whether it was made now.
    ///
    /// # Errors
    /// As for [`HostIdentity::load`] and [`HostIdentity::create`].
    pub fn load_or_create(path: &Path, comment: &str) -> Result<(Self, bool), IdentityError> {
        if let Some(identity) = Self::load(path)? {
            if !public_path(path).exists() {
                identity.write_public(path, comment)?;
            }
            return Ok((identity, false));
        }
        match Self::create(path, comment) {
            Ok(made) => Ok((made, true)),
            // Another run made it meanwhile.
            Err(IdentityError::Exists(path)) => match Self::load(&path)? {
                Some(identity) => Ok((identity, false)),
                None => Err(IdentityError::Exists(path)),
            },
            Err(e) => Err(e),
        }
    }

    /// What others are given: the line for `publishers`, and the key for `[[fleet.node]]`.
    #[must_use]
    pub fn public_text(&self, comment: &str) -> String {
        format!("{}\n{}\n", self.public.signing.line(comment), self.public)
    }

    fn write_public(&self, path: &Path, comment: &str) -> Result<(), IdentityError> {
        let public = public_path(path);
        match place(&public, self.public_text(comment).as_bytes(), 0o644) {
            // Another run's; or one without its private half, which nothing reads.
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(failed("write", &public, e)),
        }
    }
}

/// Where the public halves are.
#[must_use]
pub fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn failed(deed: &'static str, path: &Path, cause: Errno) -> IdentityError {
    IdentityError::Io { deed, path: path.to_owned(), cause: cause.into() }
}

fn must_be_ours(path: &Path, uid: u32) -> Result<(), IdentityError> {
    if [0, geteuid().as_raw()].contains(&uid) {
        Ok(())
    } else {
        Err(IdentityError::Foreign { path: path.to_owned(), uid })
    }
}

/// Refuses a directory in which a stranger could put another file in this one's place, by itself or by one of its parents.
fn nobody_else_may_replace(path: &Path) -> Result<(), IdentityError> {
    let folder = folder_of(path);
    let real = folder.canonicalize();
    let real = real.map_err(|cause| IdentityError::Io { deed: "look at", path: folder.to_owned(), cause })?;
    for folder in real.ancestors() {
        let look = stat(folder).map_err(|e| failed("look at", folder, e))?;
        must_be_ours(folder, look.st_uid)?;
        if look.st_mode & 0o002 != 0 && look.st_mode & 0o1000 == 0 {
            return Err(IdentityError::Replaceable(folder.to_owned()));
        }
    }
    Ok(())
}

/// Writes a file whose name must not be there yet, and which has its name only once it is whole and durable.
fn place(path: &Path, bytes: &[u8], mode: u32) -> rustix::io::Result<()> {
    let folder = open(folder_of(path), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let mut unnamed = std::ffi::OsString::from(".");
    unnamed.push(name);
    unnamed.push(format!(".{}", std::process::id()));
    let remove = || match unlinkat(&folder, &unnamed, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e),
    };
    remove()?;
    let written = write(&folder, &unnamed, bytes, mode)
        .and_then(|()| linkat(&folder, &unnamed, &folder, name, AtFlags::empty()));
    remove()?;
    written?;
    fsync(&folder)
}

fn write(folder: &OwnedFd, name: &std::ffi::OsStr, bytes: &[u8], mode: u32) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(bytes).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    fchmod(&file, Mode::from_raw_mode(mode))?;
    fsync(&file)
}

fn text(identity: &HostIdentity) -> Zeroizing<Vec<u8>> {
    // No reallocation that leaves a copy of a key behind.
    let mut text = Zeroizing::new(Vec::with_capacity(256));
    text.extend_from_slice(FIRST_LINE.as_bytes());
    for (kind, key) in [("x25519", &*identity.sealing), ("ed25519", identity.signing.seed())] {
        text.extend_from_slice(b"\n");
        text.extend_from_slice(kind.as_bytes());
        text.extend_from_slice(b" ");
        let mut base64 = Zeroizing::new([0; 44]);
        // 32 bytes are 44 characters.
        let length = BASE64_STANDARD.encode_slice(key, &mut *base64).unwrap_or_default();
        text.extend_from_slice(base64.get(..length).unwrap_or_default());
    }
    text.extend_from_slice(b"\n");
    text
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn parse(text: &[u8]) -> Option<HostIdentity> {
        HostIdentity::parse(text)
    }

    #[test]
    fn what_is_created_is_read_again_and_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/identity");
        assert!(HostIdentity::load(&path).unwrap().is_none());
        let made = HostIdentity::create(&path, "lb1").unwrap();
        let bits = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!((bits(&path), bits(&public_path(&path))), (0o400, 0o644));
        let before = fs::read(&path).unwrap();
        assert!(matches!(HostIdentity::create(&path, "lb1"), Err(IdentityError::Exists(_))));
        let (again, is_new) = HostIdentity::load_or_create(&path, "lb1").unwrap();
        assert_eq!((again.public(), is_new), (made.public(), false));
        assert_eq!(fs::read(&path).unwrap(), before);
        let public = fs::read_to_string(public_path(&path)).unwrap();
        let mut lines = public.lines();
        assert_eq!(lines.next().unwrap().parse(), Ok(made.public().signing));
        assert_eq!(lines.next().unwrap().parse(), Ok(made.public()));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
        assert_eq!(format!("{made:?}"), "[private keys]");
    }

    #[test]
    fn a_public_half_that_is_gone_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        let (made, is_new) = HostIdentity::load_or_create(&path, "lb1").unwrap();
        assert!(is_new);
        fs::remove_file(public_path(&path)).unwrap();
        HostIdentity::load_or_create(&path, "lb1").unwrap();
        assert_eq!(fs::read_to_string(public_path(&path)).unwrap(), made.public_text("lb1"));
    }

    #[test]
    fn keys_that_others_can_read_or_replace_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        HostIdentity::create(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o440)).unwrap();
        assert!(matches!(HostIdentity::load(&path), Err(IdentityError::Loose(_))));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(HostIdentity::load(&path).unwrap().is_some());
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(HostIdentity::load(&path), Err(IdentityError::Replaceable(_))));
        let below = folder.path().join("below/identity");
        assert!(matches!(HostIdentity::create(&below, ""), Err(IdentityError::Replaceable(_))));
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(HostIdentity::load(&link), Err(IdentityError::NotRegular { .. })));
        assert!(matches!(HostIdentity::create(&link, ""), Err(IdentityError::Exists(_))));
        assert!(matches!(
            HostIdentity::load(folder.path()),
            Err(IdentityError::Loose(_) | IdentityError::NotRegular { .. })
        ));
        if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            assert!(matches!(HostIdentity::load(&path), Err(IdentityError::Foreign { uid: 65534, .. })));
        }
    }

    #[test]
    fn advice_can_be_pasted_where_the_path_has_a_blank() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a fleet's");
        fs::create_dir(&inner).unwrap();
        let path = inner.join("identity");
        HostIdentity::create(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o440)).unwrap();
        fs::set_permissions(&inner, Permissions::from_mode(0o777)).unwrap();
        for _ in 0..2 {
            let said = HostIdentity::load(&path).unwrap_err().to_string();
            let advice = said.split_once("; run: ").unwrap().1;
            assert!(std::process::Command::new("sh").args(["-ec", advice]).status().unwrap().success());
        }
        assert!(HostIdentity::load(&path).unwrap().is_some());
    }

    #[test]
    fn whatever_is_damaged_is_refused() {
        let made = HostIdentity::generate().unwrap();
        let whole = text(&made);
        assert_eq!(parse(&whole).unwrap().public(), made.public());
        for at in 0..whole.len() {
            assert!(parse(&whole[..at]).is_none(), "{at}");
        }
        assert!(parse(&[&whole[..], b"\n"].concat()).is_none());
        assert!(parse(&[&whole[..], b"more\n"].concat()).is_none());
        let later = String::from_utf8(whole.to_vec()).unwrap().replace("identity 1", "identity 2");
        assert!(parse(later.as_bytes()).is_none());
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_it_panic(text: String) {
            assert!(parse(text.as_bytes()).is_none());
            assert!(parse(format!("{FIRST_LINE}\nx25519 {text}\ned25519 {text}\n").as_bytes()).is_none());
        }
    }
}
