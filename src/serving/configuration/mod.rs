//! The lines of haproxy.cfg that load certificates, as HAProxy reads them.
//!
//! Every line is cut into words and looked at for what matters here; what could change the answer and isn't understood makes the
//! whole [unclear](Configuration::unclear): a condition that can't be told, an unknown keyword on a bind line with
//! certificates, a variable that nobody knows.

mod bind;
mod default_path;
mod file_names;
mod read_at_start;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use self::bind::{BindLine, Door, Keyword};
use self::bind::{WITH_ARGUMENT, WITHOUT_ARGUMENT};
use self::default_path::{Beginning, DefaultPath, joined};
pub use self::file_names::FileNames;
use self::read_at_start::BEFORE_READ;
use super::condition::Conditionals;
pub use super::words::Environment;
use super::words::{Words, words};
use crate::serving::beside::EXTRAS;
use crate::serving::loads::At;

/// What the lines of a configuration say about certificates.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a word of its own")]
pub struct Configuration {
    /// The bind lines that load certificates.
    pub binds: Vec<BindLine>,
    /// What the lines name, whatever for.
    pub names: FileNames,
    /// The certificates that `crt-store` sections define (3.0 and later), by their name.
    pub defined: BTreeMap<String, Defined>,
    /// Certificates that are loaded for something else than a bind: for servers, say. HAProxy doesn't start without them
    /// either.
    pub others: Vec<(String, At)>,
    /// What lines read certificates from for something else than to present them: clients' authorities, issuers.
    pub readers: Vec<(String, At)>,
    /// The paths that lines name and that may be read at a start, but those of certificates.
    pub read_at_start: BTreeSet<String>,
    /// Whether HAProxy fetches OCSP responses, for some of its certificates at least.
    pub fetches_ocsp: bool,
    /// `ca-base` of the global section.
    pub ca_base: Option<String>,
    /// `crt-base` of the global section.
    pub crt_base: Option<String>,
    /// `key-base` of the global section (3.0 and later).
    pub key_base: Option<String>,
    /// Whether the key may be in a file beside the certificate's (`ssl-load-extra-files`).
    pub no_key_files: bool,
    /// Whether files `X.rsa` and `X.ecdsa` are no bundle (`ssl-load-extra-files`).
    pub no_bundles: bool,
    /// Whether `X.crt` has its key in `X.key` (`ssl-load-extra-del-ext`, 2.4 and later).
    pub without_ending: bool,
    /// Why this isn't all, or not surely.
    pub unclear: Option<String>,
    /// The lines of which HAProxy may read something else than we do.
    pub unknown: Vec<UnknownLine>,
    /// The files that were read.
    pub files: Vec<String>,
    /// Every bind line of a frontend, with or without certificates.
    pub doors: Vec<Door>,
    /// The sections with a line that names the path of the ACME challenge.
    pub acme_sections: BTreeSet<String>,
    /// The addresses of the `server` lines.
    pub servers: Vec<String>,
    /// The stats sockets at level admin.
    pub admin_sockets: Vec<String>,
    /// `pidfile` of the global section.
    pub pidfile: Option<String>,
    environment: Environment,
    default_path: DefaultPath,
    /// Where the relative names of what is loaded begin, once there is one.
    beginning: Option<Beginning>,
    strict_sni: bool,
    section: Section,
    disabled: Disabled,
    blocks: Conditionals,
    /// What `ssl-f-use` lines load for a section's binds.
    used_by: BTreeMap<String, Vec<(String, At)>>,
}

/// A line that holds a variable whose value isn't known, or a condition that isn't.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownLine {
    /// Where it is.
    pub at: At,
    /// Whether other lines mean something else by it.
    pub leads: bool,
}

/// A `load` line of a `crt-store`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defined {
    /// The certificate's file.
    pub crt: String,
    /// The key's, where it is another one.
    pub key: Option<String>,
    /// What else the line has HAProxy load with it: `sctl FILE`.
    pub extra: Option<String>,
    /// The line.
    pub at: At,
    /// Whether there are words that change what is loaded in ways that aren't followed here.
    pub is_special: bool,
}

