//! What is to be made on a host, and what is left to the operator. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::path::PathBuf;

use super::found::{Found, FoundUnit, Hook, HostFile};
use super::left::{Left, left_to_do};
use crate::config::fleet::CACHES;
use crate::config::{OWN_DIR, Settings};
use crate::host_setup::drop_in::{self, OwnUnit};
use crate::host_setup::fleet_part::FleetPart;

/// One thing that a ready host has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The configuration file.
    Config {
        /// Where it is.
        file: PathBuf,
        /// What it holds.
        text: String,
        /// What HAProxy loads already, where the settings go by that.
        fact: Option<String>,
    },
    /// The sites directory, with our own directory in it.
    SitesDir(PathBuf),
    /// Our own directory, in a sites directory that was there before.
    OwnDir(PathBuf),
    /// A certificate in the host certificate's place.
    HostFile(PathBuf),
    /// The link that makes certbot call this program.
    Hook {
        /// Where it is.
        link: PathBuf,
        /// What it leads to.
        program: PathBuf,
    },
    /// A fleet's cache in another place than the default one, where the units could not make it.
    Cache(PathBuf),
    /// What tells a hardened unit of ours of other directories than the default ones.
    DropIn {
        /// The unit.
        unit: OwnUnit,
        /// Where it is.
        file: PathBuf,
        /// What it holds.
        text: String,
    },
}

/// What becomes of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is there.
    There,
    /// It is to be made.
    Make,
    /// Something else is in its place, and stays.
    Blocked(&'static str),
}

/// What is to be made, and what is left to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a plan is only a value: it does nothing until it is carried out"]
pub struct Preparation {
    /// The items in the order in which they are made.
    pub items: Vec<(Item, Fate)>,
    /// What is left to do.
    pub left: Vec<Left>,
}

impl Preparation {
    /// The settings file's text as it will be; `there`: what it holds, where there is one.
    pub(super) fn configuration<'a>(&'a self, there: Option<&'a [u8]>) -> Option<&'a str> {
        let config = |(item, fate): &'a (Item, Fate)| match item {
            Item::Config { text, .. } if *fate == Fate::Make => Some(text.as_str()),
            Item::Config { .. } => there.and_then(|there| std::str::from_utf8(there).ok()),
            _ => None,
        };
        self.items.iter().find_map(config)
    }

    /// Whether something else is in the way of an item.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.items.iter().any(|(_, fate)| matches!(fate, Fate::Blocked(_)))
    }
}

/// Decides what is to be made. `hook`: the link among certbot's hooks is wanted.
pub fn plan(settings: &Settings, found: &Found, hook: bool) -> Preparation {
    let make_unless = |there: bool| if there { Fate::There } else { Fate::Make };
    let mut items = Vec::new();
    // Where nobody loads anything, what is made for HAProxy would begin to be looked after.
    let serves = !found.only_publishes();
    if serves {
        items.push((Item::SitesDir(settings.sites_dir.clone()), make_unless(found.sites_dir)));
    }
    if serves && found.sites_dir && !found.own_dir {
        items.push((Item::OwnDir(settings.sites_dir.join(OWN_DIR)), Fate::Make));
    }
    let host_file = match found.host_file {
        HostFile::Absent | HostFile::OutOfReach => Fate::Make,
        HostFile::File => Fate::There,
        HostFile::Dangling => Fate::Blocked("a link that leads nowhere has this name; HAProxy can't load it"),
        HostFile::Directory => Fate::Blocked("a directory has this name"),
        HostFile::Other => Fate::Blocked("something that is no file has this name"),
    };
    if serves && found.host_file != HostFile::OutOfReach {
        items.push((Item::HostFile(settings.host_file.clone()), host_file));
    }
    let hooks = found.hook.as_ref().filter(|_| !found.is_node());
    if let Some((link, there)) = hooks.filter(|(_, there)| hook || *there == Hook::Ours) {
        let fate = match there {
            Hook::Absent => Fate::Make,
            Hook::Ours => Fate::There,
            Hook::Other => Fate::Blocked("something else has this name"),
        };
        items.push((Item::Hook { link: link.clone(), program: found.program.clone() }, fate));
    }
    let units = found.units.iter().filter(|found| serves || !found.unit.serves());
    let told: Vec<(Item, Fate)> = units.filter_map(|found| plan_drop_in(settings, found)).collect();
    if let Some(fleet) = settings.fleet.as_ref().filter(|fleet| !fleet.cache.starts_with(CACHES))
        && told.iter().any(|(item, _)| matches!(item, Item::DropIn { unit, .. } if unit.writes()))
        && found.fleet.part != FleetPart::Unsaid
    {
        items.push((Item::Cache(fleet.cache.clone()), make_unless(found.fleet.has_cache)));
    }
    items.extend(told);
    Preparation { items, left: left_to_do(settings, found, hook) }
}

