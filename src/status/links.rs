//! certbot's links of a lineage, where one is gone or leads nowhere: the whole commands that put them back.
//!
//! `certbot renew` doesn't take such a lineage (`parsefail`), and no command of certbot's mends it (2.1 to 5.1). What does
//! was tried with the real one: links to a version of which the archive has all four files; another key in the place of one that
//! is lost; else a new lineage, and only then the end of the old one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::certified_key::Leaf;
use crate::serving::loads::move_out;
use crate::status::advice::ASSEMBLE;
use crate::sys::escape::shell_word;
use crate::sys::safe_read::MAX_FILE_BYTES;

/// What a lineage consists of.
const KINDS: [&str; 4] = ["cert", "privkey", "chain", "fullchain"];

/// The links of a lineage, and what they could lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    live: PathBuf,
    archive: PathBuf,
    has_folder: bool,
    has_conf: bool,
    /// Where each link leads.
    targets: BTreeMap<&'static str, PathBuf>,
    /// What stands in the place of a link, and is neither a link nor a file.
    in_the_way: Vec<PathBuf>,
    /// The kinds of files that the archive has of each version.
    versions: BTreeMap<u32, BTreeSet<&'static str>>,
}

impl Links {
    /// Looks at them; `None` where something else than a link is there: it isn't known what that is meant to be.
    #[must_use]
    pub fn look(live_dir: &Path, name: &OsStr) -> Option<Self> {
        // A copy of certbot's tree is somebody else's to mend.
        live_dir.file_name().filter(|name| *name == "live")?;
        let live = live_dir.join(name);
        let mut conf = name.to_owned();
        conf.push(".conf");
        let conf = live_dir.with_file_name("renewal").join(conf);
        let archive = archive_of(&conf).unwrap_or_else(|| live_dir.with_file_name("archive").join(name));
        let (mut targets, mut in_the_way) = (BTreeMap::new(), Vec::new());
        for kind in KINDS {
            let link = live.join(format!("{kind}.pem"));
            match link.symlink_metadata() {
                Ok(found) if found.is_file() => return None,
                Ok(found) if !found.is_symlink() => in_the_way.push(link),
                Ok(_) => drop(targets.insert(kind, live.join(link.read_link().ok()?))),
                Err(_) => {}
            }
        }
        let mut versions: BTreeMap<u32, BTreeSet<&'static str>> = BTreeMap::new();
        for entry in archive.read_dir().into_iter().flatten().flatten() {
            let is_there = entry
                .metadata()
                .is_ok_and(|found| found.is_file() && (1..=MAX_FILE_BYTES).contains(&found.len()));
            let file = entry.file_name();
            let Some((kind, version)) = file.to_str().and_then(version_of).filter(|_| is_there) else {
                continue;
            };
            versions.entry(version).or_default().insert(kind);
        }
        let (has_folder, has_conf) = (live.is_dir(), conf.is_file());
        Some(Self { live, archive, has_folder, has_conf, targets, in_the_way, versions })
    }

