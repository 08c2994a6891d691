//! A watch: one request whose answer goes on, a line of JSON for each thing that happens.

use std::io::Read;
use std::time::Duration;

use serde_json::json;

use super::answer::Watched;
use super::gateway::{Gateway, NOT_IN_TIME, NoAnswer, Unanswered, no_answer};
use crate::fleet::store::Woken;
use crate::fleet::store::error::StoreError;

/// No line is longer: it holds at most one head.
const MAX_LINE: usize = 1 << 20;

impl Gateway {
    /// Waits for something to happen to this key (base64) from this revision on.
    pub(super) fn watch(&self, key: &str, from: i64, at_most: Duration) -> Result<Woken, StoreError> {
        let body = json!({ "create_request": { "key": key, "start_revision": from.to_string() } });
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let member = self.member();
        let watched = self.logged_in(member, || {
            let mut response = match self.post(member, "watch", &body, at_most, true) {
                // The time was over before a member that is frozen would have been known.
                Err(NoAnswer::Elsewhere(cause)) if cause == NOT_IN_TIME && at_most <= self.time_out() => {
                    return Ok(Woken::TimedOut);
                }
                response => response?,
            };
            lines(&mut response.body_mut().as_reader())
        });
        let failed = match watched {
            Ok(woken) => return Ok(woken),
            Err(NoAnswer::Final(failed)) => return Err(failed.into()),
            Err(NoAnswer::LogIn(cause)) => StoreError::Denied(cause),
            Err(NoAnswer::Elsewhere(cause)) => StoreError::Unreachable(vec![(member.to_owned(), cause)]),
        };
        self.next_member();
        Err(failed)
    }
}

/// Reads line after line until one says that something happened.
fn lines(from: &mut impl Read) -> Result<Woken, NoAnswer> {
    let mut line = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Err(NoAnswer::Elsewhere("the watch ended".into())),
            Ok(length) => length,
            Err(e) if e.kind() == std::io::ErrorKind::TimedOut || is_time_out(&e) => {
                return Ok(Woken::TimedOut);
            }
            Err(e) => return Err(NoAnswer::Elsewhere(e.to_string())),
        };
        for &byte in buffer.get(..length).unwrap_or_default() {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            if let Some(woken) = judged(&line)? {
                return Ok(woken);
            }
            line.clear();
        }
        if line.len() > MAX_LINE {
            return Err(malformed("a line of the watch is too long"));
        }
    }
}

/// What a line says; `None`: nothing yet.
fn judged(line: &[u8]) -> Result<Option<Woken>, NoAnswer> {
    if line.is_empty() {
        return Ok(None);
    }
    let watched: Watched = serde_json::from_slice(line).map_err(|e| malformed(&e.to_string()))?;
    if let Some(complaint) = watched.error {
        return Err(no_answer(503, complaint.text().to_owned()));
    }
    let result = watched.result;
    if result.canceled {
        // The connection stays open, and nothing more comes.
        return if result.compact_revision > 0 {
            Ok(Some(Woken::Changed))
        } else {
            Err(no_answer(503, result.cancel_reason))
        };
    }
    Ok((!result.events.is_empty()).then_some(Woken::Changed))
}

fn is_time_out(cause: &std::io::Error) -> bool {
    let inner = cause.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    matches!(inner, Some(ureq::Error::Timeout(_)))
}

fn malformed(what: &str) -> NoAnswer {
    NoAnswer::Final(Unanswered::Failed(StoreError::Malformed(what.to_owned())))
}
