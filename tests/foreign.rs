//! Files in what HAProxy loads that aren't ours: HAProxy itself judges them, `status` and every run say what it says, and what is
//! advised mends it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use support::live::demanding_openssl;
use support::process::finish;
use support::{
    Cmd, Haproxy, KeyKind, Kind, LIMIT, Reload, Run, Tree, Validity, Version, served, system_haproxy,
    versions, wait_until,
};

/// Two lineages, deployed, and a HAProxy of this version that serves them.
fn healthy(version: &Version) -> (Tree, Cmd, Haproxy) {
    let tree = Tree::of(&[("a.example", &["a.example"]), ("b.example", &["b.example"])]);
    let cmd = Cmd::new(tree.live());
    cmd.run(&["assemble", "--reload", "none"]).exits(0);
    let haproxy = Haproxy::of(version).crt(cmd.sites()).start();
    let cmd = cmd.haproxy(&haproxy, "");
    cmd.assemble(&[]).exits(0);
    (tree, cmd, haproxy)
}

/// Pairs that OpenSSL's command makes, and that some HAProxy refuses.
struct Pairs(tempfile::TempDir);

impl Pairs {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = r#"
            set -e
            self() { openssl req -x509 -new -key "$1.key" -subj "/CN=$1.test" -days 90 -out "$1.crt"; }
            openssl genrsa -out rsa2048.key 2048
            openssl genrsa -out rsa1024.key 1024
            openssl ecparam -name prime192v1 -genkey -noout -out p192.key
            openssl ecparam -name brainpoolP256r1 -genkey -noout -out brainpool.key
            openssl genpkey -algorithm ed448 -out ed448.key
            openssl dsaparam -genkey -out dsa1024.key 1024
            for name in rsa2048 rsa1024 p192 brainpool ed448 dsa1024; do self $name; done
            for digest in md5 sha1; do
                openssl genrsa -out $digest.key 2048
                openssl req -new -key $digest.key -subj "/CN=$digest.test" -out $digest.csr
                openssl x509 -req -in $digest.csr -CA rsa2048.crt -CAkey rsa2048.key -CAcreateserial -days 90 \
                    -$digest -out $digest.crt
            done
            openssl rsa -aes256 -passout pass:x -in rsa2048.key -out passphrase.key
            cp rsa2048.crt passphrase.crt
            for crt in *.crt; do cat "${crt%.crt}.key" "$crt" > "${crt%.crt}.pem"; done"#;
        let output = finish(Command::new("sh").args(["-c", script]).current_dir(folder.path()), LIMIT);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(folder)
    }

    fn pem(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("{name}.pem"))
    }
}

fn status(cmd: &Cmd) -> Run {
    cmd.run(&["status", "--format", "json"])
}

/// The `unloadable` of this file.
#[track_caller]
fn unloadable(run: &Run, file: &str) -> Value {
    let details = run.site(file)["details"].as_array().unwrap().clone();
    let found = details.into_iter().find(|detail| detail["problem"] == "unloadable");
    let found = found.unwrap_or_else(|| panic!("{file} isn't unloadable in {run}"));
    assert_eq!(found["severity"], "critical", "{found}");
    found
}

/// Runs the commands of an advice; what goes to root's home goes to a folder of its own.
#[track_caller]
fn follow(problem: &Value) {
    let attic = tempfile::tempdir().unwrap();
    for command in problem["commands"].as_array().unwrap() {
        let command = command.as_str().unwrap().replace(" /root/", &format!(" {}/", attic.path().display()));
        assert!(command.starts_with("mv "), "{problem}");
        assert!(finish(Command::new("sh").args(["-c", &command]), LIMIT).status.success(), "{command}");
    }
}

