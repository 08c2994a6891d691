//! Deploys certbot's certificates to HAProxy, and proves that HAProxy took them.

pub mod certified_key;
pub mod config;
pub mod escape;
pub mod failure;
pub mod haproxy;
pub mod program;
pub mod world;
