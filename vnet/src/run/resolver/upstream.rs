//! Asking the host's resolvers.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::server::{receive, send};
use crate::kernel::Kernel;
use crate::names;

/// Where they listen.
const PORT: u16 = 53;
/// How long one may take before the next one is asked, or the same once more: whoever asks gives up after five seconds,
/// as a rule (`resolv.conf(5)`).
const PATIENCE: Duration = Duration::from_millis(1500);
/// How often that is done.
const TRIES: usize = 3;
/// How long one that did not answer is asked after the others.
const DEMOTED: Duration = Duration::from_secs(30);
/// How often it is looked which resolvers the host has.
const FRESH: Duration = Duration::from_secs(5);
/// Where the host's resolvers are listed.
pub(super) const LISTED: &str = "/etc/resolv.conf";
/// Where systemd-resolved lists those that it asks itself, if it is the host's resolver.
const BEHIND_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// How somebody asks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Datagram,
    Connection,
}

/// The host's resolvers.
#[derive(Debug, Default)]
pub(super) struct Upstream {
    /// As they were listed, and when that was.
    listed: RefCell<(Option<Instant>, Rc<[SocketAddr]>)>,
    /// When one did not answer.
    failed: RefCell<HashMap<SocketAddr, Instant>>,
}

impl Upstream {
    /// Asks in the way that was asked, byte for byte but for the number. `own` are addresses at which names are answered
    /// here: what is asked there comes back.
    pub(super) async fn ask(&self, question: &[u8], way: Way, own: &HashSet<IpAddr>) -> Option<Vec<u8>> {
        let resolvers = self.in_order(own);
        let mut refusal = None;
        for resolver in resolvers.iter().cycle().take(TRIES) {
            let renumbered = names::renumbered(question);
            let asked = async {
                match way {
                    Way::Datagram => ask_by_datagram(*resolver, &renumbered).await,
                    Way::Connection => ask_by_connection(*resolver, &renumbered).await,
                }
            };
            let Ok(Ok(mut answer)) = timeout(PATIENCE, asked).await else {
                self.failed.borrow_mut().insert(*resolver, Instant::now());
                continue;
            };
            self.failed.borrow_mut().remove(resolver);
            if let Some((number, own)) = answer.first_chunk_mut::<2>().zip(question.first_chunk::<2>()) {
                *number = *own;
            }
            if !names::is_refusal(&answer) {
                return Some(answer);
            }
            // Another one may know better, as the host's own library thinks; asked twice, none does.
            refusal.get_or_insert(answer);
            if resolvers.len() < 2 {
                break;
            }
        }
        refusal
    }

    /// Those that have answered lately, then the others.
    fn in_order(&self, own: &HashSet<IpAddr>) -> Vec<SocketAddr> {
        let mut listed = self.listed.borrow_mut();
        if listed.0.is_none_or(|at| at.elapsed() > FRESH) {
            *listed = (Some(Instant::now()), resolvers().into());
        }
        let mut failed = self.failed.borrow_mut();
        failed.retain(|_, at| at.elapsed() < DEMOTED);
        let mut found: Vec<SocketAddr> =
            listed.1.iter().filter(|resolver| !own.contains(&resolver.ip())).take(TRIES).copied().collect();
        found.sort_by_key(|resolver| failed.contains_key(resolver));
        found
    }
}

/// The host's resolvers that can be asked from here.
pub(super) fn resolvers() -> Vec<SocketAddr> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    if Kernel::has_moved() {
        reachable(&read(LISTED), || read(BEHIND_RESOLVED))
    } else {
        listed(&read(LISTED)).collect()
    }
}

