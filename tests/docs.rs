//! The documents say what the program does: options, words, exit statuses, configuration keys with their defaults, and
//! every example.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code may fail loudly")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use clap::{Arg, CommandFactory as _, ValueEnum as _};
use haproxy_certs::certified_key::Flaw;
use haproxy_certs::cli::Cli;
use haproxy_certs::config::{Method, Overrides, Settings};
use haproxy_certs::fleet::trouble::FleetTrouble;
use haproxy_certs::haproxy::verdict::Outcome;
use haproxy_certs::output::Exit;
use haproxy_certs::plan::action::Action;
use haproxy_certs::plan::reason::Reason;
use haproxy_certs::plan::warning::Warning;
use haproxy_certs::status::severity::{PlaceState, ProblemKind, Severity};
use strum::VariantArray as _;
use support::summary::Count;
use support::tree::{make_directory, write};
use support::{Cmd, Haproxy, Key, KeyKind, Kind, Tree, Validity, system_haproxy};

const README: &str = include_str!("../README.md");
const MAN_7: &str = include_str!("../man/haproxy-certs.7");
const MAN_FLEET: &str = include_str!("../man/haproxy-certs-fleet.7");
const MAN_8: &str = include_str!("../man/haproxy-certs.8");
const MAN_5: &str = include_str!("../man/haproxy-certs.toml.5");

/// Options of other programs that the documents mention.
const OF_OTHERS: [&str; 30] = [
    "--keep-until-expiring",
    "--agree-tos",
    "--auto-compaction-retention",
    "--cert-name",
    "--config-dir",
    "--delete",
    "--dns-rfc2136",
    "--dns-rfc2136-credentials",
    "--email",
    "--failed",
    "--force-renewal",
    "--fullchain-file",
    "--ignore-missing",
    "--http-01-port",
    "--install-cert",
    "--prefix",
    "--ip-address",
    "--key-file",
    "--key-type",
    "--manual",
    "--no-install-recommends",
    "--now",
    "--preferred-challenges",
    "--preferred-profile",
    "--release",
    "--reloadcmd",
    "--renew-hook",
    "--reuse-key",
    "--standalone",
    "--webroot",
];

type Words = BTreeSet<String>;

/// Every variant of an enum; doesn't compile while one is left out.
macro_rules! every {
    ($kind:ident: $($variant:ident),+ $(; $other:pat)?) => {{
        let complete = |one: $kind| match one {
            $($kind::$variant)|+ => one,
            $($other => one,)?
        };
        [$($kind::$variant),+].map(complete)
    }};
}

fn actions() -> Words {
    Action::VARIANTS.iter().map(|action| action.name().to_owned()).collect()
}

fn reasons() -> Words {
    let flaws = Flaw::VARIANTS.iter().map(|flaw| flaw.name().to_owned());
    let others = every!(Reason: LineageTorn, NotARegularFile, TooLarge, NameUnsafe, OlderThanDeployed,
        WouldReplaceGood, HaproxyRejects, Io; Reason::Unproved(_));
    let others = others.iter().map(|reason| reason.name().to_owned());
    flaws.chain(others).collect()
}

fn warnings() -> Words {
    Warning::VARIANTS.iter().map(|warning| warning.name().to_owned()).collect()
}

fn outcomes() -> Words {
    let outcomes =
        every!(Outcome: Updated, Reloaded, Failed, RolledBack, NotNeeded, NotRunning, Skipped, Deferred);
    outcomes
        .iter()
        .map(|outcome| serde_json::to_value(outcome).unwrap().as_str().unwrap().to_owned())
        .collect()
}

fn exit_codes() -> Words {
    let exits = every!(Exit: Fine, Partly, Untold, Unable, ToDo, Usage; Exit::Seen(_) | Exit::Certbot(_));
    exits.iter().map(|exit| exit.code().to_string()).collect()
}

/// The command line's definition, with what clap adds to it.
fn definition() -> clap::Command {
    let mut definition = Cli::command();
    definition.build();
    definition
}

fn visible(command: &clap::Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !arg.is_hide_set())
}

/// An option's names, the short one first.
fn names(arg: &Arg) -> Vec<String> {
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    short.into_iter().chain(long).collect()
}

/// What takes the place of values, such as FILE.
fn value_names(arg: &Arg) -> Vec<String> {
    if !arg.get_action().takes_values() {
        return Vec::new();
    }
    arg.get_value_names().into_iter().flatten().map(ToString::to_string).collect()
}

fn possible_values(arg: &Arg) -> Words {
    if !arg.get_action().takes_values() {
        return Words::new();
    }
    let values = arg.get_possible_values();
    values.iter().filter(|value| !value.is_hide_set()).map(|value| value.get_name().to_owned()).collect()
}

fn all_options() -> Words {
    let definition = definition();
    let commands = [&definition].into_iter().chain(definition.get_subcommands());
    let nested = definition.get_subcommands().flat_map(clap::Command::get_subcommands);
    commands.chain(nested).flat_map(visible).flat_map(names).collect()
}

