//! Neighbours whose hardware address is given, not asked for.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use vnet_common::Mac;

use super::{Netlink, Result, family};

/// The entry of a neighbour that is given, by address; `None` of any other.
fn given(message: &NeighbourMessage, index: u32) -> Option<(IpAddr, Mac)> {
    if message.header.ifindex != index || message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut addr, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(it)) => addr = Some(IpAddr::V4(*it)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(it)) => addr = Some(IpAddr::V6(*it)),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(Mac::new);
            }
            _ => {}
        }
    }
    addr.zip(mac)
}

fn entry(index: u32, addr: IpAddr, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(addr);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(addr.into()));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.bytes.to_vec()));
    message
}

impl Netlink {
    /// The neighbours on an interface whose hardware address is given.
    pub(in crate::kernel) async fn given_neighbours(&self, index: u32) -> Result<Vec<(IpAddr, Mac)>> {
        let question = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let answer = self.request(question, NLM_F_DUMP).await?;
        let found = answer.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(message) => given(message, index),
            _ => None,
        });
        Ok(found.collect())
    }

    /// Gives a neighbour's hardware address, whatever is known of it.
    pub(in crate::kernel) async fn give_neighbour(&self, index: u32, addr: IpAddr, mac: Mac) -> Result<()> {
        let message = RouteNetlinkMessage::NewNeighbour(entry(index, addr, mac));
        self.command(message, NLM_F_CREATE | NLM_F_REPLACE).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_is_written_and_what_was_learnt_is_not_given() {
        for addr in ["10.1.0.1", "fe80::1"] {
            let (addr, mac) = (addr.parse().unwrap(), Mac::new([2, 0, 0, 0, 0, 7]));
            let written = entry(3, addr, mac);
            assert_eq!(given(&written, 3), Some((addr, mac)));
            assert_eq!(given(&written, 4), None);
            let mut learnt = written;
            learnt.header.state = NeighbourState::Reachable;
            assert_eq!(given(&learnt, 3), None);
        }
    }
}
