//! Random steps, and the stage on which a world's certbot, HAProxy and everybody else carry them out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::hash::MessageDigest;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::judge::{Answers, listening};
use super::world::{
    Bind, Checked, HostFile, Item, LINEAGES, NAMES, NOBODY, Places, Random, STRAYS, User, Wanted, World, kind,
};
use support::cmd::{names_in, toml};
use support::haproxy::try_ask;
use support::live::unaware;
use support::process::{Running, children, finish};
use support::scene::put;
use support::tree::make_directory;
use support::{Authority, Cmd, Key, KeyKind, LIMIT, Leaf, Port, Run, Tree, Validity, Version, wait_until};

/// What happens to the files.
#[derive(Debug, Clone)]
pub enum Change {
    /// certbot issues this lineage, or renews it with this where it is there.
    Issue(usize, Wanted),
    /// certbot renews it.
    Renew(usize),
    /// It is renewed with other names.
    Rename(usize, Vec<&'static str>),
    /// It is renewed with another kind of key.
    Rekey(usize, KeyKind),
    /// It is renewed with a certificate that HAProxy refuses.
    Refused(usize),
    /// The first lineage from this one on that isn't there is issued with a certificate that HAProxy refuses, and all
    /// others are deleted.
    OnlyRefused(usize),
    /// It is deleted.
    Delete(usize),
    /// The configuration excludes it from now on.
    Exclude(usize),
    /// The configuration excludes nothing any more.
    Include,
    /// Somebody puts or changes a file of the other directory.
    Other(usize, Wanted),
    /// Somebody puts or changes a file in the sites directory.
    Stray(usize, Wanted),
}

/// What gets in the way of the run after the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    Calm,
    /// Somebody has HAProxy reload before the run.
    Reload,
    /// Somebody's reload has read the files before the changes, and ends while the program runs.
    InFlight,
    /// Somebody has a transaction open.
    Transaction,
    /// HAProxy is started again before the run.
    Restart,
    /// HAProxy is down during the run.
    Down,
    /// haproxy.cfg is broken during the run.
    Broken,
    /// The run leaves it to the next one to tell HAProxy.
    Deferred,
    /// It does, and before the next run the program's table for HAProxy is given another name.
    Renamed,
    /// A run is killed then, before the one that is judged.
    Killed(Moment),
    /// Somebody has HAProxy reload then.
    ReloadMeanwhile(Moment),
    /// Somebody opens a transaction then.
    TransactionMeanwhile(Moment),
}

/// A moment of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// So many milliseconds after it began.
    Begun(u64),
    /// So many milliseconds after it has put the first file into place.
    Committed(u64),
}

impl Moment {
    fn random(random: &mut Random) -> Self {
        let limit = random.one(&[5, 20, 50, 150]);
        let milliseconds = u64::try_from(random.below(limit)).unwrap();
        if random.percent(50) { Self::Begun(2 * milliseconds) } else { Self::Committed(milliseconds) }
    }
}

impl std::fmt::Display for Moment {
    /// In the words of the script.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (word, milliseconds) = match self {
            Self::Begun(milliseconds) => ("begun", milliseconds),
            Self::Committed(milliseconds) => ("committed", milliseconds),
        };
        write!(f, "{word} {:.3}", Duration::from_millis(*milliseconds).as_secs_f64())
    }
}

/// Sees when a run that begins now puts files into place.
struct Watch {
    folder: PathBuf,
    before: SystemTime,
}

impl Watch {
    fn new(places: &Places) -> Self {
        let folder = places.sites();
        Self { before: changed(&folder), folder }
    }

