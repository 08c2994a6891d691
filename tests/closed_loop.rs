//! The closed loop against real `HAProxy`s of several versions: what is notified, what is confirmed, and, at the end of
//! each case, what a TLS handshake shows to be served.
//!
//! Each hazard of HAProxy's sockets has a case. Where a case needs somebody else to act at a certain moment, a
//! middleman stands between the program and the real socket and does it there. Only what a real HAProxy can't be
//! made to do has a fake one, in the tests at the end that say so. Each case is a test for each version.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code may fail loudly"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use haproxy_certs::certified_key::KeyType;
use haproxy_certs::config::{self, Overrides, Settings};
use haproxy_certs::haproxy::batch::{Batch, Change, Expected};
use haproxy_certs::haproxy::notify::notify;
use haproxy_certs::haproxy::patience::SocketPatience;
use haproxy_certs::haproxy::siblings::Homes;
use haproxy_certs::haproxy::start::Start;
use haproxy_certs::haproxy::target::Target;
use haproxy_certs::haproxy::verdict::{Outcome, Verdict};
use haproxy_certs::serving::contents::identity;
use haproxy_certs::serving::gather::gather;
use haproxy_certs::serving::spared::Spared;
use haproxy_certs::sys::system::System;
use openssl::hash::MessageDigest;
use support::fakes::Middleman;
use support::haproxy::{Setup, try_ask};
use support::summary::{Count, say};
use support::{
    Authority, Haproxy, KeyKind, LIMIT, Leaf, Port, Reload, Validity, Version, served, try_served, versions,
    wait_until,
};
use tempfile::TempDir;
use zeroize::Zeroizing;

/// One test for each case and version: `CASE::haproxy_2_6`. A case that is about some versions only names them.
macro_rules! cases {
    ($($name:ident: $case:expr;)+) => {
        $(mod $name {
            use super::*;
            cases!(@tests $case, haproxy_2_2 "2.2", haproxy_2_6 "2.6", haproxy_3_0 "3.0", haproxy_3_2 "3.2", haproxy_3_4 "3.4");
        })+
    };
    (@tests $case:expr, $($test:ident $version:literal),+) => {
        $(#[test]
        fn $test() {
            on($version, $case);
        })+
    };
}

/// What is tried with one version, where it is there: 3.2 and 3.4 may not be.
fn on(version: &str, case: fn(&Version)) {
    match support::haproxy::version(version) {
        Some(version) => {
            case(&version);
            Count::Cases.add_quietly(1);
        }
        None => say(&format!("skipped: there is no HAProxy {version} here")),
    }
}

cases! {
    replace_stats_socket: |version| replace(version, Socket::Stats);
    replace_master_socket: |version| replace(version, Socket::Master);
    replace_tcp_socket: replace_by_tcp;
    replace_host_certificate: replace_host;
    add_stats_socket: |version| add(version, Socket::Stats);
    add_master_socket: |version| add(version, Socket::Master);
    add_after_a_crash_half_way: add_after_a_crash;
    add_by_somebody_else_meanwhile: added_meanwhile;
    not_to_be_added_in_memory: not_addable;
    prune: prune;
    reload_master_cli: reload_by_the_master;
    reload_sigusr2: reload_by_signal;
    reload_two_at_once: reload_twice_at_once;
    reload_command: reload_by_command;
    reload_command_that_does_nothing: command_that_does_nothing;
    foreign_transaction_open: foreign_transaction;
    foreign_transaction_soon_over: foreign_transaction_soon_over;
    foreign_transaction_opened_meanwhile: |version| foreign_transaction_meanwhile(version, "a.pem");
    foreign_transaction_same_file: |version| foreign_transaction_meanwhile(version, "b.pem");
    foreign_transaction_again_and_again: foreign_transaction_again_and_again;
    oversized_payload: oversized;
    operator_level_socket: operator_level;
    pem_that_haproxy_refuses: refused_pem;
    pem_that_haproxy_refuses_on_reload: refused_on_reload;
    somebodys_mismatching_pem: |version| somebodys_pem(version, &mismatching());
    somebodys_garbage_pem: |version| somebodys_pem(version, "garbage\n");
    configuration_broken_elsewhere: broken_elsewhere;
    name_that_needs_quoting: quoted_name;
    directory_that_needs_quoting: quoted_directory;
    empty_line_in_a_pem: empty_line;
    certificates_locked_for_a_moment: locked;
    intermediate_lost: intermediate_lost;
    another_intermediate: another_intermediate;
    directory_spelled_otherwise: spelled_otherwise;
    reload_by_somebody_else_meanwhile: reload_meanwhile;
    reload_by_somebody_else_still_loading: reload_still_loading;
    reload_by_somebody_else_that_read_a_foreign_file_too_early: reload_that_read_too_early;
    reload_by_somebody_else_over_between: reload_over_between_looks;
    master_socket_of_another_haproxy: master_of_another;
    haproxy_down: down;
    haproxy_up_beside_a_stale_pidfile: stale_pidfile;
    haproxy_up_beside_a_stale_master_socket: stale_master_socket;
    haproxy_restarted_in_between: restarted;
    probe: probe;
}

/// Only old versions share the work among processes.
mod replace_several_processes {
    use super::*;
    cases!(@tests several_processes, haproxy_2_2 "2.2");
}

/// Older masters don't answer what came of a reload.
mod reload_while_another_one_loads {
    use super::*;
    cases!(@tests reload_while_another_loads, haproxy_3_0 "3.0", haproxy_3_2 "3.2", haproxy_3_4 "3.4");
}

/// From 3.1 on a worker loads by itself, and its uptime begins afterwards.
mod configuration_changed_while_a_worker_loads {
    use super::*;
    cases!(@tests configuration_changed_while_it_loads, haproxy_3_2 "3.2", haproxy_3_4 "3.4");
}

/// Renewed and reloaded under a continuous load of handshakes: none fails, none is shown another site's certificate.
#[test]
fn no_handshake_notices() {
    for version in versions() {
        // Without handing its listeners over, 2.2 resets a connection now and then when it reloads.
        let mut bed = Bed::start_with(&version, |setup| setup.stats_level("admin expose-fd listeners"));
        let address = bed.haproxy.address();
        let (stop, wrong) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        let handshakes = AtomicUsize::new(0);
        thread::scope(|scope| {
            for name in ["a.test", "b.test"] {
                let (stop, wrong, handshakes) = (&stop, &wrong, &handshakes);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) && handshakes.load(Ordering::Relaxed) < 50_000 {
                        match try_served(address, name) {
                            Ok(shown) if shown.names == [name] => {}
                            other => wrong.lock().unwrap().push(other),
                        }
                        handshakes.fetch_add(1, Ordering::Relaxed);
                        // The others need the processors too.
                        thread::sleep(Duration::from_millis(2));
                    }
                });
            }
            let done = catch_unwind(AssertUnwindSafe(|| {
                let reload = if version.number() < (2, 7) { None } else { Some("master") };
                let ways = [Some(("runtime", 200)), Some(("pidfile", 20)), reload.map(|method| (method, 20))];
                for (method, times) in ways.into_iter().flatten() {
                    let settings = bed.settings(method, Socket::Stats);
                    for _ in 0..times {
                        bed.renew("b.pem");
                        let verdict = bed.notify(&settings, &["b.pem"]);
                        assert_eq!(verdict.confirmed, Some(true), "{verdict:?}");
                    }
                }
            }));
            stop.store(true, Ordering::Relaxed);
            done.unwrap();
        });
        bed.old_workers_gone();
        bed.serves_all();
        let (wrong, handshakes) = (wrong.into_inner().unwrap(), handshakes.into_inner());
        Count::Handshakes
            .add(&format!("HAProxy {}, {} of them wrong", version.full, wrong.len()), handshakes);
        assert_eq!(wrong, [], "HAProxy {}", version.full);
    }
}

// A fake socket, for what no real HAProxy can be made to do.

#[test]
fn a_peer_that_never_answers_is_given_up_in_time() {
    let bed = Bed::start(&versions()[0]);
    let silent = Middleman::answering(|_| None);
    let mut settings = bed.settings("auto", Socket::At(silent.path()));
    settings.master_socket = Some(config::Address::Unix(silent.path().to_owned()));
    settings.timeout = Duration::from_secs(8);
    settings.pidfile = bed.path("no.pid");
    let start = Instant::now();
    let verdict = bed.notify(&settings, &["b.pem"]);
    assert_eq!(verdict.outcome, Outcome::Failed, "{verdict:?}");
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    bed.serves_all();
}

