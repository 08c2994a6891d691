//! What systemd says about a unit.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::sys::program::Program;
use crate::sys::system::System;

/// How long systemd may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A unit, as `systemctl show` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// `loaded`, `not-found`, `masked`.
    pub load: String,
    /// `active`, `inactive`, `failed`, ...
    pub active: String,
    /// `running`, `dead`, `auto-restart`, ...
    pub sub: String,
    /// How often systemd started it again by itself.
    pub restarts: u32,
    /// `enabled`, `disabled`, `static`, ...
    pub file: String,
    /// How its last run ended: `success`, `exit-code`, `signal`, `timeout`, ...
    pub result: String,
    /// The exit status of its last run.
    pub exit: i32,
    /// The process id of its master.
    pub main_pid: i32,
}

impl Unit {
    /// Whether it is known and doesn't run.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.load == "loaded"
            && (matches!(self.active.as_str(), "inactive" | "failed") || self.is_restarted_in_vain())
    }

    /// Whether systemd starts it again and again, and it doesn't come to run.
    #[must_use]
    pub fn is_restarted_in_vain(&self) -> bool {
        self.active == "activating" && (self.sub.starts_with("auto-restart") || self.restarts > 0)
    }

    /// Whether its last run failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.active == "failed" || !matches!(self.result.as_str(), "" | "success")
    }
}

/// Asks systemd; `None` where no unit is named, or systemd isn't PID 1, or doesn't answer.
#[must_use]
pub fn show(system: &System, name: &str) -> Option<Unit> {
    let may_ask = !name.is_empty() && system.has_systemd();
    let systemctl = Some(()).filter(|()| may_ask).and_then(|()| system.program("systemctl"))?;
    let properties = "--property=LoadState,ActiveState,SubState,NRestarts,UnitFileState,Result,ExecMainStatus,MainPID,\
                      ConditionResult,ConditionTimestamp";
    let arguments = ["--no-ask-password", "--no-pager", "show", properties, "--", name];
    let done = Program::new(systemctl).args(arguments).run(Instant::now() + LIMIT).ok()?;
    done.succeeded().then(|| parse(&done.output))
}

/// The first directory without which systemd skips a unit, and which isn't there; `None`: there is none, or it can't be known.
#[must_use]
pub fn missing_directory(system: &System, name: &str) -> Option<String> {
    let systemctl = system.program("systemctl")?;
    let done =
        Program::new(systemctl).args(["--no-pager", "cat", "--", name]).run(Instant::now() + LIMIT).ok()?;
    directories(&done.output).into_iter().find(|path| !Path::new(path).is_dir())
}

/// The directories that a unit's text asks for; an empty value forgets those before it.
fn directories(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for path in text.lines().filter_map(|line| line.strip_prefix("ConditionPathIsDirectory=")) {
        if path.is_empty() {
            found.clear();
        } else if path.starts_with('/') {
            found.push(path.replace("%%", "%"));
        }
    }
    found
}

fn parse(text: &str) -> Unit {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim().to_owned()
    };
    Unit {
        load: value("LoadState"),
        active: value("ActiveState"),
        sub: value("SubState"),
        restarts: value("NRestarts").parse().unwrap_or_default(),
        file: value("UnitFileState"),
        result: value("Result"),
        exit: value("ExecMainStatus").parse().unwrap_or_default(),
        main_pid: value("MainPID").parse().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemctl_shows_is_read() {
        let unit = parse(
            "LoadState=loaded\nActiveState=failed\nUnitFileState=static\nResult=exit-code\nExecMainStatus=3\nMainPID=0\n",
        );
        assert!(unit.is_down() && unit.has_failed());
        assert_eq!((unit.exit, unit.file.as_str()), (3, "static"));
        let idle = parse("LoadState=loaded\nActiveState=inactive\nResult=success\nExecMainStatus=1\n");
        assert!(idle.is_down() && !idle.has_failed());
        for more in ["SubState=auto-restart\nNRestarts=0", "SubState=start\nNRestarts=4"] {
            assert!(parse(&format!("LoadState=loaded\nActiveState=activating\n{more}\n")).is_down());
        }
        assert!(!parse("LoadState=loaded\nActiveState=activating\nSubState=start\nNRestarts=0\n").is_down());
        assert!(!parse("LoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=4\n").is_down());
        let text = "# /x\n[Unit]\nConditionPathIsDirectory=/a\n# /y\nConditionPathIsDirectory=\nConditionPathIsDirectory=/b%%c\n";
        assert_eq!(directories(text), ["/b%c"]);
        assert!(!parse("LoadState=not-found\nActiveState=inactive\n").is_down());
        assert_eq!(parse(""), Unit::default());
    }
}
