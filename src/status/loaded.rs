//! What a HAProxy has in memory: one list, and then its certificates in batches.
//!
//! A command and a connection for each certificate cost 40 to 200 us (measured, 2.2 to 3.4); some hundred commands in one
//! line, with `;` between them, 8 to 40 us, on every version: they have no payload. A line stays well below the
//! length that kills 2.2 and 2.6.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::names::Names;
use super::observation::LoadedLeaf;
use crate::config::Haproxy;
use crate::haproxy::cli::replies::{self, ListedName, ShownStore};
use crate::haproxy::cli::socket::{LONGEST_COMMAND, SocketError};
use crate::haproxy::cli::worker::{Answering, NoSocket, Trouble, Worker, is_plain};
use crate::serving::in_memory::InMemory;
use crate::sys::escape::escaped;

/// The longest line of commands: with room for its end.
const LONGEST_LINE: usize = LONGEST_COMMAND - 1000;

/// A master that executes itself anew refuses connections until it has loaded its configuration. One that accepts them and
/// says nothing, or breaks off, is there: it is asked for as long as there is time, for it may be reloaded again and again.
const BLINK: Duration = Duration::from_secs(2);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// The certificates that a HAProxy has, by their names in its configuration.
pub type Stores = HashMap<String, LoadedLeaf>;

/// Whether a HAProxy may be asked for what it has of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asking {
    /// It may.
    Safe,
    /// What it has has too many names for it to show.
    TooLong,
    /// What it has isn't known, and it would not survive very many names.
    Dangerous,
}

/// Says of a file, by its name in the configuration of a HAProxy, whether the worker that answers may be asked for it.
pub type MayAsk<'a> = dyn Fn(&str, Option<Answering>) -> Asking + 'a;

/// What a HAProxy has in memory.
#[derive(Debug, Default)]
pub struct LoadedStores {
    /// What it has loaded from its sites directory, and its host certificate.
    pub stores: Stores,
    /// Files of ours that don't serve one of their names, since a file from elsewhere does: the name, and that file.
    pub outranked: HashMap<String, (String, String)>,
    /// Files that it can't be asked for.
    pub hidden: BTreeSet<String>,
    /// Files that it isn't asked for, since what it has of them isn't known and may end it.
    pub avoided: BTreeSet<String>,
    /// The names of everything that it has.
    pub listed: BTreeSet<String>,
    /// What it has from elsewhere, as far as it was asked.
    pub others: Stores,
    /// The worker that answers, and when it started.
    pub worker: Option<Answering>,
    /// What it serves beside these; `None`: it can't be seen.
    pub in_memory: Option<InMemory>,
}

impl LoadedStores {
    /// Why a part of it can't be seen.
    #[must_use]
    pub fn unseen(&self) -> Option<String> {
        let Some(first) = self.hidden.first() else {
            let file = escaped(self.avoided.first()?.rsplit('/').next().unwrap_or_default()).to_string();
            return Some(format!(
                "HAProxy isn't asked for {file}: what it has of it isn't known, and very many names would end it"
            ));
        };
        let file = escaped(first.rsplit('/').next().unwrap_or_default()).to_string();
        Some(match self.hidden.len() - 1 {
            0 => format!("{file} has too many names for HAProxy to show it"),
            others => format!("{file} and {others} more have too many names for HAProxy to show them"),
        })
    }
}

/// What is to be looked at beside our own files.
#[derive(Debug, Clone, Default)]
pub struct Besides {
    /// Files from elsewhere, by HAProxy's names for them.
    pub others: BTreeSet<String>,
    /// Lists, by their names.
    pub lists: BTreeSet<String>,
    /// Binds that don't listen, as `show ssl sni` names them.
    pub silent: BTreeSet<String>,
}

