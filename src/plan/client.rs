//! Who renews what lies in `live_dir`. What is advised has to be something that this one understands.

/// Who renews the certificates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Client {
    /// certbot.
    #[default]
    Certbot,
    /// Another client: nothing is known of it but the files.
    Another,
    /// The host that publishes to a fleet.
    Publisher,
}

impl Client {
    /// What goes behind a verb such as "renew it": how it is done, by this command of certbot's where it is certbot's.
    #[must_use]
    pub fn by(self, command: &str) -> String {
        match self {
            Self::Certbot => format!(": certbot {command}"),
            Self::Another => " with the client that laid it down".to_owned(),
            Self::Publisher => " on the host that publishes it".to_owned(),
        }
    }

    /// Who has the certificates: the subject of "has a certificate".
    #[must_use]
    pub fn who(self) -> &'static str {
        match self {
            Self::Certbot => "certbot",
            Self::Another => "the client",
            Self::Publisher => "the publisher",
        }
    }

    /// The place beside the disk and HAProxy, in a table: one word.
    #[must_use]
    pub fn place(self) -> &'static str {
        match self {
            Self::Certbot => "certbot",
            Self::Another => "client",
            Self::Publisher => "fleet",
        }
    }

    /// Whose files they are: the word before "own file".
    #[must_use]
    pub fn whose(self) -> &'static str {
        match self {
            Self::Certbot => "certbot's",
            Self::Another => "the client's",
            Self::Publisher => "the publisher's",
        }
    }
}
