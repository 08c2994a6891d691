//! The law of the planner: whatever there is, once a plan is carried out there is nothing left to do, and nothing was
//! done on the way that the contract forbids. And the proof that the planner can't do anything itself.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use haproxy_certs::certified_key::Flaw;
use haproxy_certs::certified_key::{ChainState, KeyType, Leaf};
use haproxy_certs::config::Owner;
use haproxy_certs::plan::action::Action;
use haproxy_certs::plan::names::is_loaded_name;
use haproxy_certs::plan::plan;
use haproxy_certs::plan::reason::Reason;
use haproxy_certs::plan::refusal::Refusal;
use haproxy_certs::plan::row::{Plan, Role, Row};
use haproxy_certs::plan::situation::{
    Candidate, Deployed, EntryKind, HostSituation, Lineage, Policy, Recorded, Situation,
};
use haproxy_certs::serving::loads::Loaded;
use proptest::collection::{btree_map, btree_set};
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use strum::VariantArray as _;
use support::summary::Count;

const CASES: u32 = 4000;

/// The planner's clock.
const NOW: i64 = 1_000_000;

const OURS: Owner = Owner { uid: 0, gid: 0 };
const THEIRS: Owner = Owner { uid: 99, gid: 99 };
const MODE: u32 = 0o400;

const HOST_FILE: &str = "/certs/host.pem";

/// Few names, so that they meet: some that no file can have, and some that are each other's siblings.
fn lineage_name() -> impl Strategy<Value = OsString> {
    prop::sample::select(vec![
        "a",
        "a-0001",
        "b",
        "c",
        "d",
        "e",
        "f",
        "g",
        "h",
        "b.pem",
        ".hidden",
        "new\nline",
    ])
    .prop_map(OsString::from)
}

fn file_name() -> impl Strategy<Value = OsString> {
    let foreign = ["README", "a.pem.ocsp", "b.pem.key", ".dot", "z.pem", "stray"];
    prop_oneof![
        6 => lineage_name().prop_map(|name| [name.as_os_str(), OsStr::new(".pem")].concat_os()),
        1 => prop::sample::select(foreign.to_vec()).prop_map(OsString::from),
    ]
}

trait ConcatOs {
    fn concat_os(&self) -> OsString;
}

impl ConcatOs for [&OsStr; 2] {
    fn concat_os(&self) -> OsString {
        let mut whole = self[0].to_owned();
        whole.push(self[1]);
        whole
    }
}

/// One of a few certificates: what differs between two of them decides.
fn leaf() -> impl Strategy<Value = Leaf> {
    let moment =
        prop::sample::select(vec![NOW - 900, NOW - 500, NOW - 100, NOW - 1, NOW, NOW + 1, NOW + 500]);
    let life = prop::sample::select(vec![50_i64, 400, 950, 4000]);
    let names = btree_set(prop::sample::select(vec!["x.example", "y.example", "z.example"]), 0..3);
    (moment, life, names, prop::bool::ANY, prop::bool::weighted(0.2)).prop_map(
        |(not_before, life, names, rsa, staging)| {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            let mut sha256 = [0; 32];
            // Equal facts are equal certificates.
            let digest =
                openssl::sha::sha256(format!("{not_before} {life} {names:?} {rsa} {staging}").as_bytes());
            sha256.copy_from_slice(&digest);
            Leaf {
                names,
                addresses: Vec::new(),
                common_names: Vec::new(),
                key_type: if rsa { KeyType::Rsa(2048) } else { KeyType::EcdsaP256 },
                serial: "01".to_owned(),
                sha256,
                sha1: [0; 20],
                not_before,
                not_after: not_before + life,
                is_self_signed: false,
                issuer_is_staging: staging,
                demands_ocsp: false,
            }
        },
    )
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let chain = prop::sample::select(vec![
        ChainState::Complete,
        ChainState::Incomplete,
        ChainState::Disordered { certificate: 1 },
    ]);
    (leaf(), chain, prop::bool::ANY).prop_map(|(leaf, chain, loose_permissions)| Candidate {
        sha256: pem_of(&leaf),
        staging: leaf.issuer_is_staging,
        leaf: Arc::new(leaf),
        chain,
        loose_permissions,
    })
}

/// The SHA-256 of the canonical PEM of a leaf.
fn pem_of(leaf: &Leaf) -> [u8; 32] {
    openssl::sha::sha256(&leaf.sha256)
}

