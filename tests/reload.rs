//! Reloads and checks against real versions of HAProxy: the system's, and those that `tests/install` has unpacked.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly, their helpers too")]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use haproxy_certs::certified_key::KeyType;
use haproxy_certs::config::{Haproxy, Overrides, Settings};
use haproxy_certs::haproxy::attempt::Attempt;
use haproxy_certs::haproxy::batch::{Batch, Change, Expected};
use haproxy_certs::haproxy::methods::{command, pidfile, systemd};
use haproxy_certs::haproxy::process::config_check::{self, ConfigCheck};
use haproxy_certs::haproxy::process::master::{Master, NotAMaster};
use haproxy_certs::haproxy::process::watch::{Seen, Watch};
use haproxy_certs::haproxy::siblings::Homes;
use haproxy_certs::haproxy::staged_check;
use haproxy_certs::haproxy::start::Start;
use haproxy_certs::haproxy::target::Target;
use haproxy_certs::serving::loads::{Identity, Serving};
use haproxy_certs::sys::system::System;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::fakes::DeafMaster;
use support::{LIMIT, Port, try_served, versions, wait_until};
use tempfile::TempDir;

const PATIENCE: Duration = LIMIT;

/// Every HAProxy that is here.
fn binaries() -> Vec<PathBuf> {
    let unpacked = versions().into_iter().map(|version| version.program);
    unpacked.chain([support::system_haproxy().program]).collect()
}

fn tls(port: u16, certs: &str) -> String {
    format!("bind 127.0.0.1:{port} ssl crt {certs}")
}

/// What needs root is left out without it.
fn are_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// SHA-256, as [`try_served`] has it.
fn digest(der: &[u8]) -> String {
    support::tls::hex(&openssl::sha::sha256(der))
}

/// A self-signed certificate with its key, and the certificate's digest.
fn pem(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    (format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem()), digest(made.cert.der()))
}

/// How a HAProxy is started.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// `-W`
    Master,
    /// The keyword `master-worker` in its configuration.
    Keyword,
    /// `-D`, without a master.
    Daemon,
}

/// A HAProxy of the test's own, with a directory of certificates.
struct Running {
    folder: TempDir,
    child: Child,
    port: Port,
    settings: Haproxy,
}

impl Running {
    fn start(binary: &Path, mode: Mode) -> Self {
        Self::start_with(binary, mode, 1, tls)
    }

    fn start_with(
        binary: &Path,
        mode: Mode,
        certificates: usize,
        bind: impl FnOnce(u16, &str) -> String,
    ) -> Self {
        Self::launch(&[], binary, mode, certificates, bind)
    }

    /// Started by a program that ends by executing the rest of its arguments.
    fn launch(
        launcher: &[&str],
        binary: &Path,
        mode: Mode,
        certificates: usize,
        bind: impl FnOnce(u16, &str) -> String,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certs = folder.path().join("certs");
        fs::create_dir(&certs).unwrap();
        let (text, _) = pem("a.test");
        fs::write(certs.join("a.pem"), &text).unwrap();
        for n in 1..certificates {
            fs::write(certs.join(format!("x{n}.pem")), &text).unwrap();
        }
        let port = Port::free();
        let keyword = if mode == Mode::Keyword { "master-worker" } else { "" };
        let config = format!(
            "global\n  {keyword}\n  stats socket {}/admin.sock level admin\ndefaults\n  mode http\n  \
             timeout client 30s\n  timeout connect 5s\n  timeout server 30s\nfrontend fe\n  {}\n  \
             http-request return status 200\n",
            folder.path().display(),
            bind(port.number(), certs.to_str().unwrap())
        );
        fs::write(folder.path().join("h.cfg"), config).unwrap();
        let pidfile = folder.path().join("pid");
        let mut command = Command::new(launcher.first().map_or(binary, Path::new));
        if let Some((_, rest)) = launcher.split_first() {
            // Another user may have to write the pidfile.
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
            let config = folder.path().join("h.cfg");
            command
                .args(rest.iter().map(|word| word.replace("CONFIG", config.to_str().unwrap())))
                .arg(binary);
        }
        match mode {
            Mode::Master => drop(command.arg("-W")),
            Mode::Keyword => {}
            Mode::Daemon => drop(command.arg("-D")),
        }
        command.arg("-p").arg(&pidfile).arg("-f").arg(folder.path().join("h.cfg"));
        let log = File::create(folder.path().join("log")).unwrap();
        let child =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut settings = settings(folder.path());
        settings.pidfile = pidfile;
        let running = Self { folder, child, port, settings };
        wait_until(LIMIT, "it has a pidfile and serves", || {
            fs::read_to_string(running.settings.pidfile.as_path()).is_ok_and(|text| !text.trim().is_empty())
                && (TcpStream::connect(running.port.address()).is_ok()
                    || running.folder.path().join("fe.sock").exists())
        });
        if mode != Mode::Daemon {
            wait_until(LIMIT, "its master is ready", || running.master().is_ok());
        }
        running
    }

    fn pid(&self) -> i32 {
        fs::read_to_string(&self.settings.pidfile).unwrap().trim().parse().unwrap()
    }

    fn master(&self) -> Result<Master, NotAMaster> {
        Master::open(&System::host(), self.pid())
    }