/// Which sections are `disabled`: `enabled` takes that back, and the last word counts (measured, 2.2 to 3.4).
#[derive(Debug, Clone, Default)]
struct Disabled {
    /// Whether the section is that is being read.
    is_this: bool,
    /// How many binds and doors there were before it.
    before: (usize, usize),
    /// The `defaults` that are, by their names, and whether the last ones are, which count where no others are named.
    defaults: BTreeMap<String, bool>,
    last_defaults: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Section {
    #[default]
    None,
    Global,
    Store {
        name: String,
        crt_base: Option<String>,
        key_base: Option<String>,
    },
    Other(String),
}

/// What HAProxy calls the section of its stats sockets, which may speak TLS.
const STATS: &str = "frontend GLOBAL";

/// The first words of sections (2.2 to 3.5-dev).
const SECTIONS: [&str; 25] = [
    "acme",
    "backend",
    "cache",
    "crt-store",
    "defaults",
    "dynamic-update",
    "fcgi-app",
    "frontend",
    "global",
    "healthcheck",
    "http-errors",
    "listen",
    "log-forward",
    "log-profile",
    "mailers",
    "namespace_list",
    "peers",
    "program",
    "resolvers",
    "ring",
    "shards",
    "traces",
    "udp-forward",
    "userlist",
    "haload",
];

/// Whether other names begin with what stands behind this word.
fn is_beginning(word: &str) -> bool {
    ["default-path", "crt-base", "ca-base", "key-base"].contains(&word)
}

impl Configuration {
    /// Nothing yet, to be read in this environment.
    #[must_use]
    pub fn new(environment: Environment) -> Self {
        Self { environment, ..Self::default() }
    }

    /// Adds the lines of one file.
    pub fn read(&mut self, file: &str, text: &[u8]) {
        self.files.push(file.to_owned());
        self.leave();
        self.section = Section::None;
        self.blocks = Conditionals::default();
        let file: Arc<str> = file.into();
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let at = At { file: Arc::clone(&file), line: index + 1 };
            match words(line, &self.environment) {
                Ok(found) => self.line(&found, &at),
                Err(why) => {
                    self.note(&at, &format!("{why}"));
                    self.names.note(format!("{at}: {why}"));
                }
            }
        }
    }

    /// Gives the binds what `ssl-f-use` has for them, once all files are read: those with certificates of their own don't get
    /// it (haproxy/haproxy#3082). Of several lines HAProxy begins with the last (measured, 3.2 and 3.4).
    pub fn finish(&mut self) {
        self.leave();
        let used_by = std::mem::take(&mut self.used_by);
        for bind in self.binds.iter_mut().filter(|bind| bind.ssl && bind.loads.is_empty()) {
            let used = used_by.get(&bind.section).into_iter().flatten().rev();
            bind.loads.extend(used.map(|(path, _)| (Keyword::Used, path.clone())));
        }
        let beside = self.binds.iter().find(|bind| {
            used_by.contains_key(&bind.section)
                && bind.loads.iter().any(|(keyword, _)| *keyword != Keyword::Used)
        });
        if let Some(at) = beside.map(|bind| bind.at.clone()) {
            self.note(&at, "whether ssl-f-use counts beside crt depends on HAProxy's version");
        }
        self.binds.retain(|bind| !bind.loads.is_empty());
    }

    /// The directory in which relative names begin, seen from where HAProxy was started; `None`: there.
    #[must_use]
    pub fn beginning(&self) -> Option<&str> {
        match self.beginning.as_ref()? {
            Beginning::Start => None,
            Beginning::Beside(folder) | Beginning::In(folder) => Some(folder),
        }
    }

    /// Whether that goes by where the configuration itself is.
    #[must_use]
    pub fn begins_beside_itself(&self) -> bool {
        matches!(self.beginning, Some(Beginning::Beside(_)))
    }

    /// Notes where the name of what is loaded begins. One directory is followed, not several.
    fn begin(&mut self, path: &str, at: &At) {
        if path.starts_with(['/', '@']) {
            return;
        }
        let own = self.default_path.of(&at.file);
        if *self.beginning.get_or_insert_with(|| own.clone()) != own {
            self.note(at, "by default-path relative names begin in several directories");
        }
    }

    /// Keeps the first reason why this isn't clear.
    pub fn note(&mut self, at: &At, why: &str) {
        self.unclear.get_or_insert_with(|| format!("{at}: {why}"));
    }

