//! What HAProxy answers on its sockets, understood. Pure.
//!
//! There is no status code: replies are told apart by their text, as HAProxy 2.2 to 3.4 print it.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::time::Duration;

use crate::certified_key::KeyFamily;
use crate::sys::escape::escaped;

/// `show ssl cert`: what is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The file of the transaction that is open, one for the whole process.
    pub transaction: Option<String>,
    /// The names of all stores.
    pub stores: BTreeSet<String>,
}

/// `show ssl cert FILE`: one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownStore {
    /// What it is there for.
    pub status: StoreStatus,
    /// The leaf's SHA-1; not shown of a key that HAProxy can't name, as Ed25519, nor is what follows: the chain.
    pub sha1: Option<[u8; 20]>,
    /// The leaf's serial number, in hex.
    pub serial: Option<String>,
    /// When the leaf expires, as OpenSSL prints it: `Feb 21 22:27:20 2027 GMT`.
    pub not_after: Option<String>,
    /// How many certificates follow the leaf in its own file: what `issuers-chain-path` adds is shown behind
    /// `Chain Filename:`, and isn't the file's (measured, 2.2 to 3.4).
    pub chain_len: usize,
    /// Whether `issuers-chain-path` adds others.
    pub is_completed: bool,
    /// Whether an OCSP response is stapled to it (2.6 and later say so).
    pub has_ocsp: bool,
    /// The DNS names that it has, in lower case: alternative names and common names. Of a key that HAProxy can't name the
    /// common names aren't shown.
    pub names: BTreeSet<String>,
    /// What kind of key it has.
    pub family: KeyFamily,
}

impl ShownStore {
    /// How many certificates follow the leaf in its own file; `None`: of such a key HAProxy doesn't show it.
    #[must_use]
    pub fn chain_shown(&self) -> Option<usize> {
        self.sha1.map(|_| self.chain_len)
    }

    /// Whether the leaf is surely sent without any other certificate.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.chain_shown() == Some(0) && !self.is_completed
    }
}

/// What a store is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreStatus {
    /// Something serves it.
    Used,
    /// It is loaded and nothing serves it.
    Unused,
    /// It was made and never filled.
    Empty,
    /// The open transaction's.
    Uncommitted,
}

/// A line of `show ssl crt-list -n LIST`: of a crt-list, or an entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedStore {
    /// The store.
    pub store: String,
    /// The file's line; of a directory's entry 0. What was added at run time has a higher one than all others (measured, 2.2
    /// to 3.4).
    pub number: usize,
    /// The names that it is served for instead of its own.
    pub filters: Vec<String>,
}

/// A line of `show ssl sni` (3.2 and later): of the lines with the same bind, name and kind the first one is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedName {
    /// `FRONTEND/FILE:LINE`.
    pub bind: String,
    /// The name; `*` stands for the default certificates.
    pub name: String,
    /// The names that its line excludes from its wildcards, without the `!`.
    pub excluded: Vec<String>,
    /// The kind of its key: `ecdsa`, `rsa`; `dsa` for all others (measured, 3.2 and 3.4).
    pub kind: String,
    /// The store.
    pub store: String,
}

impl ListedName {
    /// What its kind means.
    #[must_use]
    pub fn family(&self) -> KeyFamily {
        match self.kind.as_str() {
            "ecdsa" => KeyFamily::Ecdsa,
            "rsa" => KeyFamily::Rsa,
            _ => KeyFamily::Other,
        }
    }
}

/// What a reply to `set ssl cert FILE` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetReply {
    /// A transaction was opened for this file.
    Created(String),
    /// The payload went into a transaction that was open already, for this file.
    Updated(String),
    /// There is a transaction for this other file, which was left alone.
    Held(String),
    /// It can't be read as a certificate.
    Refused(Unwanted),
    /// There is no such store.
    Unknown,
    /// Anything else.
    Unexpected,
}

/// What a reply to `commit ssl cert FILE` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitReply {
    /// It is in use from now on.
    Success,
    /// HAProxy won't use it. Some versions leave the transaction open.
    Refused(Unwanted),
    /// Anything else.
    Unexpected,
}

/// What a reply to `new ssl cert FILE` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewReply {
    /// The store is there, empty.
    Made,
    /// It was there already.
    Exists,
    /// Anything else.
    Unexpected,
}

