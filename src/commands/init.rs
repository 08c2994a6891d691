//! `init`: makes a host ready, and is safe to repeat.
//!
//! [`look`] gathers facts, [`plan`] decides (pure), [`carry_out`] does: what is there already is only said.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::assemble::patience;
use crate::certbot::cli_ini::{self, SavedHook};
use crate::certbot::version::{self, Version};
use crate::certbot::{CertbotTree, certbot_dir};
use crate::cli::{Global, Init};
use crate::config::fleet::CACHES;
use crate::config::{DEFAULT_FILE, OWN_DIR, Settings};
use crate::fleet::cache::CacheFolder;
use crate::host_setup::adopt::{self, Proposal};
use crate::host_setup::drop_in::{self, OwnUnit};
use crate::host_setup::fleet_part::{self, FleetFound, FleetPart};
use crate::host_setup::placeholder::placeholder;
use crate::output::Exit;
use crate::output::human::{Line, Tone};
use crate::output::terminal::Terminal;
use crate::plan::client::Client;
use crate::serving::loads::At;
use crate::sites::dir::SitesDir;
use crate::sys::escape::{escaped, escaped_path, shell_word};
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::program::Program;
use crate::sys::system::System;

/// The name of the link in certbot's directory of hooks.
pub const HOOK_NAME: &str = "haproxy-certs";
/// The first certbot that runs the hooks of `renewal-hooks/post` on a first issue, too.
const POST_ON_FIRST_ISSUE: Version = [3, 2, 0];
/// The configuration that `--write-config` writes: all comments.
const CONFIG: &str = include_str!("../../packaging/haproxy-certs.toml");
/// How long another program may take to say its version.
const SHORTLY: Duration = Duration::from_secs(30);

/// Runs `init`.
///
/// # Errors
/// The settings can't be used, or something can't be made.
pub fn run(terminal: &Terminal, global: &Global, args: &Init) -> Result<Exit, Failure> {
    let system = System::host();
    let (settings, plan) = if args.write_config {
        // By no file: this one is only to be made, or mended by hand.
        let settings = global
            .settings(None)
            .or_else(|_| Settings::without_file(global.config_file(), &global.overrides(None)))
            .map_err(|why| Failure::config(why.to_string()))?;
        let file = global.config_file().unwrap_or(Path::new(DEFAULT_FILE));
        let plan = plan_config(file, adopt::look(&settings, &system, global.sites_dir.is_some()).as_ref());
        (settings, plan)
    } else {
        let settings = global.settings(None)?;
        let is_told = global.sites_dir.is_some() || settings.file.as_ref().is_some_and(|file| file.exists());
        let proposal = adopt::look(&settings, &system, false).filter(|_| !is_told);
        let plan = match proposal {
            Some(proposal) => plan_adoption(&proposal),
            None => plan(&settings, &look(&settings, &system, &Places::host()?, args.hook), args.hook),
        };
        (settings, plan)
    };
    if args.dry_run {
        terminal.print_lines(dry_lines(&plan));
    } else {
        carry_out(&settings, &system, &plan, &mut |line| terminal.print_lines(vec![line]))?;
    }
    terminal.print_advice(&settings, left_lines(&plan));
    if let Some(path) = global.config_file().filter(|path| *path != Path::new(DEFAULT_FILE)) {
        let path = escaped_path(path);
        terminal.complain(&format!("note: certbot's hook and the timer read {DEFAULT_FILE}, not {path}"));
    }
    Ok(if plan.is_blocked() { Exit::Partly } else { Exit::Fine })
}

/// Where things are that `init` looks at, besides what the settings name.
#[derive(Debug, Clone)]
pub struct Places {
    /// Where systemd's units may be installed.
    pub units: Vec<PathBuf>,
    /// The administrator's units and drop-ins.
    pub drop_ins: PathBuf,
    /// The program that the hook is to run: this one.
    pub program: PathBuf,
}

impl Places {
    /// This host's.
    ///
    /// # Errors
    /// It can't be told which program is running.
    pub fn host() -> Result<Self, Failure> {
        let program = std::env::current_exe()
            .map_err(|e| Failure::io("find the running program,", Path::new("/proc/self/exe"), &e))?;
        Ok(Self {
            units: ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"]
                .map(PathBuf::from)
                .into(),
            drop_ins: "/etc/systemd/system".into(),
            program,
        })
    }
}

/// What is found in the place of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostFile {
    /// Nothing.
    Absent,
    /// Nothing, and the place is on another file system than the sites directory, as beside one that is mounted: none can
    /// be put there.
    OutOfReach,
    /// A file, or a link to one.
    File,
    /// A link that leads nowhere: HAProxy can't load it.
    Dangling,
    /// A directory: HAProxy would load what is in it.
    Directory,
    /// Anything else.
    Other,
}

/// What is found in the place of the hook's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// Nothing.
    Absent,
    /// A link to this program.
    Ours,
    /// Anything else.
    Other,
}