// ---- the README -------------------------------------------------------------------------------------------------

/// The fenced blocks of a language.
fn fenced(language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = README.lines();
    while let Some(fence) = lines.by_ref().find(|line| line.starts_with("```")) {
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if fence == format!("```{language}") {
            blocks.push(block.join("\n") + "\n");
        }
    }
    assert!(!blocks.is_empty(), "README has no {language}");
    blocks
}

/// One sitting: what is longer belongs into the manual pages.
#[test]
fn the_readme_is_short() {
    let lines = README.lines().count();
    assert!(lines <= 200, "{lines} lines");
}

#[test]
fn the_readme_names_no_option_that_does_not_exist() {
    let known = all_options();
    let named = words_with_dashes(README);
    let unknown: Vec<_> =
        named.iter().filter(|word| !known.contains(*word) && !OF_OTHERS.contains(&word.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// Every `--word` of a text.
fn words_with_dashes(text: &str) -> Words {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    text.split(|letter: char| !is_part(letter))
        .filter(|word| {
            word.strip_prefix("--").is_some_and(|name| name.starts_with(|l: char| l.is_ascii_lowercase()))
        })
        .map(|word| word.trim_end_matches('-').to_owned())
        .collect()
}

#[test]
fn the_links_of_the_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for document in [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "tests/README.md",
        "tests/bench/README.md",
    ] {
        let path = root.join(document);
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let leads = link.starts_with("https://") || path.parent().unwrap().join(link).exists();
            assert!(leads, "{document}: {link}");
        }
    }
}

#[test]
fn the_manuals_json_has_the_keys_of_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let (live, sites) = (folder.path().join("live"), folder.path().join("sites"));
    let lineage = live.join("example.org");
    fs::create_dir_all(&lineage).unwrap();
    let pair = rcgen::generate_simple_self_signed(["example.org".to_owned()]).unwrap();
    fs::write(lineage.join("privkey.pem"), pair.signing_key.serialize_pem()).unwrap();
    fs::write(lineage.join("fullchain.pem"), pair.cert.pem()).unwrap();
    let config = folder.path().join("config.toml");
    let text = format!(
        "live_dir = {:?}\nsites_dir = {:?}\n[[haproxy]]\nreload = \"none\"\nbinary = \"\"\n",
        live.to_str().unwrap(),
        sites.to_str().unwrap()
    );
    fs::write(&config, text).unwrap();
    let output = run(&["--config", config.to_str().unwrap(), "assemble", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["summary"]["install"], 1, "{report}");
    compare_keys("assemble", &report, &["", "/sites/0", "/summary", "/haproxy/0"]);
}

/// The manual's example of a command's JSON has the keys of a real one, in these places.
#[track_caller]
fn compare_keys(command: &str, report: &serde_json::Value, places: &[&str]) {
    let json = man_section(MAN_8, "JSON").split(".Bd -literal\n").skip(1);
    let mut json = json.map(|rest| rest.split("\n.Ed").next().unwrap());
    let shown: serde_json::Value = json
        .find_map(|text| {
            let value: serde_json::Value =
                serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
            (value.get("command")?.as_str() == Some(command)).then_some(value)
        })
        .unwrap();
    for place in places {
        let keys = |value: &serde_json::Value| -> Words {
            let part = value.pointer(place).and_then(|part| part.as_object());
            part.unwrap_or_else(|| panic!("no {place} in {value}")).keys().cloned().collect()
        };
        assert_eq!(keys(&shown), keys(report), "{command} {place}");
    }
}

#[test]
fn haproxy_accepts_the_example_of_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let sites = folder.path().join("sites");
    fs::create_dir(&sites).unwrap();
    let pair = rcgen::generate_simple_self_signed(["example.org".to_owned()]).unwrap();
    let pem = pair.signing_key.serialize_pem() + &pair.cert.pem();
    for file in [folder.path().join("host.pem"), sites.join("example.org.pem")] {
        fs::write(&file, &pem).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    }
    let config = folder.path().join("haproxy.cfg");
    let shown = fenced("haproxy").concat().replace("/usr/local/ssl/certs", folder.path().to_str().unwrap());
    let text = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n{shown}\
         backend web\n server web 127.0.0.1:8080\n"
    );
    fs::write(&config, text).unwrap();
    let output =
        Command::new("haproxy").args(["-c", "-f"]).arg(config).env("PATH", SYSTEM_PATH).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("[WARNING]"), "{said}");
}

