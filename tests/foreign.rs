//! Files in what HAProxy loads that aren't ours: HAProxy itself judges them, `status` and every run say what it says, and what is
//! advised mends it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use support::process::finish;
use support::{Cmd, Haproxy, LIMIT, Reload, Run, Tree, Version, versions};

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
                assert!(notes.contains(&begin) && notes.contains("won't start again: mv "), "{context}: {run}");
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
        assert!(refused.len() >= if version.number() < (2, 6) { 2 } else { 4 }, "{}: {refused:?}", version.full);
        assert!(!refused.contains(&"rsa2048") && !refused.contains(&"ed448"), "{refused:?}");
    }
}
