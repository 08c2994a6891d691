//! `issue` with the real certbot and Pebble: whatever authenticator there is, wildcards by a real name server, addresses by
//! the newest certbot, two kinds of keys.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;
use std::path::{Path, PathBuf};

use support::acme::{PebbleSetup, in_front_of_certbot};
use support::cmd::toml;
use support::tls::try_served_to;
use support::tree::{make_directory, write};
use support::{
    Cmd, Haproxy, KeyKind, NameServer, Pebble, Port, Tree, Validity, newest_certbot, served, versions,
};
use tempfile::TempDir;

/// certbot, Pebble and a HAProxy in front of them.
struct Host {
    temporary: TempDir,
    pebble: Pebble,
    haproxy: Haproxy,
    cmd: Cmd,
    _ports: [Port; 2],
}

/// A host whose `[certbot]` table has these lines, too.
fn host(more: &str) -> Host {
    host_of(Pebble::setup(), more)
}

/// [`host`], with a Pebble of one's own.
fn host_of(pebble: PebbleSetup, more: &str) -> Host {
    let temporary = tempfile::Builder::new().prefix("haproxy-certs-issue-").tempdir().unwrap();
    let (http, challenge) = (Port::free(), Port::free());
    let pebble = pebble.start(&http);
    let cmd = Cmd::new(temporary.path().join("letsencrypt/live"));
    let haproxy = in_front_of_certbot(&cmd, &http, &challenge);
    let folders =
        ["work", "logs"].map(|name| format!("--{name}-dir={}", temporary.path().join(name).display()));
    let mut args = vec!["-n".to_owned(), "--agree-tos".into(), "--register-unsafely-without-email".into()];
    args.extend(["--server".to_owned(), pebble.directory()]);
    args.extend(folders);
    let args = serde_json::to_string(&args).unwrap();
    let host_file = toml(&cmd.beside("host.pem"));
    let cmd = cmd
        .option(&format!("host_file = {host_file}"))
        .haproxy(&haproxy, "")
        .table(&format!("[certbot]\nhttp_01_port = {}\nargs = {args}\n{more}", challenge.number()))
        .env("REQUESTS_CA_BUNDLE", pebble.api_ca())
        .env("HOME", temporary.path());
    Host { temporary, pebble, haproxy, cmd, _ports: [http, challenge] }
}

impl Host {
    fn at(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    /// What certbot has saved of how a lineage was issued.
    fn conf(&self, name: &str) -> String {
        fs::read_to_string(self.at(&format!("letsencrypt/renewal/{name}.conf"))).unwrap()
    }
}

/// A certbot that only says what it was called with.
fn says(folder: &Path, version: &str) -> PathBuf {
    let script = folder.join("certbot");
    let text = format!(
        "#!/bin/sh\ncase $1 in --version) echo certbot {version};; *) echo \"called $*\"; exit 7;; esac\n"
    );
    write(&script, text, 0o755);
    script
}

/// From nothing to a wildcard that is served, by the DNS challenge: certbot asks for it, a hook answers, Pebble looks.
#[test]
fn a_wildcard_comes_by_dns_and_is_served() {
    let host = host("");
    let refused = host.cmd.run(&["issue", "-d", "*.wild.test,wild.test"]).exits(3);
    assert!(refused.stderr.contains("standalone can't prove *.wild.test"), "{refused}");
    let rest = "issue -d '*.wild.test,wild.test' -- --authenticator manual --preferred-challenges dns;";
    let config = host.cmd.config();
    let works = format!("{} --config {} {rest}", Cmd::program().display(), config.display());
    assert!(refused.stderr.contains(&works), "{refused}");
    // Nobody is there who could be asked.
    assert!(refused.stderr.contains("; first take -n out of args in [certbot]"), "{refused}");
    assert!(!host.at("logs").exists(), "certbot was called");

    let hook = host.pebble.dns_hook();
    // As it is said, but for the hook in the operator's place.
    let line = works.trim_end_matches(';').replace("wild.test", "pasted.test");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("{line} --manual-auth-hook \"$HOOK\"")]).env("HOOK", &hook);
    host.cmd.prepare(&mut shell);
    assert!(shell.status().unwrap().success(), "{line}");
    assert!(host.conf("pasted.test").contains("authenticator = manual"));
    let by_dns = ["--manual", "--preferred-challenges", "dns", "--manual-auth-hook", &hook];
    let mut line = vec!["issue", "-d", "*.wild.test,wild.test", "--"];
    line.extend(by_dns);
    host.cmd.run(&line).exits(0);
    let served = served(host.haproxy.address(), "shop.wild.test");
    assert!(served.names.contains(&"*.wild.test".to_owned()), "{served:?}");
    assert!(host.conf("wild.test").contains("authenticator = manual"));
}