/// The README's commands on the example trees, run in a copy of them with the modes that git gives them.
#[test]
fn the_readmes_examples_do_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("sh")
        .args(["-ec", "cp -a fixtures \"$0\"; chmod -R go=u,go-w \"$0/fixtures\""])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(copied.status.success(), "{copied:?}");
    // What was built already, for `cargo run --`.
    let cargo = format!("#!/bin/sh\nshift 2\nexec {} \"$@\"\n", program().get_program().display());
    make_directory(&folder.path().join("bin"), 0o755);
    write(&folder.path().join("bin/cargo"), cargo, 0o755);
    let ends = |line: &str, code: i32| {
        let path = format!("{}:/usr/bin:/bin", folder.path().join("bin").display());
        let output = Command::new("sh")
            .args(["-ec", line])
            .env("PATH", path)
            .env_remove("HAPROXY_CERTS_CONFIG")
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.stderr.is_empty() && output.status.code() == Some(code), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let commands = fenced("sh");
    let shown = ends(&commands[0], 0);
    assert!(shown.contains("install    example.org.pem\n"), "{shown}");
    assert!(!shown.contains('['), "a newcomer has to explain that away: {shown}");
    assert!(folder.path().join("target/example/sites").is_dir());
    // The second tree's refusals.
    let others: Vec<&str> = commands[1..].iter().flat_map(|block| block.lines()).collect();
    let mut broken = others.iter().filter(|line| line.starts_with("cargo run -- "));
    ends(broken.next().expect("no command for the broken tree"), 1);
    assert_eq!(broken.next(), None);
}

/// The README shows a status as it is, but for the days, the seconds and the serial numbers.
#[test]
fn the_readmes_status_is_what_the_program_prints() {
    let mut tree = Tree::new();
    for (name, names, kind, validity) in [
        ("blog.example.org", vec!["blog.example.org"], KeyKind::P256, Validity::days(60)),
        ("example.org", vec!["example.org", "www.example.org"], KeyKind::Rsa2048, Validity::days(80)),
        ("mail.example.org", vec!["mail.example.org"], KeyKind::P256, Validity::left(0.2)),
        ("shop.example.org", vec!["shop.example.org"], KeyKind::P256, Validity::days(90)),
    ] {
        tree.issue(name, kind, &names, validity);
    }
    let cmd = Cmd::new(tree.live());
    let untold = |code| cmd.run(&["assemble", "--reload", "none"]).exits(code);
    untold(0);
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).start();
    tree.renew("shop.example.org");
    tree.overwrite("blog.example.org", Kind::Privkey, Key::fresh(KeyKind::P256).pem());
    let run = untold(1);
    let cmd = cmd.haproxy(&haproxy, "").env("COLUMNS", "80");
    let seen = cmd.run(&["status"]).exits(2);
    let shown = fenced("text");
    let shown = shown.iter().find(|text| text.starts_with("STAT ")).expect("README shows no status");
    let printed = seen.stdout.replace(tree.root().to_str().unwrap(), "/etc/letsencrypt");
    // At their usual places.
    let printed = printed.replace(" --config-dir /etc/letsencrypt", "");
    let printed = printed.replace(haproxy.pidfile().to_str().unwrap(), "/run/haproxy.pid");
    assert_eq!(masked(shown), masked(&printed), "{run}\n{seen}");

    tree.renew("example.org");
    cmd.run(&["assemble"]).exits(1);
    let mut report = cmd.run(&["status", "--format", "json"]).json();
    let shop = report["sites"][3].take();
    assert_eq!(shop["details"][0]["problem"], "haproxy-stale", "{shop}");
    // The manual shows one site.
    report["sites"][0] = shop;
    let places =
        ["", "/sites/0", "/sites/0/details/0", "/sites/0/certbot", "/sites/0/disk", "/sites/0/haproxy/0"];
    compare_keys("status", &report, &places);
    compare_keys("status", &report, &["/summary", "/haproxy/0", "/haproxy/0/last_told", "/last_run"]);
}

/// The words without what differs from one run to the next: numbers, serial numbers, and where lines are broken.
fn masked(text: &str) -> Vec<String> {
    let is_serial = |word: &str| word.len() == 12 && word.bytes().all(|letter| letter.is_ascii_hexdigit());
    let word = |word: &str| -> String {
        if is_serial(word.trim_end_matches([',', '.'])) {
            return "SERIAL".to_owned();
        }
        let mut letters: Vec<char> =
            word.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
        letters.dedup_by(|a, b| *a == '0' && *b == '0');
        letters.into_iter().collect()
    };
    text.replace(" second ", " seconds ").split_whitespace().map(word).collect()
}

// ---- the configuration ------------------------------------------------------------------------------------------

fn parse(text: &str) -> Settings {
    Settings::parse(text, &Overrides::default()).unwrap_or_else(|e| panic!("{e}:\n{text}"))
}

