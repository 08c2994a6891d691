//! From an empty host to renewed certificates that are served: `init`, `haproxy-config`, `issue`, `renew`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::process::{Running, finish};
use support::{Cmd, LIMIT, Pebble, Port, Version, served, try_served, versions, wait_until};

/// A host without anything: certbot's configuration directory isn't there yet.
fn host() -> (tempfile::TempDir, PathBuf, Cmd) {
    let temporary = tempfile::Builder::new().prefix("haproxy-certs-ship-").tempdir().unwrap();
    let letsencrypt = temporary.path().join("letsencrypt");
    let cmd = Cmd::new(letsencrypt.join("live"));
    let host_file = cmd.beside("host.pem");
    let cmd = cmd.option(&format!("host_file = {}", support::cmd::toml(&host_file)));
    (temporary, letsencrypt, cmd)
}

/// Every path below a directory, with what distinguishes it.
fn snapshot(folder: &Path) -> Vec<String> {
    let mut all: Vec<String> = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let data = entry.metadata().unwrap();
            let bytes = if data.is_file() {
                openssl::sha::sha256(&fs::read(entry.path()).unwrap()).to_vec()
            } else {
                vec![]
            };
            format!("{} {:o} {bytes:?}", entry.path().display(), data.permissions().mode())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn init_makes_a_host_ready_and_is_safe_to_repeat() {
    let (temporary, letsencrypt, cmd) = host();
    let hook = letsencrypt.join("renewal-hooks/post/haproxy-certs");
    let host_file = cmd.beside("host.pem");

    cmd.config();
    let before = (snapshot(temporary.path()), snapshot(cmd.sites().parent().unwrap()));
    let dry = cmd.run(&["init", "--hook", "--dry-run"]).exits(0);
    assert_eq!(dry.stdout.matches("to make ").count(), 3, "{dry}");
    assert!(dry.stdout.is_ascii());
    assert_eq!(before, (snapshot(temporary.path()), snapshot(cmd.sites().parent().unwrap())));

    let first = cmd.run(&["init", "--hook"]).exits(0);
    assert_eq!(first.stdout.matches("made ").count(), 3, "{first}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&cmd.sites()), mode(&host_file)), (0o700, 0o400));
    assert_eq!(fs::read_link(&hook).unwrap(), Cmd::program());
    let pem = fs::read(&host_file).unwrap();
    let key = openssl::pkey::PKey::private_key_from_pem(&pem).unwrap();
    assert!(openssl::x509::X509::from_pem(&pem).unwrap().public_key().unwrap().public_eq(&key));

    let ready = snapshot(cmd.sites().parent().unwrap());
    let again = cmd.run(&["init", "--hook"]).exits(0);
    assert_eq!(again.stdout.matches("there ").count(), 3, "{again}");
    assert_eq!(ready, snapshot(cmd.sites().parent().unwrap()));

    // Neither the sweep nor status takes the placeholder for something that was deployed.
    let sweep = cmd.assemble(&[]).exits(0);
    assert_eq!(sweep.json()["error"], serde_json::Value::Null);
    assert_eq!(pem, fs::read(&host_file).unwrap());
}

/// The files of an earlier script: only `init`, or a run by hand, makes what haproxy-certs.service waits for.
#[test]
fn in_a_directory_that_was_there_init_makes_what_the_service_waits_for() {
    let (_temporary, _, cmd) = host();
    support::tree::make_directory(&cmd.sites(), 0o700);
    let own = cmd.sites().join(".haproxy-certs");
    for only_looking in [&["assemble", "--dry-run"][..], &["status", "--setup"], &["init", "--dry-run"]] {
        cmd.run(only_looking);
        assert!(!own.exists(), "{only_looking:?}");
    }
    let first = cmd.run(&["init"]).exits(0);
    assert!(first.stdout.contains(&format!("made       {} (what", own.display())), "{first}");
    assert!(own.is_dir());
    let again = cmd.run(&["init"]).exits(0);
    assert_eq!(again.stdout.matches("there ").count(), 2, "{again}");
}

/// The units of a host whose places aren't the default ones: those below `/tmp` can't be seen without being told, and what
/// systemd protects has to be opened.
#[test]
fn the_units_are_told_of_other_places_the_metrics_too() {
    let (_temporary, _, cmd) = host();
    let units = tempfile::tempdir().unwrap();
    let names = ["haproxy-certs.service", "haproxy-certs-metrics.service"];
    for name in names {
        let packaged = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name);
        fs::copy(packaged, units.path().join(name)).unwrap();
    }
    let init = |arguments: &[&str]| {
        let script = "mount --bind \"$1\" /etc/systemd/system && shift && exec \"$@\"";
        let mut command = std::process::Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).arg(units.path()).arg(Cmd::program());
        command.arg("--config").arg(cmd.config()).args(arguments);
        cmd.prepare(&mut command);
        let output = finish(&mut command, LIMIT);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let told = |name: &str| fs::read_to_string(units.path().join(format!("{name}.d/paths.conf"))).unwrap();
    let said = init(&["init"]);
    for name in names {
        assert!(said.contains(&format!("(tells {name} of these directories)")), "{said}");
        assert!(told(name).contains("\nPrivateTmp=no\n"), "{}", told(name));
        // systemd understands each line.
        let mut verify = std::process::Command::new("systemd-analyze");
        verify.args(["verify", "--man=no"]).arg(units.path().join(name));
        let verified = String::from_utf8(finish(&mut verify, LIMIT).stderr).unwrap();
        assert!(!verified.contains("paths.conf"), "{verified}");
    }
    let metrics = told(names[1]);
    let lines: Vec<&str> =
        metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert_eq!(lines, ["[Service]", "PrivateTmp=no"], "{metrics}");
    let again = init(&["init"]);
    assert!(!again.contains("made "), "{again}");
}

#[test]
fn what_cannot_be_loaded_is_no_host_certificate() {
    let (_temporary, _, cmd) = host();
    let file = cmd.beside("host.pem");
    symlink("nowhere", &file).unwrap();
    let dangling = cmd.run(&["init"]).exits(1);
    assert!(dangling.stdout.contains("left alone"), "{dangling}");
    assert!(dangling.stdout.contains("a link that leads nowhere"), "{dangling}");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let directory = cmd.run(&["init"]).exits(1);
    assert!(directory.stdout.contains("a directory has this name"), "{directory}");
    fs::remove_dir(&file).unwrap();
    cmd.run(&["init"]).exits(0);
    assert!(file.is_file());
}

#[test]
fn the_configuration_is_written_once_and_means_the_defaults() {
    let (_temporary, _, cmd) = host();
    let file = cmd.beside("new.toml");
    let init = |more: &[&str]| {
        // Alone among processes: it goes by a HAProxy that runs.
        let mut command = std::process::Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--"]).arg(Cmd::program());
        finish(command.arg("--config").arg(&file).arg("init").args(more), LIMIT)
    };
    assert_eq!(init(&["--dry-run"]).status.code(), Some(3), "a file that is named has to be there");
    assert_eq!(init(&["--write-config", "--dry-run"]).status.code(), Some(0));
    assert!(!file.exists(), "a dry run");
    let made = init(&["--write-config"]);
    let text = fs::read_to_string(&file).unwrap();
    assert!(String::from_utf8_lossy(&made.stdout).starts_with("made "), "{made:?}");
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
    // It says what the defaults are, as packaging/check makes sure of, and stays as it is edited.
    fs::write(&file, format!("{text}mode = \"0440\"\n")).unwrap();
    let again = init(&["--write-config"]);
    assert!(String::from_utf8_lossy(&again.stdout).starts_with("there "), "{again:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{text}mode = \"0440\"\n"));
    assert!(!cmd.sites().exists(), "nothing else is made");
}