/// Everything that a HAProxy has loaded from its sites directory, its host certificate, and what is `besides`, as far as it
/// may be asked.
///
/// # Errors
/// No socket answers: why.
pub fn memory(
    haproxy: &Haproxy,
    names: &Names,
    may_ask: &MayAsk<'_>,
    besides: &Besides,
    deadline: Instant,
) -> Result<LoadedStores, NoSocket> {
    let patience = deadline.min(Instant::now() + BLINK);
    loop {
        let mut unusable = NoSocket::default();
        let (mut blinks, mut accepts) = (false, false);
        for worker in Worker::ways(haproxy) {
            match all(haproxy, names, worker, may_ask, besides, deadline) {
                Ok(memory) => return Ok(memory),
                Err(trouble) => {
                    blinks |= matches!(&trouble, Trouble::Socket(e) if e.is_of_a_reload());
                    accepts |= matches!(&trouble, Trouble::Socket(SocketError::Empty | SocketError::Cut));
                    unusable.add(&worker, trouble);
                }
            }
        }
        let patience = if accepts { deadline } else { patience };
        if !blinks || Instant::now() + PAUSE >= patience {
            return Err(unusable);
        }
        sleep(PAUSE);
    }
}

fn all(
    haproxy: &Haproxy,
    names: &Names,
    worker: Worker<'_>,
    may_ask: &MayAsk<'_>,
    besides: &Besides,
    deadline: Instant,
) -> Result<LoadedStores, Trouble> {
    let ours = |file: &str| names.site(file).is_some() || is_ours(haproxy, file);
    let listed = worker.listing(deadline)?.stores;
    let answering = worker.answering(deadline).ok();
    let mut kept: BTreeMap<Asking, Vec<String>> = BTreeMap::new();
    for file in &listed {
        if ours(file) {
            kept.entry(may_ask(file, answering)).or_default().push(file.clone());
        } else if besides.others.contains(file) && may_ask(file, answering) == Asking::Safe {
            kept.entry(Asking::Safe).or_default().push(file.clone());
        }
    }
    let mut take = |asking| kept.remove(&asking).unwrap_or_default();
    let (files, avoided) = (take(Asking::Safe), take(Asking::Dangerous).into_iter().collect());
    let mut hidden = BTreeSet::from_iter(take(Asking::TooLong));
    let (plain, others): (Vec<String>, Vec<String>) = files.into_iter().partition(|file| is_plain(file));
    let mut stores = Stores::with_capacity(plain.len());
    for line in lines(&worker, &plain) {
        match worker.command(&line, deadline) {
            Ok(replies) => read_into(&replies, &mut stores),
            Err(trouble) if breaks_off(&trouble) => {}
            Err(trouble) => return Err(trouble),
        }
    }
    // One that was replaced meanwhile is asked for again, as is one whose name needs quoting or whose reply broke off.
    let asked: HashSet<&String> = stores.keys().collect();
    let left: Vec<String> =
        plain.iter().filter(|file| !asked.contains(file)).chain(&others).cloned().collect();
    for file in left {
        let store = match worker.store(&file, deadline) {
            Ok(Some(store)) => store,
            Ok(None) => continue,
            Err(trouble) if breaks_off(&trouble) => {
                hidden.insert(file);
                continue;
            }
            Err(trouble) => return Err(trouble),
        };
        stores.insert(file, loaded(store, None));
    }
    let version = answering.and_then(|answering| answering.version);
    let in_memory = worker.in_memory(version, &besides.lists, deadline).ok();
    let served = in_memory.as_ref().and_then(|shown| shown.names.as_ref());
    let outranked = match served {
        Some(served) if !stores.is_empty() => {
            outranked(served.iter().filter(|line| !besides.silent.contains(&line.bind)), ours)
        }
        _ => HashMap::new(),
    };
    // The host certificate's place may hold somebody else's.
    let is_foreign =
        |file: &str| file == haproxy.host_file && names.site(file).is_none() && besides.others.contains(file);
    let (stores, others) =
        stores.into_iter().partition(|(file, _): &(String, _)| ours(file) && !is_foreign(file));
    Ok(LoadedStores { stores, outranked, hidden, avoided, listed, others, worker: answering, in_memory })
}

/// A certificate with many names fills HAProxy's buffer.
fn breaks_off(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Socket(SocketError::Cut))
}

/// Whether a file is one that we look after: of the sites directory, or the host certificate.
fn is_ours(haproxy: &Haproxy, file: &str) -> bool {
    let rest = file.strip_prefix(&haproxy.sites_dir).and_then(|rest| rest.strip_prefix('/'));
    rest.is_some_and(|name| !name.contains('/')) || file == haproxy.host_file
}

