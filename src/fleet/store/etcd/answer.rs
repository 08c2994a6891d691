//! What the gateway answers: only the fields that are used here, each of which may be missing.

use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};

/// The state of the store.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    #[serde(deserialize_with = "int64")]
    pub(super) revision: i64,
}

/// A key and its value.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct KeyValue {
    pub(super) key: String,
    pub(super) value: String,
    #[serde(deserialize_with = "int64")]
    pub(super) mod_revision: i64,
}

/// `RangeResponse` in a transaction.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Ranged {
    pub(super) kvs: Vec<KeyValue>,
}

/// `RangeResponse` by itself.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Keys {
    pub(super) header: Header,
    pub(super) kvs: Vec<KeyValue>,
    pub(super) more: bool,
}

/// `TxnResponse`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Transacted {
    pub(super) header: Header,
    pub(super) succeeded: bool,
    pub(super) responses: Vec<Response>,
}

/// `ResponseOp`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Response {
    pub(super) response_range: Option<Ranged>,
}

/// `AuthenticateResponse`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Authenticated {
    pub(super) token: String,
}

/// One line of the answer to a watch: `WatchResponse`, or an error.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Watched {
    pub(super) result: WatchedResult,
    pub(super) error: Option<Complaint>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct WatchedResult {
    pub(super) created: bool,
    pub(super) canceled: bool,
    #[serde(deserialize_with = "int64")]
    pub(super) compact_revision: i64,
    pub(super) cancel_reason: String,
    pub(super) events: Vec<IgnoredAny>,
}

/// Why something wasn't done. 3.4 has `error` as well as `message`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Complaint {
    pub(super) message: String,
    pub(super) error: String,
}

impl Complaint {
    pub(super) fn text(&self) -> &str {
        if self.message.is_empty() { &self.error } else { &self.message }
    }
}

/// An int64 is a string; a number does no harm.
fn int64<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Int {
        Text(String),
        Number(i64),
    }
    match Int::deserialize(from)? {
        Int::Text(text) => text.parse().map_err(D::Error::custom),
        Int::Number(number) => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_zero_false_or_empty() {
        let answer: Transacted =
            serde_json::from_str(r#"{"header":{"revision":"12","raft_term":"2"}}"#).unwrap();
        assert_eq!((answer.header.revision, answer.succeeded, answer.responses.len()), (12, false, 0));
        let answer: Keys = serde_json::from_str("{}").unwrap();
        assert_eq!((answer.header.revision, answer.more, answer.kvs.len()), (0, false, 0));
    }

    #[test]
    fn a_watch_that_was_cancelled() {
        let text = r#"{"result":{"header":{},"created":true,"canceled":true,"compact_revision":"17"}}"#;
        let watched: Watched = serde_json::from_str(text).unwrap();
        let result = watched.result;
        assert_eq!((result.created, result.canceled, result.compact_revision), (true, true, 17));
        let text = r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}"#;
        let watched: Watched = serde_json::from_str(text).unwrap();
        assert_eq!(watched.error.unwrap().text(), "etcdserver: no leader");
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(text: String, number: String) {
            let _ = serde_json::from_str::<Transacted>(&text);
            let _ = serde_json::from_str::<Watched>(&text);
            let odd = serde_json::json!({ "header": { "revision": number } }).to_string();
            let _ = serde_json::from_str::<Keys>(&odd);
        }
    }
}
