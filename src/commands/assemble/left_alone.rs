//! The files that a run leaves as it has found them: what the index saw of these holds to its end.

use std::collections::HashSet;
use std::ffi::OsStr;

use crate::plan::action::Action;
use crate::plan::row::{Role, Row};
use crate::serving::loads::Identity;
use crate::serving::spared::SeenFiles;

/// What was seen of the files that a run with these rows leaves alone.
pub(crate) fn left_alone<'a>(
    rows: &'a [Row],
    seen: &'a SeenFiles<'a>,
) -> impl Fn(&OsStr) -> Option<Identity> + use<'a> {
    let is_touched = |row: &&Row| row.role == Role::Site && row.action != Action::Unchanged;
    let touched: HashSet<&OsStr> =
        rows.iter().filter(is_touched).filter_map(|row| row.file.as_deref()).collect();
    move |file| seen(file).filter(|_| !touched.contains(file))
}
