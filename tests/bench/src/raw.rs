//! Many flows without as many sockets: datagrams of raw sockets there, back and there again, which is what it takes
//! until a flow counts as answered on both sides, with vnet and with nf_conntrack.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use vnet_tests::lab::Netns;

/// Whom the flows go to: as many addresses as it takes, all of them the server's.
const FIRST_SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const SERVERS: &str = "198.51.100.0/24";
const SERVER_PORT: u16 = 4_000;
/// Where they come from.
const FIRST_PORT: u16 = 50_000;
const PORTS: u32 = 15_000;
/// Seconds until an answer is late.
const PATIENCE: i64 = 2;

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const PROTOCOL_UDP: u8 = 17;

/// The two ends.
#[derive(Debug)]
pub(crate) struct ManyFlows {
    client: OwnedFd,
    client_addr: Ipv4Addr,
    server: OwnedFd,
    answers: OwnedFd,
    begun: u32,
}

impl ManyFlows {
    /// Between a client at this address and a server that is reached by the client's default route.
    ///
    /// # Errors
    /// When the kernel has no such sockets.
    pub(crate) fn new(client: (&Netns, IpAddr), server: &Netns) -> Result<Self> {
        let (IpAddr::V4(client_addr), client) = (client.1, client.0) else { bail!("not of IPv4") };
        server.ip(&format!("route add local {SERVERS} dev lo"));
        for netns in [client, server] {
            // Nobody listens, and nobody needs to be told.
            netns.write("/proc/sys/net/ipv4/icmp_ratelimit", "1000000");
        }
        let raw = |netns: &Netns, protocol| {
            netns.enter(|| socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol))
        };
        let listening = raw(server, SockProtocol::Udp).context("a raw socket")?;
        setsockopt(&listening, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE, 0))?;
        Ok(Self {
            client: raw(client, SockProtocol::Raw).context("a raw socket")?,
            client_addr,
            server: listening,
            answers: raw(server, SockProtocol::Raw).context("a raw socket")?,
            begun: 0,
        })
    }

    /// Establishes more of them, until there are so many. Says now and then how many there are.
    ///
    /// # Errors
    /// When a datagram does not arrive.
    pub(crate) fn establish(&mut self, count: u32, done: &dyn Fn(u32)) -> Result<()> {
        let mut arrived = [0; 128];
        while self.begun < count {
            let port = FIRST_PORT + (self.begun % PORTS) as u16;
            let server = Ipv4Addr::from_bits(FIRST_SERVER.to_bits() + self.begun / PORTS);
            let to = SocketAddrV4::new(server, SERVER_PORT);
            let datagram = datagram(SocketAddrV4::new(self.client_addr, port), to);
            send(&self.client, &datagram, to)?;
            let from = self.receive(&mut arrived, to)?;
            send(&self.answers, &self::datagram(to, from), from)?;
            send(&self.client, &datagram, to)?;
            self.receive(&mut arrived, to)?;
            self.begun += 1;
            if self.begun.is_multiple_of(100_000) {
                done(self.begun);
            }
        }
        Ok(())
    }

    /// Waits for a datagram to this address; tells from where it comes.
    fn receive(&self, arrived: &mut [u8], to: SocketAddrV4) -> Result<SocketAddrV4> {
        loop {
            let length = recv(self.server.as_raw_fd(), arrived, MsgFlags::empty())
                .with_context(|| format!("datagram {} is lost", self.begun))?;
            if let Some((from, addressed)) = ends(&arrived[..length])
                && addressed == to
            {
                return Ok(from);
            }
        }
    }
}

fn send(socket: &OwnedFd, datagram: &[u8], to: SocketAddrV4) -> Result<()> {
    let sent = sendto(socket.as_raw_fd(), datagram, &SockaddrIn::from(to), MsgFlags::empty());
    ensure!(sent.with_context(|| format!("send to {to}"))? == datagram.len(), "sent in part");
    Ok(())
}

/// A datagram without payload; the kernel fills in what is zero in the header of IPv4.
fn datagram(from: SocketAddrV4, to: SocketAddrV4) -> [u8; IP_HEADER + UDP_HEADER] {
    let mut bytes = [0; IP_HEADER + UDP_HEADER];
    bytes[0] = 0x45;
    bytes[8] = 64;
    bytes[9] = PROTOCOL_UDP;
    bytes[12..16].copy_from_slice(&from.ip().octets());
    bytes[16..20].copy_from_slice(&to.ip().octets());
    bytes[20..22].copy_from_slice(&from.port().to_be_bytes());
    bytes[22..24].copy_from_slice(&to.port().to_be_bytes());
    bytes[25] = UDP_HEADER as u8;
    bytes
}

/// Whom a datagram is from, and to.
fn ends(bytes: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4)> {
    let header = usize::from(bytes.first()? & 0x0f) * 4;
    let addr = |at: usize| Some(Ipv4Addr::from_octets(bytes.get(at..at + 4)?.try_into().ok()?));
    let port = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let from = SocketAddrV4::new(addr(12)?, port(header)?);
    Some((from, SocketAddrV4::new(addr(16)?, port(header + 2)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_tells_its_ends() {
        let from = SocketAddrV4::new(Ipv4Addr::new(192, 168, 0, 2), 50_000);
        let to = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 9), 4_000);
        assert_eq!(ends(&datagram(from, to)), Some((from, to)));
        assert_eq!(ends(&[0x45; 10]), None);
        assert_eq!(ends(&[]), None);
    }
}
