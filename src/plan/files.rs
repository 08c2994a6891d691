//! The rows of the sites directory while they are decided about: one for each file, in byte order.

use std::ffi::OsStr;

use crate::plan::row::Row;

/// Rows that all have a file, in the files' order.
pub(super) struct Files(Vec<Row>);

impl Files {
    pub(super) fn new(mut rows: Vec<Row>) -> Self {
        rows.retain(|row| row.file.is_some());
        rows.sort_by(|one, other| one.file.cmp(&other.file));
        debug_assert!(rows.is_sorted_by(|one, other| one.file < other.file), "one row for each file");
        Self(rows)
    }

    pub(super) fn and(mut self, others: Vec<Row>) -> Self {
        self.0.extend(others);
        Self::new(self.0)
    }

    /// Where a file is among them.
    pub(super) fn place(&self, file: &OsStr) -> Option<usize> {
        self.0.binary_search_by(|row| file_of(row).cmp(file)).ok()
    }

    pub(super) fn at(&self, place: usize) -> Option<(&OsStr, &Row)> {
        self.0.get(place).map(|row| (file_of(row), row))
    }

    pub(super) fn at_mut(&mut self, place: usize) -> Option<&mut Row> {
        self.0.get_mut(place)
    }

    pub(super) fn get(&self, file: &OsStr) -> Option<&Row> {
        self.0.get(self.place(file)?)
    }

    pub(super) fn get_mut(&mut self, file: &OsStr) -> Option<&mut Row> {
        let place = self.place(file)?;
        self.0.get_mut(place)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&OsStr, &Row)> {
        self.0.iter().map(|row| (file_of(row), row))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Row> {
        self.0.iter_mut()
    }

    pub(super) fn into_rows(self) -> Vec<Row> {
        self.0
    }
}

fn file_of(row: &Row) -> &OsStr {
    row.file.as_deref().unwrap_or_default()
}