/// A wildcard by certbot's DNS plugin and a real name server, which Pebble asks: named behind the dashes, then by the
/// settings; and its renewal.
#[test]
fn a_wildcard_comes_by_a_plugin_and_a_name_server() {
    let names = NameServer::of("example.org");
    let host = host_of(Pebble::setup().names_at(names.address()), "");
    let credentials = names.credentials().display().to_string();
    let rest = ["--dns-rfc2136-credentials", &credentials, "--dns-rfc2136-propagation-seconds", "0"];
    let mut line = vec!["issue", "-d", "*.example.org", "--", "--dns-rfc2136"];
    line.extend(rest);
    host.cmd.run(&line).exits(0);
    let address = host.haproxy.address();
    let first = served(address, "shop.example.org");
    assert_eq!(first.names, ["*.example.org"]);
    assert!(host.conf("example.org").contains("authenticator = dns-rfc2136"), "{}", names.log());

    // Everything in the settings: nothing is left to type.
    let settings = fs::read_to_string(host.cmd.config()).unwrap();
    let arguments = serde_json::to_string(&rest).unwrap().replace(']', ",");
    let by = |authenticator: &str, line: &[&str]| {
        let lines = format!("authenticator = {authenticator:?}\nargs = {arguments}");
        let file = host.at("by-settings.toml").display().to_string();
        fs::write(&file, settings.replace("args = [", &lines)).unwrap();
        let mut all = vec!["--config", file.as_str()];
        all.extend(line);
        host.cmd.run_as(&all)
    };
    by("dns-rfc2136", &["issue", "-d", "*.two.example.org,two.example.org"]).exits(0);
    assert_eq!(served(address, "x.two.example.org").names.len(), 2);
    let refused = by("webroot", &["issue", "-d", "*.three.example.org"]).exits(3);
    assert!(refused.stderr.contains("authenticator webroot can't prove *.three.example.org"), "{refused}");

    let folders = ["work", "logs"].map(|name| format!("--{name}-dir={}", host.at(name).display()));
    let renew =
        ["renew", "--", "--force-renewal", "-n", "--no-random-sleep-on-renew", &folders[0], &folders[1]];
    host.cmd.run(&renew).exits(0);
    let renewed = served(address, "shop.example.org");
    assert!(renewed.names == first.names && renewed.serial != first.serial);
}

