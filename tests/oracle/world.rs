//! Random worlds: a HAProxy, what its bind lines load, and certbot's lineages, which share a few names.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use support::KeyKind;
use support::haproxy::WITHOUT_AUTHORITIES;

/// `SplitMix64`: the same seed gives the same worlds and steps everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Some of these, at least one, each once, in their order.
    pub fn some<T: Copy>(&mut self, of: &[T]) -> Vec<T> {
        let wanted = 1 + self.below(3.min(of.len()));
        let mut left = wanted;
        let mut chosen = Vec::new();
        for (index, item) in of.iter().enumerate() {
            if self.below(of.len() - index) < left {
                chosen.push(*item);
                left -= 1;
            }
        }
        chosen
    }
}

/// The names that the lineages share.
pub const NAMES: [&str; 5] = ["a.test", "b.test", "c.test", "*.d.test", "x.d.test"];

/// What clients ask for: every name, one that only the wildcard covers, an unknown one, and none.
pub const ASKED: [&str; 8] =
    ["a.test", "b.test", "c.test", "x.d.test", "y.d.test", "unknown.test", "sub.a.test", ""];

/// What certbot calls its lineages: `-` sorts before `.`.
pub const LINEAGES: [&str; 6] = ["a.test", "a.test-0001", "b.test", "d.test", "m.test", "z.test"];

/// Foreign files in the sites directory: first, in the middle, last.
pub const STRAYS: [&str; 3] = ["0-stray.pem", "c-stray.pem", "zz-stray.pem"];

/// How a bind line spells the sites directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// As the program's configuration does.
    Plain,
    /// With a slash at the end.
    Slash,
    /// `/./` on the way.
    Dot,
    /// `//` on the way.
    Twice,
    /// Through a link to it.
    Link,
    /// Relative to `crt-base`.
    Base,
    /// Relative to a `crt-base` that ends with a slash.
    BaseSlash,
}

/// What a bind line loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// The sites directory.
    Sites(Spelling),
    /// Another directory, with foreign files.
    Other,
    /// The host certificate.
    Host,
    /// A crt-list of this world.
    List,
}

/// What a line of the crt-list names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// A lineage's file in the sites directory.
    Lineage(usize),
    /// A foreign file in the other directory.
    Other(usize),
}

/// A bind line.
#[derive(Debug, Clone)]
pub struct Bind {
    /// Which frontend it belongs to.
    pub frontend: usize,
    /// What it loads, in order.
    pub items: Vec<Item>,
    /// `default-crt` (3.0 and later): the host certificate, or else the other directory's first file.
    pub default_crt: Option<Item>,
    /// `strict-sni`.
    pub strict: bool,
}

/// Where the host certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostFile {
    /// Somebody put it there.
    Foreign,
    /// It is this lineage's, by `host_lineage`.
    Lineage(usize),
}

/// Whom HAProxy runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// root.
    Root,
    /// root until it has read its files: `user` and `group` in haproxy.cfg.
    Dropped,
    /// Another user from the start, who owns all that it loads.
    Own,
}

/// The user and group of [`User::Dropped`] and [`User::Own`], by name and by number.
pub const NOBODY: ((&str, &str), (u32, u32)) = (("nobody", "nogroup"), (65534, 65534));

/// What the program can have HAProxy say of a file before HAProxy loads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// All that a reload would say.
    Whole,
    /// All but what OpenSSL's configuration forbids, which the check of staged files doesn't see: as where the master's
    /// environment can't be read.
    Unaware,
    /// Nothing: the program must not run HAProxy, so that only a reload or a commit shows what is refused.
    Never,
}

/// A certificate that is to be there: names and kind of key.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its DNS names.
    pub names: Vec<&'static str>,
    /// Its key.
    pub kind: KeyKind,
    /// Whether it expired long ago.
    pub expired: bool,
}

impl Wanted {
    /// A random one.
    pub fn random(random: &mut Random, demanding: bool) -> Self {
        Self { names: random.some(&NAMES), kind: kind(random, demanding), expired: random.percent(8) }
    }
}

/// Mostly ECDSA; no RSA where HAProxy refuses it.
pub fn kind(random: &mut Random, demanding: bool) -> KeyKind {
    match random.below(10) {
        0 => KeyKind::P384,
        1..=3 if !demanding => KeyKind::Rsa2048,
        _ => KeyKind::P256,
    }
}