/// The keys that may stand in a table: what the parser says when it meets another one.
fn keys(table: &str) -> Words {
    let error =
        Settings::parse(&format!("{table}\nno_such_key = 1"), &Overrides::default()).unwrap_err().to_string();
    let (_, expected) = error.split_once("expected").unwrap_or_else(|| panic!("{error}"));
    expected.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

/// The keys of the top, without the tables.
fn top_keys() -> Words {
    keys("").into_iter().filter(|key| !["haproxy", "certbot", "fleet"].contains(&key.as_str())).collect()
}

#[test]
fn every_example_of_a_configuration_is_accepted() {
    let of_the_manual = MAN_5.split("\n.Bd -literal -offset indent\n").skip(1);
    let of_the_manual: Vec<&str> = of_the_manual.map(|rest| rest.split("\n.Ed\n").next().unwrap()).collect();
    assert!(!of_the_manual.is_empty());
    for text in of_the_manual {
        parse(text);
    }
    let tables = tables_of_topics().map(parse).count();
    assert_eq!(tables, 2, "one for a container, one for two HAProxys");
    for text in fenced("toml") {
        parse(&text);
    }
}

/// The host may have a HAProxy of its own, where all the defaults lead.
#[test]
fn the_container_of_the_manual_is_not_taken_for_the_hosts_haproxy() {
    let text = tables_of_topics().find(|text| text.contains("/srv/lb/")).unwrap();
    let settings = parse(text);
    let haproxy = settings.haproxys.first().unwrap();
    assert_eq!(haproxy.unit, "");
    assert_eq!(haproxy.pidfile, Path::new(""));
    assert!(haproxy.master_socket.is_none() && haproxy.binary.is_none() && !haproxy.config.is_empty());
    assert!(haproxy.runtime_socket.is_some(), "{text}");
}

/// The examples of a configuration on the page of topics.
fn tables_of_topics() -> impl Iterator<Item = &'static str> {
    let displays = MAN_7.split("\n.Bd -literal -offset indent\n").skip(1);
    let displays = displays.map(|rest| rest.split("\n.Ed\n").next().unwrap());
    displays.filter(|text| text.contains("[[haproxy]]"))
}

/// The settings that the package shows, without their comment signs.
#[test]
fn the_shown_settings_have_every_key_and_only_defaults() {
    let shown = include_str!("../packaging/haproxy-certs.toml");
    let uncommented = shown.lines().filter_map(|line| line.strip_prefix("# "));
    let is_setting =
        |line: &&str| line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| is_key(key));
    let lines: Vec<&str> = uncommented.filter(is_setting).collect();
    let table: toml::Table = lines.join("\n").parse().unwrap();
    let keys_of = |table: &toml::Table| -> Words { table.keys().cloned().collect() };
    // A fleet has no defaults: it is only named.
    let fleet: Words = ["fleet".to_owned()].into();
    assert_eq!(keys_of(&table), &keys("") - &fleet);
    assert!(shown.contains("haproxy-certs-fleet(7)"));
    assert_eq!(keys_of(table["haproxy"][0].as_table().unwrap()), keys("[[haproxy]]"));
    assert_eq!(keys_of(table["certbot"].as_table().unwrap()), keys("[certbot]"));
    let is_default = |line: &&&str| !line.starts_with("host_lineage") && !line.starts_with("owner");
    let rest: Vec<&str> = lines.iter().filter(is_default).copied().collect();
    assert_eq!(format!("{:?}", parse(&rest.join("\n"))), format!("{:?}", parse("")));
}

/// Whether a commented line sets something, and isn't prose.
fn is_key(text: &str) -> bool {
    text.trim_end()
        .bytes()
        .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'_')
}

#[test]
fn the_manual_has_every_key_with_its_default() {
    let mut defaults: Vec<String> = Vec::new();
    let mut without_default = Words::new();
    for (title, head, expected) in [
        ("Keys at the top", "", top_keys()),
        ("[[haproxy]] tables", "[[haproxy]]", keys("[[haproxy]]")),
        ("[certbot] table", "[certbot]", keys("[certbot]")),
    ] {
        let mut found = Words::new();
        defaults.push(head.to_owned());
        for item in subsection(MAN_5, title).lines().filter_map(|line| line.strip_prefix(".It Ic ")) {
            let (key, default) = item.split_once(" No = Li ").unwrap_or((item, ""));
            if default.is_empty() {
                without_default.insert(key.to_owned());
            } else {
                defaults.push(format!("{key} = {}", default.replace("\\(dq", "\"")));
            }
            assert!(found.insert(key.to_owned()), "{key} twice");
        }
        assert_eq!(found, expected, "{title}");
    }
    for title in ["[fleet]", "[[fleet.node]]"] {
        let kind = if title.starts_with("[[") { "tables" } else { "table" };
        let text = subsection(MAN_5, &format!("{title} {kind}"));
        let items = text.lines().filter_map(|line| line.strip_prefix(".It Ic "));
        let found: Words = items.map(|item| item.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(found, keys(title), "{title}");
    }
    assert_eq!(without_default, ["host_lineage", "owner"].map(ToOwned::to_owned).into());
    assert_eq!(format!("{:?}", parse(&defaults.join("\n"))), format!("{:?}", parse("")));
}

// ---- containers -------------------------------------------------------------------------------------------------

const COMPOSE: &str = include_str!("../packaging/compose.yaml");
const CONTAINERFILE: &str = include_str!("../packaging/container/Containerfile");

/// The lists of words, as JSON writes them, of the lines that begin so.
fn lists_of<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = Vec<String>> + 'a {
    let lists = text.lines().filter_map(move |line| line.trim().strip_prefix(start));
    lists.map(|list| serde_json::from_str(list).unwrap_or_else(|e| panic!("{e}: {list}")))
}