/// Where certbot's own cli.ini, or the settings, name an authenticator, ours isn't named beside it.
#[test]
fn the_authenticator_of_cli_ini_or_of_the_settings_is_used() {
    let host = host("authenticator = \"manual\"");
    let hook = host.pebble.dns_hook();
    let by_dns = ["--preferred-challenges", "dns", "--manual-auth-hook", &hook];
    let mut line = vec!["issue", "-d", "a.test", "--"];
    line.extend(by_dns);
    host.cmd.run(&line).exits(0);
    assert!(host.conf("a.test").contains("authenticator = manual"));

    // What certbot reads itself: its personal file, and one that is named.
    let personal = host.at(".config/letsencrypt");
    fs::create_dir_all(&personal).unwrap();
    fs::write(personal.join("cli.ini"), "manual = true\n").unwrap();
    line[2] = "b.test";
    host.cmd.run(&line).exits(0);
    fs::write(personal.join("cli.ini"), "authenticator = webroot\n").unwrap();
    line[2] = "c.test";
    host.cmd.run(&line).exits(0);
    assert!(host.conf("c.test").contains("authenticator = manual"), "the settings beat it");
    fs::write(personal.join("cli.ini"), "# nothing\nwebroot = true\n").unwrap();
    let refused = host.cmd.run(&["issue", "-d", "d.test"]).exits(3);
    assert!(refused.stderr.contains("/.config/letsencrypt/cli.ini line 2, webroot;"), "{refused}");
    // One behind the dashes is told by its name.
    fs::write(personal.join("cli.ini"), "authenticator = webroot\n").unwrap();
    host.cmd.run(&["issue", "-d", "d.test", "--", "-a", "standalone"]).exits(0);
    assert_eq!(served(host.haproxy.address(), "d.test").names, ["d.test"]);
}

#[test]
fn an_address_needs_a_certbot_that_can_and_the_first_place() {
    let folder = tempfile::tempdir().unwrap();
    let with = |version: &str| {
        let binary = says(folder.path(), version);
        Cmd::new(folder.path().join("live"))
            .without_haproxy()
            .table(&format!("[certbot]\nbinary = {}", toml(&binary)))
            .env("HOME", folder.path())
    };
    let old = with("4.0.0").run(&["issue", "-d", "192.0.2.7"]).exits(3);
    assert!(old.stderr.contains("this certbot is 4.0, and standalone can't prove the address"), "{old}");
    assert!(!old.stdout.contains("called"), "{old}");
    let new =
        with("5.4.0").run(&["issue", "-d", "192.0.2.7,a.test", "--", "--preferred-profile", "shortlived"]);
    let called = "--ip-address 192.0.2.7 -d a.test --preferred-profile shortlived\n";
    assert!(new.code == Some(7) && new.stdout.contains(called), "{new}");
    let staging = with("2.1.0").run(&["issue", "-d", "a.test", "--", "--staging"]).exits(7);
    assert!(staging.stdout.ends_with("-d a.test --staging\n"), "{staging}");
}

/// The host certificate's lineage isn't there, and another one has the names of what is deployed: what status says issues it.
#[test]
fn a_missing_host_lineage_is_issued_by_its_name() {
    let Host { cmd, pebble: _pebble, haproxy: _haproxy, temporary, _ports } = host("");
    let cmd = cmd.option("host_lineage = \"lb.test\"");
    // Else it is somebody else's, which is in conflict.
    fs::remove_file(cmd.beside("host.pem")).unwrap();
    for name in ["lb.test", "c.test"] {
        cmd.run(&["issue", "-d", "c.test", "--", "--cert-name", name]);
    }
    for place in ["live/lb.test", "archive/lb.test", "renewal/lb.test.conf"] {
        let place = temporary.path().join("letsencrypt").join(place);
        fs::remove_dir_all(&place).or_else(|_| fs::remove_file(&place)).unwrap();
    }
    cmd.assemble(&[]).exits(1);
    let status = cmd.run(&["status", "--format", "json"]);
    let sites = status.json()["sites"].as_array().unwrap().clone();
    let commands: Vec<String> = sites
        .iter()
        .flat_map(|site| site["details"].as_array().unwrap().clone())
        .filter(|problem| problem["problem"] == "certificate-missing")
        .flat_map(|problem| problem["commands"].as_array().unwrap().clone())
        .map(|command| command.as_str().unwrap().to_owned())
        .collect();
    let mut shell = std::process::Command::new("sh");
    shell.args([
        "-ec",
        &commands.join("\n").replace("haproxy-certs ", &format!("{} ", Cmd::program().display())),
    ]);
    cmd.prepare(&mut shell);
    assert!(shell.status().unwrap().success(), "{commands:?}: {status}");
    cmd.assemble(&[]).exits(0);
    let status = cmd.run(&["status", "--format", "json"]);
    assert!(!status.stdout.contains("certificate-missing"), "{status}");
}