/// The resolvers that a file lists (`resolv.conf(5)`); without any it is the host itself.
fn listed(text: &str) -> impl Iterator<Item = SocketAddr> {
    let addr = |line: &str| {
        let mut words = line.split_whitespace();
        let addr = (words.next() == Some("nameserver")).then(|| words.next())??;
        addr.parse::<IpAddr>().ok()
    };
    let mut found: Vec<IpAddr> = text.lines().filter_map(addr).collect();
    if found.is_empty() {
        found.push(Ipv4Addr::LOCALHOST.into());
    }
    found.into_iter().map(|addr| SocketAddr::new(addr, PORT))
}

/// Those that can be asked from another namespace than the host's: not those that only the host itself reaches. Without
/// any, those of the other file.
fn reachable(text: &str, other: impl FnOnce() -> String) -> Vec<SocketAddr> {
    let of = |text: &str| {
        let is_elsewhere = |resolver: &SocketAddr| {
            let addr = resolver.ip().to_canonical();
            !addr.is_loopback() && !addr.is_unspecified()
        };
        listed(text).filter(is_elsewhere).collect::<Vec<_>>()
    };
    let found = of(text);
    if found.is_empty() { of(&other()) } else { found }
}

async fn ask_by_datagram(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // From here on the kernel lets nobody else answer.
    socket.connect(resolver).await?;
    socket.send(question).await?;
    let mut answer = vec![0; 1 << 16];
    loop {
        let length = socket.recv(&mut answer).await?;
        if names::is_answer_to(&answer[..length], question) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_by_connection(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    send(&mut stream, question).await?;
    let answer = receive(&mut stream).await?;
    if names::is_answer_to(&answer, question) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_as_the_library_of_the_host_does() {
        let text = "# comment\nsearch example.com\nnameserver 192.0.2.1\n  nameserver 2001:db8::1 \nnameserver x\noptions edns0\n";
        let found: Vec<String> = listed(text).map(|addr| addr.to_string()).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53"]);
        assert_eq!(listed("").map(|addr| addr.to_string()).collect::<Vec<_>>(), ["127.0.0.1:53"]);
    }

    #[test]
    fn resolvers_that_only_the_host_reaches_are_left_out_in_a_router() {
        let reachable = |text: &str, other: &str| {
            let found = reachable(text, || other.to_owned());
            found.iter().map(|addr| addr.ip().to_string()).collect::<Vec<_>>()
        };
        let stub = "nameserver 127.0.0.53\noptions edns0\n";
        assert_eq!(
            reachable(stub, "nameserver 192.0.2.1\nnameserver 2001:db8::1\n"),
            ["192.0.2.1", "2001:db8::1"]
        );
        assert_eq!(
            reachable("nameserver ::1\nnameserver 192.0.2.2\n", "nameserver 192.0.2.1\n"),
            ["192.0.2.2"]
        );
        assert!(reachable(stub, "").is_empty());
        assert!(reachable("", "nameserver ::ffff:127.0.0.1\nnameserver 0.0.0.0\n").is_empty());
    }

    #[test]
    fn those_that_did_not_answer_are_asked_last_and_this_one_never() {
        let upstream = Upstream::default();
        let addrs: [IpAddr; 4] =
            ["192.0.2.1", "192.0.2.2", "10.0.0.1", "192.0.2.3"].map(|addr| addr.parse().unwrap());
        let [a, b, own, c] = addrs.map(|addr| SocketAddr::new(addr, PORT));
        *upstream.listed.borrow_mut() = (Some(Instant::now()), [a, b, own, c].into());
        let own = HashSet::from([own.ip()]);
        assert_eq!(upstream.in_order(&own), [a, b, c]);
        upstream.failed.borrow_mut().insert(a, Instant::now());
        assert_eq!(upstream.in_order(&own), [b, c, a]);
        upstream.failed.borrow_mut().insert(b, Instant::now());
        assert_eq!(upstream.in_order(&own), [c, a, b]);
        if let Some(long_ago) = Instant::now().checked_sub(DEMOTED) {
            upstream.failed.borrow_mut().insert(a, long_ago);
            assert_eq!(upstream.in_order(&own), [a, c, b]);
        }
    }
}