/// What the next run, without the options, goes by.
#[test]
fn the_configuration_has_the_directories_that_were_given() {
    let mut tree = support::Tree::new();
    tree.issue("a.test", support::KeyKind::P256, &["a.test"], support::Validity::days(90));
    let cmd = Cmd::new(tree.live());
    let file = cmd.beside("given.toml");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new("unshare");
        command
            .args(["--pid", "--fork", "--mount-proc", "--"])
            .arg(Cmd::program())
            .arg("--config")
            .arg(&file);
        let output = finish(command.args(arguments), LIMIT);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (live_dir, sites_dir) = (tree.live(), cmd.beside("other"));
    let (live, sites) = (live_dir.to_str().unwrap(), sites_dir.to_str().unwrap());
    let write = ["--live-dir", live, "--sites-dir", sites, "init", "--write-config"];
    let (code, said) = run(&write);
    assert!(code == Some(0) && !said.contains("all of them are comments"), "{said}");
    let (code, said) = run(&["assemble", "--reload", "none"]);
    assert!(code == Some(0) && sites_dir.join("a.test.pem").is_file(), "{said}");
    // One that was edited stays, and what was given is said; where it has that already, there is nothing to say.
    assert!(!run(&write).1.contains("was edited"));
    let other = run(&["--live-dir", "/srv/live", "init", "--write-config"]).1;
    assert!(other.contains("was edited") && other.contains("-> live_dir = \"/srv/live\"\n"), "{other}");
    assert!(!fs::read_to_string(&file).unwrap().contains("/srv/live"));
}

