//! What `tests/bench/fleet` measures with, beside the program itself:
//!
//! - `bench-fleet counted LISTEN TARGET FILE`: a proxy that writes to FILE how many bytes it brought from TARGET.
//! - `bench-fleet renewal ENDPOINT FLEET NODES COMMAND...`: runs COMMAND, which publishes, and prints in milliseconds: until
//!   the head was seen to be in the store, until the command ended, and from the head on until each of the nodes had
//!   reported it as confirmed: the first, the middle and the last one. NODES: names with commas between.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for the benchmarks"
)]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use haproxy_certs::fleet::head::SignedHead;
use haproxy_certs::fleet::name::NodeName;
use haproxy_certs::fleet::node_list::NodeList;
use haproxy_certs::fleet::report::NodeReport;
use haproxy_certs::fleet::store::etcd::{Etcd, EtcdSettings};
use haproxy_certs::fleet::store::{FleetStore, StoreKey, get_one};

/// Reports that didn't come until then don't come.
const LIMIT: Duration = Duration::from_secs(120);

/// How often reports are looked for.
const EVERY: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["counted", listen, target, file] => counted(listen, target, file),
        ["renewal", endpoint, fleet, nodes, command @ ..] if !command.is_empty() => {
            renewal(endpoint, fleet, nodes, command);
        }
        _ => {
            eprintln!("usage: bench-fleet counted|renewal ...");
            return ExitCode::from(64);
        }
    }
    ExitCode::SUCCESS
}

fn counted(listen: &str, target: &str, file: &str) {
    let count = Arc::new(AtomicU64::new(0));
    std::fs::write(file, "0").unwrap();
    for client in TcpListener::bind(listen).unwrap().incoming() {
        let (client, server) = (client.unwrap(), TcpStream::connect(target).unwrap());
        let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || pass(from, to, |_| ()));
        let (count, file) = (Arc::clone(&count), file.to_owned());
        thread::spawn(move || {
            pass(server, client, |bytes| {
                let all = count.fetch_add(bytes, Ordering::SeqCst) + bytes;
                std::fs::write(&file, all.to_string()).unwrap();
            });
        });
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, count: impl Fn(u64)) {
    let mut buffer = vec![0; 65536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        count(length as u64);
        if to.write_all(buffer.get(..length).unwrap_or_default()).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn renewal(endpoint: &str, fleet: &str, nodes: &str, command: &[&str]) {
    let fleet = fleet.parse().unwrap();
    let store = Etcd::open(&EtcdSettings::new(fleet, vec![endpoint.to_owned()])).unwrap();
    let before = get_one(&store, StoreKey::Head).unwrap().map(|head| head.revision);
    let began = Instant::now();
    let (program, arguments) = command.split_first().unwrap();
    let mut child = Command::new(program).args(arguments).spawn().unwrap();
    let ended = thread::spawn(move || {
        assert!(child.wait().unwrap().success());
        began.elapsed()
    });
    // It ends at another head, or where the time is over.
    store.wait(before, LIMIT).unwrap();
    let head_at = began.elapsed();
    let head = SignedHead::read(&get_one(&store, StoreKey::Head).unwrap().unwrap().bytes).unwrap();
    let list = get_one(&store, StoreKey::Page(head.head.nodes)).unwrap().unwrap();
    let list = NodeList::read(&list.bytes).unwrap();
    let mut left: Vec<NodeName> =
        nodes.split(',').filter(|name| !name.is_empty()).map(|name| name.parse().unwrap()).collect();
    let mut reported = Vec::new();
    while !left.is_empty() && began.elapsed() < LIMIT {
        let keys: Vec<StoreKey> = left.iter().map(|node| StoreKey::Report(node.clone())).collect();
        let found = store.get(&keys).unwrap();
        let at = began.elapsed();
        let has_it = |node: &NodeName, bytes: &[u8]| {
            let (_, key) = list.get(node.as_ref()).unwrap();
            NodeReport::read(bytes, &key.signing, &head.head.fleet, node)
                .is_ok_and(|report| report.head == head.hash && report.confirmed)
        };
        let values: Vec<bool> = left
            .iter()
            .zip(found)
            .map(|(node, found)| found.is_some_and(|found| has_it(node, &found.bytes)))
            .collect();
        reported.extend(values.iter().filter(|has| **has).map(|_| at.saturating_sub(head_at)));
        let mut keep = values.into_iter().map(|has| !has);
        left.retain(|_| keep.next().unwrap_or(true));
        thread::sleep(EVERY);
    }
    let ended = ended.join().unwrap();
    let shown = |time: Option<&Duration>| time.map_or("-".to_owned(), |time| time.as_millis().to_string());
    println!(
        "{} {} {} {} {} {}",
        head_at.as_millis(),
        ended.as_millis(),
        shown(reported.first()),
        shown(reported.get(reported.len() / 2)),
        shown(reported.last()),
        left.len()
    );
}