#[test]
fn a_peer_that_never_answers_leaves_time_for_another_way() {
    let mut bed = Bed::start(&versions()[0]);
    bed.renew("b.pem");
    let silent = Middleman::answering(|_| None);
    let mut settings = bed.settings("auto", Socket::At(silent.path()));
    settings.timeout = Duration::from_secs(20);
    let verdict = bed.notify(&settings, &["b.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    bed.serves_all();
}

#[test]
fn a_peer_that_falls_silent_has_shown_what_it_has() {
    let mut bed = Bed::start(&versions()[0]);
    bed.renew("b.pem");
    let (stats, asked) = (bed.haproxy.stats_socket(), AtomicUsize::new(0));
    let middleman = Middleman::answering(move |request| {
        (asked.fetch_add(1, Ordering::Relaxed) < 6).then(|| try_ask(&stats, request).unwrap_or_default())
    });
    let mut settings = bed.settings("auto", Socket::At(middleman.path()));
    settings.method = config::Method::Command;
    settings.command = vec!["/bin/true".to_owned()];
    settings.master_socket = None;
    settings.timeout = Duration::from_secs(8);
    let verdict = bed.notify(&settings, &["b.pem"]);
    // Not null, which would be taken for done.
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(false)), "{verdict:?}");
    assert!(detail(&verdict).contains("b.pem: HAProxy has another certificate"), "{verdict:?}");
}

/// Whoever listens there instead of HAProxy may say what it was told.
#[test]
fn a_reply_that_repeats_a_key_is_not_quoted() {
    let bed = Bed::start(&versions()[0]);
    let pem = fs::read_to_string(bed.path("b.pem")).unwrap();
    for (before, after) in [("Unknown command: '", "'\n"), ("unable to load certificate chain from ", "\n\n")]
    {
        let echo = Middleman::between(&bed.haproxy.stats_socket(), move |_, request, pass_on| {
            if request.starts_with("set ssl cert") {
                format!("{before}{}{after}", request.replace('\n', "\\n"))
            } else {
                pass_on(request)
            }
        });
        let mut settings = bed.settings("runtime", Socket::At(echo.path()));
        settings.master_socket = None;
        let verdict = bed.notify(&settings, &["b.pem"]);
        assert_ne!(verdict.confirmed, Some(true), "{before}");
        let said = format!("{verdict:?}");
        let leaks = pem.lines().any(|line| line.len() > 20 && said.contains(line));
        assert!(said.contains("repeats what it was sent") && !leaks, "{before}");
    }
}

#[test]
fn a_reply_cut_in_the_middle_is_no_reply() {
    // Each reply in turn is cut, of the commands that matter, in both ways of telling.
    for (command, by_master, outcome) in [
        ("show info", false, Outcome::Updated),
        ("show ssl cert\n", false, Outcome::Updated),
        // The transaction that it opened all the same is not left in the way of the other socket.
        ("set ssl cert", false, Outcome::Updated),
        ("commit ssl cert", false, Outcome::Reloaded),
        ("reload", true, Outcome::Reloaded),
    ] {
        let version = versions().into_iter().find(|version| version.number() > (2, 7)).unwrap();
        let mut bed = Bed::start(&version);
        bed.renew("b.pem");
        let once = AtomicBool::new(true);
        let real = if by_master { bed.haproxy.master_socket() } else { bed.haproxy.stats_socket() };
        let middleman = Middleman::between(&real, move |_, request, pass_on| {
            let mut reply = pass_on(request);
            if request.starts_with(command) && once.swap(false, Ordering::Relaxed) {
                reply.truncate(reply.len() / 2);
            }
            reply
        });
        let settings = if by_master {
            let mut settings = bed.settings("master", Socket::Stats);
            settings.master_socket = Some(config::Address::Unix(middleman.path().to_owned()));
            settings
        } else {
            bed.settings("auto", Socket::At(middleman.path()))
        };
        let verdict = bed.notify(&settings, &["b.pem"]);
        assert_eq!((verdict.outcome, verdict.confirmed), (outcome, Some(true)), "{command}: {verdict:?}");
        assert!(bed.haproxy.runtime("show ssl cert").starts_with("# filename"), "a transaction is left");
        bed.serves_all();
    }
}

// The cases.

fn replace(version: &Version, socket: Socket) {
    let mut bed = Bed::start(version);
    let workers = bed.haproxy.worker_pids();
    bed.renew("b.pem");
    bed.renew("c.pem");
    let verdict = bed.notify(&bed.settings("runtime", socket), &["b.pem", "c.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    assert_eq!(bed.haproxy.worker_pids(), workers, "no reload");
    bed.serves_all();
}

fn replace_by_tcp(version: &Version) {
    let port = Port::free();
    let line = format!("  stats socket ipv4@{} level admin", port.address());
    let mut bed = Bed::start_with(version, |setup| setup.global(&line));
    bed.renew("b.pem");
    let mut settings = bed.settings("runtime", Socket::Master);
    settings.runtime_socket = Some(config::Address::Tcp(port.address().to_string().into()));
    settings.master_socket = Some(config::Address::Unix(bed.path("no.sock")));
    let verdict = bed.notify(&settings, &["b.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    bed.serves_all();
}

fn replace_host(version: &Version) {
    let folder = TempDir::new().unwrap();
    let (file, spelled) = (folder.path().join("host.pem"), folder.path().join("as-haproxy-spells-it.pem"));
    std::os::unix::fs::symlink(&file, &spelled).unwrap();
    let issue = || Authority::new().issue(KeyKind::P256, &["host.test"], Validity::days(90));
    fs::write(&file, issue().combined()).unwrap();
    let mut bed = Bed::start_with(version, |setup| setup.crt(&spelled));
    let leaf = issue();
    fs::write(&file, leaf.combined()).unwrap();
    bed.committed = SystemTime::now();
    let changes = [Change { target: Target::Host, now: Some(expected(&leaf, true)) }];
    let read = |_: &Target| fs::read(&file).map(Zeroizing::new);
    let mut settings = bed.settings("runtime", Socket::Stats);
    let serving = gather(&bed.system, &settings, None, Spared::default());
    let ours = BTreeMap::from([(Target::Host, identity(&file).unwrap())]);
    let committed = bed.committed;
    let homes = homes(folder.path());
    let batch = Batch {
        changes: &changes,
        read: &read,
        committed,
        serving: &serving,
        ours: &ours,
        homes: &homes,
        start: &Start::default(),
        patience: &SocketPatience::default(),
    };
    // By our own path HAProxy doesn't know it: the file is the same.
    file.to_str().unwrap().clone_into(&mut settings.host_file);
    let verdict = notify(&bed.system, &settings, &batch);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    assert_eq!(served(bed.haproxy.address(), "host.test"), leaf.served());
    bed.serves_all();
}

/// Only old versions share the work among processes; a command reaches one of them.
fn several_processes(version: &Version) {
    let mut bed = Bed::start_with(version, |setup| setup.global("  nbproc 2"));
    bed.renew("b.pem");
    let verdict = bed.notify(&bed.settings("runtime", Socket::Stats), &["b.pem"]);
    assert_eq!(verdict.outcome, Outcome::Failed, "{verdict:?}");
    assert_eq!(detail(&verdict).matches("nbproc is not 1").count(), 2, "{verdict:?}");
    let verdict = bed.notify(&bed.settings("auto", Socket::Stats), &["b.pem"]);
    assert_eq!(verdict.outcome, Outcome::Reloaded, "{verdict:?}");
    bed.old_workers_gone();
    bed.serves_all();
}

fn add(version: &Version, socket: Socket) {
    let mut bed = Bed::start(version);
    let workers = bed.haproxy.worker_pids();
    bed.new_site("d.pem");
    bed.renew("b.pem");
    let verdict = bed.notify(&bed.settings("runtime", socket), &["b.pem", "d.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    assert_eq!(bed.haproxy.worker_pids(), workers, "no reload");
    bed.serves_all();
    // A reload reads the same from the disk.
    assert_eq!(bed.haproxy.reload_and_wait(), Reload::Loaded);
    bed.serves_all();
}

fn add_after_a_crash(version: &Version) {
    let mut bed = Bed::start(version);
    for file in ["d.pem", "e.pem", "f.pem"] {
        bed.new_site(file);
        bed.haproxy.runtime(&format!("new ssl cert {}", bed.path(file).display()));
    }
    // d: new; e: new, set, commit; f: new, set, commit of an older certificate.
    for (file, leaf) in [("e.pem", bed.leaves["e.pem"].clone()), ("f.pem", bed.leaves["a.pem"].clone())] {
        let path = bed.path(file);
        bed.haproxy.runtime(&format!("set ssl cert {} <<\n{}\n", path.display(), leaf.combined()));
        let reply = bed.haproxy.runtime(&format!("commit ssl cert {}", path.display()));
        assert!(reply.contains("Success!"), "{reply}");
    }
    let verdict = bed.notify(&bed.settings("runtime", Socket::Stats), &["d.pem", "e.pem", "f.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    bed.serves_all();
}

fn added_meanwhile(version: &Version) {
    let mut bed = Bed::start(version);
    bed.new_site("d.pem");
    let once = AtomicBool::new(true);
    let middleman = Middleman::between(&bed.haproxy.stats_socket(), move |_, request, pass_on| {
        if request.starts_with("add ssl crt-list") && once.swap(false, Ordering::Relaxed) {
            pass_on(request);
            let reply = pass_on(request);
            assert!(reply.contains("already exists"), "{reply}");
            return reply;
        }
        pass_on(request)
    });
    let verdict = bed.notify(&bed.settings("runtime", Socket::At(middleman.path())), &["d.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    bed.serves_all();
}

fn not_addable(version: &Version) {
    let mut bed = Bed::start(version);
    bed.new_site("d.pem");
    bed.renew("b.pem");
    bed.addable = false;
    let verdict = bed.notify(&bed.settings("runtime", Socket::Stats), &["b.pem", "d.pem"]);
    assert_eq!(verdict.outcome, Outcome::Failed);
    assert!(detail(&verdict).contains("d.pem: is new"), "{verdict:?}");
    // What can be replaced is, where there is no other way.
    assert_eq!(served(bed.haproxy.address(), "b.test"), bed.leaves["b.pem"].served());
    assert_ne!(served(bed.haproxy.address(), "d.test"), bed.leaves["d.pem"].served());
    let verdict = bed.notify(&bed.settings("auto", Socket::Stats), &["b.pem", "d.pem"]);
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(true)), "{verdict:?}");
    bed.serves_all();
}

fn prune(version: &Version) {
    let mut bed = Bed::start(version);
    bed.leaves.remove("c.pem");
    fs::remove_file(bed.path("c.pem")).unwrap();
    let verdict = bed.notify(&bed.settings("auto", Socket::Stats), &["c.pem"]);
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(true)), "{verdict:?}");
    assert!(detail(&verdict).contains("runtime: c.pem: is removed"), "{verdict:?}");
    bed.serves_all();
    bed.old_workers_gone();
    assert_eq!(served(bed.haproxy.address(), "c.test"), bed.leaves["a.pem"].served(), "the default one");
}

fn reload_by_the_master(version: &Version) {
    let mut bed = Bed::start(version);
    bed.renew("b.pem");
    let verdict = bed.notify(&bed.settings("master", Socket::Master), &["b.pem"]);
    if version.number() < (2, 7) {
        assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Updated, Some(true)), "{verdict:?}");
        assert!(detail(&verdict).contains("doesn't say whether a reload worked"), "{verdict:?}");
    } else {
        assert_eq!(seen(&verdict), (Outcome::Reloaded, Some(true), None));
    }
    bed.serves_all();
}

fn reload_by_signal(version: &Version) {
    let mut bed = Bed::start(version);
    bed.renew("b.pem");
    let verdict = bed.notify(&bed.settings("pidfile", Socket::Master), &["b.pem"]);
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(true)), "{verdict:?}");
    bed.serves_all();
}

fn reload_by_command(version: &Version) {
    let bed = Bed::start(version);
    let old = bed.haproxy.worker_pids();
    let mut settings = bed.settings("auto", Socket::Master);
    settings.method = config::Method::Command;
    let signal = format!("sleep 0.3; kill -USR2 {}", bed.haproxy.master_pid());
    settings.command = ["/bin/sh", "-c", &signal].map(ToOwned::to_owned).into();
    // The old worker has the same certificate: it isn't taken for the new one.
    let verdict = bed.notify(&settings, &["b.pem"]);
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(true)), "{verdict:?}");
    let shown = bed.haproxy.master("@1 show info");
    assert!(!old.iter().any(|pid| shown.contains(&format!("\nPid: {pid}\n"))), "{old:?} {shown}");
    bed.old_workers_gone();
    bed.serves_all();
}