    fn line(&mut self, line: &Words, at: &At) {
        let words: Vec<&str> = line.all.iter().map(String::as_str).collect();
        let Some((&first, rest)) = words.split_first() else { return };
        if [".if", ".elif", ".else", ".endif"].contains(&first) {
            // What is in a block whose condition can't be told may count or not.
            if self.blocks.line(&words, &self.environment).is_err() {
                self.note(at, "what is in .if and .endif depends on a condition that isn't known here");
                self.unknown.push(UnknownLine { at: at.clone(), leads: true });
            }
            return;
        }
        if !self.blocks.count() {
            return;
        }
        if line.has_unknown {
            let leads = ["setenv", "presetenv"].contains(&first) || is_beginning(first);
            self.unknown.push(UnknownLine { at: at.clone(), leads });
        }
        let word = |place: usize| rest.get(place).copied().unwrap_or_default();
        let mut names = std::mem::take(&mut self.names);
        let is_followed = |word: &str| {
            ["bind", "server", "default-server", "server-template"].contains(&first)
                && self.with_base(word).starts_with('/')
        };
        names.mention_all(line, at, is_followed);
        self.names = names;
        for pair in line.all.windows(2) {
            let is_switch = ["ocsp-update", "ocsp-update.mode", "tune.ssl.ocsp-update.mode"];
            self.fetches_ocsp |= pair.first().is_some_and(|word| is_switch.contains(&word.as_str()))
                && pair.last().is_some_and(|to| to == "on");
            if let [keyword, path] = pair
                && BEFORE_READ.contains(&keyword.as_str())
            {
                self.readers.push((joined(self.ca_base.as_ref(), path), at.clone()));
            }
        }
        self.read_at_start.extend(read_at_start::by_line(first, line, at, self.ca_base.as_ref()));
        let is_ours =
            line.all.iter().any(|word| word == "crt" || word == "crt-list" || word == "default-crt");
        if line.has_unknown && (is_ours || ["crt-base", "default-path"].contains(&first)) {
            self.note(at, "holds a variable whose value isn't known");
        }
        if words.iter().any(|word| word.contains("/.well-known/acme-challenge"))
            && let Section::Other(section) = &self.section
        {
            self.acme_sections.insert(section.clone());
        }
        match first {
            _ if SECTIONS.contains(&first) => self.enter(&words),
            "bind" => {
                if let Section::Other(section) = self.section.clone() {
                    self.bind(section, rest, at);
                }
            }
            "disabled" | "enabled" => self.disabled.is_this = first == "disabled",
            "default-bind" if is_ours => self.note(at, "default-bind isn't followed"),
            "ssl-f-use" => self.used(rest, at),
            "server" | "default-server" | "server-template" => {
                self.servers.extend(rest.get(1).filter(|_| first == "server").map(|&to| to.to_owned()));
                let crt = rest.iter().position(|word| *word == "crt").and_then(|place| rest.get(place + 1));
                if let Some(crt) = crt {
                    let path = self.with_base(crt);
                    if !path.starts_with(['/', '@']) && self.default_path != DefaultPath::Current {
                        // 2.6 loads it after everything was read.
                        self.note(at, "where a server's relative crt begins depends on HAProxy's version");
                    }
                    self.names.add(&path, at);
                    self.others.push((path, at.clone()));
                }
            }
            _ => match &mut self.section {
                Section::Global => self.global(first, rest, at),
                Section::Store { crt_base, .. } if first == "crt-base" => {
                    *crt_base = Some(word(0).to_owned());
                }
                Section::Store { key_base, .. } if first == "key-base" => {
                    *key_base = Some(word(0).to_owned());
                }
                Section::Store { .. } if first == "load" => self.define(rest, at),
                _ => {}
            },
        }
    }

    /// What a line of a crt-list has HAProxy read when it starts, beside its certificate.
    #[must_use]
    pub fn read_by_list(&self, options: &[String]) -> Vec<String> {
        read_at_start::by_list(options, self.ca_base.as_ref())
    }

    /// The section ends: its binds listen, or don't.
    fn leave(&mut self) {
        let (binds, doors) = self.disabled.before;
        let is_disabled = self.disabled.is_this;
        for bind in self.binds.iter_mut().skip(binds) {
            bind.is_disabled = is_disabled;
        }
        for door in self.doors.iter_mut().skip(doors) {
            door.is_open &= !is_disabled;
        }
        if let Section::Other(section) = &self.section
            && let Some(name) = section.strip_prefix("defaults")
        {
            self.disabled.defaults.insert(name.trim().to_owned(), is_disabled);
            self.disabled.last_defaults = is_disabled;
        }
        self.disabled.before = (self.binds.len(), self.doors.len());
        self.disabled.is_this = false;
    }