/// Whatever parses may be refused: the version, its OpenSSL and the security level decide.
#[test]
fn what_haproxy_refuses_is_critical_and_what_it_takes_is_fine() {
    let pairs = Pairs::make();
    let kinds = ["rsa1024", "p192", "brainpool", "ed448", "dsa1024", "md5", "sha1", "passphrase", "rsa2048"];
    for version in versions() {
        let (_tree, cmd, mut haproxy) = healthy(&version);
        let mut refused = Vec::new();
        for kind in kinds {
            let context = format!("{} {kind}", version.full);
            let file = cmd.site("z");
            fs::copy(pairs.pem(kind), &file).unwrap();
            if haproxy.check().is_ok() {
                assert!(!status(&cmd).stdout.contains("unloadable"), "{context}");
                cmd.assemble(&[]).exits(0);
                assert_eq!(haproxy.reload_and_wait(), Reload::Loaded, "{context}");
                fs::remove_file(&file).unwrap();
                assert_eq!(haproxy.reload_and_wait(), Reload::Loaded, "{context}");
                continue;
            }
            refused.push(kind);
            for arguments in [&["--dry-run"][..], &[], &[]] {
                let run = cmd.assemble(arguments).exits(1);
                let begin = format!("HAProxy can't load {} (", file.display());
                let notes = run.json()["notes"].to_string();
                assert!(
                    notes.contains(&begin) && notes.contains("won't start again: mv "),
                    "{context}: {run}"
                );
            }
            for more in [&[][..], &["--setup"]] {
                let mut arguments = vec!["status", "--format", "json"];
                arguments.extend(more);
                let run = cmd.run(&arguments).exits(2);
                let said = unloadable(&run, "z.pem");
                for problem in run.json()["problems"].as_array().unwrap() {
                    let advice = problem["advice"].as_str().unwrap_or_default();
                    assert!(!advice.contains("mend line"), "{context}: {problem}");
                }
                if !more.is_empty() {
                    follow(&said);
                }
            }
            haproxy.check().unwrap();
            status(&cmd).exits(0);
            cmd.assemble(&[]).exits(0);
        }
        assert!(refused.contains(&"passphrase"), "{}: {refused:?}", version.full);
        assert!(
            refused.len() >= if version.number() < (2, 6) { 2 } else { 4 },
            "{}: {refused:?}",
            version.full
        );
        assert!(!refused.contains(&"rsa2048") && !refused.contains(&"ed448"), "{refused:?}");
    }
}

/// What isn't in our directory, or lies beside a file of ours, keeps HAProxy from starting all the same.
#[test]
fn a_file_from_elsewhere_and_one_beside_ours_are_judged_too() {
    let pairs = Pairs::make();
    for version in versions().into_iter().filter(|version| version.number() >= (2, 6)) {
        let tree = Tree::of(&[("a.example", &["a.example"])]);
        let cmd = Cmd::new(tree.live());
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let other = cmd.beside("other");
        fs::create_dir(&other).unwrap();
        fs::copy(pairs.pem("rsa2048"), other.join("good.pem")).unwrap();
        let haproxy = Haproxy::of(&version).crt(cmd.sites()).crt(&other).start();
        let cmd = cmd.haproxy(&haproxy, "");
        let weak = other.join("weak.pem");
        fs::copy(pairs.pem("rsa1024"), &weak).unwrap();
        let beside = cmd.sites().join("a.example.pem.sctl");
        for file in [&weak, &beside] {
            if file == &beside {
                fs::write(file, "nothing").unwrap();
            }
            haproxy.check().unwrap_err();
            let notes = cmd.assemble(&[]).exits(1).json()["notes"].to_string();
            assert!(notes.contains(&format!("can't load {} (", file.display())), "{}: {notes}", version.full);
            let run = status(&cmd).exits(2);
            let name = if file == &beside { "a.example.pem.sctl" } else { weak.to_str().unwrap() };
            follow(&unloadable(&run, name));
            assert!(!file.exists(), "{}: {run}", version.full);
            haproxy.check().unwrap();
            status(&cmd).exits(0);
            cmd.assemble(&[]).exits(0);
        }
    }
}