fn command_that_does_nothing(version: &Version) {
    let mut bed = Bed::start(version);
    bed.renew("b.pem");
    let mut settings = bed.settings("auto", Socket::Stats);
    settings.method = config::Method::Command;
    settings.command = vec!["/bin/true".to_owned()];
    settings.timeout = Duration::from_secs(4);
    let verdict = bed.notify(&settings, &["b.pem"]);
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(false)), "{verdict:?}");
    assert!(detail(&verdict).contains("b.pem: HAProxy has another certificate"), "{verdict:?}");
    assert_eq!(verdict.rejected, [], "not seen is not refused");
    // In memory, but not in the directory's list.
    bed.new_site("d.pem");
    let path = bed.path("d.pem");
    bed.haproxy.runtime(&format!("new ssl cert {}", path.display()));
    let pem = bed.leaves["d.pem"].combined();
    bed.haproxy.runtime(&format!("set ssl cert {} <<\n{pem}\n", path.display()));
    let reply = bed.haproxy.runtime(&format!("commit ssl cert {}", path.display()));
    assert!(reply.contains("Success!"), "{reply}");
    let verdict = bed.notify(&settings, &["d.pem"]);
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(false)), "{verdict:?}");
    assert!(detail(&verdict).contains("d.pem: HAProxy has it and doesn't serve it"), "{verdict:?}");
}

/// The master answers that another reload is in progress (3.1 and later), or nobody accepts connections meanwhile.
fn reload_while_another_loads(version: &Version) {
    let gate = Gate::new();
    let mut bed = Bed::start_with(version, |setup| setup.section(&gate.section()));
    gate.close();
    bed.haproxy.signal_reload();
    gate.wait_until_reached();
    bed.renew("b.pem");
    let (reloads, unanswered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let opener = gate.clone();
    let middleman = Middleman::between(&bed.haproxy.master_socket(), move |_, request, pass_on| {
        if request == "reload\n" && reloads.fetch_add(1, Ordering::Relaxed) == 1 {
            opener.open();
        }
        let reply = pass_on(request);
        if reply.is_empty() && unanswered.fetch_add(1, Ordering::Relaxed) == 2 {
            opener.open();
        }
        reply
    });
    let mut settings = bed.settings("master", Socket::Stats);
    settings.master_socket = Some(config::Address::Unix(middleman.path().to_owned()));
    // A check would wait for the same file.
    settings.binary = None;
    let verdict = bed.notify(&settings, &["b.pem"]);
    gate.open();
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(true)), "{verdict:?}");
    bed.old_workers_gone();
    bed.serves_all();
}

fn reload_twice_at_once(version: &Version) {
    let mut bed = Bed::start(version);
    bed.renew("b.pem");
    bed.renew("c.pem");
    let method = if version.number() < (2, 7) { "pidfile" } else { "master" };
    let settings = bed.settings(method, Socket::Master);
    let verdicts = thread::scope(|scope| {
        ["b.pem", "c.pem"]
            .map(|file| {
                let (bed, settings) = (&bed, &settings);
                scope.spawn(move || bed.notify(settings, &[file]))
            })
            .map(|telling| telling.join().unwrap())
    });
    for verdict in verdicts {
        assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(true)), "{verdict:?}");
    }
    bed.serves_all();
}

fn foreign_transaction(version: &Version) {
    let mut bed = Bed::start(version);
    bed.renew("b.pem");
    bed.open_transaction("a.pem");
    let verdict = bed.notify(&bed.settings("runtime", Socket::Stats), &["b.pem"]);
    assert_eq!(verdict.outcome, Outcome::Failed);
    assert!(detail(&verdict).contains("somebody else has a transaction open on"), "{verdict:?}");
    // Theirs is left alone.
    assert!(bed.haproxy.runtime("show ssl cert").starts_with("# transaction"));
    let verdict = bed.notify(&bed.settings("auto", Socket::Stats), &["b.pem"]);
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(true)), "{verdict:?}");
    bed.serves_all();
}

