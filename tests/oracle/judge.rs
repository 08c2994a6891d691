//! What clients are answered, and what a HAProxy that is started now from the same files would answer them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::steps::Stage;
use super::world::ASKED;
use support::process::Running;
use support::scene::put;
use support::tls::try_served_to;
use support::{LIMIT, Port};

/// What a client takes: HAProxy looks at nothing else when it chooses between kinds of key.
const CLIENTS: [(&str, &str); 2] = [
    ("ECDSA", "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512"),
    ("RSA", "RSA-PSS+SHA256:RSA-PSS+SHA384:RSA-PSS+SHA512:RSA+SHA256:RSA+SHA384:RSA+SHA512"),
];

/// How long a worker that is being replaced may still take a connection.
const GRACE: Duration = Duration::from_secs(2);

/// A question: the bind line's number, the name, and the client.
pub type Question = (usize, &'static str, &'static str);

/// The serial number of the leaf that was presented; `None` where the handshake was refused.
pub type Answers = BTreeMap<Question, Option<String>>;

/// Asks every bind line everything.
pub fn answers(addresses: &[SocketAddr]) -> Answers {
    let mut answers = Answers::new();
    for (number, address) in addresses.iter().enumerate() {
        for name in ASKED {
            for (client, algorithms) in CLIENTS {
                let served = try_served_to(*address, name, Some(algorithms)).ok();
                answers.insert((number, name, client), served.map(|leaf| leaf.serial));
            }
        }
    }
    answers
}

/// Starts a HAProxy from the files as they are, on other ports, and asks it everything.
pub fn fresh(stage: &mut Stage) -> Result<Answers, String> {
    if let Some(answers) = stage.known_answers() {
        return Ok(answers);
    }
    let files = stage.files();
    let ports: Vec<Port> = stage.world.binds.iter().map(|_| Port::free()).collect();
    let numbers: Vec<u16> = ports.iter().map(Port::number).collect();
    let config = stage.places.folder.join("fresh.cfg");
    put(&config, stage.world.config(&stage.places, &numbers, None), 0o644);
    let log_path = stage.places.folder.join("fresh.log");
    let log = fs::File::create(&log_path).unwrap();
    let mut running = Running::start(&stage.version.program, |command| {
        command.args(["-db", "-f"]).arg(&config).current_dir(&stage.places.folder);
        stage.as_haproxy(command).stdout(log.try_clone().unwrap()).stderr(log)
    });
    let addresses: Vec<SocketAddr> = ports.iter().map(Port::address).collect();
    listening(&addresses, &mut || {
        running
            .ended()
            .map(|status| format!("{status}\n{}", fs::read_to_string(&log_path).unwrap_or_default()))
    })?;
    let answers = answers(&addresses);
    running.stop();
    stage.remember(files, &answers);
    Ok(answers)
}

/// Waits until all of these take connections, or `ended` says that this won't be.
pub fn listening(addresses: &[SocketAddr], ended: &mut dyn FnMut() -> Option<String>) -> Result<(), String> {
    let start = Instant::now();
    let mut left = addresses.to_vec();
    loop {
        left.retain(|address| std::net::TcpStream::connect(address).is_err());
        if let Some(why) = ended() {
            return Err(why);
        }
        if left.is_empty() {
            return Ok(());
        }
        assert!(start.elapsed() < LIMIT, "a HAProxy neither serves nor ends");
        sleep(Duration::from_millis(3));
    }
}

/// Where what is served differs from what a fresh start serves.
#[derive(Debug, Clone)]
pub struct Difference {
    lines: Vec<String>,
    /// Whether it went away by itself within [`GRACE`].
    pub late: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

/// Compares; asks again for a moment where they differ.
pub fn compare(stage: &Stage, fresh: &Answers) -> Option<Difference> {
    let addresses = stage.addresses();
    let label = |answer: &Option<String>| match answer {
        None => "refused".to_owned(),
        Some(serial) => stage.labels.get(serial).cloned().unwrap_or_else(|| format!("serial {serial}")),
    };
    let differences = |live: &Answers| -> Vec<String> {
        let different = live.iter().filter(|(question, answer)| fresh[question] != **answer);
        different
            .map(|((bind, name, client), answer)| {
                let asked = if name.is_empty() { "no name" } else { name };
                let would = label(&fresh[&(*bind, *name, *client)]);
                format!("bind {bind}, {asked}, {client}: served {}, a fresh start: {would}", label(answer))
            })
            .collect()
    };
    let start = Instant::now();
    let first = differences(&answers(&addresses));
    let mut now = first.clone();
    while !now.is_empty() && start.elapsed() < GRACE {
        sleep(Duration::from_millis(50));
        now = differences(&answers(&addresses));
    }
    if now.is_empty() {
        return (!first.is_empty()).then_some(Difference { lines: first, late: true });
    }
    Some(Difference { lines: now, late: false })
}