/// A file that a lineage needs is taken over by the advice.
#[test]
fn a_file_in_the_place_of_ours_that_haproxy_refuses_is_taken_over() {
    let pairs = Pairs::make();
    for version in versions().into_iter().filter(|version| version.number() >= (2, 6)) {
        let (mut tree, cmd, haproxy) = healthy(&version);
        fs::copy(pairs.pem("rsa1024"), cmd.site("c.example")).unwrap();
        tree.issue("c.example", KeyKind::P256, &["c.example"], Validity::days(90));
        cmd.assemble(&[]).exits(1);
        let said = unloadable(&status(&cmd).exits(2), "c.example.pem");
        assert!(said["advice"].as_str().unwrap().contains("assemble --adopt"), "{said}");
        cmd.assemble(&["--adopt"]).exits(0);
        haproxy.check().unwrap();
        status(&cmd).exits(0);
        assert_eq!(served(haproxy.address(), "c.example").serial, tree.leaf("c.example").serial());
    }
}

/// Runs every command of this problem of a file.
#[track_caller]
fn paste(run: &Run, file: &str, kind: &str) {
    let details = run.site(file)["details"].as_array().unwrap().clone();
    let problem = details.into_iter().find(|detail| detail["problem"] == kind);
    let problem = problem.unwrap_or_else(|| panic!("no {kind} for {file} in {run}"));
    let attic = tempfile::tempdir().unwrap();
    let commands = problem["commands"].as_array().unwrap();
    assert!(!commands.is_empty(), "{problem}");
    for command in commands {
        let command = command.as_str().unwrap().replace(" /root/", &format!(" {}/", attic.path().display()));
        let output = finish(Command::new("sh").args(["-c", &command]), LIMIT);
        assert!(output.status.success(), "{command}: {output:?}");
    }
}

/// HAProxy follows a link, and takes a key from beside its file: both present a certificate as any other file does.
#[test]
fn who_takes_a_name_is_said_however_haproxy_gets_at_its_certificate() {
    let elsewhere = tempfile::tempdir().unwrap();
    let place = elsewhere.path().join("x");
    for version in versions() {
        let (mut tree, cmd, mut haproxy) = healthy(&version);
        let leaf = tree.authority().issue(KeyKind::P256, &["b.example"], Validity::days(90));
        let combined = || fs::write(&place, leaf.combined()).unwrap();
        let apart = |key: &str| {
            fs::write(&place, leaf.fullchain()).unwrap();
            fs::write(cmd.sites().join(key), leaf.key.pem()).unwrap();
        };
        for how in ["link", "key", "link and key"] {
            let context = format!("{} {how}", version.full);
            match how {
                "link" => combined(),
                _ => apart("0.pem.key"),
            }
            if how == "key" {
                fs::rename(&place, cmd.site("0")).unwrap();
            } else {
                symlink(&place, cmd.site("0")).unwrap();
            }
            assert_eq!(haproxy.reload_and_wait(), Reload::Loaded, "{context}");
            let ours = tree.renew("b.example");
            for arguments in [&["--dry-run"][..], &[], &["--full"]] {
                let run = cmd.assemble(arguments).exits(1);
                let warnings = run.site("b.example.pem")["warnings"].to_string();
                assert!(warnings.contains("shadowed"), "{context}: {run}");
            }
            let shown = served(haproxy.address(), "b.example").serial;
            assert_eq!(shown, leaf.serial(), "{context}");
            let run = status(&cmd).exits(1);
            assert_eq!(run.site("b.example.pem")["haproxy"][0]["serves"], "none", "{context}: {run}");
            paste(&run, "b.example.pem", "shadowed");
            let _ = fs::remove_file(cmd.sites().join("0.pem.key"));
            wait_until(LIMIT, "the status to be ok", || status(&cmd).code == Some(0));
            assert_eq!(served(haproxy.address(), "b.example").serial, ours.serial(), "{context}");
            cmd.assemble(&[]).exits(0);
        }
    }
}