    fn enter(&mut self, words: &[&str]) {
        self.leave();
        self.disabled.is_this = match words {
            // Other sections than these have no defaults.
            ["defaults" | "frontend" | "listen" | "backend", _, "from", defaults, ..]
            | ["defaults", "from", defaults, ..] => {
                self.disabled.defaults.get(*defaults).copied().unwrap_or_default()
            }
            ["frontend" | "listen" | "backend", ..] => self.disabled.last_defaults,
            _ => false,
        };
        self.section = match words {
            ["global", ..] => Section::Global,
            ["crt-store", name @ ..] => Section::Store {
                name: name.first().copied().unwrap_or_default().to_owned(),
                crt_base: None,
                key_base: None,
            },
            _ => Section::Other(words.iter().take(2).copied().collect::<Vec<_>>().join(" ")),
        };
    }

    fn global(&mut self, first: &str, rest: &[&str], at: &At) {
        let word = |place: usize| rest.get(place).copied().unwrap_or_default().to_owned();
        let variables = &mut self.environment.variables;
        match first {
            "ca-base" => self.ca_base = Some(word(0)),
            "crt-base" => self.crt_base = Some(word(0)),
            "key-base" => self.key_base = Some(word(0)),
            "pidfile" => self.pidfile = Some(word(0)),
            "stats" if word(0) == "socket" => {
                let is_admin = rest.windows(2).any(|pair| pair == ["level", "admin"]);
                self.admin_sockets.extend(is_admin.then(|| word(1)));
                if rest.contains(&"ssl") {
                    self.bind(STATS.to_owned(), rest.get(1..).unwrap_or_default(), at);
                }
            }
            "ssl-default-bind-options" => {
                for option in rest {
                    match *option {
                        "strict-sni" => self.strict_sni = true,
                        "no-strict-sni" => self.strict_sni = false,
                        _ => {}
                    }
                }
            }
            "ssl-load-extra-files" => {
                self.no_key_files = !rest.iter().any(|kind| matches!(*kind, "all" | "key"));
                self.no_bundles = !rest.iter().any(|kind| matches!(*kind, "all" | "bundle"));
            }
            "ssl-load-extra-del-ext" => self.without_ending = true,
            "setenv" => {
                variables.insert(word(0), word(1));
            }
            "presetenv" => {
                variables.entry(word(0)).or_insert_with(|| word(1));
            }
            "unsetenv" => {
                for name in rest {
                    variables.remove(*name);
                }
            }
            "resetenv" => variables.retain(|name, _| rest.contains(&name.as_str())),
            "default-path" => {
                self.default_path = match word(0).as_str() {
                    "current" => DefaultPath::Current,
                    "config" => DefaultPath::Config,
                    "parent" => DefaultPath::Parent,
                    "origin" if !word(1).is_empty() => DefaultPath::Origin(word(1)),
                    _ => return self.note(at, "default-path isn't followed"),
                };
            }
            _ => {}
        }
    }

    fn bind(&mut self, section: String, words: &[&str], at: &At) {
        let mut bind = BindLine {
            at: at.clone(),
            section,
            addresses: words.first().copied().unwrap_or_default().to_owned(),
            ssl: false,
            is_disabled: false,
            strict_sni: self.strict_sni,
            accepts_proxy: false,
            loads: Vec::new(),
        };
        let mut unknown = None;
        let (mut is_open, mut v6only) = (bind.section != STATS, false);
        let mut rest = words.get(1..).unwrap_or_default();
        while let Some((&word, behind)) = rest.split_first() {
            let argument = behind.first().copied().unwrap_or_default();
            let keyword = match word {
                "crt" => Some(Keyword::Crt),
                "default-crt" => Some(Keyword::DefaultCrt),
                "crt-list" => Some(Keyword::CrtList),
                _ => None,
            };
            match word {
                "ssl" => bind.ssl = true,
                "strict-sni" => bind.strict_sni = true,
                "no-strict-sni" => bind.strict_sni = false,
                "accept-proxy" => (is_open, bind.accepts_proxy) = (false, true),
                "namespace" => is_open = false,
                "v6only" => v6only = true,
                "generate-certificates" => {
                    unknown.get_or_insert_with(|| "generate-certificates isn't followed".to_owned());
                }
                _ => {}
            }
            if let Some(keyword) = keyword {
                // HAProxy puts crt-base before what a bind line names, but not before a crt-list.
                let path = match keyword {
                    Keyword::Crt | Keyword::DefaultCrt | Keyword::Used => self.with_base(argument),
                    Keyword::CrtList => argument.to_owned(),
                };
                self.names.add(&path, at);
                // The lines of a list have relative names, too.
                self.begin(if keyword == Keyword::CrtList { "" } else { &path }, at);
                bind.loads.push((keyword, path));
            }
            let length = match word {
                _ if WITH_ARGUMENT.contains(&word) => 1,
                _ if WITHOUT_ARGUMENT.contains(&word) => 0,
                _ => {
                    unknown.get_or_insert_with(|| {
                        format!("\"{}\" isn't a known word of a bind line", crate::sys::escape::escaped(word))
                    });
                    0
                }
            };
            rest = behind.get(length..).unwrap_or_default();
        }
        self.doors.push(Door {
            at: at.clone(),
            section: bind.section.clone(),
            addresses: bind.addresses.clone(),
            ssl: bind.ssl,
            v6only,
            is_open,
        });
        if let Some(why) = unknown.filter(|_| !bind.loads.is_empty()) {
            self.note(at, &why);
        }
        self.binds.push(bind);
    }

