//! The client: warms up, does a fixed number of operations and says what each took.

use std::collections::BTreeMap;
use std::io::{IoSlice, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg, setsockopt, sockopt};

use super::{BLOCK, Load, PATIENCE, Sample, allow_many_sockets, impatient, pin};
use crate::case::Kind;
use crate::latency::{Percentiles, rank};

/// One in so many operations is done before, unmeasured, so that caches and neighbours are known.
const WARM_UP: u64 = 10;
/// Datagrams handed to the kernel at once.
const BATCH: usize = 64;
/// What a datagram carries; with its headers it is the smallest frame of Ethernet.
const PAYLOAD: [u8; 18] = [0x5a; 18];
/// Round trips at each step of the ladder.
const ON_EACH_STEP: usize = 2_000;

/// Does what is asked, and says what it found.
///
/// # Errors
/// When the server cannot be reached, or does not answer in time.
pub fn load(order: &Load) -> Result<Sample> {
    pin(order.cpu)?;
    let Load { target, count, .. } = *order;
    match order.kind {
        Kind::Rr => round_trips(target, count),
        Kind::Crr => connections(target, count),
        Kind::Stream1 => streams(target, count, 1),
        Kind::Stream8 => streams(target, count, 8),
        Kind::Udp => datagrams(target, count),
        Kind::Ladder => ladder(target, count),
    }
    .with_context(|| format!("{} to {target}", order.kind))
}

fn round_trips(target: SocketAddr, count: u64) -> Result<Sample> {
    let mut stream = connect(target)?;
    for _ in 0..count / WARM_UP {
        there_and_back(&mut stream)?;
    }
    timed(count, || there_and_back(&mut stream))
}

fn connections(target: SocketAddr, count: u64) -> Result<Sample> {
    let once = || {
        let mut stream = connect(target)?;
        there_and_back(&mut stream)?;
        reset(stream)
    };
    for _ in 0..count / WARM_UP {
        once()?;
    }
    timed(count, once)
}

/// The same operation again and again, each timed.
fn timed(count: u64, mut operation: impl FnMut() -> Result<()>) -> Result<Sample> {
    let mut took = Vec::with_capacity(usize::try_from(count)?);
    let start = Instant::now();
    let mut before = start;
    for _ in 0..count {
        operation()?;
        let now = Instant::now();
        took.push(now - before);
        before = now;
    }
    let per_second = count as f64 / (before - start).as_secs_f64();
    let latency = Percentiles::of(took).context("nothing was measured")?;
    let details = BTreeMap::from([("per_second".to_owned(), per_second)]);
    Ok(Sample { value: latency.p50, latency: Some(latency), details })
}

fn streams(target: SocketAddr, mebibytes: u64, flows: u64) -> Result<Sample> {
    send_streams(target, mebibytes / WARM_UP / flows, flows)?;
    let each = mebibytes / flows;
    let took = send_streams(target, each, flows)?;
    let bits = ((each * flows) << 20) as f64 * 8.0;
    Ok(Sample { value: bits / took.as_secs_f64() / 1e9, latency: None, details: BTreeMap::new() })
}

/// Sends so much on each of so many connections; returns when the server has read all of it.
fn send_streams(target: SocketAddr, mebibytes: u64, flows: u64) -> Result<Duration> {
    let connected = (0..flows).map(|_| connect(target)).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    let senders: Vec<_> = connected
        .into_iter()
        .map(|stream| thread::spawn(move || send_stream(stream, mebibytes << 20)))
        .collect();
    for sender in senders {
        sender.join().expect("a sender does not panic")?;
    }
    Ok(start.elapsed())
}

fn send_stream(mut stream: TcpStream, mut left: u64) -> Result<()> {
    let block = vec![0x5a; BLOCK];
    while left > 0 {
        let length = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        stream.write_all(&block[..length]).context("send")?;
        left -= length as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut [0]).context("wait for the server to have all of it")
}