/// A link's certificate expires and answers clients that name no site, as a file's does.
#[test]
fn a_link_counts_when_it_expires_and_as_the_default_certificate() {
    let elsewhere = tempfile::tempdir().unwrap();
    let place = elsewhere.path().join("x");
    for version in versions() {
        let (mut tree, cmd, mut haproxy) = healthy(&version);
        let context = &version.full;
        let put = |haproxy: &mut Haproxy, validity| {
            let leaf = tree.authority().issue(KeyKind::P256, &["x.example"], validity);
            fs::write(&place, leaf.combined()).unwrap();
            assert_eq!(haproxy.reload_and_wait(), Reload::Loaded, "{context}");
            leaf
        };
        symlink(&place, cmd.site("1")).unwrap();
        put(&mut haproxy, Validity::expired());
        let run = status(&cmd).exits(2);
        assert!(run.site("1.pem")["problems"].to_string().contains("\"expired\""), "{context}: {run}");
        let leaf = put(&mut haproxy, Validity::days(90));
        status(&cmd).exits(0);
        cmd.assemble(&[]).exits(0);
        assert_eq!(served(haproxy.address(), "unknown.example").serial, leaf.serial(), "{context}");
        // It stands before the new one, and behind the next one.
        tree.issue("2.example", KeyKind::P256, &["2.example"], Validity::days(90));
        let run = cmd.assemble(&[]).exits(0);
        let warnings = run.site("2.example.pem")["warnings"].to_string();
        assert!(!warnings.contains("default-certificate-changed"), "{context}: {run}");
        assert_eq!(served(haproxy.address(), "unknown.example").serial, leaf.serial(), "{context}");
        tree.issue("0.example", KeyKind::P256, &["0.example"], Validity::days(90));
        let run = cmd.assemble(&[]).exits(0);
        let row = run.site("0.example.pem");
        assert!(row["warnings"].to_string().contains("default-certificate-changed"), "{context}: {run}");
        assert!(row["detail"].as_str().unwrap().ends_with("which was 1.pem"), "{context}: {run}");
        let first = tree.leaf("0.example").serial();
        assert_eq!(served(haproxy.address(), "unknown.example").serial, first, "{context}");
    }
}

/// A link to one of our own files is that file: it takes nothing from it, and has what it has, renewed or not.
#[test]
fn a_link_to_one_of_our_files_takes_nothing_from_it() {
    for version in versions() {
        let (mut tree, cmd, mut haproxy) = healthy(&version);
        let context = &version.full;
        symlink("b.example.pem", cmd.site("0")).unwrap();
        assert_eq!(haproxy.reload_and_wait(), Reload::Loaded, "{context}");
        for arguments in [&[][..], &["--full"]] {
            let leaf = tree.renew("b.example");
            cmd.assemble(arguments).exits(0);
            status(&cmd).exits(0);
            for name in ["b.example", "unknown.example"] {
                assert_eq!(served(haproxy.address(), name).serial, leaf.serial(), "{context} {name}");
            }
        }
        // One that has a name of another file is a rival all the same.
        let leaf = tree.authority().issue(KeyKind::P256, &["a.example", "b.example"], Validity::days(90));
        tree.renew_with("b.example", &leaf);
        let run = cmd.assemble(&[]).exits(1);
        assert!(run.site("a.example.pem")["warnings"].to_string().contains("shadowed"), "{context}: {run}");
        assert_eq!(served(haproxy.address(), "a.example").serial, leaf.serial(), "{context}");
    }
}

/// The level is the configuration's, and that of OpenSSL's own file where the master was started with one.
#[test]
fn the_security_level_is_that_of_the_haproxy_that_runs() {
    let pairs = Pairs::make();
    for version in versions().into_iter().filter(|version| version.number() >= (2, 6)) {
        let tree = Tree::of(&[("a.example", &["a.example"])]);
        let cmd = Cmd::new(tree.live());
        cmd.run(&["assemble", "--reload", "none"]).exits(0);
        let setup = || Haproxy::of(&version).crt(cmd.sites());
        let low = if version.number() >= (3, 2) { "ssl-security-level 0" } else { "" };
        let low = setup().global(low).start();
        let folder = tempfile::tempdir().unwrap();
        let openssl = demanding_openssl(folder.path());
        let high = setup().env("OPENSSL_CONF", &openssl).start();
        let takes_weak = version.number() >= (3, 2);
        for (haproxy, kind, is_taken) in [(&low, "rsa1024", takes_weak), (&high, "rsa2048", false)] {
            let cmd = Cmd::new(tree.live()).with_sites(cmd.sites()).haproxy(haproxy, "");
            let file = cmd.site("z");
            fs::copy(pairs.pem(kind), &file).unwrap();
            cmd.assemble(&[]).exits(i32::from(!is_taken));
            let run = status(&cmd);
            assert_eq!(!run.stdout.contains("unloadable"), is_taken, "{} {kind}: {run}", version.full);
            fs::remove_file(&file).unwrap();
        }
    }
}

