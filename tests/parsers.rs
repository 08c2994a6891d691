//! The parsers: what HAProxy prints is read as it is meant, and no text makes one of them panic or believe too much.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::case_sensitive_file_extension_comparisons,
    clippy::format_collect,
    reason = "tests may fail loudly"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use haproxy_certs::config::{Overrides, Settings};
use haproxy_certs::haproxy::cli::replies::{
    AddReply, CommitReply, Info, ListedWorker, Listing, Processes, ReloadReply, SetReply, ShownStore,
    StoreStatus, added, commit, info, listing, processes, quoted, reload, set, store,
};
use haproxy_certs::sites::debts::Owed;
use haproxy_certs::sites::last_start::LastStart;
use haproxy_certs::sites::state::{Pending, Record, Rejected, State};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use support::summary::Count;

const CASES: u32 = 3000;

fn config() -> ProptestConfig {
    ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() }
}

// ---- HAProxy's replies

fn path() -> impl Strategy<Value = String> {
    "/[a-z]{1,6}/[ -~&&[^*#]]{1,12}\\.pem"
}

fn worker() -> impl Strategy<Value = ListedWorker> {
    (2..4_000_000_u32, 0..99_u32, 0..10_000_000_u64).prop_map(|(pid, reloads, seconds)| ListedWorker {
        pid,
        reloads,
        uptime: Duration::from_secs(seconds),
    })
}

