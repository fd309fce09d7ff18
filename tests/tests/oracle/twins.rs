//! Two hosts that look the same from everywhere: one with vnet, one with a ruleset.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use vnet_common::Mac;
use vnet_tests::frame::Frame;
use vnet_tests::frame::dissect::{Network, dissect};
use vnet_tests::lab::{Lab, Netns, UPLINK, eventually};
use vnet_tests::peer::{Capture, interface_mac};

use super::arrival::Arrival;
use super::talk::{HOST, Place, own_addresses};

/// Where markers go: a published port, and a port of `outside`.
const MARKED: [u16; 2] = [9999, 9];
const GATEWAYS: [&str; 2] = ["192.168.0.1/24", "fd00:7::1/64"];

/// What is published, of both families unless an address says otherwise; the ruleset has the same.
const PUBLISHED: [[&str; 4]; 3] =
    [["8088", "80", "net1", "tcp"], ["5353", "53", "net2", "udp"], ["9999", "9999", "net1", "udp"]];

/// Settings without which a host answers fewer packets than it is asked with, or tracks them for too short a time.
const SETTINGS: [(&str, &str); 6] = [
    ("net/ipv4/icmp_ratemask", "0"),
    ("net/ipv4/icmp_msgs_per_sec", "1000000"),
    ("net/ipv6/icmp/ratelimit", "0"),
    ("net/ipv6/icmp/ratemask", "\n"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/eth0/rp_filter", "0"),
];

/// Settings of the host with the ruleset: it forwards, and connection tracking looks neither at windows nor at the
/// clock.
const TRACKING: [(&str, &str); 16] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/vnet0/send_redirects", "0"),
    ("net/bridge/bridge-nf-call-iptables", "0"),
    ("net/bridge/bridge-nf-call-ip6tables", "0"),
    ("net/netfilter/nf_conntrack_tcp_be_liberal", "1"),
    ("net/netfilter/nf_conntrack_tcp_loose", "1"),
    ("net/netfilter/nf_conntrack_tcp_ignore_invalid_rst", "1"),
    ("net/netfilter/nf_conntrack_tcp_timeout_close", "7200"),
    ("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "7200"),
    ("net/netfilter/nf_conntrack_tcp_timeout_syn_sent", "7200"),
    ("net/netfilter/nf_conntrack_tcp_timeout_last_ack", "7200"),
    ("net/netfilter/nf_conntrack_udp_timeout", "7200"),
    ("net/netfilter/nf_conntrack_icmp_timeout", "7200"),
    ("net/netfilter/nf_conntrack_icmpv6_timeout", "7200"),
];

/// One host and everybody around it.
pub(crate) struct Twin {
    pub(crate) name: &'static str,
    pub(crate) sites: [Site; 3],
    markers: u64,
    lab: Lab,
    /// Namespaces that this twin made itself.
    made: Vec<Netns>,
}

/// A place from which frames are sent, and where they arrive.
pub(crate) struct Site {
    mac: Mac,
    /// The hardware address of the host there.
    host_mac: Mac,
    capture: Capture,
    /// Captured frames that have been dealt with.
    seen: usize,
}

impl Twin {
    /// The host with vnet.
    pub(crate) fn vnet() -> Self {
        let lab = Lab::new();
        lab.vnet_ok(&["up", "--subnet", "192.168.0.0/24", "--subnet", "fd00:7::/64", "--timeout", "dns=2h"]);
        let endpoints = ["net1", "net2"].map(|name| lab.endpoint(name));
        for [port, target, name, proto] in PUBLISHED {
            let target = format!("{}:{target}", lab.name(name));
            lab.vnet_ok(&["portmap", "add", port, &target, "--proto", proto]);
        }
        Self::around(lab, "vnet", endpoints.map(|endpoint| endpoint.netns().clone()))
    }

    /// The host with a ruleset.
    pub(crate) fn ruleset() -> Self {
        let lab = Lab::new();
        let host = lab.host();
        host.ip("link add vnet0 type bridge");
        for gateway in GATEWAYS {
            host.ip(&format!("addr add {gateway} dev vnet0 nodad"));
        }
        host.ip("link set vnet0 up");
        let endpoints = ["net1", "net2"].map(|name| {
            let netns = Netns::named(&lab.name(name));
            netns.create();
            host.ip(&format!("link add {name} type veth peer name eth0 netns {}", netns.name()));
            host.ip(&format!("link set {name} master vnet0 up"));
            netns.ip("link set eth0 up");
            netns
        });
        for (path, value) in TRACKING {
            host.write(&format!("/proc/sys/{path}"), value);
        }
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/ruleset.nft");
        host.run(&["nft", "-f", rules.to_str().expect("a path in UTF-8")]).ok();
        let mut twin = Self::around(lab, "nft", endpoints.clone());
        twin.made = endpoints.to_vec();
        twin
    }

    /// Makes everybody around the host mute, so that nothing is sent but what the test sends.
    fn around(lab: Lab, name: &'static str, endpoints: [Netns; 2]) -> Self {
        let host = lab.host();
        for (path, value) in SETTINGS {
            host.write(&format!("/proc/sys/{path}"), value);
        }
        let [net1, net2] = endpoints;
        let netns = [lab.outside().clone(), net1, net2];
        let ways = [UPLINK, "vnet0", "vnet0"];
        let sites = [Place::Outside, Place::Net1, Place::Net2].map(|place| {
            let (netns, way) = (&netns[place as usize], ways[place as usize]);
            let mac = interface_mac(netns, "eth0");
            netns.ip("addr flush dev eth0");
            for addr in own_addresses(place) {
                host.ip(&format!("neigh replace {addr} lladdr {mac} dev {way} nud permanent"));
            }
            let capture = Capture::start(netns, "eth0");
            Site { mac, host_mac: interface_mac(host, way), capture, seen: 0 }
        });
        Self { name, sites, markers: 0, lab, made: Vec::new() }
    }

    /// Sends a frame and returns all that arrives anywhere because of it, but for neighbour discovery.
    pub(crate) fn exchange(&mut self, place: Place, frame: &Frame, number: u16) -> Vec<Arrival> {
        let bytes = self.sites[place as usize].addressed(frame, number);
        self.sites[place as usize].capture.send(&bytes);
        // A packet crosses two queues at most, and so does each marker, behind it.
        self.wait_for_markers();
        self.wait_for_markers();
        let places = [Place::Outside, Place::Net1, Place::Net2];
        places.into_iter().flat_map(|place| self.sites[place as usize].arrivals(place)).collect()
    }

    /// Sends a packet into the host and one out of it, which all queues let pass, and waits for them.
    fn wait_for_markers(&mut self) {
        self.markers += 1;
        let [outside, net1, net2] =
            [Place::Outside, Place::Net1, Place::Net2].map(|place| own_addresses(place)[0]);
        let number = self.markers.to_be_bytes();
        for (place, from, to, port) in [
            (Place::Outside, outside, HOST[0], MARKED[0]),
            (Place::Net1, net1, outside, MARKED[1]),
            (Place::Net2, net2, outside, MARKED[1]),
        ] {
            let marker = Frame::udp(SocketAddr::new(from, 9), SocketAddr::new(to, port)).payload(&number);
            let site = &self.sites[place as usize];
            site.capture.send(&site.addressed(&marker, 0));
        }
        for (place, count) in [(Place::Net1, 1), (Place::Outside, 2)] {
            let site = &mut self.sites[place as usize];
            let seen = site.seen;
            let is_ours = |frame: &&Vec<u8>| frame.ends_with(&number) && is_marker(frame);
            let name = self.name;
            eventually(
                || (site.incoming(seen).filter(|frame| is_ours(frame)).count() >= count).then_some(()),
                || format!("{count} markers at {place:?} of {name}"),
            );
        }
    }

    /// Whether the ruleset's connection tracking called the packet with this number invalid.
    pub(crate) fn called_invalid(&self, family: usize, number: u16) -> bool {
        let set = ["invalid4", "invalid6"][family];
        let element = format!("{{ {number} }}");
        self.lab.host().run(&["nft", "get", "element", "inet", "oracle", set, &element]).status == Some(0)
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        // The lab complains about what it did not make.
        self.made.iter().for_each(Netns::delete);
    }
}

impl Site {
    /// A frame for the host, or for a neighbour's own address.
    fn addressed(&self, frame: &Frame, number: u16) -> Vec<u8> {
        let mut bytes = frame.clone().id(number).macs(self.mac, self.host_mac).build();
        if bytes[14] >> 4 == 6 {
            // The lower part of the flow label.
            bytes[16..18].copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    fn incoming(&mut self, from: usize) -> impl Iterator<Item = &Vec<u8>> {
        let mac = self.mac;
        self.capture.frames()[from..]
            .iter()
            .filter(move |frame| frame[..6] == mac.bytes && frame[6..12] != mac.bytes)
    }

    fn arrivals(&mut self, place: Place) -> Vec<Arrival> {
        let arrivals = self.incoming(self.seen).filter(|frame| !is_marker(frame));
        let arrivals = arrivals.filter_map(|frame| Arrival::read(place, frame)).collect();
        self.seen = self.capture.frames().len();
        arrivals
    }
}

fn is_marker(frame: &[u8]) -> bool {
    let Ok(dissected) = dissect(frame) else { return false };
    let Network::Ip(ip) = dissected.network else { return false };
    ip.sockets().is_some_and(|(_, to)| MARKED.contains(&to.port()))
}

/// Keeps the calling thread on one processor: its packets then stay in order.
pub(crate) fn stay_on_one_processor() {
    let own = Pid::from_raw(0);
    let allowed = sched_getaffinity(own).expect("the processors that may be used");
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false)).expect("a processor");
    let mut one = CpuSet::new();
    one.set(first).expect("a processor that there is");
    sched_setaffinity(own, &one).expect("one processor is among those allowed");
}

/// The family of an address, as an index.
pub(crate) fn family_of(addr: IpAddr) -> usize {
    usize::from(addr.is_ipv6())
}