    fn certs(&self) -> PathBuf {
        self.folder.path().join("certs")
    }

    /// Puts another certificate in the place of `a.pem`.
    fn renew(&self) -> String {
        let (text, sha256) = pem("a.test");
        let next = self.folder.path().join("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, self.certs().join("a.pem")).unwrap();
        sha256
    }

    fn break_configuration(&self) {
        let path = self.folder.path().join("h.cfg");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("  mode http\n", "  mode http\n  bogus 1\n")).unwrap();
    }

    fn served(&self) -> String {
        // Without -x (2.2), connections that wait at a socket which an old worker closes are reset.
        let mut certificate = None;
        wait_until(LIMIT, "a handshake succeeds", || {
            certificate = try_served(self.port.address(), "a.test").ok();
            certificate.is_some()
        });
        certificate.unwrap().sha256
    }

    fn reload(&self) -> Attempt {
        pidfile::reload(&System::host(), &self.settings, &batch(&[change("a.pem")]))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only what this test has started: its command line names the test's own folder.
        let ours = |pid: i32| {
            let own = self.folder.path().to_string_lossy().into_owned();
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&own))
        };
        let mut pids = vec![self.child.id().cast_signed()];
        pids.extend(
            fs::read_to_string(&self.settings.pidfile).ok().and_then(|text| text.trim().parse::<i32>().ok()),
        );
        for pid in pids.clone() {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|word| word.parse::<i32>().ok()));
        }
        for pid in pids {
            if ours(pid) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        drop(self.child.wait());
    }
}

fn settings(folder: &Path) -> Haproxy {
    let flags = Overrides { sites_dir: Some(folder.join("certs")), ..Overrides::default() };
    let mut haproxy = Settings::parse("", &flags).unwrap().haproxys.remove(0);
    haproxy.pidfile = folder.join("pid");
    haproxy.timeout = PATIENCE;
    haproxy
}

fn change(file: &str) -> Change {
    let now = Expected {
        sha1: [0; 20],
        sha256: [0; 32],
        serial: String::new(),
        chain_len: 0,
        key_type: KeyType::EcdsaP256,
        names_won: Vec::new(),
        addable: false,
        can_be_shown: true,
    };
    Change { target: Target::Site(file.to_owned()), now: Some(now) }
}

fn batch(changes: &[Change]) -> Batch<'_> {
    static SERVING: LazyLock<Serving> = LazyLock::new(Serving::default);
    static OURS: LazyLock<BTreeMap<Target, Identity>> = LazyLock::new(BTreeMap::new);
    static HOMES: LazyLock<Homes> = LazyLock::new(Homes::default);
    static START: LazyLock<Start> = LazyLock::new(Start::default);
    let committed = SystemTime::now();
    let read = &|_: &Target| Ok(Vec::new().into());
    // Each run has its own.
    let patience = Box::leak(Box::default());
    Batch { changes, read, committed, serving: &SERVING, ours: &OURS, homes: &HOMES, start: &START, patience }
}

fn seen(attempt: &Attempt) -> Option<bool> {
    match attempt {
        Attempt::Told { seen, .. } => *seen,
        other => panic!("not told: {other:?}"),
    }
}

#[test]
fn a_reload_is_seen_and_then_the_new_certificate_is_served() {
    for binary in binaries() {
        let lb = Running::start(&binary, Mode::Master);
        for _ in 0..3 {
            let renewed = lb.renew();
            let attempt = lb.reload();
            assert_eq!(attempt, Attempt::Told { seen: Some(true), detail: None }, "{}", binary.display());
            assert!(lb.served() == renewed, "{}: another certificate is served", binary.display());
        }
    }
}

#[test]
fn the_keyword_makes_a_master_too() {
    for binary in binaries() {
        let lb = Running::start(&binary, Mode::Keyword);
        let renewed = lb.renew();
        assert_eq!(seen(&lb.reload()), Some(true), "{}", binary.display());
        assert!(lb.served() == renewed);
    }
}

#[test]
fn old_workers_that_linger_with_a_connection_do_not_hide_the_reload() {
    for binary in binaries() {
        let tcp_stats = Port::free();
        let lb = Running::start_with(&binary, Mode::Master, 1, |port, certs| {
            let stats = tcp_stats.number();
            format!(
                "bind 127.0.0.1:{port} ssl crt {certs}\nglobal\n  stats socket ipv4@127.0.0.1:{stats}\nfrontend other\n  bind {certs}.sock"
            )
        });
        let mut open = TcpStream::connect(lb.port.address()).unwrap();
        let master = lb.master().unwrap();
        let before = master.workers();
        let renewed = lb.renew();
        assert_eq!(seen(&lb.reload()), Some(true), "{}", binary.display());
        assert!(lb.served() == renewed);
        assert_eq!(master.workers().intersection(&before).count(), 1, "{}: it has left", binary.display());
        open.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        assert!(open.read(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock));
    }
}

