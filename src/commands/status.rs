//! `status` as it is typed: looks, and reports in the form that was asked for.

use crate::cli::{Global, StatusArgs, StatusFormat};
use crate::output::Exit;
use crate::output::status::{html, json, monitoring, prometheus, textfile};
use crate::output::terminal::{Terminal, progress};
use crate::status::status;
use crate::sys::clock::now;
use crate::sys::system::System;

/// Runs `status`; it exits as monitoring plugins do.
pub fn run(terminal: &Terminal, global: &Global, args: &StatusArgs) -> Exit {
    let settings = match global.settings(None) {
        Ok(settings) => settings,
        Err(failure) => {
            if let Some(path) = &args.textfile
                && let Err(unwritten) = textfile::write(path, &prometheus::failure(now()))
            {
                terminal.complain(&unwritten.message);
            }
            match args.format {
                StatusFormat::Html => terminal.print_line(&html::failure(&failure.message, now())),
                StatusFormat::Json => terminal.print_line(&json::failure(&failure)),
                StatusFormat::Monitoring => terminal.print_line(&monitoring::failure(&failure.message)),
                StatusFormat::Human | StatusFormat::Prometheus => terminal.complain(&failure.message),
            }
            return Exit::Unable;
        }
    };
    let mut status = status(&settings, &System::host(), args.setup, &progress());
    let written = args.textfile.as_ref().map(|path| textfile::write(path, &prometheus::text(&status)));
    let unwritten = written.and_then(Result::err);
    let is_written = unwritten.is_none();
    status.error = status.error.or(unwritten);
    match args.format {
        StatusFormat::Human => terminal.print_status(&status),
        StatusFormat::Html => terminal.print_line(&html::text(&status)),
        StatusFormat::Json => terminal.print_line(&json::status(&status, args.setup)),
        StatusFormat::Monitoring => terminal.print_line(&monitoring::text(&status)),
        StatusFormat::Prometheus => terminal.print_line(prometheus::text(&status).trim_end()),
    }
    if is_written { Exit::Seen(status.severity()) } else { Exit::Unable }
}