/// What is printed at this width where no HAProxy of another test is in sight, without the commands, which are never
/// broken.
fn printed(cmd: &Cmd, columns: &str, arguments: &[&str]) -> (Vec<String>, Vec<String>) {
    let mut command = std::process::Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc"]).arg(Cmd::program()).arg("--config");
    command.arg(cmd.config()).args(arguments).env("COLUMNS", columns);
    let output = finish(&mut command, LIMIT);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(ToOwned::to_owned).partition(|line| !line.starts_with("       -> "))
}

#[test]
fn init_and_assemble_break_their_lines_at_words() {
    let mut tree = support::Tree::new();
    tree.issue("a.test", support::KeyKind::P256, &["a.test"], support::Validity::days(90));
    tree.overwrite("a.test", support::Kind::Privkey, "nothing");
    // The default certbot is asked for its version.
    let cmd = Cmd::new(tree.live()).without_haproxy();
    let host_file = cmd.beside("host.pem");
    let cmd = cmd.option(&format!("host_file = {}", support::cmd::toml(&host_file)));
    for arguments in [&["init", "--hook", "--dry-run"][..], &["assemble", "--dry-run"]] {
        let (narrow, commands) = printed(&cmd, "80", arguments);
        let (wide, same) = printed(&cmd, "9999", arguments);
        assert!(narrow.len() > wide.len(), "{narrow:#?}");
        assert_eq!(commands, same, "a command stays whole");
        for line in &narrow {
            // A path may be longer than a line, and a command stays whole.
            let text = line.get(11..).unwrap_or_default();
            assert!(
                line.len() <= 80
                    || !text.contains(' ')
                    || ["certbot ", "haproxy-certs "].iter().any(|it| text.starts_with(it)),
                "{line}"
            );
        }
        let words = |lines: &[String]| -> Vec<String> {
            lines.iter().flat_map(|line| line.split_whitespace().map(ToOwned::to_owned)).collect()
        };
        assert_eq!(words(&narrow), words(&wide));
    }
    let (narrow, _) = printed(&cmd, "80", &["assemble", "--dry-run"]);
    let command = format!("haproxy-certs --config {} status", cmd.config().display());
    assert!(narrow.iter().any(|line| line.trim_start() == command), "{narrow:#?}");
}

#[test]
fn a_hook_of_somebody_elses_is_not_overwritten() {
    let (_temporary, letsencrypt, cmd) = host();
    let folder = letsencrypt.join("renewal-hooks/post");
    fs::create_dir_all(&folder).unwrap();
    let hook = folder.join("haproxy-certs");
    fs::write(&hook, "#!/bin/sh\necho mine\n").unwrap();
    let run = cmd.run(&["init", "--hook"]).exits(1);
    assert!(run.stdout.contains("left alone"), "{run}");
    assert_eq!(fs::read_to_string(&hook).unwrap(), "#!/bin/sh\necho mine\n");
    fs::remove_file(&hook).unwrap();
    symlink("/usr/local/bin/another", &hook).unwrap();
    cmd.run(&["init", "--hook"]).exits(1);
    assert_eq!(fs::read_link(&hook).unwrap(), Path::new("/usr/local/bin/another"));
}

