//! The bare work of a run that reads nothing: stats key, chain and deployed file of every lineage, one after the other.
//! `bench-stat LIVE SITES`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for the benchmarks"
)]

use std::fs;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [live, sites] = arguments.as_slice() else {
        eprintln!("usage: bench-stat LIVE SITES");
        return ExitCode::from(64);
    };
    let (live, sites) = (Path::new(live), Path::new(sites));
    let mut seen = 0;
    for entry in fs::read_dir(live).unwrap() {
        let name = entry.unwrap().file_name();
        let folder = live.join(&name);
        let mut site = sites.join(name).into_os_string();
        site.push(".pem");
        let files = [folder.join("privkey.pem"), folder.join("fullchain.pem"), site.into()];
        seen += files.iter().filter(|file| fs::metadata(file).is_ok()).count();
    }
    println!("{seen}");
    ExitCode::SUCCESS
}