/// Of the lines of `show ssl sni` with the same bind line, name and kind of key, the first is the one that is served
/// (measured, 3.2 and 3.4); they stand together.
fn outranked<'a>(
    names: impl Iterator<Item = &'a ListedName>,
    is_ours: impl Fn(&str) -> bool,
) -> HashMap<String, (String, String)> {
    let mut outranked = HashMap::new();
    let mut group = ("", "");
    let mut winners: Vec<(&str, &str)> = Vec::new();
    for ListedName { bind, name, kind, store, .. } in names {
        if group != (bind, name) {
            group = (bind, name);
            winners.clear();
        }
        match winners.iter().find(|(of, _)| of == kind) {
            None => winners.push((kind, store)),
            Some((_, winner)) if is_ours(store) && !is_ours(winner) => {
                let (name, winner) = (name.clone(), (*winner).to_owned());
                outranked.entry(store.clone()).or_insert((name, winner));
            }
            Some(_) => {}
        }
    }
    outranked
}

/// The commands that show these files, as few lines as may be. The master wants its prefix before each command.
fn lines(worker: &Worker<'_>, files: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for file in files {
        let command = format!("show ssl cert {file}");
        match lines.last_mut() {
            Some(line) if line.len() + command.len() < LONGEST_LINE => {
                line.push_str("; ");
                line.push_str(&worker.line(&command));
            }
            _ => lines.push(command),
        }
    }
    lines
}

/// Reads the replies to a line of commands.
fn read_into(replies: &str, stores: &mut Stores) {
    let mut rest = replies;
    while let Some(start) = find_block(rest) {
        let block = rest.get(start..).unwrap_or_default();
        let end = find_block(block.get(1..).unwrap_or_default()).map_or(block.len(), |at| at + 1);
        let (block, behind) = block.split_at(end);
        rest = behind;
        let field = |name: &str| {
            block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::trim))
        };
        let (Some(file), Some(store)) = (field("Filename"), replies::store(block)) else { continue };
        stores.insert(file.to_owned(), loaded(store, field("notBefore").and_then(date)));
    }
}

fn loaded(store: ShownStore, not_before: Option<i64>) -> LoadedLeaf {
    LoadedLeaf {
        status: store.status,
        chain_len: store.chain_shown(),
        is_alone: store.is_alone(),
        not_after: store.not_after.as_deref().and_then(date),
        serial: store.serial,
        sha1: store.sha1,
        not_before,
    }
}

/// Where the next reply begins.
fn find_block(text: &str) -> Option<usize> {
    if text.starts_with("Filename: ") { Some(0) } else { text.find("\nFilename: ").map(|at| at + 1) }
}

