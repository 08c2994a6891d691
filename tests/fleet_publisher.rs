//! A publisher that deploys its own certificates, too: whatever keeps it from publishing is said by its own status, by the
//! fleet's, by the JSON of the run and by the metrics, and what a run is told holds for what it publishes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use haproxy_certs::fleet::head::SignedHead;
use serde_json::Value;
use support::fleet::{Contents, Fleet, NO_HAPROXY};
use support::process::Running;
use support::promtool::{judge, series};
use support::tree::make_directory;
use support::{Cmd, LIMIT, wait_until};

/// Brings something about, or takes it back.
type Deed<'a> = &'a dyn Fn(&Fleet);

/// What keeps a host from publishing, what brings it about, what mends it, and whether the run is recorded.
type Failure<'a> = (&'a str, Deed<'a>, Deed<'a>, bool);

/// The settings of a publisher that deploys, too: its HAProxy is another's business.
fn deploying(fleet: &Fleet, cmd: &Cmd) -> String {
    let tables = fleet
        .nodes
        .iter()
        .map(|node| format!("[[fleet.node]]\nname = \"{}\"\nkey = \"{}\"\n", node.name, node.key));
    format!("{NO_HAPROXY}{}", fleet.table(cmd, &tables.collect::<String>()))
}

/// With one node, which has everything.
fn in_step(names: &[&str]) -> Fleet {
    let mut fleet = Fleet::new(1);
    let table = deploying(&fleet, &fleet.publisher);
    fleet.publisher.set_tables(&table);
    make_directory(&fleet.publisher.sites(), 0o700);
    for name in names {
        fleet.issue(name);
    }
    fleet.publisher.run(&["assemble"]).exits(0);
    fleet.tell_nodes("");
    fleet.all_follow();
    must_be_well(&fleet, "at first");
    fleet
}

/// Everything is deployed, published and followed, and both statuses say so.
#[track_caller]
fn must_be_well(fleet: &Fleet, context: &str) {
    fleet.must_all_be_as_wanted(context);
    let files: Vec<String> = fleet.wanted.keys().map(|name| format!("{name}.pem")).collect();
    assert_eq!(fleet.publisher.deployed(), files, "{context}");
    for command in [&["status"][..], &["fleet", "status"]] {
        let run = fleet.publisher.run(command);
        assert_eq!(run.code, Some(0), "{context}: {run}");
    }
}

fn status(cmd: &Cmd, command: &[&str]) -> Value {
    cmd.run(&[command, &["--format", "json"]].concat()).json()
}

