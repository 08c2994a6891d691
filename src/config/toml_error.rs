//! What is said of a file that isn't the expected TOML: where it isn't, and what to write.

use super::unusable::Unusable;

/// The parser's message with the line that it is about, in one line.
pub(super) fn locate(text: &str, error: &toml::de::Error) -> Unusable {
    let message = error.message().replace('\n', ", ");
    let Some(span) = error.span() else { return Unusable::Text(message) };
    let before = text.get(..span.start).unwrap_or_default();
    let number = 1 + before.bytes().filter(|&byte| byte == b'\n').count();
    let line = text.lines().nth(number - 1).unwrap_or_default();
    Unusable::Line { line: number, message: better(line, &message).unwrap_or(message) }
}

/// What to write instead, where a line is nearly right.
fn better(line: &str, message: &str) -> Option<String> {
    let code = line.split('#').next().unwrap_or_default().trim();
    let is_a = |found: &str, wanted: &str| {
        message.starts_with(&format!("invalid type: {found}"))
            && message.contains(&format!("expected {wanted}"))
    };
    if is_a("map", "a sequence") && code.trim_start_matches('[').starts_with("haproxy") {
        return Some(
            "write [[haproxy]], with two brackets on each side: there may be several of them".to_owned(),
        );
    }
    if message.starts_with("invalid type: map") && code.starts_with("[[certbot") {
        return Some("write [certbot], with one bracket on each side: there is only one".to_owned());
    }
    let (key, value) = code.split_once('=').map(|(key, value)| (key.trim(), value.trim()))?;
    let quoted = value.trim_matches(['"', '\'']);
    if ["integer", "floating point", "boolean"]
        .iter()
        .any(|found| is_a(found, "a string") || is_a(found, "path string"))
    {
        let unit = if key == "timeout" { "s" } else { "" };
        return Some(format!("{key} = {value} needs quotes: write {key} = \"{quoted}{unit}\""));
    }
    if is_a("string", "a sequence") {
        let words = if ["command", "args"].contains(&key) { words(quoted) } else { format!("\"{quoted}\"") };
        return Some(format!("{key} is a list: write {key} = [{words}]"));
    }
    if message.contains("leading zero") && key == "mode" {
        return Some(format!("{key} = {value} needs quotes: write {key} = \"{quoted}\""));
    }
    if is_a("string", "u16") {
        return Some(format!("{key} is a number: write {key} = {quoted}"));
    }
    None
}

/// A command line as the list of its words.
fn words(line: &str) -> String {
    let quoted: Vec<String> = line.split_whitespace().map(|word| format!("\"{word}\"")).collect();
    quoted.join(", ")
}