fn foreign_transaction_soon_over(version: &Version) {
    let mut bed = Bed::start(version);
    bed.renew("b.pem");
    bed.open_transaction("a.pem");
    let (path, looks) = (bed.path("a.pem"), AtomicUsize::new(0));
    let middleman = Middleman::between(&bed.haproxy.stats_socket(), move |stats, request, pass_on| {
        let reply = pass_on(request);
        if request == "show ssl cert\n" && looks.fetch_add(1, Ordering::Relaxed) == 2 {
            try_ask(stats, &format!("abort ssl cert {}", path.display())).unwrap();
        }
        reply
    });
    let verdict = bed.notify(&bed.settings("runtime", Socket::At(middleman.path())), &["b.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    bed.serves_all();
}

fn foreign_transaction_meanwhile(version: &Version, theirs: &str) {
    let mut bed = Bed::start(version);
    bed.renew("b.pem");
    let other = bed.authority.issue(KeyKind::P256, &["other.test"], Validity::days(90));
    let path = bed.path(theirs);
    let (once, stats) = (AtomicBool::new(true), bed.haproxy.stats_socket());
    let middleman = Middleman::between(&stats, move |stats, request, pass_on| {
        if request.starts_with("set ssl cert") && once.swap(false, Ordering::Relaxed) {
            try_ask(stats, &format!("set ssl cert {} <<\n{}\n", path.display(), other.combined())).unwrap();
            let reply = pass_on(request);
            // They commit a moment later: no certificate of ours may come to lie under their name.
            thread::sleep(Duration::from_millis(20));
            let stats = stats.to_owned();
            let commit = format!("commit ssl cert {}\nabort ssl cert {}", path.display(), path.display());
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(300));
                commit.lines().for_each(|line| drop(try_ask(&stats, line)));
            });
            return reply;
        }
        pass_on(request)
    });
    let settings = bed.settings("runtime", Socket::At(middleman.path()));
    let verdict = bed.notify(&settings, &["b.pem"]);
    // From 3.2 on HAProxy shows that nobody serves a.test any more; a start would.
    if theirs == "a.pem" && version.number() >= (3, 2) {
        assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Updated, Some(false)));
        let why = verdict.detail.unwrap();
        assert_eq!(why.matches("serves a.test").count(), 1, "{why}");
    } else {
        assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    }
    // What they committed under their own name is theirs; nobody else's is there.
    let a = served(bed.haproxy.address(), "a.test");
    assert_ne!(a, bed.leaves["b.pem"].served(), "our certificate under their name");
    assert_eq!(served(bed.haproxy.address(), "b.test"), bed.leaves["b.pem"].served());
    assert_eq!(served(bed.haproxy.address(), "c.test"), bed.leaves["c.pem"].served());
}

fn foreign_transaction_again_and_again(version: &Version) {
    let mut bed = Bed::start(version);
    let before = bed.leaves["b.pem"].served();
    bed.renew("b.pem");
    let other = bed.leaves["c.pem"].clone();
    let path = bed.path("a.pem");
    let middleman = Middleman::between(&bed.haproxy.stats_socket(), move |stats, request, pass_on| {
        if request.starts_with("set ssl cert") {
            try_ask(stats, &format!("set ssl cert {} <<\n{}\n", path.display(), other.combined())).unwrap();
        }
        pass_on(request)
    });
    let settings = bed.settings("runtime", Socket::At(middleman.path()));
    let verdict = bed.notify(&settings, &["b.pem"]);
    assert_eq!(verdict.outcome, Outcome::Failed);
    assert!(detail(&verdict).contains("somebody else has a transaction open on"), "{verdict:?}");
    // Whatever they do next, our certificate isn't in it.
    bed.haproxy.runtime(&format!("commit ssl cert {}", bed.path("a.pem").display()));
    assert_ne!(served(bed.haproxy.address(), "a.test"), bed.leaves["b.pem"].served());
    assert_eq!(served(bed.haproxy.address(), "b.test"), before);
}

fn oversized(version: &Version) {
    let mut bed = Bed::start(version);
    bed.renew("b.pem");
    // Between our limit and the size that kills.
    let leaf = bed.leaves.get_mut("c.pem").unwrap();
    let intermediate = leaf.chain.clone();
    while leaf.combined().len() < 15_500 {
        leaf.chain.push_str(&intermediate);
    }
    fs::write(bed.path("c.pem"), bed.leaves["c.pem"].combined()).unwrap();
    bed.committed = SystemTime::now();
    let workers = bed.haproxy.worker_pids();
    let verdict = bed.notify(&bed.settings("runtime", Socket::Stats), &["b.pem", "c.pem"]);
    assert_eq!(verdict.outcome, Outcome::Failed);
    assert!(detail(&verdict).contains("c.pem: a command of"), "{verdict:?}");
    assert_eq!(bed.haproxy.worker_pids(), workers);
    assert_eq!(served(bed.haproxy.address(), "b.test"), bed.leaves["b.pem"].served(), "the others are sent");
    let verdict = bed.notify(&bed.settings("auto", Socket::Stats), &["b.pem", "c.pem"]);
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(true)), "{verdict:?}");
    bed.serves_all();
}

