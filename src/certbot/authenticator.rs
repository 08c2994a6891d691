//! How certbot proves to the CA that the names are ours: which authenticator is named, and what it can do. Pure.
//!
//! certbot takes an authenticator by its name (`--authenticator NAME`) or by a word of its own (`--webroot`), on the command
//! line or in a `cli.ini`. A name replaces another name; a word beside another authenticator is refused
//! (`plugins/selection.py`, `cli_plugin_requests`; the same in 2.1 and 5.8).

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use super::cli_ini::{Setting, settings};
use super::options::{self, values};
use super::version::Version;

/// The one that answers on a port of its own, behind HAProxy.
pub const STANDALONE: &str = "standalone";

/// The authenticators that have a word of their own.
const WORDS: [&str; 18] = [
    "apache",
    "dns-cloudflare",
    "dns-digitalocean",
    "dns-dnsimple",
    "dns-dnsmadeeasy",
    "dns-gehirn",
    "dns-google",
    "dns-linode",
    "dns-luadns",
    "dns-nsone",
    "dns-ovh",
    "dns-rfc2136",
    "dns-route53",
    "dns-sakuracloud",
    "manual",
    "nginx",
    STANDALONE,
    "webroot",
];

/// The options that take an authenticator's name.
const OPTIONS: [&str; 2] = ["authenticator", "configurator"];

/// certbot's names of the option with which it asks nobody: `-n`.
pub const NOT_ASKED: [&str; 2] = ["non-interactive", "noninteractive"];

/// Those that answer over HTTP and can't do anything else.
const ONLY_HTTP: [&str; 4] = ["apache", "nginx", STANDALONE, "webroot"];

/// The first certbot with `--ip-address`, and the first whose webroot can do it.
pub const ADDRESSES_SINCE: Version = [5, 3, 0];
const ADDRESSES_BY_WEBROOT_SINCE: Version = [5, 4, 0];

/// A line of a `cli.ini` that names an authenticator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFile {
    /// The authenticator.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// Its line there.
    pub line: usize,
    /// Whether it is a word of its own, beside which certbot refuses every other authenticator.
    pub is_word: bool,
}

/// The authenticator that these arguments of certbot name: the last one counts.
#[must_use]
pub fn named_in(arguments: &[OsString]) -> Option<String> {
    let by_name = OPTIONS.iter().find_map(|option| values(arguments, &[option]).pop());
    by_name.or_else(|| word_in(arguments).map(str::to_owned))
}

/// The one that they name by a word of its own.
#[must_use]
pub fn word_in(arguments: &[OsString]) -> Option<&'static str> {
    let given = options::given(arguments);
    WORDS.into_iter().find(|word| given.iter().any(|it| it.name == *word))
}

/// These arguments without the authenticator that they name, however they do it, and without what fits only that: the
/// challenges; `asks`: and without that nobody is to be asked.
#[must_use]
pub fn without_any(arguments: &[OsString], asks: bool) -> Vec<OsString> {
    let has_value = |name: &str| OPTIONS.contains(&name) || name == "preferred-challenges";
    let is_out = |name: &str| has_value(name) || WORDS.contains(&name) || asks && NOT_ASKED.contains(&name);
    options::without(arguments, &is_out, &has_value)
}

/// The authenticator that these `cli.ini` files name, the weakest file first.
#[must_use]
pub fn named_in_files(files: &[(PathBuf, String)]) -> Option<InFile> {
    let of_setting = |file: &PathBuf, setting: Setting| {
        let word = WORDS.iter().find(|word| setting.switches_on(word));
        let name = match word {
            Some(word) => (*word).to_owned(),
            None if OPTIONS.contains(&setting.key.as_str()) => setting.value,
            None => return None,
        };
        Some(InFile { name, file: file.clone(), line: setting.line, is_word: word.is_some() })
    };
    let all = files.iter().flat_map(|(file, text)| {
        settings(text).into_iter().filter_map(move |setting| of_setting(file, setting))
    });
    all.last()
}

/// The names that these arguments ask a certificate for.
#[must_use]
pub fn domains_in(arguments: &[OsString]) -> Vec<String> {
    let found = values(arguments, &["domain", "domains", "ip-address"]);
    found.iter().flat_map(|names| names.split(',')).map(|name| name.trim().to_owned()).collect()
}

