//! A worker's command line, reached through its own socket or through its master's.

use std::collections::BTreeSet;
use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use super::replies::{self, Info, ListedName, ListedStore, Listing, ShownStore};
use super::socket::{self, SocketError};
use crate::certified_key::Leaf;
use crate::config::{Address, Haproxy};
use crate::serving::in_memory::{InMemory, SHOWS_NAMES_SINCE};
use crate::sys::procfs::Proc;
use crate::sys::system::System;

/// How long one command may take: they take milliseconds, and a peer that never answers must leave time for a reload.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// How long a command is repeated that finds certificates locked.
const BUSY_LIMIT: Duration = Duration::from_secs(2);

/// How long sockets that don't answer after a reload are tried again: a master that re-executes itself refuses
/// connections.
pub(crate) const BLINK_LIMIT: Duration = Duration::from_secs(2);

/// How often something is looked at again.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// The longest text of a certificate's names that HAProxy is asked to show. Its buffer has 16 KB: names that fill it to
/// within some bytes end 2.6.12, other versions break off (measured, 2.2 to 3.4).
const LONGEST_NAMES: usize = 8000;

/// The first version that survives to be asked for names that fill its buffer.
const SURVIVES_NAMES_SINCE: (u32, u32) = (3, 0);

/// Whether this HAProxy may be asked only for what it is known to have.
#[must_use]
pub fn may_die_of_names(version: Option<(u32, u32)>) -> bool {
    version < Some(SURVIVES_NAMES_SINCE)
}

/// Whether a file's name needs no quoting on HAProxy's command line.
pub(crate) fn is_plain(file: &str) -> bool {
    file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:/-+@,=%~".contains(&byte))
}

/// Whether HAProxy can be asked for what it has of this certificate.
#[must_use]
pub fn can_be_shown(leaf: &Leaf) -> bool {
    leaf.names.iter().map(|name| "DNS:, ".len() + name.len()).sum::<usize>() < LONGEST_NAMES
}

/// A way to a worker's command line.
#[derive(Debug, Clone, Copy)]
pub struct Worker<'a> {
    address: &'a Address,
    through_master: bool,
    limit: Duration,
}

/// Why none of a HAProxy's sockets is of use: the trouble with each; where there are none, that.
#[derive(Debug, Default, thiserror::Error)]
pub struct NoSocket(Vec<(Address, Trouble)>);

impl NoSocket {
    /// The same with the trouble that there is with one more.
    pub fn add(&mut self, worker: &Worker<'_>, trouble: Trouble) {
        self.0.push((worker.address.clone(), trouble));
    }
}

impl fmt::Display for NoSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("neither runtime_socket nor master_socket is set");
        }
        let each: Vec<String> =
            self.0.iter().map(|(address, trouble)| format!("{address}: {trouble}")).collect();
        f.write_str(&each.join("; "))
    }
}

/// Why a command has no reply to rely on.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The socket's.
    #[error("{0}")]
    Socket(#[from] SocketError),
    /// The socket's level is too low for this command.
    #[error(
        "permission denied: the line in haproxy.cfg needs `level admin`, as in `stats socket {0} mode 660 level admin`"
    )]
    Denied(String),
    /// Certificates stay locked by another command.
    #[error("operations on certificates are locked")]
    Locked,
    /// A reply that doesn't belong to the command.
    #[error("an unexpected reply to `{command}`: {reply}")]
    Unexpected {
        /// The command's words.
        command: &'static str,
        /// The reply, quoted.
        reply: String,
    },
}

/// The first version whose masters don't load the configuration themselves (measured, 2.2 to 3.4).
pub(crate) const WORKERS_LOAD_SINCE: (u32, u32) = (3, 1);

/// How long a master may load its configuration: a minute is enough for 100,000 certificates.
pub(crate) const LOADING: Duration = Duration::from_secs(60);

/// By how much procfs may be earlier: it has clock ticks, of which there are a hundred in a second, and rounds down.
const TICK: Duration = Duration::from_millis(20);

