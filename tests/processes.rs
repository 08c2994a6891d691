//! Which HAProxy is which: several tables, renamed tables, HAProxys that are down, that come back, or that are somebody
//! else's. The judge is a handshake after each run that says that nothing is left to notify of.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::cmd::toml;
use support::haproxy::Setup;
use support::live::demanding_openssl;
use support::process::{Running, children, finish};
use support::scene::put;
use support::{
    Cmd, Haproxy, KeyKind, LIMIT, Leaf, Run, Tree, Validity, Version, served, version, versions, wait_until,
};

/// A tree with two lineages, and a sites directory with both.
struct Bed {
    tree: Tree,
    folder: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let mut tree = Tree::new();
        for name in ["a.example", "b.example"] {
            tree.issue(name, KeyKind::P256, &[name], Validity::days(90));
        }
        let folder = tempfile::tempdir().unwrap();
        let bed = Self { tree, folder };
        bed.cmd().without_haproxy().assemble(&[]).exits(0);
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sites(&self) -> PathBuf {
        self.path("sites")
    }

    /// The program with a configuration file of its own, without a table yet.
    fn cmd(&self) -> Cmd {
        Cmd::new(self.tree.live()).with_sites(self.sites())
    }

    fn haproxy(&self, version: &Version) -> Setup {
        Haproxy::of(version).crt(self.sites())
    }

    fn renew(&mut self) -> Leaf {
        self.tree.renew("a.example")
    }
}

/// A table that knows this HAProxy by its pidfile only.
fn by_pidfile(name: &str, haproxy: &Haproxy) -> String {
    table(name, &haproxy.pidfile(), haproxy.version())
}

fn table(name: &str, pidfile: &Path, version: &Version) -> String {
    format!(
        "[[haproxy]]\nname = \"{name}\"\nunit = \"\"\nmaster_socket = \"\"\npidfile = {}\nbinary = {}\ntimeout = \"30s\"\n",
        toml(pidfile),
        toml(&version.program)
    )
}

