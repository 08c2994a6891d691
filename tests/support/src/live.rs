//! A running HAProxy with certbot's tree beside it, and what certbot does there.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use openssl::hash::MessageDigest;
use openssl::x509::X509;

use super::cmd::names_in;
use super::scene::put;
use super::{Authority, Cmd, Haproxy, KeyKind, Kind, Leaf, Tree, Validity, Version, served};

/// A running HAProxy, and certbot's tree beside it.
pub struct Live {
    /// See there.
    pub tree: Tree,
    /// See there.
    pub cmd: Cmd,
    /// See there.
    pub haproxy: Haproxy,
    /// See there.
    pub host: Leaf,
    /// What every site is to be, by lineage.
    pub wanted: BTreeMap<String, String>,
    round: usize,
}

/// What a run under strace is called with.
pub const ASSEMBLE: [&str; 3] = ["assemble", "--format", "json"];

/// What certbot does between two runs.
pub type Work = fn(&mut Live);

impl Live {
    /// With three lineages deployed; `more` are lines of the `[[haproxy]]` table.
    pub fn start(version: &Version, more: &str, environment: &[(&str, &str)]) -> Self {
        let tree = Tree::new();
        let cmd = Cmd::new(tree.live());
        let host = Authority::new().issue(KeyKind::P256, &["host.example"], Validity::days(3650));
        put(&cmd.beside("host.pem"), host.combined(), 0o400);
        super::tree::make_directory(&cmd.sites(), 0o700);
        let version =
            if environment.is_empty() { version.clone() } else { unaware(version, &cmd.beside("")) };
        let mut setup = Haproxy::of(&version).crt(cmd.beside("host.pem")).crt(cmd.sites());
        for (name, value) in environment {
            setup = setup.env(name, value);
        }
        let haproxy = setup.start();
        let stats = format!("runtime_socket = {}", super::cmd::toml(&haproxy.stats_socket()));
        let cmd = cmd.haproxy(&haproxy, if more == "STATS" { &stats } else { more });
        let mut live = Self { tree, cmd, haproxy, host, wanted: BTreeMap::new(), round: 0 };
        for name in ["a.example", "b.example", "c.example"] {
            let leaf = live.tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
            live.wanted.insert(name.to_owned(), leaf.combined());
        }
        live.cmd.assemble(&[]).exits(0);
        live.must_be_as_wanted("at the start");
        live
    }

    /// Renews a lineage.
    pub fn renew(&mut self, name: &str) {
        let leaf = self.tree.renew(name);
        self.wanted.insert(name.to_owned(), leaf.combined());
    }

    /// The directory and HAProxy's memory are what certbot has.
    pub fn must_be_as_wanted(&self, context: &str) {
        let files: Vec<String> = self.wanted.keys().map(|name| format!("{name}.pem")).collect();
        assert_eq!(self.cmd.deployed(), files, "{context}");
        for (name, pem) in &self.wanted {
            let path = self.cmd.site(name);
            assert!(fs::read_to_string(&path).unwrap() == *pem, "{context}: {name} isn't what certbot has");
            let leaf = X509::from_pem(pem.as_bytes()).unwrap();
            let sha1 = super::tls::hex(&leaf.digest(MessageDigest::sha1()).unwrap()).to_uppercase();
            assert_eq!(self.haproxy.fingerprint(&path), Some(sha1), "{context}: HAProxy has another {name}");
            assert_eq!(served(self.haproxy.address(), name).serial, super::tls::serial(&leaf), "{context}");
        }
        let all = self.haproxy.runtime("show ssl cert");
        assert_eq!(all.matches("/sites/").count(), files.len(), "{context}: HAProxy has {all}");
    }

    /// One run does what is missing, the next finds nothing to do.
    pub fn must_converge(&self, context: &str, refused: bool) {
        let run = self.cmd.assemble(&[]);
        let expected: &[i32] = if refused { &[1, 2] } else { &[0] };
        assert!(run.code.is_some_and(|code| expected.contains(&code)), "{context}, then {run}");
        assert_eq!(run.json()["haproxy"][0]["owed"], false, "{context}, then {run}");
        self.must_be_as_wanted(context);
        for folder in ["stage", "previous", "last"] {
            let folder = self.cmd.sites().join(".haproxy-certs").join(folder);
            let left = if folder.exists() { names_in(&folder) } else { Vec::new() };
            assert_eq!(left, Vec::<String>::new(), "{context}: left over");
        }
        // Old workers end when they have served their clients.
        let reloads = || self.haproxy.processes().map(|shown| (shown.reloads, shown.failed, shown.workers));
        let before = reloads();
        let again = self.cmd.assemble(&[]);
        assert_eq!(again.code, Some(i32::from(refused)), "{context}, then twice {again}");
        assert_eq!(again.json()["haproxy"][0]["outcome"], "not-needed", "{context}, then twice {again}");
        assert_eq!(reloads(), before, "{context}: told again");
        assert!(
            self.haproxy.runtime("show ssl cert").lines().all(|line| !line.starts_with('*')),
            "{context}"
        );
    }