#[test]
fn a_host_certificate_that_is_there_stays() {
    let (_temporary, _, cmd) = host();
    fs::write(cmd.beside("host.pem"), "whatever the operator put there").unwrap();
    cmd.run(&["init"]).exits(0);
    assert_eq!(fs::read_to_string(cmd.beside("host.pem")).unwrap(), "whatever the operator put there");
}

#[test]
fn every_haproxy_accepts_the_printed_configuration_without_a_warning() {
    let (temporary, _, cmd) = host();
    let cmd = cmd
        .table("[[haproxy]]\nname = \"one\"\n[[haproxy]]\nname = \"two\"\nruntime_socket = \"/x/two.sock\"");
    cmd.run(&["init"]).exits(0);
    for name in ["one", "two"] {
        let printed = cmd.run(&["haproxy-config", name]).exits(0);
        assert!(printed.stdout.is_ascii() && printed.stderr.is_empty(), "{printed}");
        let file = temporary.path().join(name);
        fs::write(&file, &printed.stdout).unwrap();
        for version in versions() {
            let output =
                finish(std::process::Command::new(&version.program).arg("-c").arg("-f").arg(&file), LIMIT);
            let said = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            assert!(output.status.success(), "HAProxy {}: {said}", version.full);
            assert!(!said.contains("WARNING"), "HAProxy {}: {said}", version.full);
        }
    }
    assert_eq!(
        cmd.run(&["haproxy-config"]).exits(0).stdout,
        cmd.run(&["haproxy-config", "one"]).exits(0).stdout
    );
    let unknown = cmd.run(&["haproxy-config", "three"]).exits(3);
    assert!(unknown.stderr.contains("no [[haproxy]] table with the name"), "{unknown}");
}

/// HAProxy as the printed configuration starts it; only the two ports are others.
struct Printed {
    running: Running,
    /// Held, so that nobody else takes it.
    _http: Port,
    https: Port,
}

impl Printed {
    fn start(version: &Version, cmd: &Cmd, http: Port, https: Port) -> Self {
        let printed = cmd.run(&["haproxy-config"]).exits(0).stdout;
        let ports = [(":80", http.number()), (":443", https.number())];
        let text = ports.iter().fold(printed, |text, (port, number)| {
            assert!(text.contains(&format!("bind ::{port} v4v6")) || text.contains(&format!("bind {port}")));
            text.replace(&format!("bind ::{port} v4v6"), &format!("bind 127.0.0.1:{number}"))
                .replace(&format!("bind {port}"), &format!("bind 127.0.0.1:{number}"))
        });
        let file = cmd.beside("haproxy.cfg");
        fs::write(&file, text).unwrap();
        let log = fs::File::create(cmd.beside("haproxy.log")).unwrap();
        let mut running = Running::start(&version.program, |command| {
            command
                .arg("-W")
                .arg("-S")
                .arg(cmd.beside("master.sock"))
                .arg("-p")
                .arg(cmd.beside("haproxy.pid"));
            command.arg("-f").arg(file).stdout(log.try_clone().unwrap()).stderr(log)
        });
        wait_until(LIMIT, "HAProxy with the printed configuration", || {
            let log = || fs::read_to_string(cmd.beside("haproxy.log")).unwrap();
            assert!(running.ended().is_none(), "HAProxy {} ended: {}", version.full, log());
            try_served(https.address(), "").is_ok()
        });
        Self { running, _http: http, https }
    }
}

/// Everything that the host needs for certbot to ask this CA.
fn with_certbot(cmd: Cmd, folder: &Path, pebble: &Pebble, challenge: &Port) -> Cmd {
    let text = |path: &Path| support::cmd::toml(path);
    cmd.table(&format!(
        "[certbot]\nhttp_01_port = {}\nargs = [\"--server\", \"{}\", \"--work-dir\", {}, \"--logs-dir\", {}, \"-n\", \
         \"--agree-tos\", \"--register-unsafely-without-email\"]",
        challenge.number(),
        pebble.directory(),
        text(&folder.join("work")),
        text(&folder.join("logs")),
    ))
    .env("REQUESTS_CA_BUNDLE", pebble.api_ca())
    .limit(Duration::from_secs(300))
}

