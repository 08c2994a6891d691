//! HAProxy's sockets: what is sent, and what the replies mean.

pub mod another;
pub mod replies;
pub mod socket;
pub mod transaction;
pub mod worker;
