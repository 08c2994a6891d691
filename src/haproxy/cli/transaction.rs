//! One certificate in a worker's memory: its contents are replaced, or it is added, in a transaction that is ours or not
//! at all.
//!
//! HAProxy has one transaction for the whole process, whoever opened it: every reply is held against the file that we
//! meant, and what isn't surely ours is never committed (2.3 to 3.1 put our PEM under another file's name where
//! somebody else's transaction is open).

use std::collections::HashSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::replies::{
    self, AddReply, CommitReply, NewReply, RefusedBy, SetReply, ShownStore, Unwanted, quoted,
};
use super::socket::{self, SocketError};
use super::worker::{PAUSE, Trouble, Worker, unexpected};

/// How long a transaction of somebody else's is waited for: other tools take milliseconds, a forgotten one stays.
pub(crate) const TRANSACTION_LIMIT: Duration = Duration::from_secs(2);

/// How often a PEM is sent that is refused for its chain: a mismatched one, anybody's, leaves an error behind in a
/// thread of HAProxy 2.2, which then refuses whatever it reads next for its chain, and forgets the error by doing so.
const CHAIN_REFUSALS: usize = 4;

/// Why a file wasn't taken.
pub(crate) enum Untaken {
    /// Not this way; a reload may do it.
    NeedsReload(String),
    /// HAProxy refused it.
    Refused(Unwanted),
    /// HAProxy refused it, and its transaction has to stay open: it would take the next file's PEM.
    Stuck(Unwanted),
    /// The socket is of no use at all.
    Unusable(Trouble),
}

/// The commands that change a worker's certificates.
#[derive(Clone, Copy)]
pub(crate) struct Commands<'a> {
    pub(crate) worker: Worker<'a>,
    pub(crate) deadline: Instant,
}