/// What was said yes to isn't asked again before something changes.
#[test]
fn haproxy_is_asked_once() {
    let pairs = Pairs::make();
    let version = system_haproxy();
    let (_tree, cmd, mut haproxy) = healthy(&version);
    fs::copy(pairs.pem("rsa2048"), cmd.site("z")).unwrap();
    assert_eq!(haproxy.reload_and_wait(), Reload::Loaded);
    cmd.assemble(&[]).exits(0);
    let folder = tempfile::tempdir().unwrap();
    let counted = |cmd: &Cmd, arguments: &[&str]| {
        let log = folder.path().join("calls");
        let mut all = vec!["-f", "-e", "trace=execve", "-o", log.to_str().unwrap()];
        let (program, config) = (Cmd::program(), cmd.config());
        all.extend([program.to_str().unwrap(), "--config", config.to_str().unwrap()]);
        all.extend(arguments);
        let mut command = Command::new("strace");
        command.args(all);
        cmd.prepare(&mut command);
        finish(&mut command, LIMIT);
        let calls = fs::read_to_string(log).unwrap();
        calls.lines().filter(|line| line.contains("\"-c\"") && line.ends_with("= 0")).count()
    };
    for arguments in [&["status"][..], &["assemble"], &["assemble", "--dry-run"]] {
        assert_eq!(counted(&cmd, arguments), 0, "{arguments:?}");
    }
    fs::copy(pairs.pem("ed448"), cmd.site("z")).unwrap();
    for (arguments, times) in [(&["status"][..], 1), (&["assemble"], 1), (&["assemble"], 0), (&["status"], 0)]
    {
        assert_eq!(counted(&cmd, arguments), times, "{arguments:?}");
    }
}

/// Through 2.2 a name that ends in a kind of key begins a bundle, and what begins with the bundle's name is passed over: a file
/// of ours, too.
#[test]
fn a_bundle_that_takes_the_place_of_our_file_is_said() {
    for version in versions() {
        let (mut tree, cmd, mut haproxy) = healthy(&version);
        let leaf = tree.authority().issue(KeyKind::P256, &["o.example"], Validity::days(90));
        let context = &version.full;
        // One that stands in nobody's place.
        fs::write(cmd.sites().join("x.pem.ecdsa"), leaf.combined()).unwrap();
        assert_eq!(haproxy.reload_and_wait(), Reload::Loaded, "{context}");
        cmd.assemble(&["--full"]).exits(0);
        status(&cmd).exits(0);
        assert_eq!(served(haproxy.address(), "o.example").serial, leaf.serial(), "{context}");
        fs::write(cmd.sites().join("b.ecdsa"), leaf.combined()).unwrap();
        assert_eq!(haproxy.reload_and_wait(), Reload::Loaded, "{context}");
        let new = tree.renew("b.example");
        if version.number() >= (2, 3) {
            cmd.assemble(&[]).exits(0);
            status(&cmd).exits(0);
            assert_eq!(served(haproxy.address(), "b.example").serial, new.serial(), "{context}");
            continue;
        }
        assert_ne!(served(haproxy.address(), "b.example").serial, new.serial(), "{context}");
        for arguments in [&["--dry-run"][..], &[], &[]] {
            let run = cmd.assemble(arguments).exits(1);
            assert!(run.stdout.contains("the first file of a bundle"), "{context}: {run}");
            let is_confirmed =
                run.json()["haproxy"].as_array().unwrap().iter().any(|row| row["confirmed"] == true);
            assert!(!is_confirmed, "{context}: {run}");
        }
        let run = status(&cmd).exits(2);
        let details = run.site("b.example.pem")["details"].as_array().unwrap().clone();
        assert_eq!(details.len(), 1, "{run}");
        assert_eq!(details[0]["problem"], "not-listed", "{run}");
        for command in details[0]["commands"].as_array().unwrap() {
            let output = finish(Command::new("sh").args(["-c", command.as_str().unwrap()]), LIMIT);
            assert!(output.status.success(), "{command}");
        }
        wait_until(LIMIT, "the status to be ok", || status(&cmd).code == Some(0));
        assert_eq!(served(haproxy.address(), "b.example").serial, new.serial(), "{context}");
        assert_eq!(served(haproxy.address(), "o.example").serial, leaf.serial(), "{context}");
        cmd.assemble(&[]).exits(0);
    }
}