    /// `ssl-f-use crt FILE [key FILE] …`, 3.2 and later.
    fn used(&mut self, words: &[&str], at: &At) {
        let Section::Other(section) = &self.section else { return };
        let section = section.clone();
        let value = |name: &str| {
            let place = words.iter().position(|word| *word == name)?;
            words.get(place + 1).map(|&value| value.to_owned())
        };
        let Some(crt) = value("crt") else { return };
        let crt = self.with_base(&crt);
        let key = value("key").map(|key| self.with_key_base(&key));
        for path in [Some(&crt), key.as_ref()].into_iter().flatten() {
            self.begin(path, at);
        }
        let extra = extra(value);
        if key.is_some() || extra.is_some() {
            let defined = Defined { crt: crt.clone(), key, extra, at: at.clone(), is_special: false };
            self.defined.insert(crt.clone(), defined);
        }
        self.names.add(&crt, at);
        self.used_by.entry(section).or_default().push((crt, at.clone()));
    }

    /// `load crt FILE [key FILE] [alias NAME]`.
    fn define(&mut self, words: &[&str], at: &At) {
        let Section::Store { name, crt_base, key_base } = self.section.clone() else { return };
        let (mut crt, mut key, mut alias, mut is_special) = (None, None, None, false);
        for pair in words.chunks(2) {
            let value = pair.get(1).copied().unwrap_or_default();
            match pair.first().copied().unwrap_or_default() {
                "crt" => crt = Some(value),
                "key" => key = Some(value),
                "alias" => alias = Some(value),
                "ocsp-update" => {}
                word if EXTRAS.contains(&word) => {}
                _ => is_special = true,
            }
        }
        let Some(crt) = crt else { return };
        let value = |name: &str| {
            let pair = words.chunks(2).find(|pair| pair.first() == Some(&name))?;
            pair.get(1).map(|&value| value.to_owned())
        };
        let extra = extra(value);
        let path = joined(crt_base.as_ref().or(self.crt_base.as_ref()), crt);
        let known_as = match alias {
            Some(alias) => format!("@{name}/{alias}"),
            None if !name.is_empty() => format!("@{name}/{}", crt.strip_prefix('/').unwrap_or(crt)),
            None => joined(self.crt_base.as_ref(), crt),
        };
        let key_base = key_base.as_ref().or(self.key_base.as_ref());
        let key = key.map(|key| joined(key_base, key));
        for path in [Some(&path), key.as_ref()].into_iter().flatten() {
            self.names.add(path, at);
            self.begin(path, at);
        }
        self.defined.insert(known_as, Defined { crt: path, key, extra, at: at.clone(), is_special });
    }

    /// With `crt-base` before it, joined as HAProxy does (`bind_parse_crt()`).
    #[must_use]
    pub fn with_base(&self, path: &str) -> String {
        match &self.crt_base {
            Some(base) if !path.starts_with(['/', '@']) => format!("{base}/{path}"),
            _ => path.to_owned(),
        }
    }

    /// The path of a key that a crt-list names, with `key-base` before it.
    #[must_use]
    pub fn with_key_base(&self, path: &str) -> String {
        joined(self.key_base.as_ref(), path)
    }
}

