//! Fleets: one host with certbot publishes, any number of hosts with HAProxy deploy what it published.
//!
//! What lies between them, an etcd or a directory, is never trusted: it sees ciphertext, names of nodes and what these
//! report, and whatever it forges, replays or mixes is refused here.
//!
//! ```text
//! identity ──► epoch key ──► object, page ──► head ──► store ──► accept ──► page, object ──► report
//! (this        (sealed to    (ciphertext,     (signed)           (pure:      (opened,         (signed by
//!  host's       each node)    by hash)                            may it      proved again)    the node)
//!  keys)                                                          count?)
//! ```
//!
//! Everything but [`identity`] and [`store`] is pure: bytes in, values out.

pub mod accept;
pub mod cache;
pub mod edition;
pub mod epoch;
pub mod fetch;
mod fields;
pub mod former;
pub mod head;
pub mod identity;
pub mod name;
pub mod node_key;
pub mod node_list;
pub mod object;
pub mod overview;
pub mod page;
pub mod reach;
pub mod report;
pub mod seal;
pub mod sealed_hashes;
pub mod signed_text;
pub mod sshsig;
pub mod store;
pub mod trouble;
pub mod unsealed;
