//! Networks.

use std::net::IpAddr;

use vnet_common::Mac;

use super::error::{Refusals, there_are};
use super::host::{Addresses, Host};
use super::{Claim, Done, Error, Manager, Steps, Wanted, pool};
use crate::ours;
use crate::plan::{Resource, expand};
use crate::reconcile::Machine;
use crate::spec::{
    Cidr, Endpoint, GatewayMode, GsoSizes, InterfaceName, Link, Masquerade, Name, Network, NetworkChange,
    NetworkOptions, Segments, Subnet,
};
use crate::store::Transaction;

/// A network to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRequest {
    /// Its name.
    pub name: Name,
    /// Its prefixes; of our choice without.
    pub subnets: Vec<Subnet>,
    /// Its gateways; a prefix without one gets its first address.
    pub gateways: Vec<IpAddr>,
    /// Parts of its prefixes from which endpoints get addresses that they do not ask for, one of each family.
    pub ranges: Vec<Cidr>,
    /// Addresses that endpoints get only if they ask for them.
    pub reserved: Vec<IpAddr>,
    /// Its bridge; one of our choice without.
    pub bridge: Option<InterfaceName>,
    /// Whether it is to do without one.
    pub no_bridge: bool,
    /// Its MTU; the uplink's without.
    pub mtu: Option<u32>,
    /// Its endpoints reach neither the world nor other networks.
    pub internal: bool,
    /// Its endpoints do not reach each other.
    pub isolated: bool,
    /// Choices that can be changed later; as documented without.
    pub options: NetworkChange,
}

impl NetworkRequest {
    /// A network about which everything else is left to us.
    pub(super) fn plain(name: Name) -> Self {
        Self {
            name,
            subnets: Vec::new(),
            gateways: Vec::new(),
            ranges: Vec::new(),
            reserved: Vec::new(),
            bridge: None,
            no_bridge: false,
            mtu: None,
            internal: false,
            isolated: false,
            options: NetworkChange::default(),
        }
    }
}

impl NetworkRequest {
    /// A network as it was made, with the choices that it has now.
    pub(super) fn of(network: &Network) -> Self {
        Self {
            ranges: network.ranges.clone(),
            reserved: network.reserved.clone(),
            no_bridge: !network.is_bridged(),
            internal: network.internal,
            isolated: network.isolated,
            ..Self::plain(network.name.clone())
        }
    }
}

/// A network that is to be changed.
pub(super) struct Changed {
    /// As it is to be.
    pub(super) network: Network,
    pub(super) steps: Steps,
    pub(super) notes: Vec<String>,
}

impl<M: Machine> Manager<M> {
    /// Makes a network.
    ///
    /// # Errors
    /// When it clashes with what is there, or is there with another description.
    pub async fn create_network(&self, request: &NetworkRequest) -> Result<Done<Network>, Error> {
        let (transaction, settings) = self.begin_settled().await?;
        let host = Host::observe(&self.machine).await?;
        let recorded = transaction.network(&request.name)?;
        let network = match &recorded {
            Some(network) => same_network(request, network)?,
            None => self.note_new_network(&transaction, &host, &settings.uplinks, request)?,
        };
        let refresh = self.refresh(&transaction, &Addresses::from(&host))?;
        let mut wanted = refresh.wanted;
        wanted.extend(network_resources(&transaction, &network, Claim::of(recorded.as_ref()))?);
        let what = format!("network {}", network.name);
        let ops = self.make(transaction, &what, wanted, refresh.obsolete).await?;
        Ok(Done::new(network, ops))
    }

    /// Notes a network that is not recorded.
    pub(super) fn note_new_network(
        &self,
        transaction: &Transaction,
        host: &Host,
        uplinks: &[InterfaceName],
        request: &NetworkRequest,
    ) -> Result<Network, Error> {
        if let Some(name) = uplinks.iter().find(|uplink| request.bridge.as_ref() == Some(uplink)) {
            return Err(Error::BridgeIsUplink { name: name.clone() });
        }
        let uplinks = OfUplinks::observe(host, uplinks);
        let network = self.describe_network(transaction, host, request, uplinks)?;
        note_network(transaction, &network)?;
        Ok(network)
    }