/// An address, rather than a name.
#[must_use]
pub fn as_address(name: &str) -> Option<IpAddr> {
    name.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// A name as certbot has it: in small letters and without a dot at the end (`util.py`, `enforce_domain_sanity`), an address in
/// its shortest form (`san.py`).
#[must_use]
pub fn as_certbot_has_it(name: &str) -> String {
    match as_address(name) {
        Some(address) => address.to_string(),
        None => name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase(),
    }
}

/// Why this authenticator can't prove this name to a CA; `None`: it can, or certbot has to say.
#[must_use]
pub fn cannot(authenticator: &str, name: &str, version: Option<Version>) -> Option<Unable> {
    if name.starts_with("*.") {
        return ONLY_HTTP.contains(&authenticator).then_some(Unable::Wildcard);
    }
    as_address(name)?;
    let since = if authenticator == "webroot" { ADDRESSES_BY_WEBROOT_SINCE } else { ADDRESSES_SINCE };
    match version {
        _ if authenticator.starts_with("dns-") => Some(Unable::AddressByDns),
        Some(version) if version < since => Some(Unable::Old { since, version }),
        _ => None,
    }
}

/// Why a name can't be proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unable {
    /// A wildcard is proved by DNS alone.
    Wildcard,
    /// An address isn't proved by DNS.
    AddressByDns,
    /// This certbot is too old for addresses.
    Old {
        /// The first that can.
        since: Version,
        /// What is here.
        version: Version,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn an_authenticator_is_found_however_it_is_named() {
        for (line, name) in [
            ("--webroot -w /var/www", Some("webroot")),
            ("-n --dns-cloudflare --dns-cloudflare-credentials /root/cf.ini", Some("dns-cloudflare")),
            ("--dns-cloudflare-credentials /root/cf.ini --webroot-path /x", None),
            ("-a dns-hetzner", Some("dns-hetzner")),
            ("-adns-hetzner", Some("dns-hetzner")),
            ("--authenticator=manual", Some("manual")),
            ("--authenticator webroot -a manual", Some("manual")),
            ("-na manual", Some("manual")),
            ("-vnamanual", Some("manual")),
            ("--configu manual", Some("manual")),
            ("--stan", Some("standalone")),
            ("--manual --preferred-challenges dns", Some("manual")),
            ("--key-type rsa --agree-tos", None),
            ("", None),
        ] {
            assert_eq!(named_in(&arguments(line)).as_deref(), name, "{line}");
        }
    }

    #[test]
    fn an_authenticator_in_a_file_has_a_line() {
        let named = |text: &str| {
            named_in_files(&[("/c".into(), text.to_owned())]).map(|it| (it.name, it.line, it.is_word))
        };
        let found = |name: &str, line, is_word| Some((name.to_owned(), line, is_word));
        assert_eq!(named("max-log-backups = 0\nauthenticator = dns-ovh\n"), found("dns-ovh", 2, false));
        assert_eq!(named("# webroot = true\nwebroot = True\nwebroot-path = /x"), found("webroot", 2, true));
        assert_eq!(named("webroot = false\ndns-ovh-credentials = /x\n"), None);
        let two = [("/a".into(), "standalone = true".into()), ("/b".into(), "authenticator = x".into())];
        assert_eq!(named_in_files(&two).unwrap().name, "x");
    }

    #[test]
    fn the_names_behind_the_dashes_are_found() {
        let found = domains_in(&arguments("-d a.test,*.b.test -n --domain c.test --domains=d.test -de.test"));
        assert_eq!(found, ["a.test", "*.b.test", "c.test", "d.test", "e.test"]);
    }

    #[test]
    fn names_are_compared_as_certbot_has_them() {
        for (typed, had) in [
            ("WWW.Example.ORG", "www.example.org"),
            ("*.Example.org.", "*.example.org"),
            ("192.0.2.7", "192.0.2.7"),
            ("[2001:DB8:0:0::1]", "2001:db8::1"),
        ] {
            assert_eq!(as_certbot_has_it(typed), had);
        }
    }

    #[test]
    fn what_an_authenticator_can_do_is_known_as_far_as_it_is() {
        let wild = |authenticator| cannot(authenticator, "*.a.test", None);
        for authenticator in ["standalone", "webroot", "nginx", "apache"] {
            assert_eq!(wild(authenticator), Some(Unable::Wildcard), "{authenticator}");
        }
        for authenticator in ["manual", "dns-ovh", "something-else"] {
            assert_eq!(wild(authenticator), None, "{authenticator}");
        }
        let address = |authenticator, version| cannot(authenticator, "192.0.2.7", Some(version));
        assert_eq!(address("standalone", [5, 3, 0]), None);
        let old = |since, version| Some(Unable::Old { since, version });
        assert_eq!(address("standalone", [4, 0, 0]), old([5, 3, 0], [4, 0, 0]));
        assert_eq!(address("webroot", [5, 3, 0]), old([5, 4, 0], [5, 3, 0]));
        assert_eq!(address("dns-ovh", [5, 8, 0]), Some(Unable::AddressByDns));
        assert_eq!(cannot("standalone", "2001:db8::1", Some([2, 1, 0])), old([5, 3, 0], [2, 1, 0]));
        assert_eq!(cannot("standalone", "a.test", Some([2, 1, 0])), None);
    }
}