/// A process id that nobody has any more.
fn gone() -> u32 {
    let mut child = Command::new("/bin/true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

#[track_caller]
fn serves(haproxy: &Haproxy, leaf: &Leaf) {
    let shown = served(haproxy.address(), "a.example");
    assert_eq!(shown.serial, leaf.serial(), "{}", haproxy.version().full);
}

fn told(run: &Run, index: usize) -> serde_json::Value {
    run.json()["haproxy"][index].clone()
}

fn some(names: &[&str]) -> Vec<Version> {
    names.iter().filter_map(|name| version(name)).collect()
}

/// Runs the program where edge's sockets and pidfile are in the default places: below a `/run` of its own.
fn in_edges_world(bed: &Bed, edge: &Haproxy, cmd: &Cmd) -> Run {
    let run = bed.path("run");
    fs::create_dir_all(&run).unwrap();
    for (name, place) in [("haproxy-master.sock", edge.master_socket()), ("haproxy.pid", edge.pidfile())] {
        let _ = fs::remove_file(run.join(name));
        std::os::unix::fs::symlink(place, run.join(name)).unwrap();
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "/bin/sh", "-c", "mount --bind \"$0\" /run && exec \"$@\""]).arg(&run);
    command.arg(Cmd::program()).arg("--config").arg(cmd.config()).args(["assemble", "--format", "json"]);
    cmd.prepare(&mut command);
    let output = finish(&mut command, LIMIT * 3);
    Run {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into(),
        stderr: String::from_utf8_lossy(&output.stderr).into(),
    }
}

#[test]
fn each_of_two_tables_has_its_own_haproxy() {
    if !nix::unistd::geteuid().is_root() {
        support::summary::skipped("each_of_two_tables_has_its_own_haproxy", "it needs root");
        return;
    }
    for version in versions() {
        let mut bed = Bed::new();
        let (edge, lab) = (bed.haproxy(&version).start(), bed.haproxy(&version).start());
        let binary = toml(&version.program);
        let own = format!("timeout = \"30s\"\nbinary = {binary}");
        let probe = format!("probe = [\"{}\"]", lab.address());
        // As in the README: a command and a probe.
        let signal = format!("command = [\"/bin/kill\", \"-USR2\", \"{}\"]", lab.master_pid());
        let by_command = format!("name = \"lab\"\nreload = \"command\"\n{signal}\n{probe}\n{own}");
        // With its own unit and pidfile, and nothing said of sockets.
        let pidfile = toml(&lab.pidfile());
        let by_pidfile = format!("name = \"lab\"\nunit = \"lab.service\"\npidfile = {pidfile}\n{own}");
        for lab_table in [by_command, by_pidfile] {
            let cmd =
                bed.cmd().table(&format!("[[haproxy]]\nname = \"edge\"\n{own}\n[[haproxy]]\n{lab_table}"));
            let leaf = bed.renew();
            let run = in_edges_world(&bed, &edge, &cmd).exits(0);
            assert_eq!(told(&run, 1)["outcome"], "reloaded", "{}: {run}", version.full);
            serves(&edge, &leaf);
            serves(&lab, &leaf);
            let again = in_edges_world(&bed, &edge, &cmd).exits(0);
            assert_eq!(told(&again, 1)["outcome"], "not-needed", "{again}");
        }
    }
}

/// No socket and no probe shows it: the master in sight does.
#[test]
fn a_command_that_reloads_nothing_is_not_taken_for_a_reload() {
    for version in versions() {
        let mut bed = Bed::new();
        let haproxy = bed.haproxy(&version).start();
        let run = |bed: &Bed, command: &str, timeout: &str| {
            let table = format!(
                "[[haproxy]]\nreload = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"{command}\"]\nbinary = \"\"\n\
                 pidfile = {}\nmaster_socket = \"\"\nunit = \"\"\ntimeout = \"{timeout}\"\n",
                toml(&haproxy.pidfile())
            );
            bed.cmd().with_tables(&table).assemble(&[])
        };
        let old = bed.tree.leaf("a.example").clone();
        let new = bed.tree.renew("a.example");
        let first = run(&bed, "true", "3s").exits(2);
        let row = told(&first, 0);
        assert_eq!((&row["outcome"], &row["confirmed"]), (&"reloaded".into(), &false.into()), "{first}");
        assert_eq!(row["owed"], true, "{first}");
        assert!(row["detail"].as_str().unwrap().contains("has not reloaded"), "{first}");
        serves(&haproxy, &old);
        let second = run(&bed, &format!("kill -USR2 {}", haproxy.master_pid()), "60s").exits(0);
        assert_eq!(told(&second, 0)["confirmed"], true, "{second}");
        serves(&haproxy, &new);
    }
}

#[test]
fn a_table_gets_a_new_name_and_its_haproxy_is_still_told() {
    let version = version("3.0").unwrap();
    let mut bed = Bed::new();
    let haproxy = bed.haproxy(&version).start();
    let leaf = bed.renew();
    let config = bed.path("haproxy-certs.toml");
    let written = |table: &str| {
        let text = fs::read_to_string(bed.cmd().table(table).config()).unwrap();
        fs::write(&config, text).unwrap();
        let mut command = Command::new(Cmd::program());
        command.arg("--config").arg(&config).args(["assemble", "--format", "json"]);
        let output = finish(&mut command, LIMIT * 2);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Run { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    };
    written(&table("haproxy", &bed.path("no.pid"), &version)).exits(2);
    let renamed = by_pidfile("edge", &haproxy);
    let run = written(&renamed).exits(0);
    assert_eq!(told(&run, 0)["outcome"], "reloaded", "{run}");
    serves(&haproxy, &leaf);
    let again = written(&renamed).exits(0);
    assert_eq!(told(&again, 0)["outcome"], "not-needed", "{again}");
}

#[test]
fn another_configurations_debt_is_not_dropped() {
    let version = version("3.0").unwrap();
    let mut bed = Bed::new();
    let (edge, lab) = (bed.haproxy(&version).start(), bed.haproxy(&version).start());
    let of_lab = bed.cmd().table(&by_pidfile("lab", &lab));
    let leaf = bed.renew();
    let pidfile = bed.path("edge.pid");
    let of_edge = bed.cmd().table(&table("edge", &pidfile, &version));
    of_edge.assemble(&[]).exits(2);
    of_lab.assemble(&[]).exits(0);
    std::os::unix::fs::symlink(edge.pidfile(), &pidfile).unwrap();
    let run = of_edge.assemble(&[]).exits(0);
    assert_eq!(told(&run, 0)["outcome"], "reloaded", "{run}");
    serves(&edge, &leaf);
}

#[test]
fn a_stale_pidfile_beside_a_haproxy_that_loads_the_directory_forgives_nothing() {
    for version in versions() {
        let mut bed = Bed::new();
        let haproxy = bed.haproxy(&version).start();
        let stale = bed.path("stale.pid");
        fs::write(&stale, format!("{}\n", gone())).unwrap();
        let cmd = bed.cmd().table(&table("haproxy", &stale, &version));
        let leaf = bed.renew();
        let run = cmd.assemble(&[]).exits(2);
        let row = told(&run, 0);
        assert_eq!((&row["outcome"], &row["owed"]), (&"failed".into(), &true.into()), "{run}");
        assert!(row["detail"].as_str().unwrap().contains("may load this directory"), "{run}");
        fs::copy(haproxy.pidfile(), &stale).unwrap();
        cmd.assemble(&[]).exits(0);
        serves(&haproxy, &leaf);
    }
}

#[test]
fn a_haproxy_that_is_down_is_owed_nothing_beside_other_haproxys() {
    for version in some(&["2.6", "3.0"]) {
        let mut bed = Bed::new();
        let (mut edge, lab) = (bed.haproxy(&version).start(), bed.haproxy(&version).start());
        let elsewhere = bed.path("elsewhere.pem");
        put(&elsewhere, bed.tree.leaf("b.example").combined(), 0o600);
        let _other = Haproxy::of(&version).crt(&elsewhere).start();
        edge.kill();
        fs::write(edge.pidfile(), format!("{}\n", gone())).unwrap();
        let cmd = bed.cmd().table(&by_pidfile("edge", &edge)).table(&by_pidfile("lab", &lab));
        let leaf = bed.renew();
        let run = cmd.assemble(&[]).exits(0);
        assert_eq!(told(&run, 0)["outcome"], "not-running", "{}: {run}", version.full);
        serves(&lab, &leaf);
        edge.run_again();
        serves(&edge, &leaf);
    }
}

/// The lines of the settings that a pasted command adds.
fn paste(command: &str) {
    let done = finish(Command::new("sh").args(["-c", command]), LIMIT);
    assert!(done.status.success(), "{command}: {done:?}");
}

/// The same, and what it serves can be seen.
fn seen(name: &str, haproxy: &Haproxy) -> String {
    format!("{}runtime_socket = {}\n", by_pidfile(name, haproxy), toml(&haproxy.stats_socket()))
}

/// That a HAProxy has no table is said, where it runs; what is pasted makes it one that is notified.
#[test]
fn a_haproxy_without_a_table_is_told_of_until_it_has_one() {
    for version in some(&["2.6", "3.2"]) {
        let mut bed = Bed::new();
        let (edge, lab) = (bed.haproxy(&version).start(), bed.haproxy(&version).start());
        let settings = bed.path("haproxy-certs.toml");
        let text = fs::read_to_string(bed.cmd().table(&seen("edge", &edge)).config()).unwrap();
        fs::write(&settings, text).unwrap();
        let cmd = bed.cmd();
        let run =
            |arguments: &[&str]| cmd.run_as(&[&["--config", settings.to_str().unwrap()], arguments].concat());
        let assemble = || run(&["assemble", "--format", "json"]);
        let status = || run(&["status", "--format", "json"]);
        let tableless = format!("the HAProxy of process {} loads", lab.master_pid());
        let old = bed.tree.leaf("a.example").clone();
        let leaf = bed.tree.renew("a.example");
        let first = assemble().exits(0);
        assert!(first.stdout.contains(&tableless), "{}: {first}", version.full);
        assert_eq!(told(&first, 0)["confirmed"], true, "{first}");
        serves(&edge, &leaf);
        serves(&lab, &old);
        let shown = status().exits(1).json();
        let problem = &shown["problems"][0];
        assert_eq!(problem["problem"], "haproxy-stale", "{shown}");
        assert!(problem["fact"].as_str().unwrap().starts_with(&tableless), "{shown}");
        let prepared = run(&["init", "--write-config", "--dry-run"]).exits(0);
        assert!(prepared.stdout.contains(&tableless), "{prepared}");
        let command = problem["commands"][0].as_str().unwrap();
        assert!(prepared.stdout.contains(command), "{command} isn't in {prepared}");
        paste(command);
        assemble().exits(0);
        serves(&lab, &leaf);
        status().exits(0);
        let leaf = bed.tree.renew("a.example");
        assemble().exits(0);
        serves(&edge, &leaf);
        serves(&lab, &leaf);
    }
}

/// Each gets its table by what is pasted, whatever the others have: one command at a time.
#[test]
fn of_several_without_a_table_one_comes_after_the_other() {
    let version = version("3.0").unwrap();
    let mut bed = Bed::new();
    let all = [0, 1, 2].map(|_| bed.haproxy(&version).start());
    let settings = bed.path("haproxy-certs.toml");
    let text = fs::read_to_string(bed.cmd().table(&seen("edge", &all[0])).config()).unwrap();
    fs::write(&settings, text).unwrap();
    let cmd = bed.cmd();
    let run =
        |arguments: &[&str]| cmd.run_as(&[&["--config", settings.to_str().unwrap()], arguments].concat());
    for left in [2, 1] {
        let shown = run(&["status", "--format", "json"]).exits(1).json();
        let problems = shown["problems"].as_array().unwrap();
        assert_eq!(problems.len(), left, "{shown}");
        let commands = problems.iter().flat_map(|problem| problem["commands"].as_array().unwrap());
        let printed: Vec<&str> =
            commands.map(|it| it.as_str().unwrap()).filter(|it| it.starts_with("printf")).collect();
        let [printed] = printed.as_slice() else { panic!("{shown}") };
        paste(printed);
    }
    let leaf = bed.tree.renew("a.example");
    run(&["assemble"]).exits(0);
    for haproxy in &all {
        serves(haproxy, &leaf);
    }
    run(&["status"]).exits(0);
}

/// One that another settings file is about, one that only ends its last connections, and one that may be the one of a table.
#[test]
fn who_has_a_table_or_ends_is_not_without_one() {
    let version = version("3.0").unwrap();
    let mut bed = Bed::new();
    let (edge, lab) = (bed.haproxy(&version).start(), bed.haproxy(&version).start());
    let (of_edge, of_lab) = (bed.cmd().table(&seen("edge", &edge)), bed.cmd().table(&seen("lab", &lab)));
    bed.renew();
    of_edge.assemble(&[]).exits(0);
    // From now on it is known that both share the directory.
    of_lab.assemble(&[]).exits(0);
    let leaf = bed.renew();
    of_edge.assemble(&[]).exits(0);
    serves(&edge, &leaf);
    of_edge.run(&["status"]).exits(0);
    // Which of the two a table is about that has nothing of either can't be told.
    let command = format!("command = [\"/bin/kill\", \"-USR2\", \"{}\"]", lab.master_pid());
    let by_command = format!("[[haproxy]]\nname = \"lab\"\nreload = \"command\"\n{command}");
    let bed_of_both = bed.cmd().table(&by_pidfile("edge", &edge)).table(&by_command);
    bed.renew();
    let run = bed_of_both.assemble(&[]);
    assert!(!run.stdout.contains("no [[haproxy]] table"), "{run}");
    // A client keeps one of them alive.
    let mut third = Bed::new();
    let alone = third.haproxy(&version).start();
    let draining = third.haproxy(&version).start();
    let _client = std::net::TcpStream::connect(draining.address()).unwrap();
    paste(&format!("kill -USR1 {}", draining.master_pid()));
    wait_until(LIMIT, "nobody listens any more", || {
        std::net::TcpStream::connect(draining.address()).is_err()
    });
    let leaf = third.renew();
    let run = third.cmd().table(&by_pidfile("edge", &alone)).assemble(&[]).exits(0);
    assert_eq!(told(&run, 0)["confirmed"], true, "{run}");
    serves(&alone, &leaf);
}

/// Nobody listens at its master's socket any more, and nothing else says anything of it.
#[test]
fn a_dead_masters_socket_is_not_waited_for_again_and_again() {
    for version in some(&["2.6", "3.0", "3.2"]) {
        let mut bed = Bed::new();
        let mut haproxy = bed.haproxy(&version).start();
        let table = format!(
            "[[haproxy]]\nunit = \"\"\npidfile = \"\"\nmaster_socket = {}\nbinary = {}\n",
            toml(&haproxy.master_socket()),
            toml(&version.program)
        );
        let cmd = bed.cmd().table(&table);
        cmd.assemble(&[]).exits(0);
        haproxy.kill();
        assert!(haproxy.master_socket().exists());
        let leaf = bed.renew();
        let begin = Instant::now();
        let run = cmd.assemble(&[]).exits(2);
        assert!(begin.elapsed() < Duration::from_secs(12), "{:?}: {run}", begin.elapsed());
        assert!(told(&run, 0)["detail"].as_str().unwrap().contains("connection refused"), "{run}");
        haproxy.run_again();
        cmd.assemble(&[]).exits(0);
        serves(&haproxy, &leaf);
    }
}

/// A check of ours has none of its variables: what hangs on them isn't claimed, what doesn't is.
#[test]
fn whether_one_starts_that_needs_a_variable_is_not_claimed() {
    for version in some(&["2.6", "3.2"]) {
        let mut bed = Bed::new();
        let sites = bed.sites();
        let setup = Haproxy::of(&version).bind_option("ssl crt \"${CERTS_OF_TEST}\"");
        let mut haproxy = setup.env("CERTS_OF_TEST", sites.to_str().unwrap()).start();
        let cmd = bed.cmd().table(&by_pidfile("haproxy", &haproxy));
        bed.renew();
        cmd.assemble(&[]).exits(0);
        haproxy.kill();
        fs::write(haproxy.pidfile(), format!("{}\n", gone())).unwrap();
        let leaf = bed.renew();
        let run = cmd.assemble(&[]).exits(0);
        let row = told(&run, 0);
        assert_eq!(row["outcome"], "not-running", "{run}");
        let detail = row["detail"].as_str().unwrap();
        assert!(detail.contains("can't be told") && !detail.contains("may not start"), "{run}");
        let status = || cmd.run(&["status", "--format", "json", "--setup"]).exits(2);
        let words = |run: &Run| -> Vec<String> {
            let all = run.json()["problems"].as_array().unwrap().clone();
            all.iter().map(|it| it["problem"].as_str().unwrap().to_owned()).collect()
        };
        let seen = status();
        assert!(words(&seen).contains(&"haproxy-down".to_owned()), "{seen}");
        assert!(!words(&seen).contains(&"haproxy-config".to_owned()), "{seen}");
        assert!(seen.stdout.contains("a condition whose value isn't known"), "{seen}");
        let good = fs::read_to_string(haproxy.config()).unwrap();
        fs::write(haproxy.config(), format!("{good}\nnonsense\n")).unwrap();
        // The variable's line is refused as well here: the other is what is sure.
        assert!(words(&status()).contains(&"haproxy-config".to_owned()));
        fs::write(haproxy.config(), good).unwrap();
        haproxy.run_again();
        serves(&haproxy, &leaf);
    }
}

/// Does something when it is dropped.
struct AtTheEnd<F: Fn()>(F);

impl<F: Fn()> Drop for AtTheEnd<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// A configuration file that HAProxy can't read to its end before somebody writes into it.
struct Gate(PathBuf);

impl Gate {
    fn new(path: PathBuf) -> Self {
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        Self(path)
    }

    /// Lets everybody through who comes while `f` runs.
    fn held_open<T>(&self, f: impl FnOnce() -> T) -> T {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    self.let_through();
                    thread::sleep(Duration::from_millis(5));
                }
            });
            // Also where it fails: the thread must end.
            let _at_the_end = AtTheEnd(|| done.store(true, Ordering::Relaxed));
            f()
        })
    }

    /// Lets those through who wait.
    fn let_through(&self) {
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        if let Ok(mut file) = fs::OpenOptions::new().write(true).custom_flags(flags).open(&self.0) {
            let _ = file.write_all(b"\n");
        }
    }
}