    /// What mends the lineage; `None` where nothing is wrong with its links.
    #[must_use]
    pub fn mend(&self, name: &OsStr, deployed: Option<&Leaf>) -> Option<String> {
        let newest = self.versions.keys().next_back().copied();
        let whole = self.versions.iter().rev().find(|(_, kinds)| kinds.len() == KINDS.len());
        let renew = format!("certbot renew --force-renewal --cert-name {}", shell_word(name));
        if let Some((&version, _)) = whole {
            let links = self.to(version)?;
            let is_newest = newest == Some(version) || !self.has_conf;
            let (which, renewed) = if is_newest {
                ("", String::new())
            } else {
                (" to the last version that is whole", format!("; then renew it: {renew}"))
            };
            return Some(format!("put its links back{which}: {links}{renewed}; then {ASSEMBLE}"));
        }
        let lacks_only_the_key =
            |kinds: &BTreeSet<&str>| kinds.len() + 1 == KINDS.len() && !kinds.contains("privkey");
        let keyless = self.versions.iter().rev().find(|(_, kinds)| lacks_only_the_key(kinds));
        if let Some((&version, _)) = keyless.filter(|_| self.has_conf) {
            let key = self.archive.join(format!("privkey{version}.pem"));
            let links = self.to(version).map(|links| format!(" && {links}")).unwrap_or_default();
            return Some(format!(
                "put another key in the place of the lost one, and let certbot make its own: openssl ecparam -name \
                 prime256v1 -genkey -noout -out {}{links}; then: {renew}; then {ASSEMBLE}",
                shell_word(key.as_os_str()),
            ));
        }
        let names = deployed.map(|leaf| leaf.dns_names().collect::<Vec<_>>().join(",")).unwrap_or_default();
        let domains = shell_word(names.as_ref());
        if !self.has_folder && !self.has_conf {
            // Only of the host certificate: no site would ask for it. Another lineage may have these names.
            let there = "set host_lineage to a lineage that certbot has";
            let issue =
                format!("issue it: haproxy-certs issue -d {domains} -- --cert-name {}", shell_word(name));
            return Some(if names.is_empty() { there.to_owned() } else { format!("{there}; or {issue}") });
        }
        if names.is_empty() {
            return Some(
                "put its files back from a backup; or issue it again, and then delete this one".to_owned(),
            );
        }
        let issue = format!("issue it again: haproxy-certs issue -d {domains}");
        let delete = format!(
            "; then remove what is left of this one: certbot delete --cert-name {}",
            shell_word(name)
        );
        let delete = if self.has_conf { delete } else { String::new() };
        Some(format!("{issue}{delete}; then {ASSEMBLE}"))
    }

    /// The archive as certbot's links name it, where such a link leads there.
    fn relative(&self) -> PathBuf {
        let live_dir = self.live.parent().unwrap_or(Path::new("/"));
        let inside = live_dir.parent().and_then(|tree| self.archive.strip_prefix(tree).ok());
        let real = live_dir.canonicalize().ok();
        let leads = |inside: &&Path| {
            let tree = real.as_deref().and_then(Path::parent);
            tree.is_some_and(|tree| is_same(&tree.join(inside), &self.archive))
        };
        match inside.filter(leads) {
            Some(inside) => Path::new("../..").join(inside),
            None => self.archive.clone(),
        }
    }

    /// The command that makes the links lead to this version; `None`: they do.
    fn to(&self, version: u32) -> Option<String> {
        let mut commands: Vec<String> = self.in_the_way.iter().map(|path| move_out(path)).collect();
        for kind in KINDS {
            let file = format!("{kind}{version}.pem");
            if self.targets.get(kind).is_some_and(|target| is_same(target, &self.archive.join(&file))) {
                continue;
            }
            let target = self.relative().join(&file);
            let link = self.live.join(format!("{kind}.pem"));
            commands.push(format!(
                "ln -sf {} {}",
                shell_word(target.as_os_str()),
                shell_word(link.as_os_str())
            ));
        }
        if commands.is_empty() {
            return None;
        }
        if !self.has_folder {
            commands.insert(0, format!("mkdir -p {}", shell_word(self.live.as_os_str())));
        }
        Some(commands.join(" && "))
    }
}

/// Where a renewal configuration says that the versions are: `archive_dir` (`storage.py`, `RenewableCert`).
fn archive_of(conf: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(conf).ok()?;
    let lines = text.lines().take_while(|line| !line.trim_start().starts_with('['));
    let mut settings = lines.filter_map(|line| line.split_once('='));
    let value = settings.find(|(key, _)| key.trim() == "archive_dir")?.1.trim().trim_matches(['"', '\'']);
    Some(PathBuf::from(value)).filter(|folder| folder.is_absolute())
}

/// `fullchain12.pem`: which kind of file, and which version.
fn version_of(file: &str) -> Option<(&'static str, u32)> {
    let stem = file.strip_suffix(".pem")?;
    KINDS.into_iter().find_map(|kind| Some((kind, stem.strip_prefix(kind)?.parse().ok()?)))
}

fn is_same(a: &Path, b: &Path) -> bool {
    a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b)
}