fn operator_level(version: &Version) {
    let mut bed = Bed::start_with(version, |setup| setup.stats_level("operator"));
    bed.renew("b.pem");
    let mut settings = bed.settings("runtime", Socket::Stats);
    settings.master_socket = Some(config::Address::Unix(bed.path("no.sock")));
    let verdict = bed.notify(&settings, &["b.pem"]);
    assert_eq!(verdict.outcome, Outcome::Failed);
    let line = format!("stats socket {} mode 660 level admin", bed.haproxy.stats_socket().display());
    assert!(detail(&verdict).contains(&line), "{verdict:?}");
    // It is enough to see what a reload came to.
    settings.method = config::Method::Pidfile;
    let verdict = bed.notify(&settings, &["b.pem"]);
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(true)), "{verdict:?}");
    bed.serves_all();
    // The master's socket needs no level.
    bed.renew("c.pem");
    let verdict = bed.notify(&bed.settings("runtime", Socket::Stats), &["c.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    bed.serves_all();
}

fn refused_pem(version: &Version) {
    // One thread: there 2.2 holds what a mismatching PEM leaves behind against the next one.
    let mut bed = Bed::start_with(version, |setup| setup.global("  nbthread 1"));
    let before = served(bed.haproxy.address(), "b.test");
    bed.renew("c.pem");
    for (pem, words) in [
        (mismatching(), "inconsistencies between private key and certificate"),
        ("garbage\n".to_owned(), "unable to load certificate"),
        (bed.leaves["b.pem"].fullchain(), "private key"),
    ] {
        bed.renew("b.pem");
        fs::write(bed.path("b.pem"), &pem).unwrap();
        let verdict = bed.notify(&bed.settings("runtime", Socket::Stats), &["b.pem", "c.pem"]);
        assert_eq!(verdict.outcome, Outcome::Failed, "{verdict:?}");
        let [(Target::Site(file), said)] = verdict.rejected.as_slice() else { panic!("{verdict:?}") };
        assert_eq!(file, "b.pem");
        assert!(said.to_lowercase().contains(words), "{said}");
        assert!(bed.haproxy.runtime("show ssl cert").starts_with("# filename"), "no transaction is left");
        assert_eq!(served(bed.haproxy.address(), "b.test"), before);
        assert_eq!(served(bed.haproxy.address(), "c.test"), bed.leaves["c.pem"].served());
    }
    // A new one leaves nothing behind.
    bed.new_site("d.pem");
    fs::write(bed.path("d.pem"), mismatching()).unwrap();
    let verdict = bed.notify(&bed.settings("runtime", Socket::Stats), &["d.pem"]);
    assert_eq!(verdict.rejected.len(), 1, "{verdict:?}");
    assert!(!bed.haproxy.runtime("show ssl cert").contains("d.pem"));
}

fn refused_on_reload(version: &Version) {
    let mut bed = Bed::start(version);
    let before = served(bed.haproxy.address(), "b.test");
    bed.renew("c.pem");
    bed.renew("b.pem");
    fs::write(bed.path("b.pem"), mismatching()).unwrap();
    let method = if version.number() < (2, 7) { "pidfile" } else { "master" };
    let processes = bed.haproxy.processes();
    let mut settings = bed.settings(method, Socket::Master);
    let refused = |verdict: Verdict| {
        assert_eq!(verdict.outcome, Outcome::Failed, "{verdict:?}");
        let [(Target::Site(file), said)] = verdict.rejected.as_slice() else { panic!("{verdict:?}") };
        assert_eq!(file, "b.pem");
        assert!(said.contains("inconsistencies"), "{said}");
        assert_eq!(served(bed.haproxy.address(), "b.test"), before);
    };
    refused(bed.notify(&settings, &["b.pem", "c.pem"]));
    assert_eq!(bed.haproxy.processes(), processes, "what the check refuses is not reloaded");
    if method == "master" {
        // Unchecked: the reply to `reload` says it too.
        settings.binary = None;
        refused(bed.notify(&settings, &["b.pem", "c.pem"]));
        assert_ne!(bed.haproxy.processes(), processes);
    }
}

fn somebodys_pem(version: &Version, pem: &str) {
    let mut bed = Bed::start(version);
    bed.renew("b.pem");
    bed.new_site("d.pem");
    bed.addable = false;
    fs::write(bed.path("zz-somebodys.pem"), pem).unwrap();
    // By a reload: it fails, it isn't our fault, and b is replaced in memory all the same.
    let verdict = bed.notify(&bed.settings("auto", Socket::Master), &["b.pem", "d.pem"]);
    assert_eq!(
        (verdict.outcome, verdict.rejected.as_slice()),
        (Outcome::Failed, [].as_slice()),
        "{verdict:?}"
    );
    assert!(detail(&verdict).contains("zz-somebodys.pem"), "{verdict:?}");
    assert!(detail(&verdict).contains("1 of 2 files are replaced in memory meanwhile"), "{verdict:?}");
    assert_eq!(served(bed.haproxy.address(), "b.test"), bed.leaves["b.pem"].served());
    // In memory: nothing is in the way.
    fs::rename(bed.path("d.pem"), bed.path("d.pem.key")).unwrap();
    bed.renew("c.pem");
    let verdict = bed.notify(&bed.settings("auto", Socket::Master), &["c.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    assert_eq!(served(bed.haproxy.address(), "c.test"), bed.leaves["c.pem"].served());
    fs::rename(bed.path("d.pem.key"), bed.path("d.pem")).unwrap();
    // And once it is gone, the next run pays what is owed.
    fs::remove_file(bed.path("zz-somebodys.pem")).unwrap();
    let verdict = bed.notify(&bed.settings("auto", Socket::Master), &["b.pem", "d.pem"]);
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(true)), "{verdict:?}");
    bed.serves_all();
}

fn broken_elsewhere(version: &Version) {
    let page = tempfile::NamedTempFile::new().unwrap();
    fs::write(&page, "HTTP/1.0 503 Service Unavailable\r\n\r\n").unwrap();
    let line = format!("backend elsewhere\n  errorfile 503 {}", page.path().display());
    let mut bed = Bed::start_with(version, |setup| setup.section(&line));
    bed.renew("b.pem");
    let config = fs::read_to_string(bed.haproxy.config()).unwrap();
    // Surely newer than its worker.
    let before = SystemTime::now();
    wait_until(LIMIT, "the worker is older", || before.elapsed().is_ok_and(|age| age.as_millis() > 300));
    fs::write(bed.haproxy.config(), format!("{config}  bogus-keyword on\n")).unwrap();
    let method = if version.number() < (2, 7) { "pidfile" } else { "master" };
    let processes = bed.haproxy.processes();
    let verdict = bed.notify(&bed.settings(method, Socket::Stats), &["b.pem"]);
    assert_eq!(
        (verdict.outcome, verdict.rejected.as_slice()),
        (Outcome::Failed, [].as_slice()),
        "{verdict:?}"
    );
    assert_eq!(bed.haproxy.processes(), processes, "what the check refuses is not reloaded");
    let line = config.lines().count() + 1;
    let config_file = bed.haproxy.config();
    let file = config_file.display();
    let said = verdict.detail.clone().unwrap();
    assert!(
        said.starts_with(&format!("[{file}:{line}] ")) && said.contains("bogus-keyword"),
        "the cause first: {said}"
    );
    let program = version.program.display();
    let advice = format!("; mend line {line} of {file}; check it with: {program} -c -f {file}; ");
    assert!(said.contains(&advice), "{said}");
    assert!(detail(&verdict).contains("all of it is replaced in memory meanwhile"), "{verdict:?}");
    bed.serves_all();
    fs::write(bed.haproxy.config(), config).unwrap();
    bed.renew("a.pem");
    let verdict = bed.notify(&bed.settings(method, Socket::Master), &["a.pem"]);
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(true)), "{verdict:?}");
    bed.serves_all();
    // Its worker has read the configuration, which doesn't say what is broken since.
    drop(page);
    bed.haproxy.check().unwrap_err();
    bed.renew("c.pem");
    let verdict = bed.notify(&bed.settings("auto", Socket::Master), &["c.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    bed.serves_all();
}

fn quoted_name(version: &Version) {
    let mut bed = Bed::start(version);
    let name = "d e;f*g\\h.pem";
    let leaf = bed.authority.issue(KeyKind::P256, &["quoted.test"], Validity::days(90));
    fs::write(bed.path(name), leaf.combined()).unwrap();
    bed.leaves.insert(name.to_owned(), leaf.clone());
    bed.committed = SystemTime::now();
    let verdict = bed.notify(&bed.settings("auto", Socket::Stats), &[name]);
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(true)), "{verdict:?}");
    assert!(detail(&verdict).contains("its name is no plain word"), "{verdict:?}");
    assert_eq!(served(bed.haproxy.address(), "quoted.test"), leaf.served());
}

fn quoted_directory(version: &Version) {
    let link = TempDir::new().unwrap();
    let spelled = link.path().join("as haproxy spells it");
    let mut bed = Bed::start_at(version, Some(&spelled), |setup| setup);
    bed.renew("b.pem");
    let mut settings = bed.settings("runtime", Socket::Stats);
    spelled.to_str().unwrap().clone_into(&mut settings.sites_dir);
    let verdict = bed.notify(&settings, &["b.pem"]);
    assert_eq!(verdict.outcome, Outcome::Failed);
    assert!(detail(&verdict).contains("b.pem: its name is no plain word"), "{verdict:?}");
    settings.method = config::Method::Auto;
    let verdict = bed.notify(&settings, &["b.pem"]);
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(true)), "{verdict:?}");
    bed.old_workers_gone();
    bed.serves_all();
}

/// It would end the payload: what follows is lost, or run as commands.
fn empty_line(version: &Version) {
    let mut bed = Bed::start(version);
    let before = served(bed.haproxy.address(), "b.test");
    bed.renew("b.pem");
    let leaf = &bed.leaves["b.pem"];
    fs::write(bed.path("b.pem"), format!("{}\n{}", leaf.key.pem(), leaf.fullchain())).unwrap();
    let verdict = bed.notify(&bed.settings("runtime", Socket::Stats), &["b.pem"]);
    assert_eq!((verdict.outcome, verdict.rejected.as_slice()), (Outcome::Failed, [].as_slice()));
    assert!(detail(&verdict).contains("b.pem: has an empty line"), "{verdict:?}");
    assert_eq!(served(bed.haproxy.address(), "b.test"), before);
    let verdict = bed.notify(&bed.settings("auto", Socket::Stats), &["b.pem"]);
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(true)), "{verdict:?}");
    bed.old_workers_gone();
    bed.serves_all();
}