#[test]
fn a_haproxy_without_tcp_listeners_is_seen_by_its_master() {
    for binary in binaries() {
        let lb = Running::start_with(&binary, Mode::Master, 1, |_, certs| {
            let socket = Path::new(certs).with_file_name("fe.sock");
            format!("bind {} ssl crt {certs}", socket.display())
        });
        assert_eq!(seen(&lb.reload()), Some(true), "{}", binary.display());
        fs::write(lb.certs().join("bad.pem"), "junk\n").unwrap();
        let unchecked = Haproxy { binary: None, ..lb.settings.clone() };
        let attempt = pidfile::reload(&System::host(), &unchecked, &batch(&[change("bad.pem")]));
        assert!(
            matches!(attempt, Attempt::Failed(_) | Attempt::Unexplained(_)),
            "{}: {attempt:?}",
            binary.display()
        );
    }
}

#[test]
fn a_configuration_that_is_broken_elsewhere_is_refused_before_any_signal() {
    for binary in binaries() {
        let lb = Running::start(&binary, Mode::Master);
        let workers = lb.master().unwrap().workers();
        lb.break_configuration();
        match lb.reload() {
            Attempt::Refused { words, files } => {
                assert!(words.contains("unknown keyword 'bogus'") && words.contains("h.cfg:"), "{words}");
                assert_eq!(files, []);
            }
            other => panic!("{}: {other:?}", binary.display()),
        }
        assert_eq!(lb.master().unwrap().workers(), workers);
        let log = lb.log();
        assert!(
            !log.contains("Reload") && !log.contains("Reexec"),
            "{}: it was notified: {log}",
            binary.display()
        );
    }
}

#[test]
fn a_broken_file_of_ours_is_named() {
    for binary in binaries() {
        let lb = Running::start(&binary, Mode::Master);
        fs::write(lb.certs().join("b.pem"), "junk\n").unwrap();
        let changes = [change("bb.pem"), change("a.pem"), change("b.pem")];
        match pidfile::reload(&System::host(), &lb.settings, &batch(&changes)) {
            Attempt::Refused { words, files } => {
                assert!(words.contains("/certs/b.pem'"), "{words}");
                assert_eq!(files.len(), 1, "{files:?}");
                assert_eq!(files[0].0, Target::Site("b.pem".into()));
            }
            other => panic!("{}: {other:?}", binary.display()),
        }
    }
}

#[test]
fn a_reload_that_fails_is_noticed_soon_and_the_next_one_works() {
    for binary in binaries() {
        let lb = Running::start(&binary, Mode::Master);
        fs::write(lb.certs().join("b.pem"), "junk\n").unwrap();
        let unchecked = Haproxy { binary: None, ..lb.settings.clone() };
        for _ in 0..2 {
            let begin = Instant::now();
            let attempt = pidfile::reload(&System::host(), &unchecked, &batch(&[change("b.pem")]));
            assert!(
                matches!(&attempt, Attempt::Failed(why) | Attempt::Unexplained(why) if why.contains("could not load")),
                "{}: {attempt:?}",
                binary.display()
            );
            assert!(begin.elapsed() < PATIENCE / 2);
        }
        // With the binary, HAProxy's words explain a failure that only the reload showed.
        let master = lb.master().unwrap();
        let watch = Watch::before(&master, Instant::now() + PATIENCE);
        master.reload_signal().unwrap();
        assert!(matches!(watch.wait(Instant::now() + PATIENCE), Seen::Failed(_)));
        fs::remove_file(lb.certs().join("b.pem")).unwrap();
        let renewed = lb.renew();
        assert_eq!(seen(&lb.reload()), Some(true), "{}", binary.display());
        assert!(lb.served() == renewed);
    }
}

#[test]
fn a_foreign_reload_that_is_going_on_is_not_taken_for_ours() {
    for binary in binaries() {
        let lb = Running::start_with(&binary, Mode::Master, 200, tls);
        let unchecked = Haproxy { binary: None, ..lb.settings.clone() };
        for delay in [0, 10, 40, 120] {
            kill(Pid::from_raw(lb.pid()), Signal::SIGUSR2).unwrap();
            std::thread::sleep(Duration::from_millis(delay)); // not a condition: each moment of a load is tried
            let renewed = lb.renew();
            let attempt = pidfile::reload(&System::host(), &unchecked, &batch(&[change("a.pem")]));
            assert_eq!(seen(&attempt), Some(true), "{}: {attempt:?}", binary.display());
            assert!(lb.served() == renewed, "{}: the old one is served after {delay} ms", binary.display());
        }
    }
}

#[test]
fn a_master_that_takes_its_time_has_not_failed() {
    for binary in binaries() {
        let lb = Running::start(&binary, Mode::Master);
        let master = Pid::from_raw(lb.pid());
        let renewed = lb.renew();
        kill(master, Signal::SIGSTOP).unwrap();
        let attempt = std::thread::scope(|scope| {
            let reloading = scope.spawn(|| lb.reload());
            std::thread::sleep(Duration::from_secs(2)); // not a condition: longer than a failure has to last
            kill(master, Signal::SIGCONT).unwrap();
            reloading.join().unwrap()
        });
        assert_eq!(seen(&attempt), Some(true), "{}: {attempt:?}", binary.display());
        assert!(lb.served() == renewed, "{}", binary.display());
    }
}

