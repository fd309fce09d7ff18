//! A network's bridge: an ordinary bridge that holds the gateway's addresses and forwards.
//!
//! A network without one has a veth pair in its place, whose near end is all that the bridge is but for its ports: it has
//! the addresses and the route of the prefix, and the host's stack sees on it what endpoints send. A program takes from
//! it whatever the host sends to an endpoint; what that leaves, such as multicast, comes out of the far end, where nobody
//! listens. Any kernel that has endpoints has veth, and unlike a bridge without ports the pair has a carrier. It asks for
//! no neighbours: the program knows who has which address.
//!
//! Forwarding is switched on for the bridge alone, never for the host: `ip_forward` stays as it is.

use ipnet::IpNet;
use netlink_packet_route::link::LinkAttribute;
use vnet_common::Mac;

use super::error::Error;
use super::interface::{addresses, change_error, find, gso_text, remove_link, require, taken};
use super::netlink::{Link, Netlink, gso_attributes};
use super::sysctl::Setting;
use crate::plan::{GsoSizes, State};

const KIND: &str = "bridge";
/// In place of a bridge.
const PAIR: &str = "veth";

const fn kind(bridged: bool) -> &'static str {
    if bridged { KIND } else { PAIR }
}

/// A bridge as it is to be.
pub(super) struct Bridge<'a> {
    pub(super) name: &'a str,
    /// The other end, if it is a pair and no bridge.
    pub(super) far_end: Option<&'a str>,
    pub(super) mac: Mac,
    pub(super) mtu: u32,
    pub(super) gso: GsoSizes,
    pub(super) addresses: &'a [IpNet],
}