    /// Waits for this moment; whether it came before the run ended.
    fn wait(&self, moment: Moment, mut has_ended: impl FnMut() -> bool) -> bool {
        let mut until = Instant::now();
        match moment {
            Moment::Begun(milliseconds) => until += Duration::from_millis(milliseconds),
            Moment::Committed(milliseconds) => {
                while changed(&self.folder) == self.before {
                    if has_ended() {
                        return false;
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                until = Instant::now() + Duration::from_millis(milliseconds);
            }
        }
        while Instant::now() < until && !has_ended() {
            thread::sleep(Duration::from_millis(1));
        }
        !has_ended()
    }
}

fn changed(folder: &Path) -> SystemTime {
    fs::metadata(folder).unwrap().modified().unwrap()
}

impl std::fmt::Display for Trouble {
    /// Without its moment.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{self:?}");
        f.write_str(text.split('(').next().unwrap_or_default())
    }
}

/// A step.
#[derive(Debug, Clone)]
pub struct Step {
    /// What happens to the files.
    pub changes: Vec<Change>,
    /// What gets in the way.
    pub trouble: Trouble,
}

impl Step {
    /// A random one.
    pub fn random(random: &mut Random, world: &World) -> Self {
        let count = if random.percent(65) { 1 } else { 2 };
        let changes = (0..count).map(|_| Change::random(random, world)).collect();
        // Where no master socket tells of it a reload in flight is hard to see.
        let calm = if world.master && !world.master_socket { 33 } else { 45 };
        let trouble = match random.below(100) {
            number if number < calm => Trouble::Calm,
            0..=54 => Trouble::InFlight,
            55..=60 => Trouble::Reload,
            61..=66 => Trouble::Transaction,
            67..=71 => Trouble::Restart,
            72..=75 => Trouble::Down,
            76..=78 => Trouble::Broken,
            79..=81 => Trouble::Deferred,
            82..=86 => Trouble::Renamed,
            87..=94 => Trouble::Killed(Moment::random(random)),
            95..=97 => Trouble::ReloadMeanwhile(Moment::random(random)),
            _ => Trouble::TransactionMeanwhile(Moment::random(random)),
        };
        Self { changes, trouble }
    }
}

impl Change {
    fn random(random: &mut Random, world: &World) -> Self {
        let demanding = world.demanding;
        let lineage = if random.percent(50) {
            world.lineages[random.below(world.lineages.len())].0
        } else {
            random.below(LINEAGES.len())
        };
        if world.refuses_late() && random.percent(15) {
            return if random.percent(50) { Self::Refused(lineage) } else { Self::OnlyRefused(lineage) };
        }
        match random.below(100) {
            0..=29 => Self::Renew(lineage),
            30..=44 => Self::Issue(lineage, Wanted::random(random, demanding)),
            45..=56 => Self::Rename(lineage, random.some(&NAMES)),
            57..=64 => Self::Rekey(lineage, kind(random, demanding)),
            65..=74 => Self::Delete(lineage),
            75..=79 => Self::Exclude(lineage),
            80..=83 => Self::Include,
            84..=86 => Self::Refused(lineage),
            87..=88 => Self::OnlyRefused(lineage),
            89..=93 => Self::Other(random.below(4), Wanted::random(random, demanding)),
            _ => Self::Stray(random.below(STRAYS.len()), Wanted::random(random, demanding)),
        }
    }
}

/// A world that is there: its files, its certbot, and its HAProxy once it is started.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Stage {
    /// Which world.
    pub world: World,
    /// Its HAProxy's version.
    pub version: Version,
    /// Where its files are.
    pub places: Places,
    /// What each leaf is called, by serial number.
    pub labels: BTreeMap<String, String>,
    /// Whether somebody else changed what HAProxy loads since it last loaded everything.
    pub drift: bool,
    /// Whether HAProxy was started or reloaded by somebody else since the last run.
    pub is_new: bool,
    /// Whether a run has seen HAProxy running.
    was_seen: bool,
    /// What happened, in the words of [`super::script`].
    pub journal: Vec<String>,
    tree: Tree,
    there: BTreeMap<usize, Wanted>,
    refused: BTreeSet<usize>,
    issued: usize,
    excluded: BTreeSet<usize>,
    dropped: Vec<usize>,
    broken: bool,
    names: usize,
    unaware: Option<PathBuf>,
    ports: Vec<Port>,
    live: Option<Running>,
    fresh: Option<(Vec<u8>, Answers)>,
    temporary: TempDir,
}