/// The worker that answers, and when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answering {
    /// Its process id, in its own namespace.
    pub pid: u32,
    /// It started no earlier than this.
    pub since: SystemTime,
    /// It started no later than this.
    pub until: SystemTime,
    /// Its version's first two numbers; `None` where it can't be read.
    pub version: Option<(u32, u32)>,
}

impl Answering {
    /// When it started, as exactly as that can be seen, and no later.
    #[must_use]
    pub fn started(&self, system: &System) -> SystemTime {
        self.forked(system).unwrap_or(self.since)
    }

    /// When its process began: its uptime has whole seconds, and begins after it has loaded, which from 3.1 on it does
    /// itself. Procfs knows better, where this process is the worker.
    #[must_use]
    pub fn forked(&self, system: &System) -> Option<SystemTime> {
        let loading = if self.version >= Some(WORKERS_LOAD_SINCE) { LOADING } else { TICK };
        let earliest = self.since.checked_sub(loading)?;
        Proc::new(system).started_at(self.pid).filter(|at| (earliest..=self.until).contains(at))
    }

    /// When its master's process started, where this is in sight: no file was read before.
    #[must_use]
    pub fn master_started(&self, system: &System) -> Option<SystemTime> {
        let proc = Proc::new(system);
        let stat = proc.haproxy(i32::try_from(self.pid).ok()?)?;
        proc.started_at(u32::try_from(stat.parent).ok()?)
    }
}

impl<'a> Worker<'a> {
    /// The ways to this HAProxy's worker, the better one first: its own socket keeps answering while the master loads.
    #[must_use]
    pub fn ways(haproxy: &'a Haproxy) -> Vec<Self> {
        let limit = COMMAND_LIMIT.min(haproxy.timeout / 4);
        let own = haproxy.runtime_socket.iter().map(|address| (address, false));
        let masters = haproxy.master_socket.iter().map(|address| (address, true));
        own.chain(masters).map(|(address, through_master)| Self { address, through_master, limit }).collect()
    }

