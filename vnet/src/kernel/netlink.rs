//! The conversation with the kernel's networking: links, addresses, routes, filters, as plain values.
//!
//! A socket belongs to the network namespace of the thread that opens it, for ever: [`Netlink::open`] in a
//! thread inside a namespace gives a handle to that namespace which works from anywhere.
//!
//! Requests are not sent by `rtnetlink`'s own builders but by [`Netlink::request`], because three things have to
//! hold for all of them: the kernel's own words (extended acknowledgement) reach the user, a dump that was
//! interrupted by a change is taken again, and an answer that cannot be decoded ends in an error and not in
//! waiting for ever (the codec drops what it does not understand).

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType,
    LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkMessage, NetlinkPayload,
};
use rtnetlink::sys::AsyncSocket as _;
use vnet_common::Mac;

/// The kernel answers at once or while it holds a lock for milliseconds; nothing it does takes this long.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a dump is taken again because something changed meanwhile.
const DUMP_TRIES: usize = 8;

/// Why the kernel did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// It refused.
    #[error("{errno}{}", Detail(.detail))]
    Refused {
        /// The error number.
        errno: io::Error,
        /// What the kernel says beyond it.
        detail: Option<String>,
    },
    /// It did not answer, or in a way that is not understood.
    #[error("the kernel gave no answer that vnet understands within {} s", PATIENCE.as_secs())]
    Silent,
    /// The socket is gone.
    #[error("the netlink socket was closed")]
    Closed,
}

impl NetlinkError {
    /// Whether it refused with this error number.
    pub(super) fn is(&self, number: i32) -> bool {
        matches!(self, Self::Refused { errno, .. } if errno.raw_os_error() == Some(number))
    }
}

struct Detail<'a>(&'a Option<String>);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

type Result<T> = std::result::Result<T, NetlinkError>;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: Option<Mac>,
    pub(super) mtu: u32,
    pub(super) up: bool,
    pub(super) kind: Option<String>,
    /// The bridge it is a port of.
    pub(super) master: Option<u32>,
    /// The index of the other end, in the other end's namespace, if it is a veth.
    pub(super) other_end: Option<u32>,
}

impl Link {
    /// What it is, for people.
    pub(super) fn description(&self) -> &str {
        self.kind.as_deref().unwrap_or("physical or virtual device without a kind")
    }

    pub(super) fn is(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    fn from_message(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            kind: None,
            master: None,
            other_end: None,
        };
        let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) if ethernet => link.mac = bytes.try_into().ok().map(Mac::new),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::Link(index) => link.other_end = Some(index),
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

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) index: u32,
    pub(super) net: IpNet,
    /// Valid everywhere, not on the link or the host alone.
    pub(super) global: bool,
    /// Not to be used for new flows: deprecated, or not yet known to be unique.
    pub(super) avoided: bool,
}

impl Address {
    fn from_message(message: &AddressMessage) -> Option<Self> {
        // For a point-to-point address the kernel's IFA_ADDRESS is the other side's; ours is IFA_LOCAL.
        let mut own = None;
        let mut any = None;
        let mut flags = u32::from(message.header.flags.bits());
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => own = Some(*address),
                AddressAttribute::Address(address) => any = Some(*address),
                AddressAttribute::Flags(more) => flags = more.bits(),
                _ => {}
            }
        }
        let net = IpNet::new(own.or(any)?, message.header.prefix_len).ok()?;
        let avoided = AddressFlags::Deprecated | AddressFlags::Tentative | AddressFlags::Dadfailed;
        Some(Self {
            index: message.header.index,
            net,
            global: message.header.scope == AddressScope::Universe,
            avoided: AddressFlags::from_bits_retain(flags).intersects(avoided),
        })
    }
}

/// One next hop of a unicast route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) destination: IpNet,
    pub(super) index: Option<u32>,
    pub(super) gateway: Option<IpAddr>,
    pub(super) metric: u32,
}

