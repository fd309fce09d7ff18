//! Interfaces.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags,
    LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};
use nix::libc;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use vnet_common::Mac;

use super::{Netlink, Result};
use crate::flow::Traffic;
use crate::plan::GsoSizes;

/// The XDP program of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct AttachedXdp {
    /// Its number.
    pub(in crate::kernel) program: u32,
    /// Whether the host's stack runs it instead of the driver.
    pub(in crate::kernel) generic: bool,
}

/// Parameters of an interface, as they stand below `/proc/sys/net/ipv6/conf`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::kernel) struct V6Parameters {
    accept_dad: i32,
    accept_ra: i32,
    addr_gen_mode: i32,
    autoconf: i32,
    disable_ipv6: i32,
}

impl V6Parameters {
    /// The one of this name, if it is among them.
    pub(in crate::kernel) fn get(&self, name: &str) -> Option<i32> {
        match name {
            "accept_dad" => Some(self.accept_dad),
            "accept_ra" => Some(self.accept_ra),
            "addr_gen_mode" => Some(self.addr_gen_mode),
            "autoconf" => Some(self.autoconf),
            "disable_ipv6" => Some(self.disable_ipv6),
            _ => None,
        }
    }

    fn from_parts(parts: Vec<AfSpecUnspec>) -> Option<Self> {
        let parts = parts.into_iter().find_map(|part| match part {
            AfSpecUnspec::Inet6(parts) => Some(parts),
            _ => None,
        })?;
        let mut parameters = Self::default();
        let mut are_known = false;
        for part in parts {
            match part {
                AfSpecInet6::DevConf(values) => {
                    are_known = true;
                    parameters.accept_dad = values.accept_dad;
                    parameters.accept_ra = values.accept_ra;
                    parameters.autoconf = values.autoconf;
                    parameters.disable_ipv6 = values.disable_ipv6;
                }
                AfSpecInet6::AddrGenMode(mode) => parameters.addr_gen_mode = i32::from(u8::from(&mode)),
                _ => {}
            }
        }
        are_known.then_some(parameters)
    }
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Link {
    pub(in crate::kernel) index: u32,
    pub(in crate::kernel) name: String,
    pub(in crate::kernel) mac: Option<Mac>,
    pub(in crate::kernel) mtu: u32,
    /// Most bytes that it is handed at once.
    pub(in crate::kernel) gso: GsoSizes,
    /// Most that it could be handed; what older kernels do not tell is what all had (Linux 5.19).
    pub(in crate::kernel) most_gso: u32,
    pub(in crate::kernel) up: bool,
    /// Whether it asks for its neighbours' hardware addresses, and answers to those who ask for its own.
    pub(in crate::kernel) arp: bool,
    pub(in crate::kernel) kind: Option<String>,
    /// The bridge it is a port of.
    pub(in crate::kernel) master: Option<u32>,
    /// The index of the other end, in the other end's namespace, if it is a veth.
    pub(in crate::kernel) other_end: Option<u32>,
    /// What it does to frames before the host's stack has them.
    pub(in crate::kernel) xdp: Option<AttachedXdp>,
    /// Its parameters of IPv6, if it has IPv6.
    pub(in crate::kernel) v6: Option<V6Parameters>,
}

impl Link {
    /// What it is, for people.
    pub(in crate::kernel) fn description(&self) -> &str {
        self.kind.as_deref().unwrap_or("physical or virtual device without a kind")
    }