/// What a reply to `add ssl crt-list DIR FILE` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddReply {
    /// It is served from now on.
    Success,
    /// It is in this directory's list already.
    Exists,
    /// HAProxy won't serve it.
    Refused(Unwanted),
    /// Anything else.
    Unexpected,
}

/// Why HAProxy won't have a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwanted {
    /// Its words.
    pub words: String,
    /// Where it stopped.
    pub stage: RefusedBy,
}

/// What it was that refused a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedBy {
    /// The reading of the chain.
    Chain,
    /// The SSL context that was to use it.
    Context,
    /// Anything before that.
    Contents,
}

impl Unwanted {
    /// A refusal, where the reply names what is wrong with the PEM.
    fn read(reply: &str) -> Option<Self> {
        let stage = if reply.contains("into SSL Context") {
            RefusedBy::Context
        } else if reply.contains("unable to load certificate chain") {
            RefusedBy::Chain
        } else {
            RefusedBy::Contents
        };
        names_a_bad_pem(reply).then(|| Self { words: reasons(reply), stage })
    }
}

/// `show info`: the worker that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Its process id, in its own namespace.
    pub pid: u32,
    /// For how long it has been running, give or take a second.
    pub uptime: Duration,
    /// How many processes share the work: a command reaches one of them.
    pub processes: u32,
    /// Its version's first two numbers; `None` where it can't be read.
    pub version: Option<(u32, u32)>,
}

/// `show proc`: a master and its workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processes {
    /// The master's process id, in its own namespace.
    pub master: u32,
    /// The master's version, as it is printed.
    pub version: String,
    /// How many of the last reloads failed, one after the other (2.5 and later count them).
    pub failed: u32,
    /// Under `# workers`: of the current generation. From 3.1 on one that is still loading is listed too.
    pub workers: Vec<ListedWorker>,
    /// Under `# old workers`: of earlier generations, and after a failed reload the one that serves.
    pub old: Vec<ListedWorker>,
}

/// A line of `show proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedWorker {
    /// Its process id.
    pub pid: u32,
    /// How many reloads it has seen.
    pub reloads: u32,
    /// For how long it has been running, give or take a second.
    pub uptime: Duration,
}

/// What the master answers to `reload` (2.7 and later).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReloadReply {
    /// The new worker serves.
    Success,
    /// HAProxy refused its configuration; the log of the attempt.
    Failure(String),
    /// Somebody else's reload isn't over.
    InProgress,
    /// Anything else.
    Unexpected,
}

impl Processes {
    /// The version's first two numbers.
    #[must_use]
    pub fn release(&self) -> Option<(u32, u32)> {
        let mut numbers = self.version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
            _ => None,
        }
    }

    /// The worker that serves, or is going to: of the current generation, else the youngest old one.
    #[must_use]
    pub fn newest(&self) -> Option<ListedWorker> {
        let youngest = |workers: &[ListedWorker]| workers.iter().min_by_key(|worker| worker.reloads).copied();
        youngest(&self.workers).or_else(|| youngest(&self.old))
    }

    /// Whether there is a worker with this process id.
    #[must_use]
    pub fn has(&self, pid: u32) -> bool {
        self.workers.iter().chain(&self.old).any(|worker| worker.pid == pid)
    }
}

/// Reads `show ssl cert`.
#[must_use]
pub fn listing(reply: &str) -> Option<Listing> {
    let mut lines = reply.lines();
    let mut listing = Listing::default();
    // A HAProxy without any certificate doesn't even print the title.
    let Some(mut line) = lines.next() else { return Some(listing) };
    if line == "# transaction" {
        listing.transaction = Some(lines.next()?.strip_prefix('*')?.to_owned());
        line = lines.next()?;
    }
    if line != "# filename" {
        return None;
    }
    listing.stores = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
    Some(listing)
}

/// Reads `show ssl cert FILE`.
#[must_use]
pub fn store(reply: &str) -> Option<ShownStore> {
    let field = |name: &str| {
        reply.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::trim))
    };
    field("Filename")?;
    Some(ShownStore {
        status: match field("Status")? {
            "Used" => StoreStatus::Used,
            "Unused" => StoreStatus::Unused,
            "Empty" => StoreStatus::Empty,
            "Uncommitted" => StoreStatus::Uncommitted,
            _ => return None,
        },
        sha1: field("SHA1 FingerPrint").and_then(sha1),
        serial: field("Serial").map(str::to_owned),
        not_after: field("notAfter").map(str::to_owned),
        is_completed: field("Chain Filename").is_some(),
        chain_len: match field("Chain Filename") {
            Some(_) => 0,
            None => reply.lines().filter(|line| line.starts_with("Chain Subject:")).count(),
        },
        has_ocsp: field("OCSP Response Key").is_some_and(|key| !key.is_empty()),
        names: shown_names(field("Subject Alternative Name"), field("Subject")),
        family: match field("Algorithm") {
            Some(rsa) if rsa.starts_with("RSA") => KeyFamily::Rsa,
            Some(ecdsa) if ecdsa.starts_with("EC") => KeyFamily::Ecdsa,
            _ => KeyFamily::Other,
        },
    })
}

