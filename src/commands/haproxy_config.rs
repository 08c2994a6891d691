//! `haproxy-config`: a HAProxy configuration that fits these settings, for HAProxy 2.2 and later.

use std::fmt::Write;

use crate::cli::{Global, HaproxyConfig};
use crate::config::{Address, Haproxy, Settings, challenge};
use crate::output::Exit;
use crate::output::terminal::Terminal;
use crate::sys::escape::{escaped, haproxy_word};
use crate::sys::failure::Failure;
use crate::sys::system::System;

/// What the configuration depends on besides the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Whether IPv6 sockets can be bound.
    pub ipv6: bool,
    /// Where the admin socket goes when the settings don't say.
    pub admin_socket: String,
}

impl Host {
    /// This host.
    #[must_use]
    pub fn look(system: &System) -> Self {
        // Debian and its derivatives make /run/haproxy at boot; Fedora's package has /var/lib/haproxy only.
        let has_run =
            system.run.join("haproxy").is_dir() || !std::path::Path::new("/var/lib/haproxy").is_dir();
        let admin_socket = if has_run { "/run/haproxy/admin.sock" } else { "/var/lib/haproxy/stats" };
        Self { ipv6: system.proc.join("net/if_inet6").exists(), admin_socket: admin_socket.to_owned() }
    }
}

/// Runs `haproxy-config`.
///
/// # Errors
/// The settings can't be used, or have no HAProxy of that name.
pub fn run(terminal: &Terminal, global: &Global, args: &HaproxyConfig) -> Result<Exit, Failure> {
    let settings = global.settings(None)?;
    let wanted = |name: &str| args.haproxy.as_ref().is_none_or(|wanted| wanted == name);
    let Some(haproxy) = settings.haproxys.iter().find(|haproxy| wanted(&haproxy.name)) else {
        let name = escaped(args.haproxy.as_deref().unwrap_or_default());
        return Err(Failure::config(format!("there is no [[haproxy]] table with the name \"{name}\"")));
    };
    terminal.print(&haproxy_config(&settings, haproxy, &Host::look(&System::host())));
    Ok(Exit::Fine)
}

/// The configuration file for one HAProxy.
#[must_use]
pub fn haproxy_config(settings: &Settings, haproxy: &Haproxy, host: &Host) -> String {
    let mut text = TEMPLATE.to_owned();
    let admin_socket = match &haproxy.runtime_socket {
        Some(Address::Unix(path)) => haproxy_word(path.as_os_str().as_encoded_bytes()),
        Some(Address::Tcp(address)) => haproxy_word(address.as_str()),
        None => haproxy_word(&host.admin_socket),
    };
    let any = |port: u16| if host.ipv6 { format!(":::{port} v4v6") } else { format!(":{port}") };
    for (mark, value) in [
        ("@NAME@", escaped(&haproxy.name).to_string()),
        ("@VERSION@", env!("CARGO_PKG_VERSION").to_owned()),
        ("@ADMIN_SOCKET@", admin_socket),
        ("@HTTP@", any(80)),
        ("@HTTPS@", any(443)),
        ("@HOST_FILE@", haproxy_word(&haproxy.host_file)),
        ("@SITES_DIR@", haproxy_word(&haproxy.sites_dir)),
        ("@SERVERS@", challenge_servers(settings)),
    ] {
        text = text.replace(mark, &value);
    }
    text
}

/// Where challenges go: to this host's certbot, or to whichever of several hosts has one that listens.
fn challenge_servers(settings: &Settings) -> String {
    let servers = &settings.certbot.challenge_servers;
    if servers.is_empty() {
        return format!("    server certbot 127.0.0.1:{}", settings.certbot.http_01_port);
    }
    // A host without a certbot refuses the connection at once; each try takes the next one.
    let mut text = format!(
        "    # Whichever host has a certbot that listens: the others refuse, and the next one is tried.\n    \
         balance roundrobin\n    option redispatch 1\n    retries {}\n    timeout connect 2s",
        2 * servers.len()
    );
    for (number, server) in servers.iter().enumerate() {
        // Writing to a String never fails.
        let _ = write!(text, "\n    server certbot{} {}", number + 1, haproxy_word(server));
        if challenge::is_looked_up(server) {
            // Without that HAProxy doesn't start while a name isn't known.
            text.push_str(" init-addr last,libc,none");
        }
    }
    text
}

const TEMPLATE: &str = include_str!("haproxy_config.cfg");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    fn config(text: &str, ipv6: bool) -> String {
        let settings = Settings::parse(text, &Overrides::default()).unwrap();
        let host = Host { ipv6, admin_socket: "/run/haproxy/admin.sock".into() };
        haproxy_config(&settings, &settings.haproxys[0], &host)
    }

    #[test]
    fn challenges_go_to_whichever_host_has_certbot() {
        let text = config("[certbot]\nchallenge_servers = [\"lb1:8888\", \"[2001:db8::1]:8888\"]", true);
        let servers = "    retries 4\n    timeout connect 2s\n    server certbot1 lb1:8888 init-addr last,libc,none\n    server certbot2 \
                       [2001:db8::1]:8888\n";
        assert!(text.contains(servers), "{text}");
    }

    #[test]
    fn the_host_certificate_comes_first_and_every_mark_is_filled() {
        let text = config("[certbot]\nhttp_01_port = 8888", true);
        assert!(text.contains(
            "bind :::443 v4v6 ssl crt /usr/local/ssl/certs/host.pem crt /usr/local/ssl/certs/sites alpn h2,http/1.1\n"
        ));
        assert!(text.contains("server certbot 127.0.0.1:8888\n"), "{text}");
        assert!(text.contains("stats socket /run/haproxy/admin.sock mode 660 level admin\n"));
        assert!(!text.contains('@'), "{text}");
        assert!(text.is_ascii());
    }

    #[test]
    fn it_speaks_of_paths_as_this_haproxy_spells_them() {
        let text = config(
            "[[haproxy]]\nsites_dir = \"/certs/my sites/\"\nhost_file = \"/certs/h#1.pem\"\nruntime_socket = \"/x/a.sock\"",
            false,
        );
        assert!(text.contains("bind :443 ssl crt /certs/h\\#1.pem crt /certs/my\\ sites alpn"), "{text}");
        assert!(text.contains("stats socket /x/a.sock mode"));
        assert!(text.contains("bind :80\n"));
    }
}
