//! Which certbot this is: it says so itself.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::sys::program::Program;

/// certbot takes a second to say its version.
const LIMIT: Duration = Duration::from_secs(30);

/// A version: `[5, 8, 0]`.
pub type Version = [u32; 3];

/// Asks this certbot for its version.
#[must_use]
pub fn ask(program: &Path) -> Option<Version> {
    let done = Program::new(program).arg("--version").run(Instant::now() + LIMIT).ok()?;
    version_in(&done.output)
}

/// The version in what `certbot --version` says: "certbot 2.1.0".
#[must_use]
pub fn version_in(output: &str) -> Option<Version> {
    let text = output.lines().find_map(|line| line.strip_prefix("certbot "))?;
    let mut numbers = text.trim().split('.').map(|part| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    });
    let mut next = || numbers.next().unwrap_or(Some(0));
    Some([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certbots_version_is_read_from_what_it_says() {
        assert_eq!(version_in("certbot 2.1.0\n"), Some([2, 1, 0]));
        assert_eq!(version_in("a warning\ncertbot 5.4.0.dev0\n"), Some([5, 4, 0]));
        assert_eq!(version_in("certbot 6\n"), Some([6, 0, 0]));
        assert_eq!(version_in("nothing\n"), None);
    }
}