impl Hop {
    /// The next hops of a route of the main table; none if it is of another table or not unicast.
    fn from_message(message: &RouteMessage) -> Vec<Self> {
        let header = &message.header;
        let mut table = u32::from(header.table);
        let mut destination = match header.address_family {
            AddressFamily::Inet => IpAddr::from([0; 4]),
            _ => IpAddr::from([0; 16]),
        };
        let (mut index, mut gateway, mut metric, mut paths) = (None, None, 0, &Vec::new());
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Destination(address) => destination = ip(address).unwrap_or(destination),
                RouteAttribute::Oif(number) => index = Some(*number),
                RouteAttribute::Priority(number) => metric = *number,
                RouteAttribute::MultiPath(hops) => paths = hops,
                other => gateway = gateway.or(gateway_of(other)),
            }
        }
        let destination = IpNet::new(destination, header.destination_prefix_length);
        let unicast = header.kind == RouteType::Unicast && table == u32::from(RouteHeader::RT_TABLE_MAIN);
        let Some(destination) = destination.ok().filter(|_| unicast) else { return Vec::new() };
        if paths.is_empty() {
            return vec![Self { destination, index, gateway, metric }];
        }
        let path = |path: &netlink_packet_route::route::RouteNextHop| Self {
            destination,
            index: Some(path.interface_index),
            gateway: path.attributes.iter().find_map(gateway_of),
            metric,
        };
        paths.iter().map(path).collect()
    }
}

fn gateway_of(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(via) => match via {
            netlink_packet_route::route::RouteVia::Inet(address) => Some(IpAddr::V4(*address)),
            netlink_packet_route::route::RouteVia::Inet6(address) => Some(IpAddr::V6(*address)),
            _ => None,
        },
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// A BPF filter of a clsact qdisc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BpfFilter {
    /// The program's number in the kernel; `None` for a filter of another kind.
    pub(super) program: Option<u32>,
    pub(super) priority: u16,
    pub(super) handle: TcHandle,
}

/// The other end of a veth pair that is to be made.
pub(super) struct OtherEnd<'a> {
    pub(super) name: &'a str,
    pub(super) mac: Mac,
    /// An open network namespace.
    pub(super) namespace: i32,
}

/// A socket in one network namespace.
#[derive(Clone, Debug)]
pub(super) struct Netlink {
    handle: rtnetlink::Handle,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread, which must be inside a tokio runtime.
    pub(super) fn open() -> io::Result<Self> {
        let (mut connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
        let socket = connection.socket_mut().socket_mut();
        // The kernel's own words in refusals; without the request, which would stand in front of them.
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    async fn request(&self, message: RouteNetlinkMessage, flags: u16) -> Result<Vec<RouteNetlinkMessage>> {
        for _ in 1..DUMP_TRIES {
            match self.request_once(message.clone(), flags).await? {
                Answer { interrupted: true, .. } => {}
                answer => return Ok(answer.messages),
            }
        }
        // A list that never stands still is still better than none.
        Ok(self.request_once(message, flags).await?.messages)
    }

    async fn request_once(&self, message: RouteNetlinkMessage, flags: u16) -> Result<Answer> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let mut handle = self.handle.clone();
        let mut replies = handle.request(request).map_err(|_| NetlinkError::Closed)?;
        let mut answer = Answer { messages: Vec::new(), interrupted: false };
        while let Some(reply) =
            tokio::time::timeout(PATIENCE, replies.next()).await.map_err(|_| NetlinkError::Silent)?
        {
            answer.interrupted |= reply.header.flags & NLM_F_DUMP_INTR != 0;
            match reply.payload {
                NetlinkPayload::InnerMessage(message) => answer.messages.push(message),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    let detail = kernels_words(&error.header);
                    return Err(NetlinkError::Refused { errno: error.to_io(), detail });
                }
                _ => {}
            }
        }
        Ok(answer)
    }

    async fn command(&self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.request(message, NLM_F_ACK | flags).await.map(drop)
    }

