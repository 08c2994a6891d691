//! HAProxy's processes, as procfs shows them.

pub mod arguments;
pub mod checker;
pub mod config_check;
pub mod environment;
pub(crate) mod families;
pub mod in_flight;
pub mod limited;
pub mod master;
pub mod newer_source;
pub mod on_the_way;
pub mod pidfile;
pub mod reader;
pub mod release;
pub mod reload_check;
pub mod sight;
pub mod sources;
pub mod stale_socket;
pub mod started;
pub mod stopped;
pub mod surroundings;
pub mod twin;
pub mod user;
pub mod watch;
pub mod way_in;
