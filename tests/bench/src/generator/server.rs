//! The server. It ends when whoever started it has ended, so that nothing is left behind by a killed benchmark.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::{Pid, getppid};

use super::{BLOCK, READY, Serve, allow_many_sockets, impatient, pin};
use crate::case::Kind;

/// How often an idle server looks whether it is still wanted, in milliseconds.
const LOOK_ROUND: u16 = 500;
/// Connections that may wait to be accepted.
const BACKLOG: usize = 1024;

/// Serves until the parent has ended.
///
/// # Errors
/// When the port is taken, or the kernel refuses.
pub fn serve(order: &Serve) -> Result<()> {
    pin(order.cpu)?;
    allow_many_sockets()?;
    let parent = getppid();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, order.port))
        .with_context(|| format!("listen on {}", order.port))?;
    match order.kind {
        Kind::Rr | Kind::Crr | Kind::Ladder => echo(&listener, parent),
        Kind::Stream1 | Kind::Stream8 => each_connection(&listener, parent, swallow),
        Kind::Udp => {
            let came = Arc::new(AtomicU64::new(0));
            count_datagrams(order.port, Arc::clone(&came))?;
            each_connection(&listener, parent, move |stream| tell(stream, &came))
        }
    }
}

fn ready() {
    println!("{READY}");
}

fn wanted(parent: Pid) -> bool {
    getppid() == parent
}

/// Sends every byte back, on any number of connections.
fn echo(listener: &TcpListener, parent: Pid) -> Result<()> {
    listener.set_nonblocking(true)?;
    // A queue for the ladder's steps.
    nix::sys::socket::listen(listener, nix::sys::socket::Backlog::new(BACKLOG as i32)?)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let interest = |fd: i32| EpollEvent::new(EpollFlags::EPOLLIN, fd as u64);
    let listening = listener.as_raw_fd();
    epoll.add(listener, interest(listening))?;
    // By number of the descriptor.
    let mut open: Vec<Option<TcpStream>> = Vec::new();
    let mut events = [EpollEvent::empty(); 64];
    ready();
    while wanted(parent) {
        // Only an idle server comes back here without events.
        loop {
            let count = epoll.wait(&mut events, EpollTimeout::from(LOOK_ROUND))?;
            if count == 0 {
                break;
            }
            for event in &events[..count] {
                let fd = event.data() as usize;
                if event.data() == listening as u64 {
                    accept(listener, &epoll, &mut open)?;
                } else if let Some(stream) = open.get_mut(fd).and_then(Option::as_mut)
                    && !answer(stream)
                {
                    // Closing a descriptor takes it out of the set.
                    open[fd] = None;
                }
            }
        }
    }
    Ok(())
}

fn accept(listener: &TcpListener, epoll: &Epoll, open: &mut Vec<Option<TcpStream>>) -> Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                impatient(&stream)?;
                let fd = stream.as_raw_fd() as usize;
                epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, fd as u64))?;
                if open.len() <= fd {
                    open.resize_with(fd + 1, || None);
                }
                open[fd] = Some(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // Gone before it was accepted.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error).context("accept"),
        }
    }
}

/// Whether the connection is still of use.
fn answer(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    matches!(stream.read(&mut byte), Ok(1)) && stream.write_all(&byte).is_ok()
}

/// A thread for each connection, on the same CPU.
fn each_connection(
    listener: &TcpListener,
    parent: Pid,
    serve: impl Fn(TcpStream) + Clone + Send + 'static,
) -> Result<()> {
    ready();
    while wanted(parent) {
        let mut listening = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        if poll(&mut listening, PollTimeout::from(LOOK_ROUND))? > 0 {
            let (stream, _) = listener.accept().context("accept")?;
            impatient(&stream)?;
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    }
    Ok(())
}

/// Reads to the end, then says so with one byte.
fn swallow(mut stream: TcpStream) {
    let mut block = vec![0; BLOCK];
    loop {
        match stream.read(&mut block) {
            Ok(0) => break,
            Ok(_) => {}
            // The client sees that no byte comes.
            Err(_) => return,
        }
    }
    let _ = stream.write_all(&[1]);
}

/// Says how many datagrams came, whenever it is asked.
fn tell(mut stream: TcpStream, came: &AtomicU64) {
    while stream.read_exact(&mut [0]).is_ok() {
        let count = came.load(Ordering::Relaxed);
        if stream.write_all(&count.to_be_bytes()).is_err() {
            return;
        }
    }
}

fn count_datagrams(port: u16, came: Arc<AtomicU64>) -> Result<()> {
    let socket =
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| format!("bind UDP port {port}"))?;
    // What the receiver loses because it is slower is no property of the path. Needs a privilege we have.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20));
    thread::spawn(move || {
        let mut datagram = [0; 64];
        while socket.recv(&mut datagram).is_ok() {
            came.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok(())
}