fn lineage() -> impl Strategy<Value = Lineage> {
    let reason = prop::sample::select(vec![
        Reason::Unproved(Flaw::KeyMismatch),
        Reason::Unproved(Flaw::KeyMissing),
        Reason::Unproved(Flaw::CertificateMissing),
        Reason::LineageTorn,
        Reason::Io,
    ]);
    prop_oneof![
        4 => candidate().prop_map(|candidate| Lineage { proof: Ok(candidate), leaf: None }),
        1 => (reason, option::of(leaf())).prop_map(|(reason, leaf)| Lineage {
            proof: Err(Refusal::new(reason, "a fact")),
            leaf: leaf.map(Arc::new),
        }),
    ]
}

fn kind() -> impl Strategy<Value = EntryKind> {
    prop_oneof![
        6 => Just(EntryKind::Regular { owner: OURS, mode: MODE }),
        2 => (prop::sample::select(vec![OURS, THEIRS]), prop::sample::select(vec![0o400, 0o644]))
            .prop_map(|(owner, mode)| EntryKind::Regular { owner, mode }),
        1 => Just(EntryKind::Directory),
        1 => Just(EntryKind::Other),
    ]
}

fn deployed() -> impl Strategy<Value = Deployed> {
    (kind(), option::weighted(0.8, leaf()), prop::bool::weighted(0.8), prop::bool::ANY, 0..3_u8).prop_map(
        |(kind, leaf, has_key, archived, shape)| {
            let presented = has_key && leaf.is_some();
            match kind {
                EntryKind::Regular { .. } => {}
                EntryKind::Directory => return Deployed::unread(kind),
                // A link that leads to a file from elsewhere.
                EntryKind::Other => {
                    return Deployed { leaf: leaf.map(Arc::new), presented, ..Deployed::unread(kind) };
                }
            }
            // Canonical, in another shape, or without a certificate.
            let sha256 = match (&leaf, shape) {
                (Some(leaf), 0 | 1) => pem_of(leaf),
                (Some(leaf), _) => openssl::sha::sha256(&[&leaf.sha256[..], &[shape]].concat()),
                (None, shape) => [shape; 32],
            };
            let archived = archived && leaf.is_some();
            let (sha256, leaf) = (Some(sha256), leaf.map(Arc::new));
            Deployed { sha256, leaf, has_key, presented, archived, ..Deployed::unread(kind) }
        },
    )
}

/// The file of a lineage that was deployed as it is.
fn as_deployed(lineage: &Lineage, kind: EntryKind) -> Option<Deployed> {
    let candidate = lineage.proof.as_ref().ok()?;
    let leaf = Some(Arc::clone(&candidate.leaf));
    matches!(kind, EntryKind::Regular { .. }).then_some(Deployed {
        sha256: Some(candidate.sha256),
        leaf,
        has_key: true,
        presented: true,
        ..Deployed::unread(kind)
    })
}

