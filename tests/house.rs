//! The rules of the house that no compiler checks: which files know of which, what types are called, and what lies at the
//! top of the repository.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code may fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module's path below the crate, empty for `lib.rs`.
type Module = Vec<String>;

/// What a repository of this kind has at its top.
const TOP: [&str; 20] = [
    ".ci",
    ".git",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "build.rs",
    "clippy.toml",
    "deny.toml",
    "fixtures",
    "man",
    "packaging",
    "rustfmt.toml",
    "src",
    "tests",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every module of the library with its text, comments and unit tests left out.
fn modules() -> BTreeMap<Module, String> {
    fn walk(folder: &Path, at: &[String], found: &mut BTreeMap<Module, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let inside: Module = at.iter().cloned().chain([name.clone()]).collect();
            if path.is_dir() {
                walk(&path, &inside, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") && name != "main" {
                let module = if name == "mod" || name == "lib" { at.to_vec() } else { inside };
                let text = fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap()).collect();
                found.insert(module, code.join("\n"));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&root().join("src"), &[], &mut found);
    found
}

/// The paths that a `use` tree names.
fn paths(tree: &str, prefix: &[String], found: &mut Vec<Module>) {
    let tree = tree.trim();
    let segments = |text: &str| -> Module {
        let named = text.split("::").map(str::trim).filter(|segment| !segment.is_empty());
        prefix.iter().cloned().chain(named.map(str::to_owned)).collect()
    };
    let Some((before, inside)) = tree.split_once('{') else {
        found.push(segments(tree.split(" as ").next().unwrap()));
        return;
    };
    let prefix = segments(before);
    let (mut depth, mut start) = (0, 0);
    let inside = inside.strip_suffix('}').unwrap();
    for (at, character) in inside.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                paths(&inside[start..at], &prefix, found);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !inside[start..].trim().is_empty() {
        paths(&inside[start..], &prefix, found);
    }
}

/// Every path in a module's code that may lead to another module.
fn named(code: &str) -> Vec<Module> {
    let mut found = Vec::new();
    let mut rest = String::new();
    for statement in code.split_inclusive(';') {
        match statement.trim().trim_start_matches("pub ").strip_prefix("use ") {
            Some(tree) => paths(tree.trim_end_matches(';'), &[], &mut found),
            None => rest.push_str(statement),
        }
    }
    let is_of_path = |character: char| character.is_alphanumeric() || "_:".contains(character);
    let words = rest.split(|character| !is_of_path(character)).filter(|word| word.contains("::"));
    found.extend(words.map(|word| word.split("::").map(str::to_owned).collect()));
    found
}

/// The module that a path in `module` leads to.
fn target(module: &Module, path: &[String], all: &BTreeMap<Module, String>) -> Option<Module> {
    let mut absolute: Module = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => module.clone(),
        child => {
            let inside: Module = module.iter().cloned().chain([child.to_owned()]).collect();
            all.contains_key(&inside).then(|| module.clone())?
        }
    };
    for segment in path {
        match segment.as_str() {
            "crate" | "self" => {}
            "super" => drop(absolute.pop()),
            name => absolute.push(name.to_owned()),
        }
    }
    (0..=absolute.len()).rev().map(|length| absolute[..length].to_vec()).find(|it| all.contains_key(it))
}

/// Who imports whom.
fn imports(all: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let of = |(module, code): (&Module, &String)| {
        let named = named(code);
        let targets = named.iter().filter_map(|path| target(module, path, all)).filter(|it| it != module);
        (module.clone(), targets.collect())
    };
    all.iter().map(of).collect()
}

/// What leads back to where it began, by way of others.
fn circles(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<String> {
    let reached = |from: &Module| {
        let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
        while let Some(module) = left.pop() {
            left.extend(imports[module].iter().filter(|it| seen.insert((*it).clone())));
        }
        seen
    };
    imports.keys().filter(|module| reached(module).contains(*module)).map(|it| it.join("::")).collect()
}

#[test]
fn no_file_imports_itself_by_way_of_others() {
    let imports = imports(&modules());
    assert!(imports.len() > 50 && imports.values().map(BTreeSet::len).sum::<usize>() > 200, "{imports:?}");
    assert_eq!(circles(&imports), Vec::<String>::new());
}

#[test]
fn a_circle_would_be_seen() {
    let text = |module: &str, code: &str| (vec![module.to_owned()], code.to_owned());
    let all = BTreeMap::from([
        text("a", "use std::fs;\nuse super::b::{self, B};"),
        text("b", "fn f() { crate::c::f() }"),
        text("c", "pub use crate::{b::X, a::{Y as Z}};"),
        text("d", "use crate::a::A;"),
    ]);
    assert_eq!(circles(&imports(&all)), ["a", "b", "c"]);
}

#[test]
fn a_public_type_has_one_meaning() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (module, code) in modules() {
        for line in code.lines().filter(|line| line.starts_with("pub")) {
            let words: Vec<&str> = line.split(|it: char| !it.is_alphanumeric()).collect();
            let kind = words.iter().position(|word| ["struct", "enum", "trait", "type"].contains(word));
            if let Some(name) = kind.and_then(|at| words.get(at + 1)) {
                places.entry((*name).to_owned()).or_default().push(module.join("::"));
            }
        }
    }
    assert!(places.len() > 100, "{places:?}");
    places.retain(|_, modules| modules.len() > 1);
    assert_eq!(places, BTreeMap::new());
}

#[test]
fn only_the_terminal_prints_and_only_main_exits() {
    let all = modules();
    let with = |words: &[&str]| -> Vec<String> {
        let has = |code: &String| words.iter().any(|word| code.contains(word));
        all.iter().filter(|(_, code)| has(code)).map(|(module, _)| module.join("::")).collect()
    };
    assert_eq!(with(&["io::stdout", "io::stderr"]), ["output::terminal"]);
    assert_eq!(with(&["process::exit", "ExitCode"]), Vec::<String>::new());
    let main = fs::read_to_string(root().join("src/main.rs")).unwrap();
    assert!(main.contains("ExitCode") && !main.contains("std::io"), "{main}");
}

/// An error has a type that says what it is.
#[test]
fn no_error_is_a_bare_string() {
    let is_bare = |line: &&str| line.contains("Result<") && line.contains(", String>");
    let bare = |(module, code): (Module, String)| {
        code.lines().filter(is_bare).map(|line| format!("{}: {}", module.join("::"), line.trim())).collect()
    };
    assert_eq!(modules().into_iter().flat_map::<Vec<String>, _>(bare).collect::<Vec<_>>(), [""; 0]);
}

/// A lint keeps what decides from files, processes and sockets: who says of itself that it is pure has it, or its room.
#[test]
fn what_says_that_it_is_pure_is_kept_so() {
    let denies = |path: &Path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.contains("#![deny(clippy::disallowed_methods, clippy::disallowed_types)]")
    };
    let (mut found, mut without) = (0, Vec::new());
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let mut header = text.lines().take_while(|line| line.starts_with("//!"));
            if header.any(|line| line.ends_with("Pure.")) {
                found += 1;
                without.extend((!denies(&path) && !denies(&folder.join("mod.rs"))).then_some(path));
            }
        }
    }
    assert!(found > 20, "{found}");
    assert_eq!(without, Vec::<PathBuf>::new());
}

#[test]
fn nothing_lies_about_at_the_top() {
    let committed = std::process::Command::new("git").args(["-C"]).arg(root()).args(["ls-files"]).output();
    let names: BTreeSet<String> = match committed {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8(output.stdout).unwrap();
            text.lines().map(|path| path.split('/').next().unwrap().to_owned()).collect()
        }
        // An unpacked archive holds what is committed, and what was built.
        _ => {
            let entries = fs::read_dir(root()).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name != "target").collect()
        }
    };
    let strange: Vec<&String> = names.iter().filter(|name| !TOP.contains(&name.as_str())).collect();
    assert!(names.contains("Cargo.toml") && strange.is_empty(), "{strange:?}");
}