#[test]
fn a_worker_of_a_load_that_had_begun_before_proves_nothing() {
    for binary in binaries() {
        let lb = Running::start_with(&binary, Mode::Master, 200, tls);
        let master = lb.master().unwrap();
        let workers = master.workers();
        drop(Watch::before(&master, Instant::now() + PATIENCE)); // now it listens for signals
        kill(Pid::from_raw(lb.pid()), Signal::SIGUSR2).unwrap();
        wait_until(LIMIT, "it executes itself anew", || {
            let line = fs::read(format!("/proc/{}/cmdline", lb.pid())).unwrap();
            String::from_utf8_lossy(&line).contains("-sf")
        });
        // No time to wait for the end of the load.
        let watch = Watch::before(&master, Instant::now());
        wait_until(LIMIT, "its worker serves", || {
            let now = master.workers();
            !now.is_empty() && now.is_disjoint(&workers)
        });
        match watch.wait(Instant::now() + Duration::from_secs(1)) {
            Seen::TimedOut => {}
            Seen::Failed(why) if why.contains("was loading") => {}
            other => panic!("{}: {other:?}", binary.display()),
        }
    }
}

#[test]
fn a_worker_in_the_pidfile_is_not_told() {
    for binary in binaries() {
        let lb = Running::start(&binary, Mode::Master);
        let master = lb.pid();
        let worker = lb.master().unwrap().workers().first().unwrap().pid;
        fs::write(&lb.settings.pidfile, format!("{worker}\n")).unwrap();
        match lb.reload() {
            Attempt::Failed(why) => {
                assert!(why.contains("is a HAProxy worker") && why.contains(&master.to_string()), "{why}");
            }
            other => panic!("{}: {other:?}", binary.display()),
        }
        fs::write(&lb.settings.pidfile, format!("{master}\n")).unwrap();
    }
}

#[test]
fn a_daemon_without_a_master_is_not_told() {
    for binary in binaries() {
        let lb = Running::start(&binary, Mode::Daemon);
        match lb.reload() {
            Attempt::Failed(why) => assert!(why.contains("without master-worker mode"), "{why}"),
            other => panic!("{}: {other:?}", binary.display()),
        }
    }
}

#[test]
fn a_haproxy_that_is_still_starting_is_waited_for() {
    for binary in binaries() {
        let begin = Instant::now();
        let mut early = 0;
        // Its first moments go by too fast to be met for certain: try until they were.
        while early == 0 && begin.elapsed() < PATIENCE {
            let lb = Running::start_with(&binary, Mode::Master, 300, tls);
            let mut second = Command::new(&binary)
                .args(["-W", "-f"])
                .arg(lb.folder.path().join("h.cfg"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let pid = second.id().cast_signed();
            let first = Master::open(&System::host(), pid);
            early += i32::from(matches!(first, Err(NotAMaster::Starting(_))));
            let opened = Master::open_started(&System::host(), pid, Instant::now() + PATIENCE);
            let stranger = matches!(first, Err(NotAMaster::Stranger { .. })); // not executed yet
            assert!(opened.is_ok() || stranger, "{}: {opened:?}", binary.display());
            let mut workers = opened.map(|master| master.workers()).unwrap_or_default();
            second.kill().unwrap();
            second.wait().unwrap();
            workers.retain(|worker| {
                fs::read_to_string(format!("/proc/{}/cmdline", worker.pid))
                    .is_ok_and(|line| line.contains(lb.folder.path().to_str().unwrap()))
            });
            for worker in workers {
                let _ = kill(Pid::from_raw(worker.pid), Signal::SIGKILL);
            }
        }
        assert!(early > 0, "{}: never met while it started", binary.display());
    }
}

#[test]
fn a_stranger_is_never_signalled() {
    let folder = tempfile::tempdir().unwrap();
    let mut stranger = Command::new("/bin/sleep").arg("600").spawn().unwrap();
    let haproxy = settings(folder.path());
    fs::write(&haproxy.pidfile, format!("{}\n", stranger.id())).unwrap();
    let attempt = pidfile::reload(&System::host(), &haproxy, &batch(&[]));
    let alive = stranger.try_wait().unwrap().is_none();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(
        matches!(&attempt, Attempt::Failed(why) if why.contains("is sleep") && why.contains("stale")),
        "{attempt:?}"
    );
    assert!(alive);
    // The same number again: nobody is there now.
    let attempt = pidfile::reload(&System::host(), &haproxy, &batch(&[]));
    assert!(
        matches!(&attempt, Attempt::NotRunning(why) if why.contains("there is no process")),
        "{attempt:?}"
    );
}

#[test]
fn a_program_that_only_has_the_name_is_never_signalled() {
    let folder = tempfile::tempdir().unwrap();
    let fake = folder.path().join("haproxy-fake");
    fs::copy("/bin/sleep", &fake).unwrap();
    let mut stranger = Command::new(&fake).arg("600").spawn().unwrap();
    let haproxy = Haproxy { timeout: Duration::from_millis(300), ..settings(folder.path()) };
    fs::write(&haproxy.pidfile, format!("{}\n", stranger.id())).unwrap();
    let attempt = pidfile::reload(&System::host(), &haproxy, &batch(&[]));
    let alive = stranger.try_wait().unwrap().is_none();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(matches!(attempt, Attempt::Failed(_)), "{attempt:?}");
    assert!(alive);
}

/// Not a HAProxy: those of 3.1 to 3.3 that become so have been mended in the versions that there are packages of.
#[test]
fn a_master_that_holds_the_signal_back_for_good_is_noticed() {
    let deaf = DeafMaster::start("read line");
    let watch = deaf.watch().deaf_after(Duration::from_secs(2));
    deaf.master.reload_signal().unwrap();
    let seen = watch.wait(Instant::now() + Duration::from_secs(90));
    assert!(matches!(&seen, Seen::Failed(why) if why.contains("holds SIGUSR2 back")), "{seen:?}");
}

/// Not a HAProxy either: what one of 3.1 to 3.3 does whose reload failed.
#[test]
fn a_master_that_lost_its_worker_and_holds_the_signal_back_is_noticed() {
    // Each line ends a step: the first image, its worker, itself.
    let script = "read line; exec SELF -c 'exec 3<&0; (read line <&3) & wait; read line' -W";
    // Its worker must live long enough to be looked at: longer and longer, where it wasn't.
    let noticed = [1, 2, 4, 8].into_iter().any(|seconds| {
        let lost = DeafMaster::start(script);
        let watch = lost.watch();
        lost.say("reload");
        wait_until(LIMIT, "it has a worker", || !lost.master.workers().is_empty());
        let seen = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| watch.wait(Instant::now() + Duration::from_secs(20)));
            std::thread::sleep(Duration::from_secs(seconds));
            lost.say("end");
            waiting.join().unwrap()
        });
        matches!(seen, Seen::Failed(why) if why.contains("holds signals back since"))
    });
    assert!(noticed);
}

