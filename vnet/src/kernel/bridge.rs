//! A network's bridge: an ordinary bridge that holds the gateway's addresses and forwards.
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

/// A bridge as it is to be.
pub(super) struct Bridge<'a> {
    pub(super) name: &'a str,
    pub(super) mac: Mac,
    pub(super) mtu: u32,
    pub(super) gso: GsoSizes,
    pub(super) addresses: &'a [IpNet],
}

impl Bridge<'_> {
    /// How it stands.
    pub(super) async fn state(&self, netlink: &Netlink) -> Result<State, Error> {
        let Some(link) = find(netlink, self.name).await? else { return Ok(State::Absent) };
        if !link.is(KIND) {
            return Ok(State::Differs(format!("{} is a {}, not a bridge", self.name, link.description())));
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
        let link = match find(netlink, self.name).await? {
            Some(link) => link,
            None => {
                let made = netlink.create_bridge(self.name, self.mac).await;
                made.map_err(|source| Error::MakeInterface { interface: self.name.to_owned(), source })?;
                require(netlink, self.name).await?
            }
        };
        if !link.is(KIND) {
            return Err(taken(self.name, &link, KIND));
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

/// Removes a bridge. Its ports stay, without a bridge.
pub(super) async fn remove(netlink: &Netlink, name: &str) -> Result<(), Error> {
    remove_link(netlink, name, KIND).await
}
