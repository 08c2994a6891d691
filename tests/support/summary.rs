//! The counts that a test file comes to: one table, on stderr and for `tests/run`.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

/// The counts of one test.
#[derive(Debug)]
pub struct Summary {
    test: &'static str,
    rows: Vec<(String, usize)>,
    began: Instant,
}

impl Summary {
    /// Of this test.
    pub fn of(test: &'static str) -> Self {
        Self { test, rows: Vec::new(), began: Instant::now() }
    }

    /// One more row.
    pub fn count(&mut self, what: impl Into<String>, number: usize) {
        self.rows.push((what.into(), number));
    }

    /// Shows the table, captured output or not, and leaves it for `tests/run`.
    pub fn show(&self) {
        let mut text = String::new();
        for (what, number) in &self.rows {
            writeln!(text, "{number:>9}  {}: {what}", self.test).unwrap();
        }
        writeln!(text, "{:>8}s  {}", self.began.elapsed().as_secs(), self.test).unwrap();
        let _ = std::io::stderr().write_all(text.as_bytes());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("counts");
        fs::create_dir_all(&folder).unwrap();
        let mut file =
            OpenOptions::new().create(true).append(true).open(folder.join(env!("CARGO_CRATE_NAME"))).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}

/// Whether the long runs are wanted: `HAPROXY_CERTS_LONG=1`.
pub fn long() -> bool {
    std::env::var_os("HAPROXY_CERTS_LONG").is_some_and(|value| value == "1")
}