/// `DNS:a.test, IP Address:192.0.2.7` and `/O=x/CN=a.test`.
fn shown_names(alternatives: Option<&str>, subject: Option<&str>) -> BTreeSet<String> {
    let alternatives = alternatives.unwrap_or_default().split(", ").filter_map(|it| it.strip_prefix("DNS:"));
    let commons = subject.unwrap_or_default().split("/CN=").skip(1).filter_map(|it| it.split('/').next());
    alternatives.chain(commons).map(str::to_ascii_lowercase).collect()
}

/// Reads `show ssl crt-list`: the names of all lists, directories too.
#[must_use]
pub fn lists(reply: &str) -> BTreeSet<String> {
    reply.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

/// Reads `show ssl crt-list -n LIST`; `None`: it has no such list, or the reply can't be read.
#[must_use]
pub fn list(reply: &str) -> Option<Vec<ListedStore>> {
    let mut lines = reply.lines().filter(|line| !line.trim().is_empty());
    lines.next()?.strip_prefix("# ")?;
    lines.map(listed_store).collect()
}

/// `/x/a.pem:3 [alpn h2 ] a.test !b.test`: a file's name may have blanks and colons.
fn listed_store(line: &str) -> Option<ListedStore> {
    let mut rest = line;
    let mut end = 0;
    loop {
        let colon = rest.find(':')?;
        let behind = rest.get(colon + 1..)?;
        let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
        let (number, others) = behind.split_at_checked(digits)?;
        if let (Ok(number), true) = (number.parse(), others.is_empty() || others.starts_with(' ')) {
            let filters = match others.trim_start().strip_prefix('[') {
                Some(options) => options.split_once(']')?.1,
                None => others,
            };
            return Some(ListedStore {
                store: line.get(..end + colon)?.to_owned(),
                number,
                filters: filters.split_whitespace().map(str::to_owned).collect(),
            });
        }
        end += colon + 1;
        rest = behind;
    }
}

/// Reads `show ssl sni`; `None`: this HAProxy doesn't know the command, or a name or a file's name has a tab or a line end in it,
/// and what belongs together isn't seen.
#[must_use]
pub fn sni(reply: &str) -> Option<Vec<ListedName>> {
    let mut lines = reply.lines().filter(|line| !line.is_empty());
    let title = lines.next().filter(|title| title.starts_with("# Frontend/Bind"))?;
    let fields = title.split('\t').count();
    let name = |line: &str| {
        if line.split('\t').count() != fields {
            return None;
        }
        let mut fields = line.split('\t');
        let mut next = || fields.next().map(str::to_owned);
        let (bind, name, excluded, kind, store) = (next()?, next()?, next()?, next()?, next()?);
        let excluded = excluded.split_whitespace().filter_map(|filter| filter.strip_prefix('!'));
        Some(ListedName { bind, name, excluded: excluded.map(str::to_owned).collect(), kind, store })
    };
    lines.map(name).collect()
}

/// A file's name as it stands in a reply, which is read by lines.
#[must_use]
pub fn lines_of_name(name: &str) -> Vec<String> {
    format!("{name}\n").lines().map(str::to_owned).collect()
}

/// Whether a file's name stands in a reply as it is.
#[must_use]
pub fn is_one_line(name: &str) -> bool {
    !name.contains('\n') && !name.ends_with('\r')
}

/// Whether a reply to `show ssl cert FILE` says that there is no such store.
#[must_use]
pub fn is_unknown_store(reply: &str) -> bool {
    reply.contains("Not found or the certificate is a bundle")
}

/// Reads the reply to `set ssl cert FILE`.
#[must_use]
pub fn set(reply: &str) -> SetReply {
    let between = |line: &str, before: &str, after: &str| {
        line.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).map(str::to_owned)
    };
    let mut said = Vec::new();
    for line in reply.lines().map(str::trim_end) {
        if let Some(file) = between(line, "Transaction created for certificate ", "!") {
            said.push(SetReply::Created(file));
        } else if let Some(file) = between(line, "Transaction updated for certificate ", "!") {
            said.push(SetReply::Updated(file));
        } else if let Some(rest) = line.strip_prefix("The ongoing transaction is about '")
            && let Some((file, _)) = rest.split_once("' but you are trying to set")
        {
            said.push(SetReply::Held(file.to_owned()));
        }
    }
    match (said.pop(), said.is_empty()) {
        (Some(only), true) => only,
        (None, _) if reply.contains("not referenced by the configuration") => SetReply::Unknown,
        (None, _) if reply.contains("Can't load the payload") || names_a_bad_pem(reply) => {
            let plain = || Unwanted { words: reasons(reply), stage: RefusedBy::Contents };
            SetReply::Refused(Unwanted::read(reply).unwrap_or_else(plain))
        }
        _ => SetReply::Unexpected,
    }
}