/// A systemd unit of ours that is installed.
#[derive(Debug, Clone)]
pub struct FoundUnit {
    /// Which.
    pub unit: OwnUnit,
    /// What its drop-in holds, where there is one.
    pub drop_in: Option<String>,
    /// Where that drop-in is, or would be.
    pub file: PathBuf,
}

/// The facts that the plan is made from.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug, Clone)]
pub struct Found {
    /// Whether the sites directory is there.
    pub sites_dir: bool,
    /// Whether our own directory is in it, without which haproxy-certs.service does nothing.
    pub own_dir: bool,
    /// What is in the place of the host certificate.
    pub host_file: HostFile,
    /// certbot's directory of hooks, and what it has under our name; `None`: the tree isn't certbot's own.
    pub hook: Option<(PathBuf, Hook)>,
    /// certbot's version, where it could be asked.
    pub certbot: Option<Version>,
    /// The hooks in certbot's own files that name this program.
    pub saved_hooks: Vec<SavedHook>,
    /// The text of certbot's `cli.ini`.
    pub cli_ini: String,
    /// Whether there is a lineage.
    pub any_lineage: bool,
    /// Those of our systemd units that are installed and may run here.
    pub units: Vec<FoundUnit>,
    /// Whether HAProxy's configuration names the sites directory; `None`: it can't be read.
    pub configured: Option<bool>,
    /// The program that the hook is to run.
    pub program: PathBuf,
    /// What there is of this host's part in a fleet.
    pub fleet: FleetFound,
}

/// One thing that a ready host has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The configuration file.
    Config {
        /// Where it is.
        file: PathBuf,
        /// What it holds.
        text: String,
        /// What HAProxy loads already, where the settings go by that.
        fact: Option<String>,
    },
    /// The sites directory, with our own directory in it.
    SitesDir(PathBuf),
    /// Our own directory, in a sites directory that was there before.
    OwnDir(PathBuf),
    /// A certificate in the host certificate's place.
    HostFile(PathBuf),
    /// The link that makes certbot call this program.
    Hook {
        /// Where it is.
        link: PathBuf,
        /// What it leads to.
        program: PathBuf,
    },
    /// A fleet's cache in another place than the default one, where the units could not make it.
    Cache(PathBuf),
    /// What tells a hardened unit of ours of other directories than the default ones.
    DropIn {
        /// The unit.
        unit: OwnUnit,
        /// Where it is.
        file: PathBuf,
        /// What it holds.
        text: String,
    },
}

/// What becomes of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is there.
    There,
    /// It is to be made.
    Make,
    /// Something else is in its place, and stays.
    Blocked(&'static str),
}

/// What is to be made, and what is left to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a plan is only a value: it does nothing until it is carried out"]
pub struct Preparation {
    /// The items in the order in which they are made.
    pub items: Vec<(Item, Fate)>,
    /// What is left to do.
    pub left: Vec<Left>,
}

/// Something that is left to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// What, and why.
    pub text: String,
    /// The commands that do it, to be pasted.
    pub commands: Vec<String>,
}

impl Left {
    fn new(text: impl Into<String>, commands: &[&str]) -> Self {
        Self { text: text.into(), commands: commands.iter().map(|&command| command.to_owned()).collect() }
    }
}

/// Gathers the facts; changes nothing.
#[must_use]
pub fn look(settings: &Settings, system: &System, places: &Places, hook: bool) -> Found {
    let folder = certbot_dir(settings).filter(|_| Client::of(settings) == Client::Certbot);
    let link = folder.map(|folder| folder.join("renewal-hooks/post").join(HOOK_NAME));
    let fleet = fleet_part::look(settings, system);
    let units = OwnUnit::of(fleet.part, true);
    let installed =
        units.into_iter().filter(|unit| places.units.iter().any(|folder| folder.join(unit.name()).exists()));
    Found {
        sites_dir: settings.sites_dir.is_dir(),
        own_dir: settings.sites_dir.join(OWN_DIR).is_dir(),
        host_file: match host_file_at(&settings.host_file) {
            HostFile::Absent if is_out_of_reach(settings) => HostFile::OutOfReach,
            found => found,
        },
        hook: link.map(|link| {
            let found = hook_at(&link, &places.program);
            (link, found)
        }),
        certbot: system
            .program(&settings.certbot.binary)
            .filter(|_| hook)
            .and_then(|program| version::ask(&program)),
        saved_hooks: folder.map(cli_ini::saved_hooks).unwrap_or_default(),
        cli_ini: folder
            .and_then(|folder| fs::read_to_string(folder.join("cli.ini")).ok())
            .unwrap_or_default(),
        any_lineage: CertbotTree::of(settings).discover().is_ok_and(|found| !found.lineages.is_empty()),
        units: installed.map(|unit| found_unit(unit, &places.drop_ins)).collect(),
        configured: adopt::loads_sites_dir(settings, system),
        program: places.program.clone(),
        fleet,
    }
}