    pub(in crate::kernel) fn is(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    fn from_message(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            gso: GsoSizes::LEGACY,
            most_gso: GsoSizes::LEGACY.v6,
            up: message.header.flags.contains(LinkFlags::Up),
            arp: !message.header.flags.contains(LinkFlags::Noarp),
            kind: None,
            master: None,
            other_end: None,
            xdp: None,
            v6: None,
        };
        let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) if ethernet => link.mac = bytes.try_into().ok().map(Mac::new),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::GsoIpv4MaxSize(size) => link.gso.v4 = size,
                LinkAttribute::GsoMaxSize(size) => link.gso.v6 = size,
                LinkAttribute::TsoMaxSize(size) => link.most_gso = size,
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::Link(index) => link.other_end = Some(index),
                LinkAttribute::AfSpecUnspec(parts) => link.v6 = V6Parameters::from_parts(parts),
                LinkAttribute::Xdp(parts) => link.xdp = attached_xdp(&parts),
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.into_iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }
}

/// What an interface has received and sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::kernel) struct Counters {
    /// Of the interface, in its namespace.
    pub(in crate::kernel) index: u32,
    pub(in crate::kernel) name: String,
    pub(in crate::kernel) received: Traffic,
    pub(in crate::kernel) sent: Traffic,
    /// The number of the namespace in which the other end is, and its index there, if it is in another namespace.
    pub(in crate::kernel) other_end: Option<(i32, u32)>,
}

impl Counters {
    fn from_message(message: LinkMessage) -> Self {
        let mut counters = Self { index: message.header.index, ..Self::default() };
        let (mut namespace, mut index) = (None, None);
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => counters.name = name,
                LinkAttribute::Link(other) => index = Some(other),
                LinkAttribute::LinkNetNsId(id) => namespace = Some(id),
                LinkAttribute::Stats64(stats) => {
                    counters.received = Traffic { packets: stats.rx_packets, bytes: stats.rx_bytes };
                    counters.sent = Traffic { packets: stats.tx_packets, bytes: stats.tx_bytes };
                }
                _ => {}
            }
        }
        counters.other_end = namespace.zip(index);
        counters
    }
}

/// The XDP program that an interface has. With several, in the driver and in the hardware, the number is none's.
fn attached_xdp(parts: &[LinkXdp]) -> Option<AttachedXdp> {
    let program = parts.iter().find_map(|part| match part {
        LinkXdp::ProgId(program) | LinkXdp::DrvProgId(program) => Some(*program),
        _ => None,
    })?;
    let generic = parts.contains(&LinkXdp::Attached(XdpAttached::SocketBuffer));
    Some(AttachedXdp { program, generic })
}

/// The other end of a veth pair that is to be made.
pub(in crate::kernel) struct OtherEnd<'a> {
    pub(in crate::kernel) name: &'a str,
    pub(in crate::kernel) mac: Mac,
    /// An open network namespace.
    pub(in crate::kernel) namespace: i32,
}

