//! A run with the index plans exactly what a full run plans: after random sequences of what happens to files between runs,
//! with clocks that are set, and with whatever becomes of the index itself.
//!
//! What a kernel does with its clock can't be had at will: a model of one, whose ticks are long and whose clock is set, tries
//! the rule of trust itself.
//!
//! `HAPROXY_CERTS_LONG=1` does ten times as many.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use haproxy_certs::certified_key::{ChainState, read_leaf};
use haproxy_certs::commands::assemble::patience;
use haproxy_certs::config::{Overrides, Settings};
use haproxy_certs::index::entry::{Look, Looks, Proven, Stamp};
use haproxy_certs::index::trust::Rule;
use haproxy_certs::index::{INDEX_FILE, Index, stamp};
use haproxy_certs::plan::plan;
use haproxy_certs::plan::row::Row;
use haproxy_certs::plan::situation::{Candidate, Policy};
use haproxy_certs::sites::dir::SitesDir;
use haproxy_certs::sites::state::Record;
use haproxy_certs::source::Source;
use haproxy_certs::sweep::{Swept, prove, sweep};
use haproxy_certs::sys::clock::Moment;
use haproxy_certs::sys::system::System;
use support::pki::{Authority, KeyKind, Leaf, Validity};
use support::summary::{Count, long};
use tempfile::TempDir;

/// Sequences; they mostly wait for the kernel's clock to tick, so more run at once than there are processors.
const SEQUENCES: usize = 10_000;
const AT_ONCE: usize = 8;
const RUNS: usize = 4;

const SECOND: i128 = 1_000_000_000;

const NAMES: [&str; 3] = ["a.test", "b.test", "c.test"];

/// Random numbers that a seed gives again (xorshift64*).
struct Random(u64);

impl Random {
    fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % end
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}

/// Pairs of key and chain, by name; all keys and chains of a name have the same size, where that can be had.
fn pool() -> &'static BTreeMap<&'static str, Vec<Leaf>> {
    static POOL: OnceLock<BTreeMap<&str, Vec<Leaf>>> = OnceLock::new();
    POOL.get_or_init(|| {
        let authority = Authority::new();
        let of = |name: &'static str| {
            let issue = |days| authority.issue(KeyKind::P256, &[name], Validity::days(days));
            let mut all: Vec<Leaf> = (0..24).map(|number| issue(60 + number % 4)).collect();
            let size = all[0].fullchain().len();
            all.sort_by_key(|leaf| leaf.fullchain().len() != size);
            all.truncate(6);
            (name, all)
        };
        NAMES.into_iter().map(of).collect()
    })
}

struct World {
    folder: TempDir,
    settings: Settings,
    random: Random,
    /// By how much the clock of the runs is ahead of the kernel's: quiet time that passed, or a clock that was set.
    passed: i128,
    set: i128,
    versions: BTreeMap<&'static str, usize>,
    story: Vec<String>,
}

