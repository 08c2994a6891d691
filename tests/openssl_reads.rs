//! A file that isn't ours is judged as HAProxy's OpenSSL reads it: each shape is shown to every real HAProxy here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code may fail loudly"
)]

use std::process::Command;

use haproxy_certs::serving::loads::Contents;
use haproxy_certs::serving::pair::contents;
use support::{Cmd, Haproxy, KeyKind, Run, Tree, Validity, system_haproxy, versions};

/// All that it says, whatever the lines are.
fn said(run: &Run) -> String {
    format!("{} {}", run.stdout, run.stderr).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A file's text in the shapes that editors, scripts and copies leave behind.
fn shapes(key: &str, chain: &str) -> Vec<(&'static str, String)> {
    let pem = format!("{key}{chain}");
    let one_line = |text: &str| {
        let mut out = String::new();
        for line in text.lines() {
            let is_marker = line.starts_with("-----");
            let (before, behind) = if is_marker { ("\n", "\n") } else { ("", "") };
            out.extend([before, line, behind]);
        }
        out.trim_start().replace("\n\n", "\n")
    };
    let begin = "-----BEGIN CERTIFICATE-----";
    let end = "-----END CERTIFICATE-----";
    let last = pem.rfind(begin).unwrap();
    let (before, behind) = pem.split_at(last);
    let first_line = chain.lines().nth(1).unwrap();
    let of_key = key.lines().nth(1).unwrap();
    vec![
        ("as it should be", pem.clone()),
        ("the chain first", format!("{chain}{key}")),
        ("joined", pem.replace("-----\n-----BEGIN", "----------BEGIN")),
        ("joined in the chain", format!("{}{behind}", before.trim_end())),
        ("spaces before BEGIN", pem.replace("-----BEGIN", "  -----BEGIN")),
        ("spaces before END", pem.replace("-----END", "  -----END")),
        ("spaces before the last END", format!("{before}{}", behind.replace("-----END", " -----END"))),
        ("spaces before data", pem.replace("\nMII", "\n  MII")),
        ("spaces behind lines", pem.replace('\n', "  \n")),
        ("tabs behind lines", pem.replace('\n', "\t\n")),
        ("CR LF", pem.replace('\n', "\r\n")),
        ("CR only", pem.replace('\n', "\r")),
        ("no newline at the end", pem.trim_end().to_owned()),
        ("one long line each", one_line(&pem)),
        ("text around", format!("Bag Attributes: x\n{key}\nsubject=x\n{chain}\nthe end\n")),
        ("text behind END", pem.replace(end, &format!("{end} x"))),
        ("text behind BEGIN", pem.replace(begin, &format!("{begin} x"))),
        ("text before BEGIN", pem.replace(begin, &format!("x{begin}"))),
        ("text before the last BEGIN", format!("{before}x{behind}")),
        ("four dashes", pem.replace(end, "-----END CERTIFICATE----")),
        ("four dashes before the last END", format!("{before}{}", behind.replace("-----END", "----END"))),
        ("another label at the END", pem.replace(end, "-----END X509 CERTIFICATE-----")),
        ("an old label", pem.replace("CERTIFICATE-----", "X509 CERTIFICATE-----")),
        ("an unknown label", pem.replace("CERTIFICATE-----", "PUBLIC CERTIFICATE-----")),
        ("an unknown label of the key", pem.replace("PRIVATE KEY-----", "OPENSSH PRIVATE KEY-----")),
        ("an empty line behind BEGIN", pem.replace(begin, &format!("{begin}\n"))),
        ("two empty lines behind BEGIN", pem.replace(begin, &format!("{begin}\n\n"))),
        ("an empty line before END", pem.replace(end, &format!("\n{end}"))),
        ("an empty line within", pem.replace(first_line, &format!("{first_line}\n"))),
        ("an empty line within the key", pem.replace(of_key, &format!("{of_key}\n"))),
        ("short lines behind an empty one", {
            let (one, other) = first_line.split_at(20);
            pem.replace(&format!("{begin}\n{first_line}"), &format!("{begin}\n\n{one}\n{other}"))
        }),
        ("short lines", {
            let (one, other) = first_line.split_at(20);
            pem.replace(first_line, &format!("{one}\n{other}"))
        }),
        (
            "a long line behind an empty one",
            pem.replace(&format!("{begin}\n{first_line}\n"), &format!("{begin}\n\n{first_line}")),
        ),
        ("a header of the certificate", pem.replace(begin, &format!("{begin}\nX: y\n"))),
        ("a comment within", pem.replace(first_line, &format!("# note\n{first_line}"))),
        ("a damaged letter", pem.replacen(first_line, &first_line.replacen('M', "!", 1), 1)),
        ("cut off", pem[..pem.len() - 40].to_owned()),
        ("a block cut off before it", format!("-----BEGIN DH PARAMETERS-----\nMAAA\n{pem}")),
        (
            "another block before it",
            format!("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{pem}"),
        ),
        ("a damaged block before it", format!("-----BEGIN X-----\n!!!!\n-----END X-----\n{pem}")),
        ("a damaged block behind it", format!("{pem}-----BEGIN X-----\n!!!!\n-----END X-----\n")),
        ("half a marker behind it", format!("{pem}-----BEGIN CERTIF\n")),
        ("a lone END line before it", format!("{end}\n{pem}")),
        ("a byte order mark", format!("\u{feff}{pem}")),
        ("a byte order mark and text", format!("\u{feff}# note\n{pem}")),
        ("lower case", pem.replace("BEGIN CERTIFICATE", "begin certificate")),
        ("two spaces behind BEGIN", pem.replace(begin, "-----BEGIN  CERTIFICATE-----")),
        ("more dashes", pem.replace(begin, "------BEGIN CERTIFICATE------")),
        ("one more dash at the end", pem.replace(begin, "-----BEGIN CERTIFICATE------")),
        ("encoded with spaces", pem.replace(first_line, &first_line.replacen('A', "A ", 1))),
        ("only the key", key.to_owned()),
        ("only the chain", chain.to_owned()),
        ("nothing", String::new()),
    ]
}

#[test]
fn what_is_called_unloadable_is_what_haproxy_refuses() {
    let mut tree = Tree::new();
    tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
    let folder = tempfile::tempdir().unwrap();
    let (file, config) = (folder.path().join("x.pem"), folder.path().join("haproxy.cfg"));
    std::fs::write(
        &config,
        format!(
            "defaults\n mode http\n timeout client 1s\n timeout server 1s\n timeout connect 1s\nfrontend f\n bind 127.0.0.1:1 ssl crt {}\n",
            file.display()
        ),
    )
    .unwrap();
    let mut wrong = Vec::new();
    let part = |file: &str| std::fs::read_to_string(tree.live().join("a.example").join(file)).unwrap();
    {
        for (shape, text) in shapes(&part("privkey.pem"), &part("fullchain.pem")) {
            std::fs::write(&file, &text).unwrap();
            for version in versions() {
                let done = Command::new(&version.program).arg("-c").arg("-f").arg(&config).output().unwrap();
                let said = String::from_utf8_lossy(&done.stderr).into_owned();
                let judged = contents(text.as_bytes(), None, Some(version.number()));
                let is_right = match &judged {
                    Contents::Pair(_) => done.status.success(),
                    Contents::Unloadable { .. } => !done.status.success(),
                    Contents::Unseen(_) => shape.contains("byte order mark") || version.number() < (2, 8),
                    Contents::Unserved { .. } => false,
                };
                if !is_right {
                    let said: Vec<&str> = said.lines().filter(|line| line.contains("x.pem")).collect();
                    wrong.push(format!("{shape}, {}: {judged:?} {said:?}", version.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_foreign_file_that_only_we_could_read_is_critical() {
    let mut tree = Tree::new();
    tree.issue("a.example", KeyKind::P256, &["a.example"], Validity::days(90));
    let stranger = tree.authority().issue(KeyKind::P256, &["z.example"], Validity::days(90));
    let cmd = Cmd::new(tree.live());
    cmd.run(&["assemble", "--reload", "none"]).exits(0);
    let text = stranger.combined();
    std::fs::write(cmd.site("z.example"), &text).unwrap();
    let haproxy = Haproxy::of(&system_haproxy()).crt(cmd.sites()).start();
    let cmd = cmd.haproxy(&haproxy, "");
    cmd.assemble(&[]).exits(0);
    std::fs::write(cmd.site("z.example"), text.replace("-----\n-----BEGIN", "----------BEGIN")).unwrap();
    assert!(haproxy.check().is_err());
    let status = said(&cmd.run(&["status"]).exits(2));
    assert!(status.contains("OpenSSL can't read its line"), "{status}");
    let run = said(&cmd.assemble(&[]).exits(1));
    assert!(run.contains("won't start again"), "{run}");
}