/// A world.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct World {
    /// Where it came from.
    pub seed: u64,
    /// `2.6`
    pub version: String,
    /// Whether it runs with a master (`-W`), or plainly.
    pub master: bool,
    /// Whether the master has a socket.
    pub master_socket: bool,
    /// Whether it has a stats socket of level admin, and whether the program knows that.
    pub stats_socket: Option<bool>,
    /// Whether the program is told how haproxy.cfg spells the directory, where it only does so in other ways.
    pub told_spelling: bool,
    /// What the program can ask of HAProxy beforehand.
    pub checked: Checked,
    /// Whom HAProxy runs as.
    pub user: User,
    /// Whether haproxy.cfg has `chroot`: into an empty directory.
    pub chroot: bool,
    /// Whether the program is told to probe the bind lines.
    pub probe: bool,
    /// Whether HAProxy's OpenSSL refuses RSA keys of 2048 bits, which no other process here does.
    pub demanding: bool,
    /// The host certificate.
    pub host: HostFile,
    /// Bind lines.
    pub binds: Vec<Bind>,
    /// The lines of the crt-list, with their filters.
    pub list: Vec<(Listed, Vec<&'static str>)>,
    /// Lineages at the start, by their number in [`LINEAGES`].
    pub lineages: Vec<(usize, Wanted)>,
    /// The files of the other directory, and the host certificate's names.
    pub others: Vec<Wanted>,
    /// A `reload` other than `auto`.
    pub forced: Option<&'static str>,
}

impl World {
    /// The world of a seed; with `forced` one whose master is told to reload at each step.
    pub fn random(seed: u64, versions: &[String], forced: bool) -> Self {
        let random = &mut Random::new(seed);
        let version = versions[random.below(versions.len())].clone();
        let master = forced || random.percent(80);
        let master_socket = master && (forced || random.percent(60));
        // Without a master and without a socket nobody can be told anything.
        let stats_socket = if master { random.percent(65).then(|| random.percent(85)) } else { Some(true) };
        let checked = match random.below(100) {
            0..=11 if master => Checked::Unaware,
            12..=19 if version.starts_with('3') && master_socket => Checked::Never,
            _ => Checked::Whole,
        };
        let demanding = checked == Checked::Unaware || random.percent(10);
        let mut lineages: Vec<(usize, Wanted)> = Vec::new();
        // Where names are shared little is done in memory.
        let is_peaceful = random.percent(35);
        let count = random.one(&[1, 2, 3, 3, 3, 4, 4, 5]);
        for number in 0..LINEAGES.len() {
            if random.below(LINEAGES.len() - number) < count - lineages.len() {
                let mut wanted = Wanted::random(random, demanding);
                if is_peaceful {
                    wanted.names = vec![NAMES[number % NAMES.len()]];
                }
                lineages.push((number, wanted));
            }
        }
        let others = (0..3).map(|_| Wanted::random(random, demanding)).collect();
        let host = if random.percent(40) {
            HostFile::Lineage(random.one(&lineages.iter().map(|l| l.0).collect::<Vec<_>>()))
        } else {
            HostFile::Foreign
        };
        let mut list = vec![(Listed::Other(random.below(2)), filters(random))];
        for _ in 0..random.below(3) {
            let line = (Listed::Lineage(lineages[random.below(lineages.len())].0), filters(random));
            list.insert(random.below(list.len() + 1), line);
        }
        let new = version.starts_with('3');
        let base = random.percent(50);
        let mut binds: Vec<Bind> = Vec::new();
        for number in 0..=random.below(3) {
            let frontend = if number == 0 { 0 } else { random.below(2) };
            binds.push(Bind {
                frontend,
                items: items(random, base),
                default_crt: (new && random.percent(20)).then(|| random.one(&[Item::Host, Item::Other])),
                strict: random.percent(20),
            });
        }
        binds.sort_by_key(|bind| bind.frontend);
        // One at least loads the directory, or nobody would need the program.
        if !binds.iter().flat_map(|bind| &bind.items).any(|item| matches!(item, Item::Sites(_))) {
            binds[0].items.push(Item::Sites(Spelling::Plain));
        }
        let forced = forced.then(|| if version.starts_with('2') { "pidfile" } else { "master" });
        let probe = random.percent(15);
        let told_spelling = forced.is_some() || random.percent(50);
        let user = match random.below(100) {
            0..=59 => User::Root,
            60..=84 => User::Dropped,
            _ => User::Own,
        };
        // Only root may.
        let chroot = user != User::Own && random.percent(30);
        let mut world = Self {
            seed,
            version,
            master,
            master_socket,
            stats_socket,
            told_spelling,
            checked,
            user,
            chroot,
            probe,
            demanding,
            host,
            binds,
            list,
            lineages,
            others,
            forced,
        };
        if !world.makes_sense() {
            world.host = HostFile::Foreign;
        }
        world
    }

