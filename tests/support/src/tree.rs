//! A certbot tree, made, renewed, deleted and broken off call by call as certbot does it (`storage.py`).

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::pki::{Authority, KeyKind, Leaf, Validity};

/// The four files of a lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The leaf certificate.
    Cert,
    /// The private key.
    Privkey,
    /// The certificates after the leaf.
    Chain,
    /// The leaf and the certificates after it.
    Fullchain,
}

impl Kind {
    /// In the order in which certbot goes through them.
    pub const ALL: [Self; 4] = [Self::Cert, Self::Privkey, Self::Chain, Self::Fullchain];

    /// The beginning of the file's name.
    pub fn stem(self) -> &'static str {
        match self {
            Self::Cert => "cert",
            Self::Privkey => "privkey",
            Self::Chain => "chain",
            Self::Fullchain => "fullchain",
        }
    }

    fn mode(self) -> u32 {
        if self == Self::Privkey { 0o600 } else { 0o644 }
    }

    fn contents(self, leaf: &Leaf) -> String {
        match self {
            Self::Cert => leaf.cert.clone(),
            Self::Privkey => leaf.key.pem(),
            Self::Chain => leaf.chain.clone(),
            Self::Fullchain => leaf.fullchain(),
        }
    }
}

/// A certbot configuration directory with `live`, `archive` and `renewal`, in a temporary directory of its own.
///
/// What certbot does to it is a list of calls; the `…_stopped_before` variants break off before the `call`-th,
/// counted from 1, as if certbot had been killed there.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    _temporary: TempDir,
    authority: Authority,
    lineages: BTreeMap<String, Issued>,
}

/// What was issued last for a lineage.
#[derive(Debug, Clone)]
struct Issued {
    kind: KeyKind,
    names: Vec<String>,
    validity: Validity,
    version: u32,
    leaf: Leaf,
}

/// One call that certbot makes.
#[derive(Debug)]
enum Call {
    Mkdir(PathBuf),
    Symlink { target: PathBuf, link: PathBuf },
    Unlink(PathBuf),
    Rmdir(PathBuf),
    RemoveTree(PathBuf),
    Write { path: PathBuf, contents: String, mode: u32 },
}

impl Tree {
    /// A tree with these lineages, which have these names.
    pub fn of(lineages: &[(&str, &[&str])]) -> Self {
        let mut tree = Self::new();
        for (lineage, names) in lineages {
            tree.issue(lineage, KeyKind::P256, names, Validity::days(90));
        }
        tree
    }

    /// A tree without lineages: `live` and `archive` (0700), `renewal` (0755), the README of `live`.
    pub fn new() -> Self {
        let temporary = tempfile::Builder::new().prefix("haproxy-certs-tree-").tempdir().unwrap();
        let root = temporary.path().join("letsencrypt");
        for (folder, mode) in [("", 0o755), ("live", 0o700), ("archive", 0o700), ("renewal", 0o755)] {
            make_directory(&root.join(folder), mode);
        }
        write(&root.join("live/README"), "This directory contains your keys and certificates.\n", 0o644);
        Self { root, _temporary: temporary, authority: Authority::new(), lineages: BTreeMap::new() }
    }

    /// The configuration directory: what `certbot --config-dir` names.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The `live` directory.
    pub fn live(&self) -> PathBuf {
        self.root.join("live")
    }

    /// The directory of a lineage in `live`.
    pub fn lineage(&self, name: &str) -> PathBuf {
        self.live().join(name)
    }

    /// The directory of a lineage in `archive`.
    pub fn archive(&self, name: &str) -> PathBuf {
        self.root.join("archive").join(name)
    }

    /// `live/NAME/KIND.pem`: a link where certbot made it.
    pub fn link(&self, name: &str, kind: Kind) -> PathBuf {
        self.lineage(name).join(format!("{}.pem", kind.stem()))
    }

    /// `archive/NAME/KINDversion.pem`.
    pub fn file(&self, name: &str, kind: Kind, version: u32) -> PathBuf {
        self.archive(name).join(format!("{}{version}.pem", kind.stem()))
    }

    /// `renewal/NAME.conf`.
    pub fn conf(&self, name: &str) -> PathBuf {
        self.root.join("renewal").join(format!("{name}.conf"))
    }

    /// The CA that issues here.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// What was issued last for a lineage.
    pub fn leaf(&self, name: &str) -> &Leaf {
        &self.lineages[name].leaf
    }

    /// The number in `archive` of what was issued last for a lineage.
    pub fn version(&self, name: &str) -> u32 {
        self.lineages[name].version
    }

    /// Issues a new lineage.
    pub fn issue(&mut self, name: &str, kind: KeyKind, names: &[&str], validity: Validity) -> Leaf {
        self.issue_stopped_before(usize::MAX, name, kind, names, validity)
    }

