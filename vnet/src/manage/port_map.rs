//! Published ports.

use std::net::IpAddr;

use vnet_common::Addr;

use super::endpoint::family;
use super::error::{protocol_option, there_are};
use super::host::Host;
use super::{Claim, Done, Error, Manager};
use crate::instance::Instance;
use crate::plan::{Resource, expand};
use crate::reconcile::Machine;
use crate::spec::{self, Endpoint, Network, PortMap, Protocol, Published, Settings, Target};
use crate::store::Transaction;

/// Ports to publish.
#[derive(Clone, Debug)]
pub struct PortMapRequest {
    /// What to publish.
    pub published: Published,
    /// Where it leads.
    pub target: Target,
    /// Its protocol.
    pub protocol: Protocol,
}

impl<M: Machine> Manager<M> {
    /// Publishes ports.
    ///
    /// # Errors
    /// When there is no such target, or the ports cannot be had.
    pub async fn publish(&self, request: &PortMapRequest) -> Result<Done<PortMap>, Error> {
        let (transaction, settings) = self.begin()?;
        let host = Host::without_routes(&self.machine).await?;
        let described = self.describe_port_map(&transaction, &settings, &host, request)?;
        let recorded = self.same_port_map(&transaction, &described)?;
        let claim = Claim::of(recorded.as_ref());
        let mapping = match recorded {
            Some(mapping) => mapping,
            None => {
                let mapping = PortMap { id: transaction.next_mapping()?, ..described };
                transaction.put_port_map(&mapping)?;
                mapping
            }
        };
        let refresh = self.refresh(&transaction, &host)?;
        let mut wanted = refresh.wanted;
        wanted.extend(claim.on(expand::port_map(&mapping)));
        // Blocks are looked for only where the configuration says there are some, so it comes last. It is looked at
        // for any range: the command that noted this one may not have lived to write it.
        if mapping.published.ports.count() > 1 {
            wanted
                .extend(Claim::Recorded.on([Resource::Config(settings.config(transaction.port_blocks()?))]));
        }
        let what = format!("mapping {mapping}");
        let ops = self.make(transaction, &what, wanted, refresh.obsolete).await?;
        Ok(Done::new(mapping, ops))
    }

    /// What is to be published, without a number.
    fn describe_port_map(
        &self,
        transaction: &Transaction,
        settings: &Settings,
        host: &Host,
        request: &PortMapRequest,
    ) -> Result<PortMap, Error> {
        let PortMapRequest { published, target, protocol } = request;
        let endpoint = self.existing_endpoint(transaction, &target.host)?;
        let number = self.publishable(transaction, &endpoint)?.number;
        if published.ports.count() != target.ports.count() {
            return Err(Error::Spec(spec::Error::Lengths {
                published: published.ports,
                count: published.ports.count(),
                target: target.ports,
                target_count: target.ports.count(),
            }));
        }
        if published.ports.overlaps(settings.nat_ports) {
            return Err(Error::PortsReserved { ports: published.ports, reserved: settings.nat_ports });
        }
        if let Some(addr) = published.host {
            check_host_address(host, addr)?;
            if let Some(floating) = transaction.floating(addr)? {
                return Err(Error::Floats { addr, floating: Box::new(floating) });
            }
        }
        Ok(PortMap {
            id: 0,
            published: *published,
            protocol: *protocol,
            targets: targets(&endpoint, published.host)?,
            endpoint: endpoint.name,
            target_ports: target.ports,
            number,
        })
    }

    /// The endpoint's network, if the world may reach it.
    pub(super) fn publishable(
        &self,
        transaction: &Transaction,
        endpoint: &Endpoint,
    ) -> Result<Network, Error> {
        let name = &endpoint.name;
        let link = endpoint.link.as_ref().ok_or_else(|| Error::NotLinked { endpoint: name.clone() })?;
        let network = self.existing_network(transaction, &link.network)?;
        if network.internal {
            return Err(Error::InternalNetwork { endpoint: name.clone(), network: network.name });
        }
        Ok(network)
    }

    /// The same mapping, if it is there; nothing if nothing is in its way.
    fn same_port_map(&self, transaction: &Transaction, wish: &PortMap) -> Result<Option<PortMap>, Error> {
        let Some(other) = transaction.overlapping(&wish.published, wish.protocol)? else { return Ok(None) };
        if (PortMap { id: wish.id, ..other.clone() }) == *wish {
            return Ok(Some(other));
        }
        let remove = removal(&self.instance, &other);
        let (published, protocol) = (wish.published, wish.protocol);
        Err(Error::PortsTaken { published, protocol, other: Box::new(other), remove })
    }

    /// Takes published ports back; nothing if they are not published.
    ///
    /// # Errors
    /// When the ports are part of a range, or something of the mapping stays.
    pub async fn unpublish(
        &self,
        published: &Published,
        protocol: Protocol,
    ) -> Result<Done<Option<PortMap>>, Error> {
        let (transaction, settings) = self.begin()?;
        let Some(mapping) = transaction.overlapping(published, protocol)? else {
            return Ok(Done::new(None, Vec::new()));
        };
        if mapping.published != *published {
            let remove = removal(&self.instance, &mapping);
            let (published, other) = (*published, Box::new(mapping));
            return Err(Error::OtherRange { published, protocol, other, remove });
        }
        let blocks_before = transaction.port_blocks()?;
        transaction.remove_port_map(&mapping)?;
        let config = self.config_if_changed(&transaction, &settings, blocks_before)?;
        let what = format!("mapping {mapping}");
        let ops = self.unmake(transaction, &what, expand::port_map(&mapping), config).await?;
        self.forget(|_, entry| entry.mapping == mapping.id)?;
        Ok(Done::new(Some(mapping), ops))
    }

    /// The configuration, if blocks of other lengths are in use than before.
    pub(super) fn config_if_changed(
        &self,
        transaction: &Transaction,
        settings: &Settings,
        before: u32,
    ) -> Result<Vec<Resource>, Error> {
        let now = transaction.port_blocks()?;
        Ok(if now == before { Vec::new() } else { vec![Resource::Config(settings.config(now))] })
    }
}

/// The endpoint's addresses that a mapping leads to: of the published address's family, or of both.
fn targets(endpoint: &Endpoint, host: Option<IpAddr>) -> Result<Vec<IpAddr>, Error> {
    let fits = |addr: &IpAddr| host.is_none_or(|host| host.is_ipv4() == addr.is_ipv4());
    let targets: Vec<IpAddr> = endpoint.addresses().filter(fits).collect();
    match host {
        Some(host) if targets.is_empty() => {
            Err(Error::TargetFamily { host, endpoint: endpoint.name.clone(), family: family(host) })
        }
        _ => Ok(targets),
    }
}

fn check_host_address(host: &Host, addr: IpAddr) -> Result<(), Error> {
    if Addr::from(addr).is_loopback() || host.addresses().any(|own| own == addr) {
        return Ok(());
    }
    let addresses = host.addresses().filter(|own| !Addr::from(*own).is_v6_link_local());
    let addresses = there_are(addresses).trim_start_matches(": there is ").to_owned();
    Err(Error::NotOurAddress { addr, addresses })
}

/// How a mapping is removed.
pub(super) fn removal(instance: &Instance, mapping: &PortMap) -> String {
    let PortMap { published, protocol, .. } = mapping;
    let protocol = protocol_option(*protocol);
    let instance =
        if instance.name() == "default" { String::new() } else { format!(" --instance {}", instance.name()) };
    format!("{published}{protocol}{instance}")
}