    /// Whether only a reload shows some of what HAProxy refuses.
    pub fn refuses_late(&self) -> bool {
        self.checked != Checked::Whole
    }

    /// Somebody who configures the program so has a HAProxy that loads these files.
    pub fn makes_sense(&self) -> bool {
        let mut items = self.binds.iter().flat_map(|bind| &bind.items);
        items.any(|item| matches!(item, Item::Sites(_)))
            && (self.host == HostFile::Foreign || self.uses(Item::Host))
    }

    /// The `sites_dir` of the `[[haproxy]]` table: what HAProxy calls the directory, where somebody would have to say so.
    pub fn sites_dir(&self, folder: &str) -> Option<String> {
        let items = || self.binds.iter().flat_map(|bind| &bind.items);
        let plain = |item: &Item| matches!(item, Item::Sites(Spelling::Plain | Spelling::Slash));
        if !self.told_spelling || items().any(plain) {
            return None;
        }
        items().find_map(|item| match item {
            Item::Sites(Spelling::Dot) => Some(format!("{folder}/./sites")),
            Item::Sites(Spelling::Link) => Some(format!("{folder}/link")),
            // A crt-base that ends with a slash is put before another one.
            Item::Sites(Spelling::Twice | Spelling::BaseSlash) => Some(format!("{folder}//sites")),
            _ => None,
        })
    }

    /// What must not be deleted without haproxy.cfg being changed too.
    pub fn listed(&self, lineage: usize) -> bool {
        self.uses(Item::List) && self.list.iter().any(|(listed, _)| *listed == Listed::Lineage(lineage))
    }

    /// Whether a bind line has this.
    pub fn uses(&self, item: Item) -> bool {
        self.binds.iter().any(|bind| bind.items.contains(&item) || bind.default_crt == Some(item))
    }

    /// The lines of the crt-list, without those that were dropped.
    pub fn list_text(&self, places: &Places, dropped: &[usize]) -> String {
        let mut text = String::new();
        for (listed, filters) in &self.list {
            let file = match listed {
                Listed::Lineage(number) if dropped.contains(number) => continue,
                Listed::Lineage(number) => places.sites().join(format!("{}.pem", LINEAGES[*number])),
                Listed::Other(number) => places.other(*number),
            };
            writeln!(text, "{} {}", file.display(), filters.join(" ")).unwrap();
        }
        text
    }

    /// haproxy.cfg, with the bind lines on these ports.
    pub fn config(&self, places: &Places, ports: &[u16], stats: Option<&Path>) -> String {
        let mut text =
            String::from("global\n  maxconn 100\n  nbthread 1\n  tune.ssl.default-dh-param 2048\n");
        if self.version != "2.2" {
            text.push_str(WITHOUT_AUTHORITIES);
        }
        if let Some(stats) = stats {
            let rights = match self.user {
                User::Dropped => format!(" mode 660 user {} group {}", NOBODY.0.0, NOBODY.0.1),
                User::Root | User::Own => String::new(),
            };
            writeln!(text, "  stats socket {} level admin{rights}", stats.display()).unwrap();
        }
        if self.user == User::Dropped {
            writeln!(text, "  user {}\n  group {}", NOBODY.0.0, NOBODY.0.1).unwrap();
        }
        if self.chroot {
            writeln!(text, "  chroot {}", places.empty().display()).unwrap();
        }
        let spelled = |spelling| self.uses(Item::Sites(spelling));
        let folder = places.folder.display();
        if spelled(Spelling::BaseSlash) {
            writeln!(text, "  crt-base {folder}/").unwrap();
        } else if spelled(Spelling::Base) {
            writeln!(text, "  crt-base {folder}").unwrap();
        }
        text.push_str(
            "defaults\n  mode http\n  timeout connect 10s\n  timeout client 10s\n  timeout server 10s\n",
        );
        let mut frontend = None;
        for (bind, port) in self.binds.iter().zip(ports) {
            if frontend != Some(bind.frontend) {
                frontend = Some(bind.frontend);
                writeln!(text, "frontend f{}\n  http-request return status 200", bind.frontend).unwrap();
            }
            write!(text, "  bind 127.0.0.1:{port} ssl").unwrap();
            for item in &bind.items {
                let (word, path) = match item {
                    Item::Sites(Spelling::Plain) => ("crt", format!("{folder}/sites")),
                    Item::Sites(Spelling::Slash) => ("crt", format!("{folder}/sites/")),
                    Item::Sites(Spelling::Dot) => ("crt", format!("{folder}/./sites")),
                    Item::Sites(Spelling::Twice) => ("crt", format!("{folder}//sites")),
                    Item::Sites(Spelling::Link) => ("crt", format!("{folder}/link")),
                    Item::Sites(Spelling::Base | Spelling::BaseSlash) => ("crt", "sites".to_owned()),
                    Item::Other => ("crt", format!("{folder}/other")),
                    Item::Host => ("crt", format!("{folder}/host.pem")),
                    Item::List => ("crt-list", format!("{folder}/list.txt")),
                };
                write!(text, " {word} {path}").unwrap();
            }
            match bind.default_crt {
                Some(Item::Host) => write!(text, " default-crt {folder}/host.pem").unwrap(),
                Some(_) => write!(text, " default-crt {}", places.other(0).display()).unwrap(),
                None => {}
            }
            writeln!(text, "{}", if bind.strict { " strict-sni" } else { "" }).unwrap();
        }
        text
    }
}

