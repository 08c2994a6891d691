//! Hostile input: certbot's tree, the sites directory and the state file as nobody would make them on purpose.
//!
//! No hang, no panic, bounded memory, nothing outside touched, and whatever is fine beside it is deployed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests may fail loudly"
)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use haproxy_certs::certified_key::{CertifiedKey, read_leaf};
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey};
use openssl::sign::{Signer, Verifier};
use openssl::x509::X509;
use proptest::prelude::Rng;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use support::cmd::names_in;
use support::process::finish;
use support::scene::{Scene, haproxy_loads, put};
use support::summary::{Count, long, say};
use support::{Authority, Cmd, Key, KeyKind, Kind, Run, Tree, Validity};

/// A run of the program, with the most memory that it had, in KiB.
#[track_caller]
fn measured(cmd: &Cmd, arguments: &[&str]) -> (Run, usize) {
    assert!(Path::new("/usr/bin/time").exists(), "time is missing, run: ./tests/install");
    let file = cmd.beside("memory");
    let mut command = Command::new("/usr/bin/time");
    command.args(["-q", "-f", "%M", "-o"]).arg(&file).arg(Cmd::program());
    command.arg("--config").arg(cmd.config()).args(arguments);
    cmd.prepare(&mut command);
    let output = finish(&mut command, Duration::from_secs(120));
    let run = Run {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into(),
        stderr: String::from_utf8_lossy(&output.stderr).into(),
    };
    assert!(!run.stderr.contains("panicked"), "{run}");
    let printed = [&output.stdout, &output.stderr];
    let is_plain = |byte: &u8| *byte == b'\n' || (b' '..=b'~').contains(byte);
    assert!(printed.iter().all(|text| text.iter().all(is_plain)), "not plain ASCII: {run}");
    (run, fs::read_to_string(file).unwrap().trim().parse().unwrap())
}

/// Every path below a folder with what is there.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, (u64, Vec<u8>)> {
    use std::os::unix::fs::MetadataExt as _;
    walkdir::WalkDir::new(folder)
        .into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            let bytes = if meta.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
            (entry.path().to_owned(), (u64::from(meta.mode()) << 32 | u64::from(meta.uid()), bytes))
        })
        .collect()
}

fn fifo(path: &Path) {
    rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
}

