//! Ports that programs of the host hold: what they bound before is theirs. What they bind later is refused by the
//! kernel, see `vnet_datapath::local`.

use std::net::{IpAddr, SocketAddr};

use super::error::Refused;
use super::{Error, Manager};
use crate::kernel::{BoundSocket, Process};
use crate::reconcile::Machine;
use crate::spec::{PortMap, Ports, Protocol};

impl<M: Machine> Manager<M> {
    /// Refuses to publish what a program of the host holds; each mapping comes with the number of its request. Gives a
    /// note where the kernel does not tell. It is asked once for each protocol, however many mappings there are.
    pub(super) fn check_unheld(&self, mappings: &[(usize, PortMap)]) -> Unheld {
        let mut unheld = Unheld { refused: Vec::new(), notes: Vec::new() };
        // No hook would tell vnet of SCTP sockets bound later either.
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            // The endpoint's own address is no program's here.
            let asked =
                |(_, mapping): &&(usize, PortMap)| mapping.protocol == protocol && !mapping.is_direct();
            let mappings: Vec<_> = mappings.iter().filter(asked).collect();
            let ports = mappings.iter().map(|(_, mapping)| mapping.published.ports);
            let first = ports.clone().map(Ports::first).min();
            let Some((first, last)) = first.zip(ports.map(Ports::last).max()) else { continue };
            let mut sockets = match self.machine.bound_sockets(protocol.number(), first..=last) {
                Ok(sockets) => sockets,
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    unheld.notes.push(format!(
                        "nobody knows whether a program of the host holds {}/{protocol}: {error:#}",
                        named(&mappings)
                    ));
                    continue;
                }
            };
            sockets.sort_by_key(|socket| socket.port);
            for (nth, mapping) in mappings {
                if let Some(error) = self.held(mapping, &sockets) {
                    unheld.refused.push(Refused { nth: *nth, error });
                }
            }
        }
        unheld
    }

    /// The program that holds a port of a mapping, if there is one; the sockets are sorted by port.
    fn held(&self, mapping: &PortMap, sockets: &[BoundSocket]) -> Option<Error> {
        let ports = mapping.published.ports;
        let from_first = &sockets[sockets.partition_point(|socket| socket.port < ports.first())..];
        let of_mapping = from_first.iter().take_while(|socket| ports.contains(socket.port));
        let socket = of_mapping.into_iter().find(|socket| is_in_the_way(mapping, socket))?;
        let holder = self.machine.holder_of(socket);
        let holder = holder.map_or_else(
            || "an unknown process".to_owned(),
            |Process { name, pid }| format!("{name} (pid {pid})"),
        );
        let on = SocketAddr::new(socket.addr, socket.port);
        Some(Error::PortHeld { port: socket.port, protocol: mapping.protocol, holder, on })
    }
}

/// What became of asking whether programs of the host hold ports.
pub(super) struct Unheld {
    pub(super) refused: Vec<Refused>,
    pub(super) notes: Vec<String>,
}

/// Ports of mappings, for a note.
fn named(mappings: &[&(usize, PortMap)]) -> String {
    match mappings {
        [(_, mapping)] => mapping.published.to_string(),
        several => format!("the ports of {} mappings", several.len()),
    }
}

/// Whether a socket would lose packets to a mapping: it is bound to one of the mapping's ports on an address that
/// the mapping covers.
fn is_in_the_way(mapping: &PortMap, socket: &BoundSocket) -> bool {
    if !mapping.published.ports.contains(socket.port) {
        return false;
    }
    match mapping.published.host {
        Some(host) => socket.addr == host || socket.addr.is_unspecified() && hears_family(socket, host),
        None => mapping.targets.iter().any(|target| hears_family(socket, *target)),
    }
}

/// Whether a socket can hear from clients of a family. One on every IPv6 address hears IPv4 as well, unless it is
/// restricted to IPv6.
fn hears_family(socket: &BoundSocket, of: IpAddr) -> bool {
    match (socket.addr, of) {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => true,
        (IpAddr::V6(addr), IpAddr::V4(_)) => addr.is_unspecified() && !socket.v6only,
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(published: &str, targets: &[&str]) -> PortMap {
        PortMap {
            id: 1,
            published: published.parse().unwrap(),
            protocol: Protocol::Tcp,
            endpoint: "net1".parse().unwrap(),
            targets: targets.iter().map(|target| target.parse().unwrap()).collect(),
            target_ports: "80".parse().unwrap(),
            number: 1,
            allow_from: Vec::new(),
        }
    }

    #[test]
    fn a_socket_is_in_the_way_where_the_mapping_covers_its_address() {
        const BOTH: &[&str] = &["192.168.0.2", "fd00::2"];
        const V4: &[&str] = &["192.168.0.2"];
        const V6: &[&str] = &["fd00::2"];
        // An address with "only" behind it is restricted to IPv6.
        for (published, targets, on, expected) in [
            ("8088", BOTH, "0.0.0.0:8088", true),
            ("8088", BOTH, "127.0.0.1:8088", true),
            ("8088", BOTH, "203.0.113.1:8088", true),
            ("8088", BOTH, "[::]:8088", true),
            ("8088", BOTH, "[fd00::1]:8088", true),
            ("8088", BOTH, "0.0.0.0:8089", false),
            ("8080-8090", BOTH, "0.0.0.0:8090", true),
            ("8080-8090", BOTH, "0.0.0.0:8091", false),
            ("8088", V4, "[::]:8088", true),
            ("8088", V4, "[::]:8088 only", false),
            ("8088", V4, "[fd00::1]:8088", false),
            ("8088", V6, "0.0.0.0:8088", false),
            ("8088", V6, "[::]:8088 only", true),
            ("203.0.113.1:8088", V4, "0.0.0.0:8088", true),
            ("203.0.113.1:8088", V4, "203.0.113.1:8088", true),
            ("203.0.113.1:8088", V4, "203.0.113.2:8088", false),
            ("203.0.113.1:8088", V4, "127.0.0.1:8088", false),
            ("203.0.113.1:8088", V4, "[::]:8088", true),
            ("203.0.113.1:8088", V4, "[::]:8088 only", false),
            ("[fd00::1]:8088", V6, "[::]:8088 only", true),
            ("[fd00::1]:8088", V6, "[fd00::1]:8088", true),
            ("[fd00::1]:8088", V6, "0.0.0.0:8088", false),
        ] {
            let (bound, v6only) = on.strip_suffix(" only").map_or((on, false), |bound| (bound, true));
            let bound: SocketAddr = bound.parse().unwrap();
            let socket = BoundSocket { addr: bound.ip(), port: bound.port(), v6only, inode: 1 };
            assert_eq!(
                is_in_the_way(&mapping(published, targets), &socket),
                expected,
                "{published} to {targets:?}, {on}"
            );
        }
    }
}