impl World {
    fn new(seed: usize) -> Self {
        let shm = Path::new("/dev/shm");
        let folder = if shm.is_dir() { TempDir::new_in(shm) } else { TempDir::new() }.unwrap();
        for name in ["live", "archive", "sites"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::set_permissions(folder.path().join("sites"), Permissions::from_mode(0o700)).unwrap();
        let flags = Overrides {
            live_dir: Some(folder.path().join("live")),
            sites_dir: Some(folder.path().join("sites")),
            ..Overrides::default()
        };
        let mut settings = Settings::parse("", &flags).unwrap();
        settings.haproxys.clear();
        let mut world = Self {
            folder,
            settings,
            random: Random::new(seed),
            passed: 0,
            set: 0,
            versions: BTreeMap::new(),
            story: vec![format!("seed {seed}")],
        };
        for name in NAMES {
            world.issue(name);
        }
        world
    }

    fn live(&self, name: &str, kind: &str) -> PathBuf {
        self.folder.path().join("live").join(name).join(format!("{kind}.pem"))
    }

    fn archive(&self, name: &str) -> PathBuf {
        self.folder.path().join("archive").join(name)
    }

    fn site(&self, name: &str) -> PathBuf {
        self.settings.sites_dir.join(format!("{name}.pem"))
    }

    fn own(&self, name: &str) -> PathBuf {
        self.settings.sites_dir.join(".haproxy-certs").join(name)
    }

    /// A new version of a lineage in the archive, and the links to it.
    fn issue(&mut self, name: &'static str) {
        let version = self.versions.entry(name).or_default();
        *version += 1;
        let version = *version;
        let leaf = self.random.one(&pool()[name]).clone();
        fs::create_dir_all(self.archive(name)).unwrap();
        fs::create_dir_all(self.live(name, "x").parent().unwrap()).unwrap();
        for (kind, text) in [("privkey", leaf.key.pem()), ("fullchain", leaf.fullchain())] {
            let file = self.archive(name).join(format!("{kind}{version}.pem"));
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        }
        self.link(name, version);
    }

    fn link(&self, name: &str, version: usize) {
        for kind in ["privkey", "fullchain"] {
            let link = self.live(name, kind);
            let _ = fs::remove_file(&link);
            symlink(format!("../../archive/{name}/{kind}{version}.pem"), link).unwrap();
        }
    }

    /// What happens to the files between two runs.
    fn happen(&mut self) {
        let name = *self.random.one(&NAMES);
        let is_there = self.live(name, "privkey").exists();
        let deed = self.random.below(20);
        self.story.push(format!("deed {deed} on {name}"));
        match deed {
            _ if !is_there => self.issue(name),
            0 | 1 => self.issue(name),
            2 => {
                let version = 1 + self.random.below(self.versions[name]);
                self.link(name, version);
            }
            // Another pair of the same size, in place or by a new file, with the times of the old one.
            3 | 4 => {
                let leaf = self.random.one(&pool()[name]).clone();
                for (kind, text) in [("privkey", leaf.key.pem()), ("fullchain", leaf.fullchain())] {
                    let file = fs::canonicalize(self.live(name, kind)).unwrap();
                    rewrite(&file, text.as_bytes(), deed == 3);
                }
            }
            5 => touch(&fs::canonicalize(self.live(name, "fullchain")).unwrap()),
            6 => {
                let mode = *self.random.one(&[0o600, 0o640, 0o644]);
                fs::set_permissions(self.live(name, "privkey"), Permissions::from_mode(mode)).unwrap();
            }
            7 => fs::remove_dir_all(self.folder.path().join("live").join(name)).unwrap(),
            // Two lineages change places.
            8 => {
                let other = *self.random.one(&NAMES);
                let live = self.folder.path().join("live");
                if other != name && live.join(other).exists() {
                    for (from, to) in [(name, "x"), (other, name), ("x", other)] {
                        fs::rename(live.join(from), live.join(to)).unwrap();
                    }
                }
            }
            9 | 10 => self.edit_site(name, deed == 9),
            11 => {
                if self.site(name).exists() {
                    let mode = *self.random.one(&[0o400, 0o600, 0o440]);
                    fs::set_permissions(self.site(name), Permissions::from_mode(mode)).unwrap();
                }
            }
            12 => {
                if self.site(name).exists() && fs::metadata("/proc/self").unwrap().uid() == 0 {
                    chown(self.site(name), Some(99), None).unwrap();
                }
            }
            13 => drop(fs::remove_file(self.site(name))),
            14 => {
                // What is deployed for one lineage, copied over what is for another.
                let other = *self.random.one(&NAMES);
                let other = self.site(other);
                if let (Ok(bytes), true) = (fs::read(other), self.site(name).exists()) {
                    rewrite(&self.site(name), &bytes, self.random.chance(2));
                }
            }
            15 => self.passed += 100 * SECOND,
            // The clock is set, forward or back.
            16 => self.set += i128::try_from(self.random.below(9)).unwrap() * 50 * SECOND - 200 * SECOND,
            17 => self.damage_index(),
            18 => drop(fs::remove_file(self.own("state.json"))),
            _ => {
                let file = self.own("state.json");
                if let Ok(state) = fs::read_to_string(&file) {
                    let (from, to) = *self.random.one(&[
                        ("complete", "incomplete"),
                        ("a.test", "b.test"),
                        ("\"sha256\": \"0", "\"sha256\": \"1"),
                    ]);
                    fs::write(file, state.replacen(from, to, 1)).unwrap();
                }
            }
        }
    }

    fn edit_site(&mut self, name: &str, in_place: bool) {
        let Some(mut bytes) = fs::read(self.site(name)).ok().filter(|bytes| !bytes.is_empty()) else {
            return;
        };
        let at = self.random.below(bytes.len());
        bytes[at] ^= 1;
        rewrite(&self.site(name), &bytes, in_place);
    }

    fn damage_index(&mut self) {
        let index = fs::read(self.own(INDEX_FILE)).ok().filter(|bytes| !bytes.is_empty());
        let Some(mut bytes) = index else { return };
        let at = self.random.below(bytes.len());
        match self.random.below(5) {
            0 => bytes.truncate(at),
            1 => bytes[at..].fill(0),
            2 => bytes.clear(),
            _ => bytes[at] ^= 1 << self.random.below(8),
        }
        fs::write(self.own(INDEX_FILE), bytes).unwrap();
    }

    /// The circumstances of a run: the real ones, with this world's clock.
    fn stamp(&self, began: &Moment) -> Stamp {
        let real = stamp(&self.settings, &System::host(), began).unwrap();
        Stamp { began: real.began + self.passed + self.set, ahead: real.ahead + self.set, ..real }
    }

    /// A run that must plan as if there were no index; how many lineages weren't read.
    fn run(&mut self) -> usize {
        let began = Moment::now();
        let (system, stamp) = (System::host(), self.stamp(&began));
        let mut sites = SitesDir::lock(&self.settings, &system, patience(&self.settings)).unwrap();
        let index = self.recall(&sites, Some(stamp), &began);
        let (swept, full) = self.both(&sites, &index);
        let spared = full.read - swept.read;
        let tree = Source::of(&self.settings).unwrap();
        let supply = |row: &Row| prove(&tree, row.lineage.as_deref().unwrap_or_default());
        let staged = sites.stage(&self.settings, plan(&swept.situation), &supply, &|_, _| ());
        let (_, failure) = staged.commit(full.situation.now).unwrap().keep(&BTreeMap::new());
        assert!(failure.is_none(), "{failure:?}");
        index.successor(false).save(sites.own(), &swept.proved).unwrap();
        self.story.push(format!("run, {spared} not read"));
        spared
    }

    /// Compares what would be planned, and does nothing.
    fn compare(&self) {
        let system = System::host();
        let sites = SitesDir::lock(&self.settings, &system, patience(&self.settings)).unwrap();
        let began = Moment::now();
        let stamp = Some(self.stamp(&began));
        let index = self.recall(&sites, stamp, &began);
        self.both(&sites, &index);
    }

    fn recall(&self, sites: &SitesDir, stamp: Option<Stamp>, began: &Moment) -> Index {
        let source = Source::of(&self.settings).unwrap();
        let files = source.files();
        Index::recall(&self.settings, files.as_deref(), &sites.place, sites.own(), &sites.state, stamp, began)
    }

    /// What is there, as it is found with the index and without.
    fn both(&self, sites: &SitesDir, index: &Index) -> (Swept, Swept) {
        let look = |index: &Index| -> Swept {
            let policy = Policy { prune_many: true, ..Policy::default() };
            let tree = Source::of(&self.settings).unwrap();
            sweep(&self.settings, (tree, index), Some(&sites.place), &sites.state, policy, "-", &|_, _| ())
                .unwrap()
        };
        let (mut swept, full) = (look(index), look(&Index::empty(None)));
        swept.situation.now = full.situation.now;
        let read = swept.situation.clone().as_if_read();
        assert_eq!(read.lineages, full.situation.lineages, "{:#?}", self.story);
        assert_eq!(read.deployed, full.situation.deployed, "{:#?}", self.story);
        assert_eq!(plan(&swept.situation), plan(&full.situation), "{:#?}", self.story);
        assert_eq!(full.read, read.lineages.len());
        assert_eq!(swept.unchanged_since.is_some(), swept.read < full.read);
        (swept, full)
    }

    /// Waits until what is changed from now on has another ctime than all that was changed before.
    fn tick(&self) {
        let probe = self.folder.path().join("probe");
        fs::write(&probe, "").unwrap();
        let changed = || {
            let meta = fs::metadata(&probe).unwrap();
            (meta.ctime(), meta.ctime_nsec())
        };
        let before = changed();
        while changed() == before {
            thread::sleep(Duration::from_millis(1));
            fs::set_permissions(&probe, Permissions::from_mode(0o600)).unwrap();
        }
    }
}

/// Writes other bytes into a file, or puts another file in its place, with the times of the old one.
fn rewrite(file: &Path, bytes: &[u8], in_place: bool) {
    let meta = fs::metadata(file).unwrap();
    let times =
        FileTimes::new().set_accessed(meta.accessed().unwrap()).set_modified(meta.modified().unwrap());
    let written = if in_place { file.to_owned() } else { file.with_extension("new") };
    fs::write(&written, bytes).unwrap();
    File::options().write(true).open(&written).unwrap().set_times(times).unwrap();
    fs::set_permissions(&written, meta.permissions()).unwrap();
    if !in_place {
        chown(&written, Some(meta.uid()), Some(meta.gid())).unwrap();
        fs::rename(written, file).unwrap();
    }
}

fn touch(file: &Path) {
    let now = std::time::SystemTime::now();
    File::options().write(true).open(file).unwrap().set_times(FileTimes::new().set_modified(now)).unwrap();
}

/// Some runs with something happening between them; how many lineages weren't read, of how many.
fn sequence(seed: usize) -> (usize, usize) {
    let mut world = World::new(seed);
    let (mut spared, mut all) = (0, 0);
    world.run();
    for _ in 1..RUNS {
        world.tick();
        // Mostly quiet time passes first; where it doesn't, nothing that was just written is trusted.
        if !world.random.chance(4) {
            world.passed += 10 * SECOND;
        }
        spared += world.run();
        all += NAMES.len();
        world.tick();
        for _ in 0..world.random.below(3) {
            world.happen();
        }
    }
    world.passed += 10 * SECOND;
    (spared + world.run(), all + NAMES.len())
}

#[test]
fn a_run_with_the_index_plans_what_a_full_run_plans() {
    let sequences = if long() { 10 * SEQUENCES } else { SEQUENCES };
    let sequences =
        std::env::var("HAPROXY_CERTS_SEQUENCES").ok().and_then(|n| n.parse().ok()).unwrap_or(sequences);
    let (next, spared, all) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= sequences {
                        return;
                    }
                    let (not_read, of) = sequence(seed);
                    spared.fetch_add(not_read, Ordering::Relaxed);
                    all.fetch_add(of, Ordering::Relaxed);
                }
            });
        }
    });
    let (spared, all) = (spared.into_inner(), all.into_inner());
    assert!(spared * 5 > all, "only {spared} of {all} lineages weren't read: the index was hardly used");
    Count::Indexed.add("index", sequences);
}

