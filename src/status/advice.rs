//! What to do about each problem, in one line. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::path::Path;

use crate::certbot::{CERTBOT_DIR, certbot_dir};
use crate::config::Settings;
use crate::plan::client::Client;
use crate::sys::escape::shell_word;

/// A run does what is missing.
pub const ASSEMBLE: &str = "run: haproxy-certs assemble";

/// The same where nothing is deployed.
pub const PUBLISH: &str = "run: haproxy-certs fleet publish";

/// The same where many lineages are gone.
pub const PUBLISH_MANY: &str = "if they are really gone: haproxy-certs fleet publish --prune-many";

/// No lineage is left.
pub const BRING_BACK: &str = "bring the lineages back, or set live_dir to where they are";

/// The sites directory or the host certificate is gone.
pub const INIT: &str = "run: haproxy-certs init";

/// The sites directory is empty.
pub const EMPTY: &str =
    "deploy a certificate; or see how HAProxy starts without one: haproxy-certs status --setup";

/// HAProxy has the only copy that serves anybody.
pub const KEEP: &str = "mend the lineage first: a reload now would lose what HAProxy has";

/// A file takes the place of one that isn't ours.
pub const ADOPT: &str = "run: haproxy-certs assemble --adopt";

/// HAProxy doesn't load the file although it was reloaded.
pub const NOT_LOADED: &str = "see what it loads: haproxy-certs status --setup";

/// Another certificate wins the name although it was reloaded.
pub const PRESENTS_ANOTHER: &str = "another `crt` of that bind or another listener has the name";

/// Nothing newer is there; NAME stands for the lineage's.
#[must_use]
pub fn renew(client: Client) -> String {
    match client {
        Client::Certbot => {
            "run: certbot renew --cert-name NAME; its log says why it has not renewed".to_owned()
        }
        Client::Another => format!("renew it{}; what it says tells why it has not", client.by("")),
        Client::Publisher => format!("renew it{}", client.by("")),
    }
}

/// What `init` puts in the host certificate's place.
pub const PLACEHOLDER: &str =
    "the placeholder of haproxy-certs init, so that HAProxy can start; set host_lineage to replace it";

/// Nothing runs after a renewal.
#[must_use]
pub fn hook(client: Client) -> String {
    match client {
        Client::Certbot => {
            "run: haproxy-certs assemble; then: haproxy-certs init --hook; see also: haproxy-certs status --setup"
        }
        _ => "run: haproxy-certs assemble; then let whatever renews them do so each time, or the timer: systemctl enable --now haproxy-certs.timer",
    }
    .to_owned()
}

/// The same where nothing is deployed: what a run does there is to publish.
#[must_use]
pub fn by_publishing(advice: &str) -> String {
    let advice = advice.replace("haproxy-certs assemble", "haproxy-certs fleet publish");
    advice.replace("haproxy-certs.timer", "haproxy-certs-publish.timer")
}

/// A time as a day: `2027-02-21`.
#[must_use]
pub fn day(at: i64) -> Option<String> {
    let date = time::OffsetDateTime::from_unix_timestamp(at).ok()?.date();
    Some(format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day()))
}

/// How a command begins.
const PROGRAMS: [&str; 17] = [
    "haproxy-certs",
    "certbot",
    "haproxy",
    "systemctl",
    "kill",
    "chmod",
    "chown",
    "chgrp",
    "sed",
    "rm",
    "mv",
    "ss",
    "ln",
    "mkdir",
    "openssl",
    "journalctl",
    "printf",
];

/// The parts of an advice: plain words, and whole commands, which are there to be pasted.
///
/// A command stands behind a colon and goes on to the next semicolon that isn't quoted.
#[must_use]
pub fn parts(advice: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = advice;
    while let Some(start) = command_in(rest) {
        let (words, from) = rest.split_at(start);
        let end = unquoted_semicolon(from).unwrap_or(from.len());
        let (command, behind) = from.split_at(end);
        parts.extend([Part::Words(words), Part::Command(command.trim_end())]);
        rest = behind;
    }
    parts.push(Part::Words(rest));
    parts.retain(|part| !matches!(part, Part::Words("")));
    parts
}

/// A part of an advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// Words for people.
    Words(&'a str),
    /// A command for a shell.
    Command(&'a str),
}

/// The commands of an advice.
#[must_use]
pub fn commands(advice: &str) -> Vec<&str> {
    let command = |part| if let Part::Command(command) = part { Some(command) } else { None };
    parts(advice).into_iter().filter_map(command).collect()
}

/// The options with which the commands of an advice act on the same settings as this one did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// For our own: `--config FILE`.
    pub ours: String,
    /// For certbot's: `--config-dir DIR`.
    pub certbots: String,
    /// Whether this host publishes: what is to be done on the publisher is to be done here.
    pub publishes: bool,
}

