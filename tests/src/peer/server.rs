//! Servers that say whom they see.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::stream::{receive, send};
use crate::lab::Netns;

/// How long a server waits for a silent client.
const SILENCE: Duration = Duration::from_secs(30);

/// What a TCP server does with a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Sends a line with the client's address, then everything back.
    Echo,
    /// Answers an HTTP request with a line "NAME sees CLIENT-ADDRESS".
    Http {
        /// What it calls itself.
        name: String,
    },
    /// Reads to the end, then sends a line with the digest of what came.
    Sink,
    /// Sends that many bytes of [`send`].
    Source {
        /// How many.
        bytes: u64,
    },
}

/// A server inside a namespace, until it is dropped.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<SocketAddr>>>,
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A TCP server. It listens when this returns; `[::]:PORT` listens on both families.
    ///
    /// # Panics
    /// When the address cannot be listened on.
    #[must_use]
    #[track_caller]
    pub fn tcp(netns: &Netns, listen: &str, service: Service) -> Self {
        let listener = netns.enter(|| TcpListener::bind(listen));
        let listener = listener.unwrap_or_else(|e| panic!("listen on {listen} in {}: {e}", netns.name()));
        let addr = listener.local_addr().expect("bound");
        Self::start(netns, addr, move |stop, seen| serve(&listener, &service, stop, seen))
    }

    /// A TCP server that echoes.
    #[must_use]
    #[track_caller]
    pub fn echo(netns: &Netns, listen: &str) -> Self {
        Self::tcp(netns, listen, Service::Echo)
    }

    /// A UDP server that answers each datagram with a line holding the client's address, then the datagram.
    ///
    /// # Panics
    /// When the address cannot be bound.
    #[must_use]
    #[track_caller]
    pub fn udp(netns: &Netns, listen: &str) -> Self {
        let socket = netns.enter(|| UdpSocket::bind(listen));
        let socket = socket.unwrap_or_else(|e| panic!("bind {listen} in {}: {e}", netns.name()));
        let addr = socket.local_addr().expect("bound");
        Self::start(netns, addr, move |stop, seen| {
            let mut buffer = vec![0; 65536];
            while readable(&socket, stop) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let mut answer = greeting(from, seen).into_bytes();
                answer.extend(&buffer[..length]);
                // The client may have gone; that is its business.
                let _ = socket.send_to(&answer, from);
            }
        })
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// The clients so far, as the server saw them.
    ///
    /// # Panics
    /// Never, unless the server's thread did.
    #[must_use]
    pub fn seen(&self) -> Vec<SocketAddr> {
        self.seen.lock().expect("the server panicked").clone()
    }

    fn start(netns: &Netns, addr: SocketAddr, run: impl FnOnce(&PipeReader, &Seen) + Send + 'static) -> Self {
        let (stopped, stop) = std::io::pipe().expect("a pipe");
        let seen = Seen::default();
        let for_thread = Arc::clone(&seen);
        let thread = netns.spawn(move || run(&stopped, &for_thread));
        Self { addr, seen, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Closing the pipe is what the thread waits for.
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Seen = Arc<Mutex<Vec<SocketAddr>>>;

/// Serves in the calling thread's namespace until the process is killed.
///
/// # Errors
/// When the address cannot be listened on.
pub fn serve_until_killed(listen: &str, service: &Service) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    let (stopped, _stop) = std::io::pipe()?;
    serve(&listener, service, &stopped, &Seen::default());
    Ok(())
}

fn serve(listener: &TcpListener, service: &Service, stop: &PipeReader, seen: &Seen) {
    // Those that are open, to be ended with the server.
    let connections: Arc<Mutex<HashMap<u64, TcpStream>>> = Arc::default();
    for number in 0.. {
        if !readable(listener, stop) {
            break;
        }
        let Ok((stream, from)) = listener.accept() else { continue };
        let greeting = greeting(from, seen);
        if let Ok(another) = stream.try_clone() {
            connections.lock().expect("a server panicked").insert(number, another);
        }
        let (service, connections) = (service.clone(), Arc::clone(&connections));
        thread::spawn(move || {
            // Whatever goes wrong with one client is for that client to notice.
            let _ = attend(&stream, &greeting, &service);
            connections.lock().expect("a server panicked").remove(&number);
        });
    }
    for connection in connections.lock().expect("a server panicked").values() {
        let _ = connection.shutdown(Shutdown::Both);
    }
}

fn attend(mut stream: &TcpStream, greeting: &str, service: &Service) -> std::io::Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    match service {
        Service::Echo => {
            stream.write_all(greeting.as_bytes())?;
            let mut buffer = [0; 16384];
            loop {
                match stream.read(&mut buffer)? {
                    0 => break,
                    length => stream.write_all(&buffer[..length])?,
                }
            }
        }
        Service::Http { name } => answer_http(stream, &format!("{name} sees {greeting}"))?,
        Service::Sink => {
            let (digest, bytes) = receive(stream)?;
            writeln!(stream, "{digest} {bytes}")?;
        }
        Service::Source { bytes } => {
            send(stream, *bytes)?;
        }
    }
    stream.shutdown(Shutdown::Write)
}

/// Reads one request to its empty line and answers it.
fn answer_http(mut stream: &TcpStream, body: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn greeting(from: SocketAddr, seen: &Seen) -> String {
    // An IPv4 client of a socket of both families looks like ::ffff:a.b.c.d.
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    seen.lock().expect("a server panicked").push(from);
    format!("{from}\n")
}

/// Waits until the socket has something; false when the server is to stop.
fn readable(socket: &impl AsFd, stop: &PipeReader) -> bool {
    let mut waiting =
        [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
    match poll(&mut waiting, PollTimeout::NONE) {
        Ok(_) => waiting[1].revents().is_none_or(|events| events.is_empty()),
        Err(nix::errno::Errno::EINTR) => true,
        Err(e) => panic!("poll: {e}"),
    }
}
