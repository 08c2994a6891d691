//! Deploys certbot's certificates to HAProxy, and proves that HAProxy took them.
//!
//! certbot keeps a lineage's private key and chain in two files, HAProxy wants both in one. A run compares everything, a
//! pipeline of values in which what decides does no I/O and what does I/O decides nothing:
//!
//! ```text
//! certbot ──► certified_key ──► plan ──► sites ──► haproxy ──► output
//! (lineages,   (proof that key   (pure    (lock,    (notify,     (people,
//!  safe read)   and leaf belong   diff)    stage,    confirm)     scripts,
//!               together; PEM)     ▲       commit)     ▲          syslog)
//!                                  └──── serving ──────┘
//!                              (what HAProxy loads, and who serves whom)
//! ```
//!
//! [`commands::assemble`] is the pipeline on one screen; [`sweep`] gathers what [`plan`] decides from. Types are proofs:
//! a [`certified_key::CombinedPem`] comes only from a [`certified_key::CertifiedKey`], whose one constructor proves that
//! key and leaf belong together; a [`sites::dir::SitesDir`] that can be written exists only while its lock is held; what
//! is [`sites::commit::Committed`] must be kept or put back. [`config::Settings`] is what is meant, [`cli::Cli`] what was
//! typed, [`sys::system::System`] the host around us; [`serving::loads::Serving`] is what a HAProxy loads, whoever put it
//! there.
//!
//! | room | what is in it |
//! |---|---|
//! | [`commands`] | what each command does; `run` is where `main.rs` begins it |
//! | [`source`] | where a run's pairs come from: certbot's tree, or the fleet's publisher |
//! | [`certbot`] | certbot's tree and its settings |
//! | [`certified_key`] | the proof, and the only way to a combined PEM |
//! | [`serving`] | what a HAProxy loads, and who would be served; pure but for the files that gather it |
//! | [`plan`] | the decision, pure |
//! | [`index`] | what was proved before and still looks the same isn't read again; [`index::trust`] says when |
//! | [`sites`] | lock, stage, commit, put back, and the state |
//! | [`haproxy`] | notifying it: [`haproxy::notify`] is the one door, [`haproxy::methods`] the ways |
//! | [`fleet`] | one host publishes, many deploy: what lies in a store that nobody trusts |
//! | [`status`] | what is seen, judged: facts first, then how bad they are, then advice |
//! | [`host_setup`] | certbot's hooks, timers, modes and HAProxy's configuration, for `init` and `status --setup` |
//! | [`output`] | for people, scripts, the system log, monitoring and Prometheus |
//! | [`sys`] | procfs, programs, safe reads, parallel work, failures, text that is safe to print |
//!
//! [`output::terminal`] is the only file that prints, the binary's `main.rs` the only one that exits. No file imports itself by way of others, and a public
//! type has one meaning: `tests/house.rs` keeps both.

pub mod certbot;
pub mod certified_key;
pub mod cli;
pub mod commands;
pub mod config;
mod decide;
pub mod fleet;
pub mod haproxy;
pub mod host_setup;
pub mod index;
pub mod output;
pub mod plan;
pub mod serving;
pub mod sites;
pub mod source;
pub mod status;
pub mod sweep;
pub mod sys;
