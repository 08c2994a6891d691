//! `issue` and `renew`: certbot as the operator would call it, with the arguments that fit these settings.
//!
//! No hook is passed: certbot saves it in every renewal configuration, where it replaces the operator's own and outlives
//! this program. The sweep that follows does a hook's work.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::config::Settings;
use crate::sys::escape::{escaped, escaped_path};
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::system::System;

/// certbot's own configuration directory, with `live` in it.
pub const CERTBOT_DIR: &str = "/etc/letsencrypt";

/// What certbot is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed<'a> {
    /// Issue one certificate for these names.
    Issue(&'a [String]),
    /// Renew whatever is due.
    Renew,
}

impl Deed<'_> {
    /// Whether the sweep follows although certbot failed: `renew` fails when one of many renewals does, and the others
    /// are to be deployed nevertheless; an `issue` that failed left nothing to deploy.
    #[must_use]
    pub fn sweeps_after_failure(self) -> bool {
        self == Deed::Renew
    }
}

/// A certbot to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertbotCall {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl CertbotCall {
    /// The call for this deed, with `more` arguments of the operator's at its end.
    ///
    /// # Errors
    /// There is no certbot, or certbot's tree can't be one that it works on.
    pub fn new(
        settings: &Settings,
        system: &System,
        deed: Deed<'_>,
        more: &[OsString],
    ) -> Result<Self, Failure> {
        let name = &settings.certbot.binary;
        let program = system.program(name).ok_or_else(|| {
            Failure::config(format!(
                "there is no program {} here; install certbot, or set binary in [certbot] to its path",
                escaped(name)
            ))
        })?;
        Ok(Self { program, arguments: arguments(settings, deed, more)? })
    }

    /// Runs it to its end on the caller's own terminal, since it may ask questions.
    ///
    /// It gets the caller's environment, other than what a sweep runs: whoever types `issue` would have typed `certbot`
    /// the same way, and it may need proxies, `REQUESTS_CA_BUNDLE` or a DNS plugin's credentials from there.
    ///
    /// # Errors
    /// It can't be started.
    pub fn run(&self) -> Result<ExitStatus, Failure> {
        let started = Command::new(&self.program).args(&self.arguments).status();
        started.map_err(|e: io::Error| Failure::io("run", &self.program, &e))
    }
}

impl std::fmt::Display for CertbotCall {
    /// As a shell would take it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        escaped_path(&self.program).fmt(f)?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {}", shell_word(argument)))
    }
}

/// The exit status that passes certbot's on: its own, or as a shell tells a signal's.
#[must_use]
pub fn passed_on(status: ExitStatus) -> u8 {
    let signal = || status.signal().map(|signal| signal.saturating_add(128));
    status.code().or_else(signal).and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// certbot's configuration directory for these settings; `None`: `live_dir` isn't a directory of certbot's own.
#[must_use]
pub fn certbot_dir(settings: &Settings) -> Option<&Path> {
    settings.live_dir.parent().filter(|_| settings.live_dir.file_name() == Some(OsStr::new("live")))
}

fn arguments(settings: &Settings, deed: Deed<'_>, more: &[OsString]) -> Result<Vec<OsString>, Failure> {
    let mut all: Vec<OsString> = Vec::new();
    match deed {
        Deed::Issue(_) => {
            let port = settings.certbot.http_01_port.to_string();
            let standalone =
                ["certonly", "--standalone", "--preferred-challenges", "http", "--http-01-port", &port];
            all.extend(standalone.map(OsString::from));
        }
        // No authenticator and no [certbot] args: every lineage keeps its own.
        Deed::Renew => all.push("renew".into()),
    }
    match certbot_dir(settings) {
        Some(folder) if folder == Path::new(CERTBOT_DIR) => {}
        Some(folder) => all.extend(["--config-dir".into(), folder.into()]),
        None => {
            let fact = format!(
                "live_dir {} is not named \"live\": certbot can't write there; run it where its tree comes from",
                escaped_path(&settings.live_dir)
            );
            return Err(Failure::new(FailureKind::Config, fact));
        }
    }
    if let Deed::Issue(names) = deed {
        all.extend(names.iter().flat_map(|name| ["-d".into(), name.into()]));
        all.extend(settings.certbot.args.iter().map(OsString::from));
    }
    all.extend(more.iter().cloned());
    Ok(all)
}

/// A word for a shell to read: as it is where it is harmless, in single quotes otherwise.
fn shell_word(word: &OsStr) -> String {
    let shown = escaped(word.as_encoded_bytes()).to_string();
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte);
    if !shown.is_empty() && shown.bytes().all(harmless) {
        return shown;
    }
    format!("'{}'", shown.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    fn settings(text: &str) -> Settings {
        Settings::parse(text, &Overrides::default()).unwrap()
    }

    fn line(text: &str, deed: Deed<'_>, more: &[&str]) -> String {
        let more: Vec<OsString> = more.iter().map(OsString::from).collect();
        let arguments = arguments(&settings(text), deed, &more).unwrap();
        CertbotCall { program: "certbot".into(), arguments }.to_string()
    }

    #[test]
    fn issue_names_everything_and_renew_nothing() {
        let names = ["a.test".to_owned(), "b.test".to_owned()];
        assert_eq!(
            line("[certbot]\nargs = [\"-n\"]", Deed::Issue(&names), &["--key-type", "rsa"]),
            "certbot certonly --standalone --preferred-challenges http --http-01-port 54321 -d a.test -d b.test -n \
             --key-type rsa"
        );
        assert_eq!(
            line("[certbot]\nargs = [\"-n\"]", Deed::Renew, &["--dry-run"]),
            "certbot renew --dry-run"
        );
    }

    #[test]
    fn another_tree_is_named_to_certbot() {
        let text = "live_dir = \"/srv/acme tree/live\"\n[certbot]\nhttp_01_port = 8888";
        assert_eq!(line(text, Deed::Renew, &[]), "certbot renew --config-dir '/srv/acme tree'");
        let elsewhere = settings("live_dir = \"/srv/certs\"");
        let refused = arguments(&elsewhere, Deed::Renew, &[]).unwrap_err();
        assert!(refused.message.contains("not named \"live\""), "{refused}");
    }

    #[test]
    fn no_hook_is_ever_passed() {
        let names = ["a.test".to_owned()];
        for deed in [Deed::Issue(&names), Deed::Renew] {
            assert!(!line("", deed, &[]).contains("hook"));
        }
    }

    #[test]
    fn words_are_quoted_for_the_shell_and_escaped_for_the_terminal() {
        for (word, shown) in [
            ("a-b_c.d", "a-b_c.d"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("\x1b", "'\\x1b'"),
        ] {
            assert_eq!(shell_word(OsStr::new(word)), shown);
        }
    }

    #[test]
    fn a_status_is_passed_on() {
        assert_eq!(passed_on(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(passed_on(ExitStatus::from_raw(9)), 137);
    }
}