/// What the state file may say of a file: the truth, something else, or that it was refused.
fn recorded() -> impl Strategy<Value = (RecordedAs, bool, bool)> {
    let what = prop::sample::select(vec![RecordedAs::AsItIs, RecordedAs::AsItIs, RecordedAs::Otherwise]);
    (what, prop::bool::weighted(0.8), prop::bool::weighted(0.1))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RecordedAs {
    AsItIs,
    Otherwise,
}

fn policy() -> impl Strategy<Value = Policy> {
    let flag = || prop::bool::weighted(0.25);
    (flag(), flag(), flag(), btree_set(lineage_name(), 0..3)).prop_map(
        |(no_prune, prune_many, adopt, force)| Policy {
            no_prune,
            prune_many: prune_many && !no_prune,
            adopt,
            force,
            follows: false,
        },
    )
}

fn record(
    name: &OsStr,
    deployed: Option<&Deployed>,
    lineage: Option<&Lineage>,
    (what, same_tree, rejected): (RecordedAs, bool, bool),
) -> Recorded {
    let holds = deployed.and_then(|deployed| deployed.sha256);
    let sha256 = match what {
        RecordedAs::AsItIs => holds.into_iter().collect(),
        RecordedAs::Otherwise => vec![[0xee; 32]],
    };
    let proved = lineage.and_then(|lineage| lineage.proof.as_ref().ok());
    let rejected = proved.filter(|_| rejected).map(|proved| (proved.sha256, "HAProxy's words".to_owned()));
    let lineage = name.to_str().unwrap_or_default().trim_end_matches(".pem");
    Recorded { lineage: lineage.into(), sha256, chain: None, same_tree, rejected, prune_refused: None }
}

prop_compose! {
    fn situation()(
        lineages in btree_map(lineage_name(), lineage(), 0..9),
        mut deployed in btree_map(file_name(), deployed(), 0..12),
        in_step in btree_map(lineage_name(), kind(), 0..6),
        host_in_step in option::of(kind()),
        records in btree_map(file_name(), recorded(), 0..12),
        // Most files of most machines are as they were recorded.
        all_recorded in prop::bool::ANY,
        excluded in prop::bool::ANY,
        host in option::of((lineage_name(), lineage(), option::of(deployed()), option::of(recorded()))),
        policy in policy(),
    ) -> Situation {
        // Independent choices seldom meet: some lineages are deployed as they are.
        for (name, kind) in in_step {
            if let Some(found) = lineages.get(&name).and_then(|lineage| as_deployed(lineage, kind)) {
                deployed.insert([name.as_os_str(), OsStr::new(".pem")].concat_os(), found);
            }
        }
        let mut recorded: BTreeMap<OsString, Recorded> = BTreeMap::new();
        let lineage_of = |file: &OsStr| file.to_str()?.strip_suffix(".pem").and_then(|name| lineages.get(OsStr::new(name)));
        if all_recorded {
            for (file, found) in &deployed {
                recorded.insert(file.clone(), record(file, Some(found), lineage_of(file), (RecordedAs::AsItIs, true, false)));
            }
        }
        for (file, what) in &records {
            recorded.insert(file.clone(), record(file, deployed.get(file), lineage_of(file), *what));
        }
        // The state file never has names that no lineage could have.
        recorded.retain(|file, _| file.to_str().is_some_and(|name| {
            name.strip_suffix(".pem").is_some() && !name.starts_with('.') && !name.contains('\n')
        }));
        let host = host.map(|(lineage, source, deployed, what)| {
            let source = lineages.get(&lineage).cloned().unwrap_or(source);
            let deployed = host_in_step.and_then(|kind| as_deployed(&source, kind)).or(deployed);
            let recorded = what.map(|what| record(OsStr::new(HOST_FILE), deployed.as_ref(), Some(&source), what));
            HostSituation { lineage, source, file: HOST_FILE.into(), deployed, recorded }
        });
        Situation {
            unchanged: Vec::new(),
            any_lineage: excluded || !lineages.is_empty(),
            lineages,
            deployed,
            recorded,
            host,
            loaded: Loaded::default(),
            owner: OURS,
            mode: MODE,
            now: NOW,
            policy,
        }
    }
}

/// What is there after the plan has been carried out as `sites::commit` does it.
fn carried_out(before: &Situation, plan: &Plan) -> Situation {
    let mut after = before.clone();
    for row in &plan.rows {
        let Some(file) = &row.file else { continue };
        let (mut deployed, mut recorded) = match row.role {
            Role::Site => (after.deployed.remove(file), after.recorded.remove(file)),
            Role::Host => {
                let host = after.host.as_mut().unwrap();
                (host.deployed.take(), host.recorded.take())
            }
        };
        if row.action == Action::Prune {
            (deployed, recorded) = (None, None);
        } else if row.action.writes() {
            let kind = EntryKind::Regular { owner: before.owner, mode: before.mode };
            deployed = Some(Deployed {
                sha256: row.sha256,
                leaf: row.leaf.clone(),
                has_key: true,
                presented: true,
                ..Deployed::unread(kind)
            });
        }
        if row.action.writes() || (row.action == Action::Unchanged && row.proved) {
            recorded = Some(Recorded {
                lineage: row.lineage.clone().unwrap(),
                sha256: row.sha256.into_iter().collect(),
                chain: None,
                same_tree: true,
                rejected: None,
                prune_refused: None,
            });
        }
        match row.role {
            Role::Site => {
                after.deployed.extend(deployed.map(|found| (file.clone(), found)));
                after.recorded.extend(recorded.map(|record| (file.clone(), record)));
            }
            Role::Host => {
                let host = after.host.as_mut().unwrap();
                (host.deployed, host.recorded) = (deployed, recorded);
            }
        }
    }
    after
}

fn loadable(situation: &Situation) -> usize {
    situation.deployed.iter().filter(|(file, found)| is_loaded_name(file) && found.is_loadable()).count()
}

/// What a row says, without what the first run alone can know.
fn verdict(row: &Row) -> (Option<OsString>, Role, bool, Option<Reason>) {
    (row.file.clone(), row.role, row.is_bad(), row.reason())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    /// Carry the plan out, plan again: there is nothing to do, and what was wrong still is.
    fn carried_out_and_planned_again(before in situation()) {
        let first = plan(&before);
        let after = carried_out(&before, &first);
        let second = plan(&after);
        prop_assert!(!second.has_changes(), "first {first:#?}\nsecond {second:#?}");
        prop_assert_eq!(&carried_out(&after, &second).deployed, &after.deployed);
        let bad = |plan: &Plan| -> BTreeSet<_> {
            plan.rows.iter().filter(|row| row.is_bad()).map(|row| (row.file.clone(), row.lineage.clone())).collect()
        };
        prop_assert_eq!(bad(&first), bad(&second), "exit 1 stays until its cause goes");
        let refused = |plan: &Plan| -> Vec<_> {
            plan.rows.iter().filter(|row| row.action == Action::Refuse).map(verdict).collect()
        };
        prop_assert_eq!(refused(&first), refused(&second));
    }

    /// Whatever there is: every file has one row in order, and what the contract forbids is never planned.
    fn planned(before in situation()) {
        let made = plan(&before);
        let files: Vec<&OsString> = made.rows.iter().filter_map(|row| row.file.as_ref()).collect();
        prop_assert!(files.is_sorted() && files.iter().collect::<BTreeSet<_>>().len() == files.len());
        let first_without = made.rows.iter().position(|row| row.file.is_none()).unwrap_or(made.rows.len());
        prop_assert!(made.rows.iter().skip(first_without).all(|row| row.file.is_none()));
        let mut prunes = 0;
        for row in &made.rows {
            let site = row.file.as_ref().filter(|_| row.role == Role::Site);
            let was = match row.role {
                Role::Site => site.and_then(|file| before.deployed.get(file)),
                Role::Host => before.host.as_ref().and_then(|host| host.deployed.as_ref()),
            };
            let record = match row.role {
                Role::Site => site.and_then(|file| before.recorded.get(file)),
                Role::Host => before.host.as_ref().and_then(|host| host.recorded.as_ref()),
            };
            let regular = was.is_none_or(|was| matches!(was.kind, EntryKind::Regular { .. }));
            match row.action {
                Action::Install => prop_assert!(was.is_none() && row.proved),
                Action::Repair => prop_assert!(row.proved && was.is_some_and(|was| was.sha256 == row.sha256)),
                Action::Replace => {
                    prop_assert!(row.proved && was.is_some_and(|was| was.kind != EntryKind::Directory));
                    let was = was.unwrap();
                    let known = record.is_some_and(|record| {
                        regular && (was.leaf.is_none() || was.sha256.is_some_and(|sha256| record.sha256.contains(&sha256)))
                    });
                    let leaf = row.leaf.as_ref().unwrap();
                    // A link isn't ours, whatever it leads to.
                    let theirs = regular
                        && (was.archived || was.leaf.as_ref().is_some_and(|old| old.sha256 == leaf.sha256));
                    prop_assert!(row.adopts != (known || theirs), "{row:?}");
                    prop_assert!(!row.adopts || before.policy.adopt, "somebody else's file");
                    let forced = before.policy.force.contains(row.lineage.as_ref().unwrap());
                    let good = was.leaf.as_ref().filter(|old| old.not_after >= NOW);
                    let older = good.is_some_and(|old| leaf.not_before < old.not_before);
                    // Whoever names another lineage for the host certificate knows.
                    let is_anothers = row.role == Role::Host
                        && record.is_some_and(|record| Some(&record.lineage) != row.lineage.as_ref());
                    prop_assert!(forced || row.adopts || is_anothers || !older, "an older one");
                    let best = good.is_some_and(|old| old.not_before <= NOW && !old.issuer_is_staging);
                    let worse = leaf.issuer_is_staging || leaf.not_before > NOW;
                    prop_assert!(forced || !(best && worse), "a worse one");
                }
                Action::Prune => {
                    prunes += 1;
                    prop_assert!(row.role == Role::Site, "a host certificate is never pruned");
                    prop_assert!(record.is_some_and(|record| record.same_tree), "not ours");
                    prop_assert!(!before.policy.no_prune && before.any_lineage);
                    prop_assert!(regular);
                    let name = site.unwrap().to_str().unwrap().strip_suffix(".pem").unwrap();
                    prop_assert!(!before.lineages.contains_key(OsStr::new(name)), "its lineage is there");
                }
                Action::Unchanged | Action::Refuse | Action::Conflict | Action::Foreign => {}
            }
            prop_assert_eq!(row.reason().is_some(), row.action == Action::Refuse);
            prop_assert_eq!(row.lineage.is_none(), row.action == Action::Foreign);
        }
        let ours = before.recorded.keys().filter(|file| before.deployed.contains_key(*file)).count();
        prop_assert!(prunes <= 3 || prunes * 4 <= ours || before.policy.prune_many, "{prunes} of {ours}");
        let after = carried_out(&before, &made);
        prop_assert!(loadable(&before) == 0 || loadable(&after) > 0, "the last loadable file goes");
        for (file, was) in &before.deployed {
            let touched = made.rows.iter().any(|row| row.role == Role::Site && row.file.as_ref() == Some(file) && row.action.is_change());
            prop_assert!(touched || after.deployed.get(file) == Some(was));
        }
    }
}

#[test]
fn a_plan_that_was_carried_out_leaves_nothing_to_do() {
    carried_out_and_planned_again();
    Count::Properties.add("carried out and planned again", CASES as usize);
}

#[test]
fn no_plan_does_what_is_forbidden() {
    planned();
    Count::Properties.add("planned", CASES as usize);
}

/// A law about situations that never come about would hold for nothing.
#[test]
fn the_situations_are_worth_a_law() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..3000 {
        let before = situation().new_tree(&mut runner).unwrap().current();
        for row in plan(&before).rows {
            let role = if row.role == Role::Host { "host " } else { "" };
            seen.insert(format!("{role}{}", row.action.name()));
            seen.extend(row.reason().map(|reason| reason.name().to_owned()));
            seen.extend(row.warnings.iter().map(|warning| warning.name().to_owned()));
            if row.adopts {
                seen.insert("adopts".to_owned());
            }
            if row.action == Action::Unchanged
                && row.detail().is_some_and(|detail| detail.contains("last file"))
            {
                seen.insert("last file".to_owned());
            }
        }
    }
    for action in Action::VARIANTS {
        assert!(seen.contains(action.name()), "{}: {seen:?}", action.name());
        let host = format!("host {}", action.name());
        assert_eq!(
            seen.contains(&host),
            !matches!(action, Action::Prune | Action::Foreign),
            "{host}: {seen:?}"
        );
    }
    for word in [
        "older-than-deployed",
        "would-replace-good",
        "haproxy-rejects",
        "name-unsafe",
        "key-mismatch",
        "prune-held",
        "shadowed",
        "default-certificate-changed",
        "sibling-files",
        "expired",
        "expires-soon",
        "not-yet-valid",
        "staging-issuer",
        "chain-incomplete",
        "chain-order",
        "loose-permissions",
        "adopts",
        "last file",
    ] {
        assert!(seen.contains(word), "{word}: {seen:?}");
    }
}

