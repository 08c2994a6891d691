//! What the tests count: the rows of the table at the end of `tests/run`, which `tests/README.md` quotes.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use super::built::{suite, target_folder};

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Runs that were killed.
    Killed,
    /// Calls that failed.
    Failed,
    /// Renames in recorded orders of calls.
    Renames,
    /// Orders of calls that are wrong.
    WrongOrders,
    /// Runs at once.
    Crowd,
    /// Renewals while the program ran.
    Renewals,
    /// Runs while certbot renewed.
    Runs,
    /// Files read while both went on.
    Looks,
    /// Reloads of `HAProxy` while both went on.
    Reloads,
    /// TLS handshakes while certificates were replaced.
    Handshakes,
    /// Cases of the closed loop.
    Cases,
    /// Random worlds of the oracle.
    Worlds,
    /// Steps in them.
    Steps,
    /// Handshakes compared with a fresh start's.
    Compared,
    /// Mutated keys and chains.
    Mutated,
    /// Those of them that were accepted.
    Accepted,
    /// Inputs of the property tests.
    Properties,
    /// Hostile entries in certbot's tree.
    Hostile,
    /// Hostile entries in the place of the program's own.
    InPlace,
    /// Hostile state files.
    StateFiles,
    /// Directories swapped for links.
    Swapped,
    /// Sequences of what happens to files between runs with the index.
    Indexed,
    /// Private keys looked for where they must not be.
    Keys,
}

impl Count {
    /// All of them, in the table's order.
    pub const ALL: [Self; 23] = [
        Self::Killed,
        Self::Failed,
        Self::Renames,
        Self::WrongOrders,
        Self::Crowd,
        Self::Renewals,
        Self::Runs,
        Self::Looks,
        Self::Reloads,
        Self::Handshakes,
        Self::Cases,
        Self::Worlds,
        Self::Steps,
        Self::Compared,
        Self::Mutated,
        Self::Accepted,
        Self::Properties,
        Self::Hostile,
        Self::InPlace,
        Self::StateFiles,
        Self::Swapped,
        Self::Indexed,
        Self::Keys,
    ];

    /// What it counts, as the table says it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Killed => "runs killed at a system call, checked, and run to their end",
            Self::Failed => "system calls made to fail, the run checked, and run to its end",
            Self::Renames => "renames checked for a power loss before or after them",
            Self::WrongOrders => "wrong orders of calls that the checker was shown, and noticed",
            Self::Crowd => "runs started 50 at once, of which one did the work and told HAProxy",
            Self::Renewals => {
                "renewals while the program ran: link by link as by certbot, or file by file by rsync"
            }
            Self::Runs => "runs meanwhile, without a mixed pair and without a refusal that stayed",
            Self::Looks => "looks at a deployed file meanwhile, each of a whole PEM",
            Self::Reloads => "reloads of HAProxy meanwhile, none of which failed",
            Self::Handshakes => "TLS handshakes while certificates were replaced, each with the right one",
            Self::Cases => "cases of the closed loop, on HAProxy 2.2, 2.6, 3.0, 3.2 and 3.4",
            Self::Worlds => "random worlds of HAProxy, certbot and other people's files",
            Self::Steps => "random steps in them, the run judged by what clients are answered",
            Self::Compared => {
                "handshakes compared with those of a HAProxy freshly started from the same files"
            }
            Self::Mutated => "pairs of key and chain with mutated bytes",
            Self::Accepted => "of these accepted, each right in OpenSSL's judgement",
            Self::Properties => "inputs of property tests: parsers, plans carried out and planned again",
            Self::Hostile => "hostile files, directories and names in certbot's tree",
            Self::InPlace => "hostile entries in the place of the program's own files and directories",
            Self::StateFiles => "corrupt and lying state files",
            Self::Swapped => "directories and files swapped for links while it ran",
            Self::Indexed => {
                "sequences of renewals, edits and set clocks, each run planned with the index and without"
            }
            Self::Keys => "private keys looked for in its memory and its writes, and not found",
        }
    }

    /// Adds to the row, and says on stderr for `what`, captured output or not.
    pub fn add(self, what: &str, number: usize) {
        say(&format!("{number:>9} {} ({what})", self.words()));
        self.add_quietly(number);
    }

    /// Adds to the row.
    pub fn add_quietly(self, number: usize) {
        let folder = target_folder().join("tmp/counts");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(suite());
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(format!("{number}\t{}\n", self.words()).as_bytes()).unwrap();
    }
}

/// Notes that a test is skipped here, and why: `tests/run` lists them, and CI accepts none.
pub fn skipped(test: &str, why: &str) {
    let folder = target_folder().join("tmp/skipped");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(suite());
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(format!("{}::{test}: {why}\n", suite()).as_bytes()).unwrap();
    say(&format!("skipped: {test}: {why}"));
}

/// Says something on stderr, captured output or not.
pub fn say(text: &str) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Whether the long runs are wanted: `HAPROXY_CERTS_LONG=1`.
pub fn long() -> bool {
    std::env::var_os("HAPROXY_CERTS_LONG").is_some_and(|value| value == "1")
}
