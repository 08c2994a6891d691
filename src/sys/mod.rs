//! The operating system: its places and programs, safe reads, work in parallel, failures, and text that is safe to print.

pub mod change_time;
pub mod clock;
pub mod core_dump;
pub(crate) mod cursor;
pub mod escape;
pub mod failure;
pub mod file_mark;
pub mod folder_lock;
pub mod host_name;
pub mod host_port;
pub mod parallel;
pub mod procfs;
pub mod program;
pub mod room;
pub mod safe_read;
pub mod service_manager;
pub mod shared_folder;
pub mod signals;
pub mod system;
pub(crate) mod trusted;