/// Reads the reply to `commit ssl cert FILE`.
#[must_use]
pub fn commit(reply: &str) -> CommitReply {
    if is_success(reply) {
        return CommitReply::Success;
    }
    Unwanted::read(reply).map_or(CommitReply::Unexpected, CommitReply::Refused)
}

/// Reads the reply to `new ssl cert FILE`.
#[must_use]
pub fn created(reply: &str, file: &str) -> NewReply {
    if reply.contains(&format!("New empty certificate store '{file}'!")) {
        NewReply::Made
    } else if reply.contains(&format!("Certificate '{file}' already exists!")) {
        NewReply::Exists
    } else {
        NewReply::Unexpected
    }
}

/// Reads the reply to `add ssl crt-list DIR FILE`.
#[must_use]
pub fn added(reply: &str) -> AddReply {
    if is_success(reply) {
        return AddReply::Success;
    }
    if reply.contains("file already exists in this directory") {
        return AddReply::Exists;
    }
    Unwanted::read(reply).map_or(AddReply::Unexpected, AddReply::Refused)
}

/// Whether a reply ends with success.
fn is_success(reply: &str) -> bool {
    reply.lines().map(str::trim).rfind(|line| !line.is_empty()) == Some("Success!")
}

/// Reads `show info`.
#[must_use]
pub fn info(reply: &str) -> Option<Info> {
    let number = |name: &str| {
        reply.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.trim().parse::<u32>().ok())
    };
    Some(Info {
        pid: number("Pid")?,
        uptime: Duration::from_secs(number("Uptime_sec")?.into()),
        processes: number("Nbproc").unwrap_or(1),
        version: reply.lines().find_map(|line| line.strip_prefix("Version: ")).and_then(|version| {
            let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        }),
    })
}

/// Reads `show proc`. 2.2 has a column more, 2.5 and later a note of failures.
#[must_use]
pub fn processes(reply: &str) -> Option<Processes> {
    let mut master = None;
    let (mut workers, mut old) = (Vec::new(), Vec::new());
    let (mut in_old, mut failed) = (false, 0);
    for line in reply.lines() {
        if let Some(title) = line.strip_prefix('#') {
            in_old = title.trim() == "old workers";
            continue;
        }
        let Some((kind, row, version)) = process(line) else { continue };
        match kind {
            "master" => {
                master = Some((row.pid, version.to_owned()));
                let count = || line.split_once("[failed: ")?.1.split_once(']')?.0.trim().parse().ok();
                failed = count().unwrap_or_default();
            }
            "worker" if in_old => old.push(row),
            "worker" => workers.push(row),
            _ => {}
        }
    }
    let (master, version) = master?;
    Some(Processes { master, version, failed, workers, old })
}

/// Reads the master's reply to `reload`.
#[must_use]
pub fn reload(reply: &str) -> ReloadReply {
    let (first, rest) = reply.split_once('\n').unwrap_or((reply, ""));
    match first.trim() {
        "Success=1" => ReloadReply::Success,
        "Success=0" if rest.contains("Another reload is still in progress") => ReloadReply::InProgress,
        "Success=0" => ReloadReply::Failure(rest.trim_start_matches("--").trim().to_owned()),
        _ => ReloadReply::Unexpected,
    }
}

