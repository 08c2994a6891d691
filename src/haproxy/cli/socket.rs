//! One command to a HAProxy socket, one reply.
//!
//! HAProxy's sockets are UNIX or TCP streams. Since 3.0 a command after a payload is ignored on the same connection,
//! so each command has its own; the write side is shut after it, since the master's socket stays open after a reply.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use zeroize::Zeroizing;

use crate::config::Address;
use crate::sys::failure::io_cause;

/// The longest reply that is read: the list of some hundred thousand certificates.
const LONGEST_REPLY: usize = 16 << 20;

/// The longest command that is sent, its payload included: 16,384 bytes kill HAProxy 2.2 and 2.6.
pub const LONGEST_COMMAND: usize = 15_000;

/// How long the last words of a peer are waited for that didn't read the whole command.
const CLOSED: Duration = Duration::from_secs(2);

/// Why there is no reply to rely on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// There is no such socket.
    #[error("no such socket")]
    NotThere,
    /// The connection is refused: nobody listens, or a master is re-executing itself, which through 3.0 takes as
    /// long as it loads its configuration.
    #[error("connection refused")]
    Refused,
    /// The operating system forbids to connect.
    #[error("permission denied")]
    Denied,
    /// No complete reply in time.
    #[error("no answer in time")]
    TimedOut,
    /// The connection was closed without a word: HAProxy before 2.7 answers `reload` so, any version a command that
    /// it could not read.
    #[error("an empty reply")]
    Empty,
    /// The reply broke off.
    #[error("the reply broke off")]
    Cut,
    /// The command is longer than what every version survives, and wasn't sent.
    #[error("a command of {0} bytes is too long for some versions of HAProxy")]
    TooLong(usize),
    /// Any other failure.
    #[error("{}", io_cause(.0))]
    Io(#[source] io::Error),
}

impl SocketError {
    /// Whether a master may behave so that is re-executing itself for a reload.
    #[must_use]
    pub fn is_of_a_reload(&self) -> bool {
        matches!(self, Self::Refused | Self::Empty | Self::Cut)
    }
}

impl From<Errno> for SocketError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::NOTDIR => Self::NotThere,
            Errno::CONNREFUSED => Self::Refused,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            Errno::AGAIN | Errno::TIMEDOUT => Self::TimedOut,
            other => Self::Io(other.into()),
        }
    }
}

impl From<io::Error> for SocketError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => errno.into(),
            None if error.kind() == io::ErrorKind::TimedOut => Self::TimedOut,
            None => Self::Io(error),
        }
    }
}

/// Sends one command, complete with its line ends, and returns the reply without the white space around it.
///
/// # Errors
/// Anything but a whole reply before the deadline.
pub fn ask(address: &Address, command: &[u8], deadline: Instant) -> Result<String, SocketError> {
    if command.len() > LONGEST_COMMAND {
        return Err(SocketError::TooLong(command.len()));
    }
    let stream = connect(address, deadline)?;
    let until = match send(&stream, command, deadline) {
        Ok(()) => {
            rustix::net::shutdown(&stream, Shutdown::Write).or_else(unless_closed)?;
            deadline
        }
        // A peer that closed early has said why, or says nothing: the reply decides.
        Err(Errno::PIPE | Errno::CONNRESET) => deadline.min(Instant::now() + CLOSED),
        Err(other) => return Err(other.into()),
    };
    whole(&receive(&stream, until)?)
}

/// Whether somebody accepts connections there, or may do so where we may not look.
#[must_use]
pub fn listens(address: &Address, deadline: Instant) -> bool {
    !matches!(connect(address, deadline), Err(SocketError::NotThere | SocketError::Refused))
}

/// A command line with its payload: HAProxy reads it up to an empty line, so there must be none inside.
#[must_use]
pub fn with_payload(line: &str, payload: &[u8]) -> Zeroizing<Vec<u8>> {
    // The full capacity at once: a growing vector would leave copies of the key behind.
    let mut command = Zeroizing::new(Vec::with_capacity(line.len() + payload.len() + 8));
    command.extend_from_slice(line.as_bytes());
    command.extend_from_slice(b" <<\n");
    command.extend_from_slice(payload);
    if !payload.ends_with(b"\n") {
        command.push(b'\n');
    }
    command.push(b'\n');
    command
}

fn connect(address: &Address, deadline: Instant) -> Result<OwnedFd, SocketError> {
    match address {
        Address::Unix(path) => {
            let socket = rustix::net::socket_with(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )?;
            // Linux waits that long for a place in a full backlog.
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(remaining(deadline)?))?;
            rustix::net::connect(&socket, &SocketAddrUnix::new(path.as_path())?)?;
            Ok(socket)
        }
        Address::Tcp(name) => {
            let mut last = SocketError::NotThere;
            for address in name.addresses(deadline)? {
                match TcpStream::connect_timeout(&address, remaining(deadline)?) {
                    Ok(stream) => return Ok(stream.into()),
                    Err(error) => last = error.into(),
                }
            }
            Err(last)
        }
    }
}