/// A kernel whose clock is set, and a lineage on a file system with the ticks of that clock.
struct Kernel {
    random: Random,
    since_boot: i128,
    ahead: i128,
    /// By how much it was ahead at the last run, and whether it was another time since.
    at_the_run: i128,
    was_away: bool,
    tick: i128,
    /// What key, chain and deployed file hold, and what they look like.
    files: [(u8, Look); 3],
}

impl Kernel {
    fn new(seed: usize) -> Self {
        let mut random = Random::new(seed);
        let tick = *random.one(&[SECOND / 250, SECOND / 100, SECOND / 4, SECOND]);
        let look =
            Look { device: 1, inode: 1, size: 1, mode: 0o100_400, uid: 0, gid: 0, modified: 0, changed: 0 };
        let files = [1, 2, 3].map(|inode| (0, Look { inode, ..look }));
        let ahead = 1000 * SECOND;
        let mut kernel =
            Self { random, since_boot: 0, ahead, at_the_run: ahead, was_away: false, tick, files };
        for file in 0..3 {
            kernel.write(file);
        }
        kernel
    }

    fn clock(&self) -> i128 {
        self.since_boot + self.ahead
    }

    /// Other bytes of the same number, in place, with the old time of modification; not on a whole second.
    fn write(&mut self, file: usize) {
        let changed = self.clock().div_euclid(self.tick) * self.tick + 1;
        let (holds, look) = &mut self.files[file];
        *holds = holds.wrapping_add(1);
        look.changed = changed;
    }

