//! Whose tree `live_dir` is: certbot's, another client's that lays down the same two files, or a fleet's publisher's.

use std::ffi::OsStr;
use std::path::Path;

use crate::config::Settings;
use crate::plan::client::Client;

/// certbot's own configuration directory, with `live` in it.
pub const CERTBOT_DIR: &str = "/etc/letsencrypt";

/// certbot's names of the two files.
pub const KEY_FILE: &str = "privkey.pem";
/// See [`KEY_FILE`].
pub const CHAIN_FILE: &str = "fullchain.pem";

/// certbot's configuration directory for these settings; `None`: `live_dir` isn't a directory of certbot's own.
#[must_use]
pub fn certbot_dir(settings: &Settings) -> Option<&Path> {
    settings.live_dir.parent().filter(|_| settings.live_dir.file_name() == Some(OsStr::new("live")))
}

impl Client {
    /// Whose tree this is. certbot's has its names for the files, and renewal configurations or the versions beside `live`;
    /// where they can't be seen, or where it is certbot's usual place, it is taken for certbot's.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let folder = certbot_dir(settings);
        let has_its_names = settings.key_file == KEY_FILE && settings.chain_file == CHAIN_FILE;
        let may_have = |folder: &Path, name: &str| folder.join(name).try_exists().unwrap_or(true);
        match folder.filter(|_| has_its_names) {
            _ if settings.followed().is_some() => Self::Publisher,
            Some(folder)
                if folder == Path::new(CERTBOT_DIR)
                    || may_have(folder, "renewal")
                    || may_have(folder, "archive")
                    || !may_have(folder, "live") =>
            {
                Self::Certbot
            }
            _ => Self::Another,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    #[test]
    fn certbots_tree_is_known_by_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let of = |live: &Path, more: &str| {
            let text = format!("live_dir = {live:?}\n{more}");
            Client::of(&Settings::parse(&text, &Overrides::default()).unwrap())
        };
        let live = folder.path().join("live");
        assert_eq!(of(&live, ""), Client::Certbot, "nothing is there yet");
        std::fs::create_dir(&live).unwrap();
        assert_eq!(of(&live, ""), Client::Another);
        std::fs::create_dir(folder.path().join("renewal")).unwrap();
        assert_eq!(of(&live, ""), Client::Certbot);
        for other in ["key_file = \"key.pem\"", "chain_file = \"a.cer\""] {
            assert_eq!(of(&live, other), Client::Another, "{other}");
        }
        assert_eq!(of(&folder.path().join("certs"), ""), Client::Another);
        assert_eq!(of(Path::new("/etc/letsencrypt/live"), ""), Client::Certbot);
    }
}