#[test]
fn the_containers_commands_are_the_programs() {
    let commands = lists_of(COMPOSE, "command: ").chain(lists_of(CONTAINERFILE, "CMD "));
    let of_ours: Vec<Vec<String>> =
        commands.filter(|words| ["assemble", "init"].contains(&words.first().unwrap().as_str())).collect();
    let interval = ["assemble", "--interval", "1m"].map(ToOwned::to_owned).to_vec();
    assert_eq!(of_ours, [vec!["init".to_owned()], interval.clone(), interval]);
    let check = CONTAINERFILE.lines().find_map(|line| line.strip_prefix("HEALTHCHECK ")).unwrap();
    let (options, check) = check.split_once(" CMD ").unwrap();
    let check: Vec<String> = serde_json::from_str(check).unwrap();
    let of_compose: Vec<Vec<String>> = lists_of(COMPOSE, "test: ").collect();
    assert_eq!(of_compose, [[vec!["CMD".to_owned()], check.clone()].concat()]);
    for option in options.split(' ') {
        let line = option.trim_start_matches("--").replace('=', ": ").replace("start-period", "start_period");
        assert!(COMPOSE.lines().any(|it| it.trim() == line), "{line}");
    }
    for command in of_ours.into_iter().chain([check[1..].to_vec()]) {
        let words = ["haproxy-certs".to_owned()].into_iter().chain(command);
        Cli::parse_from_args(words.map(Into::into).collect()).unwrap();
    }
    let images: BTreeSet<&str> =
        COMPOSE.lines().filter_map(|line| line.trim().strip_prefix("image: haproxy-certs:")).collect();
    assert_eq!(images, [env!("CARGO_PKG_VERSION")].into());
}

/// Nobody has the engine's socket, or a privilege; what is mounted is there.
#[test]
fn the_containers_have_what_they_need_and_no_more() {
    assert!(
        !COMPOSE.contains(".sock:")
            && !COMPOSE.contains("docker.sock")
            && !COMPOSE.contains("privileged: true")
    );
    let services = COMPOSE.lines().filter(|line| line.starts_with("    image: ")).count();
    for line in ["    cap_drop: [ALL]", "    security_opt: [\"no-new-privileges:true\"]"] {
        assert_eq!(COMPOSE.lines().filter(|it| *it == line).count(), services, "{line}");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let mounted: Words = COMPOSE
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- ./")?.split(':').next())
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(mounted.len(), 3, "{mounted:?}");
    for file in &mounted {
        assert!(folder.join(file).is_file(), "{file}");
        let manifest = include_str!("../Cargo.toml");
        assert_eq!(
            manifest.matches(&format!("\"packaging/{file}\"")).count(),
            2,
            "{file} is in both packages"
        );
    }
    let settings = parse(include_str!("../packaging/container/haproxy-certs.toml"));
    let haproxy = settings.haproxys.first().unwrap();
    let socket = haproxy.master_socket.as_ref().unwrap().to_string();
    assert!(COMPOSE.contains(&format!("\"-S\", \"{socket},mode,600\"")), "{socket}");
    assert_eq!(haproxy.unit, "");
    assert!(haproxy.pidfile == Path::new("") && haproxy.binary.is_none());
    let config = include_str!("../packaging/container/haproxy.cfg");
    let port = include_str!("../packaging/container/certbot.ini").split("http-01-port = ").nth(1).unwrap();
    assert!(config.contains(&format!("server certbot certbot:{} resolvers", port.trim())), "{port}");
    assert!(config.contains(&format!("crt {} crt {} ", haproxy.host_file, haproxy.sites_dir)));
}

#[test]
fn haproxy_accepts_the_containers_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(["example.org".to_owned()]).unwrap();
    fs::create_dir(folder.path().join("sites")).unwrap();
    let host = folder.path().join("host.pem");
    fs::write(&host, pair.signing_key.serialize_pem() + &pair.cert.pem()).unwrap();
    fs::set_permissions(&host, fs::Permissions::from_mode(0o400)).unwrap();
    let text = include_str!("../packaging/container/haproxy.cfg");
    let config = folder.path().join("haproxy.cfg");
    fs::write(&config, text.replace("/usr/local/ssl/certs", folder.path().to_str().unwrap())).unwrap();
    let output =
        Command::new("haproxy").args(["-c", "-f"]).arg(config).env("PATH", SYSTEM_PATH).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("[WARNING]"), "{said}");
}

// ---- the manual pages -------------------------------------------------------------------------------------------