#[test]
fn what_is_no_pidfile_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let haproxy = settings(folder.path());
    let reload = || pidfile::reload(&System::host(), &haproxy, &batch(&[]));
    assert!(matches!(reload(), Attempt::NotApplicable(why) if why.contains("no pidfile")));
    fs::write(&haproxy.pidfile, "none\n").unwrap();
    assert!(matches!(reload(), Attempt::Failed(why) if why.contains("holds no process id")));
}

#[test]
fn the_check_uses_what_the_master_was_started_with() {
    for binary in binaries() {
        let lb = Running::start(&binary, Mode::Master);
        let master = lb.master().unwrap();
        let check = |haproxy: &Haproxy| {
            config_check::check(&System::host(), haproxy, &master, Instant::now() + PATIENCE)
        };
        assert_eq!(check(&lb.settings), ConfigCheck::Valid, "{}", binary.display());
        let never = Haproxy { binary: None, ..lb.settings.clone() };
        assert!(matches!(check(&never), ConfigCheck::Unchecked(_)));
        let other = lb.folder.path().join("other.cfg");
        fs::write(&other, "global\n bogus\n").unwrap();
        let files = Haproxy { config: vec![other], ..lb.settings.clone() };
        assert!(matches!(check(&files), ConfigCheck::Invalid { words, .. } if words.contains("bogus")));
        let crash = script(lb.folder.path(), "crash", "kill -SEGV $$");
        let crashing = Haproxy { binary: Some(crash), ..lb.settings.clone() };
        match check(&crashing) {
            ConfigCheck::Unchecked(why) => assert!(why.contains("signal 11"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_check_is_done_in_the_masters_directory() {
    let launcher = ["/bin/sh", "-c", "cd \"$(dirname CONFIG)\" && exec \"$@\"", "sh"];
    for binary in binaries() {
        let lb = Running::launch(&launcher, &binary, Mode::Master, 1, |port, _| tls(port, "certs"));
        let check = config_check::check(
            &System::host(),
            &lb.settings,
            &lb.master().unwrap(),
            Instant::now() + PATIENCE,
        );
        assert_eq!(check, ConfigCheck::Valid, "{}", binary.display());
    }
}

#[test]
fn the_check_of_another_users_master_runs_as_that_user() {
    if !are_root() {
        support::summary::skipped("the_check_of_another_users_master_runs_as_that_user", "it needs root");
        return;
    }
    let launcher = ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--groups=65533", "--"];
    let plain = ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    for (launcher, in_group) in [(launcher, true), (plain, false)] {
        for binary in binaries() {
            let lb = Running::launch(&launcher, &binary, Mode::Master, 1, tls);
            let master = lb.master().unwrap();
            let check =
                || config_check::check(&System::host(), &lb.settings, &master, Instant::now() + PATIENCE);
            assert_eq!(check(), ConfigCheck::Valid, "{}", binary.display());
            // Root would read it.
            let closed = lb.certs().join("closed.pem");
            fs::copy(lb.certs().join("a.pem"), &closed).unwrap();
            std::os::unix::fs::chown(&closed, Some(0), Some(65533)).unwrap();
            fs::set_permissions(&closed, fs::Permissions::from_mode(0o640)).unwrap();
            match check() {
                ConfigCheck::Valid => assert!(in_group, "{}: run as root", binary.display()),
                ConfigCheck::Invalid { words, .. } => {
                    assert!(!in_group && words.contains("closed.pem"), "{}: {words}", binary.display());
                }
                ConfigCheck::Unchecked(why) => panic!("{}: {why}", binary.display()),
            }
            if in_group {
                assert_eq!(seen(&lb.reload()), Some(true));
            }
        }
    }
}

#[test]
fn a_master_that_sees_other_files_is_not_checked() {
    if !are_root() {
        support::summary::skipped("a_master_that_sees_other_files_is_not_checked", "it needs root");
        return;
    }
    let other = "cp CONFIG CONFIG.2 && mount --bind CONFIG.2 CONFIG && exec \"$@\"";
    for (script, same) in [("exec \"$@\"", true), (other, false)] {
        for binary in binaries() {
            let launcher = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", script, "sh"];
            let lb = Running::launch(&launcher, &binary, Mode::Master, 1, tls);
            let master = lb.master().unwrap();
            match config_check::check(&System::host(), &lb.settings, &master, Instant::now() + PATIENCE) {
                ConfigCheck::Valid => assert!(same, "{}", binary.display()),
                ConfigCheck::Unchecked(why) => assert!(!same && why.contains("container"), "{why}"),
                ConfigCheck::Invalid { words, .. } => panic!("{}: {words}", binary.display()),
            }
            let renewed = lb.renew();
            assert_eq!(seen(&lb.reload()), Some(true), "{}", binary.display());
            assert!(lb.served() == renewed);
        }
    }
}

#[test]
fn workers_of_another_user_in_a_chroot_are_seen() {
    if !are_root() {
        support::summary::skipped("workers_of_another_user_in_a_chroot_are_seen", "it needs root");
        return;
    }
    for binary in binaries() {
        let lb = Running::start_with(&binary, Mode::Master, 1, |port, certs| {
            format!(
                "{}\nglobal\n  user nobody\n  chroot /var/empty\nfrontend other\n  bind {certs}.sock",
                tls(port, certs)
            )
            .replace("/var/empty", Path::new(certs).parent().unwrap().to_str().unwrap())
        });
        let open = TcpStream::connect(lb.port.address()).unwrap();
        let renewed = lb.renew();
        assert_eq!(lb.reload(), Attempt::Told { seen: Some(true), detail: None }, "{}", binary.display());
        assert!(lb.served() == renewed);
        drop(open);
    }
}

/// Written by another process: a file that this one has open for writing, if only in a child of another thread,
/// can't be executed.
fn script(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    let mut copy = Command::new("/usr/bin/install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(copy.stdin.take().unwrap(), "#!/bin/sh\n{text}").unwrap();
    assert!(copy.wait().unwrap().success());
    path.to_str().unwrap().to_owned()
}

/// A directory of staged files below a folder of its own.
fn stage(folder: &Path, name: &str, files: &[(&str, &str)]) -> (PathBuf, Vec<String>) {
    let dir = folder.join(name);
    fs::create_dir(&dir).unwrap();
    for (file, text) in files {
        fs::write(dir.join(file), text).unwrap();
    }
    (dir, files.iter().map(|(file, _)| (*file).to_owned()).collect())
}

fn ask(binary: &Path, dir: &Path, files: &[String]) -> staged_check::StagedCheck {
    let folder = tempfile::tempdir().unwrap();
    let haproxy = Haproxy { binary: Some(binary.to_str().unwrap().to_owned()), ..settings(folder.path()) };
    let mut remove = |file: &str| fs::remove_file(dir.join(file));
    staged_check::staged(&System::host(), &haproxy, None, dir, files, Instant::now() + PATIENCE, &mut remove)
}

#[test]
fn staged_files_are_asked_about_one_by_one() {
    let (good, _) = pem("good.test");
    let (other, _) = pem("other.test");
    let key = good.split_once("-----BEGIN CERT").unwrap().0;
    let certificate = &other[other.find("-----BEGIN CERT").unwrap()..];
    let crossed = format!("{key}{certificate}");
    for binary in binaries() {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            ("a.pem", "junk\n"),
            ("aa.pem", good.as_str()),
            ("b.pem", crossed.as_str()),
            ("c d.pem", certificate),
            ("z.pem", other.as_str()),
        ];
        for name in ["stage", "o'd d \"q\" #h \\b $HOME ;*\u{fc}"] {
            let (dir, names) = stage(folder.path(), name, &files);
            let answer = ask(&binary, &dir, &names);
            assert_eq!(answer.checked, Ok(()), "{}: {name}", binary.display());
            let rejected: Vec<&str> = answer.rejected.iter().map(|(file, _)| file.as_str()).collect();
            assert_eq!(rejected, ["a.pem", "b.pem", "c d.pem"], "{}: {answer:?}", binary.display());
            assert!(answer.rejected[1].1.starts_with("inconsistencies"), "{answer:?}");
            assert!(answer.rejected[2].1.starts_with("No Private Key found in 'c d.pem"), "{answer:?}");
            let left: Vec<_> =
                fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(left, std::slice::from_ref(&dir), "the configuration is gone");
            fs::remove_dir_all(dir).unwrap();
        }
    }
}

#[test]
fn however_many_staged_files_are_bad_each_has_its_own_answer() {
    let (good, _) = pem("good.test");
    let is_bad = [
        |number: usize| number % 25 < 20,
        |number: usize| [17, 130, 298].contains(&number),
        |number: usize| number > 0,
    ];
    for binary in [binaries().remove(0), binaries().pop().unwrap()] {
        for is_bad in is_bad {
            let folder = tempfile::tempdir().unwrap();
            let names: Vec<String> = (0..300).map(|n| format!("{n:03}.pem")).collect();
            let text = |number| if is_bad(number) { "junk\n" } else { good.as_str() };
            let files: Vec<(&str, &str)> =
                names.iter().enumerate().map(|(number, name)| (name.as_str(), text(number))).collect();
            let (dir, names) = stage(folder.path(), "stage", &files);
            let answer = ask(&binary, &dir, &names);
            let rejected: BTreeSet<&str> = answer.rejected.iter().map(|(file, _)| file.as_str()).collect();
            let bad: BTreeSet<&str> = names
                .iter()
                .enumerate()
                .filter(|(number, _)| is_bad(*number))
                .map(|(_, name)| name.as_str())
                .collect();
            assert_eq!(rejected, bad, "{}", binary.display());
            assert_eq!((answer.rejected.len(), answer.checked), (bad.len(), Ok(())));
            assert!(
                answer.rejected.iter().all(|(file, said)| said.contains(file.as_str())),
                "{:?}",
                answer.rejected
            );
        }
    }
}

/// A file on which HAProxy crashes, and time that runs out: only what has no answer is unchecked.
#[test]
fn what_has_no_answer_is_unchecked_and_the_others_have_theirs() {
    let (good, _) = pem("good.test");
    let real = binaries().pop().unwrap();
    let names: Vec<String> = (0..40).map(|n| format!("{n:02}.pem")).collect();
    let text = |name: &str| if name == "07.pem" { "junk\n" } else { good.as_str() };
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), text(name))).collect();
    let exec = format!("exec {} \"$@\"", real.display());
    let crashes =
        format!("if grep -q \"crt '.*/\\(33.pem\\|stage\\)'\" \"$3\"; then kill -SEGV $$; fi\n{exec}");
    let slow = format!("if grep -q 00.pem \"$3\"; then sleep 600; fi\n{exec}");
    for (name, text, unchecked) in
        [("crashes", crashes, vec!["33.pem".to_owned()]), ("slow", slow, names.clone())]
    {
        let folder = tempfile::tempdir().unwrap();
        let (dir, names) = stage(folder.path(), "stage", &files);
        let binary = script(folder.path(), name, &text);
        let haproxy = Haproxy { binary: Some(binary), ..settings(folder.path()) };
        let limit = if name == "slow" { Duration::from_secs(3) } else { PATIENCE };
        let mut remove = |file: &str| fs::remove_file(dir.join(file));
        let answer = staged_check::staged(
            &System::host(),
            &haproxy,
            None,
            &dir,
            &names,
            Instant::now() + limit,
            &mut remove,
        );
        let rejected: Vec<&str> = answer.rejected.iter().map(|(file, _)| file.as_str()).collect();
        let files = answer.checked.unwrap_err().files;
        if name == "slow" {
            // The directory has named the junk, the lines never answer.
            assert_eq!(rejected, ["07.pem"]);
            assert_eq!(files, unchecked.into_iter().filter(|name| name != "07.pem").collect());
        } else {
            assert_eq!(rejected, ["07.pem"]);
            assert_eq!(files, unchecked.into_iter().collect());
        }
    }
}

#[test]
fn what_cannot_be_asked_is_unchecked_and_nothing_is_rejected() {
    let (good, _) = pem("good.test");
    let folder = tempfile::tempdir().unwrap();
    let (dir, names) = stage(folder.path(), "stage", &[("a.pem", good.as_str())]);
    let path = |name, text| PathBuf::from(script(folder.path(), name, text));
    for (binary, said) in [
        (path("crash", "kill -ABRT $$"), "signal 6"),
        (
            path("odd", "echo \"[ALERT] (1) : config : unknown keyword 'ssl'\"; exit 1"),
            "unknown keyword 'ssl'",
        ),
        (path("silent", "exit 3"), "status 3"),
        (PathBuf::from("/nonexistent/haproxy"), "no program"),
    ] {
        let answer = ask(&binary, &dir, &names);
        assert_eq!(answer.rejected, []);
        let unchecked = answer.checked.unwrap_err();
        assert!(unchecked.why.contains(said), "{unchecked:?}");
        assert_eq!(unchecked.files.into_iter().collect::<Vec<_>>(), names);
    }
    let hangs = path("hangs", "sleep 600");
    let haproxy = Haproxy { binary: Some(hangs.to_str().unwrap().into()), ..settings(folder.path()) };
    let deadline = Instant::now() + Duration::from_millis(200);
    let answer = staged_check::staged(&System::host(), &haproxy, None, &dir, &names, deadline, &mut |_| {
        panic!("removed")
    });
    assert!(answer.checked.unwrap_err().why.contains("too long"));
}

/// A system whose `systemctl` is a stand-in: a script that answers from files and, for `reload`, sends the signal as
/// the packages' units do. It is not systemd.
fn stand_in(folder: &Path, show: &str, reload: &str) -> System {
    let programs = folder.join("programs");
    fs::create_dir_all(&programs).unwrap();
    fs::create_dir_all(folder.join("run/systemd/system")).unwrap();
    let text = format!(
        "# a stand-in for systemctl, in a test\ncase \"$*\" in\n*' show '*) cat <<X\n{show}\nX\n;;\n*' reload -- haproxy.service') {reload};;\n*) exit 99;;\nesac"
    );
    script(&programs, "systemctl", &text);
    System { run: folder.join("run"), programs: vec![programs], ..System::host() }
}

#[test]
fn a_unit_is_reloaded_and_its_processes_watched() {
    for binary in binaries() {
        let lb = Running::start(&binary, Mode::Master);
        let show = format!(
            "LoadState=loaded\nActiveState=active\nSubState=running\nMainPID={}\nStatusText=",
            lb.pid()
        );
        let system = stand_in(lb.folder.path(), &show, &format!("kill -USR2 {}", lb.pid()));
        let reload = |haproxy: &Haproxy| systemd::reload(&system, haproxy, &batch(&[change("b.pem")]));
        let renewed = lb.renew();
        assert_eq!(
            reload(&lb.settings),
            Attempt::Told { seen: Some(true), detail: None },
            "{}",
            binary.display()
        );
        assert!(lb.served() == renewed);

        fs::write(lb.certs().join("b.pem"), "junk\n").unwrap();
        match reload(&lb.settings) {
            Attempt::Refused { files, .. } => assert_eq!(files[0].0, Target::Site("b.pem".into())),
            other => panic!("{}: {other:?}", binary.display()),
        }
        let unchecked = Haproxy { binary: None, ..lb.settings.clone() };
        assert!(
            matches!(reload(&unchecked), Attempt::Failed(_) | Attempt::Unexplained(_)),
            "{}",
            binary.display()
        );
        fs::remove_file(lb.certs().join("b.pem")).unwrap();

        let system = stand_in(lb.folder.path(), &show, "echo 'Job for haproxy.service failed.' >&2; exit 1");
        match systemd::reload(&system, &lb.settings, &batch(&[])) {
            Attempt::Failed(why) | Attempt::Unexplained(why) => {
                assert!(why.contains("status 1: Job for haproxy.service failed."), "{why}");
            }
            other => panic!("{}: {other:?}", binary.display()),
        }
    }
}

#[test]
fn a_unit_that_does_not_run_is_told_apart_from_one_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let haproxy = Haproxy { timeout: Duration::from_millis(500), ..settings(folder.path()) };
    let ask = |show: &str| {
        let system = stand_in(folder.path(), show, "exit 98");
        systemd::reload(&system, &haproxy, &batch(&[]))
    };
    assert!(
        matches!(ask("LoadState=loaded\nActiveState=inactive"), Attempt::NotRunning(why) if why.contains("is inactive"))
    );
    assert!(matches!(ask("LoadState=loaded\nActiveState=failed"), Attempt::NotRunning(_)));
    assert!(
        matches!(ask("LoadState=not-found\nActiveState=inactive"), Attempt::NotApplicable(why) if why.contains("unknown"))
    );
    assert!(matches!(ask("LoadState=masked\nActiveState=inactive"), Attempt::NotApplicable(_)));
    assert!(
        matches!(ask("LoadState=loaded\nActiveState=activating\nSubState=auto-restart"), Attempt::Failed(why) | Attempt::Unexplained(why) if why.contains("auto-restart"))
    );
    assert!(
        matches!(ask("LoadState=loaded\nActiveState=active\nMainPID=0"), Attempt::Failed(why) | Attempt::Unexplained(why) if why.contains("status 98"))
    );
    let system = stand_in(
        folder.path(),
        "LoadState=loaded\nActiveState=active\nMainPID=0\nStatusText=Ready.",
        "exit 0",
    );
    assert_eq!(seen(&systemd::reload(&system, &haproxy, &batch(&[]))), None);
    let text = "LoadState=loaded\nActiveState=active\nMainPID=0\nStatusText=Reload failed!";
    let system = stand_in(folder.path(), text, "exit 0");
    assert!(
        matches!(systemd::reload(&system, &haproxy, &batch(&[])), Attempt::Failed(why) | Attempt::Unexplained(why) if why.contains("Reload failed!"))
    );
    let none = System { run: folder.path().join("none"), ..System::host() };
    assert!(
        matches!(systemd::reload(&none, &haproxy, &batch(&[])), Attempt::NotApplicable(why) if why.contains("PID 1"))
    );
}

#[test]
fn the_operators_command_is_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        let command = words.iter().map(|&word| word.to_owned()).collect();
        command::run(
            &System::host(),
            &Haproxy { command, timeout: Duration::from_secs(1), ..settings(folder.path()) },
            &batch(&[]),
            false,
        )
    };
    assert_eq!(run(&["true"]), Attempt::Told { seen: None, detail: None });
    assert!(matches!(run(&["/bin/sh", "-c", "echo no; echo 'b\u{e4}d'; exit 4"]),
        Attempt::Failed(why) | Attempt::Unexplained(why) if why == "/bin/sh ended with status 4: b\\xc3\\xa4d"));
    assert!(matches!(run(&["no-such-program"]), Attempt::Failed(why) if why.contains("no program")));
    assert!(
        matches!(run(&["sleep", "600"]), Attempt::Failed(why) | Attempt::Unexplained(why) if why.contains("too long"))
    );
}