    /// The full description of a new network.
    pub(super) fn describe_network(
        &self,
        transaction: &Transaction,
        host: &Host,
        request: &NetworkRequest,
        uplinks: OfUplinks,
    ) -> Result<Network, Error> {
        let networks = transaction.networks()?;
        let chosen = match &request.subnets[..] {
            [] => {
                let (instance, ipv6) = (self.instance.name(), self.machine.has_ipv6());
                pool::subnets(instance, &request.name, host, &networks, ipv6)?
            }
            named => named.to_vec(),
        };
        let segments = Segments::new(&chosen, &request.gateways)?;
        let mut refusals = Refusals::default();
        refusals.take(segments.check_ranges(&request.ranges).map_err(Error::from))?;
        refusals.take(segments.check_reserved(&request.reserved).map_err(Error::from))?;
        for subnet in segments.subnets() {
            refusals.take(host.check_free(subnet, &networks))?;
        }
        let mtu = request.mtu.unwrap_or(uplinks.mtu);
        refusals.take(check_mtu(mtu, &segments))?;
        if request.no_bridge
            && let Some(bridge) = &request.bridge
        {
            let (network, bridge) = (request.name.clone(), bridge.clone());
            refusals.take(Err::<(), _>(Error::BridgeAndNone { network, bridge }))?;
        }
        let options = request.options.onto(NetworkOptions::default());
        refusals.take(check_mode(&request.name, request.internal, options))?;
        let bridge = refusals.take(self.choose_bridge(transaction, host, request))?;
        let Some(bridge) = bridge else { return Err(refusals.into_error()) };
        refusals.into_result()?;
        Ok(Network {
            name: request.name.clone(),
            number: lowest_number(&request.name, &networks)?,
            segments,
            ranges: request.ranges.clone(),
            reserved: request.reserved.clone(),
            bridge,
            far_end: match request.no_bridge {
                true => Some(self.choose_far_end(transaction, host, &request.name)?),
                false => None,
            },
            mac: self.choose_bridge_mac(transaction, &request.name, &networks)?,
            mtu,
            follows_uplink: request.mtu.is_none(),
            gso: uplinks.gso,
            internal: request.internal,
            isolated: request.isolated,
            options,
        })
    }

    fn choose_bridge(
        &self,
        transaction: &Transaction,
        host: &Host,
        request: &NetworkRequest,
    ) -> Result<InterfaceName, Error> {
        if let Some(name) = &request.bridge {
            let taken = transaction.has_interface(name.as_str())?;
            return if taken { Err(Error::InterfaceTaken { name: name.clone() }) } else { Ok(name.clone()) };
        }
        // The default network's bridge has a fixed name: if somebody else has it, that is for the user to solve.
        let fixed = request.name == Name::default_network();
        for name in ours::bridge_names(self.instance.name(), &request.name) {
            if fixed
                || (host.interface(name.as_str()).is_none() && !transaction.has_interface(name.as_str())?)
            {
                return Ok(name);
            }
        }
        Err(Error::NoneLeft { what: "bridge name", name: request.name.clone() })
    }

    fn choose_far_end(
        &self,
        transaction: &Transaction,
        host: &Host,
        network: &Name,
    ) -> Result<InterfaceName, Error> {
        for name in ours::far_ends(self.instance.name(), network) {
            if host.interface(name.as_str()).is_none() && !transaction.has_interface(name.as_str())? {
                return Ok(name);
            }
        }
        Err(Error::NoneLeft { what: "interface name", name: network.clone() })
    }

    fn choose_bridge_mac(
        &self,
        transaction: &Transaction,
        name: &Name,
        networks: &[Network],
    ) -> Result<Mac, Error> {
        for mac in ours::bridge_macs(self.instance.name(), name) {
            if !transaction.is_mac_taken(mac)? && networks.iter().all(|network| network.mac != mac) {
                return Ok(mac);
            }
        }
        Err(Error::NoneLeft { what: "hardware address", name: name.clone() })
    }

