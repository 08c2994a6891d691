//! What a fleet costs, counted by the real formats: `bench-fleet-sizes [NODES LINEAGES]...`, 50 and 10,000, 1,000 and 10,000,
//! 100 and 100,000 unless told. Heads, lists, pages, objects, keys and reports are made and their bytes are counted; what
//! etcd's gateway puts around them is counted from its JSON. Then a month of renewals is gone through, day by day.
//!
//! Every lineage is renewed once in sixty days: by a deploy hook each by itself, or in two batches a day by the timer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a tool for the benchmarks"
)]

use std::collections::{BTreeMap, BTreeSet};

use haproxy_certs::fleet::edition::pages_of;
use haproxy_certs::fleet::epoch::{EpochKey, SEALED_BYTES};
use haproxy_certs::fleet::head::Head;
use haproxy_certs::fleet::identity::HostIdentity;
use haproxy_certs::fleet::name::FleetName;
use haproxy_certs::fleet::node_list::NodeList;
use haproxy_certs::fleet::object::{self, PlainPair};
use haproxy_certs::fleet::page::{self, PageEntry};
use haproxy_certs::fleet::report::NodeReport;
use zeroize::Zeroizing;

/// Every lineage is renewed once in so many days, as certbot does it where certificates live for ninety.
const RENEWED_EVERY: usize = 60;

/// A node gives a sign of life so often in a day.
const SIGNS_OF_LIFE: usize = 96;

/// Key and chain in PEM, in bytes, as Let's Encrypt issues them: P-256 and its ECDSA chain, RSA 2048 and its RSA chain.
const P256: (usize, usize) = (241, 2850);
const RSA: (usize, usize) = (1704, 3660);

/// Of a hundred lineages so many have RSA keys.
const WITH_RSA: usize = 15;

/// What HTTP/1.1 and the gateway's headers add to an answer.
const HTTP: usize = 170;

/// `{"header":{...},"succeeded":true,"responses":[...]}`.
const ANSWER: usize = 190;

/// What stands around a key and a value in JSON: three revisions, names and quotes.
const AROUND: usize = 190;

/// Operations in a transaction.
const TOGETHER: usize = 100;

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|word| word.parse().expect("a number")).collect();
    let pairs: Vec<(usize, usize)> = if numbers.is_empty() {
        vec![(50, 10_000), (1_000, 10_000), (100, 100_000)]
    } else {
        numbers.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?))).collect()
    };
    let fleets: Vec<Sizes> = pairs.into_iter().map(|(nodes, lineages)| Sizes::of(nodes, lineages)).collect();
    table(&fleets);
}

/// What the values of a fleet weigh, in bytes.
struct Sizes {
    nodes: usize,
    lineages: usize,
    pages: usize,
    head: usize,
    list: usize,
    page: usize,
    all_pages: usize,
    object: usize,
    all_objects: usize,
    report: usize,
    /// The page of each lineage.
    places: Vec<usize>,
}

impl Sizes {
    fn of(nodes: usize, lineages: usize) -> Self {
        let fleet: FleetName = "edge".parse().unwrap();
        let identity = HostIdentity::generate().unwrap();
        let key = EpochKey::generate(1).unwrap();
        let member = |number: usize| {
            (
                format!("lb{number:04}.example.org").parse().unwrap(),
                HostIdentity::generate().unwrap().public(),
            )
        };
        let list = NodeList::of((0..nodes).map(member));
        let sealed = |(private, chain): (usize, usize), name: &str| {
            let pair = PlainPair {
                key: Zeroizing::new(vec![b'k'; private]),
                chain: Zeroizing::new(vec![b'c'; chain]),
            };
            object::seal(&pair, name, &fleet, &key).unwrap().len()
        };
        let names: Vec<String> =
            (0..lineages).map(|number| format!("site-{number:06}.example.org")).collect();
        let objects: Vec<usize> = names
            .iter()
            .enumerate()
            .map(|(at, name)| sealed(if at % 100 < WITH_RSA { RSA } else { P256 }, name))
            .collect();
        let pages = page::count(lineages, None);
        let entry = |name: &String| PageEntry {
            lineage: name.clone(),
            object: [1; 32],
            content: [2; 32],
            leaf: [3; 32],
            serial: "04".repeat(18),
            not_after: 0,
        };
        let entries: BTreeMap<String, PageEntry> =
            names.iter().map(|name| (name.clone(), entry(name))).collect();
        let sealed: Vec<usize> = pages_of(&entries, pages)
            .iter()
            .enumerate()
            .map(|(at, group)| {
                let group: Vec<PageEntry> = group.iter().copied().cloned().collect();
                page::seal(&group, (at, pages), &fleet, &key).unwrap().len()
            })
            .collect();
        let head = Head {
            fleet: fleet.clone(),
            sequence: 100_000,
            signed: 1_796_000_000,
            expires: 1_796_129_600,
            epoch: 1,
            epoch_key: key.commitment(&fleet),
            prune_many: false,
            nodes: list.hash(),
            pages: vec![[7; 32]; pages],
        };
        let (node, _) = list.iter().next().unwrap().clone();
        let report = NodeReport {
            fleet,
            node,
            sequence: 100_000,
            head: [7; 32],
            since: 1_796_000_000,
            time: 1_796_000_000,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            confirmed: true,
            omitted: 0,
            exceptions: Vec::new(),
            notes: Vec::new(),
        };
        Self {
            nodes,
            lineages,
            pages,
            head: head.sign(identity.signing()).len(),
            list: list.to_bytes().len(),
            page: sealed.iter().sum::<usize>() / pages,
            all_pages: sealed.iter().sum(),
            object: objects.iter().sum::<usize>() / lineages,
            all_objects: objects.iter().sum(),
            report: report.sign(identity.signing()).len(),
            places: names.iter().map(|name| page::place(name, pages)).collect(),
        }
    }