/// What decides names nothing that does: no files, processes, sockets, clocks or environment.
#[test]
fn the_planner_and_the_proof_name_no_file_process_or_socket() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let forbidden = [
        "std::fs",
        "std::process",
        "std::net",
        "std::os",
        "std::env",
        "std::io",
        "std::thread",
        "std::time",
        "rustix",
        "nix::",
        "tempfile",
        "walkdir",
        "File::",
        "SystemTime",
        "Instant",
        "println!",
        "eprintln!",
        "crate::sites",
        "crate::certbot",
        "crate::haproxy",
        "crate::program",
        "crate::system",
        "crate::sweep",
    ];
    // Values, not sockets: the addresses in a certificate.
    let addresses = "std::net::{Ipv4Addr, Ipv6Addr}";
    let mut read = 0;
    for folder in ["plan", "certified_key"] {
        for entry in walkdir::WalkDir::new(source.join(folder)) {
            let entry = entry.unwrap();
            if !entry.file_type().is_file() {
                continue;
            }
            read += 1;
            let text = std::fs::read_to_string(entry.path()).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap().replace(addresses, "");
            for (number, line) in
                code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
            {
                for name in forbidden {
                    assert!(!line.contains(name), "{}:{}: {name}", entry.path().display(), number + 1);
                }
            }
        }
    }
    assert!(read >= 10, "the modules are where this test looks");
}