impl Stage {
    /// The files of a world, not deployed yet.
    pub fn new(world: &World, version: &Version) -> Self {
        let temporary = tempfile::Builder::new().prefix("haproxy-certs-oracle-").tempdir().unwrap();
        let places = Places { folder: temporary.path().to_owned() };
        make_directory(&places.folder, 0o755);
        for folder in [places.sites(), places.folder.join("other"), places.run(), places.empty()] {
            make_directory(&folder, if folder == places.empty() { 0o755 } else { 0o700 });
            give(world, &folder);
        }
        let unaware = (world.checked == Checked::Unaware).then(|| unaware(version, &places.folder).program);
        symlink("sites", places.folder.join("link")).unwrap();
        let mut stage = Self {
            world: world.clone(),
            version: version.clone(),
            places,
            labels: BTreeMap::new(),
            drift: false,
            is_new: false,
            was_seen: false,
            journal: Vec::new(),
            tree: Tree::new(),
            there: BTreeMap::new(),
            refused: BTreeSet::new(),
            issued: 0,
            excluded: BTreeSet::new(),
            dropped: Vec::new(),
            broken: false,
            names: 0,
            unaware,
            ports: world.binds.iter().map(|_| Port::free()).collect(),
            live: None,
            fresh: None,
            temporary,
        };
        put(&stage.places.folder.join("gate.lua"), stage.gate_script(), 0o644);
        put(
            &stage.places.folder.join("openssl.cnf"),
            "openssl_conf = o\n[o]\nssl_conf = s\n[s]\nsystem_default = d\n[d]\nCipherString = DEFAULT@SECLEVEL=3\n",
            0o644,
        );
        for (number, wanted) in world.others.iter().take(2).enumerate() {
            stage.put_foreign(&stage.places.other(number), &format!("other/{number}.pem"), wanted);
        }
        if world.host == HostFile::Foreign {
            stage.put_foreign(&stage.places.host(), "host.pem", &world.others[2].clone());
        }
        for (lineage, wanted) in &world.lineages {
            stage.issue(*lineage, wanted);
        }
        stage.drift = false;
        stage
    }

