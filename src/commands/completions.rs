//! What a shell completes: clap's script for it, and the names of lineages, which only the program knows.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::certbot::CertbotTree;
use crate::cli::{Cli, Completions, Global};
use crate::config::Settings;
use crate::output::Exit;
use crate::output::terminal::Terminal;
use crate::sys::failure::Failure;

/// Runs `completions`.
///
/// # Errors
/// The settings, which say where the lineages are, can't be used.
pub fn run(terminal: &Terminal, global: &Global, what: Completions) -> Result<Exit, Failure> {
    let text = match what {
        Completions::Bash => script(Shell::Bash),
        Completions::Elvish => script(Shell::Elvish),
        Completions::Fish => script(Shell::Fish),
        Completions::PowerShell => script(Shell::PowerShell),
        Completions::Zsh => script(Shell::Zsh),
        Completions::Lineages => lineages(&global.settings(None)?),
    };
    terminal.print(&text);
    Ok(Exit::Fine)
}

/// The script for a shell.
#[must_use]
pub fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "haproxy-certs", &mut script);
    // clap_complete spells a name with a hyphen in two ways (clap issue 6421): no command's option would be found.
    let script = String::from_utf8_lossy(&script).replace("haproxy__subcmd__certs", "haproxy__certs");
    match shell {
        Shell::Bash => {
            // Here clap_complete offers hidden values, too.
            let script = script.replace(" lineages\"\n", "\"\n");
            let script = script.replacen("    prev=\"$3\"\n", BASH_PREVIOUS, 1);
            with_lineages(&script, "--force)\n", "compgen -f \"${cur}\"", BASH_WORDS, BASH)
        }
        Shell::Zsh => {
            with_lineages(&script, "*--force=", ":LINEAGE:_default", ":LINEAGE:_haproxy_certs_lineages", ZSH)
        }
        Shell::Fish => {
            with_lineages(&script, " -l force ", " -r\n", " -x -a \"(__haproxy_certs_lineages)\"\n", FISH)
        }
        _ => script,
    }
}

const BASH_WORDS: &str = "compgen -W \"$(_haproxy_certs_lineages)\" -- \"${cur}\"";

/// bash cuts `--force=NAME` into three words at the sign, for which clap's script isn't made.
const BASH_PREVIOUS: &str = r#"    prev="$3"
    if [[ ${prev} == = ]]; then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi
"#;

const BASH: &str = r#"
_haproxy_certs_lineages() {
    local i value options=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${COMP_WORDS[i]}" in
            --config | --live-dir)
                value=${COMP_WORDS[i + 1]}
                if [[ ${value} == = ]]; then value=${COMP_WORDS[i + 2]}; fi
                options+=("${COMP_WORDS[i]}" "${value}")
                ;;
        esac
    done
    "${COMP_WORDS[0]}" "${options[@]}" completions lineages 2>/dev/null
}
"#;

/// Options before the command aren't among `words` any more where a command's own options are completed.
const ZSH: &str = r#"
_haproxy_certs_lineages() {
    local -a all options lineages
    local i
    all=(${(z)BUFFER})
    for ((i = 1; i < ${#all}; i++)); do
        case "${all[i]}" in
            --config | --live-dir) options+=("${all[i]}" "${(Q)all[i + 1]}") ;;
            --config=* | --live-dir=*) options+=("${(Q)all[i]}") ;;
        esac
    done
    lineages=(${(f)"$(haproxy-certs "${options[@]}" completions lineages 2>/dev/null)"})
    compadd -a lineages
}
"#;

const FISH: &str = r"
function __haproxy_certs_lineages
    set -l words (commandline -opc)
    set -l options
    for i in (seq 2 (count $words))
        switch $words[$i]
            case --config --live-dir
                test $i -lt (count $words); or continue
                set -l next (math $i + 1)
                set -a options $words[$i] $words[$next]
            case '--config=*' '--live-dir=*'
                set -a options $words[$i]
        end
    end
    $words[1] $options completions lineages 2>/dev/null
end
";

/// The script with `function` in it, and with `own` in the place of `general` where the values of --force are completed.
/// zsh's begins with a line that says what it is for; it has to stay the first.
fn with_lineages(script: &str, option: &str, general: &str, own: &str, function: &str) -> String {
    let (first, rest) = script.split_once('\n').unwrap_or((script, ""));
    let mut text = String::with_capacity(script.len() + 1024);
    text.push_str(if first.starts_with("#compdef") { first } else { "" });
    text.push_str(function);
    text.push_str(if first.starts_with("#compdef") { "" } else { first });
    text.push('\n');
    match rest.split_once(option) {
        Some((before, after)) => {
            text.push_str(before);
            text.push_str(option);
            text.push_str(&after.replacen(general, own, 1));
        }
        None => text.push_str(rest),
    }
    text
}

/// The lineages, one a line; those with a name that a shell would have to quote aren't offered.
#[must_use]
pub fn lineages(settings: &Settings) -> String {
    let found = CertbotTree::of(settings).discover();
    let names = found.into_iter().flat_map(|found| found.lineages);
    let is_plain =
        |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let plain = names.filter_map(|name| name.into_string().ok()).filter(is_plain);
    plain.map(|name| name + "\n").collect()
}