/// From the line after a heading to the next heading of its kind or a higher one.
fn part<'a>(man: &'a str, heading: &str, ends: &[&str]) -> &'a str {
    let heading = format!("\n{heading}\n");
    let start = man.find(&heading).unwrap_or_else(|| panic!("the manual has no{heading}")) + heading.len();
    let text = man.get(start..).unwrap();
    let end = ends.iter().filter_map(|end| text.find(end)).min().unwrap_or(text.len());
    text.get(..end).unwrap()
}

fn man_section<'a>(man: &'a str, title: &str) -> &'a str {
    part(man, &format!(".Sh {title}"), &["\n.Sh "])
}

fn subsection<'a>(man: &'a str, title: &str) -> &'a str {
    part(man, &format!(".Ss {title}"), &["\n.Sh ", "\n.Ss "])
}

/// What is listed by a macro, such as `.It Sy WORD`.
fn listed(text: &str, macros: &str) -> Words {
    let words = text.lines().filter_map(|line| line.strip_prefix(macros));
    words.map(ToOwned::to_owned).collect()
}

/// The head of an option's entry, as mdoc writes it.
fn entry(arg: &Arg) -> String {
    let names: Vec<String> =
        names(arg).iter().map(|name| format!("Fl {}", name.strip_prefix('-').unwrap())).collect();
    let values = value_names(arg).iter().map(|name| format!("Ar {name}")).collect();
    [vec![names.join(" , ")], values].concat().join(" ")
}

/// Whether a page's source has a word by itself.
fn has_word(text: &str, word: &str) -> bool {
    text.split(|letter: char| letter.is_whitespace() || ",.".contains(letter)).any(|one| one == word)
}

fn compare_options<'a>(title: &str, args: impl Iterator<Item = &'a Arg>) {
    compare_options_of(MAN_8, title, args);
}

fn compare_options_of<'a>(man: &str, title: &str, args: impl Iterator<Item = &'a Arg>) {
    let text = subsection(man, title);
    let mut expected = Words::new();
    for arg in args {
        if arg.is_positional() {
            for name in value_names(arg) {
                assert!(text.contains(&format!(".Ar {name}")), "{title} lacks {name}");
            }
        } else {
            assert!(expected.insert(entry(arg)));
        }
        for value in possible_values(arg) {
            assert!(has_word(text, &value), "{title} lacks the value {value} of {arg}");
        }
    }
    let found: Words = listed(text, ".It ").into_iter().filter(|head| head.starts_with("Fl ")).collect();
    assert_eq!(found, expected, "{title}");
}

#[test]
fn the_manual_has_every_command_and_option_and_no_other() {
    let definition = definition();
    let general = "Options of every command";
    compare_options(general, visible(&definition));
    let mut titles: Words = [general.to_owned()].into();
    for command in definition.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = command.get_name();
        let is_own = |arg: &&Arg| !arg.is_global_set() && arg.get_long() != Some("help");
        compare_options(name, visible(command).filter(is_own));
        assert!(man_section(MAN_8, "SYNOPSIS").contains(&format!("\n.Cm {name}\n")), "SYNOPSIS lacks {name}");
        titles.insert(name.to_owned());
    }
    assert_eq!(listed(man_section(MAN_8, "DESCRIPTION"), ".Ss "), titles);
}

#[test]
fn the_page_of_fleets_has_every_command_word_and_metric() {
    let definition = definition();
    let fleet = definition.get_subcommands().find(|command| command.get_name() == "fleet").unwrap();
    let mut titles = Words::new();
    for command in fleet.get_subcommands().filter(|command| command.get_name() != "help") {
        let title = format!("fleet {}", command.get_name());
        let is_own = |arg: &&Arg| !arg.is_global_set() && arg.get_long() != Some("help");
        compare_options_of(MAN_FLEET, &title, visible(command).filter(is_own));
        titles.insert(title);
    }
    assert_eq!(listed(man_section(MAN_FLEET, "THE COMMANDS"), ".Ss "), titles);
    let words: Words = FleetTrouble::VARIANTS.iter().map(|trouble| trouble.name().to_owned()).collect();
    let alerts = man_section(MAN_FLEET, "WHAT TO ALERT ON");
    assert_eq!(listed(alerts, ".It Sy "), words);
    let source = include_str!("../src/output/fleet/prometheus.rs");
    let named = source.split("gauge(\"").skip(1).filter_map(|rest| rest.split('"').next());
    let metrics: Words = named.map(|name| format!("haproxy_certs_{name}")).collect();
    assert_eq!(listed(alerts, ".It Li "), metrics);
}

