//! Unicast routes.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};

use super::{Netlink, Result, family};

/// One next hop of a unicast route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Hop {
    pub(in crate::kernel) destination: IpNet,
    pub(in crate::kernel) index: Option<u32>,
    pub(in crate::kernel) gateway: Option<IpAddr>,
    pub(in crate::kernel) metric: u32,
}

impl Hop {
    /// The next hops of a route of a table; none if it is of another table or not unicast.
    fn from_message(message: &RouteMessage, wanted: u32) -> Vec<Self> {
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
        let unicast = header.kind == RouteType::Unicast && table == wanted;
        let Some(destination) = destination.ok().filter(|_| unicast) else { return Vec::new() };
        if paths.is_empty() {
            return vec![Self { destination, index, gateway, metric }];
        }
        let path = |path: &RouteNextHop| Self {
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
            RouteVia::Inet(address) => Some(IpAddr::V4(*address)),
            RouteVia::Inet6(address) => Some(IpAddr::V6(*address)),
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

/// Number of the main table.
pub(in crate::kernel) const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// What to do with a route to the same destination that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Existing {
    Keep,
    Replace,
}

/// A route out of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct NewRoute {
    pub(in crate::kernel) table: u32,
    pub(in crate::kernel) destination: IpNet,
    pub(in crate::kernel) index: u32,
    /// The router; without one, to neighbours.
    pub(in crate::kernel) gateway: Option<IpAddr>,
}

impl NewRoute {
    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family(self.destination.addr());
        message.header.destination_prefix_length = self.destination.prefix_len();
        message.header.table = u8::try_from(self.table).unwrap_or(libc::RT_TABLE_COMPAT);
        message.header.protocol = RouteProtocol::Static;
        let to_neighbours = self.gateway.is_none() && self.destination.addr().is_ipv4();
        message.header.scope = if to_neighbours { RouteScope::Link } else { RouteScope::Universe };
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Table(self.table));
        message.attributes.push(RouteAttribute::Oif(self.index));
        if self.destination.prefix_len() > 0 {
            let destination = RouteAddress::from(self.destination.addr());
            message.attributes.push(RouteAttribute::Destination(destination));
        }
        message.attributes.extend(self.gateway.map(|it| RouteAttribute::Gateway(RouteAddress::from(it))));
        message
    }
}

impl Netlink {
    /// The next hops of the main table's unicast routes, both families.
    pub(in crate::kernel) async fn hops(&self) -> Result<Vec<Hop>> {
        self.hops_of(MAIN).await
    }

    /// The next hops of a table's unicast routes, both families.
    pub(in crate::kernel) async fn hops_of(&self, table: u32) -> Result<Vec<Hop>> {
        let mut hops = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.attributes.push(RouteAttribute::Table(table));
            let answer = match self.request(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP).await {
                // The kernel's words for "there is no such table yet" and "there is no such family".
                Err(error) if error.is(libc::ENOENT) || error.is(libc::EOPNOTSUPP) => continue,
                answer => answer?,
            };
            for message in &answer {
                if let RouteNetlinkMessage::NewRoute(message) = message {
                    hops.extend(Hop::from_message(message, table));
                }
            }
        }
        Ok(hops)
    }

    /// Makes a route, over an existing one of the same destination and metric only if told to replace it.
    pub(in crate::kernel) async fn add_route(&self, route: &NewRoute, existing: Existing) -> Result<()> {
        let over = match existing {
            Existing::Keep => NLM_F_EXCL,
            Existing::Replace => NLM_F_REPLACE,
        };
        self.command(RouteNetlinkMessage::NewRoute(route.message()), NLM_F_CREATE | over).await
    }

    /// Takes a route away; one that is not there is taken away already.
    pub(in crate::kernel) async fn delete_route(&self, route: &NewRoute) -> Result<()> {
        match self.command(RouteNetlinkMessage::DelRoute(route.message()), 0).await {
            Err(error) if error.is(libc::ESRCH) => Ok(()),
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(Hop::from_message(&message, MAIN), std::slice::from_ref(&hop));
        message.attributes.push(RouteAttribute::Table(1000));
        assert_eq!(Hop::from_message(&message, MAIN), []);
        assert_eq!(Hop::from_message(&message, 1000), [hop]);
    }
}
