//! Deploys certbot's certificates to HAProxy, and proves that HAProxy took them.

pub mod certified_key;
pub mod program;
