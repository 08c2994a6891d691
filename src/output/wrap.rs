//! Lines for a terminal: broken at blanks, and never inside a command, which is there to be pasted.

use super::human::Line;

/// Where the lines of a report have their text, behind its first word.
const INDENT: usize = 11;

/// How a line begins that is a command and nothing else.
const COMMAND: &str = "       -> ";

/// What begins a command behind a colon.
const PROGRAMS: [&str; 8] =
    ["haproxy-certs", "certbot", "haproxy", "systemctl", "chmod", "chown", "chgrp", "sed"];

/// The lines, none wider than `width` unless a word or a command is.
#[must_use]
pub fn wrapped(lines: Vec<Line>, width: usize) -> Vec<Line> {
    lines.into_iter().flat_map(|line| wrap(line, width)).collect()
}

fn wrap(line: Line, width: usize) -> Vec<Line> {
    if line.text.len() <= width || line.text.starts_with(COMMAND) {
        return vec![line];
    }
    // What stands in front has blanks of its own.
    let (first, rest) = match line.text.split_at_checked(INDENT) {
        Some((first, rest)) if first.ends_with(' ') => (first, rest),
        _ => ("", line.text.as_str()),
    };
    let mut texts = Vec::new();
    let mut text = first.to_owned();
    let mut is_empty = true;
    for piece in pieces(rest) {
        if !is_empty && text.len() + 1 + piece.len() > width {
            texts.push(std::mem::replace(&mut text, " ".repeat(INDENT)));
            is_empty = true;
        }
        if !is_empty {
            text.push(' ');
        }
        text.push_str(&piece);
        is_empty = false;
    }
    texts.push(text);
    texts.into_iter().map(|text| Line { text, ..line }).collect()
}

/// What isn't broken: words, and commands as a whole.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    let mut in_command = false;
    for word in text.split(' ') {
        match pieces.last_mut() {
            Some(command) if in_command => {
                command.push(' ');
                command.push_str(word);
            }
            Some(before) => {
                in_command = before.ends_with(':') && PROGRAMS.contains(&word);
                pieces.push(word.to_owned());
            }
            None => pieces.push(word.to_owned()),
        }
        in_command &= !word.ends_with([';', ',']);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::human::Tone;

    fn broken(text: &str, width: usize) -> Vec<String> {
        let line = Line { tone: Tone::Plain, text: text.to_owned() };
        wrapped(vec![line], width).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_are_broken_at_blanks_and_indented() {
        assert_eq!(broken("install    a.pem", 16), ["install    a.pem"]);
        assert_eq!(broken("install    a.pem: b", 16), ["install    a.pem:", "           b"]);
        assert_eq!(
            broken("a-long-word-without-a-blank and", 20),
            ["a-long-word-without-a-blank", "           and"]
        );
        assert_eq!(
            broken("/x: 1 installed, 2 pruned", 16),
            ["/x: 1 installed,", "           2", "           pruned"]
        );
    }

    #[test]
    fn commands_stay_whole() {
        let text =
            "refuse     a.pem: bad; issue it: certbot renew --cert-name a; or remove it: certbot delete";
        assert_eq!(
            broken(text, 40),
            [
                "refuse     a.pem: bad; issue it:",
                "           certbot renew --cert-name a;",
                "           or remove it: certbot delete"
            ]
        );
        let command = "       -> sed -i 's/one long command/that is pasted/' /etc/letsencrypt/cli.ini";
        assert_eq!(broken(command, 40), [command]);
    }
}