    /// A HAProxy's environment and user.
    pub fn as_haproxy<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if self.world.demanding {
            command.env("OPENSSL_CONF", self.places.folder.join("openssl.cnf"));
        }
        if self.world.user == User::Own {
            command.uid(NOBODY.1.0).gid(NOBODY.1.1);
        }
        command
    }

    /// The addresses of the bind lines.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.ports.iter().map(Port::address).collect()
    }

    /// Everything that the program must keep: foreign files by their place.
    pub fn foreign(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files: Vec<PathBuf> = STRAYS.iter().map(|name| self.places.sites().join(name)).collect();
        files.extend((0..4).map(|number| self.places.other(number)));
        if self.world.host == HostFile::Foreign {
            files.push(self.places.host());
        }
        files.into_iter().filter_map(|file| fs::read(&file).ok().map(|bytes| (file, bytes))).collect()
    }

    /// The files in the sites directory that HAProxy would load.
    pub fn deployed(&self) -> Vec<String> {
        names_in(&self.places.sites()).into_iter().filter(|name| name.contains(".pem")).collect()
    }

    /// A run of the program.
    pub fn run(&mut self, arguments: &[&str]) -> Run {
        self.journal.push(format!("run {}", arguments.join(" ")));
        self.is_new = false;
        self.was_seen |= self.is_up();
        self.run_now(arguments)
    }

    fn run_now(&self, arguments: &[&str]) -> Run {
        let output = finish(&mut self.program(arguments), 2 * LIMIT);
        Run {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into(),
            stderr: String::from_utf8_lossy(&output.stderr).into(),
        }
    }

    /// The program, ready to be run.
    fn program(&self, arguments: &[&str]) -> Command {
        let path = self.places.folder.join("haproxy-certs.toml");
        fs::write(&path, self.program_config()).unwrap();
        let mut command = Command::new(Cmd::program());
        command.arg("--config").arg(path).args(["assemble", "--format", "json"]).args(arguments);
        command
            .env_remove("HAPROXY_CERTS_CONFIG")
            .env_remove("RENEWED_LINEAGE")
            .env_remove("RENEWED_DOMAINS");
        command
    }

    /// A run that is killed at this moment; whether it was, or had ended before.
    pub fn run_killed(&mut self, moment: Moment) -> bool {
        self.journal.push(format!("run_killed {moment}"));
        let mut command = self.program(&[]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let watch = Watch::new(&self.places);
        let mut child = command.spawn().unwrap();
        let was_running = watch.wait(moment, || child.try_wait().unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        was_running
    }

    /// Gives the program's table for HAProxy another name.
    pub fn rename_table(&mut self) {
        self.names += 1;
        self.journal.push(format!("name=edge{}", self.names));
        self.journal_excluded();
    }

    /// The program's configuration.
    pub fn program_config(&self) -> String {
        let world = &self.world;
        let excluded: Vec<&str> = self.excluded.iter().map(|number| LINEAGES[*number]).collect();
        let mut text = format!(
            "live_dir = {}\nsites_dir = {}\nexclude = {}\n",
            toml(&self.tree.live()),
            toml(&self.places.sites()),
            serde_json::json!(excluded)
        );
        if world.user == User::Own {
            writeln!(text, "owner = \"{}:{}\"", NOBODY.0.0, NOBODY.0.1).unwrap();
        }
        if let HostFile::Lineage(number) = world.host {
            writeln!(
                text,
                "host_lineage = {:?}\nhost_file = {}",
                LINEAGES[number],
                toml(&self.places.host())
            )
            .unwrap();
        }
        let binary = match world.checked {
            Checked::Whole => toml(&self.version.program),
            Checked::Unaware => toml(self.unaware.as_ref().unwrap()),
            Checked::Never => "\"\"".to_owned(),
        };
        let master_socket = if world.master_socket { toml(&self.master_socket()) } else { "\"\"".to_owned() };
        writeln!(
            text,
            "[[haproxy]]\nunit = \"no-such-unit.service\"\npidfile = {}\nmaster_socket = {master_socket}\n\
             binary = {binary}\ntimeout = \"10s\"",
            toml(&self.places.run().join("haproxy.pid")),
        )
        .unwrap();
        if self.names > 0 {
            writeln!(text, "name = \"edge{}\"", self.names).unwrap();
        }
        if let Some(path) = world.sites_dir(&self.places.folder.display().to_string()) {
            writeln!(text, "sites_dir = {path:?}").unwrap();
        }
        if world.stats_socket == Some(true) {
            writeln!(text, "runtime_socket = {}", toml(&self.stats_socket())).unwrap();
        }
        if world.probe {
            // What serves the directory alone, as somebody would choose it.
            let sites =
                |bind: &Bind| matches!(bind.items[..], [Item::Sites(_)]) && bind.default_crt.is_none();
            let probed = self.addresses().into_iter().zip(&world.binds).filter(|(_, bind)| sites(bind));
            let addresses: Vec<String> = probed.map(|(address, _)| address.to_string()).collect();
            writeln!(text, "probe = {}", serde_json::json!(addresses)).unwrap();
        }
        if let Some(method) = world.forced {
            writeln!(text, "reload = {method:?}").unwrap();
        }
        text
    }

    /// Carries out what happens to the files.
    pub fn change(&mut self, change: &Change) {
        match change {
            Change::Issue(lineage, wanted) => self.issue(*lineage, wanted),
            Change::Renew(lineage) => self.renew(*lineage, |_| {}),
            Change::Rename(lineage, names) => self.renew(*lineage, |wanted| wanted.names.clone_from(names)),
            Change::Rekey(lineage, kind) => self.renew(*lineage, |wanted| wanted.kind = *kind),
            Change::Refused(lineage) => self.refused(*lineage),
            Change::OnlyRefused(lineage) => {
                let all = (*lineage..LINEAGES.len()).chain(0..*lineage);
                let Some(new) = all.clone().find(|number| !self.there.contains_key(number)) else { return };
                self.refused(new);
                for other in all.filter(|other| *other != new) {
                    self.change(&Change::Delete(other));
                }
            }
            Change::Delete(lineage) => {
                // One at least stays, and the host certificate's own.
                if self.there.len() > 1
                    && self.world.host != HostFile::Lineage(*lineage)
                    && self.there.remove(lineage).is_some()
                {
                    self.refused.remove(lineage);
                    self.tree.delete(LINEAGES[*lineage]);
                    self.journal.push(format!("delete {}", LINEAGES[*lineage]));
                }
            }
            Change::Exclude(lineage) => {
                if self.world.host != HostFile::Lineage(*lineage) {
                    self.excluded.insert(*lineage);
                    self.journal_excluded();
                }
            }
            Change::Include => {
                self.excluded.clear();
                self.journal_excluded();
            }
            Change::Other(number, wanted) => {
                self.put_foreign(&self.places.other(*number), &format!("other/{number}.pem"), wanted);
            }
            Change::Stray(number, wanted) => {
                let name = STRAYS[*number];
                self.put_foreign(&self.places.sites().join(name), name, wanted);
            }
        }
    }

    /// Whether certbot has something that HAProxy refuses, and only a reload shows that: until there was one, it may be
    /// in place. Nobody knows of a demanding HAProxy that no run has seen.
    pub fn has_a_surprise(&self) -> bool {
        let late = self.world.refuses_late() || self.world.demanding && !self.was_seen;
        late && !self.refused.is_empty()
    }

    fn is_gone(&self, lineage: usize) -> bool {
        !self.there.contains_key(&lineage) || self.excluded.contains(&lineage)
    }

    fn is_named(&self, lineage: usize) -> bool {
        self.world.listed(lineage) && !self.dropped.contains(&lineage)
    }

    /// Takes the lines from the crt-list that name what is to go: what somebody does who reads that it can't.
    pub fn mend_list(&mut self) {
        for lineage in 0..LINEAGES.len() {
            if self.is_gone(lineage) && self.is_named(lineage) {
                self.dropped.push(lineage);
                self.drift = true;
            }
        }
        self.write_list();
    }

    fn write_list(&mut self) {
        put(&self.places.folder.join("list.txt"), self.world.list_text(&self.places, &self.dropped), 0o644);
        let places = Places { folder: PathBuf::from("$D") };
        let text = self.world.list_text(&places, &self.dropped);
        let line = format!("cat >$D/list.txt <<END\n{text}END");
        if self.world.uses(Item::List) && !self.journal.contains(&line) {
            self.journal.push(line);
        }
    }

    fn journal_excluded(&mut self) {
        let names: Vec<&str> = self.excluded.iter().map(|number| LINEAGES[*number]).collect();
        self.journal.push(format!("configure '{}'", serde_json::json!(names)));
    }

    fn journal_pair(&mut self, command: &str, wanted: &Wanted, flag: &str) {
        self.journal.push(format!("{command} {:?} '{}' {flag}", wanted.kind, wanted.names.join(",")));
    }

    fn issue(&mut self, lineage: usize, wanted: &Wanted) {
        if self.there.contains_key(&lineage) {
            let wanted = wanted.clone();
            return self.renew(lineage, |now| *now = wanted);
        }
        self.refused.remove(&lineage);
        let leaf = self.leaf(LINEAGES[lineage], wanted);
        self.journal_pair(&format!("lineage {}", LINEAGES[lineage]), wanted, flag(wanted));
        self.tree.issue_leaf(LINEAGES[lineage], &leaf);
        self.there.insert(lineage, wanted.clone());
    }

    fn renew(&mut self, lineage: usize, how: impl FnOnce(&mut Wanted)) {
        let Some(mut wanted) = self.there.get(&lineage).cloned() else { return };
        wanted.expired = false;
        how(&mut wanted);
        self.refused.remove(&lineage);
        let leaf = self.leaf(LINEAGES[lineage], &wanted);
        self.journal_pair(&format!("lineage {}", LINEAGES[lineage]), &wanted, flag(&wanted));
        self.tree.renew_with(LINEAGES[lineage], &leaf);
        self.there.insert(lineage, wanted);
    }

    fn refused(&mut self, lineage: usize) {
        self.refused.insert(lineage);
        let known = self.there.get(&lineage).cloned();
        let mut wanted = known.clone().unwrap_or_else(|| self.world.others[0].clone());
        let command = format!("lineage {}", LINEAGES[lineage]);
        let leaf = if self.world.demanding {
            wanted.kind = KeyKind::Rsa2048;
            self.journal_pair(&command, &wanted, "");
            self.tree.authority().issue(KeyKind::Rsa2048, &wanted.names, Validity::days(90))
        } else {
            self.journal_pair(&command, &wanted, "sha1");
            sha1(&wanted.names)
        };
        self.issued += 1;
        self.labels.insert(leaf.serial(), format!("{} (refused)", LINEAGES[lineage]));
        if known.is_some() {
            self.tree.renew_with(LINEAGES[lineage], &leaf);
        } else {
            self.tree.issue_leaf(LINEAGES[lineage], &leaf);
            // What it is renewed with HAProxy takes.
            self.there.insert(lineage, self.world.others[0].clone());
        }
    }

    fn leaf(&mut self, called: &str, wanted: &Wanted) -> Leaf {
        self.issued += 1;
        let validity = if wanted.expired { Validity::expired() } else { Validity::days(90) };
        let leaf = self.tree.authority().issue(wanted.kind, &wanted.names, validity);
        let label = format!(
            "{called} #{} ({:?} {}{})",
            self.issued,
            wanted.kind,
            wanted.names.join(","),
            if wanted.expired { ", expired" } else { "" }
        );
        self.labels.insert(leaf.serial(), label);
        leaf
    }

    fn put_foreign(&mut self, path: &Path, called: &str, wanted: &Wanted) {
        let leaf = self.leaf(called, wanted);
        put(path, leaf.combined(), 0o600);
        give(&self.world, path);
        let path = path.strip_prefix(&self.places.folder).unwrap();
        self.journal_pair(&format!("foreign {}", path.display()), wanted, flag(wanted));
        self.drift = true;
    }

    fn stats_socket(&self) -> PathBuf {
        self.places.run().join("stats.sock")
    }

    fn master_socket(&self) -> PathBuf {
        self.places.run().join("master.sock")
    }

    fn ask(&self, command: &str) -> Option<String> {
        if self.world.stats_socket.is_some() {
            try_ask(&self.stats_socket(), command).ok()
        } else if self.world.master_socket {
            try_ask(&self.master_socket(), &format!("@1 {command}")).ok()
        } else {
            None
        }
    }

    /// Starts the HAProxy.
    pub fn start(&mut self) -> Result<(), String> {
        self.write_list();
        self.journal.push("start".to_owned());
        self.write_config();
        let folder = self.places.folder.clone();
        let log_path = folder.join("haproxy.log");
        let log = File::options().create(true).append(true).open(&log_path).unwrap();
        let pidfile = self.places.run().join("haproxy.pid");
        let mut running = Running::start(&self.version.program, |command| {
            if self.world.master {
                command.arg("-W").arg("-p").arg(&pidfile);
            } else {
                command.arg("-db");
            }
            if self.world.master_socket {
                command.arg("-S").arg(self.master_socket());
            }
            command.arg("-f").arg(folder.join("haproxy.cfg")).current_dir(&folder);
            self.as_haproxy(command).stdout(log.try_clone().unwrap()).stderr(log)
        });
        let start = fs::read(&log_path).unwrap_or_default().len();
        if !self.world.master {
            fs::write(&pidfile, format!("{}\n", running.pid())).unwrap();
        }
        let said = || {
            let log = fs::read(&log_path).unwrap_or_default();
            String::from_utf8_lossy(&log[start.min(log.len())..]).into_owned()
        };
        listening(&self.addresses(), &mut || running.ended().map(|status| format!("{status}\n{}", said())))?;
        let pid = running.pid();
        self.live = Some(running);
        if self.world.master {
            wait_until(LIMIT, "one worker", || children(pid).len() == 1);
            // From 3.1 on the worker listens before the master has ended its start, which a signal would disturb.
            wait_until(LIMIT, "the pidfile", || {
                fs::read(&pidfile).is_ok_and(|text| text == format!("{pid}\n").into_bytes())
            });
        }
        for socket in [
            (self.world.master_socket, self.master_socket(), "show proc", "worker"),
            (self.world.stats_socket.is_some(), self.stats_socket(), "show info", "Version"),
        ] {
            let (there, path, command, word) = socket;
            if there {
                wait_until(LIMIT, "the socket", || {
                    try_ask(&path, command).is_ok_and(|reply| reply.contains(word))
                });
            }
        }
        (self.drift, self.is_new) = (false, true);
        Ok(())
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(mut running) = self.live.take() {
            self.journal.push("stop".to_owned());
            running.stop();
        }
    }

    /// Whether it is there.
    pub fn is_up(&self) -> bool {
        self.live.is_some()
    }

    fn write_config(&self) {
        let ports: Vec<u16> = self.ports.iter().map(Port::number).collect();
        let stats = self.stats_socket();
        let mut text =
            self.world.config(&self.places, &ports, self.world.stats_socket.is_some().then_some(&*stats));
        if self.broken {
            text.push_str("  no-such-keyword\n");
        }
        writeln!(text, "global\n  lua-load {}", self.places.folder.join("gate.lua").display()).unwrap();
        put(&self.places.folder.join("haproxy.cfg"), text, 0o644);
    }

    /// Breaks haproxy.cfg, or repairs it.
    pub fn break_config(&mut self, broken: bool) {
        self.broken = broken;
        self.journal.push(if broken { "break_config" } else { "mend_config" }.to_owned());
        self.write_config();
    }

    /// Has the HAProxy reload and waits until it has, if it can.
    pub fn reload(&mut self) {
        let Some(running) = self.live.as_mut().filter(|_| self.world.master) else { return };
        let before = children(running.pid());
        self.journal.push("reload".to_owned());
        let asked = self.world.master_socket && self.version.number() >= (2, 7) && {
            try_ask(&self.master_socket(), "reload").is_ok()
        };
        if !asked {
            self.live.as_mut().unwrap().signal(Signal::USR2);
        }
        self.reloaded(&before);
    }

    /// Waits until none of these workers is left, and one is; starts it again where the signal was lost (3.1 to 3.3
    /// after a failed reload).
    fn reloaded(&mut self, before: &[u32]) {
        let pid = self.live.as_ref().unwrap().pid();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            let now = children(pid);
            if now.len() == 1 && !before.contains(&now[0]) {
                (self.drift, self.is_new) = (false, true);
                return self.sockets_answer();
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.stop();
        self.start().unwrap_or_else(|log| panic!("HAProxy didn't start again: {log}"));
    }

    fn sockets_answer(&self) {
        if self.world.master_socket {
            wait_until(LIMIT, "the master", || {
                try_ask(&self.master_socket(), "show proc").is_ok_and(|reply| reply.contains("worker"))
            });
        }
    }

    /// Whoever loads the configuration while there is a gate takes it away, and waits behind it.
    fn gate_script(&self) -> String {
        let run = self.places.run();
        let folder = run.display();
        let (gate, held) = (format!("{folder}/gate"), format!("{folder}/held"));
        format!(
            "if os.rename(\"{gate}\", \"{held}\") then\n  local held = io.open(\"{held}\", \"r\")\n  held:read(\"*a\")\n  held:close()\nend\n"
        )
    }

    /// Begins a reload that has read every file, and holds it there.
    pub fn begin_reload(&mut self) -> Option<Held> {
        if !self.world.master {
            return None;
        }
        let (gate, held) = (self.places.run().join("gate"), self.places.run().join("held"));
        let _ = fs::remove_file(&held);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &gate,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        give(&self.world, &gate);
        let running = self.live.as_mut().unwrap();
        let before = children(running.pid());
        running.signal(Signal::USR2);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            // Without a reader a FIFO can't be opened like this: whoever loads is there.
            let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
            if let Ok(file) = File::options().write(true).custom_flags(nonblock).open(&held) {
                self.drift = false;
                self.journal.push("begin_reload".to_owned());
                return Some(Held { file, before });
            }
            thread::sleep(Duration::from_millis(2));
        }
        // A signal that was lost (3.1 to 3.3 after a failed reload).
        let _ = fs::remove_file(&gate);
        None
    }

    /// A run while the reload goes on, which ends soon after the run has put files into place, or with it.
    pub fn run_meanwhile(&mut self, held: Option<Held>) -> Run {
        let Some(Held { file, before }) = held else { return self.run(&[]) };
        self.journal.push("run_meanwhile".to_owned());
        let (watch, has_ended) = (Watch::new(&self.places), AtomicBool::new(false));
        let run = thread::scope(|scope| {
            scope.spawn(|| {
                watch.wait(Moment::Committed(300), || has_ended.load(Ordering::Relaxed));
                drop(file);
            });
            let run = self.run_now(&[]);
            has_ended.store(true, Ordering::Relaxed);
            run
        });
        let drift = self.drift;
        self.reloaded(&before);
        // It had read the files before what happened to them then.
        self.drift = drift;
        run
    }

    /// A run while somebody has HAProxy reload at this moment.
    pub fn run_and_reload(&mut self, moment: Moment) -> Run {
        let Some(running) = self.live.as_mut().filter(|_| self.world.master) else { return self.run(&[]) };
        // It is our child: its id isn't given to anybody else.
        let pid = Pid::from_raw(running.pid().try_into().unwrap()).unwrap();
        let before = children(running.pid());
        let (run, came) = self.run_and(moment, || kill_process(pid, Signal::USR2).is_ok());
        self.journal.push(if came { format!("run_and_reload {moment}") } else { "run ".to_owned() });
        if came {
            self.reloaded(&before);
        }
        run
    }

    /// A run while somebody opens a transaction at this moment; how to end that.
    pub fn run_and_transaction(&mut self, moment: Moment) -> (Run, Option<String>) {
        let Some((store, command)) = self.transaction() else { return (self.run(&[]), None) };
        let (run, came) = self.run_and(moment, || self.ask(&command).is_some());
        self.journal.push(if came { format!("run_and_transaction {moment}") } else { "run ".to_owned() });
        (run, came.then(|| format!("abort ssl cert {store}")))
    }

    /// A run, and something that is done at this moment of it; whether that was done before it ended.
    fn run_and(&self, moment: Moment, what: impl FnOnce() -> bool + Send) -> (Run, bool) {
        let (watch, has_ended) = (Watch::new(&self.places), AtomicBool::new(false));
        thread::scope(|scope| {
            let other = scope.spawn(|| watch.wait(moment, || has_ended.load(Ordering::Relaxed)) && what());
            let run = self.run_now(&[]);
            has_ended.store(true, Ordering::Relaxed);
            (run, other.join().unwrap())
        })
    }

    /// Opens a transaction on the first file that HAProxy has, as somebody else; how to end it.
    pub fn open_transaction(&mut self) -> Option<String> {
        let (store, command) = self.transaction()?;
        self.ask(&command)?;
        self.journal.push("transaction".to_owned());
        Some(format!("abort ssl cert {store}"))
    }

    /// The first file that HAProxy has, and the command that opens a transaction on it.
    fn transaction(&self) -> Option<(String, String)> {
        let shown = self.ask("show ssl cert")?;
        let store = shown.lines().find(|line| line.contains("/sites/"))?.trim_start_matches('*').to_owned();
        let leaf = self.tree.authority().issue(KeyKind::P256, &["somebody.test"], Validity::days(30));
        let command = format!("set ssl cert {store} <<\n{}\n", leaf.combined());
        Some((store, command))
    }

    /// What a HAProxy that starts now would answer, where another one has been asked since these files are as they are.
    pub fn known_answers(&self) -> Option<Answers> {
        let (files, answers) = self.fresh.as_ref()?;
        (*files == self.files()).then(|| answers.clone())
    }

    /// Remembers what a HAProxy that was just started from these files has answered.
    pub fn remember(&mut self, files: Vec<u8>, answers: &Answers) {
        self.fresh = Some((files, answers.clone()));
    }

    /// Everything that HAProxy loads, with its rights, as bytes.
    pub fn files(&self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut add = |path: PathBuf| {
            let bytes = fs::read(&path).unwrap_or_default();
            let rights = fs::metadata(&path).map(|meta| (meta.mode(), meta.uid(), meta.gid())).ok();
            all.extend(format!("{} {rights:?} {}\n", path.display(), bytes.len()).into_bytes());
            all.extend(bytes);
        };
        add(self.places.host());
        add(self.places.folder.join("list.txt"));
        for folder in [self.places.sites(), self.places.folder.join("other")] {
            for name in names_in(&folder) {
                add(folder.join(name));
            }
        }
        all
    }

    /// Ends it.
    pub fn end_transaction(&mut self, command: &str) {
        self.journal.push("end_transaction".to_owned());
        let _ = self.ask(command);
    }

    /// What HAProxy has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.temporary.path().join("haproxy.log")).unwrap_or_default()
    }
}