    /// The interface of that name.
    pub(super) async fn link(&self, name: &str) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self.request(RouteNetlinkMessage::GetLink(message), 0).await {
            Ok(answer) => Ok(answer.into_iter().find_map(link)),
            Err(error) if error.is(nix::libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All interfaces.
    pub(super) async fn links(&self) -> Result<Vec<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let answer = self.request(RouteNetlinkMessage::GetLink(message), NLM_F_DUMP).await?;
        Ok(answer.into_iter().filter_map(link).collect())
    }

    /// Makes a bridge, down.
    pub(super) async fn create_bridge(&self, name: &str, mac: Mac) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        // An address given at birth stays when ports come and go.
        message.attributes.push(LinkAttribute::Address(mac.bytes.to_vec()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        self.command(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Makes a veth pair by one request, so that there never is half of one: this end up and in the bridge, the
    /// other end down, in its namespace, under its final name.
    pub(super) async fn create_veth(
        &self,
        name: &str,
        bridge: u32,
        mtu: u32,
        other: &OtherEnd<'_>,
    ) -> Result<()> {
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(other.name.to_owned()));
        peer.attributes.push(LinkAttribute::Address(other.mac.bytes.to_vec()));
        peer.attributes.push(LinkAttribute::Mtu(mtu));
        peer.attributes.push(LinkAttribute::NetNsFd(other.namespace));
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::Mtu(mtu));
        message.attributes.push(LinkAttribute::Controller(bridge));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.command(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Changes an interface's attributes and sets it up.
    pub(super) async fn set_up(&self, index: u32, attributes: Vec<LinkAttribute>) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes = attributes;
        self.command(RouteNetlinkMessage::SetLink(message), 0).await
    }

    /// Removes an interface; one that is not there is removed already.
    pub(super) async fn delete_link(&self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.command(RouteNetlinkMessage::DelLink(message), 0).await {
            Err(error) if error.is(nix::libc::ENODEV) => Ok(()),
            done => done,
        }
    }

    /// The addresses of one interface, or of all, in the kernel's order.
    pub(super) async fn addresses(&self, index: Option<u32>) -> Result<Vec<Address>> {
        let mut message = AddressMessage::default();
        message.header.index = index.unwrap_or(0);
        let answer = match self.request(RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP).await {
            Err(error) if error.is(nix::libc::ENODEV) => Vec::new(),
            answer => answer?,
        };
        let addresses = answer.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message) => Address::from_message(message),
            _ => None,
        });
        Ok(addresses.filter(|address| index.is_none_or(|index| index == address.index)).collect())
    }

    /// Gives an interface an address, usable at once; one that it has already is left alone.
    pub(super) async fn add_address(&self, index: u32, net: IpNet) -> Result<()> {
        let message = RouteNetlinkMessage::NewAddress(address_message(index, net));
        match self.command(message, NLM_F_CREATE | NLM_F_EXCL).await {
            Err(error) if error.is(nix::libc::EEXIST) => Ok(()),
            done => done,
        }
    }

    /// Takes an address from an interface.
    pub(super) async fn delete_address(&self, index: u32, net: IpNet) -> Result<()> {
        let message = RouteNetlinkMessage::DelAddress(address_message(index, net));
        match self.command(message, 0).await {
            Err(error) if error.is(nix::libc::EADDRNOTAVAIL) => Ok(()),
            done => done,
        }
    }

    /// The next hops of the main table's unicast routes, both families.
    pub(super) async fn hops(&self) -> Result<Vec<Hop>> {
        let mut hops = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.attributes.push(RouteAttribute::Table(u32::from(RouteHeader::RT_TABLE_MAIN)));
            let answer = match self.request(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP).await {
                // The kernel's words for "there is no such table yet" and "there is no such family".
                Err(error) if error.is(nix::libc::ENOENT) || error.is(nix::libc::EOPNOTSUPP) => continue,
                answer => answer?,
            };
            for message in &answer {
                if let RouteNetlinkMessage::NewRoute(message) = message {
                    hops.extend(Hop::from_message(message));
                }
            }
        }
        Ok(hops)
    }

    /// Makes a default route, over an existing one of the same metric only if told to replace it.
    pub(super) async fn add_default_route(
        &self,
        index: u32,
        gateway: IpAddr,
        existing: Existing,
    ) -> Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(gateway);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(gateway)));
        message.attributes.push(RouteAttribute::Oif(index));
        let over = match existing {
            Existing::Keep => NLM_F_EXCL,
            Existing::Replace => NLM_F_REPLACE,
        };
        self.command(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | over).await
    }

    /// The filters at one of the two hooks of an interface's clsact qdisc; none if it has no such qdisc.
    pub(super) async fn filters(&self, index: u32, hook: TcHandle) -> Result<Vec<BpfFilter>> {
        let mut message = TcMessage::default();
        message.header.index = index.cast_signed();
        message.header.parent = hook;
        let answer = match self.request(RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP).await {
            Err(error) if error.is(nix::libc::EINVAL) || error.is(nix::libc::ENOENT) => Vec::new(),
            answer => answer?,
        };
        let filters = answer.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewTrafficFilter(message) => Some(filter(message)),
            _ => None,
        });
        // The kernel also lists each priority as such, without a handle.
        Ok(filters.filter(|filter| filter.handle != TcHandle::UNSPEC).collect())
    }

    /// Removes an interface's clsact qdisc.
    pub(super) async fn delete_clsact(&self, index: u32) -> Result<()> {
        let mut message = TcMessage::default();
        message.header.index = index.cast_signed();
        message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
        message.header.parent = TcHandle::CLSACT;
        message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
        match self.command(RouteNetlinkMessage::DelQueueDiscipline(message), 0).await {
            Err(error) if [nix::libc::ENOENT, nix::libc::EINVAL].iter().any(|&e| error.is(e)) => Ok(()),
            done => done,
        }
    }
}

