//! The text of a configuration file: all comments, with settings in the places of some of them. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// The configuration file that is all comments: every setting with its default.
pub const COMMENTS: &str = include_str!("../../packaging/haproxy-certs.toml");

/// Keys of the configuration file with their values, as TOML.
pub type Values = Vec<(&'static str, String)>;

/// The comments with these settings in them: `top` before all tables, `table` in the first `[[haproxy]]`.
#[must_use]
pub fn filled_in(comments: &str, top: &Values, table: &Values) -> String {
    let mut text = String::new();
    // sites_dir and host_file are keys of the table, too.
    let mut is_in_table = false;
    for line in comments.lines() {
        let key = line.strip_prefix("# ").and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
        let keys = if is_in_table { table } else { top };
        is_in_table |= line == "# [[haproxy]]";
        match keys.iter().find(|(name, _)| Some(*name) == key) {
            Some((name, value)) => text.extend([name, " = ", value]),
            None if line == "# [[haproxy]]" && !table.is_empty() => text.push_str("[[haproxy]]"),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// The lines that are no comments.
#[must_use]
pub fn settings_in(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// A string (TOML 1.0.0, basic strings).
#[must_use]
pub fn quoted(text: &str) -> String {
    let characters = text.chars().map(|character| match character {
        '"' | '\\' => format!("\\{character}"),
        control if control.is_control() => format!("\\u{:04X}", u32::from(control)),
        other => other.to_string(),
    });
    format!("\"{}\"", characters.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, Settings};

    #[test]
    fn a_setting_takes_the_place_of_its_comment() {
        let sites_dir = "/srv/a \"b\" \\c\n\u{85}";
        let top = vec![("sites_dir", quoted(sites_dir))];
        let text = filled_in(COMMENTS, &top, &vec![("pidfile", quoted("/run/edge.pid"))]);
        assert_eq!(text.lines().count(), COMMENTS.lines().count());
        assert_eq!(settings_in(&text)[1..], ["[[haproxy]]", "pidfile = \"/run/edge.pid\""]);
        let settings = Settings::parse(&text, &Overrides::default()).unwrap();
        assert_eq!(settings.sites_dir.to_str(), Some(sites_dir));
        assert_eq!(settings.haproxys[0].sites_dir, sites_dir);
        assert_eq!(filled_in(COMMENTS, &Vec::new(), &Vec::new()), COMMENTS);
    }
}