#[test]
fn the_manuals_name_no_option_that_does_not_exist() {
    let known = all_options();
    for man in [MAN_8, MAN_7, MAN_5, MAN_FLEET] {
        let words: Vec<&str> = man.split_whitespace().collect();
        let flags = words.windows(2).filter(|pair| matches!(pair, ["Fl" | ".Fl", _]));
        let mut named: Words = flags.filter_map(|pair| Some(format!("-{}", pair.last()?))).collect();
        // What is behind `--` is certbot's.
        named.remove("--");
        named.extend(words_with_dashes(man));
        named.retain(|word| !OF_OTHERS.contains(&word.as_str()));
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}

#[test]
fn the_manual_explains_every_word_and_no_other() {
    let actions_part = part(MAN_8, ".Sh WHAT IS DONE WITH A FILE", &["\n.Ss ", "\n.Sh "]);
    assert_eq!(listed(actions_part, ".It Sy "), actions());
    assert_eq!(listed(subsection(MAN_8, "Reasons of a refusal"), ".It Sy "), reasons());
    assert_eq!(listed(subsection(MAN_8, "Warnings"), ".It Sy "), warnings());
    assert_eq!(listed(man_section(MAN_8, "EXIT STATUS"), ".It "), exit_codes());
    let telling = man_section(MAN_8, "NOTIFYING HAPROXY");
    let methods: Words = Method::value_variants().iter().map(|method| method.name().to_owned()).collect();
    assert_eq!(listed(telling, ".It Cm "), methods);
    assert_eq!(listed(telling, ".It Sy "), outcomes());
}

/// Doesn't compile while a kind of problem is left out.
fn problems() -> Words {
    let own = |kind| match kind {
        ProblemKind::Refused(_) | ProblemKind::Warned(_) => None,
        ProblemKind::Conflict
        | ProblemKind::Foreign
        | ProblemKind::DiskMissing
        | ProblemKind::Unloadable
        | ProblemKind::DiskStale
        | ProblemKind::NotPublished
        | ProblemKind::HaproxyStale
        | ProblemKind::HaproxyMissing
        | ProblemKind::NotListed
        | ProblemKind::NotPresented
        | ProblemKind::OcspMissing
        | ProblemKind::ReloadOwed
        | ProblemKind::HaproxyDown
        | ProblemKind::HaproxyConfig
        | ProblemKind::HookNotRunning
        | ProblemKind::HookBroken
        | ProblemKind::RenewalOverdue
        | ProblemKind::RunFailed
        | ProblemKind::SettingsBroken => Some(kind.name().to_owned()),
        // A page of their own has them.
        ProblemKind::Fleet(_) => Some("fleet-*".to_owned()),
    };
    let kinds = [
        ProblemKind::Conflict,
        ProblemKind::Foreign,
        ProblemKind::DiskMissing,
        ProblemKind::Unloadable,
        ProblemKind::DiskStale,
        ProblemKind::NotPublished,
        ProblemKind::HaproxyStale,
        ProblemKind::HaproxyMissing,
        ProblemKind::NotListed,
        ProblemKind::NotPresented,
        ProblemKind::OcspMissing,
        ProblemKind::ReloadOwed,
        ProblemKind::HaproxyDown,
        ProblemKind::HaproxyConfig,
        ProblemKind::HookNotRunning,
        ProblemKind::HookBroken,
        ProblemKind::RenewalOverdue,
        ProblemKind::RunFailed,
        ProblemKind::SettingsBroken,
        ProblemKind::Fleet(FleetTrouble::FleetStale),
    ];
    kinds.into_iter().filter_map(own).collect()
}

#[test]
fn the_manual_explains_what_status_says() {
    let text = man_section(MAN_8, "WHAT STATUS SAYS");
    let states = every!(PlaceState: Current, Stale, Missing, Foreign, Unknown);
    let states: Words = states.iter().map(|state| state.name().to_owned()).collect();
    assert_eq!(listed(text, ".It Cm "), states);
    let severities: Words = Severity::ALL.iter().map(|severity| severity.name().to_owned()).collect();
    assert_eq!(listed(text, ".It Em "), severities);
    assert_eq!(listed(subsection(MAN_8, "Problems"), ".It Sy "), problems());
    // Some metrics are there in some cases only: the source has them all.
    let source = include_str!("../src/output/status/prometheus.rs");
    let named = source
        .split("gauge(")
        .skip(1)
        .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
    let metrics: Words = named.map(|name| format!("haproxy_certs_{name}")).collect();
    assert!(metrics.len() > 10, "{metrics:?}");
    assert_eq!(listed(subsection(MAN_8, "Metrics"), ".It Li "), metrics);
}

#[test]
fn the_manual_has_every_environment_variable() {
    let definition = definition();
    let commands = [&definition].into_iter().chain(definition.get_subcommands());
    let of_options = commands.flat_map(visible).filter_map(Arg::get_env);
    let mut expected: Words = of_options.map(|name| name.to_str().unwrap().to_owned()).collect();
    expected.extend(["COLUMNS", "NO_COLOR", "RENEWED_LINEAGE"].map(ToOwned::to_owned));
    assert_eq!(listed(man_section(MAN_8, "ENVIRONMENT"), ".It Ev "), expected);
}

#[test]
fn mandoc_has_nothing_to_say() {
    for page in ["haproxy-certs.7", "haproxy-certs-fleet.7", "haproxy-certs.8", "haproxy-certs.toml.5"] {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("man").join(page);
        let lint = ["-T", "lint", "-W", "warning"];
        let output = Command::new("mandoc").args(lint).arg(page).env("PATH", SYSTEM_PATH).output();
        let output = output.expect("mandoc is one of the packages that tests/install installs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

/// What a reader sees at the top and at the bottom: the section, and this version of this program, not some system's.
#[test]
fn the_manuals_say_what_they_are_of() {
    for page in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("man")).unwrap() {
        let page = page.unwrap().path();
        let name = page.file_stem().unwrap().to_str().unwrap().to_uppercase();
        let section = page.extension().unwrap().to_str().unwrap();
        for formatter in [&["mandoc", "-T", "ascii"][..], &["groff", "-mandoc", "-T", "ascii", "-P", "-c"]] {
            let (program, arguments) = formatter.split_first().unwrap();
            let output = Command::new(program).args(arguments).arg(&page).env("PATH", SYSTEM_PATH).output();
            // groff is what most systems have; mandoc is one of the packages that tests/install installs.
            let Ok(output) = output else { continue };
            let text = String::from_utf8(output.stdout).unwrap();
            let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
            let (head, foot) = (lines.first().unwrap(), lines.last().unwrap());
            let title = format!("{name}({section})");
            // mandoc leaves the second one out where there is no room for it.
            let ends = head.ends_with(&title) || head.trim_end().len() + title.len() >= 78;
            assert!(head.starts_with(&title) && ends, "{head}");
            assert!(!head.contains("BSD") && !head.contains("LOCAL"), "{program}: {head}");
            let version = concat!("haproxy-certs ", env!("CARGO_PKG_VERSION"));
            assert!(foot.starts_with(version) && foot.ends_with(version), "{program}: {foot}");
        }
    }
}

// ---- the completions --------------------------------------------------------------------------------------------

const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_haproxy-certs"));
    program.env_remove("HAPROXY_CERTS_CONFIG").env_remove("RENEWED_LINEAGE");
    program
}

fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

fn completions() -> String {
    let output = run(&["completions", "bash"]);
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// What bash has to offer after a command's name.
fn expected_completions(command: &clap::Command) -> Words {
    visible(command).flat_map(names).collect()
}

#[test]
fn the_completions_have_every_command_and_option() {
    let script = completions();
    let lists = script.lines().filter_map(|line| line.trim().strip_prefix("opts=\"")?.strip_suffix('"'));
    let lists: Vec<Words> =
        lists.map(|list| list.split_whitespace().map(ToOwned::to_owned).collect()).collect();
    let definition = definition();
    for command in [&definition].into_iter().chain(definition.get_subcommands()) {
        let mut expected = expected_completions(command);
        expected.extend(command.get_subcommands().map(|one| one.get_name().to_owned()));
        expected.extend(visible(command).filter(|arg| arg.is_positional()).flat_map(possible_values));
        assert!(lists.contains(&expected), "{}: {expected:?} is none of {lists:#?}", command.get_name());
    }
}

/// Asks bash itself: the script may have all the words and still not find them.
#[test]
fn bash_completes_every_option() {
    let definition = definition();
    for command in definition.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = command.get_name();
        let ask = format!(
            "COMP_WORDS=(haproxy-certs {name} --); COMP_CWORD=2; \
             $(complete -p haproxy-certs | sed 's/.*-F \\([^ ]*\\).*/\\1/') haproxy-certs -- {name}; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let script = completions() + &ask;
        let output =
            Command::new("bash").args(["--norc", "-c", &script]).env("PATH", SYSTEM_PATH).output().unwrap();
        let offered: Words =
            String::from_utf8(output.stdout).unwrap().lines().map(ToOwned::to_owned).collect();
        let long = expected_completions(command).into_iter().filter(|name| name.starts_with("--"));
        assert_eq!(offered, long.collect(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// `tests/run` ends with the table of `tests/README.md`: its rows are what the tests count, each with the number of some run.
#[test]
fn the_tests_readme_quotes_the_table_of_counts() {
    let readme = fs::read_to_string("tests/README.md").unwrap();
    let table = readme.split("| in one run of the tests | times |\n| --- | ---: |\n").nth(1).unwrap();
    let cells = |row: &str| {
        let (words, number) = row.strip_prefix("| ")?.strip_suffix(" |")?.rsplit_once(" | ")?;
        Some((words.to_owned(), number.replace(',', "").parse::<usize>().unwrap()))
    };
    let rows: Vec<(String, usize)> = table.lines().map_while(cells).collect();
    assert!(rows.iter().map(|(words, _)| words.as_str()).eq(Count::ALL.map(Count::words)), "{rows:#?}");
    assert!(rows.iter().all(|(_, number)| *number > 0), "{rows:#?}");
}