impl Netlink {
    /// The interface of that name.
    pub(in crate::kernel) async fn link(&self, name: &str) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self.request(RouteNetlinkMessage::GetLink(message), 0).await {
            Ok(answer) => Ok(answer.into_iter().find_map(link)),
            Err(error) if error.is(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All interfaces.
    pub(in crate::kernel) async fn links(&self) -> Result<Vec<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let answer = self.request(RouteNetlinkMessage::GetLink(message), NLM_F_DUMP).await?;
        Ok(answer.into_iter().filter_map(link).collect())
    }

    /// What all interfaces have received and sent.
    pub(in crate::kernel) async fn counters(&self) -> Result<Vec<Counters>> {
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answer = self.request(question, NLM_F_DUMP).await?;
        Ok(answer.into_iter().filter_map(counters).collect())
    }

    /// What an interface of another namespace has received and sent; nothing if there is none of that index.
    pub(in crate::kernel) async fn counters_in(
        &self,
        namespace: i32,
        index: u32,
    ) -> Result<Option<Counters>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::IfNetnsId(namespace));
        match self.request(RouteNetlinkMessage::GetLink(message), 0).await {
            Ok(answer) => Ok(answer.into_iter().find_map(counters)),
            // The namespace may have gone meanwhile.
            Err(error) if error.is(libc::ENODEV) || error.is(libc::EINVAL) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a bridge, down.
    pub(in crate::kernel) async fn create_bridge(&self, name: &str, mac: Mac) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        // An address given at birth stays when ports come and go.
        message.attributes.push(LinkAttribute::Address(mac.bytes.to_vec()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        self.command(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Makes a veth pair by one request, so that there never is half of one: this end up and, if there is one, in the
    /// bridge, the other end down, in its namespace, under its final name. Without a hardware address this end gets one at
    /// random.
    pub(in crate::kernel) async fn create_veth(
        &self,
        (name, mac): (&str, Option<Mac>),
        bridge: Option<u32>,
        (mtu, gso): (u32, GsoSizes),
        other: &OtherEnd<'_>,
    ) -> Result<()> {
        let sizes = || gso_attributes(GsoSizes::LEGACY, gso);
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(other.name.to_owned()));
        peer.attributes.push(LinkAttribute::Address(other.mac.bytes.to_vec()));
        peer.attributes.push(LinkAttribute::Mtu(mtu));
        peer.attributes.extend(sizes());
        peer.attributes.push(LinkAttribute::NetNsFd(other.namespace));
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.bytes.to_vec())));
        message.attributes.push(LinkAttribute::Mtu(mtu));
        message.attributes.extend(sizes());
        message.attributes.extend(bridge.map(LinkAttribute::Controller));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.command(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Makes a veth pair by one request, this end here and the other in its namespace, both down.
    pub(in crate::kernel) async fn create_joined(
        &self,
        (name, mac): (&str, Mac),
        mtu: u32,
        other: &OtherEnd<'_>,
    ) -> Result<()> {
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(other.name.to_owned()));
        peer.attributes.push(LinkAttribute::Address(other.mac.bytes.to_vec()));
        peer.attributes.push(LinkAttribute::Mtu(mtu));
        peer.attributes.push(LinkAttribute::NetNsFd(other.namespace));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::Address(mac.bytes.to_vec()));
        message.attributes.push(LinkAttribute::Mtu(mtu));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.command(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Makes a veth pair, both of whose ends are here and down.
    pub(in crate::kernel) async fn create_pair(&self, name: &str, other: &str) -> Result<()> {
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(other.to_owned()));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.command(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Changes an interface's attributes and sets it up.
    pub(in crate::kernel) async fn set_up(&self, index: u32, attributes: Vec<LinkAttribute>) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes = attributes;
        self.command(RouteNetlinkMessage::SetLink(message), 0).await
    }

    /// Has an interface neither ask for neighbours nor answer to any.
    pub(in crate::kernel) async fn without_arp(&self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Noarp;
        message.header.change_mask = LinkFlags::Noarp;
        self.command(RouteNetlinkMessage::SetLink(message), 0).await
    }

    /// Removes an interface; one that is not there is removed already.
    pub(in crate::kernel) async fn delete_link(&self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.command(RouteNetlinkMessage::DelLink(message), 0).await {
            Err(error) if error.is(libc::ENODEV) => Ok(()),
            done => done,
        }
    }
}

/// What brings an interface from one pair of sizes to another. The attribute of IPv6 comes first: it sets that of IPv4
/// as well where that has none of its own yet (`netif_set_gso_max_size`).
pub(in crate::kernel) fn gso_attributes(from: GsoSizes, to: GsoSizes) -> Vec<LinkAttribute> {
    let v6 = (from.v6 != to.v6).then_some(LinkAttribute::GsoMaxSize(to.v6));
    let v4 = (from != to).then_some(LinkAttribute::GsoIpv4MaxSize(to.v4));
    v6.into_iter().chain(v4).collect()
}

fn counters(message: RouteNetlinkMessage) -> Option<Counters> {
    match message {
        RouteNetlinkMessage::NewLink(message) => Some(Counters::from_message(message)),
        _ => None,
    }
}

fn link(message: RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(message) => Some(Link::from_message(message)),
        _ => None,
    }
}