    /// [`Tree::issue`], broken off: 1 conf (empty), 2 archive directory, 3 live directory, 4–7 links (dangling),
    /// 8–11 cert, privkey, chain, fullchain, 12 README, 13 conf (complete).
    pub fn issue_stopped_before(
        &mut self,
        call: usize,
        name: &str,
        kind: KeyKind,
        names: &[&str],
        validity: Validity,
    ) -> Leaf {
        let leaf = self.authority.issue(kind, names, validity);
        let calls = self.new_lineage(name, &leaf);
        perform(calls, call);
        self.remember(name, kind, names, validity, 1, &leaf);
        leaf
    }

    /// A new lineage with a certificate that was made elsewhere.
    pub fn issue_leaf(&mut self, name: &str, leaf: &Leaf) {
        perform(self.new_lineage(name, leaf), usize::MAX);
        self.remember(name, KeyKind::P256, &[name], Validity::days(90), 1, leaf);
    }

    /// A lineage of plain files, without archive and conf: a copy that another tool or rsync made.
    pub fn issue_plain(&mut self, name: &str, kind: KeyKind, names: &[&str], validity: Validity) -> Leaf {
        let leaf = self.authority.issue(kind, names, validity);
        make_directory(&self.lineage(name), 0o755);
        for kind in Kind::ALL {
            write(&self.link(name, kind), kind.contents(&leaf), kind.mode());
        }
        self.remember(name, kind, names, validity, 0, &leaf);
        leaf
    }

    /// Renews a lineage with a new key, for the same names and as long as before.
    pub fn renew(&mut self, name: &str) -> Leaf {
        self.renew_stopped_before(usize::MAX, name)
    }

    /// [`Tree::renew`], with the new files complete in `archive` and broken off while the links are moved:
    /// 1–4 previous links, then unlink and symlink of 5–6 cert, 7–8 privkey, 9–10 chain, 11–12 fullchain,
    /// 13–16 previous links removed.
    pub fn renew_stopped_before(&mut self, call: usize, name: &str) -> Leaf {
        let Issued { kind, names, validity, .. } = self.lineages[name].clone();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let leaf = self.authority.issue(kind, &names, validity);
        self.renew_with_stopped_before(call, name, &leaf);
        leaf
    }

    /// Renews a lineage with a certificate that was made elsewhere.
    pub fn renew_with(&mut self, name: &str, leaf: &Leaf) {
        self.renew_with_stopped_before(usize::MAX, name, leaf);
    }

    /// [`Tree::renew_with`], broken off as [`Tree::renew_stopped_before`].
    pub fn renew_with_stopped_before(&mut self, call: usize, name: &str, leaf: &Leaf) {
        let version = self.version(name) + 1;
        for kind in Kind::ALL {
            write(&self.file(name, kind, version), kind.contents(leaf), kind.mode());
        }
        perform(self.update_links(name, version), call);
        let issued = self.lineages.get_mut(name).unwrap();
        issued.version = version;
        issued.leaf = leaf.clone();
    }

    /// What the next certbot does first to a lineage that a killed one left behind: rolls back where all previous
    /// links are there (leaving absolute links), then forward to the newest version.
    pub fn repair(&mut self, name: &str) {
        let previous = |kind: Kind| self.lineage(name).join(format!("previous_{}.pem", kind.stem()));
        if Kind::ALL.iter().all(|kind| previous(*kind).exists()) {
            for kind in Kind::ALL {
                let link = self.link(name, kind);
                if link.symlink_metadata().is_ok() {
                    fs::remove_file(&link).unwrap();
                }
                symlink(fs::read_link(previous(kind)).unwrap(), &link).unwrap();
            }
        }
        for kind in Kind::ALL {
            if previous(kind).exists() {
                fs::remove_file(previous(kind)).unwrap();
            }
        }
        let version = self.version(name);
        let current = |kind| fs::canonicalize(self.link(name, kind)).ok();
        if Kind::ALL
            .iter()
            .any(|kind| current(*kind) != fs::canonicalize(self.file(name, *kind, version)).ok())
        {
            perform(self.update_links(name, version), usize::MAX);
        }
    }

    /// Deletes a lineage.
    pub fn delete(&mut self, name: &str) {
        self.delete_stopped_before(usize::MAX, name);
    }