    /// A run has ended somewhere: every file is the old or the new one, HAProxy would load all of them and still serves.
    pub fn must_be_whole(&self, context: &str, old: &BTreeMap<String, Vec<u8>>) {
        for (file, bytes) in sites(&self.cmd) {
            let lineage = file.strip_suffix(".pem").unwrap();
            let read = |kind| fs::read_to_string(self.tree.link(lineage, kind)).unwrap_or_default();
            let as_certbot = read(Kind::Privkey) + &read(Kind::Fullchain);
            assert!(
                old.get(&file) == Some(&bytes) || as_certbot.as_bytes() == bytes,
                "{context}: {file} is neither old nor new"
            );
            let meta = self.cmd.site(lineage).symlink_metadata().unwrap();
            assert_eq!((meta.mode(), meta.uid(), meta.gid()), (0o100_400, 0, 0), "{context}: {file}");
        }
        for file in old.keys() {
            let lineage = file.strip_suffix(".pem").unwrap();
            assert!(
                self.cmd.site(lineage).exists() || !self.wanted.contains_key(lineage),
                "{context}: {file} is gone"
            );
        }
        self.haproxy.check().unwrap_or_else(|words| panic!("{context}: HAProxy refuses: {words}"));
        assert_eq!(served(self.haproxy.address(), "host.example").serial, self.host.serial(), "{context}");
    }
}

/// Two are replaced in memory.
pub fn renew_two(live: &mut Live) {
    live.renew("a.example");
    live.renew("b.example");
}

/// One is replaced, one comes, one goes.
pub fn one_of_each(live: &mut Live) {
    live.renew("b.example");
    live.round += 1;
    let name = format!("new-{}.example", live.round);
    let leaf = live.tree.issue(&name, KeyKind::P256, &[&name], Validity::days(90));
    live.wanted.insert(name.clone(), leaf.combined());
    let gone: Vec<String> = live.wanted.keys().filter(|name| name.starts_with("new-")).cloned().collect();
    for name in gone.iter().filter(|gone| **gone != name) {
        live.tree.delete(name);
        live.wanted.remove(name);
    }
}

/// One that HAProxy takes, and two that it refuses. Of one of these it has what came before, though nobody has said so: by
/// somebody else's reload.
pub fn two_refused(live: &mut Live) {
    live.renew("c.example");
    live.cmd.assemble(&["--defer-reload"]);
    live.haproxy.reload_and_wait();
    live.renew("a.example");
    for name in ["b.example", "c.example"] {
        let weak = live.tree.authority().issue(KeyKind::Rsa2048, &[name], Validity::days(90));
        live.tree.renew_with(name, &weak);
    }
}

/// This version by a program whose check of staged files doesn't know of `OPENSSL_CONF`, as where a master's environment
/// can't be read: then only the reload refuses what OpenSSL's configuration forbids.
pub fn unaware(version: &Version, folder: &Path) -> Version {
    let program = folder.join("unaware-haproxy");
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in *.check-*) unset OPENSSL_CONF;; esac\nexec {} \"$@\"\n",
        version.program.display()
    );
    let mut install = Command::new("/usr/bin/install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(&program)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    install.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(install.wait().unwrap().success());
    Version { program, ..version.clone() }
}

/// Writes a configuration for OpenSSL that asks more of keys than most, and says where it is.
pub fn demanding_openssl(folder: &Path) -> String {
    let path = folder.join("openssl.cnf");
    let text = "openssl_conf = o\n[o]\nssl_conf = s\n[s]\nsystem_default = d\n[d]\nCipherString = DEFAULT@SECLEVEL=3\n";
    put(&path, text, 0o644);
    path.to_str().unwrap().to_owned()
}

/// What is deployed, by file name.
pub fn sites(cmd: &Cmd) -> BTreeMap<String, Vec<u8>> {
    cmd.deployed().into_iter().map(|file| (file.clone(), fs::read(cmd.sites().join(file)).unwrap())).collect()
}
