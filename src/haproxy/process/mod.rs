//! HAProxy's processes, as procfs shows them.

pub mod arguments;
pub mod config_check;
pub mod in_flight;
pub mod master;
pub mod pidfile;
pub mod reader;
pub mod release;
pub mod sight;
pub mod stale_socket;
pub mod started;
pub mod stopped;
pub mod surroundings;
pub mod twin;
pub mod watch;
