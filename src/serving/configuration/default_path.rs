//! Where relative names begin: base directories, and `default-path`.

/// Where relative names begin (`default-path`, 2.4 and later): from its line on, and in the files after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum DefaultPath {
    /// Where HAProxy was started.
    #[default]
    Current,
    /// In the directory of the file that names them.
    Config,
    /// In the one above it.
    Parent,
    /// Here.
    Origin(String),
}

/// Where the relative names of a file begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Where HAProxy was started.
    Start,
    /// In the directory of the file that names them, or the one above it.
    Beside(String),
    /// In this directory.
    In(String),
}

impl DefaultPath {
    /// Where the names of a file begin.
    pub(super) fn of(&self, file: &str) -> Beginning {
        let folder = match file.rsplit_once('/') {
            Some(("", _)) => "/",
            Some((folder, _)) => folder,
            None => ".",
        };
        match self {
            Self::Current => Beginning::Start,
            Self::Config => Beginning::Beside(folder.to_owned()),
            Self::Parent => Beginning::Beside(format!("{folder}/..")),
            Self::Origin(path) => Beginning::In(path.clone()),
        }
    }
}

/// A path behind its base directory, as HAProxy joins them.
pub(super) fn joined(base: Option<&String>, path: &str) -> String {
    match base {
        Some(base) if !path.starts_with('/') => format!("{base}/{path}"),
        _ => path.to_owned(),
    }
}