/// What tells a unit of these settings, where it needs that or was told of others.
fn plan_drop_in(settings: &Settings, found: &FoundUnit) -> Option<(Item, Fate)> {
    let FoundUnit { unit, drop_in, file } = found;
    let is_ours = drop_in.as_ref().is_some_and(|there| there.starts_with(drop_in::MARK));
    if !drop_in::is_needed(*unit, settings) && !is_ours {
        return None;
    }
    let (text, fate) = match (drop_in::text(*unit, settings), drop_in) {
        (None, _) => (String::new(), Fate::Blocked("systemd can't express a directory with this name")),
        (Some(text), Some(there)) if *there == text => (text, Fate::There),
        (Some(text), Some(_)) if !is_ours => (text, Fate::Blocked("it wasn't written by init")),
        (Some(text), _) => (text, Fate::Make),
    };
    Some((Item::DropIn { unit: *unit, file: file.clone(), text }, fate))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::lines::{left_lines, line};
    use super::*;
    use crate::certbot::cli_ini::SavedHook;
    use crate::config::Overrides;
    use crate::host_setup::fleet_part::FleetFound;

    fn settings(text: &str) -> Settings {
        Settings::parse(text, &Overrides::default()).unwrap()
    }

    fn unit(unit: OwnUnit) -> FoundUnit {
        let file = format!("/etc/systemd/system/{}.d/paths.conf", unit.name()).into();
        FoundUnit { unit, drop_in: None, file }
    }

    fn drop_in(settings: &Settings) -> Option<String> {
        drop_in::text(OwnUnit::Assemble, settings)
    }

    fn nothing() -> Found {
        Found {
            sites_dir: false,
            own_dir: false,
            host_file: HostFile::Absent,
            hook: Some(("/etc/letsencrypt/renewal-hooks/post/haproxy-certs".into(), Hook::Absent)),
            certbot: Some([4, 0, 0]),
            saved_hooks: Vec::new(),
            cli_ini: String::new(),
            any_lineage: false,
            units: vec![unit(OwnUnit::Assemble)],
            configured: None,
            loads_others: None,
            program: "/usr/bin/haproxy-certs".into(),
            fleet: FleetFound::default(),
        }
    }

    fn everything() -> Found {
        let (link, _) = nothing().hook.unwrap();
        Found {
            sites_dir: true,
            own_dir: true,
            host_file: HostFile::File,
            hook: Some((link, Hook::Ours)),
            any_lineage: true,
            configured: Some(true),
            loads_others: None,
            ..nothing()
        }
    }

    /// All that is left to do, with the commands.
    fn left(plan: &Preparation) -> String {
        let lines: Vec<String> = left_lines(plan).into_iter().map(|line| line.text).collect();
        lines.join("\n")
    }

    fn fates(plan: &Preparation) -> Vec<&Fate> {
        plan.items.iter().map(|(_, fate)| fate).collect()
    }

    #[test]
    fn on_a_ready_host_nothing_is_made_and_nothing_left() {
        let plan = plan(&settings(""), &everything(), true);
        assert_eq!(fates(&plan), [&Fate::There; 3]);
        assert_eq!(plan.left, []);
    }

    #[test]
    fn on_a_fresh_host_all_is_made_and_the_way_on_is_shown() {
        let plan = plan(&settings(""), &nothing(), true);
        assert_eq!(fates(&plan), [&Fate::Make; 3]);
        let left = left(&plan);
        assert!(
            left.contains("\n       -> haproxy-certs haproxy-config\n") && left.contains("issue -d"),
            "{left}"
        );
    }

    #[test]
    fn the_hook_is_made_only_where_it_is_wanted() {
        let without = plan(&settings(""), &nothing(), false);
        assert_eq!(without.items.len(), 2);
        assert!(left(&without).contains("init --hook"));
        // One that is there is shown, wanted or not.
        assert_eq!(plan(&settings(""), &everything(), false).items.len(), 3);
    }

    #[test]
    fn a_certbot_that_issues_without_post_hooks_needs_a_line_in_cli_ini() {
        let link = "/etc/letsencrypt/renewal-hooks/post/haproxy-certs";
        let said = |certbot, saved: &[&str]| {
            let saved_hooks = saved.iter().map(|command| SavedHook {
                file: "/etc/letsencrypt/cli.ini".into(),
                line: 3,
                command: (*command).to_owned(),
            });
            let found = Found { certbot, saved_hooks: saved_hooks.collect(), ..everything() };
            left(&plan(&settings(""), &found, true))
        };
        let quoted = format!("'post-hook = test ! -x {link} || {link}' >> /etc/letsencrypt/cli.ini");
        assert!(said(Some([2, 1, 0]), &[]).contains(&quoted));
        assert!(said(None, &[]).contains(&quoted));
        assert_eq!(said(Some([3, 2, 0]), &[]), "");
        assert_eq!(said(Some([2, 1, 0]), &[&format!("test ! -x {link} || {link}")]), "");
        // One of the first version's, which stops certbot once the link is gone.
        let bare = said(Some([2, 1, 0]), &[link]);
        assert!(bare.contains("/etc/letsencrypt/cli.ini line 3\n       -> sed -i "), "{bare}");
    }

    #[test]
    fn a_layout_that_was_there_before_is_shown_before_it_is_changed() {
        let found = Found { own_dir: false, ..everything() };
        let plan = plan(&settings(""), &found, false);
        assert_eq!(fates(&plan), [&Fate::There, &Fate::Make, &Fate::There, &Fate::There]);
        assert!(left(&plan).contains("\n       -> haproxy-certs assemble --dry-run -v\n"), "{plan:?}");
    }

    #[test]
    fn what_is_no_file_is_no_host_certificate() {
        for host_file in [HostFile::Dangling, HostFile::Directory, HostFile::Other] {
            let found = Found { host_file, ..everything() };
            assert!(plan(&settings(""), &found, false).is_blocked());
        }
    }

    #[test]
    fn a_file_of_somebody_elses_stays() {
        let (link, _) = nothing().hook.unwrap();
        let certbot = Some([2, 1, 0]);
        let found = Found { hook: Some((link, Hook::Other)), certbot, ..everything() };
        let plan = plan(&settings(""), &found, true);
        assert!(plan.is_blocked());
        // It isn't said when certbot runs it, nor is a line of cli.ini that would call it.
        assert_eq!(plan.left, []);
        assert!(line(&plan.items[2].0, &plan.items[2].1, false).text.starts_with("left alone"));
    }

    #[test]
    fn a_tree_that_is_not_certbots_has_no_hook() {
        let found = Found { hook: None, ..everything() };
        let plan = plan(&settings("live_dir = \"/srv/certs\""), &found, true);
        assert_eq!(plan.items.len(), 2);
        assert!(left(&plan).contains("/srv/certs is not certbot's own;"), "{plan:?}");
    }

    #[test]
    fn other_directories_need_a_drop_in_where_the_unit_is_installed() {
        let elsewhere = settings("sites_dir = \"/srv/my 100%/sites\"\nhost_file = \"/srv/host.pem\"");
        let text = drop_in(&elsewhere).unwrap();
        assert!(text.contains("\nReadWritePaths=/srv\n"), "{text}");
        let beside = settings("sites_dir = \"/srv/my 100%/sites\"\nhost_file = \"/srv/my 100%/host.pem\"");
        assert!(drop_in(&beside).unwrap().contains("\nReadWritePaths=\"/srv/my 100%%\"\n"));
        assert!(drop_in(&settings("sites_dir = \"/srv/sites\"")).unwrap().contains("\nProtectSystem=no\n"));
        let condition =
            "ConditionPathIsDirectory=\nConditionPathIsDirectory=/srv/my 100%%/sites/.haproxy-certs\n";
        assert!(text.contains(condition));
        // Another directory among those that the unit may write to: only the condition is another.
        let near = drop_in(&settings("sites_dir = \"/usr/local/ssl/certs/edge\"")).unwrap();
        assert!(near.contains("/edge/.haproxy-certs\n") && !near.contains("[Service]"), "{near}");
        let with = |drop_in: Option<&str>| Found {
            units: vec![FoundUnit { drop_in: drop_in.map(ToOwned::to_owned), ..unit(OwnUnit::Assemble) }],
            ..everything()
        };
        let fate = |found: &Found| plan(&elsewhere, found, false).items.pop().unwrap().1;
        assert_eq!(fate(&with(None)), Fate::Make);
        assert_eq!(fate(&with(Some(&text))), Fate::There);
        assert_eq!(fate(&with(Some(&format!("{}\n", drop_in::MARK)))), Fate::Make);
        assert!(matches!(fate(&with(Some("[Service]\n"))), Fate::Blocked(_)));
        let without_unit = Found { units: Vec::new(), ..everything() };
        assert_eq!(plan(&elsewhere, &without_unit, false).items.len(), 3);
        // Back to the default directories: what was written for others doesn't stay.
        let (file, fate) = plan(&settings(""), &with(Some(&text)), false).items.pop().unwrap();
        let Item::DropIn { text, .. } = file else { panic!("{file:?}") };
        assert_eq!(fate, Fate::Make);
        assert!(text.contains("=/usr/local/ssl/certs/sites/.haproxy-certs\n"), "{text}");
        assert_eq!(plan(&settings(""), &with(Some("[Service]\n")), false).items.len(), 3);
    }

    /// systemd takes UTF-8 as it is, and nothing else: an escape would name another directory.
    #[test]
    fn a_directory_that_is_not_ascii_is_named_as_it_is() {
        use std::os::unix::ffi::OsStrExt as _;
        let text = drop_in(&settings(
            "sites_dir = \"/srv/f\u{fc}r a\\\\b/sites\"\nhost_file = \"/srv/f\u{fc}r a\\\\b/host.pem\"",
        ));
        let text = text.unwrap();
        assert!(text.contains("=/srv/f\u{fc}r a\\b/sites/.haproxy-certs\n"), "{text}");
        assert!(text.contains("\nReadWritePaths=\"/srv/f\u{fc}r a\\\\b\"\n"), "{text}");
        let raw = Path::new(std::ffi::OsStr::from_bytes(b"/srv/\xff/sites"));
        let overrides = Overrides { sites_dir: Some(raw.to_owned()), ..Overrides::default() };
        let raw = Settings::parse("", &overrides).unwrap();
        assert_eq!(drop_in(&raw), None);
        assert!(plan(&raw, &everything(), false).is_blocked());
    }
}