    /// Changes what may be changed of a network that is in use. Flows that are there go on as they began.
    ///
    /// # Errors
    /// When there is no such network, or the choices do not go with what it is or has.
    pub async fn set_network(&self, name: &Name, change: NetworkChange) -> Result<Done<Network>, Error> {
        let (transaction, _) = self.begin_settled().await?;
        let host = Host::without_routes(&self.machine).await?;
        let before = self.existing_network(&transaction, name)?;
        let Changed { network, steps, notes } = self.note_change(&transaction, &host, &before, change)?;
        let ops = self.change(transaction, &format!("change of network {name}"), steps).await?;
        Ok(Done { value: network, ops, notes })
    }

    /// Notes what may be changed of a network that is in use.
    pub(super) fn note_change(
        &self,
        transaction: &Transaction,
        host: &Host,
        before: &Network,
        change: NetworkChange,
    ) -> Result<Changed, Error> {
        let name = &before.name;
        let network = Network { options: change.onto(before.options), ..before.clone() };
        check_mode(name, network.internal, network.options)?;
        let users = users(transaction, name)?;
        check_floating(transaction, &network, &users)?;
        let (entries, absent): (Vec<_>, Vec<_>) =
            users.into_iter().partition(|user| user.link_to(name).is_none_or(|link| is_there(link, host)));
        let resources = |network: &Network| -> Result<Vec<Resource>, Error> {
            let wanted = network_resources(transaction, network, Claim::Recorded)?;
            let links = entries.iter().filter_map(|endpoint| Some((endpoint, endpoint.link_to(name)?)));
            let entries =
                links.flat_map(|(endpoint, link)| expand::endpoint_entries(endpoint, link, network));
            Ok(wanted.into_iter().map(|wanted| wanted.resource).chain(entries).collect())
        };
        let former = resources(before)?;
        transaction.put_network(&network)?;
        if network.is_masqueraded() && !before.is_masqueraded() {
            note_rules(transaction, &network)?;
        } else if !network.is_masqueraded() {
            for rule in rules_of(transaction, name)? {
                transaction.remove_masquerade(rule.subnet)?;
            }
        }
        let wanted = Claim::Recorded.on(resources(&network)?);
        let obsolete = without_rule(transaction, &network)?;
        let note = |endpoint: &Endpoint| {
            format!(
                "endpoint {} is not there: it has the change once `vnet up` brings it back",
                endpoint.name
            )
        };
        let notes = absent.iter().map(note).collect();
        Ok(Changed { network, steps: Steps { wanted, obsolete, former }, notes })
    }

    /// Removes a network; nothing if there is none of that name.
    ///
    /// # Errors
    /// When it is in use or part of the instance, or when something of it stays.
    pub async fn remove_network(&self, name: &Name) -> Result<Done<Option<Network>>, Error> {
        let (transaction, _) = self.begin_settled().await?;
        let Some(network) = transaction.network(name)? else { return Ok(Done::new(None, Vec::new())) };
        if *name == Name::default_network() {
            return Err(Error::DefaultNetwork);
        }
        let users = users(&transaction, name)?;
        if !users.is_empty() {
            let endpoints = users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(Error::NetworkInUse { network: name.clone(), endpoints });
        }
        let resources = network_resources(&transaction, &network, Claim::Recorded)?;
        let obsolete = resources.into_iter().map(|wanted| wanted.resource).collect();
        for rule in rules_of(&transaction, name)? {
            transaction.remove_masquerade(rule.subnet)?;
        }
        transaction.remove_network(&network)?;
        let what = format!("network {name}");
        let ops = self.unmake(transaction, &what, obsolete, Vec::new()).await?;
        self.forget(|tuple, entry| tuple.zone == network.zone() || entry.translated.zone == network.zone())?;
        Ok(Done::new(Some(network), ops))
    }

    /// A network that must exist.
    pub(super) fn existing_network(&self, transaction: &Transaction, name: &Name) -> Result<Network, Error> {
        if let Some(network) = transaction.network(name)? {
            return Ok(network);
        }
        let names = transaction.networks()?.into_iter().map(|network| network.name);
        Err(Error::NoSuchNetwork { name: name.clone(), existing: there_are(names) })
    }
}