fn device(path: &Path) {
    let output = finish(Command::new("mknod").arg(path).args(["c", "1", "5"]), support::LIMIT);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn sparse(path: &Path) {
    File::create(path).unwrap().set_len(10 << 30).unwrap();
}

/// What can stand in the place of a file.
const STANDINS: [&str; 10] = [
    "fifo",
    "device",
    "socket",
    "directory",
    "loop",
    "link-to-zero",
    "link-outside",
    "sparse",
    "empty",
    "garbage",
];

fn stand_in(what: &str, path: &Path, outside: &Path) {
    let _ = fs::remove_file(path);
    match what {
        "fifo" => fifo(path),
        "device" => device(path),
        "socket" => drop(UnixListener::bind(path).unwrap()),
        "directory" => fs::create_dir(path).unwrap(),
        "loop" => symlink(path.file_name().unwrap(), path).unwrap(),
        "link-to-zero" => symlink("/dev/zero", path).unwrap(),
        "link-outside" => symlink(outside, path).unwrap(),
        "sparse" => sparse(path),
        "empty" => put(path, "", 0o600),
        _ => put(path, [0xff, 0, b'\n', 0x1b, b'[', b'2', b'J'].repeat(1000), 0o600),
    }
}

#[test]
fn hostile_lineages() {
    let mut tree = Tree::new();
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    put(&secret, "SECRET-OF-SOMEBODY-ELSE\n".repeat(20), 0o600);
    let mut refused = 0;

    // Something else in the place of each file.
    for what in STANDINS {
        for kind in [Kind::Privkey, Kind::Fullchain] {
            let name = format!("{what}-{}", kind.stem());
            tree.issue(&name, KeyKind::P256, &[&name], Validity::days(90));
            stand_in(what, &tree.link(&name, kind), &secret);
            refused += 1;
        }
    }
    // Something else in the place of the directory.
    for what in STANDINS {
        stand_in(what, &tree.live().join(format!("lineage-{what}")), outside.path());
    }
    symlink("/proc/self", tree.live().join("link-to-proc")).unwrap();
    symlink("..", tree.live().join("link-up")).unwrap();
    symlink(".", tree.live().join("link-here")).unwrap();

    // Names. The pairs are right.
    let long_name = "a".repeat(251);
    let good_names = [
        "$(touch pwned)",
        "`touch pwned`",
        ";touch pwned",
        "a b",
        "-rf",
        "*",
        "?",
        "a\\b",
        "'quoted'",
        "\"double\"",
        "<<",
        "a|b",
        "&",
        "#",
        "%s%n",
        "~",
        "{}",
        "ümlaut",
        "...x",
        "privkey.pem",
        "x.pem",
        &long_name,
    ];
    let bad_names: [&[u8]; 8] = [
        b"new\nline",
        b"\x1b[2J\x1b]0;title\x07",
        b"bell\x07",
        b"\xff\xfe",
        b".hidden",
        b"tab\tbed",
        &[b'b'; 252],
        &[b'c'; 255],
    ];
    let leaf = tree.authority().issue(KeyKind::P256, &["name.example"], Validity::days(90));
    let plain = |name: &OsStr| {
        let folder = tree.live().join(name);
        support::tree::make_directory(&folder, 0o755);
        put(&folder.join("privkey.pem"), leaf.key.pem(), 0o600);
        put(&folder.join("fullchain.pem"), leaf.fullchain(), 0o644);
    };
    for name in good_names {
        plain(OsStr::new(name));
    }
    for name in bad_names {
        plain(OsStr::from_bytes(name));
    }
    let good_names: Vec<&str> = good_names.into_iter().filter(|name| !name.starts_with('.')).collect();
    refused += bad_names.len() + 1;

    // Large ones.
    let names: Vec<String> = (0..10_000).map(|number| format!("n{number}.example.org")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let many_names = tree.authority().issue(KeyKind::P256, &names, Validity::days(90));
    let many_certificates = support::Leaf {
        chain: leaf.chain.repeat(999),
        ..tree.authority().issue(KeyKind::P256, &["c"], Validity::days(90))
    };
    for (name, leaf) in [("names", &many_names), ("certificates", &many_certificates)] {
        plain(OsStr::new(name));
        put(&tree.live().join(name).join("privkey.pem"), leaf.key.pem(), 0o600);
        put(&tree.live().join(name).join("fullchain.pem"), leaf.fullchain(), 0o644);
    }
    for number in 0..3 {
        let name = format!("fine-{number}");
        tree.issue(&name, KeyKind::P256, &[&name], Validity::days(90));
    }

    let cmd = Cmd::new(tree.live()).without_haproxy();
    let before = snapshot(outside.path());
    let (run, memory) = measured(&cmd, &["assemble"]);
    assert_eq!(run.code, Some(1), "{run}");
    let json = cmd.assemble(&[]);
    assert!(!format!("{run}{json}").contains("SOMEBODY"), "what is outside is shown");
    assert_eq!(json.code, Some(1), "{json}");
    assert!(json.stdout.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "{json}");
    assert_eq!(json.json()["summary"]["refuse"], refused, "{json}");
    assert_eq!(snapshot(outside.path()), before, "something outside was changed");
    let mut expected: Vec<String> = good_names.iter().map(|name| format!("{name}.pem")).collect();
    expected.extend(
        ["names.pem", "certificates.pem", "fine-0.pem", "fine-1.pem", "fine-2.pem"].map(String::from),
    );
    expected.sort();
    assert_eq!(cmd.deployed(), expected, "{json}");
    haproxy_loads(&[cmd.sites()]).unwrap();
    assert!(memory < 100_000, "{memory} KiB of memory");
    for folder in [Path::new("."), &cmd.sites(), cmd.sites().parent().unwrap()] {
        assert!(!folder.join("pwned").exists(), "a name was run as a command");
    }
    Count::Hostile.add(&format!("{memory} KiB of memory"), refused + good_names.len() + 15);
}

#[test]
fn a_hundred_thousand_empty_names() {
    let mut tree = Tree::new();
    tree.issue("fine", KeyKind::P256, &["fine"], Validity::days(90));
    for number in 0..100_000 {
        fs::create_dir(tree.live().join(format!("empty-{number}"))).unwrap();
    }
    let cmd = Cmd::new(tree.live()).without_haproxy();
    let (run, memory) = measured(&cmd, &["assemble"]);
    assert_eq!(run.code, Some(0), "{run}");
    assert_eq!(cmd.deployed(), ["fine.pem"]);
    assert!(memory < 100_000, "{memory} KiB of memory");
    Count::Hostile.add(&format!("empty names, {memory} KiB of memory"), 100_000);
}

/// A scene with two sites deployed, one of which is to be replaced, and somebody's files outside.
fn deployed() -> (Scene, tempfile::TempDir) {
    let mut scene = Scene::new(&[]);
    scene.issue("one");
    scene.issue("two");
    scene.run().exits(0);
    scene.tree.renew("one");
    let outside = tempfile::tempdir().unwrap();
    for name in ["one.pem", "two.pem", "state.json", "x", "host.pem"] {
        put(&outside.path().join(name), "somebody's", 0o644);
    }
    (scene, outside)
}

#[test]
fn a_hostile_sites_directory() {
    let mut tried = 0;
    // A link, a FIFO or somebody else's in the place of something of ours: nothing is done, and said.
    for place in ["", "stage", "previous", "state.json", "one.pem"] {
        for what in ["link", "fifo", "device", "socket", "loop", "file", "directory", "stranger's"] {
            let (mut scene, outside) = deployed();
            let own = scene.cmd.sites().join(".haproxy-certs");
            let path = match place {
                "one.pem" => scene.cmd.site("one"),
                "" => own.clone(),
                _ => own.join(place),
            };
            let is_file = matches!(place, "state.json" | "one.pem");
            if is_file == (what == "file") && what != "stranger's" && is_file {
                continue;
            }
            if !is_file && what == "directory" {
                continue;
            }
            if what == "stranger's" {
                chown(&path, Some(12345), Some(12345)).unwrap();
            } else {
                let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                match what {
                    "link" => symlink(
                        if is_file { outside.path().join("one.pem") } else { outside.path().into() },
                        &path,
                    )
                    .unwrap(),
                    "file" => put(&path, "?", 0o600),
                    other => stand_in(other, &path, outside.path()),
                }
            }
            let context = format!("{what} in the place of {path:?}");
            let (outside_before, sites_before) = (snapshot(outside.path()), scene.shown());
            let (run, memory) = measured(&scene.cmd, &["assemble", "--format", "json"]);
            assert_eq!(snapshot(outside.path()), outside_before, "{context}: {run}");
            assert!(memory < 100_000, "{context}: {memory} KiB");
            match (place, what) {
                ("one.pem", "stranger's") => assert_eq!(run.code, Some(0), "{context}: {run}"),
                ("one.pem", _) => {
                    assert_eq!(
                        (run.code, run.action("one.pem")),
                        (Some(1), "conflict".into()),
                        "{context}: {run}"
                    );
                    assert_eq!(scene.shown(), sites_before, "{context}");
                }
                _ => {
                    assert_eq!(run.code, Some(3), "{context}: {run}");
                    let message = run.json()["error"]["message"].as_str().unwrap().to_owned();
                    assert!(message.contains(path.to_str().unwrap()), "{context}: {message}");
                    assert_eq!(scene.shown(), sites_before, "{context}");
                }
            }
            if what != "device" {
                scene.must_be_loadable_unless_foreign();
            }
            tried += 1;
        }
    }
    Count::InPlace.add("something else there", tried);

    // Directories that others could change.
    let (scene, _outside) = deployed();
    let sites = scene.cmd.sites();
    for (mode, owner, code) in [(0o777, 0, 3), (0o711, 12345, 3), (0o711, 0, 0)] {
        chown(&sites, Some(owner), None).unwrap();
        fs::set_permissions(&sites, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        scene.run().exits(code);
    }
    // The sites directory itself may be a link to one that is fine.
    let (scene, _outside) = deployed();
    let real = scene.cmd.beside("real");
    fs::rename(scene.cmd.sites(), &real).unwrap();
    symlink(&real, scene.cmd.sites()).unwrap();
    assert_eq!(scene.run().exits(0).action("one.pem"), "replace");
}

/// What the sites directory may not be: nothing is written there, and said.
#[test]
fn a_sites_directory_that_is_none() {
    let mut tried = 0;
    for what in [
        "fifo",
        "device",
        "socket",
        "loop",
        "file",
        "dangling",
        "to-file",
        "to-strangers",
        "through-strangers",
    ] {
        let mut tree = Tree::new();
        tree.issue("one", KeyKind::P256, &["one"], Validity::days(90));
        let cmd = Cmd::new(tree.live()).without_haproxy();
        let outside = tempfile::tempdir().unwrap();
        put(&outside.path().join("file"), "somebody's", 0o644);
        support::tree::make_directory(&outside.path().join("sites"), 0o755);
        chown(outside.path(), Some(12345), None).unwrap();
        let path = cmd.sites();
        match what {
            "file" => put(&path, "?", 0o600),
            "dangling" => symlink("/nonexistent/sites", &path).unwrap(),
            "to-file" => symlink(outside.path().join("file"), &path).unwrap(),
            "to-strangers" => symlink(outside.path(), &path).unwrap(),
            "through-strangers" => symlink(outside.path().join("sites"), &path).unwrap(),
            other => stand_in(other, &path, outside.path()),
        }
        let before = (snapshot(outside.path()), path.symlink_metadata().unwrap().file_type());
        let (run, _) = measured(&cmd, &["assemble", "--format", "json"]);
        assert_eq!(run.code, Some(3), "{what}: {run}");
        let message = run.json()["error"]["message"].as_str().unwrap().to_owned();
        let names = [&path, outside.path()].map(|path| message.contains(path.to_str().unwrap()));
        assert!(names.contains(&true), "{what}: {message}");
        let after = (snapshot(outside.path()), path.symlink_metadata().unwrap().file_type());
        assert_eq!(after, before, "{what}: {run}");
        tried += 1;
    }
    Count::InPlace.add("sites directory", tried);
}

/// Where a rename isn't possible nothing is done by half; a sites directory that is a file system of its own is fine.
#[test]
fn parts_on_other_file_systems() {
    for program in ["/usr/bin/unshare", "/usr/bin/mount"] {
        assert!(Path::new(program).exists(), "{program} is missing, run: ./tests/install");
    }
    let mut tried = 0;
    for (place, file, code) in [
        ("sites", false, 0),
        ("sites/.haproxy-certs", false, 3),
        ("sites/.haproxy-certs/stage", false, 3),
        ("sites/.haproxy-certs/previous", false, 3),
        ("sites/.haproxy-certs/state.json", true, 3),
        ("sites/one.pem", true, 3),
    ] {
        let (mut scene, _outside) = deployed();
        let path = scene.folder().join(place);
        if place == "sites/one.pem" {
            scene.tree.renew("two");
        }
        let before = scene.shown();
        // In a mount namespace of its own: it ends with the run.
        let script = if file {
            format!("mount --bind '{0}' '{0}' && exec \"$@\"", path.display())
        } else {
            format!("mount -t tmpfs -o mode=0700 none '{}' && exec \"$@\"", path.display())
        };
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
        command.arg(Cmd::program()).arg("--config").arg(scene.cmd.config()).args(&scene.arguments);
        scene.cmd.prepare(&mut command);
        let output = finish(&mut command, support::LIMIT);
        let run = Run {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into(),
            stderr: String::from_utf8_lossy(&output.stderr).into(),
        };
        assert_eq!(run.code, Some(code), "{place}: {run}");
        if code > 0 {
            assert!(run.stdout.contains(path.to_str().unwrap()), "{place} isn't named: {run}");
            let changed: Vec<String> = scene
                .shown()
                .into_iter()
                .filter(|(name, now)| before.get(name) != Some(now))
                .map(|(name, _)| name)
                .collect();
            // One file that can't be replaced doesn't stop the others.
            let expected: &[&str] = if place == "sites/one.pem" { &["sites/two.pem"] } else { &[] };
            assert_eq!(changed, expected, "{place}: {run}");
        }
        scene.must_be_loadable(place);
        assert_eq!(scene.run().exits(0).json()["haproxy"][0]["owed"], false, "{place}");
        tried += 1;
    }
    // The host certificate is kept beside nothing that it could be renamed from.
    let other = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
    let mut tree = Tree::new();
    tree.issue("one", KeyKind::P256, &["one"], Validity::days(90));
    let cmd = Cmd::new(tree.live())
        .option("host_lineage = \"one\"")
        .option(&format!("host_file = {:?}", other.path().join("host.pem")))
        .without_haproxy();
    let run = cmd.assemble(&[]).exits(3);
    assert_eq!(run.json()["error"]["kind"], "config", "{run}");
    assert_eq!(names_in(other.path()), Vec::<String>::new());
    Count::InPlace.add("on another file system", tried + 1);
}

#[test]
fn directories_swapped_for_links_while_it_runs() {
    let rounds = if long() { 5000 } else { 400 };
    let (mut scene, outside) = deployed();
    chown(outside.path(), Some(12345), None).unwrap();
    let sites = scene.cmd.sites();
    let places = [
        sites.join(".haproxy-certs/stage"),
        sites.join(".haproxy-certs/previous"),
        sites.join(".haproxy-certs"),
        sites.join(".haproxy-certs/state.json"),
        scene.cmd.site("one"),
        sites.clone(),
    ];
    let before = snapshot(outside.path());
    let (over, swapping) = (AtomicBool::new(false), AtomicBool::new(true));
    let mut ends: BTreeMap<Option<i32>, usize> = BTreeMap::new();
    thread::scope(|scope| {
        let swaps = scope.spawn(|| {
            let mut swaps = 0_usize;
            while !over.load(Ordering::SeqCst) {
                for place in &places {
                    let mut away = place.as_os_str().to_owned();
                    away.push(".away");
                    let away = PathBuf::from(away);
                    if !swapping.load(Ordering::SeqCst) || fs::rename(place, &away).is_err() {
                        thread::yield_now();
                        continue;
                    }
                    // Files lead to somebody's file of the same name.
                    let target = match place.file_name().and_then(OsStr::to_str) {
                        Some(name @ ("state.json" | "one.pem")) => outside.path().join(name),
                        _ => outside.path().to_owned(),
                    };
                    // Unless the run has made a new one already.
                    if symlink(target, place).is_ok() {
                        thread::yield_now();
                        fs::remove_file(place).unwrap();
                    }
                    // The run may have made a new one meanwhile: then that one goes.
                    while fs::rename(&away, place).is_err() {
                        let _ = fs::remove_dir_all(place);
                    }
                    swaps += 1;
                }
            }
            swaps
        });
        for _ in 0..rounds {
            scene.tree.renew("one");
            let run = scene.run();
            assert!(matches!(run.code, Some(0..=3)), "{run}");
            assert!(!run.stderr.contains("panicked"), "{run}");
            *ends.entry(run.code).or_default() += 1;
        }
        swapping.store(false, Ordering::SeqCst);
        over.store(true, Ordering::SeqCst);
        Count::Swapped.add("in turn", swaps.join().unwrap());
    });
    assert_eq!(snapshot(outside.path()), before, "something outside was changed");
    scene.run();
    assert_eq!(scene.run().code, Some(0));
    say(&format!("{rounds:>9} runs meanwhile, exit statuses {ends:?}"));
}

#[test]
fn hostile_state_files() {
    let (mut scene, outside) = deployed();
    let record = |name: &str| serde_json::json!({ "lineage": name, "live_dir": scene.tree.live(), "sha256": "0".repeat(64) });
    let state = |names: &[&str]| {
        let files: serde_json::Map<_, _> =
            names.iter().map(|name| ((*name).to_owned(), record("x"))).collect();
        let pending: serde_json::Map<_, _> = names
            .iter()
            .map(|name| ((*name).to_owned(), serde_json::json!({ "was": "0".repeat(64), "now": null })))
            .collect();
        let owed = serde_json::json!({ "haproxy": { "since": 1, "files": names } });
        serde_json::json!({ "version": 1, "files": files, "pending": pending, "owed": owed })
            .to_string()
            .into_bytes()
    };
    let up = format!("../../{}/x", outside.path().file_name().unwrap().to_str().unwrap());
    let up_pem = format!("{up}.pem");
    let absolute = outside.path().join("one.pem");
    let mut texts: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        vec![0; 100],
        vec![0xff; 1 << 16],
        b"[".repeat(1 << 20),
        b"{\"version\":1,\"files\":".repeat(10_000),
        b"{\"version\": 1e400}".to_vec(),
        b"{\"version\": -1}".to_vec(),
        b"{\"version\": 1, \"version\": 1}".to_vec(),
        b"{\"version\":1,\"files\":{\"one.pem\":{\"lineage\":\"one\",\"live_dir\":\"/\",\"sha256\":\"short\"}}}".to_vec(),
        state(&["../../etc/x", "../../etc/x.pem", "/etc/passwd", "..", ".", "", ".haproxy-certs", "stage/x.pem"]),
        state(&[&up, &up_pem, absolute.to_str().unwrap(), "two.pem/../../x.pem", "nul\0.pem", "\n.pem"]),
    ];
    scene.settle();
    scene.save();
    let path = scene.cmd.sites().join(".haproxy-certs/state.json");
    // The real one, cut and bent everywhere.
    let real = fs::read(&path).unwrap();
    for cut in (0..real.len()).step_by(real.len() / 40) {
        texts.push(real[..cut].to_vec());
        let mut bent = real.clone();
        bent[cut] ^= 0x15;
        texts.push(bent);
    }
    let outside_before = snapshot(outside.path());
    let names = scene.cmd.deployed();
    for (number, text) in texts.iter().enumerate() {
        scene.restore();
        put(&path, text, 0o600);
        let (run, memory) = measured(&scene.cmd, &["assemble", "--format", "json"]);
        let context = format!("state {number} ({})", String::from_utf8_lossy(&text[..text.len().min(60)]));
        assert!(matches!(run.code, Some(0 | 1 | 3)), "{context}: {run}");
        assert_eq!(snapshot(outside.path()), outside_before, "{context}: something outside was changed");
        assert_eq!(scene.cmd.deployed(), names, "{context}: {run}");
        assert!(memory < 100_000, "{context}: {memory} KiB");
        scene.must_be_loadable(&context);
    }
    Count::StateFiles.add("in turn", texts.len());

    // From the future: nothing is done.
    scene.restore();
    put(&path, b"{\"version\": 99, \"files\": [1]}", 0o600);
    let before = scene.shown();
    let run = scene.run().exits(3);
    assert!(run.stdout.contains("version 99"), "{run}");
    assert_eq!(
        (scene.shown(), fs::read(&path).unwrap()),
        (before, b"{\"version\": 99, \"files\": [1]}".to_vec())
    );

    // 10 GiB of nothing.
    scene.restore();
    sparse(&path);
    let (run, memory) = measured(&scene.cmd, &["assemble", "--format", "json"]);
    assert_eq!(run.code, Some(0), "{run}");
    assert!(memory < 100_000, "a large state file: {memory} KiB");
}

// ---- mutations

/// What openssl says of a combined PEM: parsed, belongs, signs.
fn judged_by_openssl(pem: &[u8]) -> Result<(), String> {
    let say = |what: &'static str| move |error: openssl::error::ErrorStack| format!("{what}: {error}");
    let key = PKey::private_key_from_pem(pem).map_err(say("key"))?;
    let chain = X509::stack_from_pem(pem).map_err(say("chain"))?;
    let public = chain.first().ok_or("no certificate")?.public_key().map_err(say("public key"))?;
    if !public.public_eq(&key) {
        return Err("the key isn't the certificate's".into());
    }
    let digest = if key.id() == Id::ED25519 { None } else { Some(MessageDigest::sha256()) };
    let signed = match digest {
        Some(digest) => Signer::new(digest, &key),
        None => Signer::new_without_digest(&key),
    }
    .and_then(|mut signer| signer.sign_oneshot_to_vec(b"to be signed"))
    .map_err(say("sign"))?;
    let verified = match digest {
        Some(digest) => Verifier::new(digest, &public),
        None => Verifier::new_without_digest(&public),
    }
    .and_then(|mut verifier| verifier.verify_oneshot(&signed, b"to be signed"))
    .map_err(say("verify"))?;
    if verified { Ok(()) } else { Err("what the key signs the certificate doesn't verify".into()) }
}

/// Changes a text as accidents and tricksters do: bits, bytes, lines, whole blocks, pieces of another text.
fn mutate(rng: &mut TestRng, text: &mut Vec<u8>, other: &[u8]) {
    let below = |rng: &mut TestRng, n: usize| rng.next_u32() as usize % n.max(1);
    for _ in 0..=below(rng, 3) {
        if text.is_empty() {
            return;
        }
        let at = below(rng, text.len());
        match below(rng, 12) {
            0..=2 => text[at] ^= 1 << below(rng, 8),
            3 => text[at] = rng.next_u32().to_le_bytes()[0],
            // A base64 digit for another: damage that only the DER shows.
            4..=6 => {
                text[at] =
                    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="[below(rng, 65)];
            }
            7 => text.truncate(at),
            8 => drop(text.remove(at)),
            9 => {
                let end = (at + below(rng, 200)).min(text.len());
                let piece = text[at..end].to_vec();
                let to = below(rng, text.len());
                text.splice(to..to, piece);
            }
            10 => {
                let end = (at + below(rng, 200)).min(text.len());
                text.drain(at..end);
            }
            _ => {
                let from = below(rng, other.len());
                let end = (from + below(rng, 400)).min(other.len());
                let until = (at + end - from).min(text.len());
                text.splice(at..until, other[from..end].iter().copied());
            }
        }
    }
}

#[test]
fn whatever_is_deployed_belongs_together() {
    let inputs: usize = if long() { 5_000_000 } else { 100_000 };
    let authority = Authority::new();
    let kinds = [KeyKind::P256, KeyKind::P256, KeyKind::P384, KeyKind::Rsa2048, KeyKind::Ed25519];
    let pairs: Vec<(Vec<u8>, Vec<u8>)> = kinds
        .into_iter()
        .enumerate()
        .map(|(number, kind)| {
            let leaf =
                authority.issue(kind, &[&format!("m{number}.example"), "m.example"], Validity::days(90));
            let key = if number % 2 == 1 { leaf.key.traditional_pem() } else { leaf.key.pem() };
            (key.into_bytes(), leaf.fullchain().into_bytes())
        })
        .collect();
    let threads = thread::available_parallelism().map_or(1, usize::from).min(4);
    let results: Vec<(usize, usize, Vec<String>)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let pairs = &pairs;
                scope.spawn(move || {
                    let seed = [u8::try_from(thread).unwrap() + 1; 32];
                    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
                    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
                    let mut rng = runner.new_rng();
                    let (mut deployed, mut wrong) = (0, Vec::new());
                    let share = inputs.div_ceil(threads);
                    for round in 0..share {
                        // RSA costs ten times as much as the others: one in sixteen.
                        let choice = if round % 16 == 0 { 3 } else { [0, 1, 2, 4][round % 4] };
                        let (key, chain) = &pairs[choice];
                        let (other_key, other_chain) = &pairs[(choice + 1) % pairs.len()];
                        let (mut key, mut chain) = (key.clone(), chain.clone());
                        match round % 7 {
                            0..=2 => mutate(&mut rng, &mut key, other_key),
                            3..=5 => mutate(&mut rng, &mut chain, other_chain),
                            _ => {
                                mutate(&mut rng, &mut key, other_chain);
                                mutate(&mut rng, &mut chain, other_key);
                            }
                        }
                        let _ = read_leaf(&chain);
                        if let Ok(proved) = CertifiedKey::prove(&key, &chain) {
                            deployed += 1;
                            if let Err(why) = judged_by_openssl(proved.combined_pem().as_bytes()) {
                                wrong.push(format!(
                                    "{why}\n{}\n{}",
                                    String::from_utf8_lossy(&key),
                                    String::from_utf8_lossy(&chain)
                                ));
                            }
                        }
                    }
                    (share, deployed, wrong)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let tried: usize = results.iter().map(|result| result.0).sum();
    let deployed: usize = results.iter().map(|result| result.1).sum();
    let wrong: Vec<&String> = results.iter().flat_map(|result| &result.2).collect();
    assert!(wrong.is_empty(), "{} would be deployed wrongly: {}", wrong.len(), wrong[0]);
    assert!(tried >= 100_000 && deployed > tried / 100, "{deployed} of {tried}");
    Count::Mutated.add("bits, bytes, lines, blocks", tried);
    Count::Accepted.add("bits, bytes, lines, blocks", deployed);
}

/// Keys of the pool differ, so that a key and a chain of two pairs never belong together.
#[test]
fn pairs_crossed_are_never_deployed() {
    let authority = Authority::new();
    let leaves: Vec<_> = KeyKind::ALL
        .into_iter()
        .flat_map(|kind| [Key::some(kind), Key::some(kind)])
        .map(|key| authority.issue_for(&key, &["crossed.example"], Validity::days(90)))
        .collect();
    for (i, one) in leaves.iter().enumerate() {
        for (j, two) in leaves.iter().enumerate() {
            let proved = CertifiedKey::prove(one.key.pem().as_bytes(), two.fullchain().as_bytes()).is_ok();
            assert_eq!(proved, i == j, "{i} {j}");
        }
    }
}