/// `Feb 21 22:27:20 2027 GMT` in seconds since 1970.
#[must_use]
pub fn date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_ascii_whitespace();
    let month = words.next().and_then(|word| MONTHS.iter().position(|month| *month == word))?;
    let month = time::Month::try_from(u8::try_from(month + 1).ok()?).ok()?;
    let day = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':').map(str::parse::<u8>);
    let (Some(Ok(hour)), Some(Ok(minute)), Some(Ok(second))) = (clock.next(), clock.next(), clock.next())
    else {
        return None;
    };
    let date = time::Date::from_calendar_date(words.next()?.parse().ok()?, month, day).ok()?;
    Some(date.with_hms(hour, minute, second).ok()?.assume_utc().unix_timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::haproxy::cli::replies::StoreStatus;

    #[test]
    fn dates_are_read_as_openssl_prints_them() {
        assert_eq!(date("Jan  1 00:00:00 1970 GMT"), Some(0));
        assert_eq!(date("Feb 21 22:27:20 2027 GMT"), Some(1_803_248_840));
        for bad in ["", "Feb", "Foo 1 00:00:00 1970 GMT", "Feb 30 00:00:00 2027 GMT", "Feb 1 0:0 2027 GMT"] {
            assert_eq!(date(bad), None, "{bad}");
        }
    }

    /// What the socket of a HAProxy at this path shows.
    fn shown(path: &std::path::Path) -> Result<LoadedStores, NoSocket> {
        let settings =
            format!("[[haproxy]]\nruntime_socket = {path:?}\nmaster_socket = \"\"\nreload = \"none\"");
        let settings =
            crate::config::Settings::parse(&settings, &crate::config::Overrides::default()).unwrap();
        let (deadline, besides) = (Instant::now() + Duration::from_secs(60), Besides::default());
        memory(&settings.haproxys[0], &Names::default(), &|_, _| Asking::Safe, &besides, deadline)
    }

    /// Answers two commands with nothing to show.
    fn answer(listener: &std::os::unix::net::UnixListener) {
        use std::io::{Read as _, Write as _};
        for _ in 0..2 {
            let mut stream = listener.accept().unwrap().0;
            stream.read_to_string(&mut String::new()).unwrap();
            stream.write_all(b"\n").unwrap();
        }
    }

    /// A master of 2.2 to 3.0 refuses connections while it loads.
    #[test]
    fn a_socket_that_blinks_is_asked_again() {
        use std::os::unix::net::UnixListener;
        let folder = tempfile::tempdir().unwrap();
        let (path, next) = (folder.path().join("socket"), folder.path().join("next"));
        drop(UnixListener::bind(&path).unwrap());
        let place = path.clone();
        let master = std::thread::spawn(move || {
            sleep(Duration::from_millis(300));
            let listener = UnixListener::bind(&next).unwrap();
            std::fs::rename(&next, &place).unwrap();
            answer(&listener);
        });
        assert!(shown(&path).unwrap().stores.is_empty());
        master.join().unwrap();
    }

    /// One that is reloaded again and again closes connections without a word for longer than a blink.
    #[test]
    fn a_socket_that_says_nothing_is_asked_for_as_long_as_there_is_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let master = std::thread::spawn(move || {
            // Each is followed by a pause: together they are longer than a blink.
            let times = BLINK.as_millis() / PAUSE.as_millis() + 5;
            for _ in 0..times {
                let mut stream = listener.accept().unwrap().0;
                std::io::Read::read_to_string(&mut stream, &mut String::new()).unwrap();
            }
            answer(&listener);
        });
        assert!(shown(&path).unwrap().stores.is_empty());
        master.join().unwrap();
    }

    #[test]
    fn a_name_is_served_from_the_first_file() {
        let reply = "# Frontend/Bind\tSNI\tNegative Filter\tType\tFilename\tNotAfter\tNotBefore\n\
                     f/c:9\ta\t-\tecdsa\t/x/z.pem\tt\tt\n\
                     f/c:9\ta\t-\trsa\t/s/r.pem\tt\tt\n\
                     f/c:9\ta\t-\tecdsa\t/s/a.pem\tt\tt\n\
                     f/c:9\tb\t-\tecdsa\t/s/b.pem\tt\tt\n\
                     f/c:9\tb\t-\tecdsa\t/x/z.pem\tt\tt\n";
        let found = outranked(replies::sni(reply).unwrap().iter(), |file| file.starts_with("/s/"));
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("/s/a.pem".into(), ("a".into(), "/x/z.pem".into()))]
        );
    }

    #[test]
    fn replies_in_a_row_are_told_apart() {
        let one = |file: &str, serial: &str| {
            format!(
                "Filename: {file}\nStatus: Used\nSerial: {serial}\nnotBefore: Nov 23 22:27:20 2026 GMT\n\
                 notAfter: Feb 21 22:27:20 2027 GMT\nSHA1 FingerPrint: {}\nIssuer: /CN=CA\n\n",
                "AB".repeat(20)
            )
        };
        let unknown = "Can't display the certificate: Not found or the certificate is a bundle!\n\n";
        let text = format!("{}{unknown}\n{}", one("/c/a.pem", "01"), one("/c/b.pem", "02"));
        let mut stores = Stores::new();
        read_into(text.trim(), &mut stores);
        assert_eq!(stores.len(), 2);
        let b = &stores["/c/b.pem"];
        assert_eq!(
            (b.serial.as_deref(), b.status, b.sha1),
            (Some("02"), StoreStatus::Used, Some([0xab; 20]))
        );
        assert_eq!(b.not_after.zip(b.not_before), Some((1_803_248_840, 1_795_472_840)));
    }
}
