//! The program itself, with a configuration of its own.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::built;
use super::haproxy::Haproxy;
use super::process::finish;

/// `haproxy-certs` with a configuration file, ready to be run as often as a test likes.
///
/// The sites directory is in a temporary directory with modes that the program accepts; it isn't created here.
#[derive(Debug)]
pub struct Cmd {
    temporary: TempDir,
    live_dir: PathBuf,
    sites: PathBuf,
    options: String,
    tables: String,
    environment: Vec<(OsString, OsString)>,
    limit: Duration,
    is_alone: bool,
}

impl Cmd {
    /// The program under test.
    pub fn program() -> PathBuf {
        built::program()
    }

    /// Configured for this `live` directory, and for no HAProxy yet.
    pub fn new(live_dir: impl Into<PathBuf>) -> Self {
        let temporary = tempfile::Builder::new().prefix("haproxy-certs-cmd-").tempdir().unwrap();
        Self {
            sites: temporary.path().join("sites"),
            temporary,
            live_dir: live_dir.into(),
            options: String::new(),
            tables: String::new(),
            environment: Vec::new(),
            limit: Duration::from_secs(120),
            is_alone: false,
        }
    }

    /// One more line for the top of the configuration: `exclude = ["*.example.org"]`.
    pub fn option(mut self, line: &str) -> Self {
        writeln!(self.options, "{line}").unwrap();
        self
    }

    /// More tables for the end of the configuration: `[[haproxy]]`, `[certbot]`.
    pub fn table(mut self, lines: &str) -> Self {
        writeln!(self.tables, "{lines}").unwrap();
        self
    }

    /// With these tables in the place of all others.
    pub fn with_tables(mut self, lines: &str) -> Self {
        self.tables.clear();
        self.table(lines)
    }

    /// The same for one that is used already.
    pub fn set_tables(&mut self, lines: &str) {
        self.tables.clear();
        writeln!(self.tables, "{lines}").unwrap();
    }

    /// Tells nobody and asks nobody: for tests without a HAProxy.
    pub fn without_haproxy(self) -> Self {
        self.table("[[haproxy]]\nreload = \"none\"\nbinary = \"\"")
    }

    /// A `[[haproxy]]` table for a running HAProxy, reached by its pidfile and its master socket (`auto`);
    /// `more` are further lines of the table.
    pub fn haproxy(self, haproxy: &Haproxy, more: &str) -> Self {
        let table = format!(
            "[[haproxy]]\npidfile = {}\nmaster_socket = {}\nbinary = {}\nunit = \"\"\n{more}",
            toml(&haproxy.pidfile()),
            toml(&haproxy.master_socket()),
            toml(&haproxy.version().program),
        );
        self.table(&table)
    }