/// An address, six days of life, by the newest certbot: presented only once it is the host certificate.
#[test]
fn the_newest_certbot_issues_for_an_address() {
    let pebble = Pebble::setup().with_profiles();
    let host = host_of(pebble, &format!("binary = {}", toml(&newest_certbot())));
    let address = host.haproxy.address();
    let line = ["issue", "-d", "127.0.0.1", "--", "--preferred-profile", "shortlived", "--key-type", "rsa"];
    let issued = host.cmd.run(&line).exits(0);
    let advice = "clients send no server name for 127.0.0.1: HAProxy presents this certificate to them only where it \
                  is the first one of a bind; set host_lineage = \"127.0.0.1\"";
    assert!(issued.stdout.replace("\n           ", " ").contains(advice), "{issued}");
    let conf = host.conf("127.0.0.1");
    for saved in ["preferred_profile = shortlived", "key_type = rsa"] {
        assert!(conf.contains(saved), "{conf}");
    }
    assert_eq!(served(address, "").names, ["host.example"], "nobody is presented it");
    // The same command again finds it, and asks nothing.
    let again = host.cmd.run(&line).exits(0);
    assert!(again.stdout.contains("unchanged"), "{again}");
    assert_eq!(support::cmd::names_in(&host.at("letsencrypt/live")), ["127.0.0.1", "README"]);
    assert!(!host.at("letsencrypt/archive/127.0.0.1/cert2.pem").exists(), "{again}");
    let kinds = |cmd: &Cmd| {
        let status = cmd.run(&["status", "--format", "json"]);
        let report = status.json();
        let row = report["sites"].as_array().unwrap().iter().find(|row| row["file"] == "127.0.0.1.pem");
        row.unwrap_or_else(|| panic!("{status}"))["problems"].as_array().unwrap().clone()
    };
    // Six days of life, all of them left: that isn't soon.
    assert_eq!(kinds(&host.cmd), ["not-presented"]);

    // certbot asks the CA when to renew (ARI), and doesn't yet.
    let folders = ["work", "logs"].map(|name| format!("--{name}-dir={}", host.at(name).display()));
    let mut renew = vec!["renew", "--", "-n", "--no-random-sleep-on-renew"];
    renew.extend(folders.iter().map(String::as_str));
    let serial = || host.cmd.assemble(&[]).exits(0).site("127.0.0.1.pem")["serial"].clone();
    let first = serial();
    host.cmd.run(&renew).exits(0);
    assert_eq!(serial(), first);
    assert!(host.pebble.log().contains("renewalInfo"), "the CA was asked");

    let Host { cmd, haproxy, .. } = host;
    let cmd = cmd.option("host_lineage = \"127.0.0.1\"");
    cmd.assemble(&["--adopt"]).exits(0);
    assert_eq!(served(haproxy.address(), "").names, ["127.0.0.1"]);
    assert_eq!(kinds(&cmd), Vec::<serde_json::Value>::new());
}

/// The certbot of Debian 12 and 13 can't, and isn't called.
#[test]
fn an_older_certbot_is_not_asked_for_an_address() {
    let host = host("");
    let refused = host.cmd.run(&["issue", "-d", "127.0.0.1"]).exits(3);
    assert!(refused.stderr.contains("can't prove the address 127.0.0.1 before certbot 5.3;"), "{refused}");
    assert!(!host.at("logs").exists(), "certbot was called");
}