/// A reload that is held until this is dropped.
#[derive(Debug)]
pub struct Held {
    file: File,
    before: Vec<u32>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Gives a file to HAProxy's user, where that is another one from the start.
fn give(world: &World, path: &Path) {
    if world.user == User::Own {
        chown(path, Some(NOBODY.1.0), Some(NOBODY.1.1)).unwrap();
    }
}

fn flag(wanted: &Wanted) -> &'static str {
    if wanted.expired { "expired" } else { "" }
}

/// A certificate with a signature that OpenSSL refuses from the default security level on.
fn sha1(names: &[&str]) -> Leaf {
    let (key, issuer) = (Key::fresh(KeyKind::P256), Key::fresh(KeyKind::P256));
    let an_hour_ago = time::OffsetDateTime::now_utc().unix_timestamp() - 3600;
    let name = |text: &str| {
        let mut name = X509NameBuilder::new().unwrap();
        name.append_entry_by_text("CN", text).unwrap();
        name.build()
    };
    let make = |subject: &str, of: &Key, names: &[&str], digest: MessageDigest| -> X509 {
        let mut builder = X509Builder::new().unwrap();
        builder.set_version(2).unwrap();
        let mut serial = BigNum::new().unwrap();
        serial.rand(120, MsbOption::ONE, false).unwrap();
        builder.set_serial_number(&Asn1Integer::from_bn(&serial).unwrap()).unwrap();
        builder.set_subject_name(&name(subject)).unwrap();
        builder.set_issuer_name(&name("old CA")).unwrap();
        builder.set_not_before(&Asn1Time::from_unix(an_hour_ago).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(90).unwrap()).unwrap();
        builder.set_pubkey(of.openssl()).unwrap();
        if !names.is_empty() {
            let mut alternatives = SubjectAlternativeName::new();
            for name in names {
                alternatives.dns(name);
            }
            let extension = alternatives.build(&builder.x509v3_context(None, None)).unwrap();
            builder.append_extension(extension).unwrap();
        }
        builder.sign(issuer.openssl(), digest).unwrap();
        builder.build()
    };
    let pem = |certificate: X509| String::from_utf8(certificate.to_pem().unwrap()).unwrap();
    let cert = pem(make("refused", &key, names, MessageDigest::sha1()));
    let chain = pem(make("old CA", &issuer, &[], MessageDigest::sha256()));
    let mut leaf = Authority::new().issue_for(&key, names, Validity::days(90));
    leaf.cert = cert;
    leaf.chain = chain;
    leaf
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[stage of world {}]", self.world.seed)
    }
}