/// A reply in one short line of ASCII, to be quoted.
#[must_use]
pub fn quoted(reply: &str) -> String {
    let mut line = String::new();
    for part in reply.lines().map(str::trim).filter(|part| !part.is_empty()) {
        if !line.is_empty() {
            line.push_str(" / ");
        }
        line.push_str(&escaped(part).to_string());
        if line.len() > 300 {
            line.truncate(300);
            line.push_str("...");
            break;
        }
    }
    line
}

/// What HAProxy says of a PEM that it won't have: one that doesn't parse, whose halves don't fit, that is too weak.
fn names_a_bad_pem(reply: &str) -> bool {
    ["inconsistencies between private key", "unable to load", "must contain at least a certificate"]
        .iter()
        .any(|words| reply.contains(words))
}

/// The lines that say why, without the ones around them.
fn reasons(reply: &str) -> String {
    let why: Vec<&str> = reply
        .lines()
        .filter(|line| {
            !["Can't ", "Committing ", "Inserting ", "Failed!"].iter().any(|noise| line.starts_with(noise))
        })
        .collect();
    quoted(&why.join("\n"))
}

fn sha1(hex: &str) -> Option<[u8; 20]> {
    let hex = hex.as_bytes();
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; 20];
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    (hex.len() == 40).then_some(bytes)
}

/// A row of `show proc`, told by its uptime: the number before it is the reloads, the word after it the version.
fn process(line: &str) -> Option<(&str, ListedWorker, &str)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| uptime(word).is_some())?;
    let (before, after) = words.split_at_checked(at)?;
    let mut before = before.iter();
    let (pid, kind) = (before.next()?.parse().ok()?, *before.next()?);
    // `[failed: 1]` may stand between, `[was: 1]` in the place of the relative process id.
    let reloads = before.rev().find_map(|word| word.parse().ok())?;
    let uptime = uptime(after.first()?)?;
    Some((kind, ListedWorker { pid, reloads, uptime }, after.get(1).copied().unwrap_or_default()))
}

