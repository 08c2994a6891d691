//! What a real HAProxy doesn't do when it is told to: a socket that answers otherwise, and a master that hears nothing.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use haproxy_certs::haproxy::process::master::Master;
use haproxy_certs::haproxy::process::watch::Watch;
use haproxy_certs::sys::system::System;
use tempfile::TempDir;

use super::haproxy::try_ask;
use super::{LIMIT, wait_until};

/// A socket between the program and HAProxy.
pub struct Middleman {
    folder: TempDir,
    path: PathBuf,
}

impl Middleman {
    /// Asks the real one as it sees fit.
    pub fn between(
        real: &Path,
        act: impl Fn(&Path, &str, &dyn Fn(&str) -> String) -> String + Send + 'static,
    ) -> Self {
        let real = real.to_owned();
        Self::answering(move |request| {
            Some(act(&real, request, &|request| try_ask(&real, request).unwrap_or_default()))
        })
    }

    /// Answers by itself; without an answer the connection stays open.
    pub fn answering(answer: impl Fn(&str) -> Option<String> + Send + 'static) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("middle.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let mut open: Vec<UnixStream> = Vec::new();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { break };
                let mut request = String::new();
                let _ = stream.read_to_string(&mut request);
                match answer(&request) {
                    Some(reply) => {
                        let _ = stream.write_all(reply.as_bytes());
                        let _ = stream.shutdown(Shutdown::Both);
                    }
                    None => open.push(stream),
                }
            }
        });
        Self { folder, path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        assert!(self.folder.path().exists());
        &self.path
    }
}

/// A shell that looks like a HAProxy master and holds SIGUSR2 back.
pub struct DeafMaster {
    process: Child,
    /// As the program opened it.
    pub master: Master,
    _folder: TempDir,
}

impl DeafMaster {
    /// It runs this script, in which `SELF` is its program.
    pub fn start(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("haproxy-deaf");
        fs::copy("/bin/sh", &program).unwrap();
        let script = script.replace("SELF", program.to_str().unwrap());
        let process = Command::new("/usr/bin/env")
            .arg("--block-signal=USR2")
            .arg(&program)
            .args(["-c", &script, "-W"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = process.id().cast_signed();
        let mut opened = Master::open(&System::host(), pid);
        wait_until(LIMIT, "it looks like a master", || {
            opened = Master::open(&System::host(), pid);
            opened.is_ok()
        });
        Self { process, master: opened.unwrap(), _folder: folder }
    }

    /// The watch on it that a signal is sent under.
    pub fn watch(&self) -> Watch<'_> {
        Watch::before(&self.master, Instant::now())
    }

    /// Ends a step of its script.
    pub fn say(&self, line: &str) {
        writeln!(self.process.stdin.as_ref().unwrap(), "{line}").unwrap();
    }
}

impl Drop for DeafMaster {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