/// One name, a certificate for each kind of key by one command, and each client gets the one it can use.
#[test]
fn two_kinds_of_keys_for_one_name() {
    let host = host("");
    let refused = host.cmd.run(&["issue", "--both-keys", "-d", "a.test", "--", "--key-type", "rsa"]).exits(3);
    assert!(refused.stderr.contains("leave --key-type away"), "{refused}");
    let issued = host.cmd.run(&["issue", "--both-keys", "-d", "a.test"]).exits(0);
    assert!(!issued.stdout.contains("shadowed"), "{issued}");
    assert_eq!(host.cmd.deployed(), ["a.test-rsa.pem", "a.test.pem"]);
    let address = host.haproxy.address();
    let to = |algorithms: &str| try_served_to(address, "a.test", Some(algorithms)).unwrap().serial;
    let report = host.cmd.assemble(&[]).exits(0);
    let serial = |file: &str| report.site(file)["serial"].as_str().unwrap().to_owned();
    assert_eq!(to("ECDSA+SHA256"), serial("a.test.pem"));
    assert_eq!(to("RSA-PSS+SHA256:RSA+SHA256"), serial("a.test-rsa.pem"));
    let status = host.cmd.run(&["status", "--format", "json"]);
    assert!(!status.stdout.contains("shadowed"), "{status}");
    // Both are renewed, each with its own kind of key.
    let renew = ["renew", "--", "--force-renewal", "-n", "--no-random-sleep-on-renew"];
    let folders = ["work", "logs"].map(|name| format!("--{name}-dir={}", host.at(name).display()));
    let mut line = renew.to_vec();
    line.extend(folders.iter().map(String::as_str));
    let before = [to("ECDSA+SHA256"), to("RSA-PSS+SHA256:RSA+SHA256")];
    host.cmd.run(&line).exits(0);
    assert_ne!(to("ECDSA+SHA256"), before[0]);
    assert_ne!(to("RSA-PSS+SHA256:RSA+SHA256"), before[1]);
}

/// Broken off at the second half: the same command does what is missing, in a terminal and without one, and asks nothing.
#[test]
fn both_keys_that_were_broken_off_are_asked_for_again() {
    let host = host("");
    let wrapper = host.at("certbot");
    let text = "#!/bin/sh\ncase \"$*\" in *'--key-type rsa'*) [ -e \"$HOME/mended\" ] || exit 9;; esac\nexec certbot \"$@\"\n";
    write(&wrapper, text, 0o755);
    let settings = fs::read_to_string(host.cmd.config()).unwrap();
    assert!(settings.contains("\"-n\","));
    let settings = settings
        .replace("\"-n\",", "")
        .replace("[certbot]", &format!("[certbot]\nbinary = {}", toml(&wrapper)));
    let file = host.at("asks.toml").display().to_string();
    fs::write(&file, settings).unwrap();
    let both = |name| host.cmd.run_as(&["--config", &file, "issue", "--both-keys", "-d", name]);
    let in_terminal = |name: &str| {
        let line = format!("{} --config {file} issue --both-keys -d {name}", Cmd::program().display());
        let mut script = std::process::Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env("HOME", host.temporary.path());
        script.env("REQUESTS_CA_BUNDLE", host.pebble.api_ca()).stdin(std::process::Stdio::null());
        let done = script.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    };
    for (name, is_terminal) in [("a.test", false), ("b.test", true)] {
        let mended = host.at("mended");
        fs::remove_file(&mended).unwrap_or_default();
        let broken = both(name).exits(9);
        assert!(broken.stderr.contains(&format!("the certificate {name}-rsa is missing")), "{broken}");
        assert!(broken.stderr.contains("run the same command again"), "{broken}");
        fs::write(&mended, "").unwrap();
        if is_terminal {
            in_terminal(name);
        } else {
            both(name).exits(0);
        }
        let archive = |lineage: String| support::cmd::names_in(&host.at("letsencrypt/archive").join(lineage));
        assert_eq!((archive(name.to_owned()).len(), archive(format!("{name}-rsa")).len()), (4, 4));
        // And once more, with nothing missing.
        both(name).exits(0);
        assert_eq!(archive(name.to_owned()).len(), 4, "it was issued again");
    }
    assert_eq!(host.cmd.deployed(), ["a.test-rsa.pem", "a.test.pem", "b.test-rsa.pem", "b.test.pem"]);
}