/// What to do with a default route that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    Keep,
    Replace,
}

struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    interrupted: bool,
}

/// The text of an extended acknowledgement: attributes behind the 16 bytes of the request's header, of which
/// number 1 is the message (`NLMSGERR_ATTR_MSG`).
fn kernels_words(payload: &[u8]) -> Option<String> {
    let mut rest = payload.get(16..)?;
    while let [l0, l1, k0, k1, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(4..length)?;
        if u16::from_ne_bytes([k0, k1]) == 1 {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return Some(String::from_utf8_lossy(text).trim_end_matches('.').to_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn link(message: RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(message) => Some(Link::from_message(message)),
        _ => None,
    }
}

fn address_message(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.family = family(net.addr());
    message.header.prefix_len = net.prefix_len();
    message.attributes.push(AddressAttribute::Local(net.addr()));
    message.attributes.push(AddressAttribute::Address(net.addr()));
    match net {
        IpNet::V4(net) if net.prefix_len() < 31 => {
            message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
        }
        IpNet::V4(_) => {}
        // vnet gives addresses out itself: waiting a second to see whether somebody else has one helps nobody.
        IpNet::V6(_) => message.header.flags = AddressHeaderFlags::Nodad,
    }
    message
}

fn filter(message: &TcMessage) -> BpfFilter {
    let options = message.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let program = options.flatten().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    });
    // The upper half of `info` is the priority, the lower the protocol.
    let priority = (message.header.info >> 16) as u16;
    BpfFilter { program, priority, handle: message.header.handle }
}

const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attribute of an extended acknowledgement.
    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_kernels_words_are_found_behind_other_attributes() {
        let mut payload = vec![0; 16];
        payload.extend(attribute(2, &7_u32.to_ne_bytes()));
        payload.extend(attribute(1, b"Device is already a port.\0"));
        assert_eq!(kernels_words(&payload).as_deref(), Some("Device is already a port"));
    }

    #[test]
    fn an_acknowledgement_without_words_or_cut_short_has_none() {
        assert_eq!(kernels_words(&[0; 16]), None);
        assert_eq!(kernels_words(&[0; 5]), None);
        assert_eq!(kernels_words(&[[0; 16].as_slice(), &[0; 4]].concat()), None);
        assert_eq!(kernels_words(&[[0; 16].as_slice(), &[200, 0, 1, 0]].concat()), None);
    }

    #[test]
    fn only_unicast_routes_of_the_main_table_count() {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.kind = RouteType::Unicast;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet([192, 0, 2, 1].into())));
        message.attributes.push(RouteAttribute::Oif(7));
        let hop = Hop {
            destination: "0.0.0.0/0".parse().unwrap(),
            index: Some(7),
            gateway: Some([192, 0, 2, 1].into()),
            metric: 0,
        };
        assert_eq!(Hop::from_message(&message), [hop]);
        message.attributes.push(RouteAttribute::Table(100));
        assert_eq!(Hop::from_message(&message), []);
    }

    #[test]
    fn a_point_to_point_address_is_the_local_one() {
        let mut message = AddressMessage::default();
        message.header.prefix_len = 32;
        message.attributes.push(AddressAttribute::Address([192, 0, 2, 2].into()));
        message.attributes.push(AddressAttribute::Local([192, 0, 2, 1].into()));
        let address = Address::from_message(&message).unwrap();
        assert_eq!(address.net, "192.0.2.1/32".parse().unwrap());
        assert!(address.global && !address.avoided);
    }
}