fn found_unit(unit: OwnUnit, drop_ins: &Path) -> FoundUnit {
    let file = drop_ins.join(format!("{}.d/paths.conf", unit.name()));
    FoundUnit { unit, drop_in: fs::read_to_string(&file).ok(), file }
}

fn host_file_at(path: &Path) -> HostFile {
    match (fs::symlink_metadata(path), fs::metadata(path)) {
        (Err(_), _) => HostFile::Absent,
        (Ok(_), Err(_)) => HostFile::Dangling,
        (_, Ok(found)) if found.is_file() => HostFile::File,
        (_, Ok(found)) if found.is_dir() => HostFile::Directory,
        _ => HostFile::Other,
    }
}

/// Whether the host certificate's place is on another file system than the sites directory, and no lineage has to be written
/// there.
fn is_out_of_reach(settings: &Settings) -> bool {
    let device = |folder: &Path| fs::metadata(folder).ok().map(|found| found.dev());
    let places = settings.host_file.parent().and_then(device).zip(device(&settings.sites_dir));
    settings.host_lineage.is_none() && places.is_some_and(|(host, sites)| host != sites)
}

fn hook_at(link: &Path, program: &Path) -> Hook {
    match fs::symlink_metadata(link) {
        Err(_) => Hook::Absent,
        Ok(found) if found.is_symlink() && leads_to(link, program) => Hook::Ours,
        Ok(_) => Hook::Other,
    }
}

fn leads_to(link: &Path, program: &Path) -> bool {
    fs::read_link(link).is_ok_and(|target| target == program)
        || fs::canonicalize(link).is_ok_and(|target| fs::canonicalize(program).is_ok_and(|own| own == target))
}

impl Found {
    /// Whether this host only publishes: no HAProxy's configuration was found either.
    fn only_publishes(&self) -> bool {
        self.fleet.part == FleetPart::OnlyPublisher && self.configured.is_none()
    }

    /// Whether its certificates are another host's, which has certbot.
    fn is_node(&self) -> bool {
        self.fleet.part == FleetPart::Node
    }

    /// Whether certbot's cli.ini calls this program.
    fn in_cli_ini(&self) -> bool {
        self.saved_hooks.iter().any(|hook| hook.file.ends_with("cli.ini"))
    }
}

/// Decides what is to be made. `hook`: the link among certbot's hooks is wanted.
pub fn plan(settings: &Settings, found: &Found, hook: bool) -> Preparation {
    let make_unless = |there: bool| if there { Fate::There } else { Fate::Make };
    let mut items = Vec::new();
    // Where nobody loads anything, what is made for HAProxy would begin to be looked after.
    let serves = !found.only_publishes();
    if serves {
        items.push((Item::SitesDir(settings.sites_dir.clone()), make_unless(found.sites_dir)));
    }
    if serves && found.sites_dir && !found.own_dir {
        items.push((Item::OwnDir(settings.sites_dir.join(OWN_DIR)), Fate::Make));
    }
    let host_file = match found.host_file {
        HostFile::Absent | HostFile::OutOfReach => Fate::Make,
        HostFile::File => Fate::There,
        HostFile::Dangling => Fate::Blocked("a link that leads nowhere has this name; HAProxy can't load it"),
        HostFile::Directory => Fate::Blocked("a directory has this name"),
        HostFile::Other => Fate::Blocked("something that is no file has this name"),
    };
    if serves && found.host_file != HostFile::OutOfReach {
        items.push((Item::HostFile(settings.host_file.clone()), host_file));
    }
    let hooks = found.hook.as_ref().filter(|_| !found.is_node());
    if let Some((link, there)) = hooks.filter(|(_, there)| hook || *there == Hook::Ours) {
        let fate = match there {
            Hook::Absent => Fate::Make,
            Hook::Ours => Fate::There,
            Hook::Other => Fate::Blocked("something else has this name"),
        };
        items.push((Item::Hook { link: link.clone(), program: found.program.clone() }, fate));
    }
    let units = found.units.iter().filter(|found| serves || !found.unit.serves());
    let told: Vec<(Item, Fate)> = units.filter_map(|found| plan_drop_in(settings, found)).collect();
    if let Some(fleet) = settings.fleet.as_ref().filter(|fleet| !fleet.cache.starts_with(CACHES))
        && told.iter().any(|(item, _)| matches!(item, Item::DropIn { unit, .. } if unit.writes()))
        && found.fleet.part != FleetPart::Unsaid
    {
        items.push((Item::Cache(fleet.cache.clone()), make_unless(found.fleet.has_cache)));
    }
    items.extend(told);
    Preparation { items, left: left_to_do(settings, found, hook) }
}