impl Commands<'_> {
    /// Makes a store, fills it, and puts it into a directory's list.
    pub(crate) fn add(&self, list: &str, file: &str, pem: &[u8]) -> Result<(), Untaken> {
        self.create(file)?;
        let added = self.put(file, pem).and_then(|()| self.serve(list, file));
        if added.is_err() {
            self.tidy(&format!("del ssl cert {file}"));
        }
        added
    }

    /// `new ssl cert`.
    fn create(&self, file: &str) -> Result<(), Untaken> {
        let reply = self.command(&format!("new ssl cert {file}"))?;
        match replies::created(&reply, file) {
            NewReply::Made | NewReply::Exists => Ok(()),
            NewReply::Unexpected => Err(unexpected("new ssl cert", &reply).into()),
        }
    }

    /// `add ssl crt-list`: without it a new certificate is there and not served.
    pub(crate) fn serve(&self, list: &str, file: &str) -> Result<(), Untaken> {
        let reply = self.command(&format!("add ssl crt-list {list} {file}"))?;
        match replies::added(&reply) {
            AddReply::Success | AddReply::Exists => Ok(()),
            AddReply::Refused(refusal) => Err(Untaken::Refused(refusal)),
            AddReply::Unexpected => Err(unexpected("add ssl crt-list", &reply).into()),
        }
    }

    /// `set ssl cert` and `commit ssl cert`: the contents of a store.
    pub(crate) fn put(&self, file: &str, pem: &[u8]) -> Result<(), Untaken> {
        for _ in 1..CHAIN_REFUSALS {
            match self.put_once(file, pem) {
                Err(Untaken::Refused(Unwanted { stage: RefusedBy::Chain, .. })) => {}
                put => return put,
            }
        }
        self.put_once(file, pem)
    }

    fn put_once(&self, file: &str, pem: &[u8]) -> Result<(), Untaken> {
        self.set(file, pem)?;
        let reply = self.command(&format!("commit ssl cert {file}"));
        let untaken = match reply.as_deref().map(replies::commit) {
            Ok(CommitReply::Success) => return Ok(()),
            Ok(CommitReply::Refused(refusal)) if self.dies_of_an_abort(&refusal) => {
                return Err(Untaken::Stuck(refusal));
            }
            Ok(CommitReply::Refused(refusal)) => Untaken::Refused(refusal),
            Ok(CommitReply::Unexpected) => {
                unexpected("commit ssl cert", reply.as_deref().unwrap_or_default()).into()
            }
            Err(_) => Untaken::NeedsReload("the certificate could not be committed".to_owned()),
        };
        // Some versions leave the transaction of a failed commit open.
        self.abort(file);
        Err(untaken)
    }

    /// Whether an abort would end HAProxy: 2.2.9 frees twice what it had made of a certificate before its SSL context
    /// refused it. There the transaction stays open until a reload.
    fn dies_of_an_abort(&self, refusal: &Unwanted) -> bool {
        refusal.stage == RefusedBy::Context
            && self.worker.answering(self.deadline).is_ok_and(|worker| worker.version < Some((2, 6)))
    }

    /// `set ssl cert`: opens a transaction that is ours and about this file, or leaves none.
    fn set(&self, file: &str, pem: &[u8]) -> Result<(), Untaken> {
        let until = self.deadline.min(Instant::now() + TRANSACTION_LIMIT);
        let command = socket::with_payload(&self.worker.line(&set_line(file)), pem);
        loop {
            let reply = match self.worker.ask(&command, self.deadline) {
                Ok(reply) if repeats(&reply, pem) => "it repeats what it was sent".to_owned(),
                Ok(reply) => reply,
                Err(trouble) => {
                    self.abort_if_open(file, &trouble);
                    return Err(trouble.into());
                }
            };
            let holder = match replies::set(&reply) {
                SetReply::Created(of) if of == file => return Ok(()),
                // Our PEM went into a transaction that isn't ours. Committed, by us or by its owner, it would be
                // served under that name: the transaction has to go.
                SetReply::Created(of) | SetReply::Updated(of) => {
                    self.abort(&of);
                    of
                }
                SetReply::Held(of) => of,
                SetReply::Refused(refusal) => return Err(Untaken::Refused(refusal)),
                SetReply::Unknown => {
                    return Err(Untaken::NeedsReload("HAProxy doesn't have it any more".to_owned()));
                }
                SetReply::Unexpected => {
                    let trouble = unexpected("set ssl cert", &reply);
                    self.abort_if_open(file, &trouble);
                    return Err(trouble.into());
                }
            };
            if Instant::now() >= until {
                return Err(Untaken::NeedsReload(foreign(&holder)));
            }
            sleep(PAUSE);
        }
    }

    pub(crate) fn store(&self, file: &str) -> Result<Option<ShownStore>, Untaken> {
        Ok(self.worker.store(file, self.deadline)?)
    }

    fn command(&self, command: &str) -> Result<String, Untaken> {
        Ok(self.worker.command(command, self.deadline)?)
    }

    fn abort(&self, file: &str) {
        self.tidy(&format!("abort ssl cert {file}"));
    }

    /// After a `set` whose reply can't be relied on: the transaction may be there, and then it is on our file.
    fn abort_if_open(&self, file: &str, trouble: &Trouble) {
        let may_be = !matches!(trouble, Trouble::Denied(_) | Trouble::Socket(SocketError::NotThere));
        if may_be
            && self.worker.listing(self.deadline).is_ok_and(|now| now.transaction.as_deref() == Some(file))
        {
            self.abort(file);
        }
    }

    /// Puts something back after a failure, which is what gets reported: a transaction that stays open all the same
    /// shows at the next look.
    fn tidy(&self, command: &str) {
        let _ = self.worker.command(command, self.deadline.max(Instant::now() + Duration::from_secs(1)));
    }
}

/// Whether a reply has a part of what was sent, a key perhaps: no HAProxy does that with a payload, but whoever else listens
/// there may, and what a reply says is quoted.
fn repeats(reply: &str, sent: &[u8]) -> bool {
    const PART: usize = 12;
    let parts: HashSet<&[u8]> = sent.windows(PART).collect();
    reply.as_bytes().windows(PART).any(|part| parts.contains(part))
}

/// The command that a PEM is the payload of.
pub(crate) fn set_line(file: &str) -> String {
    format!("set ssl cert {file}")
}

/// What is said of a transaction that somebody else has open on this file.
pub(crate) fn foreign(file: &str) -> String {
    format!("somebody else has a transaction open on {}", quoted(file))
}

impl From<Trouble> for Untaken {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unexpected { .. } | Trouble::Locked => Self::NeedsReload(trouble.to_string()),
            Trouble::Socket(_) | Trouble::Denied(_) => Self::Unusable(trouble),
        }
    }
}