    /// Time passes, mostly little; somebody writes, or sets the clock.
    fn go_on(&mut self) {
        for _ in 0..self.random.below(3) {
            let most = *self.random.one(&[1, 1000, self.tick, 3 * SECOND, 20 * SECOND]);
            self.since_boot += i128::try_from(self.random.below(1_000_000)).unwrap() * most / 1_000_000;
            match self.random.below(8) {
                0..3 => {
                    let file = self.random.below(3);
                    self.write(file);
                }
                3 => {
                    let ticks = i128::try_from(self.random.below(40)).unwrap() - 20;
                    let ahead = self.ahead + ticks * self.tick;
                    let is_away = (ahead - self.at_the_run).abs() >= SECOND;
                    // That it was away and is back nobody can see: the rule says so.
                    if is_away || !self.was_away {
                        self.ahead = ahead;
                        self.was_away |= is_away;
                    }
                }
                _ => {}
            }
        }
    }

    /// A run begins.
    fn stamp(&mut self) -> Stamp {
        (self.at_the_run, self.was_away) = (self.ahead, false);
        Stamp { circumstances: [0; 32], began: self.clock(), ahead: self.ahead }
    }
}

/// Runs on such a kernel, as far as the rule of trust goes; how often an entry was trusted.
fn trusted_on_a_model(seed: usize) -> usize {
    let mut kernel = Kernel::new(seed);
    let owner = haproxy_certs::config::Owner { uid: 0, gid: 0 };
    let record = |sha256: [u8; 32]| Record {
        lineage: "a".into(),
        live_dir: "/live".into(),
        sha256,
        chain: Some(ChainState::Complete),
        rejected: None,
        prune_refused: None,
    };
    let leaf = Arc::new(read_leaf(pool()[NAMES[0]][0].fullchain().as_bytes()).unwrap());
    let (mut index, mut trusted): (Option<(Stamp, Proven)>, usize) = (None, 0);
    for _ in 0..3 * RUNS {
        kernel.go_on();
        let stamp = kernel.stamp();
        kernel.go_on();
        // What is there is looked at one after the other.
        let mut found = kernel.files;
        for (file, found) in found.iter_mut().enumerate() {
            if kernel.random.chance(4) {
                kernel.go_on();
            }
            *found = kernel.files[file];
        }
        let holds = found.map(|(holds, _)| holds);
        let [key, chain, site] = found.map(|(_, look)| look);
        let looks = Looks { key, chain, site };
        let known = index.take().filter(|(written, entry)| {
            let rule = Rule {
                written,
                live_device: 1,
                sites_device: 1,
                live_dir: Path::new("/live"),
                owner,
                mode: 0o400,
            };
            let record = record(entry.candidate.sha256);
            let was_set = kernel.ahead != stamp.ahead;
            !was_set && written.is_continued_by(&stamp) && rule.trusts(entry, &looks, Some(&record))
        });
        let mut sha256 = [0; 32];
        sha256[..3].copy_from_slice(&holds);
        let entry = match known {
            Some((_, entry)) => {
                assert_eq!(
                    entry.candidate.sha256, sha256,
                    "seed {seed}: trusted, and it isn't what was proved"
                );
                trusted += 1;
                entry
            }
            None => Proven {
                lineage: "a".into(),
                looks,
                proved: 0,
                candidate: Candidate {
                    sha256,
                    leaf: Arc::clone(&leaf),
                    chain: ChainState::Complete,
                    staging: false,
                    loose_permissions: false,
                },
            },
        };
        index = entry.looks.are_settled(stamp.began).then_some((stamp, entry));
    }
    trusted
}

