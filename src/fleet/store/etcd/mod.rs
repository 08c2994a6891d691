//! A fleet in an etcd, 3.4 or later, through its JSON gateway.
//!
//! The gateway speaks JSON over HTTP (etcd's documentation, "gRPC gateway"; `api/etcdserverpb/rpc.proto` has the fields).
//! int64 are strings there, fields that are zero, false or empty are left out, and misspelt ones are ignored.

mod answer;
mod gateway;
mod settings;
mod tls;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use self::answer::{Keys, Ranged, Transacted};
use self::gateway::{Gateway, Unanswered};
pub use self::settings::EtcdSettings;
use super::error::StoreError;
use super::key::{StoreFolder, StoreKey};
use super::{FleetStore, Revision, Stored, Swap, Which, Woken};

/// The most operations in a transaction: etcd takes 128 (`--max-txn-ops`).
const MAX_OPERATIONS: usize = 100;

/// The most bytes in a transaction, as base64: etcd takes 1.5 MiB (`--max-request-bytes`).
const MAX_REQUEST: usize = 1 << 20;

/// The most bytes of an answer.
const MAX_ANSWER: usize = 8 << 20;

/// So many keys are listed at a time.
const KEYS_AT_ONCE: usize = 1000;

/// No fleet has more keys of one kind.
const MAX_KEYS: usize = 2_000_000;

/// The pause before a watch that ended too early begins again.
const PAUSE: Duration = Duration::from_millis(100);

/// An etcd as a store.
pub struct Etcd {
    gateway: Gateway,
    /// What all keys begin with.
    prefix: String,
}

impl Etcd {
    /// Makes it ready; nothing is asked yet.
    ///
    /// # Errors
    /// A setting can't be used, or a file that it names.
    pub fn open(settings: &EtcdSettings) -> Result<Self, StoreError> {
        let prefix = format!("/haproxy-certs/{}/", settings.fleet);
        Ok(Self { gateway: Gateway::new(settings)?, prefix })
    }

    fn path(&self, key: &StoreKey) -> String {
        format!("{}{key}", self.prefix)
    }

    fn encoded(&self, key: &StoreKey) -> String {
        encode(self.path(key).as_bytes())
    }

    /// The values of a few keys, by one transaction that only reads: linearizable, as etcd reads unless told otherwise.
    fn get_some(&self, keys: &[StoreKey]) -> Result<Vec<Option<Stored>>, StoreError> {
        let range = |key| json!({ "request_range": { "key": self.encoded(key), "limit": "1" } });
        let body = json!({ "success": keys.iter().map(range).collect::<Vec<_>>() });
        let at_most = keys.iter().map(|key| encoded_length(key.max_bytes()) + 1024).sum::<usize>();
        let asked = self.gateway.ask("kv/txn", &body, at_most.clamp(65536, MAX_ANSWER));
        let answer: Transacted = match (asked, keys) {
            (Err(Unanswered::TooLarge), [key]) => return Err(StoreError::TooLarge(key.clone())),
            (Err(Unanswered::TooLarge), _) => {
                let (some, others) = keys.split_at(keys.len() / 2);
                let mut values = self.get_some(some)?;
                values.extend(self.get_some(others)?);
                return Ok(values);
            }
            (asked, _) => asked?,
        };
        if answer.responses.len() != keys.len() {
            return Err(nonsense("it answers another number of questions"));
        }
        let answers = keys.iter().zip(answer.responses);
        answers.map(|(key, response)| self.value(key, response.response_range)).collect()
    }

    fn value(&self, key: &StoreKey, answer: Option<Ranged>) -> Result<Option<Stored>, StoreError> {
        let answer = answer.ok_or_else(|| nonsense("it answers something else"))?;
        let Some(found) = answer.kvs.into_iter().next() else { return Ok(None) };
        if decode(&found.key)? != self.path(key).as_bytes() {
            return Err(nonsense("it answers with another key"));
        }
        if found.value.len() > encoded_length(key.max_bytes()) {
            return Err(StoreError::TooLarge(key.clone()));
        }
        let bytes = decode(&found.value)?;
        if bytes.len() > key.max_bytes() {
            return Err(StoreError::TooLarge(key.clone()));
        }
        let revision = Revision(Which::Modified(found.mod_revision));
        Ok(Some(Stored { bytes, revision, settled: true }))
    }

    /// Which head there is, and the store's revision then.
    fn head(&self) -> Result<(Option<Revision>, i64), StoreError> {
        let body = json!({ "key": self.encoded(&StoreKey::Head), "keys_only": true, "limit": "1" });
        let answer: Keys = self.gateway.ask("kv/range", &body, 65536)?;
        let revision = answer.kvs.first().map(|head| Revision(Which::Modified(head.mod_revision)));
        Ok((revision, answer.header.revision))
    }

    /// Carries out operations, none of which must meet another's key.
    fn transact(&self, operations: &[Value]) -> Result<(), StoreError> {
        let body = json!({ "success": operations });
        let answer: Transacted = self.gateway.ask("kv/txn", &body, MAX_ANSWER)?;
        if answer.succeeded { Ok(()) } else { Err(nonsense("a transaction without a condition failed")) }
    }
}

impl FleetStore for Etcd {
    fn get(&self, keys: &[StoreKey]) -> Result<Vec<Option<Stored>>, StoreError> {
        let mut values = Vec::with_capacity(keys.len());
        for some in keys.chunks(MAX_OPERATIONS) {
            values.extend(self.get_some(some)?);
        }
        Ok(values)
    }