/// Notes a network and the masquerade rules that come with it.
pub(super) fn note_network(transaction: &Transaction, network: &Network) -> Result<(), Error> {
    transaction.put_network(network)?;
    if network.is_masqueraded() { note_rules(transaction, network) } else { Ok(()) }
}

/// Notes the masquerade rules that come with a network.
fn note_rules(transaction: &Transaction, network: &Network) -> Result<(), Error> {
    for subnet in network.segments.subnets() {
        let subnet = Cidr::try_from(subnet.net())?;
        // A rule somebody added for the same prefix before stays as it is.
        if transaction.masquerade(subnet)?.is_none() {
            transaction.put_masquerade(&Masquerade {
                subnet,
                to: None,
                network: Some(network.name.clone()),
            })?;
        }
    }
    Ok(())
}

/// A network and its masquerade rules, as resources.
pub(super) fn network_resources(
    transaction: &Transaction,
    network: &Network,
    claim: Claim,
) -> Result<Vec<Wanted>, Error> {
    let rules = rules_of(transaction, &network.name)?;
    let resources: Vec<Resource> =
        expand::network(network).into_iter().chain(rules.iter().map(expand::masquerade)).collect();
    Ok(claim.on(resources))
}

/// The rules that a network without any recorded may have had: the command that took them back may not have lived to
/// tell the data path.
pub(super) fn without_rule(transaction: &Transaction, network: &Network) -> Result<Vec<Resource>, Error> {
    let mut resources = Vec::new();
    for subnet in network.segments.subnets() {
        let subnet = Cidr::try_from(subnet.net())?;
        if transaction.masquerade(subnet)?.is_none() {
            resources.push(expand::masquerade(&Masquerade { subnet, to: None, network: None }));
        }
    }
    Ok(resources)
}

/// Checks that the world may reach a network if it is to.
fn check_mode(network: &Name, internal: bool, options: NetworkOptions) -> Result<(), Error> {
    let mode = options.gateway_mode;
    if internal && mode != GatewayMode::Nat {
        return Err(Error::InternalMode { network: network.clone(), mode });
    }
    Ok(())
}

/// Checks that no endpoint of a routed network has a floating address.
fn check_floating(transaction: &Transaction, network: &Network, users: &[Endpoint]) -> Result<(), Error> {
    if network.options.gateway_mode != GatewayMode::Routed {
        return Ok(());
    }
    for addr in users.iter().filter_map(|user| user.link_to(&network.name)).flat_map(Link::addrs) {
        if let Some(floating) = transaction.floating_of(addr)? {
            return Err(Error::Floats { addr, floating: Box::new(floating) });
        }
    }
    Ok(())
}

/// Whether the host's end of a link is there.
pub(super) fn is_there(link: &Link, host: &Host) -> bool {
    host.interface(link.host_interface.as_str()).is_some()
}

/// The masquerade rules that a network brought.
pub(super) fn rules_of(transaction: &Transaction, network: &Name) -> Result<Vec<Masquerade>, Error> {
    let rules = transaction.masquerades()?;
    Ok(rules.into_iter().filter(|rule| rule.network.as_ref() == Some(network)).collect())
}

/// The endpoints on a network.
pub(super) fn users(transaction: &Transaction, network: &Name) -> Result<Vec<Endpoint>, Error> {
    let on_it = |endpoint: &Endpoint| endpoint.link_to(network).is_some();
    Ok(transaction.endpoints()?.into_iter().filter(on_it).collect())
}

/// The network that is there, if it is the one that is asked for.
fn same_network(request: &NetworkRequest, network: &Network) -> Result<Network, Error> {
    check_same(request, network)?;
    same_options(request, network)
}

