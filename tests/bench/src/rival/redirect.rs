//! Redirect without NAT: the shortest way through two veth pairs that eBPF knows. vnet takes the same one, and pays for
//! translation, tracking and checks on top of it.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

use aya_obj::generated::bpf_func_id;
use nix::net::if_::if_nametoindex;
use vnet_tests::lab::{HOST_V4, OUTSIDE_V4, UPLINK};

use super::bridged::{Bridged, ENDPOINTS, SUBNET};
use super::{Absent, Path, Rival, Site, kernel, to_endpoint_itself};
use crate::case::Case;
use crate::ebpf::instruction::{
    Instruction, R0, R1, R2, R3, R4, R5, R6, R10, Size, add, call, copy, exit, load, set, skip_if_greater,
    skip_unless_equal, store_value,
};
use crate::ebpf::skb;
use crate::ebpf::system::Classifier;

#[derive(Debug)]
pub(super) struct Redirect;

impl Rival for Redirect {
    fn name(&self) -> &'static str {
        "redirect"
    }

    fn what(&self) -> &'static str {
        "what vnet's way costs without vnet: eBPF that redirects from the uplink into the endpoint and from endpoint to \
         endpoint (bpf_redirect_peer) and out with the next hop given (bpf_redirect_neigh), translates, tracks and \
         checks nothing; clients dial the endpoint's own address"
    }

    fn version(&self) -> Result<String, Absent> {
        kernel()
    }

    fn lacks(&self, case: Case) -> Option<&'static str> {
        (case == Case::HostLocal).then_some("what the host itself sends is not redirected; see routing")
    }

    fn set_up(&self) -> Box<dyn Site> {
        let host = Bridged::new();
        host.lab.outside().ip(&format!("route add {SUBNET} via {HOST_V4}"));
        // The stack carries nothing: what arrives was redirected.
        host.lab.host().write("/proc/sys/net/ipv4/ip_forward", "0");
        let attached = host.lab.host().enter(attach);
        Box::new(Redirected { attached, host })
    }
}

#[derive(Debug)]
struct Redirected {
    #[expect(dead_code, reason = "attached for as long as it is kept")]
    attached: Vec<OwnedFd>,
    host: Bridged,
}

impl Site for Redirected {
    fn path(&self, case: Case) -> Path {
        to_endpoint_itself(&self.host, case)
    }
}

/// Where packets to an address go.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Into the endpoint behind this end of a veth pair.
    Peer(u32),
    /// Out of this interface, to whom they are addressed to.
    Out(u32),
}

/// Attaches the programs to the interfaces of the calling thread's namespace.
fn attach() -> Vec<OwnedFd> {
    let index = |name: &str| if_nametoindex(name).unwrap_or_else(|e| panic!("find interface {name}: {e}"));
    let uplink = index(UPLINK);
    let inside = ENDPOINTS.map(|(name, addr)| (v4(addr), Way::Peer(index(name))));
    let outside = [(v4(OUTSIDE_V4), Way::Out(uplink))];
    let from_uplink = Classifier::load("from_uplink", &program(&inside, false));
    let from_endpoint = Classifier::load("from_endpoint", &program(&[&inside[..], &outside].concat(), true));
    let (from_uplink, from_endpoint) =
        (from_uplink.expect("a program"), from_endpoint.expect("another program"));
    let endpoints = ENDPOINTS.map(|(name, _)| (&from_endpoint, index(name)));
    let all = [&endpoints[..], &[(&from_uplink, uplink)]].concat();
    all.into_iter()
        .map(|(program, ifindex)| program.attach_ingress(ifindex).unwrap_or_else(|e| panic!("{e:#}")))
        .collect()
}

fn v4(addr: IpAddr) -> Ipv4Addr {
    match addr {
        IpAddr::V4(addr) => addr,
        IpAddr::V6(addr) => panic!("{addr} is of the other family"),
    }
}

/// Where an IPv4 packet's destination stands in a frame, and where it ends.
const DESTINATION: i16 = 30;
const HEADERS: i32 = 34;
const ETH_P_IP: u16 = 0x0800;
const AF_INET: i32 = 2;
/// `struct bpf_redir_neigh`.
const NEIGHBOUR: i16 = 20;

/// A program that redirects packets of IPv4 by their destination. What comes from a port of a bridge is addressed past
/// that port's own interface, and has to be made out for the receiver.
fn program(ways: &[(Ipv4Addr, Way)], bridged: bool) -> Vec<Instruction> {
    let ways: Vec<Instruction> = ways
        .iter()
        .flat_map(|(addr, way)| {
            let there = match *way {
                Way::Peer(ifindex) => peer(ifindex, bridged),
                Way::Out(ifindex) => out(ifindex, *addr),
            };
            let is = i32::from_ne_bytes(addr.octets());
            [vec![skip_unless_equal(R5, is, there.len() as i16)], there].concat()
        })
        .collect();
    let after_loads = ways.len() as i16 + 1;
    let mut program = vec![
        copy(R6, R1),
        load(Size::B4, R2, R6, skb::PROTOCOL),
        skip_unless_equal(R2, i32::from(ETH_P_IP.to_be()), after_loads + 5),
        load(Size::B4, R2, R6, skb::DATA),
        load(Size::B4, R3, R6, skb::DATA_END),
        copy(R4, R2),
        add(R4, HEADERS),
        skip_if_greater(R4, R3, after_loads),
        load(Size::B4, R5, R2, DESTINATION),
    ];
    program.extend(ways);
    program.extend([set(R0, skb::PASS), exit()]);
    program
}

fn peer(ifindex: u32, bridged: bool) -> Vec<Instruction> {
    let to_host = [copy(R1, R6), set(R2, 0), call(bpf_func_id::BPF_FUNC_skb_change_type as u32)];
    let redirect =
        [set(R1, ifindex as i32), set(R2, 0), call(bpf_func_id::BPF_FUNC_redirect_peer as u32), exit()];
    [if bridged { &to_host[..] } else { &[] }, &redirect].concat()
}

fn out(ifindex: u32, next_hop: Ipv4Addr) -> Vec<Instruction> {
    let mut way = vec![
        store_value(Size::B4, R10, -NEIGHBOUR, AF_INET),
        store_value(Size::B4, R10, -NEIGHBOUR + 4, i32::from_ne_bytes(next_hop.octets())),
    ];
    way.extend((8..NEIGHBOUR).step_by(4).map(|at| store_value(Size::B4, R10, -NEIGHBOUR + at, 0)));
    way.extend([
        set(R1, ifindex as i32),
        copy(R2, R10),
        add(R2, i32::from(-NEIGHBOUR)),
        set(R3, i32::from(NEIGHBOUR)),
        set(R4, 0),
        call(bpf_func_id::BPF_FUNC_redirect_neigh as u32),
        exit(),
    ]);
    way
}