    /// Where it is reached.
    #[must_use]
    pub fn address(&self) -> &'a Address {
        self.address
    }

    /// Whether the master passes the commands on.
    #[must_use]
    pub fn is_through_master(&self) -> bool {
        self.through_master
    }

    /// A command line as it is sent, without its end.
    #[must_use]
    pub fn line(&self, command: &str) -> String {
        format!("{}{command}", if self.through_master { "@1 " } else { "" })
    }

    /// Sends a command line with its end, or with its payload, and returns the reply.
    ///
    /// # Errors
    /// Anything but a reply that the command itself gave. Where certificates are locked it is tried again for a
    /// moment.
    pub fn ask(&self, command: &[u8], deadline: Instant) -> Result<String, Trouble> {
        let patience = deadline.min(Instant::now() + BUSY_LIMIT.min(self.limit));
        loop {
            let reply = socket::ask(self.address, command, deadline.min(Instant::now() + self.limit))?;
            if reply.trim() == "Permission denied" {
                return Err(Trouble::Denied(self.address.to_string()));
            }
            if !reply.contains("currently locked") {
                return Ok(reply);
            }
            if Instant::now() + PAUSE >= patience {
                return Err(Trouble::Locked);
            }
            sleep(PAUSE);
        }
    }

    /// Sends a command without a payload.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn command(&self, command: &str, deadline: Instant) -> Result<String, Trouble> {
        self.ask(format!("{}\n", self.line(command)).as_bytes(), deadline)
    }

    /// `show ssl cert`.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn listing(&self, deadline: Instant) -> Result<Listing, Trouble> {
        let reply = self.command("show ssl cert", deadline)?;
        replies::listing(&reply).ok_or_else(|| unexpected("show ssl cert", &reply))
    }

    /// `show ssl cert FILE`; `None` where there is no such store.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn store(&self, file: &str, deadline: Instant) -> Result<Option<ShownStore>, Trouble> {
        let reply = self.command(&format!("show ssl cert {}", word(file)), deadline)?;
        match replies::store(&reply) {
            None if replies::is_unknown_store(&reply) => Ok(None),
            None => Err(unexpected("show ssl cert", &reply)),
            store => Ok(store),
        }
    }

    /// `show ssl crt-list -n LIST`; `None` where it has no such list.
    ///
    /// # Errors
    /// As [`Self::ask`]; through 3.0 also where the socket's level is below admin.
    pub fn list(&self, list: &str, deadline: Instant) -> Result<Option<Vec<ListedStore>>, Trouble> {
        let reply = self.command(&format!("show ssl crt-list -n {}", word(list)), deadline)?;
        match replies::list(&reply) {
            None if reply.contains("didn't find the specified filename") => Ok(None),
            None => Err(unexpected("show ssl crt-list", &reply)),
            lines => Ok(lines),
        }
    }

    /// `show ssl crt-list`: the names of its lists, which directories are, too.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn lists(&self, deadline: Instant) -> Result<BTreeSet<String>, Trouble> {
        Ok(replies::lists(&self.command("show ssl crt-list", deadline)?))
    }

    /// `show ssl sni` (3.2 and later).
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn sni(&self, deadline: Instant) -> Result<Vec<ListedName>, Trouble> {
        let reply = self.command("show ssl sni", deadline)?;
        replies::sni(&reply).ok_or_else(|| unexpected("show ssl sni", &reply))
    }

    /// What it serves beside its certificates: from 3.2 on its names, else these lists.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn in_memory(
        &self,
        version: Option<(u32, u32)>,
        lists: &BTreeSet<String>,
        deadline: Instant,
    ) -> Result<InMemory, Trouble> {
        // Of very many certificates the reply may be too long.
        if version >= Some(SHOWS_NAMES_SINCE)
            && let Ok(names) = self.sni(deadline)
        {
            return Ok(InMemory { names: Some(names), ..InMemory::default() });
        }
        let mut shown = InMemory::default();
        for list in lists {
            shown.lists.extend(self.list(list, deadline)?.map(|lines| (list.clone(), lines)));
        }
        Ok(shown)
    }

    /// `show info`: who answers.
    ///
    /// # Errors
    /// As [`Self::ask`]; also where several processes share the work (`nbproc`, before 2.5), of which a command
    /// reaches only one.
    pub fn answering(&self, deadline: Instant) -> Result<Answering, Trouble> {
        let reply = self.command("show info", deadline)?;
        let now = SystemTime::now();
        match replies::info(&reply) {
            Some(Info { pid, uptime, processes: 1, version }) => {
                let second = Duration::from_secs(1);
                let since = now.checked_sub(uptime + second).unwrap_or(SystemTime::UNIX_EPOCH);
                let until = now.checked_sub(uptime.saturating_sub(second)).unwrap_or(now);
                Ok(Answering { pid, since, until, version })
            }
            Some(_) => Err(Trouble::Unexpected { command: "show info", reply: "nbproc is not 1".to_owned() }),
            None => Err(unexpected("show info", &reply)),
        }
    }
}

/// The trouble of a reply that doesn't belong to the command.
pub(crate) fn unexpected(command: &'static str, reply: &str) -> Trouble {
    Trouble::Unexpected { command, reply: replies::quoted(reply) }
}

/// A file's name as one word of a command: HAProxy's command line takes a backslash before what it would read as an
/// end of the word, and before a star that would mean the open transaction.
fn word(file: &str) -> String {
    let mut word = String::with_capacity(file.len());
    for (at, c) in file.char_indices() {
        if matches!(c, ' ' | ';' | '\\') || (at == 0 && c == '*') {
            word.push('\\');
        }
        word.push(c);
    }
    word
}

#[cfg(test)]
mod tests {
    use super::word;

    #[test]
    fn a_name_is_one_word() {
        assert_eq!(word("/c/a b;c\\d*.pem"), "/c/a\\ b\\;c\\\\d*.pem");
        assert_eq!(word("*.pem"), "\\*.pem");
    }
}