#[test]
fn a_restart_in_progress_is_waited_for() {
    for version in some(&["2.6", "3.0"]) {
        let mut bed = Bed::new();
        let gate = Gate::new(bed.path("gate.cfg"));
        let setup = bed.haproxy(&version).argument("-f").argument(gate.0.to_str().unwrap());
        let mut haproxy = gate.held_open(|| setup.start());
        let cmd = bed.cmd().table(
            &format!("{}\nbinary = \"\"", by_pidfile("haproxy", &haproxy))
                .replace(&format!("binary = {}\n", toml(&version.program)), ""),
        );
        haproxy.kill();
        fs::write(haproxy.pidfile(), format!("{}\n", gone())).unwrap();
        let config = haproxy.config();
        let is_starting =
            || processes().iter().any(|(_, arguments)| arguments.contains(config.to_str().unwrap()));
        let tree = &mut bed.tree;
        let (over, gate) = (AtomicBool::new(false), &gate);
        let is_over = || over.load(Ordering::Relaxed);
        thread::scope(|scope| {
            let run = scope.spawn(|| {
                // It has not come to the gate before; what it reads there of the directory may be old.
                wait_until(LIMIT, "HAProxy starts", is_starting);
                let leaf = tree.renew("a.example");
                let run = cmd.assemble(&[]);
                over.store(true, Ordering::Relaxed);
                (leaf, run)
            });
            let opened = scope.spawn(move || {
                wait_until(LIMIT, "HAProxy starts", is_starting);
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_secs(5) && !is_over() {
                    thread::sleep(Duration::from_millis(20));
                }
                let has_waited = !is_over();
                // A reload comes through it again.
                let begin = Instant::now();
                while !is_over() && begin.elapsed() < LIMIT {
                    gate.let_through();
                    thread::sleep(Duration::from_millis(5));
                }
                has_waited
            });
            // In this thread: HAProxy ends with the one that starts it.
            haproxy.run_again();
            let ((leaf, run), has_waited) = (run.join().unwrap(), opened.join().unwrap());
            assert!(has_waited && run.code == Some(0), "{}: {run}{}", version.full, haproxy.log());
            serves(&haproxy, &leaf);
        });
    }
}

