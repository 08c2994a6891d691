//! Somebody between the program and an etcd: hears everything, and breaks off what he is told to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::ports::Port;

/// What he does to one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is carried out, and no answer comes back.
    NoAnswer,
    /// It is carried out, and of the answer only so many bytes come back.
    Cut(usize),
    /// It isn't passed on, and the connection ends.
    Unasked,
    /// It isn't passed on; this is the answer.
    Status(u16),
    /// It isn't passed on; the answer is no JSON.
    Nonsense,
    /// The answer comes after a while.
    Late,
}

#[derive(Default)]
struct Orders {
    /// How many questions there were since he was armed.
    asked: usize,
    fault: Option<(usize, Fault)>,
    /// Questions that have this in their path are held until it is gone.
    hold: Option<String>,
    held: usize,
    heard: Vec<u8>,
}

/// Between the program and one plain member.
pub struct Middleman {
    port: Port,
    orders: Arc<Mutex<Orders>>,
    ends: Arc<AtomicBool>,
}

impl Middleman {
    /// In front of this address: `http://127.0.0.1:2379`.
    pub fn before(endpoint: &str) -> Self {
        let port = Port::free();
        let listener = TcpListener::bind(port.address()).unwrap();
        let (orders, ends) = (Arc::new(Mutex::new(Orders::default())), Arc::new(AtomicBool::new(false)));
        let there = endpoint.trim_start_matches("http://").to_owned();
        let (its_orders, its_end) = (Arc::clone(&orders), Arc::clone(&ends));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if its_end.load(Ordering::Relaxed) {
                    return;
                }
                let (orders, there) = (Arc::clone(&its_orders), there.clone());
                thread::spawn(move || {
                    let _ = pass_on(&stream.unwrap(), &there, &orders);
                });
            }
        });
        Self { port, orders, ends }
    }

    /// His own address.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// Counts from now on, and does this to the question of that number.
    pub fn arm(&self, fault: Option<(usize, Fault)>) {
        let mut orders = self.orders.lock().unwrap();
        (orders.asked, orders.fault) = (0, fault);
    }

    /// How many questions there were.
    pub fn disarm(&self) -> usize {
        let mut orders = self.orders.lock().unwrap();
        orders.fault = None;
        orders.asked
    }

    /// Holds back questions in which this is, until [`Middleman::let_go`].
    pub fn hold(&self, what: &str) {
        self.orders.lock().unwrap().hold = Some(what.to_owned());
    }

    /// How many are held.
    pub fn held(&self) -> usize {
        self.orders.lock().unwrap().held
    }

    /// Passes on what was held.
    pub fn let_go(&self) {
        self.orders.lock().unwrap().hold = None;
    }

    /// All that went through, in both directions.
    pub fn heard(&self) -> Vec<u8> {
        self.orders.lock().unwrap().heard.clone()
    }
}

impl Drop for Middleman {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.let_go();
        let _ = TcpStream::connect(self.port.address());
    }
}

/// Passes on question after question of one connection.
fn pass_on(client: &TcpStream, there: &str, orders: &Mutex<Orders>) -> std::io::Result<()> {
    let server = TcpStream::connect(there)?;
    let (mut from_client, mut from_server) =
        (BufReader::new(client.try_clone()?), BufReader::new(server.try_clone()?));
    let (mut client, mut server) = (client.try_clone()?, server.try_clone()?);
    while let Some(question) = message(&mut from_client)? {
        let text = String::from_utf8_lossy(&question).into_owned();
        let fault = {
            let mut orders = orders.lock().unwrap();
            orders.heard.extend(&question);
            let number = orders.asked;
            orders.asked += 1;
            orders.fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault)
        };
        let is_held = || orders.lock().unwrap().hold.as_ref().is_some_and(|what| text.contains(what));
        if is_held() {
            orders.lock().unwrap().held += 1;
            while is_held() {
                thread::sleep(Duration::from_millis(10));
            }
            orders.lock().unwrap().held -= 1;
        }
        match fault {
            Some(Fault::Unasked) => break,
            Some(Fault::Status(status)) => {
                let body = r#"{"error":"etcdserver: not now","code":14,"message":"etcdserver: not now"}"#;
                say(&mut client, &format!("{status} No"), body)?;
                continue;
            }
            Some(Fault::Nonsense) => {
                say(&mut client, "200 OK", "<html>a proxy</html>")?;
                continue;
            }
            Some(Fault::NoAnswer | Fault::Cut(_) | Fault::Late) | None => {}
        }
        server.write_all(&question)?;
        if text.contains(" /v3/watch ") {
            // Whatever comes, as it comes.
            let mut buffer = [0; 8192];
            loop {
                let length = from_server.read(&mut buffer)?;
                if length == 0 {
                    return Ok(());
                }
                client.write_all(&buffer[..length])?;
            }
        }
        let Some(answer) = message(&mut from_server)? else { break };
        orders.lock().unwrap().heard.extend(&answer);
        match fault {
            Some(Fault::NoAnswer) => break,
            Some(Fault::Cut(length)) => {
                client.write_all(&answer[..length.min(answer.len() - 1)])?;
                break;
            }
            Some(Fault::Late) => thread::sleep(Duration::from_millis(700)),
            _ => {}
        }
        client.write_all(&answer)?;
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
    Ok(())
}

fn say(stream: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// One question or answer with its head; `None`: the connection ended.
fn message(from: &mut BufReader<TcpStream>) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let (mut length, mut is_chunked) = (None, false);
    loop {
        let at = bytes.len();
        if from.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&bytes[at..]).to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse::<usize>().ok();
        }
        is_chunked |= line.starts_with("transfer-encoding:") && line.contains("chunked");
        if line == "\r\n" {
            break;
        }
    }
    let is_watch = bytes.starts_with(b"POST /v3/watch ");
    if is_chunked && !is_watch {
        loop {
            let at = bytes.len();
            if from.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(None);
            }
            let size = String::from_utf8_lossy(&bytes[at..]).trim().to_owned();
            let size = usize::from_str_radix(&size, 16).unwrap_or(0);
            let mut chunk = vec![0; size + 2];
            from.read_exact(&mut chunk)?;
            bytes.extend(chunk);
            if size == 0 {
                return Ok(Some(bytes));
            }
        }
    }
    let mut body = vec![0; length.unwrap_or(0)];
    from.read_exact(&mut body)?;
    bytes.extend(body);
    Ok(Some(bytes))
}