/// What tells a unit of these settings, where it needs that or was told of others.
fn plan_drop_in(settings: &Settings, found: &FoundUnit) -> Option<(Item, Fate)> {
    let FoundUnit { unit, drop_in, file } = found;
    let is_ours = drop_in.as_ref().is_some_and(|there| there.starts_with(drop_in::MARK));
    if !drop_in::is_needed(*unit, settings) && !is_ours {
        return None;
    }
    let (text, fate) = match (drop_in::text(*unit, settings), drop_in) {
        (None, _) => (String::new(), Fate::Blocked("systemd can't express a directory with this name")),
        (Some(text), Some(there)) if *there == text => (text, Fate::There),
        (Some(text), Some(_)) if !is_ours => (text, Fate::Blocked("it wasn't written by init")),
        (Some(text), _) => (text, Fate::Make),
    };
    Some((Item::DropIn { unit: *unit, file: file.clone(), text }, fate))
}

/// What `--write-config` makes: a file to edit, before anything is made by it; with a proposal, by what HAProxy loads
/// already. One that was edited stays.
pub fn plan_config(file: &Path, proposal: Option<&Proposal>) -> Preparation {
    let elsewhere = proposal.filter(|proposal| proposal.is_elsewhere);
    let proposal = proposal.filter(|proposal| !proposal.is_elsewhere);
    let text = proposal.map_or_else(|| CONFIG.to_owned(), |proposal| proposal.write_into(CONFIG));
    let is_unedited = fs::read_to_string(file).is_ok_and(|there| there == CONFIG && text != CONFIG);
    let fate = if is_unedited || fs::symlink_metadata(file).is_err() { Fate::Make } else { Fate::There };
    let mut left = Vec::new();
    if let (Some(proposal), Fate::There) = (proposal, &fate) {
        let lines = settings_in(&proposal.write_into(CONFIG));
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        left.push(Left::new(
            format!("{}; {} was edited: these settings would fit", proposal.fact(), escaped_path(file)),
            &lines,
        ));
    }
    left.extend(proposal.and_then(others_left));
    left.extend(proposal.and_then(deaf));
    left.extend(proposal.and_then(one_by_one_left));
    left.extend(elsewhere.map(mounted));
    left.push(Left::new(
        "look through it, see what a run would do, then make this host ready",
        &["haproxy-certs assemble --dry-run -v", "haproxy-certs init --hook"],
    ));
    let fact = proposal.map(Proposal::fact);
    Preparation { items: vec![(Item::Config { file: file.to_owned(), text, fact }, fate)], left }
}

/// What is proposed on a host without a configuration file whose HAProxy loads a directory already: nothing is made before
/// somebody has said which directory is meant.
pub fn plan_adoption(proposal: &Proposal) -> Preparation {
    if proposal.is_elsewhere {
        let next = Left::new("write a file to set that in", &["haproxy-certs init --write-config"]);
        return Preparation { items: Vec::new(), left: vec![mounted(proposal), next] };
    }
    let next = Left::new(
        format!("{}; let haproxy-certs look after it", proposal.fact()),
        &[
            "haproxy-certs init --write-config",
            "haproxy-certs assemble --dry-run -v",
            "haproxy-certs init --hook",
        ],
    );
    Preparation {
        items: Vec::new(),
        left: [others_left(proposal), deaf(proposal), one_by_one_left(proposal), Some(next)]
            .into_iter()
            .flatten()
            .collect(),
    }
}

/// What is to be said of a HAProxy whose paths aren't this host's: only the operator knows what is mounted there.
fn mounted(proposal: &Proposal) -> Left {
    let text = format!(
        "{}; set sites_dir to the directory of this host that is mounted there, and this; CONTAINERS AND CHROOTS in \
         haproxy-certs(7) has the other settings",
        proposal.fact()
    );
    Left::new(text, &["[[haproxy]]", &format!("sites_dir = {}", adopt::quoted(&proposal.sites_dir))])
}

/// What is to be said of other directories than the proposed one: a run looks after one of them.
fn others_left(proposal: &Proposal) -> Option<Left> {
    let named: Vec<String> =
        proposal.others.iter().map(|(directory, at)| format!("{} ({at})", escaped(directory))).collect();
    let text = format!(
        "HAProxy also loads {}: one directory is looked after; to choose another one than {}",
        named.join(", "),
        escaped(&proposal.sites_dir)
    );
    let command = |(directory, _): &(String, At)| {
        format!("haproxy-certs --sites-dir {} init --write-config", shell_word(OsStr::new(directory)))
    };
    let commands: Vec<String> = proposal.others.iter().map(command).collect();
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    (!commands.is_empty()).then(|| Left::new(text, &commands))
}

/// What is to be said of a HAProxy that nothing can make reload.
fn deaf(proposal: &Proposal) -> Option<Left> {
    let lines: Vec<&str> = proposal.deaf.iter().map(String::as_str).collect();
    let text = "nothing can make HAProxy reload; start it like this, and say so in [[haproxy]]";
    (!lines.is_empty()).then(|| Left::new(text, &lines))
}

/// What is to be said where lines name the directory's files one by one: no list is generated.
fn one_by_one_left(proposal: &Proposal) -> Option<Left> {
    let example = proposal.one_by_one.as_ref()?;
    let text = format!(
        "a new certificate needs a line of its own, else it is deployed and not served (not-listed, says haproxy-certs \
         status): for example.org {}",
        example.advice("example.org.pem".as_ref())
    );
    Some(Left::new(text, &[]))
}

