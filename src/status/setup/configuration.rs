//! What HAProxy's configuration says about certificates and the ACME challenge. Pure.
//!
//! Not a whole parser: the lines that matter here, with quotes, backslashes and comments as HAProxy reads them.

/// The lines of a configuration that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configuration {
    /// `crt-base` of the global section: what relative names begin with.
    pub crt_base: Option<String>,
    /// The bind lines with certificates.
    pub binds: Vec<Bind>,
    /// Whether a line names the path of the ACME challenge.
    pub names_acme_path: bool,
    /// The ports of the `server` lines.
    pub server_ports: Vec<u16>,
}

/// A bind line with certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// The section: `frontend https`.
    pub section: String,
    /// The file and line: `/etc/haproxy/haproxy.cfg:12`.
    pub at: String,
    /// Its certificates, in the order of the line; relative names begin with `crt-base`.
    pub certificates: Vec<String>,
    /// Whether it is fine without any certificate: `strict-sni`.
    pub strict_sni: bool,
}

impl Configuration {
    /// Adds the lines of one file.
    pub fn read(&mut self, file: &str, text: &str) {
        let mut section = String::new();
        for (number, line) in text.lines().enumerate() {
            let words = words(line);
            let mut rest = words.iter().map(String::as_str);
            match rest.next() {
                Some("frontend" | "listen" | "backend" | "defaults" | "global" | "peers" | "program") => {
                    section = words.join(" ");
                }
                Some("crt-base") => self.crt_base = rest.next().map(str::to_owned),
                Some("bind") => self.bind(&section, format!("{file}:{}", number + 1), rest),
                Some("server") => {
                    let port: Option<u16> =
                        rest.nth(1).and_then(|address| address.rsplit_once(':')?.1.parse().ok());
                    self.server_ports.extend(port);
                }
                _ => {}
            }
            self.names_acme_path |= words.iter().any(|word| word.contains("/.well-known/acme-challenge"));
        }
    }

    fn bind<'a>(&mut self, section: &str, at: String, mut words: impl Iterator<Item = &'a str>) {
        let mut bind = Bind { section: section.to_owned(), at, certificates: Vec::new(), strict_sni: false };
        while let Some(word) = words.next() {
            match word {
                "crt" | "default-crt" => bind.certificates.extend(words.next().map(|name| self.whole(name))),
                "strict-sni" => bind.strict_sni = true,
                _ => {}
            }
        }
        if !bind.certificates.is_empty() {
            self.binds.push(bind);
        }
    }

    fn whole(&self, name: &str) -> String {
        match &self.crt_base {
            Some(base) if !name.starts_with('/') => format!("{}/{name}", base.trim_end_matches('/')),
            _ => name.to_owned(),
        }
    }

    /// The bind lines that load this directory.
    pub fn loading<'a>(&'a self, directory: &'a str) -> impl Iterator<Item = &'a Bind> {
        self.binds.iter().filter(move |bind| bind.loads(directory))
    }
}

impl Bind {
    fn loads(&self, directory: &str) -> bool {
        self.certificates.iter().any(|name| name.trim_end_matches('/') == directory)
    }

    /// Whether it is fine while the directory is empty.
    #[must_use]
    pub fn may_be_empty(&self, directory: &str) -> bool {
        self.strict_sni || self.certificates.iter().any(|name| name.trim_end_matches('/') != directory)
    }
}

/// The words of a line.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, '#') => break,
            (None, ' ' | '\t') => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == letter => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(letters.next()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_as_haproxy_reads_it() {
        let mut configuration = Configuration::default();
        configuration.read(
            "h.cfg",
            "global\n crt-base /etc/ssl # here\nfrontend https\n bind :443 ssl crt host.pem crt '/c/my sites/'\n\
             \tbind :444 ssl crt /c/a\\ b strict-sni\n bind :80\n acl a path_beg /.well-known/acme-challenge/\n\
             backend b\n server certbot 127.0.0.1:54321 # :99\n# bind :445 ssl crt /no\n",
        );
        let [first, second] = configuration.binds.as_slice() else { panic!("{configuration:?}") };
        assert_eq!(first.certificates, ["/etc/ssl/host.pem", "/c/my sites/"]);
        assert_eq!((first.section.as_str(), first.at.as_str()), ("frontend https", "h.cfg:4"));
        assert!(first.may_be_empty("/c/my sites") && !first.strict_sni);
        assert_eq!(
            (second.certificates.as_slice(), second.strict_sni),
            (["/c/a b".to_owned()].as_slice(), true)
        );
        assert_eq!(configuration.loading("/c/my sites").count(), 1);
        assert!(configuration.names_acme_path);
        assert_eq!(configuration.server_ports, [54321]);
    }
}