/// What a line has HAProxy load with a certificate, beside its key: the first of these words and its value.
pub(crate) fn extra(value: impl Fn(&str) -> Option<String>) -> Option<String> {
    EXTRAS.iter().find_map(|word| Some(format!("{word} {}", value(word)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Configuration {
        let environment = Environment {
            variables: [("DIR".to_owned(), "/from/env".to_owned())].into(),
            is_whole: true,
            version: None,
        };
        let mut configuration = Configuration::new(environment);
        configuration.read("h.cfg", text.as_bytes());
        configuration.finish();
        configuration
    }

    fn at(line: usize) -> At {
        At { file: "h.cfg".into(), line }
    }

    #[test]
    fn a_bind_has_its_certificates_in_order() {
        let found = read(
            "global\n crt-base /base/ # here\n setenv SITES sites\nfrontend https\n\
             \x20bind :443,:8443 ssl crt host.pem alpn h2,http/1.1 crt \"${SITES}\" crt '/s p/x' strict-sni\n\
             \x20bind :80\n bind :444 ssl crt-list list crt \"$DIR/z\" default-crt /d.pem\n\
             backend b\n server s 127.0.0.1:1 ssl crt client.pem verify none\n",
        );
        assert_eq!(found.unclear, None);
        assert_eq!(
            found.binds,
            [
                BindLine {
                    at: at(5),
                    section: "frontend https".into(),
                    addresses: ":443,:8443".into(),
                    ssl: true,
                    is_disabled: false,
                    strict_sni: true,
                    accepts_proxy: false,
                    loads: ["/base//host.pem", "/base//sites", "/s p/x"]
                        .map(|path| (Keyword::Crt, path.to_owned()))
                        .into(),
                },
                BindLine {
                    at: at(7),
                    section: "frontend https".into(),
                    addresses: ":444".into(),
                    ssl: true,
                    is_disabled: false,
                    strict_sni: false,
                    accepts_proxy: false,
                    loads: vec![
                        (Keyword::CrtList, "list".into()),
                        (Keyword::Crt, "/from/env/z".into()),
                        (Keyword::DefaultCrt, "/d.pem".into()),
                    ],
                },
            ]
        );
        assert_eq!(found.others, [("/base//client.pem".to_owned(), at(9))]);
        assert!(found.names.paths.contains(&("/base//host.pem".into(), at(5))));
    }

    #[test]
    fn every_word_may_name_a_file() {
        let mut configuration = Configuration::new(Environment::default());
        let text = "global\n key-base /k\n crt-base /c\nbackend b\n server s :1 ssl ca-file ca.pem crt c.pem\n\
                    http-request set-header X %[path,map(m.map,/d/d.map)] if { src -f \"${Y}/l.acl\" }\n\
                    crt-store s\n load crt a.pem key k.pem\n";
        configuration.read("h.cfg", text.as_bytes());
        let FileNames { paths, mentioned, unseen } = configuration.names;
        for path in ["/c/c.pem", "/c/a.pem", "/k/k.pem", "/d/d.map"] {
            assert!(paths.iter().any(|(named, _)| named == path), "{path} {paths:?}");
        }
        for (base, line) in [("ca.pem", 5), ("m.map", 6), ("l.acl", 6), ("k.pem", 8), ("a.pem", 8)] {
            assert_eq!(mentioned.get(base), Some(&at(line)), "{base}");
        }
        assert!(!mentioned.contains_key("c.pem") && !mentioned.contains_key("d.map") && unseen.is_none());
        for (line, is_unseen) in [
            ("bind \"${A}:1\" ssl crt /a", false),
            ("bind :1 ssl crt \"${A}\"", true),
            ("bind :1 ssl crt \"/a/${A}.pem\"", true),
            ("bind :1 ssl crt \"${A}/a.pem\"", false),
            ("bind :1 ssl crt-list \"${A}/list\"", true),
            ("log \"${A}\" local0", false),
        ] {
            let mut configuration = Configuration::new(Environment::default());
            configuration.read("h.cfg", format!("listen l\n{line}\n").as_bytes());
            assert_eq!(configuration.names.unseen.is_some(), is_unseen, "{line}");
        }
    }

    #[test]
    fn what_is_read_at_a_start_is_known_but_what_is_written() {
        let found = read(
            "global\n ca-base /ca\n stats socket /run/a.sock\n pidfile /run/p\n lua-load x.lua\n\
             \x20ssl-dh-param-file /dh\n server-state-file /var/state\nfrontend f\n\
             \x20bind :1 ssl crt /sites crt-list l.list crl-file /crl ca-file a.pem\n\
             \x20http-request set-header X %[path,map_beg(m.map,/d/d.map)] if { src -f b.acl }\n\
             backend b\n errorfile 503 e.http\n server s :1 ssl ca-file @system-ca crt /c.pem\n",
        );
        let read: Vec<&str> = found.read_at_start.iter().map(String::as_str).collect();
        let expected =
            ["/ca", "/ca/a.pem", "/crl", "/d/d.map", "/dh", "b.acl", "e.http", "l.list", "m.map", "x.lua"];
        assert_eq!(read, expected);
    }

    #[test]
    fn strict_sni_may_be_for_all_and_taken_back() {
        let found = read(
            "global\n ssl-default-bind-options ssl-min-ver TLSv1.2 strict-sni\n\
             listen l\n bind :1 ssl crt /a\n bind :2 ssl crt /a no-strict-sni\n",
        );
        assert_eq!(found.binds.iter().map(|bind| bind.strict_sni).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn what_is_not_understood_makes_it_unclear() {
        for (text, why) in [
            (
                "frontend f\n bind :1 ssl crt /a new-word 3\n",
                "h.cfg:2: \"new-word\" isn't a known word of a bind line",
            ),
            (".if feature(X)\nfrontend f\n bind :1 ssl crt /a\n.endif\n", "h.cfg:1: what is in .if"),
            (
                "frontend f\n bind :1 ssl crt /a\n ssl-f-use crt /b\n",
                "h.cfg:2: whether ssl-f-use counts beside crt",
            ),
            ("frontend f\n bind :1 ssl crt \"$HAPROXY_X\"\n", "h.cfg:2: holds a variable"),
            ("frontend f\n bind :1 ssl crt \"/a\n", "h.cfg:2: a quote isn't closed"),
            ("frontend f\n bind :1 ssl crt /a generate-certificates\n", "h.cfg:2: generate-certificates"),
            ("global\n default-path here\n", "h.cfg:2: default-path"),
            (
                "frontend f\n bind :1 ssl crt a\nglobal\n default-path config\nfrontend g\n bind :2 ssl crt b\n",
                "h.cfg:6: by default-path relative names begin in several directories",
            ),
            (
                "global\n default-path config\nbackend b\n server s :1 ssl crt c.pem\n",
                "h.cfg:4: where a server's relative crt begins",
            ),
            ("peers p\n default-bind ssl crt /a\n", "h.cfg:2: default-bind"),
        ] {
            let unclear = read(text).unclear.unwrap_or_default();
            assert!(unclear.starts_with(why), "{text}: {unclear}");
        }
        for clear in [
            "frontend f\n bind :1 new-word 3\n",
            "frontend f\n bind \"$HAPROXY_X\"\n http-request set-header x \"$HAPROXY_X\"\n",
            "global\n default-path current\n",
        ] {
            assert_eq!(read(clear).unclear, None, "{clear}");
        }
    }

    /// Measured, 2.6 to 3.4: the line counts from there on, for crt, crt-list, crt-base, ssl-f-use and crt-store alike.
    #[test]
    fn relative_names_begin_where_default_path_says() {
        for (words, file, beginning) in [
            ("current", "/c/h.cfg", None),
            ("config", "/c/h.cfg", Some("/c")),
            ("config", "/h.cfg", Some("/")),
            ("config", "h.cfg", Some(".")),
            ("parent", "/c/d/h.cfg", Some("/c/d/..")),
            ("parent", "h.cfg", Some("./..")),
            ("origin /o", "/c/h.cfg", Some("/o")),
            ("origin o", "/c/h.cfg", Some("o")),
        ] {
            for load in ["bind :1 ssl crt certs", "bind :1 ssl crt-list list", "ssl-f-use crt certs/a"] {
                let text = format!("global\n default-path {words}\nfrontend f\n bind :2 ssl\n {load}\n");
                let mut found = Configuration::new(Environment::default());
                found.read(file, text.as_bytes());
                found.read("/other/i.cfg", b"frontend g\n bind :2 ssl crt /absolute\n");
                found.finish();
                assert_eq!((found.beginning(), &found.unclear), (beginning, &None), "{text}");
            }
        }
        assert_eq!(read("frontend f\n bind :1 ssl crt a\n").beginning(), None);
    }

    #[test]
    fn ssl_f_use_is_for_the_binds_of_its_frontend() {
        let found = read(
            "global\n crt-base /g\nfrontend f\n bind :80\n bind :1 ssl strict-sni\n ssl-f-use crt a.pem alpn h2\n\
             \x20ssl-f-use crt /b.crt key /b.key\nfrontend g\n bind :2 ssl\n",
        );
        assert_eq!(found.unclear, None);
        let used = ["/b.crt", "/g/a.pem"].map(|path| (Keyword::Used, path.to_owned()));
        assert_eq!(found.binds.len(), 1);
        assert_eq!((&found.binds[0].at, found.binds[0].loads.as_slice()), (&at(5), &used[..]));
        assert_eq!(found.defined.get("/b.crt").unwrap().key.as_deref(), Some("/b.key"));
        assert!(found.names.paths.contains(&("/g/a.pem".into(), at(6))));
    }

    #[test]
    fn conditions_are_followed_as_far_as_they_can_be_told() {
        let found = read(
            ".if defined(DIR)\nfrontend f\n bind :1 ssl crt /a\n.else\nfrontend f\n bind :1 ssl crt /b\n.endif\n\
             .if streq(\"$DIR\",x)\nfrontend g\n bind :2 ssl crt /c\n.endif\n",
        );
        assert_eq!(found.unclear, None);
        let loads: Vec<&str> = found.binds.iter().map(|bind| bind.loads[0].1.as_str()).collect();
        assert_eq!(loads, ["/a"]);
    }

    #[test]
    fn what_is_around_the_certificates_is_kept() {
        let found = read(
            "global\n stats socket /run/a.sock mode 660 level admin\n stats socket /run/b.sock\n pidfile /run/h.pid\n\
             frontend http\n bind :80 accept-proxy\n acl a path_beg /.well-known/acme-challenge/\n\
             backend b\n server certbot 127.0.0.1:54321 check # :99\n",
        );
        assert_eq!(found.admin_sockets, ["/run/a.sock"]);
        assert_eq!(found.pidfile.as_deref(), Some("/run/h.pid"));
        assert_eq!(found.acme_sections, ["frontend http".to_owned()].into());
        assert_eq!(found.servers, ["127.0.0.1:54321"]);
        assert_eq!((found.doors.len(), found.doors[0].is_open), (1, false));
    }

    /// Measured, 2.2 to 3.4: the certificates are loaded, and nothing listens.
    #[test]
    fn what_is_disabled_listens_to_nobody() {
        let found = read(
            "frontend a\n bind :1 ssl crt /a\n disabled\n bind :2 ssl crt /a\nfrontend b\n bind :3 ssl crt /a\n\
             frontend c\n disabled\n enabled\n bind :4 ssl crt /a\ndefaults d\n disabled\n\
             frontend e\n bind :5 ssl crt /a\nlisten f\n enabled\n bind :6 ssl crt /a\ndefaults\n mode http\n\
             listen g\n bind :7 ssl crt /a\nfrontend h from d\n bind :8 ssl crt /a\ndefaults i from d\n\
             peers p\n bind :9 ssl crt /a\nfrontend j\n bind :10 ssl crt /a\n",
        );
        assert_eq!(found.unclear, None);
        let silent = found.binds.iter().filter(|bind| bind.is_disabled);
        let silent: Vec<&str> = silent.map(|bind| bind.addresses.as_str()).collect();
        assert_eq!((silent, found.binds.len()), (vec![":1", ":2", ":5", ":8", ":10"], 10));
        assert_eq!(found.doors.iter().filter(|door| door.is_open).count(), 5);
    }

    #[test]
    fn a_store_has_a_name_of_its_own() {
        let found = read(
            "global\n crt-base /g\ncrt-store\n load crt a.pem\n load crt /b.crt key b.key alias b\n\
             crt-store web\n crt-base /w\n key-base /k\n load crt c.pem key c.key\n load crt d.pem alias x acme le\n",
        );
        let name = |name: &str| found.defined.get(name).cloned();
        let defined = |crt: &str, key: Option<&str>, line, is_special| {
            Some(Defined {
                crt: crt.into(),
                key: key.map(str::to_owned),
                at: at(line),
                is_special,
                extra: None,
            })
        };
        assert_eq!(name("/g/a.pem"), defined("/g/a.pem", None, 4, false));
        assert_eq!(name("@/b"), defined("/b.crt", Some("b.key"), 5, false));
        assert_eq!(name("@web/c.pem"), defined("/w/c.pem", Some("/k/c.key"), 9, false));
        assert_eq!(name("@web/x"), defined("/w/d.pem", None, 10, true));
    }

    #[test]
    fn each_file_begins_without_a_section() {
        let mut found = read("frontend f\n");
        found.read("i.cfg", b" bind :1 ssl crt /a\nfrontend g\n bind :2 ssl crt /b\n");
        found.finish();
        assert_eq!(found.binds.len(), 1);
        assert_eq!(found.binds[0].at.to_string(), "i.cfg:3");
    }
}
