//! Addresses of interfaces.

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use nix::libc;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use super::{Netlink, Result, family};

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Address {
    pub(in crate::kernel) index: u32,
    pub(in crate::kernel) net: IpNet,
    /// Valid everywhere, not on the link or the host alone.
    pub(in crate::kernel) global: bool,
    /// Not to be used for new flows: deprecated, or not yet known to be unique.
    pub(in crate::kernel) avoided: bool,
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

impl Netlink {
    /// The addresses of one interface, or of all, in the kernel's order.
    pub(in crate::kernel) fn addresses(&self, index: Option<u32>) -> Result<Vec<Address>> {
        let mut message = AddressMessage::default();
        message.header.index = index.unwrap_or(0);
        // A list that never stands still is still better than none.
        let answer = match self.at_once.list(&RouteNetlinkMessage::GetAddress(message)) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Vec::new(),
            answer => answer?.messages,
        };
        let addresses = answer.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message) => Address::from_message(message),
            _ => None,
        });
        Ok(addresses.filter(|address| index.is_none_or(|index| index == address.index)).collect())
    }

    /// Gives an interface an address, usable at once; one that it has already is left alone.
    pub(in crate::kernel) async fn add_address(&self, index: u32, net: IpNet) -> Result<()> {
        self.new_address(address_message(index, net)).await
    }

    /// Likewise, one that the host does not choose for what it sends by itself: of IPv4 the kernel chooses none that is
    /// alone in its prefix while there is another, of IPv6 none that is deprecated.
    pub(in crate::kernel) async fn add_avoided_address(&self, index: u32, net: IpNet) -> Result<()> {
        let mut message = address_message(index, net);
        if net.addr().is_ipv6() {
            let mut lifetimes = CacheInfo::default();
            // Seconds; this many are for ever (`INFINITY_LIFE_TIME`).
            lifetimes.ifa_valid = u32::MAX;
            message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
        }
        self.new_address(message).await
    }

    async fn new_address(&self, message: AddressMessage) -> Result<()> {
        match self.command(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL).await {
            Err(error) if error.is(libc::EEXIST) => Ok(()),
            done => done,
        }
    }

    /// Takes an address from an interface.
    pub(in crate::kernel) async fn delete_address(&self, index: u32, net: IpNet) -> Result<()> {
        let message = RouteNetlinkMessage::DelAddress(address_message(index, net));
        match self.command(message, 0).await {
            Err(error) if error.is(libc::EADDRNOTAVAIL) => Ok(()),
            done => done,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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
