//! The ways of notifying HAProxy, one file each.

pub mod command;
pub mod master;
pub mod pidfile;
pub mod runtime;
pub mod systemd;
