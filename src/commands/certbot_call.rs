//! `issue` and `renew`: certbot as the operator would call it, with the arguments that fit these settings.
//!
//! No hook is passed: certbot saves it in every renewal configuration, where it replaces the operator's own and outlives
//! this program. The sweep that follows does a hook's work.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::certbot::authenticator::{self, STANDALONE, Unable};
use crate::certbot::client::{CHAIN_FILE, KEY_FILE};
use crate::certbot::options::{self, values};
use crate::certbot::version::{self, Version};
use crate::certbot::{CERTBOT_DIR, certbot_dir};
use crate::certified_key::read_leaf;
use crate::config::Settings;
use crate::sys::escape::{escaped, escaped_path, haproxy_word, shell_word};
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::system::System;

/// Tells certbot to leave a certificate that is there and isn't due, rather than to ask.
const KEEP: &str = "--keep-until-expiring";

/// The authenticator that asks whoever is there.
const MANUAL: &str = "manual";

/// The variable that names the configuration file.
const VARIABLE: &str = "HAPROXY_CERTS_CONFIG";

/// What certbot is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed<'a> {
    /// Issue one certificate for these names.
    Issue(&'a [String]),
    /// Renew whatever is due.
    Renew,
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
            let why = system.missing(name);
            Failure::config(format!("{why}; install certbot, or set binary in [certbot] to its path"))
        })?;
        let around = match deed {
            Deed::Issue(names) => Around::look(settings, &program, names, more),
            Deed::Renew => Around::default(),
        };
        Ok(Self { program, arguments: arguments(settings, &around, deed, more)? })
    }

    /// The two calls for one name with both kinds of keys, ECDSA first: the second lineage is named after the first, with
    /// `-rsa` behind it. One that is there and isn't due stays, without a question: what was broken off is done by the same
    /// command.
    ///
    /// # Errors
    /// As [`CertbotCall::new`], where a kind of key is asked for besides, and where a certificate that is there would lose
    /// names.
    pub fn for_both_keys(
        settings: &Settings,
        system: &System,
        names: &[String],
        more: &[OsString],
    ) -> Result<[Self; 2], Failure> {
        let [ecdsa, rsa] = both_keys(settings, names, more)?;
        for own in [&ecdsa, &rsa] {
            must_lose_none(settings, names, more, own)?;
        }
        let call = |more: &[OsString]| Self::new(settings, system, Deed::Issue(names), more);
        Ok([call(&ecdsa)?, call(&rsa)?])
    }

    /// The lineage that it is told to write.
    #[must_use]
    pub fn lineage(&self) -> Option<String> {
        values(&self.arguments, &["cert-name"]).pop()
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

/// What `issue` depends on, besides the settings and what was typed.
#[derive(Debug, Clone, Default)]
struct Around {
    /// certbot's version, where it matters and can be had.
    version: Option<Version>,
    /// The `cli.ini` files that certbot reads, the weakest first.
    cli_ini: Vec<(PathBuf, String)>,
    /// Whether nobody is there to be asked.
    is_alone: bool,
    /// The command line as it was typed, the program first.
    typed: Vec<OsString>,
    /// The configuration that a variable names.
    variable: Option<OsString>,
}

impl Around {
    fn look(settings: &Settings, program: &Path, names: &[String], more: &[OsString]) -> Self {
        let home = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let personal = home("XDG_CONFIG_HOME").or_else(|| Some(home("HOME")?.join(".config")));
        // certbot reads the file of its default directory, whatever --config-dir says.
        let mut files = vec![Path::new(CERTBOT_DIR).join("cli.ini")];
        files.extend(personal.map(|folder| folder.join("letsencrypt/cli.ini")));
        let given = all_given(settings, more);
        files.extend(values(&given, &["config"]).into_iter().map(PathBuf::from));
        let read = |file: PathBuf| std::fs::read_to_string(&file).ok().map(|text| (file, text));
        let has_address = asked_for(names, &given).iter().any(|name| is_address(name));
        Self {
            version: if has_address { version::ask(program) } else { None },
            cli_ini: files.into_iter().filter_map(read).collect(),
            is_alone: !io::stdin().is_terminal(),
            typed: std::env::args_os().collect(),
            variable: std::env::var_os(VARIABLE).filter(|file| !file.is_empty()),
        }
    }
}

impl Around {
    /// What was typed, with another authenticator in the place of the one that it names. `more`: what is behind its dashes.
    fn mended(&self, names: &[String], more: &[OsString], behind: &[&str]) -> String {
        let dashes = self.typed.iter().position(|word| word == "--").unwrap_or(self.typed.len());
        let (head, rest) = self.typed.split_at(dashes);
        let mut line = Vec::new();
        // Whoever typed the variable before the command has to do so again.
        if let Some(file) = self.variable.as_ref().filter(|_| !head.iter().any(is_config)) {
            line.push(format!("{VARIABLE}={}", shell_word(file)));
        }
        let more = if head.is_empty() {
            line.extend(["haproxy-certs".to_owned(), "issue".to_owned()]);
            line.extend(names.iter().map(|name| format!("-d {}", shell_word(OsStr::new(name)))));
            more
        } else {
            line.extend(head.iter().map(|word| shell_word(word)));
            rest.get(1..).unwrap_or_default()
        };
        line.push("--".to_owned());
        let asks = behind.contains(&MANUAL);
        line.extend(authenticator::without_any(more, asks).iter().map(|word| shell_word(word)));
        line.extend(behind.iter().map(|word| (*word).to_owned()));
        line.join(" ")
    }

    /// What has to be done first for another authenticator: certbot refuses one beside a word of its own, in a `cli.ini` or
    /// among the arguments of the settings, and one that asks where it mustn't.
    fn first(&self, settings: &Settings, asks: bool) -> String {
        let mut first = String::new();
        if let Some(other) = authenticator::named_in_files(&self.cli_ini).filter(|other| other.is_word) {
            let (name, file) = (escaped(&other.name), escaped_path(&other.file));
            first = format!("; first write line {} of {file} as: authenticator = {name}", other.line);
        }
        let own = all_given(settings, &[]);
        let mut out: Vec<String> =
            authenticator::word_in(&own).map(|word| format!("--{word}")).into_iter().collect();
        let given = options::given(&own);
        let is_silent = given.iter().any(|it| authenticator::NOT_ASKED.contains(&&*it.name));
        out.extend((asks && is_silent).then(|| "-n".to_owned()));
        if out.is_empty() {
            first
        } else {
            format!("{first}; first take {} out of args in [certbot]", out.join(" and "))
        }
    }
}

/// Whether a word names the configuration file.
fn is_config(word: &OsString) -> bool {
    word.to_str().is_some_and(|word| word == "--config" || word.starts_with("--config="))
}

/// What the settings and the operator give to certbot, in this order.
fn all_given(settings: &Settings, more: &[OsString]) -> Vec<OsString> {
    settings.certbot.args.iter().map(OsString::from).chain(more.iter().cloned()).collect()
}

/// All the names that a certificate is asked for.
fn asked_for(names: &[String], given: &[OsString]) -> Vec<String> {
    names.iter().cloned().chain(authenticator::domains_in(given)).collect()
}

fn is_address(name: &str) -> bool {
    authenticator::as_address(name).is_some()
}

/// How the names are proved to the CA.
#[derive(Debug, PartialEq, Eq)]
struct Chosen {
    name: String,
    /// The arguments that name it to certbot: none where it is named already.
    arguments: Vec<OsString>,
}

/// One that is given beats that of the settings, which beats that of `cli.ini`; standalone, the default, gives way to all.
fn chosen(settings: &Settings, around: &Around, more: &[OsString]) -> Result<Chosen, Failure> {
    let in_file = authenticator::named_in_files(&around.cli_ini);
    let given = authenticator::named_in(more)
        .or_else(|| authenticator::named_in(&all_given(settings, &[])))
        .map(|name| Chosen { name, arguments: Vec::new() });
    if let Some(given) = given {
        return Ok(given);
    }
    let own = &settings.certbot.authenticator;
    let named = |arguments: Vec<OsString>| Ok(Chosen { name: own.clone(), arguments });
    match in_file {
        Some(other) if own == STANDALONE || *own == other.name => {
            Ok(Chosen { name: other.name, arguments: Vec::new() })
        }
        Some(other) if other.is_word => Err(Failure::config(format!(
            "certbot refuses a second authenticator beside that of {} line {}, {}; write it there as: authenticator = \
             {}, then [certbot] authenticator = \"{}\" is used",
            escaped_path(&other.file),
            other.line,
            escaped(&other.name),
            escaped(&other.name),
            escaped(own),
        ))),
        None if own == STANDALONE => named(vec!["--standalone".into()]),
        _ => named(vec!["--authenticator".into(), own.into()]),
    }
}

/// Refuses names that this authenticator can't prove.
fn must_be_able(
    settings: &Settings,
    authenticator: &str,
    names: &[String],
    more: &[OsString],
    around: &Around,
) -> Result<(), Failure> {
    let all = asked_for(names, &all_given(settings, more));
    let address = all.iter().find(|name| is_address(name));
    if let (Some(wild), Some(address)) = (all.iter().find(|name| name.starts_with("*.")), address) {
        return Err(Failure::config(format!(
            "no authenticator can prove both {} and {}: a CA accepts only the DNS challenge for a wildcard, and doesn't \
             accept it for an address; issue two certificates",
            escaped(wild),
            escaped(address)
        )));
    }
    let dotted = |[major, minor, _]: Version| format!("{major}.{minor}");
    for name in &all {
        let (shown, by) = (escaped(name), escaped(authenticator));
        let why = match authenticator::cannot(authenticator, name, around.version) {
            None => continue,
            Some(Unable::Wildcard) => format!(
                "certbot's authenticator {by} can't prove {shown}: a CA accepts only the DNS challenge for a wildcard. \
                 This works: {}; so does a DNS plugin of certbot, for example behind the dashes: --authenticator \
                 dns-rfc2136 --dns-rfc2136-credentials FILE{}",
                around.mended(names, more, &["--authenticator", MANUAL, "--preferred-challenges", "dns"]),
                around.first(settings, true),
            ),
            Some(Unable::AddressByDns) => format!(
                "certbot's authenticator {by} can't prove {shown}: a CA doesn't accept the DNS challenge for an \
                 address. This works: {}{}",
                around.mended(names, more, &["--authenticator", STANDALONE]),
                around.first(settings, false),
            ),
            Some(Unable::Old { since, version }) => format!(
                "this certbot is {}, and {by} can't prove the address {shown} before certbot {}; install a newer \
                 certbot, or set binary in [certbot] to one",
                dotted(version),
                dotted(since)
            ),
        };
        return Err(Failure::config(why));
    }
    Ok(())
}

/// What is given to certbot for each of the two kinds of keys; of an option that is given twice certbot takes the last one.
fn both_keys(
    settings: &Settings,
    names: &[String],
    more: &[OsString],
) -> Result<[Vec<OsString>; 2], Failure> {
    if !values(more, &["key-type"]).is_empty() {
        return Err(Failure::config("--both-keys asks for both kinds of keys; leave --key-type away"));
    }
    let lineage = lineage_of(names, &all_given(settings, more))
        .ok_or_else(|| Failure::config("no name is given for the certificates"))?;
    let with = |key_type: &str, lineage: String| {
        let own = ["--key-type", key_type, "--cert-name", lineage.as_str(), KEEP];
        more.iter().cloned().chain(own.map(OsString::from)).collect()
    };
    Ok([with("ecdsa", lineage.clone()), with("rsa", format!("{lineage}-rsa"))])
}

/// Refuses what would take names away from a certificate that nobody named: certbot is told its lineage, `own`, and without
/// a terminal it replaces its names without a question (`main.py`, `_ask_user_to_confirm_new_names`).
fn must_lose_none(
    settings: &Settings,
    names: &[String],
    more: &[OsString],
    own: &[OsString],
) -> Result<(), Failure> {
    let given = all_given(settings, more);
    if !values(&given, &["cert-name"]).is_empty() {
        return Ok(());
    }
    let Some(lineage) = lineage_of(names, own) else { return Ok(()) };
    let chain = settings.live_dir.join(&lineage).join(&settings.chain_file);
    let there = std::fs::read(chain).ok().and_then(|pem| read_leaf(&pem).ok());
    let asked: Vec<String> =
        asked_for(names, &given).iter().map(|name| authenticator::as_certbot_has_it(name)).collect();
    let names_there = there.map(|leaf| leaf.names).unwrap_or_default();
    let lost: Vec<String> = names_there
        .iter()
        .filter(|name| !asked.contains(&authenticator::as_certbot_has_it(name)))
        .map(|name| escaped(name).to_string())
        .collect();
    if lost.is_empty() {
        return Ok(());
    }
    let (lineage, lost) = (escaped(&lineage), lost.join(","));
    Err(Failure::config(format!(
        "certbot would take names away from the certificate {lineage} that is there: {lost}; ask for them, too: -d {lost}; or \
         name the certificate that is meant, behind the dashes: --cert-name {lineage}"
    )))
}

/// The lineage that certbot is to write: the one that is named, else the one that it names after the first name, addresses
/// behind the others (`san.py`, `join`).
fn lineage_of(names: &[String], given: &[OsString]) -> Option<String> {
    let after_the_first = || {
        let all = asked_for(names, given);
        let first = all.iter().find(|name| !is_address(name)).or_else(|| all.first())?;
        let name = authenticator::as_certbot_has_it(first);
        Some(name.strip_prefix("*.").unwrap_or(&name).to_owned())
    };
    values(given, &["cert-name"]).pop().or_else(after_the_first)
}

/// What to say of a certificate that was issued for an address; `None`: nothing.
///
/// Clients send no server name for an address, so HAProxy presents its default certificate to them.
#[must_use]
pub fn address_advice(settings: &Settings, names: &[String], more: &[OsString]) -> Option<String> {
    let given = all_given(settings, more);
    let names = asked_for(names, &given);
    let address = names.iter().find(|name| is_address(name))?;
    let lineage = lineage_of(&names, &given)?;
    if settings.host_lineage.as_ref() == Some(&lineage) {
        return None;
    }
    let file = settings.sites_dir.join(format!("{lineage}.pem"));
    let lineage = escaped(&lineage);
    Some(format!(
        "clients send no server name for {}: HAProxy presents this certificate to them only where it is the first one \
         of a bind; set host_lineage = \"{lineage}\", or begin the bind line with: ssl crt {}",
        escaped(address),
        haproxy_word(file.as_os_str().as_encoded_bytes())
    ))
}

fn arguments(
    settings: &Settings,
    around: &Around,
    deed: Deed<'_>,
    more: &[OsString],
) -> Result<Vec<OsString>, Failure> {
    let mut all: Vec<OsString> = Vec::new();
    match deed {
        Deed::Issue(names) => {
            let by = chosen(settings, around, more)?;
            let given = all_given(settings, more);
            must_be_able(settings, &by.name, names, more, around)?;
            all.push("certonly".into());
            all.extend(by.arguments);
            if by.name == STANDALONE {
                // certbot adds up the challenges of several --preferred-challenges.
                if values(&given, &["preferred-challenges"]).is_empty() {
                    all.extend(["--preferred-challenges", "http"].map(OsString::from));
                }
                all.extend(["--http-01-port".into(), settings.certbot.http_01_port.to_string().into()]);
            }
        }
        // No authenticator and no [certbot] args: every lineage keeps its own.
        Deed::Renew => all.push("renew".into()),
    }
    match certbot_dir(settings) {
        _ if settings.key_file != KEY_FILE || settings.chain_file != CHAIN_FILE => {
            return Err(Failure::config(format!(
                "key_file and chain_file are {} and {}: certbot would write {KEY_FILE} and {CHAIN_FILE}; issue it with the \
                 client that lays these down",
                escaped(&settings.key_file),
                escaped(&settings.chain_file)
            )));
        }
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
        // certbot asks whether to keep one that is there, and without a terminal ends at the question (`main.py`,
        // `_handle_identical_cert_request`).
        if around.is_alone && !more.iter().any(|word| *word == KEEP) {
            all.push(KEEP.into());
        }
        let said = |name: &String| match authenticator::as_address(name) {
            Some(address) => ["--ip-address".into(), address.to_string().into()],
            None => ["-d".into(), OsString::from(name)],
        };
        all.extend(names.iter().flat_map(said));
        all.extend(settings.certbot.args.iter().map(OsString::from));
    }
    all.extend(more.iter().cloned());
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    fn settings(text: &str) -> Settings {
        Settings::parse(text, &Overrides::default()).unwrap()
    }

    fn words(line: &[&str]) -> Vec<OsString> {
        line.iter().map(OsString::from).collect()
    }

    fn line(text: &str, deed: Deed<'_>, more: &[&str]) -> String {
        let arguments = arguments(&settings(text), &Around::default(), deed, &words(more)).unwrap();
        CertbotCall { program: "certbot".into(), arguments }.to_string()
    }

    fn with_cli_ini(cli_ini: &str) -> Around {
        Around { cli_ini: vec![("/etc/letsencrypt/cli.ini".into(), cli_ini.to_owned())], ..Around::default() }
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

    /// Two authenticators are what certbot refuses: ours goes where another one is named.
    #[test]
    fn another_authenticator_replaces_ours() {
        let names = ["a.test".to_owned()];
        let standalone = "--standalone --preferred-challenges http --http-01-port 54321 ";
        let dns = "[certbot]\nauthenticator = \"dns-x\"";
        let in_args = "[certbot]\nargs = [\"--nginx\"]";
        for (text, cli_ini, more, called) in [
            ("", "", "", format!("{standalone}-d a.test")),
            ("", "", "--webroot -w /x", "-d a.test --webroot -w /x".into()),
            ("", "", "-a dns-x", "-d a.test -a dns-x".into()),
            (
                "",
                "",
                "--standalone",
                "--preferred-challenges http --http-01-port 54321 -d a.test --standalone".into(),
            ),
            (
                "",
                "",
                "--preferred-challenges http-01",
                "--standalone --http-01-port 54321 -d a.test --preferred-challenges http-01".into(),
            ),
            ("", "authenticator = webroot\n", "", "-d a.test".into()),
            ("", "dns-ovh = true\n", "", "-d a.test".into()),
            ("", "max-log-backups = 0\n", "", format!("{standalone}-d a.test")),
            (dns, "", "", "--authenticator dns-x -d a.test".into()),
            (dns, "authenticator = webroot\n", "", "--authenticator dns-x -d a.test".into()),
            (dns, "", "--manual", "-d a.test --manual".into()),
            (
                "",
                "standalone = true\n",
                "",
                "--preferred-challenges http --http-01-port 54321 -d a.test".into(),
            ),
            (in_args, "", "", "-d a.test --nginx".into()),
        ] {
            let more: Vec<OsString> = more.split_whitespace().map(OsString::from).collect();
            let arguments =
                arguments(&settings(text), &with_cli_ini(cli_ini), Deed::Issue(&names), &more).unwrap();
            let call = CertbotCall { program: "certbot".into(), arguments }.to_string();
            assert_eq!(call, format!("certbot certonly {called}"), "{text} {cli_ini} {more:?}");
        }
        let refused =
            arguments(&settings(dns), &with_cli_ini("\nwebroot = true\n"), Deed::Issue(&names), &[])
                .unwrap_err();
        assert!(refused.message.contains("/etc/letsencrypt/cli.ini line 2, webroot"), "{refused}");
        // Each lineage keeps its own.
        assert_eq!(line(dns, Deed::Renew, &[]), "certbot renew");
    }

    #[test]
    fn two_calls_for_both_keys() {
        let calls = |text: &str, more: &[&str]| {
            let names = ["*.a.test".to_owned(), "a.test".to_owned()];
            both_keys(&settings(text), &names, &words(more)).map(|both| both.map(|it| it.join(" ".as_ref())))
        };
        let expected = ["ecdsa --cert-name a.test", "rsa --cert-name a.test-rsa"]
            .map(|it| OsString::from(format!("-n --key-type {it} {KEEP}")));
        assert_eq!(calls("", &["-n"]).unwrap(), expected);
        let named = calls("[certbot]\nargs = [\"--key-type\", \"rsa\"]", &["--cert-name", "x"]).unwrap();
        assert!(
            named[1] == "--cert-name x --key-type rsa --cert-name x-rsa --keep-until-expiring",
            "{named:?}"
        );
        assert!(calls("", &["--key-type=rsa"]).is_err());
    }

    #[test]
    fn a_name_that_cannot_be_proved_is_refused_with_what_works() {
        let refusal = |names: &[&str], version, more: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            let around = Around { version, ..Around::default() };
            let refused = arguments(&settings(""), &around, Deed::Issue(&names), &words(more));
            refused.err().map(|failure| failure.message).unwrap_or_default()
        };
        let wild = ["a.test", "*.a.test"];
        assert!(
            refusal(&wild, None, &[]).contains(
                "standalone can't prove *.a.test: a CA accepts only the DNS challenge for a wildcard. This works: \
                 haproxy-certs issue -d a.test -d '*.a.test' -- --authenticator manual --preferred-challenges dns; so"
            )
        );
        // The call as it was typed, with everything but what stood in the way.
        let typed = |line: &str| -> Around {
            Around {
                typed: line.split(' ').map(|word| word.replace('_', " ").into()).collect(),
                ..Around::default()
            }
        };
        let mended = |line: &str, settings: &Settings, around: Around| {
            let line: Vec<String> = line.split(' ').map(|word| word.replace('_', " ")).collect();
            let dashes = line.iter().position(|word| word == "--").map_or(line.len(), |at| at + 1);
            let names = ["*.a.test".to_owned(), "a.test".to_owned()];
            let more: Vec<OsString> = line[dashes..].iter().map(OsString::from).collect();
            let refused = arguments(settings, &around, Deed::Issue(&names), &more).unwrap_err();
            refused.message.split_once("This works: ").unwrap().1.to_owned()
        };
        for (line, works) in [
            (
                "haproxy-certs --config /e/c.toml issue --both-keys -d *.a.test,a.test",
                "haproxy-certs --config /e/c.toml issue --both-keys -d '*.a.test,a.test' -- --authenticator manual",
            ),
            (
                "/x_y/haproxy-certs issue -d *.a.test -da.test -- --staging -nva webroot -w /w_w --cert-name it's",
                "'/x y/haproxy-certs' issue -d '*.a.test' -da.test -- --staging -v -w '/w w' --cert-name 'it'\\''s' \
                 --authenticator manual",
            ),
            (
                "haproxy-certs issue -d *.a.test -d a.test -- --webroot --preferred-challenges http --key-type rsa",
                "haproxy-certs issue -d '*.a.test' -d a.test -- --key-type rsa --authenticator manual",
            ),
        ] {
            let found = mended(line, &settings(""), typed(line));
            assert!(found.starts_with(&format!("{works} --preferred-challenges dns; so does")), "{found}");
        }
        let line = "haproxy-certs issue -d *.a.test -d a.test";
        let by_variable = Around { variable: Some("/e/c d".into()), ..typed(line) };
        let found = mended(line, &settings(""), by_variable);
        assert!(found.starts_with("HAPROXY_CERTS_CONFIG='/e/c d' haproxy-certs issue "), "{found}");
        let found = mended(line, &settings("[certbot]\nargs = [\"--webroot\", \"-nq\"]"), typed(line));
        assert!(found.ends_with("; first take --webroot and -n out of args in [certbot]"), "{found}");
        assert!(
            refusal(&["*.a.test", "192.0.2.7"], None, &["-a", "dns-x"]).contains("issue two certificates")
        );
        // Beside a word in a file certbot takes no other authenticator.
        let with_word = with_cli_ini("webroot = true");
        let names = ["*.a.test".to_owned()];
        let refused = arguments(&settings(""), &with_word, Deed::Issue(&names), &[]).unwrap_err();
        assert!(
            refused
                .message
                .ends_with("; first write line 1 of /etc/letsencrypt/cli.ini as: authenticator = webroot"),
            "{refused}"
        );
        assert!(refusal(&["a.test"], None, &["-d", "*.b.test"]).contains("can't prove *.b.test"));
        assert!(refusal(&wild, None, &["--webroot"]).contains("authenticator webroot can't prove"));
        assert_eq!(refusal(&wild, None, &["--dns-rfc2136"]), "");
        assert_eq!(refusal(&wild, None, &["--manual"]), "");
        let address = ["192.0.2.7"];
        assert!(
            refusal(&address, Some([2, 1, 0]), &[]).contains("certbot is 2.1, and standalone can't prove")
        );
        assert_eq!(refusal(&address, Some([5, 3, 0]), &[]), "");
        assert!(refusal(&address, Some([5, 3, 0]), &["--webroot"]).contains("before certbot 5.4"));
        assert!(
            refusal(&address, Some([5, 8, 0]), &["-a", "dns-x"]).contains("DNS challenge for an address")
        );
    }

    #[test]
    fn an_address_has_an_option_of_its_own_and_needs_the_first_place() {
        let names = ["192.0.2.7".to_owned(), "a.test".to_owned(), "2001:db8::1".to_owned()];
        assert!(
            line("", Deed::Issue(&names), &[])
                .ends_with(" --ip-address 192.0.2.7 -d a.test --ip-address 2001:db8::1")
        );
        let advice = |text: &str, names: &[String], more: &[&str]| {
            address_advice(&settings(text), names, &words(more)).unwrap_or_default()
        };
        let alone = &names[..1];
        assert!(
            advice("", alone, &[]).contains("set host_lineage = \"192.0.2.7\", or begin the bind line with")
        );
        // certbot names the lineage after the first name that is no address.
        assert!(advice("", &names, &[]).contains("set host_lineage = \"a.test\""));
        assert!(advice("", &names[1..], &["--cert-name", "edge"]).contains("/sites/edge.pem"));
        assert_eq!(advice("host_lineage = \"a.test\"", &names, &[]), "");
        assert_eq!(advice("host_lineage = \"192.0.2.7\"", alone, &[]), "");
        assert_eq!(advice("", &names[1..2], &[]), "");
    }

    #[test]
    fn without_a_terminal_certbot_asks_nothing_about_what_is_there() {
        let alone = Around { is_alone: true, ..Around::default() };
        for (more, times) in [(&[][..], 1), (&[KEEP], 1), (&["--force-renewal"], 1)] {
            let all =
                arguments(&settings(""), &alone, Deed::Issue(&["a.test".into()]), &words(more)).unwrap();
            assert_eq!(all.iter().filter(|word| **word == KEEP).count(), times, "{all:?}");
        }
    }

    #[test]
    fn another_clients_names_are_not_written_by_certbot() {
        for (deed, text) in [
            (Deed::Renew, "key_file = \"key.pem\""),
            (Deed::Issue(&["a.test".to_owned()]), "chain_file = \"a.cer\""),
        ] {
            let refused = arguments(&settings(text), &Around::default(), deed, &[]).unwrap_err();
            assert!(
                refused.message.contains("certbot would write privkey.pem and fullchain.pem"),
                "{refused}"
            );
        }
    }

    #[test]
    fn another_tree_is_named_to_certbot() {
        let text = "live_dir = \"/srv/acme tree/live\"\n[certbot]\nhttp_01_port = 8888";
        assert_eq!(line(text, Deed::Renew, &[]), "certbot renew --config-dir '/srv/acme tree'");
        let elsewhere = settings("live_dir = \"/srv/certs\"");
        let refused = arguments(&elsewhere, &Around::default(), Deed::Renew, &[]).unwrap_err();
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
            ("\x1b", "\"$(printf '\\033')\""),
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