/// The moment can't be met with a real HAProxy: the middleman says what it says then (from HAProxy's source).
fn locked(version: &Version) {
    let mut bed = Bed::start(version);
    bed.renew("b.pem");
    let left = AtomicUsize::new(8);
    let middleman = Middleman::between(&bed.haproxy.stats_socket(), move |_, request, pass_on| {
        let is_left = |left: usize| left.checked_sub(1);
        let is_of_certificates = request.contains(" ssl cert ");
        if is_of_certificates && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_left).is_ok() {
            let what = request.lines().next().unwrap();
            return format!(
                "Can't {what}!\nOperations on certificates are currently locked!\nCan't do it!\n\n"
            );
        }
        pass_on(request)
    });
    let settings = bed.settings("runtime", Socket::At(middleman.path()));
    let verdict = bed.notify(&settings, &["b.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    bed.serves_all();
}

fn intermediate_lost(version: &Version) {
    let mut bed = Bed::start(version);
    bed.renew("b.pem");
    // The right leaf without its chain: not what was deployed.
    let leaf = bed.leaves["b.pem"].clone();
    fs::write(bed.path("b.pem"), format!("{}{}", leaf.key.pem(), leaf.cert)).unwrap();
    let verdict = bed.notify(&bed.settings("runtime", Socket::Stats), &["b.pem"]);
    assert_eq!(verdict.outcome, Outcome::Failed, "{verdict:?}");
    assert!(detail(&verdict).contains("0 intermediate certificates with it instead of 1"), "{verdict:?}");
    let verdict = bed.notify(&bed.settings("pidfile", Socket::Stats), &["b.pem"]);
    assert_eq!(verdict.rejected, [], "not seen is not refused");
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(false)), "{verdict:?}");
    assert!(detail(&verdict).contains("0 intermediate certificates with it instead of 1"), "{verdict:?}");
    // The same leaf with its chain again: a matching fingerprint isn't enough to leave it.
    fs::write(bed.path("b.pem"), leaf.combined()).unwrap();
    bed.committed = SystemTime::now();
    let verdict = bed.notify(&bed.settings("runtime", Socket::Stats), &["b.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    bed.serves_all();
}

fn another_intermediate(version: &Version) {
    let mut bed = Bed::start(version);
    // The same leaf before another intermediate: neither the fingerprint nor the length of the chain shows it.
    let mut leaf = bed.leaves["b.pem"].clone();
    Authority::named("another CA").intermediate().clone_into(&mut leaf.chain);
    bed.put("b.pem", leaf);
    let verdict = bed.notify(&bed.settings("runtime", Socket::Stats), &["b.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    let shown = bed.haproxy.runtime(&format!("show ssl cert {}", bed.path("b.pem").display()));
    assert!(shown.contains("Chain Subject: /CN=another CA (intermediate)"), "{shown}");
    bed.serves_all();
}

fn spelled_otherwise(version: &Version) {
    let link = TempDir::new().unwrap();
    let spelled = link.path().join("as-haproxy-spells-it");
    let mut bed = Bed::start_at(version, Some(&spelled), |setup| setup);
    bed.renew("b.pem");
    let mut settings = bed.settings("runtime", Socket::Stats);
    let verdict = bed.notify(&settings, &["b.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None), "whatever its path");
    bed.new_site("d.pem");
    spelled.to_str().unwrap().clone_into(&mut settings.sites_dir);
    let verdict = bed.notify(&settings, &["b.pem", "d.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    bed.serves_all();
}

fn reload_meanwhile(version: &Version) {
    let mut bed = Bed::start(version);
    let old = fs::read(bed.path("b.pem")).unwrap();
    bed.renew("b.pem");
    let new = fs::read(bed.path("b.pem")).unwrap();
    // Somebody's reload has read the old file just before it was replaced, and comes through after our commit.
    let path = bed.path("b.pem");
    let master = bed.haproxy.master_socket();
    let pid = rustix::process::Pid::from_raw(i32::try_from(bed.haproxy.master_pid()).unwrap()).unwrap();
    let once = AtomicBool::new(true);
    let workers = bed.haproxy.worker_pids();
    let middleman = Middleman::between(&bed.haproxy.stats_socket(), move |_, request, pass_on| {
        let reply = pass_on(request);
        if request.starts_with("commit ssl cert") && once.swap(false, Ordering::Relaxed) {
            fs::write(&path, &old).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::USR2).unwrap();
            let (path, new, master, workers) = (path.clone(), new.clone(), master.clone(), workers.clone());
            wait_until(LIMIT, "somebody's reload", || {
                let shown = try_ask(&master, "show proc").unwrap_or_default();
                let (now, _) = shown.split_once("# old workers").unwrap_or((&shown, ""));
                now.lines().any(|line| {
                    line.contains("worker  ") && !workers.iter().any(|pid| line.starts_with(&pid.to_string()))
                })
            });
            // From 3.1 on the worker is listed before it has read its files.
            thread::sleep(Duration::from_millis(300));
            fs::write(&path, &new).unwrap();
        }
        reply
    });
    let settings = bed.settings("runtime", Socket::At(middleman.path()));
    let verdict = bed.notify(&settings, &["b.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    bed.old_workers_gone();
    bed.serves_all();
}

fn reload_still_loading(version: &Version) {
    let gate = Gate::new();
    let mut bed = Bed::start_with(version, |setup| setup.section(&gate.section()));
    let old = fs::read(bed.path("b.pem")).unwrap();
    bed.renew("b.pem");
    let new = fs::read(bed.path("b.pem")).unwrap();
    // Somebody's reload has read the old file just before it was replaced, and is still loading after our commit.
    let path = bed.path("b.pem");
    let pid = rustix::process::Pid::from_raw(i32::try_from(bed.haproxy.master_pid()).unwrap()).unwrap();
    let looks = Mutex::new(None);
    let opener = gate.clone();
    let middleman = Middleman::between(&bed.haproxy.stats_socket(), move |_, request, pass_on| {
        let reply = pass_on(request);
        let mut looks = looks.lock().unwrap();
        if request.starts_with("commit ssl cert") && looks.is_none() {
            fs::write(&path, &old).unwrap();
            opener.close();
            rustix::process::kill_process(pid, rustix::process::Signal::USR2).unwrap();
            opener.wait_until_reached();
            fs::write(&path, &new).unwrap();
            *looks = Some(0);
        } else if let Some(looks) = looks.as_mut().filter(|_| request == "show info\n") {
            *looks += 1;
            if *looks == 5 {
                opener.open();
            }
        }
        reply
    });
    let settings = bed.settings("runtime", Socket::At(middleman.path()));
    let verdict = bed.notify(&settings, &["b.pem"]);
    gate.open();
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    wait_until(LIMIT, "the end of somebody's reload", || {
        bed.haproxy.processes().is_some_and(|shown| shown.reloads > 0)
    });
    bed.old_workers_gone();
    bed.serves_all();
}

/// The worker has read its configuration when that changes, and says only seconds later that it has started.
fn configuration_changed_while_it_loads(version: &Version) {
    let gate = Gate::new();
    let mut bed = Bed::start_with(version, |setup| setup.section(&gate.section()));
    gate.close();
    bed.haproxy.signal_reload();
    gate.wait_until_reached();
    // More than a clock tick after its process began.
    thread::sleep(Duration::from_millis(200));
    let changed = format!("{}\n# changed\n", fs::read_to_string(bed.haproxy.config()).unwrap());
    fs::write(bed.haproxy.config(), changed).unwrap();
    // More than what its uptime is rounded by.
    thread::sleep(Duration::from_millis(2500));
    gate.open();
    wait_until(LIMIT, "the end of somebody's reload", || {
        bed.haproxy.processes().is_some_and(|shown| shown.reloads > 0)
    });
    bed.old_workers_gone();
    bed.renew("b.pem");
    let verdict = bed.notify(&bed.settings("auto", Socket::Stats), &["b.pem"]);
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(true)), "{verdict:?}");
    bed.serves_all();
}

/// The new worker is younger than the foreign file, and has what was there before.
fn reload_that_read_too_early(version: &Version) {
    for is_over in [false, true] {
        let gate = Gate::new();
        let mut bed = Bed::start_with(version, |setup| setup.section(&gate.section()));
        gate.close();
        bed.haproxy.signal_reload();
        gate.wait_until_reached();
        bed.renew("c.pem");
        let foreign = bed.leaves.remove("c.pem").unwrap();
        bed.renew("b.pem");
        if is_over {
            gate.open();
            wait_until(LIMIT, "the end of somebody's reload", || {
                bed.haproxy.processes().is_some_and(|shown| shown.reloads > 0)
            });
            bed.old_workers_gone();
        }
        let (looks, opener) = (AtomicUsize::new(0), gate.clone());
        let middleman = Middleman::between(&bed.haproxy.stats_socket(), move |_, request, pass_on| {
            let reply = pass_on(request);
            if request == "show info\n" && looks.fetch_add(1, Ordering::Relaxed) == 2 {
                opener.open();
            }
            reply
        });
        let settings = bed.settings("auto", Socket::At(middleman.path()));
        let verdict = bed.notify(&settings, &["b.pem"]);
        assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Reloaded, Some(true)), "{verdict:?}");
        bed.serves_all();
        assert_eq!(served(bed.haproxy.address(), "c.test").serial, foreign.serial());
    }
}

fn reload_over_between_looks(version: &Version) {
    let gate = Gate::new();
    let mut bed = Bed::start_with(version, |setup| setup.section(&gate.section()));
    let old = fs::read(bed.path("b.pem")).unwrap();
    bed.renew("b.pem");
    let new = fs::read(bed.path("b.pem")).unwrap();
    let path = bed.path("b.pem");
    let pid = rustix::process::Pid::from_raw(i32::try_from(bed.haproxy.master_pid()).unwrap()).unwrap();
    let (master, workers) = (bed.haproxy.master_socket(), bed.haproxy.worker_pids());
    let is_over = move || {
        let shown = try_ask(&master, "show proc").unwrap_or_default();
        let mut now = shown.lines().filter(|line| line.contains(" worker ")).peekable();
        now.peek().is_some() && now.all(|line| !workers.iter().any(|pid| line.starts_with(&pid.to_string())))
    };
    let (committed, opener) = (AtomicBool::new(false), gate.clone());
    let middleman = Middleman::between(&bed.haproxy.stats_socket(), move |_, request, pass_on| {
        let reply = pass_on(request);
        if request.starts_with("commit ssl cert") && !committed.swap(true, Ordering::Relaxed) {
            fs::write(&path, &old).unwrap();
            opener.close();
            rustix::process::kill_process(pid, rustix::process::Signal::USR2).unwrap();
            opener.wait_until_reached();
            fs::write(&path, &new).unwrap();
        } else if request == "show info\n" && committed.load(Ordering::Relaxed) && opener.is_closed() {
            // The old worker has answered, and is gone before anything else is asked.
            opener.open();
            wait_until(LIMIT, "the end of somebody's reload", &is_over);
        }
        reply
    });
    let settings = bed.settings("runtime", Socket::At(middleman.path()));
    let verdict = bed.notify(&settings, &["b.pem"]);
    gate.open();
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    bed.old_workers_gone();
    bed.serves_all();
}

fn master_of_another(version: &Version) {
    let (mut bed, other) = (Bed::start(version), Bed::start(version));
    bed.renew("b.pem");
    let mut settings = bed.settings("runtime", Socket::Stats);
    settings.master_socket = Some(config::Address::Unix(other.haproxy.master_socket()));
    let verdict = bed.notify(&settings, &["b.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    bed.serves_all();
    other.serves_all();
}

fn stale_pidfile(version: &Version) {
    let mut bed = Bed::start_with(version, |setup| setup.stats_level("operator"));
    bed.renew("b.pem");
    let mut gone = std::process::Command::new("/bin/true").spawn().unwrap();
    gone.wait().unwrap();
    let mut settings = bed.settings("auto", Socket::Stats);
    settings.master_socket = None;
    settings.pidfile = bed.path("stale.key");
    fs::write(&settings.pidfile, format!("{}\n", gone.id())).unwrap();
    let verdict = bed.notify(&settings, &["b.pem"]);
    // Nobody can be told, but somebody is there.
    assert_eq!(verdict.outcome, Outcome::Failed, "{verdict:?}");
    assert!(detail(&verdict).contains("there is no process"), "{verdict:?}");
}

fn stale_master_socket(version: &Version) {
    let mut bed = Bed::start(version);
    bed.renew("b.pem");
    let stale = TempDir::new().unwrap();
    let socket = stale.path().join("stale.sock");
    drop(UnixListener::bind(&socket).unwrap());
    let mut settings = bed.settings("runtime", Socket::Stats);
    settings.master_socket = Some(config::Address::Unix(socket));
    let start = Instant::now();
    let verdict = bed.notify(&settings, &["b.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    // It is waited for where a master may come back to it: 30 seconds after the last command.
    let waited = start.elapsed();
    assert!(waited < Duration::from_secs(20) || !sees_every_process(), "{waited:?}");
    bed.serves_all();
}

fn down(version: &Version) {
    let mut bed = Bed::start(version);
    bed.renew("b.pem");
    let pid = bed.haproxy.master_pid();
    bed.haproxy.kill();
    // What a crash leaves: not all of it each time.
    fs::write(bed.haproxy.pidfile(), format!("{pid}\n")).unwrap();
    for socket in [bed.haproxy.master_socket(), bed.haproxy.stats_socket()] {
        let _ = fs::remove_file(&socket);
        drop(UnixListener::bind(&socket).unwrap());
    }
    let start = Instant::now();
    let verdict = bed.notify(&bed.settings("auto", Socket::Stats), &["b.pem"]);
    assert_eq!(verdict.outcome, Outcome::NotRunning, "{verdict:?}");
    let quick = start.elapsed();
    assert!(quick < Duration::from_secs(20), "{quick:?}");
    // Where processes can't be seen, the sockets might be those of a master that executes itself anew, and another
    // HAProxy may be there.
    let nothing = TempDir::new().unwrap();
    nothing.path().clone_into(&mut bed.system.proc);
    let start = Instant::now();
    let verdict = bed.notify(&bed.settings("auto", Socket::Stats), &["b.pem"]);
    assert_eq!(verdict.outcome, Outcome::Failed, "{verdict:?}");
    assert!(detail(&verdict).contains("can't be seen"), "{verdict:?}");
    let slow = start.elapsed();
    bed.system = System { run: bed.system.run, ..System::host() };
    // Nothing is waited for. On a busy machine that shows in one of several tries; and what another container's HAProxy
    // means by a path isn't known.
    let again = |_| {
        let start = Instant::now();
        let verdict = bed.notify(&bed.settings("auto", Socket::Stats), &["b.pem"]);
        assert_eq!(verdict.outcome, Outcome::NotRunning, "{verdict:?}");
        start.elapsed()
    };
    let is_quicker = quick < slow || (0..5).map(again).any(|quick| quick < slow);
    assert!(is_quicker || !sees_every_process() || has_strangers(), "{quick:?} {slow:?}");
    // No evidence: not the same.
    fs::remove_file(bed.haproxy.pidfile()).unwrap();
    let verdict = bed.notify(&bed.settings("auto", Socket::Stats), &["b.pem"]);
    assert_eq!(verdict.outcome, Outcome::Failed, "{verdict:?}");
    assert!(detail(&verdict).contains("set `reload`"), "{verdict:?}");
    bed.haproxy.run_again();
    bed.serves_all();
}

fn restarted(version: &Version) {
    let mut bed = Bed::start(version);
    bed.renew("b.pem");
    let settings = bed.settings("auto", Socket::Stats);
    let verdict = bed.notify(&settings, &["b.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    bed.haproxy.run_again();
    bed.serves_all();
    // What it has read by itself it is notified again without harm.
    let verdict = bed.notify(&settings, &["b.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    // What changed while it was away.
    bed.haproxy.stop();
    bed.renew("c.pem");
    bed.haproxy.run_again();
    let verdict = bed.notify(&settings, &["c.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    bed.serves_all();
}

fn probe(version: &Version) {
    let mut bed = Bed::start(version);
    let mut settings = bed.settings("runtime", Socket::Stats);
    settings.probe = vec![bed.haproxy.address().to_string().into()];
    for kind in KeyKind::ALL {
        let name = format!("*.{}.test", kind.name());
        let file = format!("{}.pem", kind.name());
        let leaf = bed.authority.issue(kind, &[&name, "192.0.2.7"], Validity::days(90));
        bed.put(&file, leaf);
        let verdict = bed.notify(&settings, &[&file]);
        assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None), "{kind:?}");
    }
    // The same name with two kinds of key: each is asked for by its own kind.
    for (file, kind) in [("x-ec.pem", KeyKind::P256), ("x-rsa.pem", KeyKind::Rsa2048)] {
        let leaf = bed.authority.issue(kind, &["x.test"], Validity::days(90));
        bed.put(file, leaf);
    }
    let verdict = bed.notify(&settings, &["x-ec.pem", "x-rsa.pem"]);
    assert_eq!(seen(&verdict), (Outcome::Updated, Some(true), None));
    // A name that the file doesn't win after all: HAProxy has it, and serves another one.
    let leaf = bed.authority.issue(KeyKind::P256, &["a.test"], Validity::days(90));
    bed.put("y.pem", leaf);
    settings.timeout = Duration::from_secs(3);
    let verdict = bed.notify(&settings, &["y.pem"]);
    assert_eq!((verdict.outcome, verdict.confirmed), (Outcome::Updated, Some(false)), "{verdict:?}");
    assert!(detail(&verdict).contains("a.test at 127.0.0.1"), "{verdict:?}");
    assert_eq!(verdict.rejected, [], "not seen is not refused");
    assert_eq!(served(bed.haproxy.address(), "a.test"), bed.leaves["a.pem"].served());
}

// What the cases stand on.

/// A running HAProxy that loads a directory with `a.pem`, `b.pem` and `c.pem`.
struct Bed {
    haproxy: Haproxy,
    authority: Authority,
    sites: TempDir,
    /// The directory as HAProxy's configuration spells it.
    spelled: PathBuf,
    leaves: BTreeMap<String, Leaf>,
    addable: bool,
    committed: SystemTime,
    system: System,
}

/// Which sockets the program is notified of.
#[derive(Clone, Copy)]
enum Socket<'a> {
    /// Both.
    Stats,
    /// Only the master's.
    Master,
    /// This one in the place of the stats socket.
    At(&'a Path),
}

impl Bed {
    fn start(version: &Version) -> Self {
        Self::start_with(version, |setup| setup)
    }

    fn start_with(version: &Version, setup: impl FnOnce(Setup) -> Setup) -> Self {
        Self::start_at(version, None, setup)
    }

    fn start_at(version: &Version, link: Option<&Path>, setup: impl FnOnce(Setup) -> Setup) -> Self {
        let sites = tempfile::Builder::new().prefix("haproxy-certs-sites-").tempdir().unwrap();
        let spelled = link.unwrap_or(sites.path()).to_owned();
        if let Some(link) = link {
            std::os::unix::fs::symlink(sites.path(), link).unwrap();
        }
        let authority = Authority::new();
        let mut leaves = BTreeMap::new();
        for name in ["a", "b", "c"] {
            let leaf = authority.issue(KeyKind::P256, &[&format!("{name}.test")], Validity::days(90));
            fs::write(sites.path().join(format!("{name}.pem")), leaf.combined()).unwrap();
            leaves.insert(format!("{name}.pem"), leaf);
        }
        // A trailing slash, as people write it.
        let haproxy = setup(Haproxy::of(version).crt(format!("{}/", spelled.display()))).start();
        let system = System { run: sites.path().join("no-systemd-here"), ..System::host() };
        let committed = SystemTime::now();
        Self { haproxy, authority, sites, spelled, leaves, addable: true, committed, system }
    }

    /// The file as HAProxy spells it.
    fn path(&self, file: &str) -> PathBuf {
        self.spelled.join(file)
    }

    fn put(&mut self, file: &str, leaf: Leaf) {
        fs::write(self.path(file), leaf.combined()).unwrap();
        self.leaves.insert(file.to_owned(), leaf);
        self.committed = SystemTime::now();
    }

    fn renew(&mut self, file: &str) {
        let leaf = self.authority.issue(KeyKind::P256, &[&name_of(file)], Validity::days(90));
        self.put(file, leaf);
    }

    fn new_site(&mut self, file: &str) {
        self.renew(file);
    }

    fn settings(&self, method: &str, socket: Socket<'_>) -> config::Haproxy {
        let mut text = format!(
            "sites_dir = \"{}\"\n[[haproxy]]\nreload = \"{method}\"\nunit = \"none-of-this-name.service\"\n\
             pidfile = \"{}\"\nmaster_socket = \"{}\"\nbinary = \"{}\"\ntimeout = \"60s\"\n",
            self.sites.path().display(),
            self.haproxy.pidfile().display(),
            self.haproxy.master_socket().display(),
            self.haproxy.version().program.display(),
        );
        match socket {
            Socket::Stats => {
                writeln!(text, "runtime_socket = \"{}\"", self.haproxy.stats_socket().display()).unwrap();
            }
            Socket::Master => {}
            Socket::At(path) => writeln!(text, "runtime_socket = \"{}\"", path.display()).unwrap(),
        }
        Settings::parse(&text, &Overrides::default()).unwrap().haproxys.remove(0)
    }

    /// Tells it about these files as they are now.
    fn notify(&self, haproxy: &config::Haproxy, files: &[&str]) -> Verdict {
        let changes: Vec<Change> = files
            .iter()
            .map(|file| Change {
                target: Target::Site((*file).to_owned()),
                now: self.leaves.get(*file).map(|leaf| expected(leaf, self.addable)),
            })
            .collect();
        let read = |target: &Target| {
            let Target::Site(file) = target else { panic!("no host certificate here") };
            fs::read(self.sites.path().join(file)).map(Zeroizing::new)
        };
        let file = |name: &String| Some((Target::Site(name.clone()), identity(&self.path(name))?));
        let ours = self.leaves.keys().filter_map(file).collect();
        let serving = gather(&self.system, haproxy, None, Spared::default());
        let committed = self.committed;
        notify(
            &self.system,
            haproxy,
            &Batch {
                changes: &changes,
                read: &read,
                committed,
                serving: &serving,
                ours: &ours,
                homes: &homes(self.sites.path()),
                start: &Start::default(),
                patience: &SocketPatience::default(),
            },
        )
    }

    /// Every file's name is answered by that file's certificate, chain included.
    #[track_caller]
    fn serves_all(&self) {
        for (file, leaf) in &self.leaves {
            assert_eq!(served(self.haproxy.address(), &name_of(file)), leaf.served(), "{file}");
        }
    }

    fn open_transaction(&self, file: &str) {
        let (path, pem) = (self.path(file), self.leaves["c.pem"].combined());
        let reply = self.haproxy.runtime(&format!("set ssl cert {} <<\n{pem}\n", path.display()));
        assert!(reply.contains("Transaction created"), "{reply}");
    }

    fn old_workers_gone(&self) {
        wait_until(LIMIT, "the old workers' end", || {
            self.haproxy.processes().is_some_and(|shown| shown.old_workers.is_empty())
        });
    }
}

/// Whether these tests run outside of any container: only there it is certain that a process isn't there.
fn sees_every_process() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|own| own == Path::new("pid:[4026531836]"))
        && fs::read("/proc/1/cmdline").is_ok_and(|line| !line.is_empty())
}

/// Whether HAProxys of other namespaces run here: other suites have one each.
fn has_strangers() -> bool {
    let namespace = |process: &Path| fs::read_link(process.join("ns/mnt")).ok();
    let own = namespace(Path::new("/proc/self"));
    let is_strange = |process: &Path| {
        fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim_end() == "haproxy")
            && namespace(process) != own
    };
    fs::read_dir("/proc").unwrap().flatten().any(|entry| is_strange(&entry.path()))
}

fn name_of(file: &str) -> String {
    format!("{}.test", file.trim_end_matches(".pem"))
}

fn expected(leaf: &Leaf, addable: bool) -> Expected {
    let x509 = leaf.x509();
    let digest = |kind| x509.digest(kind).unwrap().to_vec();
    let public = x509.public_key().unwrap();
    let key_type = match (public.id(), public.bits()) {
        (openssl::pkey::Id::EC, 256) => KeyType::EcdsaP256,
        (openssl::pkey::Id::EC, 384) => KeyType::EcdsaP384,
        (openssl::pkey::Id::EC, 521) => KeyType::EcdsaP521,
        (openssl::pkey::Id::ED25519, _) => KeyType::Ed25519,
        (openssl::pkey::Id::RSA, bits) => KeyType::Rsa(bits),
        other => panic!("{other:?}"),
    };
    Expected {
        sha1: digest(MessageDigest::sha1()).try_into().unwrap(),
        sha256: digest(MessageDigest::sha256()).try_into().unwrap(),
        serial: leaf.serial(),
        chain_len: leaf.served().chain_len - 1,
        key_type,
        names_won: leaf.served().names,
        addable,
        can_be_shown: true,
    }
}

/// A PEM whose key belongs to another certificate.
fn mismatching() -> String {
    let authority = Authority::new();
    let [one, other] = [(); 2].map(|()| authority.issue(KeyKind::P256, &["m.test"], Validity::days(90)));
    format!("{}{}", one.key.pem(), other.fullchain())
}

fn seen(verdict: &Verdict) -> (Outcome, Option<bool>, Option<&str>) {
    (verdict.outcome, verdict.confirmed, verdict.detail.as_deref())
}

/// All that it says, the ways that were passed over too.
fn detail(verdict: &Verdict) -> String {
    let said = verdict.detail.iter().chain(&verdict.passed_over);
    said.map(String::as_str).collect::<Vec<_>>().join("; ")
}

/// A file of the configuration behind its certificates, which can keep HAProxy from coming to the end of loading.
#[derive(Clone)]
struct Gate {
    folder: Arc<TempDir>,
    held: Arc<Mutex<Option<fs::File>>>,
}

impl Gate {
    fn new() -> Self {
        let gate = Self { folder: Arc::new(TempDir::new().unwrap()), held: Arc::default() };
        gate.open();
        gate
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("addresses")
    }

    /// A backend that reads it.
    fn section(&self) -> String {
        format!("backend gated\n  acl gated src -f {}", self.path().display())
    }

    /// Whoever reads it from now on waits.
    fn close(&self) {
        let fifo = self.folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::rename(fifo, self.path()).unwrap();
    }

    fn wait_until_reached(&self) {
        wait_until(LIMIT, "HAProxy reads the gate's file", || {
            // Without a reader a FIFO can't be opened so.
            let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
            let writer = fs::File::options().write(true).custom_flags(flags).open(self.path());
            *self.held.lock().unwrap() = writer.ok();
            self.held.lock().unwrap().is_some()
        });
    }

    fn is_closed(&self) -> bool {
        self.held.lock().unwrap().is_some()
    }

    fn open(&self) {
        let next = self.folder.path().join("next");
        fs::write(&next, "127.0.0.1\n").unwrap();
        fs::rename(next, self.path()).unwrap();
        *self.held.lock().unwrap() = None;
    }
}

/// A directory that nobody else has changed.
fn homes(sites_dir: &Path) -> Homes {
    Homes {
        sites_dir: sites_dir.to_owned(),
        host_file: sites_dir.join("host.pem"),
        touched: BTreeMap::from([(identity(sites_dir).unwrap(), SystemTime::UNIX_EPOCH)]),
    }
}
