//! `fleet`: one publisher, many nodes.

mod failures;
pub mod follow;
pub mod join;
pub mod publish;
pub mod run;
pub mod status;
pub mod store_watch;
pub mod values;
pub mod watch;
