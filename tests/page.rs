//! `status --format html`: a page that says what the other formats say, needs nothing else, and runs nothing of what
//! somebody put into a name.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;
use std::path::Path;

use support::page::{elements, needs_nothing, needs_nothing_but, words};
use support::{Cmd, Haproxy, Key, KeyKind, Kind, Tree, Validity, system_haproxy};

fn page(cmd: &Cmd, code: i32) -> String {
    let run = cmd.run(&["status", "--format", "html"]).exits(code);
    assert_eq!(run.stderr, "");
    needs_nothing(&run.stdout);
    run.stdout
}

/// The status of the README, whose page is left in the target directory: its picture is taken of it.
#[test]
fn the_page_says_what_the_table_says() {
    let mut tree = Tree::new();
    for (name, names, kind, validity) in [
        ("blog.example.org", vec!["blog.example.org"], KeyKind::P256, Validity::left(0.6)),
        ("example.org", vec!["example.org", "www.example.org"], KeyKind::Rsa2048, Validity::left(0.9)),
        ("mail.example.org", vec!["mail.example.org"], KeyKind::P256, Validity::left(0.2)),
        ("shop.example.org", vec!["shop.example.org"], KeyKind::P256, Validity::left(0.35)),
    ] {
        tree.issue(name, kind, &names, validity);
    }
    let cmd = Cmd::new(tree.live());
    cmd.run(&["assemble", "--reload", "none"]).exits(0);
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).start();
    tree.renew("shop.example.org");
    tree.overwrite("blog.example.org", Kind::Privkey, Key::fresh(KeyKind::P256).pem());
    cmd.run(&["assemble", "--reload", "none"]).exits(1);
    let cmd = cmd.haproxy(&haproxy, "");
    let page = page(&cmd, 2);
    let shown = words(&page);
    for text in [
        "CRITICAL 3 of 4 sites not in step: expires-soon, haproxy-stale, key-mismatch, renewal-overdue;",
        "shop.example.org.pem critical, ecdsa-p256 shop.example.org",
        "certbot current",
        "HAProxy stale",
        "haproxy-stale: haproxy has serial ",
        "What to do: run: kill -USR2 &#34;$(cat",
        "mail.example.org.pem expires first, in 17 days",
        "renewal-overdue: due since ",
        "days left",
        "seen by the Runtime API",
    ] {
        assert!(shown.contains(text), "{text} in {shown}");
    }
    // The worst first, as in the table.
    let places: Vec<usize> = ["shop.", "blog.", "mail.", "example."]
        .map(|name| page.find(&format!("</span> {name}")).unwrap())
        .into();
    assert!(places[0] < places[1] && places[0] < places[2] && places[2] < places[3], "{places:?}");
    for (place, count) in
        [("class=\"now\"", 4), ("class=\"renewal\"", 2), ("class=\"site ", 4), ("<code>", 5)]
    {
        assert!(page.matches(place).count() >= count, "{count} times {place} in {page}");
    }
    let root = tree.root().to_str().unwrap();
    let kept = page
        .replace(&format!(" --config-dir {root}"), "")
        .replace(root, "/etc/letsencrypt")
        .replace(cmd.sites().to_str().unwrap(), "/usr/local/ssl/certs/sites")
        .replace(&format!("--config {} ", cmd.config().display()), "")
        .replace(haproxy.pidfile().to_str().unwrap(), "/run/haproxy.pid");
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("status.html"), kept).unwrap();
}

#[test]
fn names_from_outside_are_text() {
    const EVIL: &str = "<script>alert('1')</script>\"&x";
    let mut tree = Tree::new();
    let lineage = EVIL.replace('/', "!");
    tree.issue(&lineage, KeyKind::P256, &["a.example"], Validity::days(90));
    tree.issue("b.example", KeyKind::P256, &["b.example"], Validity::days(90));
    tree.overwrite("b.example", Kind::Privkey, Key::fresh(KeyKind::P256).pem());
    let cmd = Cmd::new(tree.live()).with_tables(&format!(
        "[[haproxy]]\nname = {EVIL:?}\nruntime_socket = \"/nonexistent/</title><img src=x>.sock\"\n"
    ));
    cmd.run(&["assemble", "--defer-reload"]);
    // A stranger's file, with a line end and a terminal's escape.
    fs::write(cmd.sites().join("x\n\x1b[31m<b>.pem"), "<svg onload=alert(1)>").unwrap();
    let run = cmd.run(&["status", "--format", "html"]);
    needs_nothing_but(&run.stdout);
    assert!(!run.stdout.contains("<script") && !run.stdout.contains("alert('1')"), "{run}");
    let escaped = "&#60;script&#62;alert(&#39;1&#39;)&#60;";
    assert!(run.stdout.matches(escaped).count() >= 2, "the lineage and the HAProxy: {run}");
    assert!(run.stdout.contains("x\\x0a\\x1b[31m&#60;b&#62;.pem"), "{run}");
    assert!(!run.stdout.contains('\x1b'), "{run}");
    let setup = cmd.run(&["status", "--setup", "--format", "html"]);
    elements(&setup.stdout);
    assert!(setup.stdout.contains("<h2 id=\"setup\">"), "{setup}");
}

#[test]
fn all_is_well_and_nothing_is_there() {
    let mut tree = Tree::new();
    let many: Vec<String> = (0..40).map(|number| format!("n{number}.a.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    tree.issue("a.example", KeyKind::P256, &many, Validity::days(90));
    let cmd = Cmd::new(tree.live()).without_haproxy();
    cmd.run(&["assemble"]).exits(0);
    let shown = words(&page(&cmd, 0));
    assert!(shown.contains("OK 1 site in step; a.example.pem expires first, in 89 days"), "{shown}");
    assert!(shown.contains("n5.a.example and 34 more") && shown.contains("n39.a.example"), "{shown}");
    assert!(shown.contains("disk current ? HAProxy unknown"), "{shown}");
    let none = Cmd::new(tree.live().join("none")).without_haproxy();
    assert!(words(&page(&none, 0)).contains("there is nothing to deploy"));
}

/// An old page that stays would be taken for the truth.
#[test]
fn settings_that_cannot_be_used_make_a_page_too() {
    let tree = Tree::new();
    let cmd = Cmd::new(tree.live()).option("no_such = \"<script>\"");
    let shown = page(&cmd, 3);
    assert!(words(&shown).contains("UNKNOWN") && shown.contains("no_such"), "{shown}");
}