/// certbot makes the letters of names small, and names the lineage so.
#[test]
fn names_in_capital_letters_are_the_same_names() {
    let host = host("");
    host.cmd.run(&["issue", "--both-keys", "-d", "WWW.Example.TEST,Example.test."]).exits(0);
    let both = ["www.example.test-rsa.pem", "www.example.test.pem"];
    assert_eq!(host.cmd.deployed(), both);
    assert_eq!(served(host.haproxy.address(), "www.example.test").names.len(), 2);
    host.cmd.run(&["issue", "--both-keys", "-d", "www.EXAMPLE.test,example.TEST"]).exits(0);
    host.cmd.run(&["issue", "-d", "www.EXAMPLE.test,example.TEST"]).exits(0);
    assert_eq!(host.cmd.deployed(), both);
    let refused = host.cmd.run(&["issue", "--both-keys", "-d", "WWW.example.test"]).exits(3);
    assert!(
        refused.stderr.contains("from the certificate www.example.test that is there: example.test;"),
        "{refused}"
    );
    // The second half has names to lose, too.
    host.cmd.run(&["issue", "-d", "b.test,c.test", "--", "--cert-name", "b.test-rsa"]).exits(0);
    let refused = host.cmd.run(&["issue", "--both-keys", "-d", "B.test"]).exits(3);
    assert!(refused.stderr.contains("from the certificate b.test-rsa that is there: c.test;"), "{refused}");
}

/// certbot is told which certificate to replace, and without a terminal it asks nobody whether its other names may go.
#[test]
fn both_keys_take_no_name_away() {
    let host = host("");
    host.cmd.run(&["issue", "-d", "a.test,www.a.test"]).exits(0);
    let before = served(host.haproxy.address(), "www.a.test");
    let refused = host.cmd.run(&["issue", "--both-keys", "-d", "a.test"]).exits(3);
    assert!(
        refused.stderr.contains("that is there: www.a.test; ask for them, too: -d www.a.test;"),
        "{refused}"
    );
    assert_eq!(host.cmd.deployed(), ["a.test.pem"]);
    assert_eq!(served(host.haproxy.address(), "www.a.test"), before);
    // All of them, in whatever case, are no loss.
    let all = ["issue", "--both-keys", "-d", "a.test,WWW.a.test", "--", "-n"];
    host.cmd.run(&all).exits(0);
    assert_eq!(host.cmd.deployed(), ["a.test-rsa.pem", "a.test.pem"]);
}

/// Every HAProxy chooses by what the client can, wherever the two files stand in the directory's order.
#[test]
fn every_haproxy_chooses_between_two_kinds_of_keys() {
    for version in versions() {
        let mut tree = Tree::new();
        let ecdsa = tree.issue("a.test", KeyKind::P256, &["a.test"], Validity::days(90));
        let rsa = tree.issue("a.test-rsa", KeyKind::Rsa2048, &["a.test"], Validity::days(90));
        let host = tree.authority().issue(KeyKind::P256, &["host.example"], Validity::days(3650));
        let cmd = Cmd::new(tree.live());
        write(&cmd.beside("host.pem"), host.combined(), 0o400);
        make_directory(&cmd.sites(), 0o700);
        let haproxy = Haproxy::of(&version).crt(cmd.beside("host.pem")).crt(cmd.sites()).start();
        let cmd = cmd.haproxy(&haproxy, "");
        let run = cmd.assemble(&[]).exits(0);
        assert!(!run.stdout.contains("shadowed"), "{version:?}: {run}");
        let to = |algorithms: &str| {
            try_served_to(haproxy.address(), "a.test", Some(algorithms)).map(|it| it.serial)
        };
        assert_eq!(to("ECDSA+SHA256"), Ok(ecdsa.serial()), "{version:?}");
        assert_eq!(to("RSA-PSS+SHA256:RSA+SHA256"), Ok(rsa.serial()), "{version:?}");
        // The RSA one alone is renewed, in memory or by a reload.
        let renewed = tree.renew("a.test-rsa");
        cmd.assemble(&[]).exits(0);
        assert_eq!(to("ECDSA+SHA256"), Ok(ecdsa.serial()), "{version:?}");
        assert_eq!(to("RSA-PSS+SHA256:RSA+SHA256"), Ok(renewed.serial()), "{version:?}");
        let status = cmd.run(&["status"]).exits(0);
        assert!(!status.stdout.contains("shadowed"), "{version:?}: {status}");
    }
}