/// The words of a status, of the host as a whole and of its sites.
fn words(status: &Value) -> Vec<&str> {
    let own = status["problems"].as_array().unwrap().iter().map(|problem| &problem["problem"]);
    let sites = status["sites"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of_sites = sites.iter().flat_map(|site| site["problems"].as_array().unwrap());
    own.chain(of_sites).map(|word| word.as_str().unwrap()).collect()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn whatever_keeps_it_from_publishing_is_said_in_every_way() {
    let mut fleet = in_step(&["a.example", "b.example"]);
    let mut other = Cmd::new(fleet.tree.live());
    let table = deploying(&fleet, &other);
    other.set_tables(&table);
    let other = &other;
    let aside = |fleet: &Fleet| fleet.place.path().join("aside");
    let failures: &[Failure<'_>] = &[
        (
            "the store is away",
            &|fleet| fs::rename(fleet.folder(), aside(fleet)).unwrap(),
            &|fleet| fs::rename(aside(fleet), fleet.folder()).unwrap(),
            true,
        ),
        (
            "others may read its keys",
            &|fleet| set_mode(&fleet.publisher.beside("identity"), 0o644),
            &|fleet| set_mode(&fleet.publisher.beside("identity"), 0o400),
            true,
        ),
        (
            "others may write to its cache",
            &|fleet| set_mode(&fleet.publisher.beside("cache"), 0o777),
            &|fleet| set_mode(&fleet.publisher.beside("cache"), 0o700),
            true,
        ),
        (
            "its cache is another's",
            &|fleet| chown(fleet.publisher.beside("cache"), Some(1), None).unwrap(),
            &|fleet| chown(fleet.publisher.beside("cache"), Some(0), None).unwrap(),
            false,
        ),
        (
            "another one took over",
            &|_| drop(other.run(&["fleet", "publish", "--take-over"]).exits(0)),
            &|fleet| drop(fleet.publisher.run(&["fleet", "publish", "--take-over"]).exits(0)),
            true,
        ),
    ];
    for (context, fail, mend, is_recorded) in failures {
        fail(&fleet);
        let leaf = fleet.renew("a.example");
        fleet.publisher.run(&["assemble"]).exits(3);
        let own = fleet.publisher.run(&["status", "--format", "json"]);
        assert!(own.code != Some(0) && words(&own.json()).contains(&"run-failed"), "{context}: {own}");
        let all = fleet.publisher.run(&["fleet", "status", "--format", "json"]);
        let all_says = || words(&all.json()).contains(&"run-failed");
        // Without its keys it can't tell whose head counts.
        let is_blind = all.code == Some(3) && all.json()["error"]["message"].is_string();
        assert!(all.code != Some(0) && (is_blind || all_says()), "{context}: {all}");
        let site = &own.json()["sites"].as_array().unwrap().clone();
        let site = site.iter().find(|site| site["file"] == "a.example.pem").unwrap();
        if own.json()["error"].is_null() {
            assert_eq!(site["problems"], serde_json::json!(["not-published"]), "{context}: {own}");
            assert_eq!(site["fleet_state"], "stale", "{context}: {own}");
            assert!(words(&all.json()).contains(&"not-published"), "{context}: {all}");
        }
        assert_eq!(site["disk"]["serial"], leaf.serial(), "{context}: it is deployed all the same");
        if *is_recorded {
            let run = &own.json()["last_run"];
            assert!(run["exit"] == 3 && run["error"]["message"].is_string(), "{context}: {own}");
            let metrics = fleet.publisher.run(&["status", "--format", "prometheus"]).stdout;
            assert!(metrics.contains("haproxy_certs_last_run_exit_status 3\n"), "{context}: {metrics}");
            let text = fleet.publisher.run(&["status"]).stdout;
            assert!(text.contains("Last publish: ") && text.contains("failed: "), "{context}: {text}");
        }

        // For scripts it is one object, with the rows of what was deployed.
        let run = fleet.publisher.run(&["assemble", "--format", "json"]).exits(3);
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        assert!(report["error"]["kind"].is_string(), "{context}: {run}");
        assert!(run.stderr.contains(report["error"]["message"].as_str().unwrap()), "{context}: {run}");
        assert_eq!(report["summary"]["unchanged"], 2, "{context}: {run}");

        mend(&fleet);
        fleet.publisher.run(&["fleet", "publish"]).exits(0);
        if *context == "another one took over" {
            fleet.nodes[0].follow();
            continue;
        }
        fleet.all_follow();
        must_be_well(&fleet, context);
    }
}

/// Whoever may read the store may hold its lock for ever: publishing ends, and says who holds it.
#[test]
fn a_lock_that_somebody_holds_hangs_no_hook() {
    let mut fleet = in_step(&["a.example"]);
    fleet.renew("a.example");
    let folder = fleet.folder();
    let mut holder =
        Running::start("flock", |command| command.arg("-s").arg(&folder).args(["sleep", "infinity"]));
    let pid = holder.pid();
    wait_until(LIMIT, "the lock", || {
        fs::read_to_string("/proc/locks").unwrap().contains(&format!(" READ  {pid} "))
            || fs::read_to_string("/proc/locks").unwrap().contains(&format!(" READ {pid} "))
    });
    let run = fleet.publisher.run(&["fleet", "publish"]).exits(3);
    let fact = format!(
        "{} is locked by process {pid} (flock -s {} sleep infinity)",
        folder.display(),
        folder.display()
    );
    assert!(run.stderr.contains(&fact), "{run}");
    let report = fleet.publisher.run(&["assemble", "--format", "json"]).exits(3).json();
    assert_eq!(report["error"]["kind"], "lock", "{report}");
    assert!(words(&status(&fleet.publisher, &["status"])).contains(&"run-failed"));
    // What it says mends it.
    holder.stop();
    fleet.publisher.run(&["fleet", "publish"]).exits(0);
    fleet.all_follow();
    must_be_well(&fleet, "when nobody holds it");
}

#[test]
fn the_first_publish_that_fails_is_the_last_run_too() {
    let mut fleet = Fleet::new(1);
    let table = deploying(&fleet, &fleet.publisher);
    fleet.publisher.set_tables(&table);
    make_directory(&fleet.publisher.sites(), 0o700);
    fleet.issue("a.example");
    fs::remove_dir_all(fleet.folder()).unwrap();
    fleet.publisher.run(&["assemble"]).exits(3);
    let text = fleet.publisher.run(&["status"]).exits(2).stdout;
    assert!(text.contains("run-failed: the last publish failed "), "{text}");
    assert!(text.contains("not-published: certbot has a certificate, and it is not published"), "{text}");
    let status = status(&fleet.publisher, &["fleet", "status"]);
    let said = words(&status);
    assert!(said.contains(&"run-failed") && said.contains(&"not-published"), "{status}");
}

#[test]
fn what_a_run_is_told_of_pruning_holds_for_what_it_publishes() {
    let names: Vec<String> = (0..8).map(|at| format!("n{at}.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut fleet = in_step(&names);
    let before = fleet.wanted.clone();
    fleet.delete(names[0]);
    let run = fleet.publisher.run(&["assemble", "--no-prune"]).exits(0);
    assert!(run.stdout.contains("n0.example stays published: --no-prune"), "{run}");
    fleet.all_follow();
    fleet.nodes[0].must_have(&before, "--no-prune");
    let text = fleet.publisher.run(&["status"]).exits(1).stdout;
    assert!(text.contains("the lineage is gone, and it is still published"), "{text}");
    fleet.publisher.run(&["assemble"]).exits(0);
    fleet.all_follow();
    must_be_well(&fleet, "without --no-prune");

    let before = fleet.wanted.clone();
    for name in &names[1..6] {
        fleet.delete(name);
    }
    fleet.publisher.run(&["assemble"]).exits(1);
    fleet.all_follow();
    fleet.nodes[0].must_have(&before, "too many");
    // What is advised mends it.
    let text = fleet.publisher.run(&["status"]).exits(1).stdout;
    assert!(text.contains(" fleet publish --prune-many\n"), "{text}");
    let none = fleet.publisher.run(&["assemble", "--no-prune"]).exits(0);
    assert!(!none.stdout.contains("gone "), "{none}");
    fleet.publisher.run(&["assemble", "--prune-many"]).exits(0);
    fleet.all_follow();
    must_be_well(&fleet, "--prune-many");

    // The same where nothing is deployed.
    let mut fleet = Fleet::new(1);
    for name in &names[..2] {
        fleet.issue(name);
    }
    fleet.publisher.run(&["assemble"]).exits(0);
    fleet.tell_nodes("");
    fleet.all_follow();
    let before = fleet.wanted.clone();
    fleet.delete(names[0]);
    fleet.publisher.run(&["assemble", "--no-prune"]).exits(0);
    fleet.all_follow();
    fleet.nodes[0].must_have(&before, "--no-prune without a HAProxy");
}

/// What was pruned here, while nothing could be published, is said all the same.
#[test]
fn what_is_gone_here_and_still_published_is_said() {
    let mut fleet = in_step(&["a.example", "b.example"]);
    let aside = fleet.place.path().join("aside");
    fs::rename(fleet.folder(), &aside).unwrap();
    fleet.delete("a.example");
    fleet.publisher.run(&["assemble"]).exits(3);
    assert_eq!(fleet.publisher.deployed(), ["b.example.pem"]);
    let report = status(&fleet.publisher, &["status"]);
    let site =
        report["sites"].as_array().unwrap().iter().find(|site| site["lineage"] == "a.example").unwrap();
    assert_eq!((&site["file"], &site["problems"]), (&Value::Null, &serde_json::json!(["not-published"])));
    for form in ["human", "html", "monitoring", "prometheus"] {
        let text = fleet.publisher.run(&["status", "--format", form]).stdout;
        assert!(text.contains("a.example") && text.contains("not-published"), "{form}: {text}");
    }
    fs::rename(&aside, fleet.folder()).unwrap();
    fleet.publisher.run(&["fleet", "publish"]).exits(0);
    fleet.all_follow();
    must_be_well(&fleet, "published");
}

#[test]
fn the_metrics_of_a_fleet_that_cannot_be_looked_at_say_so() {
    let mut fleet = in_step(&["a.example"]);
    let file = fleet.publisher.beside("fleet.prom");
    let look = |fleet: &Fleet| {
        let command = ["fleet", "status", "--textfile", file.to_str().unwrap()];
        let code = fleet.publisher.run(&command).code.unwrap();
        (code, fs::read_to_string(&file).unwrap())
    };
    let (code, metrics) = look(&fleet);
    assert!(code == 0 && metrics.contains("fleet_state{fleet=\"edge\"} 0\n"), "{metrics}");
    let goes_on = ["fleet_status_", "fleet_node_report_", "fleet_head_"];
    judge(15, &series(&metrics, 15, 4, &goes_on), &[(0, &[]), (2, &[])]);

    // A renewal that isn't published.
    fleet.renew("a.example");
    let (code, metrics) = look(&fleet);
    assert!(code == 1 && metrics.contains("problem=\"not-published\""), "{metrics}");
    judge(15, &series(&metrics, 15, 4, &goes_on), &[(0, &[]), (2, &[("FleetNotPublished", "")])]);
    fleet.publish();
    fleet.all_follow();

    let identity = fleet.publisher.beside("identity");
    set_mode(&identity, 0o644);
    let (code, metrics) = look(&fleet);
    assert!(code == 3 && metrics.contains("fleet_state{fleet=\"edge\"} 3\n"), "{metrics}");
    assert!(!metrics.contains("fleet_node_"), "{metrics}");
    judge(15, &series(&metrics, 15, 4, &goes_on), &[(0, &[]), (2, &[("FleetUnreachable", "")])]);
    set_mode(&identity, 0o400);
    assert_eq!(look(&fleet).0, 0);

    // Which fleet it is isn't known any more.
    fleet.publisher.set_tables("no_such = 1\n");
    let (code, metrics) = look(&fleet);
    assert!(code == 3 && metrics.contains("\nhaproxy_certs_fleet_state 3\n"), "{metrics}");
    assert!(metrics.contains("\nhaproxy_certs_fleet_status_timestamp_seconds "), "{metrics}");
}

/// What is run twice a day keeps the head alive, at whichever hour something was renewed: a head that a run leaves in its
/// place outlives the next one, which may be late. One that says the same as the last costs a node the head and a report.
#[test]
fn what_is_run_twice_a_day_keeps_the_head_alive() {
    let hour = 60 * 60;
    let (life, latest) = (36, 12 + 2);
    let fleet = in_step(&["a.example", "b.example"]);
    let signed = |stored: &Contents| SignedHead::read(&stored["head"]).unwrap().head;
    let away = fleet.folder().with_extension("away");
    make_directory(&away, 0o700);
    let mut left_in_place = 0;
    for command in [&["fleet", "publish"][..], &["assemble", "--full"]] {
        for age in (1..life + 3).step_by(2) {
            let context = format!("{command:?} after {age} hours");
            fleet.grow_old(age * hour);
            let before = fleet.stored();
            let run = fleet.publisher.run(command);
            assert_eq!(run.code, Some(0), "{context}: {run}");
            let (old, new) = (signed(&before), signed(&fleet.stored()));
            let is_left = old.sequence == new.sequence;
            left_in_place += i32::from(is_left);
            assert!(!is_left || age + latest < life, "{context}: it ends before the next run");
            // No page, no object and no list of nodes is read for it.
            for name in ["page", "object", "key"] {
                fs::rename(fleet.folder().join(name), away.join(name)).unwrap();
            }
            fleet.nodes[0].follow().exits(0);
            for name in ["page", "object", "key"] {
                fs::rename(away.join(name), fleet.folder().join(name)).unwrap();
            }
            let mut after = fleet.stored();
            for changes in ["head", "report/lb1"] {
                after.insert(changes.to_owned(), before[changes].clone());
            }
            assert!(after == before, "{context}: nothing else is written");
            must_be_well(&fleet, &context);
        }
    }
    assert!(left_in_place > 4, "it isn't signed anew by every run");
}