impl Bridge<'_> {
    /// How it stands.
    pub(super) async fn state(&self, netlink: &Netlink) -> Result<State, Error> {
        let Some(link) = find(netlink, self.name).await? else { return Ok(State::Absent) };
        if !link.is(self.kind()) {
            let (description, kind) = (link.description(), self.kind());
            return Ok(State::Differs(format!("{} is a {description}, not a {kind}", self.name)));
        }
        if let Some(name) = self.far_end {
            let Some(far_end) = self.far_end(netlink, &link).await? else {
                return Ok(State::Differs(format!("the other end of {} is not {name}", self.name)));
            };
            if !far_end.up {
                return Ok(State::Differs(format!("{name} is down")));
            }
            if link.arp {
                return Ok(State::Differs(format!("{} asks for neighbours", self.name)));
            }
        }
        if let Some(difference) = self.link_difference(&link) {
            return Ok(State::Differs(difference));
        }
        let present = addresses(netlink, &link)?;
        if let Some(missing) = self.addresses.iter().find(|wanted| !present.contains(wanted)) {
            return Ok(State::Differs(format!("address {missing} is missing")));
        }
        for setting in self.settings() {
            if let Some(difference) = setting.difference()? {
                return Ok(State::Differs(difference));
            }
        }
        Ok(State::Present)
    }

    fn link_difference(&self, link: &Link) -> Option<String> {
        if link.mac != Some(self.mac) {
            let mac = link.mac.map_or_else(|| "none".to_owned(), |mac| mac.to_string());
            return Some(format!("hardware address is {mac}, not {}", self.mac));
        }
        if link.mtu != self.mtu {
            return Some(format!("mtu is {}, not {}", link.mtu, self.mtu));
        }
        let (sizes, wanted) = (link.gso, possible(link, self.gso));
        if sizes != wanted {
            return Some(format!("it is handed up to {}, not {}", gso_text(sizes), gso_text(wanted)));
        }
        (!link.up).then(|| "it is down".to_owned())
    }

    /// Makes it, or brings it to its description.
    pub(super) async fn create(&self, netlink: &Netlink) -> Result<(), Error> {
        let link = match self.existing(netlink).await? {
            Some(link) => link,
            None => {
                let made = match self.far_end {
                    None => netlink.create_bridge(self.name, self.mac).await,
                    Some(far_end) => netlink.create_pair(self.name, far_end).await,
                };
                made.map_err(|source| Error::MakeInterface { interface: self.name.to_owned(), source })?;
                require(netlink, self.name).await?
            }
        };
        if let Some(far_end) = self.far_end {
            self.set_up_far_end(netlink, far_end, &link).await?;
        }
        // Below 1280 bytes an interface has no IPv6, and so no parameters of it.
        if link.up && link.mtu < self.mtu {
            let raised = netlink.set_up(link.index, vec![LinkAttribute::Mtu(self.mtu)]).await;
            raised.map_err(|source| change_error(self.name, "the host", source))?;
        }
        // While it is down if it is new: it then never has an address of its own making.
        self.settings().iter().try_for_each(Setting::apply)?;
        self.set_addresses(netlink, &link).await?;
        // An MTU that is set stays when ports come and go; one given at birth would follow them.
        let mut attributes = vec![LinkAttribute::Mtu(self.mtu)];
        attributes.extend(gso_attributes(link.gso, possible(&link, self.gso)));
        if link.mac != Some(self.mac) {
            attributes.push(LinkAttribute::Address(self.mac.bytes.to_vec()));
        }
        let set = netlink.set_up(link.index, attributes).await;
        set.map_err(|source| change_error(self.name, "the host", source))
    }

    const fn kind(&self) -> &'static str {
        kind(self.far_end.is_none())
    }

    /// What is there of it. A pair whose other end has been renamed or moved is removed.
    async fn existing(&self, netlink: &Netlink) -> Result<Option<Link>, Error> {
        let Some(link) = find(netlink, self.name).await? else { return Ok(None) };
        if !link.is(self.kind()) {
            return Err(taken(self.name, &link, self.kind()));
        }
        if self.far_end.is_some() && self.far_end(netlink, &link).await?.is_none() {
            remove_link(netlink, self.name, PAIR).await?;
            return Ok(None);
        }
        Ok(Some(link))
    }

    /// The other end of the pair, if it is there under its name.
    async fn far_end(&self, netlink: &Netlink, link: &Link) -> Result<Option<Link>, Error> {
        let Some(name) = self.far_end else { return Ok(None) };
        let far_end = find(netlink, name).await?;
        Ok(far_end.filter(|far_end| far_end.is(PAIR) && far_end.other_end == Some(link.index)))
    }

    /// Sets up the end where nobody listens, without which the other would have no carrier.
    async fn set_up_far_end(&self, netlink: &Netlink, name: &str, link: &Link) -> Result<(), Error> {
        let failed = |source| change_error(name, "the host", source);
        let far_end = require(netlink, name).await?;
        Setting::v6(name, "disable_ipv6", "1").apply()?;
        netlink.set_up(far_end.index, vec![LinkAttribute::Mtu(self.mtu)]).await.map_err(failed)?;
        let silent = netlink.without_arp(link.index).await;
        silent.map_err(|source| change_error(self.name, "the host", source))
    }

    /// Gives it its addresses. Others of the same subnets were its own once and go; what else the user has put
    /// there stays.
    async fn set_addresses(&self, netlink: &Netlink, link: &Link) -> Result<(), Error> {
        let failed = |address: IpNet| {
            move |source| Error::Address { address, interface: self.name.to_owned(), source }
        };
        let present = addresses(netlink, link)?;
        let outdated = |address: &&IpNet| {
            let same_subnet = |wanted: &IpNet| wanted.trunc() == address.trunc();
            !self.addresses.contains(address) && self.addresses.iter().any(same_subnet)
        };
        for address in present.iter().filter(outdated) {
            netlink.delete_address(link.index, *address).await.map_err(failed(*address))?;
        }
        for address in self.addresses {
            netlink.add_address(link.index, *address).await.map_err(failed(*address))?;
        }
        Ok(())
    }

    fn settings(&self) -> Vec<Setting> {
        let mut settings = vec![
            Setting::v4(self.name, "forwarding", "1"),
            Setting::v6(self.name, "forwarding", "1"),
            // Linux 6.17: forwards even if the host as a whole does not.
            Setting::v6_if_known(self.name, "force_forwarding", "1"),
            Setting::v6(self.name, "accept_ra", "0"),
            Setting::v6(self.name, "autoconf", "0"),
            Setting::v6(self.name, "accept_dad", "0"),
        ];
        if self.addresses.iter().any(|address| matches!(address, IpNet::V6(_))) {
            // Where IPv6 is switched off for new interfaces.
            settings.push(Setting::v6(self.name, "disable_ipv6", "0"));
        }
        settings
    }
}

/// What a bridge is to be handed at once: no more than its ports can take, and before it has one, no more than any
/// interface can (`br_set_gso_limits`).
fn possible(link: &Link, wanted: GsoSizes) -> GsoSizes {
    wanted.least(GsoSizes { v4: link.most_gso, v6: link.most_gso })
}

/// Lets as much through a bridge at once as its ports allow, now that it has one.
pub(super) async fn let_through(netlink: &Netlink, name: &str, wanted: GsoSizes) -> Result<(), Error> {
    let link = require(netlink, name).await?;
    let sizes = gso_attributes(link.gso, possible(&link, wanted));
    if sizes.is_empty() {
        return Ok(());
    }
    let set = netlink.set_up(link.index, sizes).await;
    set.map_err(|source| change_error(name, "the host", source))
}

/// Removes a bridge, whose ports stay without one, or the pair in its place.
pub(super) async fn remove(netlink: &Netlink, name: &str, bridged: bool) -> Result<(), Error> {
    remove_link(netlink, name, kind(bridged)).await
}