/// What certbot itself makes of arguments: the authenticator and the names, one line of JSON for each line.
const PARSER: &str = r#"
import contextlib, io, json, sys
from certbot._internal import cli
from certbot._internal.plugins import disco, selection
plugins = disco.PluginsRegistry.find_all()
for line in sys.stdin:
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            config = cli.prepare_and_parse_args(plugins, ["certonly"] + json.loads(line))
        names = getattr(config, "domains", None) or getattr(config, "sans", None) or []
        found = [selection.cli_plugin_requests(config)[0], [getattr(it, "dns_name", None) or str(it) for it in names]]
    except (SystemExit, Exception):
        found = None
    print(json.dumps(found))
"#;

/// An authenticator and names are found behind the dashes as certbot's own parser finds them, in whatever bundle, spelling or
/// abbreviation.
#[test]
fn the_authenticator_and_the_names_are_those_that_certbot_takes() {
    use haproxy_certs::certbot::authenticator::{domains_in, named_in};
    use std::ffi::OsString;
    use std::io::Write as _;

    let words = [
        "-n",
        "-na",
        "-nva",
        "-a",
        "-a=manual",
        "-nia",
        "-i",
        "-qnd",
        "-d",
        "-da.test",
        "-nd=x.test",
        "-m",
        "-w",
        "--webroot-path",
        "/tmp",
        "manual",
        "webroot",
        "dns-x",
        "a.test",
        "b.test,*.c.test",
        "--authenticator",
        "--authenticator=dns-y",
        "--auth",
        "--configu",
        "--configurator=manual",
        "--manual",
        "--webroot",
        "--stan",
        "--standalone",
        "--domains",
        "--domain=d.test",
        "--dom",
        "--preferred-chal",
        "dns",
        "--key-t",
        "rsa",
        "--cert-n",
        "--agree-tos",
        "--manual-auth-hook",
        "-na manual",
        "-namanual",
        "-vvtq",
        "--email",
        "me@a.test",
        "--staging",
        "-",
    ];
    // Always the same lines, of one to six words.
    let mut seed: u64 = 20_261_130;
    let mut next = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let lines: Vec<Vec<&str>> =
        (0..1500).map(|_| (0..=next(6)).map(|_| words[next(words.len())]).collect()).collect();
    for program in [PathBuf::from("/usr/bin/certbot"), newest_certbot()] {
        let script = fs::read_to_string(&program).unwrap();
        let python = script.lines().next().unwrap().trim_start_matches("#!").trim();
        let mut child = std::process::Command::new(python)
            .args(["-c", PARSER])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let input: String = lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        let answers = String::from_utf8(output.stdout).unwrap();
        assert_eq!(answers.lines().count(), lines.len(), "{}", program.display());
        let mut accepted = 0;
        for (line, answer) in lines.iter().zip(answers.lines()) {
            let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
            let Some(answer) = answer.as_array() else { continue };
            accepted += 1;
            let given: Vec<OsString> = line.iter().map(OsString::from).collect();
            assert_eq!(named_in(&given).as_deref(), answer[0].as_str(), "{} {line:?}", program.display());
            let mut names: Vec<String> = domains_in(&given);
            let mut theirs: Vec<&str> =
                answer[1].as_array().unwrap().iter().filter_map(|it| it.as_str()).collect();
            names.sort();
            names.dedup();
            theirs.sort_unstable();
            theirs.dedup();
            assert_eq!(names, theirs, "{} {line:?}", program.display());
        }
        assert!(accepted > 100, "{accepted} of {}", program.display());
    }
}