/// Where a world's files are.
#[derive(Debug, Clone)]
pub struct Places {
    /// All but certbot's.
    pub folder: PathBuf,
}

impl Places {
    /// The sites directory.
    pub fn sites(&self) -> PathBuf {
        self.folder.join("sites")
    }

    /// Where HAProxy's user may write: pidfile and sockets.
    pub fn run(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// Where HAProxy locks itself up.
    pub fn empty(&self) -> PathBuf {
        self.folder.join("empty")
    }

    /// A file of the other directory.
    pub fn other(&self, number: usize) -> PathBuf {
        self.folder.join(format!("other/{number}.pem"))
    }

    /// The host certificate.
    pub fn host(&self) -> PathBuf {
        self.folder.join("host.pem")
    }
}

fn filters(random: &mut Random) -> Vec<&'static str> {
    match random.below(4) {
        0 | 1 => Vec::new(),
        2 => random.some(&NAMES),
        _ => vec!["*.d.test", "!x.d.test"],
    }
}

fn items(random: &mut Random, base: bool) -> Vec<Item> {
    let spelling = |random: &mut Random| {
        let all = [
            Spelling::Plain,
            Spelling::Plain,
            Spelling::Plain,
            Spelling::Plain,
            Spelling::Slash,
            Spelling::Dot,
            Spelling::Twice,
            Spelling::Link,
            if base { Spelling::Base } else { Spelling::BaseSlash },
        ];
        Item::Sites(random.one(&all))
    };
    let mut items = Vec::new();
    if random.percent(90) {
        items.push(spelling(random));
    }
    if random.percent(15) {
        items.push(spelling(random));
    }
    if random.percent(30) {
        items.insert(random.below(items.len() + 1), Item::Other);
    }
    if random.percent(20) {
        items.insert(random.below(items.len() + 1), Item::List);
    }
    if random.percent(35) {
        items.insert(0, Item::Host);
    }
    if items.is_empty() {
        items.push(Item::Host);
    }
    items
}

/// Ways to leave something out of a world, for [`super::shrink`]: each gives the next smaller one, while there is one.
#[allow(clippy::type_complexity, reason = "a list of functions")]
pub const SIMPLER: [fn(&World) -> Vec<World>; 4] = [
    |world| {
        let without = |number| {
            let mut world = world.clone();
            world.binds.remove(number);
            world
        };
        let worlds = (0..world.binds.len()).map(without);
        worlds.filter(|world| !world.binds.is_empty()).collect()
    },
    |world| {
        let host = |number| world.host == HostFile::Lineage(number) || world.listed(number);
        let all = 0..world.lineages.len();
        let spare = all.filter(|index| world.lineages.len() > 1 && !host(world.lineages[*index].0));
        let without = |index| {
            let mut world = world.clone();
            world.lineages.remove(index);
            world
        };
        spare.map(without).collect()
    },
    |world| {
        let mut worlds = Vec::new();
        for bind in 0..world.binds.len() {
            for item in 0..world.binds[bind].items.len() {
                let mut world = world.clone();
                world.binds[bind].items.remove(item);
                if !world.binds[bind].items.is_empty() {
                    worlds.push(world);
                }
            }
        }
        worlds
    },
    |world| {
        let mut worlds = Vec::new();
        if world.probe {
            worlds.push(World { probe: false, ..world.clone() });
        }
        if world.chroot {
            worlds.push(World { chroot: false, ..world.clone() });
        }
        if world.user != User::Root {
            worlds.push(World { user: User::Root, ..world.clone() });
        }
        for bind in 0..world.binds.len() {
            for (strict, default) in [(true, false), (false, true)] {
                let mut world = world.clone();
                let bind = &mut world.binds[bind];
                if (strict && bind.strict) || (default && bind.default_crt.is_some()) {
                    bind.strict &= !strict;
                    bind.default_crt = bind.default_crt.filter(|_| !default);
                    worlds.push(world);
                }
            }
        }
        worlds
    },
];