    fn list(&self, folder: StoreFolder) -> Result<Vec<StoreKey>, StoreError> {
        let prefix = format!("{}{}", self.prefix, folder.prefix());
        // All that begins with the prefix: it ends with a slash, and "0" is the next character.
        let end = format!("{}0", prefix.trim_end_matches('/'));
        let mut from = prefix.clone().into_bytes();
        let (mut found, mut listed) = (Vec::new(), 0);
        loop {
            let body = json!({
                "key": encode(&from), "range_end": encode(end.as_bytes()),
                "keys_only": true, "limit": KEYS_AT_ONCE.to_string(),
            });
            let answer: Keys = self.gateway.ask("kv/range", &body, MAX_ANSWER)?;
            listed += answer.kvs.len();
            for one in &answer.kvs {
                let path = decode(&one.key)?;
                if path < from {
                    return Err(nonsense("it lists keys in another order"));
                }
                let path_here = path.strip_prefix(self.prefix.as_bytes());
                let path_here = path_here.and_then(|path| str::from_utf8(path).ok());
                found.extend(path_here.and_then(StoreKey::of_path));
                // The next that there can be.
                from = path;
                from.push(0);
            }
            if !answer.more || answer.kvs.is_empty() {
                found.retain(|key| key.to_string().starts_with(folder.prefix()));
                return Ok(found);
            }
            if listed > MAX_KEYS {
                return Err(nonsense("there is no end of keys"));
            }
        }
    }

    fn put(&self, values: &[(StoreKey, Vec<u8>)]) -> Result<(), StoreError> {
        // A transaction in which a key is there twice is refused.
        let values: BTreeMap<&StoreKey, &Vec<u8>> = values.iter().map(|(key, value)| (key, value)).collect();
        let (mut operations, mut length) = (Vec::new(), 0);
        for (key, value) in values {
            if value.len() > key.max_bytes() {
                return Err(StoreError::TooLarge(key.clone()));
            }
            let (key, value) = (self.encoded(key), encode(value));
            let longer = key.len() + value.len() + 64;
            if operations.len() == MAX_OPERATIONS || length + longer > MAX_REQUEST && !operations.is_empty() {
                self.transact(&operations)?;
                operations.clear();
                length = 0;
            }
            operations.push(json!({ "request_put": { "key": key, "value": value } }));
            length += longer;
        }
        if operations.is_empty() { Ok(()) } else { self.transact(&operations) }
    }

    fn delete(&self, keys: &[StoreKey]) -> Result<(), StoreError> {
        let keys: Vec<&StoreKey> = keys.iter().collect::<BTreeSet<_>>().into_iter().collect();
        for some in keys.chunks(MAX_OPERATIONS) {
            let delete = |key: &&StoreKey| json!({ "request_delete_range": { "key": self.encoded(key) } });
            self.transact(&some.iter().map(delete).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn compare_and_put(
        &self,
        key: &StoreKey,
        seen: Option<Revision>,
        value: &[u8],
    ) -> Result<Swap, StoreError> {
        if value.len() > key.max_bytes() {
            return Err(StoreError::TooLarge(key.clone()));
        }
        let revision = match seen {
            None => 0,
            Some(Revision(Which::Modified(revision))) => revision,
            Some(Revision(Which::Content(_))) => return Ok(Swap::Lost),
        };
        let encoded = self.encoded(key);
        let compare = json!({
            "key": encoded, "target": "MOD", "result": "EQUAL", "mod_revision": revision.to_string()
        });
        let body = json!({
            "compare": [compare],
            "success": [{ "request_put": { "key": encoded, "value": encode(value) } }],
            "failure": [{ "request_range": { "key": encoded, "limit": "1" } }],
        });
        // Asked again where no answer came: if the first one did it, the second finds our own value there.
        let answer: Transacted = self.gateway.ask("kv/txn", &body, MAX_ANSWER)?;
        if answer.succeeded {
            return Ok(Swap::Done(Revision(Which::Modified(answer.header.revision))));
        }
        let found = answer.responses.into_iter().next().and_then(|response| response.response_range);
        match self.value(key, found)? {
            Some(found) if found.bytes == value => Ok(Swap::Done(found.revision)),
            _ => Ok(Swap::Lost),
        }
    }

    fn wait(&self, seen: Option<Revision>, at_most: Duration) -> Result<Woken, StoreError> {
        let end = Instant::now() + at_most;
        let (mut failures, mut was_woken) = (0, false);
        loop {
            let (head, revision) = self.head()?;
            if head != seen {
                return Ok(Woken::Changed);
            }
            if std::mem::take(&mut was_woken) {
                // For nothing: a store that lies doesn't keep this host busy.
                std::thread::sleep(PAUSE);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Woken::TimedOut);
            }
            // From the revision that was just read: it can't be compacted yet, and no change after it is missed.
            match self.gateway.watch(&self.encoded(&StoreKey::Head), revision + 1, left) {
                Ok(Woken::TimedOut) => {}
                // What it says isn't believed: the head is looked at again.
                Ok(Woken::Changed) => (failures, was_woken) = (0, true),
                Err(failed) => {
                    failures += 1;
                    if failures > 2 * self.gateway.members() {
                        return Err(failed);
                    }
                    std::thread::sleep(PAUSE.min(left));
                }
            }
        }
    }
}

fn nonsense(what: &str) -> StoreError {
    StoreError::Malformed(what.to_owned())
}

fn encode(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

fn decode(base64: &str) -> Result<Vec<u8>, StoreError> {
    BASE64_STANDARD.decode(base64).map_err(|_| nonsense("it isn't base64"))
}

fn encoded_length(length: usize) -> usize {
    length.div_ceil(3) * 4
}
