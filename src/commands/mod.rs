//! The commands. `run` is what `main.rs` calls; `assemble` is the pipeline.

pub mod assemble;
pub mod certbot_call;
pub mod completions;
pub mod fleet;
pub mod haproxy_config;
pub mod init;
pub mod interval;
pub mod rounds;
pub mod schedule;
pub mod status;
pub mod with_certbot;
