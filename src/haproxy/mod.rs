//! Telling each HAProxy what changed, and seeing that it took it.

pub mod alerts;
pub mod attempt;
pub mod batch;
pub mod cli;
pub mod fingerprint;
pub mod memory;
pub mod methods;
mod no_use;
pub mod notify;
pub mod patience;
pub mod process;
pub mod shared_names;
pub mod siblings;
mod somebody;
pub mod staged_check;
pub mod start;
pub mod tableless;
pub mod target;
pub mod tls_probe;
pub mod untried;
pub mod verdict;