fn uptime(uptime: Duration) -> String {
    let seconds = uptime.as_secs();
    format!("{}d{:02}h{:02}m{:02}s", seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// What the parsers look for, in any order and quantity.
const PIECES: [&str; 30] = [
    "# transaction\n",
    "*/c/a.pem\n",
    "# filename\n",
    "/c/a.pem\n",
    "Filename: /c/a.pem\n",
    "Filename: ",
    "Status: Used\n",
    "Status: ",
    "Serial: 2EE9\n",
    "SHA1 FingerPrint: 999349AB3DE42352869F7FDC74FC0714764AAB0E\n",
    "SHA1 FingerPrint: 9\u{e9}\n",
    "Chain Subject: /CN=i\n",
    "Transaction created for certificate /c/a.pem!\n",
    "Transaction updated for certificate ",
    "The ongoing transaction is about '/c/x.pem' but you are trying to set '/c/a.pem'\n",
    "Committing /c/a.pem.\n",
    "Success!\n",
    "Success=1\n",
    "Success=0\n--\n",
    "Failed!\n",
    "unable to load\n",
    "# old workers\n",
    "12 worker 1 0 999999999999d0h00m01s 2.2\n",
    "12 master [was: 1] 0d00h00m01s\n",
    "18446744073709551616d18446744073709551615h1m1s",
    "Pid: 42\n",
    "Uptime_sec: 99999999999\n",
    "Version: 3.0.11\n",
    "\n",
    "!",
];

fn any_reply() -> impl Strategy<Value = String> {
    let piece =
        prop_oneof![3 => prop::sample::select(PIECES.to_vec()).prop_map(str::to_owned), 1 => "(?s).{0,20}"];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(config())]

    fn listings(stores in btree_set(path(), 0..9), transaction in option::of(path())) {
        let mut text = transaction.as_ref().map_or_else(String::new, |file| format!("# transaction\n*{file}\n"));
        text.push_str("# filename\n");
        for file in &stores {
            writeln!(text, "{file}").unwrap();
        }
        prop_assert_eq!(listing(text.trim()), Some(Listing { transaction, stores }));
    }

    fn stores(file in path(), used in any::<bool>(), sha1 in option::of(any::<[u8; 20]>()), chain_len in 0..4_usize, has_ocsp in any::<bool>()) {
        let status = if used { "Used" } else { "Unused" };
        let mut text = format!("Filename: {file}\nStatus: {status}\nSerial: 2EE9\nnotBefore: x\nnotAfter: Dec  3 01:35:08 2026 GMT\n\
                                Subject Alternative Name: DNS:StoreStatus: Empty\nAlgorithm: EC256\n");
        if let Some(sha1) = sha1 {
            writeln!(text, "SHA1 FingerPrint: {}\nSubject: /CN=SHA1 FingerPrint: 00\nIssuer: /CN=i", support::tls::hex(&sha1).to_uppercase()).unwrap();
        }
        text.push_str(&"Chain Subject: /CN=i\nChain Issuer: /CN=r\n".repeat(chain_len));
        text.push_str(if has_ocsp { "OCSP Response Key: 304d30" } else { "OCSP Response Key: " });
        prop_assert_eq!(store(text.trim()), Some(ShownStore {
            status: if used { StoreStatus::Used } else { StoreStatus::Unused },
            sha1,
            serial: Some("2EE9".to_owned()),
            not_after: Some("Dec  3 01:35:08 2026 GMT".to_owned()),
            chain_len,
            is_completed: false,
            has_ocsp,
            names: [Some("storestatus: empty"), sha1.map(|_| "sha1 fingerprint: 00")].into_iter().flatten().map(str::to_owned).collect(),
            family: haproxy_certs::certified_key::KeyFamily::Ecdsa,
        }));
    }

    fn process_lists(master in worker(), workers in vec(worker(), 0..3), old in vec(worker(), 0..3), columns in 0..3_u8) {
        let line = |worker: &ListedWorker, kind: &str, is_old: bool| {
            // 2.2 has a column more, newer ones a note of failed reloads.
            let between = match columns {
                0 if is_old => "[was: 1] ",
                0 => "1 ",
                _ => "",
            };
            let failed = if columns == 2 { " [failed: 7]" } else { "" };
            format!("{:<15} {kind:<15} {between}{}{failed}  {:<15} 3.2.26-1\n", worker.pid, worker.reloads, uptime(worker.uptime))
        };
        let text = format!(
            "#<PID>          <type>          <reloads>       <uptime>        <version>\n{}# workers\n{}# old workers\n{}# programs\n",
            line(&master, "master", false),
            workers.iter().map(|worker| line(worker, "worker", false)).collect::<String>(),
            old.iter().map(|worker| line(worker, "worker", true)).collect::<String>(),
        );
        let failed = if columns == 2 { 7 } else { 0 };
        prop_assert_eq!(processes(&text), Some(Processes { master: master.pid, version: "3.2.26-1".to_owned(), failed, workers, old }));
    }

    fn infos(pid in 2..4_000_000_u32, seconds in 0..100_000_000_u32, minor in 0..30_u32) {
        let text = format!("Name: HAProxy\nVersion: 2.{minor}.9-2+deb11u6\nNbproc: 1\nProcess_num: 1\nPid: {pid}\nUptime: 0d\nUptime_sec: {seconds}\n");
        let uptime = Duration::from_secs(seconds.into());
        prop_assert_eq!(info(&text), Some(Info { pid, uptime, processes: 1, version: Some((2, minor)) }));
    }

    /// Whatever is answered: no panic, nothing unprintable quoted, and no success that isn't said.
    fn any_replies(reply in any_reply()) {
        let _ = (store(&reply), info(&reply));
        let _ = processes(&reply).map(|shown| (shown.release(), shown.newest(), shown.has(12)));
        if let Some(listing) = listing(&reply) {
            prop_assert!(reply.is_empty() || reply.contains("# filename"));
            prop_assert!(listing.stores.iter().all(|store| reply.contains(store.as_str())));
        }
        if let SetReply::Created(file) | SetReply::Updated(file) = set(&reply) {
            let times = reply.lines().filter(|line| line.contains("ransaction")).count();
            let said = format!("for certificate {file}!");
            prop_assert!(times >= 1 && reply.contains(&said));
        }
        let ends_well = reply.lines().map(str::trim).rfind(|line| !line.is_empty()) == Some("Success!");
        prop_assert_eq!(commit(&reply) == CommitReply::Success, ends_well);
        prop_assert_eq!(added(&reply) == AddReply::Success, ends_well);
        prop_assert!(reload(&reply) != ReloadReply::Success || reply.trim_start().starts_with("Success=1"));
        let line = quoted(&reply);
        prop_assert!(line.len() < 320 && line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }
}

#[test]
fn what_haproxy_prints_is_read_as_it_is_meant() {
    for (name, law) in [
        ("show ssl cert", listings as fn()),
        ("show ssl cert FILE", stores),
        ("show proc", process_lists),
        ("show info", infos),
    ] {
        law();
        Count::Properties.add(name, CASES as usize);
    }
}

#[test]
fn no_reply_is_believed_too_much() {
    any_replies();
    Count::Properties.add("any reply", CASES as usize);
}

// ---- the state file

fn digest() -> impl Strategy<Value = String> {
    "[0-9a-f]{64}"
}

fn record() -> impl Strategy<Value = Record> {
    let rejected = (digest(), "[ -~]{0,30}", "[ -~]{0,20}").prop_map(|(sha256, words, by)| Rejected {
        sha256,
        words,
        by,
    });
    ("[a-z][a-z.-]{0,12}", "/[a-z/]{0,20}", any::<[u8; 32]>(), option::weighted(0.2, rejected)).prop_map(
        |(lineage, live_dir, sha256, rejected)| Record {
            lineage,
            live_dir: live_dir.into(),
            sha256,
            chain: None,
            rejected: rejected.map(Box::new),
            prune_refused: None,
        },
    )
}

fn with(
    files: BTreeMap<String, Record>,
    pending: BTreeMap<String, Pending>,
    owed: BTreeMap<String, Owed>,
) -> State {
    let mut state = State::default();
    (state.files, state.pending, state.owed) = (files, pending, owed);
    state
}

prop_compose! {
    fn state()(
        files in btree_map("[a-z][a-z.-]{0,9}\\.pem", record(), 0..6),
        pending in btree_map("[a-z]{1,9}\\.pem", (option::of(digest()), option::of(digest())), 0..4),
        owed in btree_map("[a-z]{1,9}", (any::<i64>(), option::of(vec("[a-z]{1,9}\\.pem", 0..3))), 0..3),
        starts in btree_map("[a-z]{1,9}", (option::of("[a-z/]{1,9}"), vec("[a-z/]{1,9}", 0..3)), 0..3),
    ) -> State {
        let pending = pending.into_iter().map(|(name, (was, now))| (name, Pending { was, now, ..Pending::default() })).collect();
        let owed = owed.into_iter().map(|(name, (since, files))| (name, Owed { since, files, file: None })).collect();
        let mut state = with(files, pending, owed);
        let start = |(openssl_conf, files): (_, Vec<String>)| LastStart {
            openssl_conf,
            configuration: files.into_iter().map(PathBuf::from).collect(),
        };
        state.last_start = starts.into_iter().map(|(name, it)| (name, start(it))).collect();
        state
    }
}

/// Names that somebody may write into the file.
fn any_name() -> impl Strategy<Value = String> {
    let known = [
        "../../etc/x.pem",
        "..",
        "/etc/passwd",
        "a.pem/../../x.pem",
        ".haproxy-certs",
        "\n.pem",
        "\0.pem",
        ".pem",
        "x",
    ];
    prop_oneof![
        prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        "(?s).{0,12}",
        "[a-z./]{0,9}\\.pem"
    ]
}

proptest! {
    #![proptest_config(config())]

    fn states(state in state()) {
        prop_assert_eq!(State::parse(&serde_json::to_vec(&state).unwrap()), Ok(state));
    }

    /// A file that somebody has written: only names that a lineage's file can have are acted on.
    fn forged_states(names in btree_map(any_name(), record(), 0..6), lineage in any_name()) {
        let pending = names.keys().map(|name| (name.clone(), Pending::default())).collect();
        let files: BTreeMap<_, _> = names.into_iter().map(|(name, record)| (name, Record { lineage: lineage.clone(), ..record })).collect();
        let forged = with(files, pending, BTreeMap::new());
        let read = State::parse(&serde_json::to_vec(&forged).unwrap()).unwrap();
        for name in read.files.keys().chain(read.pending.keys()).collect::<BTreeSet<_>>() {
            // An absolute path is only ever compared with the host file's.
            let is_plain = name.ends_with(".pem") && !name.starts_with('.') && !name.contains('/') && !name.contains(|c: char| c.is_ascii_control());
            prop_assert!(is_plain || Path::new(name).is_absolute(), "{name:?}");
        }
        for name in read.files.values().map(|record| &record.lineage) {
            let is_plain = !name.starts_with('.') && !name.contains('/') && !name.contains(|c: char| c.is_ascii_control());
            prop_assert!(is_plain, "{name:?}");
        }
    }

    fn damaged_states(state in state(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut text = serde_json::to_vec(&state).unwrap();
        let at = at.index(text.len());
        if cut { text.truncate(at) } else { text[at] = byte }
        if let Ok(read) = State::parse(&text) {
            prop_assert!(!cut || read.lost, "half a file is no state");
            prop_assert!(!read.lost || read.files.is_empty() && read.pending.is_empty() && read.owed.is_empty());
        }
    }
}

#[test]
fn the_state_file_is_read_as_it_was_written_or_not_at_all() {
    for (name, law) in
        [("state", states as fn()), ("forged state", forged_states), ("damaged state", damaged_states)]
    {
        law();
        Count::Properties.add(name, CASES as usize);
    }
}

// ---- the configuration

/// Lines that are right, nearly right, and wrong.
const LINES: [&str; 24] = [
    "live_dir = \"/l\"",
    "sites_dir = \"/s\"",
    "owner = \"root\"",
    "owner = \"0:0\"",
    "owner = \":\"",
    "mode = \"0400\"",
    "mode = \"9999\"",
    "mode = 256",
    "include = [\"*\"]",
    "exclude = [\"[\"]",
    "host_lineage = \"a\"",
    "host_file = \"/h.pem\"",
    "[[haproxy]]",
    "name = \"b\"",
    "reload = \"auto\"",
    "reload = \"\"",
    "timeout = \"5m\"",
    "timeout = \"-1s\"",
    "timeout = \"99999999999999999999y\"",
    "runtime_socket = \"10.0.0.7:99999\"",
    "probe = [\"127.0.0.1:443\", \"\"]",
    "[certbot]",
    "args = [\"\\u0000\"]",
    "x = 1",
];

proptest! {
    #![proptest_config(config())]

    fn configurations(lines in vec(prop_oneof![5 => prop::sample::select(LINES.to_vec()).prop_map(str::to_owned), 1 => "(?s).{0,20}"], 0..8)) {
        if let Err(why) = Settings::parse(&lines.join("\n"), &Overrides::default()) {
            let why = why.to_string();
            prop_assert!(!why.is_empty() && why.is_ascii(), "{why:?}");
        }
    }
}

#[test]
fn no_configuration_makes_it_panic() {
    configurations();
    Count::Properties.add("configuration", CASES as usize);
}