/// Every process with its arguments.
fn processes() -> Vec<(u32, String)> {
    let all =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter_map(|pid: u32| {
        Some((pid, String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).ok()?).into_owned()))
    })
    .collect()
}

/// As in a container beside a HAProxy of the host: its socket is its own, the default places are the host's.
#[test]
fn the_hosts_haproxy_is_not_reloaded_for_the_one_in_a_container() {
    for version in versions() {
        let mut bed = Bed::new();
        let (host, lb) = (bed.haproxy(&version).start(), bed.haproxy(&version).start());
        let before = host.processes();
        let places = format!(
            "unit = \"\"\npidfile = {}\nmaster_socket = {}\nruntime_socket = {}\nbinary = {}\ntimeout = \"30s\"",
            toml(&host.pidfile()),
            toml(&host.master_socket()),
            toml(&lb.stats_socket()),
            toml(&version.program),
        );
        let cmd = bed.cmd().table(&format!("[[haproxy]]\nname = \"lb\"\n{places}"));
        // What memory can't do.
        bed.tree.delete("b.example");
        let run = cmd.assemble(&[]).exits(2);
        let detail = told(&run, 0)["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("belongs to another HAProxy than runtime_socket"), "{}: {run}", version.full);
        assert_eq!(host.processes(), before, "{}: the host's was notified", version.full);
        // With what it says.
        let own = places
            .replace(&toml(&host.pidfile()), &toml(&lb.pidfile()))
            .replace(&toml(&host.master_socket()), "\"\"");
        let cmd = bed.cmd().table(&format!("[[haproxy]]\nname = \"lb\"\n{own}"));
        cmd.assemble(&[]).exits(0);
        assert_eq!(lb.fingerprint(&bed.sites().join("b.example.pem")), None, "{}", version.full);
    }
}

#[test]
fn a_master_socket_without_the_right_to_reload_leaves_it_to_the_pidfile() {
    for version in versions() {
        let mut bed = Bed::new();
        let socket = bed.path("user.sock");
        let argument = format!("{},level,user", socket.display());
        let haproxy = bed.haproxy(&version).argument("-S").argument(&argument).start();
        let mut text = by_pidfile("haproxy", &haproxy).replace("master_socket = \"\"", "");
        writeln!(text, "master_socket = {}", toml(&socket)).unwrap();
        bed.tree.delete("b.example");
        let leaf = bed.renew();
        let run = bed.cmd().table(&text).assemble(&[]).exits(0);
        assert_eq!(told(&run, 0)["method"], "pidfile", "{}: {run}", version.full);
        serves(&haproxy, &leaf);
    }
}

#[test]
fn a_check_that_takes_too_long_leaves_time_for_the_reload() {
    for version in versions().into_iter().filter(|version| version.number() >= (2, 7)) {
        let mut bed = Bed::new();
        let slow = bed.path("slow");
        put(&slow, "#!/bin/sh\nexec sleep 600\n", 0o755);
        let haproxy = bed.haproxy(&version).start();
        let text = format!(
            "[[haproxy]]\nreload = \"master\"\nunit = \"\"\nmaster_socket = {}\nbinary = {}\ntimeout = \"4s\"",
            toml(&haproxy.master_socket()),
            toml(&slow)
        );
        let leaf = bed.renew();
        // Not checked is said, and no more.
        let run = bed.cmd().table(&text).assemble(&[]).exits(0);
        assert_eq!(told(&run, 0)["outcome"], "reloaded", "{}: {run}", version.full);
        serves(&haproxy, &leaf);
    }
}

#[test]
fn what_haproxy_refused_is_tried_again_once_its_configuration_is_mended() {
    for version in versions() {
        let mut bed = Bed::new();
        let level = demanding_openssl(bed.folder.path());
        let haproxy = bed.haproxy(&version).env("OPENSSL_CONF", &level).start();
        let mut text = by_pidfile("haproxy", &haproxy);
        writeln!(text, "runtime_socket = {}", toml(&haproxy.stats_socket())).unwrap();
        let cmd = bed.cmd().table(&text);
        let weak = bed.tree.authority().issue(KeyKind::Rsa2048, &["a.example"], Validity::days(90));
        bed.tree.renew_with("a.example", &weak);
        let refused = cmd.assemble(&[]);
        assert_ne!(refused.code, Some(0), "{refused}");
        assert_eq!(refused.reason("a.example.pem").as_deref(), Some("haproxy-rejects"), "{refused}");
        cmd.assemble(&[]).exits(1);
        // Mended; its worker goes on as it was.
        let text = fs::read_to_string(&level).unwrap().replace("SECLEVEL=3", "SECLEVEL=2");
        fs::write(&level, text).unwrap();
        let run = cmd.assemble(&[]).exits(0);
        assert_eq!(told(&run, 0)["outcome"], "reloaded", "{}: {run}", version.full);
        serves(&haproxy, &weak);
        let again = cmd.assemble(&[]).exits(0);
        assert_eq!(told(&again, 0)["outcome"], "not-needed", "{again}");
    }
}

/// A run that has nothing to do sees it, too.
#[test]
fn what_asks_more_of_keys_is_remembered_of_a_haproxy_that_is_down() {
    for version in versions() {
        let mut bed = Bed::new();
        let level = demanding_openssl(bed.folder.path());
        let mut haproxy = bed.haproxy(&version).env("OPENSSL_CONF", &level).start();
        let cmd = bed.cmd().table(&by_pidfile("haproxy", &haproxy));
        let idle = cmd.assemble(&[]).exits(0);
        assert_eq!(told(&idle, 0)["outcome"], "not-needed", "{}: {idle}", version.full);
        haproxy.stop();
        let weak = bed.tree.authority().issue(KeyKind::Rsa2048, &["a.example"], Validity::days(90));
        bed.tree.renew_with("a.example", &weak);
        let refused = cmd.assemble(&[]).exits(1);
        let reason = refused.reason("a.example.pem");
        assert_eq!(reason.as_deref(), Some("haproxy-rejects"), "{}: {refused}", version.full);
        haproxy.run_again();
    }
}

/// Started twice, by a unit and by hand, say: the kernel gives each client to either.
#[test]
fn another_one_at_the_same_address_is_not_passed_over() {
    for version in versions() {
        let mut bed = Bed::new();
        let haproxy = bed.haproxy(&version).start();
        let mut text = by_pidfile("haproxy", &haproxy);
        writeln!(text, "runtime_socket = {}", toml(&haproxy.stats_socket())).unwrap();
        let cmd = bed.cmd().table(&text);
        cmd.assemble(&[]).exits(0);
        let twice = fs::read_to_string(haproxy.config()).unwrap();
        let twice: String = twice
            .lines()
            .filter(|line| !line.contains("stats socket"))
            .fold(String::new(), |text, line| text + line + "\n");
        let config = bed.folder.path().join("twice.cfg");
        fs::write(&config, twice).unwrap();
        let mut other = Running::start(&version.program, |command| {
            command.arg("-W").arg("-p").arg(bed.folder.path().join("twice.pid")).arg("-f").arg(&config)
        });
        wait_until(LIMIT, "the other one's worker", || !children(other.pid()).is_empty());
        let stale = |run: &Run| run.stdout.contains(&format!("process {} is another HAProxy", other.pid()));
        wait_until(LIMIT, "the other one at the same address", || {
            stale(&cmd.run(&["status", "--format", "json"]))
        });
        let leaf = bed.renew();
        let run = cmd.assemble(&[]).exits(2);
        assert!(told(&run, 0)["confirmed"] == false && stale(&run), "{}: {run}", version.full);
        other.stop();
        let run = cmd.assemble(&[]).exits(0);
        assert_eq!(told(&run, 0)["confirmed"], true, "{}: {run}", version.full);
        cmd.run(&["status"]).exits(0);
        serves(&haproxy, &leaf);
    }
}

/// A second HAProxy that was started with the first one's stats socket: what goes through it reaches the second one only.
#[test]
fn a_table_that_leads_to_two_haproxys_is_confirmed_of_neither() {
    for version in versions() {
        let mut bed = Bed::new();
        let first = bed.haproxy(&version).start();
        let socket = first.stats_socket();
        let mut text = by_pidfile("haproxy", &first);
        writeln!(text, "runtime_socket = {}", toml(&socket)).unwrap();
        let cmd = bed.cmd().table(&text);
        cmd.assemble(&[]).exits(0);
        let second =
            bed.haproxy(&version).global(&format!("stats socket {} level admin", socket.display())).start();
        let leaf = bed.renew();
        let run = cmd.assemble(&[]).exits(2);
        assert!(told(&run, 0)["confirmed"] == false, "{}: {run}", version.full);
        assert!(run.stdout.contains("start one of them with its own"), "{}: {run}", version.full);
        let status = cmd.run(&["status"]);
        assert!(
            status.stdout.contains("of a renewal only one of them is told"),
            "{}: {status}",
            version.full
        );
        // Each with what is its own, and a table.
        let more = format!("name = \"second\"\nunit = \"\"\nbinary = {}\n", toml(&version.program));
        let cmd = bed.cmd().with_tables(&format!("{}{}", by_pidfile("haproxy", &first), second.table(&more)));
        cmd.assemble(&[]).exits(0);
        serves(&first, &leaf);
        serves(&second, &leaf);
        let status = cmd.run(&["status"]);
        assert!(!status.stdout.contains("only one of them"), "{}: {status}", version.full);
    }
}

#[test]
fn a_reload_by_somebody_else_clears_what_was_remembered_and_ours_does_not() {
    for version in some(&["2.6", "3.2"]) {
        let mut bed = Bed::new();
        let level = demanding_openssl(bed.folder.path());
        // So that it is the reload that is refused.
        let version = support::live::unaware(&version, bed.folder.path());
        let mut haproxy = bed.haproxy(&version).env("OPENSSL_CONF", &level).start();
        let cmd = bed.cmd().table(&by_pidfile("haproxy", &haproxy));
        let weak = bed.tree.authority().issue(KeyKind::Rsa2048, &["a.example"], Validity::days(90));
        bed.tree.renew_with("a.example", &weak);
        let better = bed.tree.renew("b.example");
        // Refused and, without it, reloaded.
        let refused = cmd.assemble(&[]);
        assert_ne!(refused.code, Some(0), "{refused}");
        assert_eq!(served(haproxy.address(), "b.example").serial, better.serial());
        let again = cmd.assemble(&[]).exits(1);
        assert_eq!(told(&again, 0)["outcome"], "not-needed", "{}: {again}", version.full);
        haproxy.reload_and_wait();
        let tried = cmd.assemble(&[]);
        assert_ne!(told(&tried, 0)["outcome"], "not-needed", "{}: {tried}", version.full);
        cmd.assemble(&[]).exits(1);
    }
}

#[test]
fn a_failed_reload_says_the_cause_and_what_to_do_and_its_record_keeps_it() {
    let version = version("3.0").unwrap();
    let mut bed = Bed::new();
    let haproxy = bed.haproxy(&version).start();
    let cmd = bed.cmd().table(&by_pidfile("haproxy", &haproxy));
    let config = fs::read_to_string(haproxy.config()).unwrap();
    fs::write(haproxy.config(), format!("{config}  bogus on\n")).unwrap();
    let leaf = bed.renew();
    let detail = told(&cmd.assemble(&[]).exits(2), 0)["detail"].as_str().unwrap().to_owned();
    let (file, line) = (haproxy.config(), config.lines().count() + 1);
    let file = file.display();
    assert!(detail.starts_with(&format!("[{file}:{line}] unknown keyword 'bogus'")), "{detail}");
    // Two versions are installed here: its own is asked.
    let program = version.program.display();
    let advice = format!("mend line {line} of {file}; check it with: {program} -c -f {file}");
    assert!(detail.contains(&advice), "{detail}");
    // For people: no word of other ways, unless they look closely.
    let human = cmd.run(&["assemble"]).exits(2);
    assert!(human.stdout.contains(&advice) && !human.stdout.contains("passed over"), "{human}");
    let close = cmd.run(&["-v", "assemble"]).exits(2);
    assert!(
        close.stdout.contains("passed over: runtime: neither runtime_socket nor master_socket"),
        "{close}"
    );
    let status = cmd.run(&["status", "--format", "json"]).json();
    assert!(status["haproxy"][0]["last_told"]["detail"].as_str().unwrap().starts_with('['), "{status}");
    // What it says, done.
    fs::write(haproxy.config(), config).unwrap();
    assert_eq!(haproxy.check(), Ok(()));
    let human = cmd.run(&["assemble"]).exits(0);
    assert!(human.stdout.contains("reloaded (pidfile, confirmed)\n"), "{human}");
    serves(&haproxy, &leaf);
}

#[test]
fn with_nothing_but_a_warning_the_summary_says_that_all_is_deployed() {
    let bed = Bed::new();
    // A file of somebody else's that sorts first has the name.
    let foreign = bed.tree.authority().issue(KeyKind::P256, &["b.example"], Validity::days(90));
    put(&bed.sites().join("0.pem"), foreign.combined(), 0o400);
    let cmd = bed.cmd().without_haproxy();
    let run = cmd.run(&["assemble"]).exits(1);
    assert!(run.stdout.contains("/sites: deployed, with warnings: "), "{run}");
    assert!(cmd.run(&["status"]).stdout.contains(" ago, deployed, with warnings"));
    // One that isn't deployed is no mere warning.
    bed.tree.overwrite("a.example", support::Kind::Privkey, "");
    let run = cmd.run(&["assemble"]).exits(1);
    assert!(!run.stdout.contains("deployed, with warnings"), "{run}");
}