/// The lines of a configuration that are no comments.
fn settings_in(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// What the operator has to do.
fn left_to_do(settings: &Settings, found: &Found, hook: bool) -> Vec<Left> {
    let mut left = Vec::new();
    if found.configured != Some(true) && !found.only_publishes() {
        let sites_dir = escaped_path(&settings.sites_dir);
        left.push(Left::new(
            format!("let HAProxy load {sites_dir}; this prints a configuration that does"),
            &["haproxy-certs haproxy-config"],
        ));
    }
    if found.is_node() {
        // What there is to deploy is said by the fleet.
    } else if !found.any_lineage {
        match Client::of(settings) {
            Client::Certbot => {
                let command = "haproxy-certs issue -d example.org,www.example.org";
                left.push(Left::new("issue the first certificate", &[command]));
            }
            client => left.push(Left::new(format!("issue the first certificate{}", client.by("")), &[])),
        }
    } else if !found.own_dir && !found.only_publishes() {
        left.push(Left::new(
            "deploy the certificates that are there; the first command only says what would be done",
            &["haproxy-certs assemble --dry-run -v", "haproxy-certs assemble"],
        ));
    }
    match &found.hook {
        _ if found.is_node() => {}
        None if hook => left.push(Left::new(
            format!(
                "no hook: {} is not certbot's own; the timer or another caller has to run \
                 haproxy-certs assemble",
                escaped_path(&settings.live_dir)
            ),
            &[],
        )),
        Some((_, Hook::Absent)) if !hook && !found.in_cli_ini() => {
            left.push(Left::new(
                format!("let certbot's renewals be {} at once", found.fleet.part.deeds()),
                &["haproxy-certs init --hook"],
            ));
        }
        // What has the hook's name and isn't ours does something else.
        Some((link, Hook::Absent | Hook::Ours)) if hook && !found.in_cli_ini() => {
            left.extend(first_issue(link, found));
        }
        _ => {}
    }
    left.extend(bare_hooks(&found.saved_hooks));
    let of_fleet = fleet_part::left_to_do(settings.fleet.as_ref(), &found.fleet);
    left.extend(of_fleet.into_iter().map(|(text, commands)| Left { text, commands }));
    let (unit, daily) = if found.only_publishes() {
        (OwnUnit::Publish, "haproxy-certs -q fleet publish")
    } else {
        (OwnUnit::Assemble, "haproxy-certs -q assemble")
    };
    if !found.units.iter().any(|found| found.unit == unit) && !found.is_node() {
        left.push(Left::new(
            format!("no {} is installed: run this daily, from cron; it says only what failed", unit.name()),
            &[daily],
        ));
    }
    left
}

/// What is to be said where certbot doesn't run the hook on a first issue.
fn first_issue(link: &Path, found: &Found) -> Option<Left> {
    let version = match found.certbot {
        Some(version) if version >= POST_ON_FIRST_ISSUE => return None,
        Some([major, minor, patch]) => format!("certbot {major}.{minor}.{patch}"),
        None => "a certbot before 3.2.0".to_owned(),
    };
    let cli_ini = link.ancestors().nth(3)?.join("cli.ini");
    Some(Left::new(
        format!(
            "{version} runs this hook when it renews, not when it issues; haproxy-certs issue needs no hook, but \
             certbot certonly needs a line in {}",
            escaped_path(&cli_ini)
        ),
        &[&cli_ini::add_beside("post", link, &cli_ini, &found.cli_ini)],
    ))
}

/// What is to be said of hooks that stop certbot, or make it complain, once this program is removed.
fn bare_hooks(hooks: &[SavedHook]) -> Option<Left> {
    let command = cli_ini::mend(hooks)?;
    let bare: Vec<String> = hooks
        .iter()
        .filter(|hook| !hook.outlives_us())
        .map(|hook| format!("{} line {}", escaped_path(&hook.file), hook.line))
        .collect();
    Some(Left::new(
        format!(
            "certbot issues and renews nothing while a hook of its cli.ini isn't there, as when haproxy-certs is removed; \
             let the hook look first: {}",
            bare.join(", ")
        ),
        &[&command],
    ))
}

/// Makes what is to be made, and says of each item what became of it.
///
/// # Errors
/// One of them can't be made; those before it are.
pub fn carry_out(
    settings: &Settings,
    system: &System,
    plan: &Preparation,
    said: &mut dyn FnMut(Line),
) -> Result<(), Failure> {
    for (item, fate) in &plan.items {
        if *fate == Fate::Make {
            make(settings, system, item)?;
        }
        said(line(item, fate, false));
        settings_shown(item, fate).into_iter().for_each(&mut *said);
    }
    Ok(())
}

fn make(settings: &Settings, system: &System, item: &Item) -> Result<(), Failure> {
    match item {
        Item::Config { file, text, .. } => {
            write_whole(file, text).map_err(|e| Failure::io("write", file, &e))
        }
        Item::SitesDir(_) | Item::OwnDir(_) => SitesDir::lock(settings, system, patience(settings)).map(drop),
        Item::HostFile(_) => {
            let pem = placeholder()?;
            let mut sites = SitesDir::lock(settings, system, patience(settings))?;
            sites.put_placeholder(settings, system, &pem).map(drop)
        }
        Item::Hook { link, program } => {
            make_folder_of(link)?;
            symlink(program, link).map_err(|e| Failure::io("link", link, &e))
        }
        Item::Cache(path) => CacheFolder::lock(path).map(drop),
        Item::DropIn { file, text, .. } => {
            make_folder_of(file)?;
            write_whole(file, text).map_err(|e| Failure::io("write", file, &e))?;
            reload_units(system)
        }
    }
}

fn make_folder_of(file: &Path) -> Result<(), Failure> {
    let Some(folder) = file.parent() else { return Ok(()) };
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
    made.map_err(|e| Failure::io("create", folder, &e))
}

/// Writes a small file that others read so that it never is half there.
fn write_whole(file: &Path, text: &str) -> io::Result<()> {
    let mut unnamed = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(file.parent().unwrap_or(Path::new("/")))?;
    unnamed.write_all(text.as_bytes())?;
    unnamed.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    unnamed.as_file().sync_all()?;
    unnamed.persist(file).map(drop).map_err(|e| e.error)
}

/// Lets systemd read its units again.
fn reload_units(system: &System) -> Result<(), Failure> {
    let Some(systemctl) = system.program("systemctl").filter(|_| system.has_systemd()) else { return Ok(()) };
    let run = Program::new(&systemctl).arg("daemon-reload").run(Instant::now() + SHORTLY);
    match run {
        Ok(done) if done.succeeded() => Ok(()),
        Ok(done) => Err(Failure::new(
            FailureKind::Io,
            format!("systemctl daemon-reload {}; run it again", done.end()),
        )),
        Err(e) => Err(Failure::io("run", &systemctl, &e)),
    }
}

/// What is said of a plan that isn't carried out.
#[must_use]
pub fn dry_lines(plan: &Preparation) -> Vec<Line> {
    let lines = plan
        .items
        .iter()
        .flat_map(|(item, fate)| std::iter::once(line(item, fate, true)).chain(settings_shown(item, fate)));
    lines.collect()
}

/// The settings that are written into a configuration file, one a line.
fn settings_shown(item: &Item, fate: &Fate) -> Vec<Line> {
    match (item, fate) {
        (Item::Config { text, .. }, Fate::Make) => settings_in(text)
            .into_iter()
            .map(|text| Line { tone: Tone::Plain, text: format!("           {}", escaped(&text)) })
            .collect(),
        _ => Vec::new(),
    }
}

/// What is left to do, as lines.
#[must_use]
pub fn left_lines(plan: &Preparation) -> Vec<Line> {
    let lines = plan.left.iter().flat_map(|left| {
        let command = |command: &String| Line { tone: Tone::Plain, text: format!("       -> {command}") };
        let text = Line { tone: Tone::Wary, text: format!("left to do {}", left.text) };
        std::iter::once(text).chain(left.commands.iter().map(command))
    });
    lines.collect()
}

impl Preparation {
    /// Whether something else is in the way of an item.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.items.iter().any(|(_, fate)| matches!(fate, Fate::Blocked(_)))
    }
}

