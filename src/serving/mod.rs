//! What HAProxy loads: every bind with its certificates in the order in which they are loaded, as a value of its own.
//!
//! ```text
//! haproxy.cfg ──► words ──► configuration ─┐                       ┌─► plan (in memory or by reload, prunes, shadows)
//! crt-lists ────► crt_list ────────────────┼─► gather ─► Serving ──┼─► status (unloadable, expired, shadowed)
//! directories, files, the running master ──┘   (I/O)               └─► haproxy (which stores, which rivals)
//! ```
//!
//! [`loads::Serving`] says what a HAProxy that is freshly started from these files would load; [`View`] says who would serve a name
//! then. Where the configuration can't be read, or has something that isn't understood here, [`loads::Serving::unclear`] says
//! why: then nothing may be claimed from what it lacks, and a reload is the only safe way to notify that HAProxy.
//!
//! Whether two stores are the same file is known by device and inode, never by how a path is spelled.
//!
//! The rules are HAProxy's (`ssl_sock.c`, `ssl_crtlist.c`, `ssl_clienthello.c` of 2.2 to 3.4, and measured with each).

pub mod answers;
pub(crate) mod beside;
mod condition;
pub mod configuration;
pub mod contents;
pub mod crt_list;
pub mod disk;
pub mod gather;
mod gathering;
pub mod in_memory;
pub mod loads;
pub mod one_by_one;
pub mod pair;
pub(crate) mod reading;
pub(crate) mod set_up;
pub mod sites;
pub mod spared;
pub mod view;
pub mod words;

pub use view::{Rival, Served, View, Views};