    /// What a node reads for a head that brings so many pages and objects, in bytes on the wire.
    fn read(&self, pages: usize, objects: usize) -> usize {
        // The event has the head in it; it isn't believed, and the head is looked at (without its value) and read.
        let event = answer(&[self.head]);
        let looks = 2 * answer(&[0]);
        let head = answer(&[self.head]);
        let rest = answers(pages, self.page) + answers(objects, self.object);
        event + looks + head + rest + answer(&[])
    }

    /// What a node without a past reads.
    fn cold(&self) -> usize {
        self.read(self.pages, self.lineages) + answer(&[self.list]) + answer(&[SEALED_BYTES])
    }

    /// What is in etcd: each value with its key, and what bbolt keeps beside it.
    fn stored(&self) -> usize {
        let values = self.pages + self.lineages + 2 * self.nodes + 2;
        let keys = values * (90 + 60);
        self.head
            + self.list
            + self.all_pages
            + self.all_objects
            + self.nodes * (SEALED_BYTES + self.report)
            + keys
    }

    fn renewals_a_day(&self) -> usize {
        self.lineages.div_ceil(RENEWED_EVERY)
    }

    /// What is written in a day: heads, pages, objects and reports, by this many heads.
    fn written_a_day(&self, heads: usize, pages: usize) -> usize {
        heads * self.head
            + pages * self.page
            + self.renewals_a_day() * self.object
            + self.nodes * (heads + SIGNS_OF_LIFE) * self.report
    }

    /// A month of two batches a day: how many pages a batch touches, on average. Lineages are taken in an order that has
    /// nothing to do with their places.
    fn pages_of_a_batch(&self) -> usize {
        let batch = (self.renewals_a_day() / 2).max(1);
        let (mut at, mut touched, batches) = (0, 0, 60);
        for _ in 0..batches {
            let pages: BTreeSet<usize> = (0..batch)
                .map(|_| {
                    at = (at + 7919) % self.lineages;
                    self.places.get(at).copied().unwrap()
                })
                .collect();
            touched += pages.len();
        }
        touched / batches
    }
}

/// An answer of the gateway with these values, on the wire.
fn answer(values: &[usize]) -> usize {
    HTTP + ANSWER + values.iter().map(|value| AROUND + 120 + value.div_ceil(3) * 4).sum::<usize>()
}

/// The answers that bring so many values of this size.
fn answers(count: usize, size: usize) -> usize {
    let whole = vec![size; TOGETHER];
    let rest = vec![size; count % TOGETHER];
    count / TOGETHER * answer(&whole) + if rest.is_empty() { 0 } else { answer(&rest) }
}

fn shown(bytes: usize) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        10_000_000..10_000_000_000 => format!("{:.0} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

/// One line of the table.
type Row<'a> = (&'a str, &'a dyn Fn(&Sizes) -> String);

fn table(fleets: &[Sizes]) {
    let gigabit = |bytes: usize, f: &Sizes| {
        let seconds = bytes as f64 * f.nodes as f64 / 3.0 / 125_000_000.0;
        format!("{seconds:.2} s")
    };
    let rows: [Row<'_>; 21] = [
        ("head", &|f| shown(f.head)),
        ("list of nodes, read when it changes", &|f| shown(f.list)),
        ("pages, and one of them", &|f| format!("{}, {}", f.pages, shown(f.page))),
        ("an object", &|f| shown(f.object)),
        ("a report", &|f| shown(f.report)),
        ("one renewal: read by a node", &|f| shown(f.read(1, 1))),
        ("the same by all nodes", &|f| shown(f.read(1, 1) * f.nodes)),
        ("the same from three members at 1 Gbit/s each", &|f| gigabit(f.read(1, 1), f)),
        ("renewals a day, each by itself: read by a node", &|f| {
            format!("{}: {}", f.renewals_a_day(), shown(f.renewals_a_day() * f.read(1, 1)))
        }),
        ("the same in two batches: pages of a batch", &|f| f.pages_of_a_batch().to_string()),
        ("read by a node in a day then", &|f| {
            shown(2 * f.read(f.pages_of_a_batch(), f.renewals_a_day() / 2))
        }),
        ("a node's cold start: read", &|f| shown(f.cold())),
        ("all nodes cold at once: read", &|f| shown(f.cold() * f.nodes)),
        ("the same from three members at 1 Gbit/s each", &|f| gigabit(f.cold(), f)),
        ("etcd: what counts", &|f| shown(f.stored())),
        ("etcd: the day after rotate", &|f| shown(2 * f.stored())),
        ("etcd: written in a day, each renewal by itself", &|f| {
            shown(f.written_a_day(f.renewals_a_day(), f.renewals_a_day()))
        }),
        ("of that reports", &|f| shown(f.nodes * (f.renewals_a_day() + SIGNS_OF_LIFE) * f.report)),
        ("etcd: written in a day, two batches", &|f| shown(f.written_a_day(2, 2 * f.pages_of_a_batch()))),
        ("with a grpc-proxy: watches that the members feed", &|_| "1 a proxy".to_owned()),
        ("behind a CDN: read from the store by one renewal", &|f| {
            format!("{} and {} heads", shown(f.page + f.object), f.nodes)
        }),
    ];
    print!("| what |");
    for fleet in fleets {
        print!(" {} nodes × {} |", fleet.nodes, fleet.lineages);
    }
    print!("\n| --- |");
    for _ in fleets {
        print!(" ---: |");
    }
    println!();
    for (what, value) in rows {
        print!("| {what} |");
        for fleet in fleets {
            print!(" {} |", value(fleet));
        }
        println!();
    }
}