    /// [`Tree::delete`], broken off: 1 conf, 2–5 links, 6 README, 7 live directory, 8 archive.
    pub fn delete_stopped_before(&mut self, call: usize, name: &str) {
        let mut calls = vec![Call::Unlink(self.conf(name))];
        calls.extend(Kind::ALL.map(|kind| Call::Unlink(self.link(name, kind))));
        calls.push(Call::Unlink(self.lineage(name).join("README")));
        calls.push(Call::Rmdir(self.lineage(name)));
        calls.push(Call::RemoveTree(self.archive(name)));
        perform(calls, call);
        self.lineages.remove(name);
    }

    /// Writes other contents into a file that `live` leads to, in place: what a user may have done to it.
    pub fn overwrite(&self, name: &str, kind: Kind, contents: impl AsRef<[u8]>) {
        fs::write(self.link(name, kind), contents).unwrap();
    }

    fn new_lineage(&self, name: &str, leaf: &Leaf) -> Vec<Call> {
        let relative = Path::new("../../archive").join(name);
        let mut calls = vec![
            Call::Write { path: self.conf(name), contents: String::new(), mode: 0o644 },
            Call::Mkdir(self.archive(name)),
            Call::Mkdir(self.lineage(name)),
        ];
        calls.extend(Kind::ALL.map(|kind| Call::Symlink {
            target: relative.join(format!("{}1.pem", kind.stem())),
            link: self.link(name, kind),
        }));
        calls.extend(Kind::ALL.map(|kind| Call::Write {
            path: self.file(name, kind, 1),
            contents: kind.contents(leaf),
            mode: kind.mode(),
        }));
        calls.push(Call::Write {
            path: self.lineage(name).join("README"),
            contents: "This directory contains your keys and certificates.\n".into(),
            mode: 0o644,
        });
        calls.push(Call::Write { path: self.conf(name), contents: self.conf_contents(name), mode: 0o644 });
        calls
    }

    fn update_links(&self, name: &str, version: u32) -> Vec<Call> {
        let previous = |kind: Kind| self.lineage(name).join(format!("previous_{}.pem", kind.stem()));
        let relative = Path::new("../../archive").join(name);
        let mut calls = Vec::from(Kind::ALL.map(|kind| {
            // certbot's current_target: absolute, one step of the way only.
            let now = fs::read_link(self.link(name, kind)).unwrap();
            let file = now.file_name().unwrap().to_owned();
            Call::Symlink { target: self.archive(name).join(file), link: previous(kind) }
        }));
        calls.extend(Kind::ALL.into_iter().flat_map(|kind| {
            let link = self.link(name, kind);
            let target = relative.join(format!("{}{version}.pem", kind.stem()));
            [Call::Unlink(link.clone()), Call::Symlink { target, link }]
        }));
        calls.extend(Kind::ALL.map(|kind| Call::Unlink(previous(kind))));
        calls
    }

    fn conf_contents(&self, name: &str) -> String {
        use std::fmt::Write as _;
        let mut text = String::from("# renew_before_expiry = 30 days\nversion = 2.1.0\n");
        writeln!(text, "archive_dir = {}", self.archive(name).display()).unwrap();
        for kind in Kind::ALL {
            writeln!(text, "{} = {}", kind.stem(), self.link(name, kind).display()).unwrap();
        }
        text.push_str(
            "\n# Options used in the renewal process\n[renewalparams]\n\
             account = 00000000000000000000000000000000\nauthenticator = standalone\n\
             server = https://localhost:14000/dir\nkey_type = ecdsa\n",
        );
        text
    }

    fn remember(
        &mut self,
        name: &str,
        kind: KeyKind,
        names: &[&str],
        validity: Validity,
        version: u32,
        leaf: &Leaf,
    ) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let issued = Issued { kind, names, validity, version, leaf: leaf.clone() };
        self.lineages.insert(name.to_owned(), issued);
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

fn perform(calls: Vec<Call>, stop_before: usize) {
    for (number, call) in (1..).zip(calls) {
        if number == stop_before {
            return;
        }
        let done = match &call {
            Call::Mkdir(path) => {
                make_directory(path, 0o755);
                Ok(())
            }
            Call::Symlink { target, link } => symlink(target, link),
            Call::Unlink(path) => fs::remove_file(path),
            // certbot goes on where something else is in the directory.
            Call::Rmdir(path) => match fs::remove_dir(path) {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
                other => other,
            },
            Call::RemoveTree(path) => fs::remove_dir_all(path),
            Call::Write { path, contents, mode } => {
                write(path, contents, *mode);
                Ok(())
            }
        };
        done.unwrap_or_else(|error| panic!("{call:?}: {error}"));
    }
}

/// Creates a directory, with this mode whatever the umask.
pub fn make_directory(path: &Path, mode: u32) {
    fs::create_dir_all(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Writes a file, with this mode whatever the umask.
pub fn write(path: &Path, contents: impl AsRef<[u8]>, mode: u32) {
    fs::write(path, contents).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}