/// Sends datagrams as fast as the kernel takes them. The sender's CPU carries each all the way to the receiver's
/// queue, so what a system call takes is what the path costs.
fn datagrams(target: SocketAddr, count: u64) -> Result<Sample> {
    // The server tells by TCP, on the same port, how many it has got.
    let mut told = connect(target)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(target)?;
    let mut sender = Sender::new(&socket);
    for _ in 0..(count / WARM_UP).div_ceil(BATCH as u64) {
        sender.send()?;
    }
    let before = received(&mut told)?;
    let batches = count.div_ceil(BATCH as u64);
    let mut took = Vec::with_capacity(usize::try_from(batches)?);
    let start = Instant::now();
    for _ in 0..batches {
        let before = Instant::now();
        sender.send()?;
        took.push(before.elapsed());
    }
    let all = start.elapsed().as_secs_f64();
    let sent = (batches * BATCH as u64) as f64;
    let received = received(&mut told)?.checked_sub(before).context("the server counts backwards")? as f64;
    took.sort_unstable();
    let each = |per_mille| rank(&took, per_mille).map(|batch| batch.as_nanos() as f64 / BATCH as f64);
    let details = [
        // The quickest tenth is what the path costs when nobody else disturbs.
        ("p10_ns", each(100).unwrap_or_default()),
        ("sent_per_second", sent / all),
        ("received_per_second", received / all),
        ("lost_percent", (1.0 - received / sent).max(0.0) * 100.0),
    ];
    let details = details.map(|(name, value)| (name.to_owned(), value));
    let value = each(500).context("nothing was measured")?;
    Ok(Sample { value, latency: None, details: BTreeMap::from(details) })
}

struct Sender<'a> {
    socket: &'a UdpSocket,
    headers: MultiHeaders<SockaddrIn>,
}

impl<'a> Sender<'a> {
    fn new(socket: &'a UdpSocket) -> Self {
        Self { socket, headers: MultiHeaders::preallocate(BATCH, None) }
    }

    fn send(&mut self) -> Result<()> {
        let messages = [[IoSlice::new(&PAYLOAD)]; BATCH];
        let to_the_peer: [Option<SockaddrIn>; BATCH] = [None; BATCH];
        let fd = self.socket.as_raw_fd();
        let sent = sendmmsg(fd, &mut self.headers, &messages, to_the_peer, [], MsgFlags::empty());
        let sent = sent.context("send datagrams")?.count();
        ensure!(sent == BATCH, "only {sent} of {BATCH} datagrams were taken");
        Ok(())
    }
}

/// How many datagrams the server has got so far, once those that are under way have arrived.
fn received(told: &mut TcpStream) -> Result<u64> {
    thread::sleep(Duration::from_millis(100));
    let mut count = [0; 8];
    told.write_all(&[1])?;
    told.read_exact(&mut count).context("ask how many datagrams came")?;
    Ok(u64::from_be_bytes(count))
}

/// 1, 10, 100 … connections open at once.
fn ladder(target: SocketAddr, top: u64) -> Result<Sample> {
    allow_many_sockets()?;
    let mut open: Vec<TcpStream> = Vec::new();
    let mut details = BTreeMap::new();
    let mut last = None;
    for step in steps(usize::try_from(top)?) {
        let mut took = Vec::new();
        while open.len() < step {
            let before = Instant::now();
            let mut stream = connect(target)?;
            there_and_back(&mut stream)?;
            took.push(before.elapsed());
            open.push(stream);
        }
        let connect = Percentiles::of(took).context("a step without a connection")?;
        let mut took = Vec::with_capacity(ON_EACH_STEP);
        for number in 0..ON_EACH_STEP {
            let before = Instant::now();
            there_and_back(&mut open[number % step])?;
            took.push(before.elapsed());
        }
        let latency = Percentiles::of(took).context("a step without a round trip")?;
        details.insert(format!("connect_{step}"), connect.p50);
        details.insert(format!("rr_{step}"), latency.p50);
        last = Some(latency);
    }
    let latency = last.context("a ladder without a step")?;
    open.into_iter().try_for_each(reset)?;
    Ok(Sample { value: latency.p50, latency: Some(latency), details })
}

/// The powers of ten below the top, and the top.
fn steps(top: usize) -> Vec<usize> {
    let mut steps: Vec<usize> = std::iter::successors(Some(1_usize), |step| step.checked_mul(10))
        .take_while(|step| *step < top)
        .collect();
    steps.push(top);
    steps
}

pub(super) fn connect(target: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, PATIENCE).context("connect")?;
    impatient(&stream)?;
    Ok(stream)
}

pub(super) fn there_and_back(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(&[1]).context("send a byte")?;
    stream.read_exact(&mut [0]).context("wait for the byte to come back")
}

/// Closes at once, so that the port is free again and no number of connections uses them up.
pub(super) fn reset(stream: TcpStream) -> Result<()> {
    let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream, sockopt::Linger, &now).context("close at once")
}

#[cfg(test)]
mod tests {
    use super::steps;

    #[test]
    fn the_ladder_ends_at_its_top() {
        assert_eq!(steps(1), [1]);
        assert_eq!(steps(100), [1, 10, 100]);
        assert_eq!(steps(250), [1, 10, 100, 250]);
    }
}
