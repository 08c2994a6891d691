//! What was typed.
#![allow(rustdoc::broken_intra_doc_links, reason = "the help is plain text, with tables in brackets")]

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::commands::schedule::Interval;
use crate::config::{Method, Overrides, Settings};
use crate::sys::failure::Failure;

const AFTER_HELP: &str = "\
haproxy-certs COMMAND --help explains a command; haproxy-certs(8) explains everything.";

const AFTER_LONG_HELP: &str = "\
Exit status (status has monitoring's own, see its help):
  0   everything is in step
  1   some lineages were refused or in conflict, or a guard held; the rest is deployed
  2   HAProxy was not notified, did not confirm or refused; the next run tries again
  3   could not run, or not finish
  4   assemble --dry-run --exit-code: there is something to do
  64  wrong usage
issue and renew pass certbot's exit status on where it isn't 0.

Files:
  /etc/haproxy-certs.toml               the settings, see haproxy-certs.toml(5)
  /etc/letsencrypt/live                 certbot's lineages, which are read
  /usr/local/ssl/certs/sites            one PEM per lineage, which HAProxy loads
  /usr/local/ssl/certs/sites/.haproxy-certs
                                        what this program remembers

From nothing to HTTPS:
  haproxy-certs init --hook
  haproxy-certs haproxy-config > /etc/haproxy/haproxy.cfg && systemctl restart haproxy
  haproxy-certs issue -d example.org,www.example.org

Certificates that are there already:
  haproxy-certs assemble --dry-run      what would be done
  haproxy-certs assemble                do it";

/// Deploy certbot's certificates to HAProxy, and prove that HAProxy took them
///
/// Reads certbot's lineages, proves that each private key belongs to its certificate, writes one PEM per lineage into the
/// directory that HAProxy loads, notifies HAProxy, and confirms that it took it. Every run compares everything and does only
/// what is missing: run it from certbot's hook, from a timer, or by hand.
#[derive(Debug, Parser)]
#[command(
    name = "haproxy-certs",
    version = env!("HAPROXY_CERTS_VERSION"),
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = AFTER_HELP,
    after_long_help = AFTER_LONG_HELP
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The configuration file [default: /etc/haproxy-certs.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE", env = "HAPROXY_CERTS_CONFIG", hide_env_values = true, value_hint = ValueHint::FilePath, value_parser = clap::value_parser!(OsString))]
    pub config: Option<OsString>,
    /// certbot's directory of lineages [default: /etc/letsencrypt/live]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub live_dir: Option<PathBuf>,
    /// The directory that HAProxy loads [default: /usr/local/ssl/certs/sites]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub sites_dir: Option<PathBuf>,
    /// Also list unchanged files
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Print only what failed
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// For scripts: one JSON object.
    Json,
}

/// How `fleet status` reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum FleetFormat {
    /// For people: a line for each host.
    #[default]
    Human,
    /// For browsers: one page that needs nothing else.
    Html,
    /// For scripts: one JSON object.
    Json,
    /// For monitoring plugins: one line with performance data, then the problems.
    Monitoring,
    /// For Prometheus: the text exposition format.
    Prometheus,
}

/// How `status` reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum StatusFormat {
    /// For people: a table, problems and what to do about them.
    #[default]
    Human,
    /// For browsers: one page that needs nothing else.
    Html,
    /// For scripts: one JSON object.
    Json,
    /// For monitoring plugins: one line with performance data, then the problems.
    Monitoring,
    /// For Prometheus: the text exposition format.
    Prometheus,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write every lineage's key and chain into one file for HAProxy, and notify HAProxy
    ///
    /// Reads all of certbot's lineages, proves that each private key belongs to its certificate, writes what changed into
    /// the sites directory, prunes what is gone, notifies HAProxy once, and confirms that it took it. A run that has nothing
    /// to do changes nothing and notifies nobody.
    Assemble(Assemble),
    /// Show what certbot has, what is on disk and what HAProxy serves, and what to do where they differ
    ///
    /// Changes nothing, takes no lock, and needs read access only. What it may not read is unknown. Exits with 0 for ok, 1
    /// for warning, 2 for critical and 3 for unknown, as monitoring plugins do.
    Status(StatusArgs),
    /// Issue a certificate with certbot, behind HAProxy, and deploy it
    ///
    /// Runs certbot certonly --standalone on the port that HAProxy passes ACME challenges to, for one
    /// certificate with all the names, and then does what assemble does. An authenticator named behind --, in the settings
    /// or in certbot's cli.ini replaces standalone; a wildcard needs one that can do DNS. certbot may ask its questions. If
    /// certbot fails, nothing is deployed, and its exit status is passed on.
    Issue(Issue),
    /// Renew with certbot whatever is due, and deploy it
    ///
    /// Runs certbot renew and then does what assemble does, even if certbot fails: one failed renewal of many makes it
    /// fail. certbot's exit status is passed on. Every lineage is renewed the way it was issued.
    Renew(Renew),
    /// Make this host ready: directories, a placeholder certificate, certbot's hook
    ///
    /// Makes what is missing and says what is there: the sites directory; a self-signed certificate in the host
    /// certificate's place, so that HAProxy can start before the first certificate exists; with --hook the link that
    /// makes certbot call haproxy-certs; what lets haproxy-certs.service write to your directories. Then says what is
    /// left to do. It is safe to repeat, and overwrites nothing that it didn't write.
    Init(Init),
    /// Print a HAProxy configuration that fits these settings
    ///
    /// For HAProxy 2.2 and later: port 80 passes ACME challenges to certbot and redirects the rest, port 443 serves the
    /// host certificate and the sites directory, and the admin socket lets certificates be replaced without a reload.
    HaproxyConfig(HaproxyConfig),
    /// Share one certbot's certificates among many HAProxy hosts
    ///
    /// One host, the publisher, puts certbot's certificates into a store: an etcd, or a directory that something else
    /// carries. Any number of nodes deploy them from there as a single host does, and report. The store sees only
    /// ciphertext, and what it forges, replays or mixes is refused. The whole story is in haproxy-certs-fleet(7).
    #[command(subcommand)]
    Fleet(FleetCommand),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: Completions,
    },
}

