//! Deploys certbot's certificates to HAProxy, and proves that HAProxy took them.
//!
//! certbot keeps a lineage's private key and chain in two files, HAProxy wants both in one. A run compares everything, a
//! pipeline of values in which what decides does no I/O and what does I/O decides nothing:
//!
//! ```text
//! certbot ──► certified_key ──► plan ──► sites ──► haproxy ──► report
//! (lineages,   (proof that key   (pure    (lock,    (notify,     (people,
//!  safe read)   and leaf belong   diff)    stage,    confirm)     scripts,
//!               together; PEM)             commit)                syslog)
//! ```
//!
//! What was proved before and still looks the same isn't read again: [`index`], whose rule of trust is [`index::trust`].
//!
//! [`assemble`] is the pipeline on one screen; [`sweep`] gathers what [`plan`] decides from. Types are proofs: a
//! [`certified_key::CombinedPem`] comes only from a [`certified_key::CertifiedKey`], whose one constructor proves that
//! key and leaf belong together; a [`crate::sites::dir::SitesDir`] that can be written exists only while its lock is held; what is
//! [`crate::sites::commit::Committed`] must be kept or put back. [`config::Settings`] is what is meant, [`cli::Cli`] what was typed,
//! [`system::System`] the host around us; [`crate::serving::loads::Serving`] is what a HAProxy loads, whoever put it there. The binary's
//! `main.rs` is the only file that prints or exits.

pub mod certbot;
pub mod certified_key;
pub mod cli;
pub mod commands;
pub mod config;
pub mod haproxy;
pub mod host_setup;
pub mod index;
pub mod output;
pub mod plan;
pub mod serving;
pub mod sites;
pub mod status;
pub mod sweep;
pub mod sys;