fn line(item: &Item, fate: &Fate, dry_run: bool) -> Line {
    let (tone, word) = match fate {
        Fate::There => (Tone::Plain, "there"),
        Fate::Make if dry_run => (Tone::Good, "to make"),
        Fate::Make => (Tone::Good, "made"),
        Fate::Blocked(_) => (Tone::Bad, "left alone"),
    };
    let made = *fate == Fate::Make;
    let what = match item {
        Item::Config { file, fact: Some(fact), .. } if made => {
            format!("{} (the settings; {fact})", escaped_path(file))
        }
        Item::Config { file, .. } if made => {
            format!("{} (the settings; all of them are comments)", escaped_path(file))
        }
        Item::Config { file, .. } => format!("{} (the settings)", escaped_path(file)),
        Item::SitesDir(path) => format!("{} (the sites directory)", escaped_path(path)),
        Item::OwnDir(path) => {
            format!("{} (what haproxy-certs remembers; from now on its timer deploys)", escaped_path(path))
        }
        Item::HostFile(path) if made => {
            format!("{} (the host certificate: a self-signed placeholder)", escaped_path(path))
        }
        Item::HostFile(path) => format!("{} (the host certificate)", escaped_path(path)),
        Item::Hook { link, program } => {
            format!("{} (certbot's hook, a link to {})", escaped_path(link), escaped_path(program))
        }
        Item::Cache(path) => format!("{} (the fleet's cache)", escaped_path(path)),
        Item::DropIn { unit, file, .. } => {
            format!("{} (tells {} of these directories)", escaped_path(file), unit.name())
        }
    };
    let why = match fate {
        Fate::Blocked(why) => format!(": {}", escaped(why)),
        _ => String::new(),
    };
    Line { tone, text: format!("{word:<10} {what}{why}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    fn settings(text: &str) -> Settings {
        Settings::parse(text, &Overrides::default()).unwrap()
    }

    fn unit(unit: OwnUnit) -> FoundUnit {
        let file = format!("/etc/systemd/system/{}.d/paths.conf", unit.name()).into();
        FoundUnit { unit, drop_in: None, file }
    }

    fn drop_in(settings: &Settings) -> Option<String> {
        drop_in::text(OwnUnit::Assemble, settings)
    }

    fn nothing() -> Found {
        Found {
            sites_dir: false,
            own_dir: false,
            host_file: HostFile::Absent,
            hook: Some(("/etc/letsencrypt/renewal-hooks/post/haproxy-certs".into(), Hook::Absent)),
            certbot: Some([4, 0, 0]),
            saved_hooks: Vec::new(),
            cli_ini: String::new(),
            any_lineage: false,
            units: vec![unit(OwnUnit::Assemble)],
            configured: None,
            program: "/usr/bin/haproxy-certs".into(),
            fleet: FleetFound::default(),
        }
    }

    fn everything() -> Found {
        let (link, _) = nothing().hook.unwrap();
        Found {
            sites_dir: true,
            own_dir: true,
            host_file: HostFile::File,
            hook: Some((link, Hook::Ours)),
            any_lineage: true,
            configured: Some(true),
            ..nothing()
        }
    }

    /// All that is left to do, with the commands.
    fn left(plan: &Preparation) -> String {
        let lines: Vec<String> = left_lines(plan).into_iter().map(|line| line.text).collect();
        lines.join("\n")
    }

    fn fates(plan: &Preparation) -> Vec<&Fate> {
        plan.items.iter().map(|(_, fate)| fate).collect()
    }

    #[test]
    fn on_a_ready_host_nothing_is_made_and_nothing_left() {
        let plan = plan(&settings(""), &everything(), true);
        assert_eq!(fates(&plan), [&Fate::There; 3]);
        assert_eq!(plan.left, []);
    }

    #[test]
    fn on_a_fresh_host_all_is_made_and_the_way_on_is_shown() {
        let plan = plan(&settings(""), &nothing(), true);
        assert_eq!(fates(&plan), [&Fate::Make; 3]);
        let left = left(&plan);
        assert!(
            left.contains("\n       -> haproxy-certs haproxy-config\n") && left.contains("issue -d"),
            "{left}"
        );
    }

    #[test]
    fn the_hook_is_made_only_where_it_is_wanted() {
        let without = plan(&settings(""), &nothing(), false);
        assert_eq!(without.items.len(), 2);
        assert!(left(&without).contains("init --hook"));
        // One that is there is shown, wanted or not.
        assert_eq!(plan(&settings(""), &everything(), false).items.len(), 3);
    }

    #[test]
    fn a_certbot_that_issues_without_post_hooks_needs_a_line_in_cli_ini() {
        let link = "/etc/letsencrypt/renewal-hooks/post/haproxy-certs";
        let said = |certbot, saved: &[&str]| {
            let saved_hooks = saved.iter().map(|command| SavedHook {
                file: "/etc/letsencrypt/cli.ini".into(),
                line: 3,
                command: (*command).to_owned(),
            });
            let found = Found { certbot, saved_hooks: saved_hooks.collect(), ..everything() };
            left(&plan(&settings(""), &found, true))
        };
        let quoted = format!("'post-hook = test ! -x {link} || {link}' >> /etc/letsencrypt/cli.ini");
        assert!(said(Some([2, 1, 0]), &[]).contains(&quoted));
        assert!(said(None, &[]).contains(&quoted));
        assert_eq!(said(Some([3, 2, 0]), &[]), "");
        assert_eq!(said(Some([2, 1, 0]), &[&format!("test ! -x {link} || {link}")]), "");
        // One of the first version's, which stops certbot once the link is gone.
        let bare = said(Some([2, 1, 0]), &[link]);
        assert!(bare.contains("/etc/letsencrypt/cli.ini line 3\n       -> sed -i "), "{bare}");
    }

    #[test]
    fn a_layout_that_was_there_before_is_shown_before_it_is_changed() {
        let found = Found { own_dir: false, ..everything() };
        let plan = plan(&settings(""), &found, false);
        assert_eq!(fates(&plan), [&Fate::There, &Fate::Make, &Fate::There, &Fate::There]);
        assert!(left(&plan).contains("\n       -> haproxy-certs assemble --dry-run -v\n"), "{plan:?}");
    }

    #[test]
    fn what_is_no_file_is_no_host_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.pem");
        assert_eq!(host_file_at(&path), HostFile::Absent);
        symlink("nowhere", &path).unwrap();
        assert_eq!(host_file_at(&path), HostFile::Dangling);
        fs::write(folder.path().join("nowhere"), "").unwrap();
        assert_eq!(host_file_at(&path), HostFile::File);
        assert_eq!(host_file_at(folder.path()), HostFile::Directory);
        assert_eq!(host_file_at(Path::new("/dev/null")), HostFile::Other);
        for host_file in [HostFile::Dangling, HostFile::Directory, HostFile::Other] {
            let found = Found { host_file, ..everything() };
            assert!(plan(&settings(""), &found, false).is_blocked());
        }
    }

    #[test]
    fn a_file_of_somebody_elses_stays() {
        let (link, _) = nothing().hook.unwrap();
        let certbot = Some([2, 1, 0]);
        let found = Found { hook: Some((link, Hook::Other)), certbot, ..everything() };
        let plan = plan(&settings(""), &found, true);
        assert!(plan.is_blocked());
        // It isn't said when certbot runs it, nor is a line of cli.ini that would call it.
        assert_eq!(plan.left, []);
        assert!(line(&plan.items[2].0, &plan.items[2].1, false).text.starts_with("left alone"));
    }

    #[test]
    fn a_tree_that_is_not_certbots_has_no_hook() {
        let found = Found { hook: None, ..everything() };
        let plan = plan(&settings("live_dir = \"/srv/certs\""), &found, true);
        assert_eq!(plan.items.len(), 2);
        assert!(left(&plan).contains("/srv/certs is not certbot's own;"), "{plan:?}");
    }

    #[test]
    fn other_directories_need_a_drop_in_where_the_unit_is_installed() {
        let elsewhere = settings("sites_dir = \"/srv/my 100%/sites\"\nhost_file = \"/srv/host.pem\"");
        let text = drop_in(&elsewhere).unwrap();
        assert!(text.contains("\nReadWritePaths=/srv\n"), "{text}");
        let beside = settings("sites_dir = \"/srv/my 100%/sites\"\nhost_file = \"/srv/my 100%/host.pem\"");
        assert!(drop_in(&beside).unwrap().contains("\nReadWritePaths=\"/srv/my 100%%\"\n"));
        assert!(drop_in(&settings("sites_dir = \"/srv/sites\"")).unwrap().contains("\nProtectSystem=no\n"));
        let condition =
            "ConditionPathIsDirectory=\nConditionPathIsDirectory=/srv/my 100%%/sites/.haproxy-certs\n";
        assert!(text.contains(condition));
        // Another directory among those that the unit may write to: only the condition is another.
        let near = drop_in(&settings("sites_dir = \"/usr/local/ssl/certs/edge\"")).unwrap();
        assert!(near.contains("/edge/.haproxy-certs\n") && !near.contains("[Service]"), "{near}");
        let with = |drop_in: Option<&str>| Found {
            units: vec![FoundUnit { drop_in: drop_in.map(ToOwned::to_owned), ..unit(OwnUnit::Assemble) }],
            ..everything()
        };
        let fate = |found: &Found| plan(&elsewhere, found, false).items.pop().unwrap().1;
        assert_eq!(fate(&with(None)), Fate::Make);
        assert_eq!(fate(&with(Some(&text))), Fate::There);
        assert_eq!(fate(&with(Some(&format!("{}\n", drop_in::MARK)))), Fate::Make);
        assert!(matches!(fate(&with(Some("[Service]\n"))), Fate::Blocked(_)));
        let without_unit = Found { units: Vec::new(), ..everything() };
        assert_eq!(plan(&elsewhere, &without_unit, false).items.len(), 3);
        // Back to the default directories: what was written for others doesn't stay.
        let (file, fate) = plan(&settings(""), &with(Some(&text)), false).items.pop().unwrap();
        let Item::DropIn { text, .. } = file else { panic!("{file:?}") };
        assert_eq!(fate, Fate::Make);
        assert!(text.contains("=/usr/local/ssl/certs/sites/.haproxy-certs\n"), "{text}");
        assert_eq!(plan(&settings(""), &with(Some("[Service]\n")), false).items.len(), 3);
    }

    /// systemd takes UTF-8 as it is, and nothing else: an escape would name another directory.
    #[test]
    fn a_directory_that_is_not_ascii_is_named_as_it_is() {
        use std::os::unix::ffi::OsStrExt as _;
        let text = drop_in(&settings(
            "sites_dir = \"/srv/f\u{fc}r a\\\\b/sites\"\nhost_file = \"/srv/f\u{fc}r a\\\\b/host.pem\"",
        ));
        let text = text.unwrap();
        assert!(text.contains("=/srv/f\u{fc}r a\\b/sites/.haproxy-certs\n"), "{text}");
        assert!(text.contains("\nReadWritePaths=\"/srv/f\u{fc}r a\\\\b\"\n"), "{text}");
        let raw = Path::new(std::ffi::OsStr::from_bytes(b"/srv/\xff/sites"));
        let overrides = Overrides { sites_dir: Some(raw.to_owned()), ..Overrides::default() };
        let raw = Settings::parse("", &overrides).unwrap();
        assert_eq!(drop_in(&raw), None);
        assert!(plan(&raw, &everything(), false).is_blocked());
    }
}
