//! Tells the program which commit it was built from, where that is known: `HAPROXY_CERTS_COMMIT`, else git's answer.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=HAPROXY_CERTS_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let commit = env::var("HAPROXY_CERTS_COMMIT").ok().or_else(|| git(&["rev-parse", "--short=10", "HEAD"]));
    let version = match commit.filter(|commit| !commit.is_empty()) {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    };
    println!("cargo::rustc-env=HAPROXY_CERTS_VERSION={version}");
}

/// What git answers in the package's own repository; `None` where it isn't one, as in an unpacked release.
fn git(arguments: &[&str]) -> Option<String> {
    let root = env::var("CARGO_MANIFEST_DIR").ok()?;
    if !std::path::Path::new(&root).join(".git").exists() {
        return None;
    }
    let output = Command::new("git").arg("-C").arg(&root).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