#[test]
fn whatever_clocks_do_what_is_trusted_is_what_was_proved() {
    let sequences = 12 * if long() { 10 * SEQUENCES } else { SEQUENCES };
    let trusted: usize = (0..sequences).map(trusted_on_a_model).sum();
    assert!(trusted > sequences / 20, "only {trusted} times of {sequences} sequences something was trusted");
}

#[test]
fn whatever_becomes_of_the_index_the_plan_is_the_same() {
    let mut world = World::new(SEQUENCES * 100);
    for _ in 0..3 {
        world.run();
        world.passed += 10 * SECOND;
    }
    let whole = fs::read(world.own(INDEX_FILE)).unwrap();
    assert_eq!(world.run(), NAMES.len(), "the index is whole");
    // As it is, and where one of the deployed files was changed behind it.
    for changed in [false, true] {
        if changed {
            world.tick();
            world.edit_site(NAMES[0], true);
        }
        for at in (0..=whole.len()).step_by(if long() { 1 } else { 5 }) {
            let cut = whole[..at].to_vec();
            let mut later = whole.clone();
            let flipped = later.get_mut(at).map(|byte| *byte ^= 1 << (at % 8));
            for damaged in [Some(cut), flipped.map(|()| later)].into_iter().flatten() {
                fs::write(world.own(INDEX_FILE), damaged).unwrap();
                world.compare();
            }
        }
        let mut other = whole.clone();
        other[b"haproxy-certs index\n".len()] += 1;
        let doubled = [whole.as_slice(), &whole].concat();
        for odd in [other, doubled, vec![0xff; 4096], Vec::new()] {
            fs::write(world.own(INDEX_FILE), odd).unwrap();
            world.compare();
        }
        fs::remove_file(world.own(INDEX_FILE)).unwrap();
        symlink("state.json", world.own(INDEX_FILE)).unwrap();
        world.compare();
        fs::remove_file(world.own(INDEX_FILE)).unwrap();
    }
}
