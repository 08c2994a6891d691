//! The commands: one file each, and `assemble`, which is the pipeline.

pub mod assemble;
pub mod completions;
pub mod fleet;
pub mod haproxy_config;
pub mod init;
pub mod issue;