/// Which names a directory's walk passes over is HAProxy's to say.
#[test]
fn names_that_a_directory_passes_over_are_the_same_for_us() {
    let names: Vec<String> = ["key", "ocsp", "issuer", "sctl"]
        .iter()
        .flat_map(|end| {
            ["n.@.@", "n.pem.@.@", "@.@", ".@", "n.@.x", "n.@.pem", "@", "n.@.", "n.@~", "n.X@"]
                .map(|name| name.replace('@', end))
        })
        .chain(
            ["n.SCTL", "n.pem.bak", "n.dh", ".n", ".n.pem", "README", "n.rsa.key", "n.key.rsa"]
                .map(str::to_owned),
        )
        .collect();
    for version in versions() {
        let (_tree, cmd, haproxy) = healthy(&version);
        for name in &names {
            let file = cmd.sites().join(name);
            fs::write(&file, "nothing").unwrap();
            let is_refused = haproxy.check().is_err();
            let run = status(&cmd);
            assert_eq!(run.stdout.contains("unloadable"), is_refused, "{} {name}: {run}", version.full);
            assert_eq!(run.code, Some(if is_refused { 2 } else { 0 }), "{} {name}: {run}", version.full);
            fs::remove_file(&file).unwrap();
        }
    }
}

/// A certificate that demands an OCSP response: HAProxy has none, whoever renews it.
#[test]
fn must_staple_without_a_response_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let script = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key -subj /CN=a.example -days 90 -out crt \
                  -addext subjectAltName=DNS:a.example -addext tlsfeature=status_request";
    assert!(
        finish(Command::new("sh").args(["-c", script]).current_dir(folder.path()), LIMIT).status.success()
    );
    let [key, crt] = ["key", "crt"].map(|name| fs::read_to_string(folder.path().join(name)).unwrap());
    let version = system_haproxy();
    let (mut tree, cmd, haproxy) = healthy(&version);
    tree.overwrite("a.example", Kind::Privkey, &key);
    tree.overwrite("a.example", Kind::Fullchain, &crt);
    fs::write(cmd.site("foreign"), format!("{key}{crt}")).unwrap();
    for arguments in [&["assemble"][..], &["assemble"]] {
        assert!(cmd.run(arguments).code.unwrap() < 2);
    }
    let run = status(&cmd);
    for (file, advice) in [
        (
            "a.example.pem",
            "take must_staple out of renewal/a.example.conf and cli.ini, then issue it again: certbot renew",
        ),
        ("foreign.pem", "replace it by one that was issued without must-staple"),
    ] {
        let details = run.site(file)["details"].as_array().unwrap().clone();
        let found = details.iter().find(|detail| detail["problem"] == "ocsp-missing");
        let found = found.unwrap_or_else(|| panic!("{file}: {run}"));
        assert_eq!(found["severity"], "warning", "{found}");
        assert!(found["advice"].as_str().unwrap().starts_with(advice), "{found}");
    }
    // It has one beside it, whatever is in that.
    fs::write(cmd.sites().join("foreign.pem.ocsp"), "").unwrap();
    assert!(!status(&cmd).site("foreign.pem")["problems"].to_string().contains("ocsp-missing"));
    fs::remove_file(cmd.sites().join("foreign.pem.ocsp")).unwrap();
    fs::remove_file(cmd.site("foreign")).unwrap();
    let fresh = tree.authority().issue(KeyKind::P256, &["a.example"], Validity::days(90));
    tree.renew_with("a.example", &fresh);
    // Its issuer dates it back by an hour.
    cmd.assemble(&["--force", "a.example"]).exits(0);
    wait_until(LIMIT, "the status to be ok", || status(&cmd).code == Some(0));
    assert_eq!(served(haproxy.address(), "a.example").serial, fresh.serial());
}
