//! Names in the place of addresses: a name server that doesn't answer takes no more than a notification has, and one that
//! answers is asked once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::network::{Host, Network};
use support::process::finish;
use support::{Cmd, KeyKind, LIMIT, Run, Tree, Validity};

const NAMES: usize = 40;

/// As long as a lookup takes that nobody answers.
const SILENCE: Duration = Duration::from_secs(60);

/// A host with a name server of its own.
struct Named {
    host: Host,
    _network: Network,
    asked: Arc<AtomicUsize>,
    answers: Arc<AtomicBool>,
}

impl Named {
    fn new() -> Self {
        let mut network = Network::new();
        let host = network.host();
        let named = Self { host, _network: network, asked: Arc::default(), answers: Arc::default() };
        let socket = named.host.inside(|| UdpSocket::bind("127.0.0.1:53").unwrap());
        let (asked, answers) = (Arc::clone(&named.asked), Arc::clone(&named.answers));
        thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut question) {
                asked.fetch_add(1, Ordering::Relaxed);
                if answers.load(Ordering::Relaxed) {
                    socket.send_to(&answer(&question[..length]), peer).unwrap();
                }
            }
        });
        named
    }

    /// Runs the program on this host.
    fn run(&self, cmd: &Cmd, arguments: &[&str]) -> Run {
        let resolver = cmd.beside("resolv.conf");
        fs::write(
            &resolver,
            format!("nameserver 127.0.0.1\noptions timeout:{} attempts:2\n", SILENCE.as_secs() / 2),
        )
        .unwrap();
        let script = "mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-c", script, "sh"]).arg(resolver).arg(Cmd::program());
        command.arg("--config").arg(cmd.config()).args(arguments);
        cmd.prepare(&mut command);
        let output = self.host.inside(|| finish(&mut command, 3 * LIMIT));
        Run {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into(),
            stderr: String::from_utf8_lossy(&output.stderr).into(),
        }
    }

    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }
}

/// What a name server says (RFC 1035): every name is 127.0.0.1.
fn answer(question: &[u8]) -> Vec<u8> {
    let name = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let is_of_ipv4 = question[name..name + 2] == [0, 1];
    let mut answer = question[..name + 4].to_vec();
    answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_of_ipv4), 0, 0, 0, 0]);
    if is_of_ipv4 {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

/// Many files for a HAProxy that is reached by these lines.
fn many(own: &str) -> (Tree, Cmd) {
    let mut tree = Tree::new();
    for at in 0..NAMES {
        let name = format!("n{at}.example");
        tree.issue(&name, KeyKind::P256, &[&name], Validity::days(90));
    }
    let table = format!("[[haproxy]]\nbinary = \"\"\nunit = \"\"\npidfile = \"\"\n{own}\n");
    let cmd = Cmd::new(tree.live()).table(&table);
    (tree, cmd)
}

#[test]
fn a_name_server_that_is_silent_takes_no_more_than_the_timeout() {
    let named = Named::new();
    let by_name =
        "reload = \"command\"\ncommand = [\"true\"]\nprobe = [\"lb.example.org:443\"]\nmaster_socket = \"\"";
    let sockets = "runtime_socket = \"lb.example.org:9999\"\nmaster_socket = \"lb.example.org:9998\"";
    for own in [by_name, sockets] {
        let (_tree, cmd) = many(&format!("{own}\ntimeout = \"3s\""));
        let begin = Instant::now();
        let run = named.run(&cmd, &["assemble", "--format", "json"]).exits(2);
        let took = begin.elapsed();
        assert!(took < SILENCE / 2, "{took:?}: {run}");
        assert!(named.asked() > 0, "{run}");
        assert_eq!(run.haproxy()["owed"], true, "{run}");
        assert_eq!(cmd.deployed().len(), NAMES);
    }
}

#[test]
fn a_name_is_looked_up_once() {
    let named = Named::new();
    named.answers.store(true, Ordering::Relaxed);
    let own =
        "reload = \"command\"\ncommand = [\"true\"]\nprobe = [\"lb.example.org:443\"]\nmaster_socket = \"\"";
    let (_tree, cmd) = many(&format!("{own}\ntimeout = \"2s\""));
    // Nobody listens there, so that it is tried until the time is up.
    let run = named.run(&cmd, &["assemble", "--format", "json"]).exits(2);
    assert!(run.haproxy()["detail"].as_str().unwrap().contains("connection refused"), "{run}");
    assert_eq!(named.asked(), 2, "for IPv4 and IPv6: {run}");
}
