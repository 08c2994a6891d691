//! `.if`, `.elif`, `.else`, `.endif`: which lines of a configuration count. Pure.
//!
//! The environment and HAProxy's version decide numbers, `defined()`, `streq()`, `strneq()`, `version_atleast()` and
//! `version_before()`, with `!`, `&&` and `||` between them. What depends on how HAProxy was built isn't known.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::words::Environment;

/// The blocks that a line stands in, from the outermost.
#[derive(Debug, Clone, Default)]
pub(super) struct Conditionals(Vec<Block>);

#[derive(Debug, Clone, Copy)]
struct Block {
    /// Whether the lines count here; `None`: that isn't known.
    counts: Option<bool>,
    /// Whether a branch before this one counted; `None`: that isn't known.
    was_taken: Option<bool>,
}

impl Conditionals {
    /// Whether a line counts here: also where that isn't known.
    pub(super) fn count(&self) -> bool {
        self.0.iter().all(|block| block.counts != Some(false))
    }

    /// Takes a line that begins or ends a block.
    ///
    /// # Errors
    /// Its condition can't be told.
    pub(super) fn line(&mut self, words: &[&str], environment: &Environment) -> Result<(), ()> {
        let told = || holds(&words.get(1..).unwrap_or_default().concat(), environment);
        let is_outside = !self.count();
        match words.first().copied() {
            Some(".if") => {
                let holds = if is_outside { Some(false) } else { told() };
                self.0.push(Block { counts: holds, was_taken: holds });
                holds.map(drop).ok_or(())
            }
            Some(".elif" | ".else") => {
                let Some(mut block) = self.0.pop() else { return Ok(()) };
                let is_else = words.first() == Some(&".else");
                let holds = match block.was_taken {
                    Some(true) => Some(false),
                    _ if !self.count() => Some(false),
                    _ if is_else => block.was_taken.map(|taken| !taken),
                    _ => told(),
                };
                block.counts = holds;
                block.was_taken = match (block.was_taken, holds) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    (Some(false), Some(false)) => Some(false),
                    _ => None,
                };
                self.0.push(block);
                holds.map(drop).ok_or(())
            }
            _ => {
                self.0.pop();
                Ok(())
            }
        }
    }
}

/// Whether a condition holds; `None`: that can't be told.
fn holds(condition: &str, environment: &Environment) -> Option<bool> {
    let any = condition.split("||").map(|part| {
        part.split("&&")
            .map(|term| term_holds(term, environment))
            .try_fold(true, |all, one| Some(all && one?))
    });
    any.into_iter().try_fold(false, |any, one| Some(any || one?))
}

fn term_holds(term: &str, environment: &Environment) -> Option<bool> {
    if let Some(negated) = term.strip_prefix('!') {
        return term_holds(negated, environment).map(|holds| !holds);
    }
    if let Ok(number) = term.parse::<i64>() {
        return Some(number != 0);
    }
    let (name, arguments) = term.strip_suffix(')')?.split_once('(')?;
    match (name, arguments.split_once(',')) {
        ("defined", None) if environment.variables.contains_key(arguments) => Some(true),
        // HAProxy sets some by itself.
        ("defined", None) if environment.is_whole && !arguments.starts_with("HAPROXY_") => Some(false),
        ("streq", Some((one, other))) => Some(one == other),
        ("strneq", Some((one, other))) => Some(one != other),
        ("version_atleast", None) => is_at_least(environment.version?, arguments),
        ("version_before", None) => is_at_least(environment.version?, arguments).map(|is| !is),
        _ => None,
    }
}

/// Whether this version is that one or a later one; `None`: it depends on the numbers behind the first two.
fn is_at_least(version: (u32, u32), wanted: &str) -> Option<bool> {
    let (major, rest) = wanted.split_once('.')?;
    let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    let (minor, behind) = rest.split_at(end);
    let wanted = (major.parse().ok()?, minor.parse().ok()?);
    (version != wanted || behind.is_empty()).then_some(version >= wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        let variables = [("SITE".to_owned(), "edge".to_owned())].into();
        Environment { variables, is_whole: true, version: Some((2, 6)) }
    }

    #[test]
    fn what_the_environment_tells_is_told() {
        for (condition, told) in [
            ("1", Some(true)),
            ("0", Some(false)),
            ("defined(SITE)", Some(true)),
            ("!defined(SITE)", Some(false)),
            ("defined(OTHER)", Some(false)),
            ("defined(HAPROXY_MWORKER)", None),
            ("streq(a,a)&&strneq(a,b)", Some(true)),
            ("streq(a,b)||defined(SITE)", Some(true)),
            ("feature(OPENSSL)", None),
            ("version_atleast(2.4)", Some(true)),
            ("version_atleast(2.6)&&!version_atleast(3.0-dev1)", Some(true)),
            ("version_before(2.6)||version_atleast(2.10)", Some(false)),
            ("version_before(2.6.5)", None),
            ("version_atleast(x)", None),
        ] {
            assert_eq!(holds(condition, &environment()), told, "{condition}");
        }
    }

    #[test]
    fn one_branch_counts() {
        let mut blocks = Conditionals::default();
        let mut counts = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let told = blocks.line(&words, &environment());
            (told.is_ok(), blocks.count())
        };
        assert_eq!(counts(".if streq(a,b)"), (true, false));
        assert_eq!(counts(".if 1"), (true, false), "inside one that doesn't count");
        assert_eq!(counts(".endif"), (true, false));
        assert_eq!(counts(".elif defined(SITE)"), (true, true));
        assert_eq!(counts(".else"), (true, false));
        assert_eq!(counts(".endif"), (true, true));
        assert_eq!(counts(".if feature(X)"), (false, true));
        assert_eq!(counts(".else"), (false, true));
        assert_eq!(counts(".endif"), (true, true));
    }
}