impl Given {
    /// Those of these settings.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let certbots = match certbot_dir(settings) {
            Some(folder) if folder != Path::new(CERTBOT_DIR) => {
                format!("--config-dir {}", shell_word(folder.as_os_str()))
            }
            _ => String::new(),
        };
        Self { ours: settings.given.clone(), certbots, publishes: settings.published().is_some() }
    }

    /// Whether the clause that ends here is about another host, whose settings are elsewhere.
    fn is_elsewhere(&self, before: &str) -> bool {
        const ON_PUBLISHER: [&str; 3] = ["on the publisher", "on the first", "there, run"];
        let clause = before.rsplit(';').next().unwrap_or_default();
        clause.contains("on that node")
            || !self.publishes && ON_PUBLISHER.iter().any(|words| clause.contains(words))
    }

    /// The advice, or a line that is a command, with these options in its commands.
    #[must_use]
    pub fn put_into(&self, advice: &str) -> String {
        let mut text = String::with_capacity(advice.len());
        let mut rest = advice;
        loop {
            if let Some(behind) = rest
                .strip_prefix("haproxy-certs ")
                .filter(|_| !self.ours.is_empty() && !self.is_elsewhere(&text))
            {
                text.push_str("haproxy-certs ");
                text.push_str(&self.ours);
                text.push(' ');
                rest = behind;
            } else if let Some(behind) = rest.strip_prefix("certbot ")
                && !self.certbots.is_empty()
                && ["renew", "certonly", "delete"].iter().any(|verb| behind.starts_with(verb))
                && !behind.split(';').next().unwrap_or_default().contains("--config-dir")
            {
                let verb = behind.find([' ', ';']).unwrap_or(behind.len());
                let (verb, behind) = behind.split_at(verb);
                text.push_str("certbot ");
                text.push_str(verb);
                text.push(' ');
                text.push_str(&self.certbots);
                rest = behind;
            }
            let next =
                [": ", "&& ", "-> "].into_iter().filter_map(|mark| Some(rest.find(mark)? + mark.len())).min();
            let Some(next) = next else { break };
            let (before, behind) = rest.split_at(next);
            text.push_str(before);
            rest = behind;
        }
        text.push_str(rest);
        text
    }
}

/// Where the first command begins.
fn command_in(text: &str) -> Option<usize> {
    let after_colons = text.match_indices(": ").map(|(at, colon)| at + colon.len());
    after_colons.into_iter().find(|&at| {
        let word = text.get(at..).unwrap_or_default().split([' ', ';']).next().unwrap_or_default();
        word.starts_with('/') || PROGRAMS.contains(&word)
    })
}

/// Where a command ends, as a shell reads it.
fn unquoted_semicolon(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (quote, letter) {
            (None, ';') => return Some(at),
            (None, '\'' | '"') => quote = Some(letter),
            (None | Some('"'), '\\') => {
                letters.next();
            }
            (Some(open), _) if open == letter => quote = None,
            _ => {}
        }
    }
    None
}

/// A number of seconds for people: `89 days`, `40 hours`, `5 minutes`.
#[must_use]
pub fn span(seconds: i64) -> String {
    let (count, unit) = match seconds {
        172_800.. => (seconds / 86_400, "day"),
        7_200.. => (seconds / 3_600, "hour"),
        120.. => (seconds / 60, "minute"),
        _ => (seconds, "second"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::{Given, commands, span};
    use crate::fleet::trouble::FleetTrouble;

    #[test]
    fn commands_are_whole_and_end_where_a_shell_ends_them() {
        let advice = "mend line 2 of a.cfg; check it with: haproxy -c -f '/a; b.cfg'; then run: haproxy-certs assemble";
        assert_eq!(commands(advice), ["haproxy -c -f '/a; b.cfg'", "haproxy-certs assemble"]);
        assert_eq!(commands("run: certbot renew; its log says why"), ["certbot renew"]);
        assert_eq!(commands("wait: it begins soon"), Vec::<&str>::new());
        let quoted = "run: kill -USR2 \"$(cat '/run/it'\\''s; x')\"; then: rm x";
        assert_eq!(commands(quoted), ["kill -USR2 \"$(cat '/run/it'\\''s; x')\"", "rm x"]);
    }

    #[test]
    fn commands_act_on_the_same_settings() {
        let given = Given {
            ours: "--config /a.toml".into(),
            certbots: "--config-dir /le".into(),
            ..Given::default()
        };
        for (advice, expected) in [
            ("run: haproxy-certs assemble", "run: haproxy-certs --config /a.toml assemble"),
            ("haproxy-certs init --hook", "haproxy-certs --config /a.toml init --hook"),
            (
                "mv: mv a b && haproxy-certs assemble; then renew it: certbot renew --cert-name x; it is haproxy-certs'",
                "mv: mv a b && haproxy-certs --config /a.toml assemble; then renew it: certbot renew --config-dir /le \
                 --cert-name x; it is haproxy-certs'",
            ),
            ("run: certbot renew --config-dir /x -q", "run: certbot renew --config-dir /x -q"),
        ] {
            assert_eq!(given.put_into(advice), expected);
            assert_eq!(Given::default().put_into(advice), advice);
        }
    }

    #[test]
    fn commands_on_another_host_have_its_own_settings() {
        let node = Given { ours: "--config /a.toml".into(), ..Given::default() };
        let publisher = Given { publishes: true, ..node.clone() };
        for trouble in <FleetTrouble as strum::VariantArray>::VARIANTS {
            let advice = trouble.advice();
            let is_for_publisher =
                advice.contains("fleet publish") || advice.contains("on the publisher, run");
            let is_for_node = advice.contains("on that node");
            let has = |given: &Given| given.put_into(advice).contains("/a.toml");
            assert!(!has(&node) || !(is_for_publisher || is_for_node), "{}", node.put_into(advice));
            assert!(!has(&publisher) || !is_for_node, "{}", publisher.put_into(advice));
            assert!(has(&publisher) || !is_for_publisher, "{}", publisher.put_into(advice));
        }
        let both = "on the publisher, run: haproxy-certs fleet publish; or here: haproxy-certs assemble";
        assert_eq!(node.put_into(both).matches("/a.toml").count(), 1);
    }

    #[test]
    fn spans_are_short() {
        for (seconds, text) in [
            (1, "1 second"),
            (119, "119 seconds"),
            (7_199, "119 minutes"),
            (172_799, "47 hours"),
            (7_776_000, "90 days"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