/// `0d00h01m53s`.
fn uptime(word: &str) -> Option<Duration> {
    let (days, rest) = word.split_once('d')?;
    let (hours, rest) = rest.split_once('h')?;
    let (minutes, rest) = rest.split_once('m')?;
    let number = |text: &str| text.parse::<u64>().ok();
    let [days, hours, minutes, seconds] =
        [number(days)?, number(hours)?, number(minutes)?, number(rest.strip_suffix('s')?)?];
    let hours = days.checked_mul(24)?.checked_add(hours)?;
    let minutes = hours.checked_mul(60)?.checked_add(minutes)?;
    minutes.checked_mul(60)?.checked_add(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_shows_an_open_transaction_first() {
        let shown = listing("# transaction\n*/c/b.pem\n# filename\n/c/a.pem\n/c/b.pem\n").unwrap();
        assert_eq!(shown.transaction.as_deref(), Some("/c/b.pem"));
        assert!(shown.stores.iter().eq(["/c/a.pem", "/c/b.pem"]));
        assert_eq!(listing("# filename").unwrap(), Listing::default());
        assert_eq!(listing("").unwrap(), Listing::default());
        assert_eq!(listing("Unknown command: 'show'"), None);
        assert_eq!(listing("Permission denied"), None);
    }

    #[test]
    fn a_store_is_read_as_every_version_prints_it() {
        let shown = store(
            "Filename: /c/a.pem\nCrt filename: /c/a.pem\nOption: jwt off\nStatus: Used\nSerial: 2EE9\nnotAfter: Dec  3 \
             01:35:08 2026 GMT\nSHA1 FingerPrint: 999349AB3DE42352869F7FDC74FC0714764AAB0E\nSubject: /CN=a\nIssuer: \
             /CN=i\nChain Subject: /CN=i\nChain Issuer: /CN=r\nChain Subject: /CN=r\nChain Issuer: /CN=r\nOCSP Response \
             Key:",
        )
        .unwrap();
        assert_eq!(shown.status, StoreStatus::Used);
        assert_eq!(shown.sha1.unwrap()[..3], [0x99, 0x93, 0x49]);
        assert_eq!(shown.chain_len, 2);
        assert_eq!(shown.not_after.as_deref(), Some("Dec  3 01:35:08 2026 GMT"));
        let empty = store("Filename: /c/a.pem\nStatus: Empty\nOCSP Response Key:").unwrap();
        assert_eq!((empty.status, empty.sha1), (StoreStatus::Empty, None));
        let unknown = "Can't display the certificate: Not found or the certificate is a bundle!";
        assert_eq!(store(unknown), None);
        assert!(is_unknown_store(unknown));
    }

    #[test]
    fn the_reply_to_set_names_the_file_whose_transaction_it_is() {
        let created = "Transaction created for certificate /c/a.pem!";
        assert_eq!(set(created), SetReply::Created("/c/a.pem".into()));
        assert_eq!(
            set("Transaction updated for certificate /c/x.pem!"),
            SetReply::Updated("/c/x.pem".into())
        );
        assert_eq!(
            set(
                "The ongoing transaction is about '/c/x.pem' but you are trying to set '/c/a.pem'\nCan't update /c/a.pem!"
            ),
            SetReply::Held("/c/x.pem".into())
        );
        assert_eq!(set(&format!("{created}\n{created}")), SetReply::Unexpected);
        assert_eq!(
            set(
                "unable to load certificate from file '/c/a.pem': no start line.\nCan't load the payload\nCan't update /c/a.pem!"
            ),
            SetReply::Refused(refusal(
                "unable to load certificate from file '/c/a.pem': no start line.",
                RefusedBy::Contents
            ))
        );
        assert_eq!(
            set(
                "Can't replace a certificate which is not referenced by the configuration!\nCan't update /c/a.pem!"
            ),
            SetReply::Unknown
        );
        assert_eq!(set("'set ssl cert expects a filename"), SetReply::Unexpected);
    }

    #[test]
    fn a_commit_succeeded_only_where_it_says_so_at_the_end() {
        assert_eq!(commit("Committing /c/a.pem.\nSuccess!"), CommitReply::Success);
        assert_eq!(commit("Committing /c/a.pem\nwarning: x\nSuccess!\n"), CommitReply::Success);
        let inconsistent = "inconsistencies between private key and certificate loaded '/c/a.pem'.";
        assert_eq!(
            commit(&format!("{inconsistent}\nCan't commit /c/a.pem!")),
            CommitReply::Refused(refusal(inconsistent, RefusedBy::Contents))
        );
        assert_eq!(
            commit(
                "Committing /c/a.pem.\nunable to load SSL certificate into SSL Context '/c/a.pem': ee key too small.\nFailed!"
            ),
            CommitReply::Refused(refusal(
                "unable to load SSL certificate into SSL Context '/c/a.pem': ee key too small.",
                RefusedBy::Context
            ))
        );
        assert_eq!(commit("No ongoing transaction! !\nCan't commit /c/a.pem!"), CommitReply::Unexpected);
        assert_eq!(commit("Committing /c/a.pem."), CommitReply::Unexpected);
    }

    #[test]
    fn a_certificate_that_is_not_served_was_refused_by_name() {
        assert_eq!(added("Inserting certificate '/c/a.pem' in crt-list '/c'.\nSuccess!"), AddReply::Success);
        assert_eq!(
            added("Can't edit the crt-list: file already exists in this directory!"),
            AddReply::Exists
        );
        let words = "unable to load SSL certificate into SSL Context '/c/a.pem': ee key too small.";
        assert_eq!(
            added(&format!("Inserting certificate '/c/a.pem' in crt-list '/c'.\n{words}\nFailed!")),
            AddReply::Refused(refusal(words, RefusedBy::Context))
        );
        assert_eq!(added("Can't edit the crt-list: certificate '/c/a.pem' is empty!"), AddReply::Unexpected);
        assert_eq!(created("New empty certificate store '/c/a.pem'!\n", "/c/a.pem"), NewReply::Made);
        assert_eq!(created("Certificate '/c/a.pem' already exists!\n", "/c/a.pem"), NewReply::Exists);
        assert_eq!(created("Certificate '/c/b.pem' already exists!\n", "/c/a.pem"), NewReply::Unexpected);
    }

    fn refusal(words: &str, stage: RefusedBy) -> Unwanted {
        Unwanted { words: words.to_owned(), stage }
    }

    #[test]
    fn show_proc_is_read_as_every_version_prints_it() {
        let old = processes(
            "#<PID>          <type>          <relative PID>  <reloads>       <uptime>        <version>\n\
             16277           master          0               1               0d00h01m01s     2.2.9-2+deb11u6\n\
             # workers\n\
             16282           worker          1               0               0d00h00m01s     2.2.9-2+deb11u6\n\
             # old workers\n\
             16279           worker          [was: 1]        1               1d02h00m01s     2.2.9-2+deb11u6\n\
             # programs\n",
        )
        .unwrap();
        assert_eq!((old.master, old.release()), (16277, Some((2, 2))));
        assert_eq!(old.newest().map(|worker| (worker.pid, worker.reloads)), Some((16282, 0)));
        assert_eq!(
            old.old,
            [ListedWorker { pid: 16279, reloads: 1, uptime: Duration::from_secs(26 * 3600 + 1) }]
        );
        let failed = processes(
            "#<PID>          <type>          <reloads>       <uptime>        <version>\n\
             17398           master          2 [failed: 1]   0d00h00m02s     3.2.26-1\n\
             # workers\n\
             # old workers\n\
             17404           worker          1               0d00h00m02s     3.2.26-1",
        )
        .unwrap();
        assert_eq!(failed.release(), Some((3, 2)));
        assert_eq!(failed.workers, []);
        assert_eq!(failed.newest().map(|worker| worker.pid), Some(17404));
        assert!(failed.has(17404) && !failed.has(17398));
        assert_eq!(processes("Unknown command."), None);
    }

    #[test]
    fn a_lists_lines_are_read_whatever_the_names() {
        let shown = list(
            "# /x/list\n/x/a.pem:1 [alpn h2 ] a.test !b.test\n/x/b c:7.pem:3\n/x/d.pem:0\n@s/e:4 [no-alpn ]\n\n",
        )
        .unwrap();
        let line = |store: &str, number, filters: &[&str]| ListedStore {
            store: store.to_owned(),
            number,
            filters: filters.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(
            shown,
            [
                line("/x/a.pem", 1, &["a.test", "!b.test"]),
                line("/x/b c:7.pem", 3, &[]),
                line("/x/d.pem", 0, &[]),
                line("@s/e", 4, &[])
            ]
        );
        assert_eq!(list("# /x/empty\n"), Some(Vec::new()));
        for other in ["didn't find the specified filename", "Permission denied", "# /x/list\n/x/a.pem"] {
            assert_eq!(list(other), None, "{other}");
        }
    }

    #[test]
    fn names_are_shown_with_their_files() {
        let shown = sni("# Frontend/Bind\tSNI\tNegative Filter\tType\tFilename\tNotAfter\tNotBefore\n\
             f/c:9\t*.a.test\t!b.a.test !c.a.test \tecdsa\t/x/a b.pem\tt\tt\n");
        let line = ListedName {
            bind: "f/c:9".to_owned(),
            name: "*.a.test".to_owned(),
            excluded: vec!["b.a.test".to_owned(), "c.a.test".to_owned()],
            kind: "ecdsa".to_owned(),
            store: "/x/a b.pem".to_owned(),
        };
        assert_eq!(shown, Some(vec![line]));
        assert_eq!(sni("Unknown command: 'show ssl sni'"), None);
        for torn in ["f/c:9\ta\tb\t-\tecdsa\t/x/a.pem\tt\tt\n", "f/c:9\ta\nb\t-\tecdsa\t/x/a.pem\tt\tt\n"] {
            let title = "# Frontend/Bind\tSNI\tNegative Filter\tType\tFilename\tNotAfter\tNotBefore";
            assert_eq!(sni(&format!("{title}\n{torn}")), None, "{torn}");
        }
    }

    #[test]
    fn show_info_names_the_worker() {
        let shown = info(
            "Name: HAProxy\nVersion: 3.0.11-1+deb13u4\nNbproc: 1\nProcess_num: 1\nPid: 42\nUptime: 0d 0h00m07s\nUptime_sec: 7\n",
        );
        assert_eq!(
            shown,
            Some(Info { pid: 42, uptime: Duration::from_secs(7), processes: 1, version: Some((3, 0)) })
        );
    }

    #[test]
    fn a_reload_says_how_it_went() {
        assert_eq!(reload("Success=1\n--\n[NOTICE] x"), ReloadReply::Success);
        assert_eq!(reload("Success=0\n--\n[ALERT] x"), ReloadReply::Failure("[ALERT] x".into()));
        assert_eq!(reload("Success=0\n--\nAnother reload is still in progress."), ReloadReply::InProgress);
        assert_eq!(reload("Success=0"), ReloadReply::Failure(String::new()));
        assert_eq!(reload("Unknown command"), ReloadReply::Unexpected);
    }
}
