//! The sites directory: who may change it, what is in it, and how a plan becomes files without a half-done moment.

pub(crate) mod aside;
pub mod commit;
pub mod debts;
pub mod dir;
pub mod durable;
pub mod entries;
pub mod guard;
pub mod intent;
pub mod last_run;
pub mod last_start;
pub mod lock;
pub mod looking;
pub mod making;
pub mod place;
pub mod placeholder;
pub mod put_back;
pub mod stage;
pub mod state;
pub mod untouched;