/// Checks that a network that is there has what is asked for of what cannot be changed.
pub(super) fn check_same(request: &NetworkRequest, network: &Network) -> Result<(), Error> {
    let mut differences = Vec::new();
    let mut compare = |name: &str, same: bool, is: String| {
        if !same {
            differences.push(format!("{name} {is}"));
        }
    };
    let subnets: Vec<Subnet> = network.segments.subnets().collect();
    let same_subnets =
        subnets.len() == request.subnets.len() && request.subnets.iter().all(|s| subnets.contains(s));
    compare("subnet", request.subnets.is_empty() || same_subnets, list(&subnets));
    let gateways: Vec<IpAddr> = network.segments.iter().map(|segment| segment.gateway).collect();
    compare("gateway", request.gateways.iter().all(|gateway| gateways.contains(gateway)), list(&gateways));
    compare(
        "bridge",
        request.bridge.as_ref().is_none_or(|bridge| *bridge == network.bridge),
        network.bridge.to_string(),
    );
    compare("no-bridge", request.no_bridge != network.is_bridged(), (!network.is_bridged()).to_string());
    compare("range", request.ranges == network.ranges, or_none(&network.ranges));
    compare("reserved", request.reserved == network.reserved, or_none(&network.reserved));
    compare("mtu", request.mtu.is_none_or(|mtu| mtu == network.mtu), network.mtu.to_string());
    compare("internal", request.internal == network.internal, network.internal.to_string());
    compare("isolated", request.isolated == network.isolated, network.isolated.to_string());
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::Differs {
        what: format!("network {}", network.name),
        differences: differences.join(", "),
        remove: format!("vnet network rm {}", network.name),
    })
}

/// The network that is there, if it has the choices that are asked for.
fn same_options(request: &NetworkRequest, network: &Network) -> Result<Network, Error> {
    let NetworkOptions { gateway_mode, udp_mapping, tcp_mapping, filtering } = network.options;
    let wanted = request.options.onto(network.options);
    let choices = [
        (wanted.gateway_mode == gateway_mode, format!("gateway mode {gateway_mode}")),
        (wanted.udp_mapping == udp_mapping, format!("UDP mapping {udp_mapping}")),
        (wanted.tcp_mapping == tcp_mapping, format!("TCP mapping {tcp_mapping}")),
        (wanted.filtering == filtering, format!("filtering {filtering}")),
    ];
    let differences: Vec<String> = choices.into_iter().filter(|(same, _)| !same).map(|(_, is)| is).collect();
    if differences.is_empty() {
        return Ok(network.clone());
    }
    Err(Error::OptionsDiffer { network: network.name.clone(), differences: differences.join(", ") })
}

fn or_none(items: &[impl ToString]) -> String {
    if items.is_empty() { "none".to_owned() } else { list(items) }
}

pub(super) fn list(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// What a network has of the uplinks unless something else is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfUplinks {
    /// The MTU of the first one that is there; Ethernet's if there is none.
    pub(super) mtu: u32,
    /// What all of them can be handed at once: more would be cut by software on its way to the wire.
    pub(super) gso: GsoSizes,
}

impl OfUplinks {
    pub(super) fn observe(host: &Host, uplinks: &[InterfaceName]) -> Self {
        let uplinks: Vec<_> = uplinks.iter().filter_map(|name| host.interface(name.as_str())).collect();
        let gso = uplinks.iter().map(|uplink| uplink.gso).reduce(GsoSizes::least).unwrap_or_default();
        Self {
            mtu: uplinks.first().map_or(1500, |uplink| uplink.mtu).min(MAX_MTU),
            gso: gso.least(GsoSizes::MOST),
        }
    }
}

/// The largest MTU of a veth pair, and of the data path's field.
const MAX_MTU: u32 = 65535;

pub(super) fn check_mtu(mtu: u32, segments: &Segments) -> Result<(), Error> {
    let bad = |reason| Err(Error::Mtu { mtu, reason });
    match mtu {
        0..68 => bad("IPv4 needs 68 bytes (RFC 791)"),
        68..1280 if segments.has_v6() => bad(
            "IPv6 needs 1280 bytes (RFC 8200); without IPv6, with an IPv4 prefix alone (--subnet), fewer do",
        ),
        68..=MAX_MTU => Ok(()),
        _ => bad("65535 bytes is the most"),
    }
}

fn lowest_number(name: &Name, networks: &[Network]) -> Result<u16, Error> {
    let free = |number: &u16| networks.iter().all(|network| network.number != *number);
    (1..=u16::MAX).find(free).ok_or_else(|| Error::NoneLeft { what: "network number", name: name.clone() })
}
