//! What systemd says about a unit.

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
    /// `enabled`, `disabled`, `static`, ...
    pub file: String,
    /// How its last run ended: `success`, `exit-code`, `signal`, `timeout`, ...
    pub result: String,
    /// The exit status of its last run.
    pub exit: i32,
    /// When systemd looked last whether its conditions hold, and they didn't, so that it was skipped.
    pub skipped: Option<String>,
    /// The process id of its master.
    pub main_pid: i32,
}

impl Unit {
    /// Whether it is known and doesn't run.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.load == "loaded" && matches!(self.active.as_str(), "inactive" | "failed")
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
    let properties = "--property=LoadState,ActiveState,UnitFileState,Result,ExecMainStatus,MainPID,ConditionResult,ConditionTimestamp";
    let arguments = ["--no-ask-password", "--no-pager", "show", properties, "--", name];
    let done = Program::new(systemctl).args(arguments).run(Instant::now() + LIMIT).ok()?;
    done.succeeded().then(|| parse(&done.output))
}

fn parse(text: &str) -> Unit {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim().to_owned()
    };
    Unit {
        load: value("LoadState"),
        active: value("ActiveState"),
        file: value("UnitFileState"),
        result: value("Result"),
        exit: value("ExecMainStatus").parse().unwrap_or_default(),
        skipped: (value("ConditionResult") == "no")
            .then(|| value("ConditionTimestamp"))
            .filter(|at| !at.is_empty()),
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
        assert_eq!(parse("ConditionResult=no\nConditionTimestamp=\n").skipped, None);
        let skipped = parse("ConditionResult=no\nConditionTimestamp=Sun 2026-11-29 19:40:02 UTC\n").skipped;
        assert_eq!(skipped.as_deref(), Some("Sun 2026-11-29 19:40:02 UTC"));
        assert!(!parse("LoadState=not-found\nActiveState=inactive\n").is_down());
        assert_eq!(parse(""), Unit::default());
    }
}