/// The commands of `fleet`.
#[derive(Debug, Subcommand)]
pub enum FleetCommand {
    /// On a node: make its keys, and print the table for the publisher's settings
    ///
    /// Keys that are there already stay as they are.
    Join,
    /// On the publisher: publish what changed
    ///
    /// Reads all of certbot's lineages, proves those that aren't published yet, and puts them, encrypted for the nodes,
    /// into the store. A lineage that fails stays as it was published. assemble does it too, where the settings have
    /// [[fleet.node]] tables.
    Publish(FleetPublish),
    /// On a node: bring what is published here and deploy it
    ///
    /// Without --once it goes on, woken by what is published, until it is told to end.
    Follow(FleetFollow),
    /// On the publisher: encrypt everything with a new key, for the nodes that are left
    ///
    /// To be done after a node was removed. What it held stays in its hands until it is issued again.
    Rotate,
    /// Show which node has what, and what HAProxy there serves
    ///
    /// Exits with 0 for ok, 1 for warning, 2 for critical and 3 for unknown, as monitoring plugins do.
    Status(FleetStatus),
}

/// Options of `fleet publish`.
#[derive(Debug, Default, Args)]
pub struct FleetPublish {
    /// However many lineages are gone, let them go; the nodes prune them too
    #[arg(long)]
    pub prune_many: bool,
    /// Take the place of another publisher
    #[arg(long)]
    pub take_over: bool,
}

/// Options of `fleet follow`.
#[derive(Debug, Default, Args)]
pub struct FleetFollow {
    /// Look once, and end
    #[arg(long)]
    pub once: bool,
}

/// Options of `fleet status`.
#[derive(Debug, Default, Args)]
pub struct FleetStatus {
    /// How to report
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: FleetFormat,
    /// Write the metrics for Prometheus to this file too, for the textfile collector of its node exporter
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub textfile: Option<PathBuf>,
}

/// Options of `assemble`.
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
#[derive(Debug, Clone, Default, Args)]
pub struct Assemble {
    /// Print what would be done; write nothing, lock nothing, notify nobody
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: exit 4 when there is something to do
    #[arg(long, requires = "dry_run")]
    pub exit_code: bool,
    /// Read and prove every lineage, also those that haven't changed since the last run, and ask HAProxy what it serves
    #[arg(long)]
    pub full: bool,
    /// Remove nothing
    #[arg(long, conflicts_with = "prune_many")]
    pub no_prune: bool,
    /// Allow a prune of any number of files
    #[arg(long)]
    pub prune_many: bool,
    /// Take over files that haproxy-certs didn't write, where a lineage needs their name; a copy is kept
    #[arg(long)]
    pub adopt: bool,
    /// Deploy this lineage although its certificate is older, not yet valid, from a staging CA, or was refused by HAProxy before
    #[arg(long, value_name = "LINEAGE", action = clap::ArgAction::Append)]
    pub force: Vec<OsString>,
    /// Do not notify HAProxy; the next run will
    #[arg(long)]
    pub defer_reload: bool,
    /// How to notify HAProxy, for all of them
    #[arg(long, value_name = "METHOD")]
    pub reload: Option<Method>,
    /// Go on: run now, and again after each DURATION (1m, "1h 30m") and up to a tenth of it more; for containers
    ///
    /// The first run, and one a day, is a full one. It prints what changes, and what fails when it is new, changed or over.
    /// SIGTERM and SIGINT end it, SIGHUP makes it run at once. What is meant for one run can't be given with it.
    #[arg(
        long,
        value_name = "DURATION",
        conflicts_with_all = ["dry_run", "exit_code", "prune_many", "adopt", "force", "defer_reload", "format"]
    )]
    pub interval: Option<Interval>,
    /// How to report
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: Format,
}