#[test]
fn from_an_empty_host_to_renewed_certificates_that_are_served() {
    for version in versions().iter().filter(|version| ["2.2", "2.6", "3.0"].contains(&&*version.name)) {
        let (temporary, letsencrypt, cmd) = host();
        let (http, https, challenge) = (Port::free(), Port::free(), Port::free());
        let pebble = Pebble::start(&http);
        let socket = cmd.beside("admin.sock");
        let cmd =
            with_certbot(cmd, temporary.path(), &pebble, &challenge).option("host_lineage = \"a.test\"");
        let table = format!(
            "[[haproxy]]\npidfile = {}\nmaster_socket = {}\nruntime_socket = {}\nbinary = {}\nunit = \"none.service\"",
            support::cmd::toml(&cmd.beside("haproxy.pid")),
            support::cmd::toml(&cmd.beside("master.sock")),
            support::cmd::toml(&socket),
            support::cmd::toml(&version.program),
        );
        let cmd = cmd.table(&table);
        cmd.run(&["init"]).exits(0);
        let haproxy = Printed::start(version, &cmd, http, https);
        let address = haproxy.https.address();
        assert_eq!(served(address, "").names, Vec::<String>::new(), "the placeholder");

        let issued = cmd.run(&["-v", "issue", "-d", "a.test,www.a.test"]).exits(0);
        assert!(issued.stdout.contains("run        /usr/bin/certbot certonly --standalone"), "{issued}");
        let a = served(address, "www.a.test");
        assert_eq!(a.names, ["a.test", "www.a.test"]);
        assert_eq!(served(address, "").serial, a.serial, "the host certificate, in the placeholder's place");

        cmd.run(&["issue", "-d", "b.test", "--", "--key-type", "rsa"]).exits(0);
        let b = served(address, "b.test");
        assert_eq!(b.names, ["b.test"]);

        let logs = ["--work-dir", "--logs-dir"].map(|option| {
            [option.to_owned(), temporary.path().join(&option[2..6]).to_str().unwrap().to_owned()]
        });
        let mut renew = vec!["renew", "--", "--force-renewal", "-n", "--no-random-sleep-on-renew"];
        renew.extend(logs.iter().flatten().map(String::as_str));
        cmd.run(&renew).exits(0);
        assert_ne!(served(address, "a.test").serial, a.serial);
        assert_ne!(served(address, "b.test").serial, b.serial);

        // The renewal that fails is certbot's to report; the others are deployed.
        let conf = letsencrypt.join("renewal/b.test.conf");
        let text = fs::read_to_string(&conf).unwrap();
        fs::write(&conf, text.replace("authenticator = standalone", "authenticator = no-such")).unwrap();
        let a = served(address, "a.test");
        let partly = cmd.run(&renew);
        assert_eq!(partly.code, Some(1), "{partly}");
        assert_ne!(served(address, "a.test").serial, a.serial);

        // No hook of ours was left in certbot's configuration.
        for name in ["a.test", "b.test"] {
            let conf = fs::read_to_string(letsencrypt.join(format!("renewal/{name}.conf"))).unwrap();
            assert!(!conf.contains("hook"), "{conf}");
        }
        drop(haproxy.running);
    }
}

#[test]
fn a_certbot_that_fails_is_passed_on_and_one_that_is_missing_is_said() {
    let (_temporary, _, cmd) = host();
    let cmd = cmd.table("[certbot]\nargs = [\"--no-such-option\"]");
    let failed = cmd.run(&["issue", "-d", "a.test"]).exits(2);
    assert!(failed.stderr.contains("certbot failed; nothing was deployed"), "{failed}");
    assert!(!cmd.sites().exists());

    let (_temporary, _, cmd) = host();
    let missing =
        cmd.table("[certbot]\nbinary = \"certbot-of-nobody\"").run(&["issue", "-d", "a.test"]).exits(3);
    assert!(missing.stderr.contains("there is no program certbot-of-nobody here"), "{missing}");
    let (_temporary, _, cmd) = host();
    cmd.run(&["issue"]).exits(64);
    cmd.run(&["issue", "-d", ""]).exits(64);
}