    /// Sets a variable in its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().into(), value.as_ref().into()));
        self
    }

    /// How long a run may take before it is killed and the test fails.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Under strace it sees no other process from now on: how many there are changes what a run calls.
    pub fn see_no_others(&mut self) {
        self.is_alone = true;
    }

    /// Whether it sees no other process under strace.
    pub fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// The sites directory of its configuration.
    pub fn sites(&self) -> PathBuf {
        self.sites.clone()
    }

    /// With a sites directory that is somewhere else.
    pub fn with_sites(mut self, sites: impl Into<PathBuf>) -> Self {
        self.sites = sites.into();
        self
    }

    /// A place beside the sites directory, on the same file system: `host.pem`.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    /// The file of a lineage in the sites directory.
    pub fn site(&self, lineage: &str) -> PathBuf {
        self.sites().join(format!("{lineage}.pem"))
    }

    /// Writes the configuration file and says where it is; for certbot's hooks.
    pub fn config(&self) -> PathBuf {
        let path = self.temporary.path().join("haproxy-certs.toml");
        let Self { live_dir, options, tables, .. } = self;
        // A node of a fleet has none.
        let live_dir = if live_dir.as_os_str().is_empty() {
            String::new()
        } else {
            format!("live_dir = {}\n", toml(live_dir))
        };
        let text = format!("{live_dir}sites_dir = {}\n{options}{tables}", toml(&self.sites()));
        // Who goes on with it is not to see half of it, nor a change where there is none.
        if fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
            fs::write(self.temporary.path().join(".config.new"), text).unwrap();
            fs::rename(self.temporary.path().join(".config.new"), &path).unwrap();
        }
        path
    }

    /// Runs it with these arguments after `--config FILE`.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Run {
        let config = self.config();
        let mut all = vec!["--config", config.to_str().expect("a path of UTF-8")];
        all.extend(arguments);
        self.run_as(&all)
    }

    /// Runs it with these arguments alone.
    #[track_caller]
    pub fn run_as(&self, arguments: &[&str]) -> Run {
        let mut command = Command::new(Self::program());
        command.args(arguments);
        self.finish(command)
    }

    /// Runs it where this script has mounted something: `$1` is this place.
    #[track_caller]
    pub fn run_with_mounts(&self, mounts: &str, place: &Path, arguments: &[&str]) -> Run {
        let mut command = Command::new("unshare");
        let script = format!("{{ {mounts}; }} && shift && exec \"$@\"");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]).arg(place);
        command.arg(Self::program()).arg("--config").arg(self.config()).args(arguments);
        self.finish(command)
    }

    #[track_caller]
    fn finish(&self, mut command: Command) -> Run {
        self.prepare(&mut command);
        let output = finish(&mut command, self.limit);
        Run {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into(),
            stderr: String::from_utf8_lossy(&output.stderr).into(),
        }
    }

    /// Sets the environment of a run: without the folders that cargo has the loader look into, which no user's shell has.
    pub fn prepare(&self, command: &mut Command) {
        command
            .env_remove("LD_LIBRARY_PATH")
            .env_remove("HAPROXY_CERTS_CONFIG")
            .env_remove("RENEWED_LINEAGE")
            .env_remove("RENEWED_DOMAINS");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
    }

    /// `assemble --format json`, with more arguments.
    #[track_caller]
    pub fn assemble(&self, arguments: &[&str]) -> Run {
        let mut all = vec!["assemble", "--format", "json"];
        all.extend(arguments);
        self.run(&all)
    }

    /// The names in the sites directory, its own `.haproxy-certs` left out, in byte order.
    pub fn deployed(&self) -> Vec<String> {
        names_in(&self.sites()).into_iter().filter(|name| name != ".haproxy-certs").collect()
    }
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Run {
    /// The exit status; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Run {
    /// The exit status is this one.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit status of {self}");
        self
    }

    /// The JSON report.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON: {error}: {self}"))
    }

    /// What the report says of the first HAProxy.
    pub fn haproxy(&self) -> Value {
        self.json()["haproxy"][0].clone()
    }

    /// The row of a file in the JSON report: `example.org.pem`.
    #[track_caller]
    pub fn site(&self, file: &str) -> Value {
        let report = self.json();
        let rows = report["sites"].as_array().expect("sites");
        rows.iter().find(|row| row["file"] == file).unwrap_or_else(|| panic!("no {file} in {self}")).clone()
    }

    /// The action of a file in the JSON report.
    #[track_caller]
    pub fn action(&self, file: &str) -> String {
        self.site(file)["action"].as_str().expect("an action").to_owned()
    }

    /// The reason of a file's refusal in the JSON report.
    #[track_caller]
    pub fn reason(&self, file: &str) -> Option<String> {
        self.site(file)["reason"].as_str().map(ToOwned::to_owned)
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a run with exit status {:?}\n{}{}", self.code, self.stdout, self.stderr)
    }
}

/// A path as a TOML string: JSON's are.
pub fn toml(path: &Path) -> String {
    Value::from(path.to_str().expect("a path of UTF-8")).to_string()
}

/// The names in a directory, in byte order; none where it isn't there.
pub fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