/// Options of `status`.
#[derive(Debug, Default, Args)]
pub struct StatusArgs {
    /// How to report
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub format: StatusFormat,
    /// Write the metrics for Prometheus to this file too, for the textfile collector of its node exporter
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub textfile: Option<PathBuf>,
    /// Also check the setup: HAProxy's configuration, sockets, hooks, timers, modes
    ///
    /// It tries the path of the ACME challenge: it listens on certbot's port for a moment, on loopback only, and sends a
    /// request through HAProxy's port 80. Where it can't do that, it only reads the configuration.
    #[arg(long)]
    pub setup: bool,
}

/// Options of `issue`.
#[derive(Debug, Args)]
pub struct Issue {
    /// The names, separated by commas; the option may be repeated
    #[arg(short, long = "domains", value_name = "NAME", required = true, value_delimiter = ',', value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub domains: Vec<String>,
    /// Two certificates with the same names: one with an ECDSA key, and NAME-rsa with an RSA key for old clients
    #[arg(long)]
    pub both_keys: bool,
    /// Arguments for certbot, after those of [certbot] args
    #[arg(last = true, value_name = "CERTBOT-ARGS")]
    pub certbot: Vec<OsString>,
}

/// Options of `renew`.
#[derive(Debug, Args)]
pub struct Renew {
    /// Arguments for certbot
    #[arg(last = true, value_name = "CERTBOT-ARGS")]
    pub certbot: Vec<OsString>,
}

/// Options of `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Link haproxy-certs into certbot's renewal-hooks/post, so that every renewal is deployed at once
    #[arg(long)]
    pub hook: bool,
    /// Only write a configuration file: the settings that fit what HAProxy loads already, all others as comments
    #[arg(long, conflicts_with = "hook")]
    pub write_config: bool,
    /// Print what would be made; make nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of `haproxy-config`.
#[derive(Debug, Args)]
pub struct HaproxyConfig {
    /// The name of the [[haproxy]] table, where there are several [default: the first]
    #[arg(value_name = "HAPROXY")]
    pub haproxy: Option<String>,
}

/// What `completions` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Completions {
    /// The script for bash.
    Bash,
    /// The script for elvish.
    Elvish,
    /// The script for fish.
    Fish,
    /// The script for PowerShell.
    #[value(name = "powershell")]
    PowerShell,
    /// The script for zsh.
    Zsh,
    /// The lineages, one a line: what the scripts ask for.
    #[value(hide = true)]
    Lineages,
}

impl Cli {
    /// Parses a command line. A certbot directory hook, which is called by its full path and without arguments, is
    /// `assemble`.
    ///
    /// # Errors
    /// clap's, for wrong usage, and for `--help` and `--version`.
    pub fn parse_from_args(args: Vec<OsString>) -> Result<Self, clap::Error> {
        let as_hook = matches!(args.as_slice(), [program] if is_directory_hook(program));
        let args = if as_hook { [args, vec!["assemble".into()]].concat() } else { args };
        Self::try_parse_from(args)
    }
}

/// Whether this is the path of a file in one of certbot's `renewal-hooks` directories.
fn is_directory_hook(program: &OsStr) -> bool {
    let path = Path::new(program);
    let folder = path.parent().and_then(Path::parent).and_then(Path::file_name);
    path.is_absolute() && folder == Some(OsStr::new("renewal-hooks"))
}

impl Global {
    /// The configuration file that was named; an empty name, as a hook's environment may have it, is none.
    #[must_use]
    pub fn config_file(&self) -> Option<&Path> {
        self.config.as_deref().filter(|name| !name.is_empty()).map(Path::new)
    }

    /// The settings: the configuration file's, with the flags that beat it.
    ///
    /// # Errors
    /// The file can't be read, or its settings can't be used.
    pub fn settings(&self, reload: Option<Method>) -> Result<Settings, Failure> {
        Settings::load(self.config_file(), &self.overrides(reload))
    }

    /// The flags that beat the configuration file.
    #[must_use]
    pub fn overrides(&self, reload: Option<Method>) -> Overrides {
        Overrides { live_dir: self.live_dir.clone(), sites_dir: self.sites_dir.clone(), reload }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::parse_from_args(args.iter().map(OsString::from).collect())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_directory_hook_is_assemble() {
        let hook = parse(&["/etc/letsencrypt/renewal-hooks/post/haproxy-certs"]).unwrap();
        assert!(matches!(hook.command, Command::Assemble(_)));
        assert!(parse(&["/usr/bin/haproxy-certs"]).is_err());
        assert!(parse(&["renewal-hooks/post/haproxy-certs"]).is_err());
        assert!(parse(&["/etc/letsencrypt/renewal-hooks/post/haproxy-certs", "--no-such"]).is_err());
    }
}
