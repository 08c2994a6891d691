//! Makes what is to be made on a host.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use super::lines::{line, settings_shown};
use super::preparation::{Fate, Item, Preparation};
use crate::commands::assemble::patience;
use crate::config::Settings;
use crate::fleet::cache::CacheFolder;
use crate::host_setup::placeholder::placeholder;
use crate::output::human::Line;
use crate::sites::dir::SitesDir;
use crate::sys::failure::{Failure, FailureKind};
use crate::sys::program::Program;
use crate::sys::shared_folder::make_shared;
use crate::sys::system::System;

/// How long systemd may take to read its units.
const SHORTLY: Duration = Duration::from_secs(30);

/// Makes what is to be made, and says of each item what became of it.
///
/// # Errors
/// One of them can't be made; those before it are.
pub fn carry_out(
    settings: &Settings,
    system: &System,
    plan: &Preparation,
    said: &mut dyn FnMut(Line),
) -> Result<(), Failure> {
    for (item, fate) in &plan.items {
        if *fate == Fate::Make {
            make(settings, system, item)?;
        }
        said(line(item, fate, false));
        settings_shown(item, fate).into_iter().for_each(&mut *said);
    }
    Ok(())
}

fn make(settings: &Settings, system: &System, item: &Item) -> Result<(), Failure> {
    match item {
        Item::Config { file, text, .. } => {
            write_whole(file, text).map_err(|e| Failure::io("write", file, &e))
        }
        Item::SitesDir(_) | Item::OwnDir(_) => SitesDir::lock(settings, system, patience(settings)).map(drop),
        Item::HostFile(_) => {
            let pem = placeholder()?;
            let mut sites = SitesDir::lock(settings, system, patience(settings))?;
            sites.put_placeholder(settings, system, &pem).map(drop)
        }
        Item::Hook { link, program } => {
            make_folder_of(link)?;
            symlink(program, link).map_err(|e| Failure::io("link", link, &e))
        }
        Item::Cache(path) => CacheFolder::lock(path).map(drop),
        Item::DropIn { file, text, .. } => {
            make_folder_of(file)?;
            write_whole(file, text).map_err(|e| Failure::io("write", file, &e))?;
            reload_units(system)
        }
    }
}

fn make_folder_of(file: &Path) -> Result<(), Failure> {
    let Some(folder) = file.parent() else { return Ok(()) };
    make_shared(folder).map_err(|e| Failure::io("create", folder, &e))
}

/// Writes a small file that others read so that it never is half there.
fn write_whole(file: &Path, text: &str) -> io::Result<()> {
    let mut unnamed = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(file.parent().unwrap_or(Path::new("/")))?;
    unnamed.write_all(text.as_bytes())?;
    unnamed.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    unnamed.as_file().sync_all()?;
    unnamed.persist(file).map(drop).map_err(|e| e.error)
}

/// Lets systemd read its units again.
fn reload_units(system: &System) -> Result<(), Failure> {
    let Some(systemctl) = system.program("systemctl").filter(|_| system.has_systemd()) else { return Ok(()) };
    let run = Program::new(&systemctl).arg("daemon-reload").run(Instant::now() + SHORTLY);
    match run {
        Ok(done) if done.succeeded() => Ok(()),
        Ok(done) => Err(Failure::new(
            FailureKind::Io,
            format!("systemctl daemon-reload {}; run it again", done.end()),
        )),
        Err(e) => Err(Failure::io("run", &systemctl, &e)),
    }
}