fn send(stream: &OwnedFd, mut bytes: &[u8], deadline: Instant) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::net::send(stream, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            Err(Errno::AGAIN) => wait(stream, PollFlags::OUT, deadline)?,
            Err(Errno::INTR) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

fn receive(stream: &OwnedFd, deadline: Instant) -> Result<Vec<u8>, SocketError> {
    let mut reply = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        match rustix::net::recv(stream, chunk.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Ok(reply),
            Ok((_, count)) if reply.len() + count > LONGEST_REPLY => {
                return Err(SocketError::Io(io::Error::other("the reply doesn't end")));
            }
            Ok((_, count)) => reply.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(Errno::AGAIN) => wait(stream, PollFlags::IN, deadline)?,
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) if reply.is_empty() => return Err(SocketError::Empty),
            // HAProxy resets after its reply where it didn't read all of the command.
            Err(Errno::CONNRESET) => return Ok(reply),
            Err(other) => return Err(other.into()),
        }
    }
}

/// The reply as text, where it is whole: every reply ends with an empty line, but for errors of one line and for what
/// 2.2 shows of an Ed25519 certificate.
fn whole(reply: &[u8]) -> Result<String, SocketError> {
    let text = String::from_utf8_lossy(reply);
    let lines = text.trim_end().lines().count();
    match text.as_ref() {
        "" => Err(SocketError::Empty),
        // A list of nothing.
        "\n" => Ok(String::new()),
        text if text.ends_with("\n\n") || text.ends_with("\nAlgorithm: \n") => Ok(text.trim().to_owned()),
        text if lines == 1 && text.ends_with('\n') => Ok(text.trim().to_owned()),
        _ => Err(SocketError::Cut),
    }
}

fn wait(stream: &OwnedFd, flags: PollFlags, deadline: Instant) -> Result<(), Errno> {
    let left = remaining(deadline).map_err(|_| Errno::TIMEDOUT)?;
    let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
    match poll(&mut [PollFd::new(stream, flags)], Some(&timeout)) {
        Ok(0) => Err(Errno::TIMEDOUT),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(other) => Err(other),
    }
}

fn remaining(deadline: Instant) -> Result<Duration, SocketError> {
    deadline
        .checked_duration_since(Instant::now())
        .filter(|left| *left > Duration::from_millis(1))
        .ok_or(SocketError::TimedOut)
}

/// A peer that closed first has no write side to shut.
fn unless_closed(error: Errno) -> Result<(), Errno> {
    if error == Errno::NOTCONN { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// What `ask` makes of a peer that reads the command, answers this and closes.
    fn answered(reply: &'static str) -> Result<String, SocketError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let peer = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut command = String::new();
            stream.read_to_string(&mut command).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
            command
        });
        let reply = ask(&Address::Unix(path), b"show info\n", soon());
        assert_eq!(peer.join().unwrap(), "show info\n");
        reply
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn only_a_whole_reply_is_one() {
        assert_eq!(answered("a\nb\n\n").unwrap(), "a\nb");
        assert_eq!(answered("\n").unwrap(), "");
        assert_eq!(
            answered("Can't connect to the target CLI!\n").unwrap(),
            "Can't connect to the target CLI!"
        );
        assert_eq!(answered("Status: Used\nAlgorithm: \n").unwrap(), "Status: Used\nAlgorithm:");
        assert!(matches!(answered("a\nb\n"), Err(SocketError::Cut)));
        assert!(matches!(answered("a\nb"), Err(SocketError::Cut)));
        assert!(matches!(answered(""), Err(SocketError::Empty)));
    }

    #[test]
    fn nobody_there_refused_and_silent_differ() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let address = Address::Unix(path.clone());
        assert!(matches!(ask(&address, b"x\n", soon()), Err(SocketError::NotThere)));
        assert!(!listens(&address, soon()));
        let listener = UnixListener::bind(&path).unwrap();
        assert!(listens(&address, soon()));
        let limit = Instant::now() + Duration::from_millis(100);
        assert!(matches!(ask(&address, b"x\n", limit), Err(SocketError::TimedOut)));
        drop(listener);
        // A child that another test is just starting may hold the listener for a moment.
        let until = soon();
        while !matches!(ask(&address, b"x\n", until), Err(SocketError::Refused)) {
            assert!(Instant::now() < until, "a socket that nobody listens on refuses");
        }
        let long = vec![b'x'; LONGEST_COMMAND + 1];
        assert!(matches!(ask(&address, &long, soon()), Err(SocketError::TooLong(_))));
    }

    #[test]
    fn a_payload_ends_with_one_empty_line() {
        for payload in ["A\nB\n", "A\nB"] {
            let command = with_payload("set ssl cert /c/a.pem", payload.as_bytes());
            assert_eq!(command.as_slice(), b"set ssl cert /c/a.pem <<\nA\nB\n\n");
        }
    }
}
