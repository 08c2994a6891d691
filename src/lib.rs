//! Deploys certbot's certificates to HAProxy, and proves that HAProxy took them.

pub mod assemble;
pub mod certbot;
pub mod certified_key;
pub mod cli;
pub mod config;
pub mod escape;
pub mod failure;
pub mod haproxy;
pub mod haproxy_config;
pub mod init;
pub mod issue;
pub mod parallel;
pub mod placeholder;
pub mod plan;
pub mod program;
pub mod report;
pub mod sites;
pub mod sweep;
pub mod world;
