//! `vnet network`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use clap::{Args, Subcommand};

use super::context::{Context, DryRun};
use super::namespace::{self, LinkArgs};
use crate::manage::{ConnectRequest, Disconnected, Mode, NetworkRequest};
use crate::output::{self, Format};
use crate::spec::{Cidr, Filtering, GatewayMode, InterfaceName, Mapping, Name, NetworkChange, Subnet};
use crate::store::{self, Transaction};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Create(Create),
    Set(Set),
    Connect(Connect),
    /// Take an endpoint off a network, with the ports published for its addresses there and its floating addresses
    /// there. One that is not on it is off it already. The default routes lead by the next link then.
    Disconnect {
        /// The network.
        #[arg(value_name = "NET")]
        network: Name,
        /// The endpoint.
        endpoint: Name,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// List the networks.
    Ls,
    /// List the addresses that are not free: of endpoints, gateways, and those that are reserved.
    Leases {
        /// The network [default: all].
        network: Option<Name>,
    },
    /// Show one network.
    Inspect {
        /// Its name.
        name: Name,
    },
    /// Remove a network that no endpoint is on. One that is not there is removed already.
    Rm {
        /// Its name.
        name: Name,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

/// Create a network: a bridge with a gateway address, or none, and masquerade for its prefixes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet network create any
  vnet network create blue --subnet 10.1.0.0/24 --range 10.1.0.128/25 --reserve 10.1.0.200
  vnet network create both --subnet 10.2.0.0/24 --subnet fd00:2::/64 --gateway 10.2.0.254
  vnet network create db --subnet 10.3.0.0/24 --internal
  vnet network create crowd --subnet 10.4.0.0/16 --no-bridge")]
pub(super) struct Create {
    /// Its name.
    name: Name,
    /// Its prefix, or one of each family [default: the first free one of 172.24.0.0/13, 10.192.0.0/10 and
    /// 192.168.0.0/16 with 24 bits, and a local IPv6 one].
    #[arg(long = "subnet", value_name = "CIDR")]
    subnets: Vec<Subnet>,
    /// The gateway's address in a prefix [default: the first].
    #[arg(long = "gateway", value_name = "IP")]
    gateways: Vec<IpAddr>,
    /// The part of a prefix from which endpoints get addresses that they do not ask for with --ip, one for each family.
    #[arg(long = "range", value_name = "CIDR")]
    ranges: Vec<Cidr>,
    /// An address that an endpoint gets only if it asks for it with --ip.
    #[arg(long = "reserve", value_name = "ADDR")]
    reserved: Vec<IpAddr>,
    /// Its bridge [default: vnet-NAME].
    #[arg(long, value_name = "IF")]
    bridge: Option<InterfaceName>,
    /// It has no bridge, whose 1,023 ports are the most endpoints that a network with one can have. Endpoints reach each
    /// other by their addresses alone: there is no broadcast and no multicast.
    #[arg(long, conflicts_with = "bridge")]
    no_bridge: bool,
    /// Largest packet in bytes [default: that of the first uplink, also when it changes].
    #[arg(long, value_name = "N")]
    mtu: Option<u32>,
    /// Its endpoints reach neither the world nor other networks.
    #[arg(long)]
    internal: bool,
    /// Its endpoints do not reach each other.
    #[arg(long)]
    isolated: bool,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Change a network that may be in use, from now on: flows that are there go on as they began.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet network set blue --gateway-mode routed
  vnet network set default --tcp-mapping endpoint-independent --filtering endpoint-independent")]
pub(super) struct Set {
    /// Its name.
    name: Name,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Put an endpoint that is there on one more network. Its processes go on.
///
/// What it sends from its addresses there leaves by that network; everything else leaves by its first link, which has
/// the default routes. It does not route between the two.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet network connect blue web
  vnet network connect blue web --ip 10.1.0.80 --default-route
  vnet network connect blue web --route 10.50.0.0/16")]
pub(super) struct Connect {
    /// The network.
    #[arg(value_name = "NET")]
    network: Name,
    /// The endpoint.
    endpoint: Name,
    #[command(flatten)]
    link: LinkArgs,
    /// Have its default routes lead by this network from now on.
    #[arg(long)]
    default_route: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

/// What can be changed of a network.
#[derive(Debug, Args)]
struct Options {
    /// How the network and the world reach each other [default: nat].
    ///
    /// nat: endpoints go out under the host's address, and the world reaches published ports only.
    /// nat-unprotected: as much, but anybody outside may address the endpoints directly.
    /// routed: endpoints keep their own addresses, to which the world must have routes, and ports published for them
    /// answer there; no masquerade.
    #[arg(long, value_name = "MODE", value_parser = super::one_of::<GatewayMode>(GatewayMode::WORDS), verbatim_doc_comment)]
    gateway_mode: Option<GatewayMode>,
    /// External ports of UDP: one for all destinations of a socket, or one for each, where flows may share one
    /// [default: endpoint-independent].
    #[arg(long, value_name = "BEHAVIOUR", value_parser = super::one_of::<Mapping>(Mapping::WORDS))]
    udp_mapping: Option<Mapping>,
    /// External ports of TCP, likewise [default: address-and-port].
    #[arg(long, value_name = "BEHAVIOUR", value_parser = super::one_of::<Mapping>(Mapping::WORDS))]
    tcp_mapping: Option<Mapping>,
    /// Who may send to an endpoint-independent port: anybody, the addresses that were sent to, or the addresses and
    /// ports that were [default: address].
    #[arg(long, value_name = "BEHAVIOUR", value_parser = super::one_of::<Filtering>(Filtering::WORDS))]
    filtering: Option<Filtering>,
}

impl Options {
    fn change(&self) -> NetworkChange {
        let Self { gateway_mode, udp_mapping, tcp_mapping, filtering } = *self;
        NetworkChange { gateway_mode, udp_mapping, tcp_mapping, filtering }
    }
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Create(command) => command.run(context).await,
            Self::Set(command) => command.run(context).await,
            Self::Connect(command) => command.run(context).await,
            Self::Disconnect { network, endpoint, dry_run } => {
                disconnect(context, &network, &endpoint, dry_run).await
            }
            Self::Ls => context.print_list(&listed(&context.record()?.transaction)?),
            Self::Leases { network } => leases(context, network.as_ref()),
            Self::Inspect { name } => inspect(context, &name),
            Self::Rm { name, dry_run } => {
                let manager = context.manager(dry_run.mode()).await?;
                let done = manager.remove_network(&name).await?;
                let line = match &done.value {
                    Some(_) => format!("network {name} removed"),
                    None => format!("no network {name}: nothing to remove"),
                };
                context.print_removed(dry_run.mode(), &done, &line)
            }
        }
    }
}

impl Create {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mode = self.dry_run.mode();
        let request = NetworkRequest {
            name: self.name,
            subnets: self.subnets,
            gateways: self.gateways,
            ranges: self.ranges,
            reserved: self.reserved,
            bridge: self.bridge,
            no_bridge: self.no_bridge,
            mtu: self.mtu,
            internal: self.internal,
            isolated: self.isolated,
            options: self.options.change(),
        };
        let done = context.manager(mode).await?.create_network(&request).await?;
        let network = output::Network::new(&done.value, 0);
        let line = format!("network {}: {} on {}", network.name, network.subnets.join(" "), network.bridge);
        context.print_made(mode, &done, network, &line)
    }
}

impl Set {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let change = self.options.change();
        if change == NetworkChange::default() {
            return Err(super::usage("say what to change of the network; --help lists what can be"));
        }
        let mode = self.dry_run.mode();
        let done = context.manager(mode).await?.set_network(&self.name, change).await?;
        let endpoints = if mode == Mode::Apply { count(context, &self.name)? } else { 0 };
        let network = output::Network::new(&done.value, endpoints);
        let line = format!("network {}: {}", network.name, network.choices());
        context.print_made(mode, &done, network, &line)
    }
}

impl Connect {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mode = self.dry_run.mode();
        let request = ConnectRequest {
            endpoint: self.endpoint,
            place: self.link.place(self.network),
            default_route: self.default_route,
        };
        let done = context.manager(mode).await?.connect(&request).await?;
        let endpoint = output::Endpoint::new(&done.value, context.now);
        let line = namespace::line(&endpoint);
        context.print_made(mode, &done, endpoint, &line)
    }
}

async fn disconnect(
    context: &Context,
    network: &Name,
    endpoint: &Name,
    dry_run: DryRun,
) -> anyhow::Result<()> {
    let done = context.manager(dry_run.mode()).await?.disconnect(network, endpoint).await?;
    let line = match &done.value {
        None => format!("endpoint {endpoint} is not on network {network}: nothing to remove"),
        Some(Disconnected { mappings, floating, .. }) => {
            let with_it = namespace::and_with_it(mappings, floating);
            format!("endpoint {endpoint} is off network {network}{with_it}")
        }
    };
    context.print_removed(dry_run.mode(), &done, &line)
}

/// How many endpoints a network has.
fn count(context: &Context, name: &Name) -> anyhow::Result<usize> {
    let networks = listed(&context.record()?.transaction)?;
    let network = networks.iter().find(|network| network.name == name.as_str());
    Ok(network.map_or(0, |network| network.endpoints))
}

/// Every network, with the number of its endpoints.
pub(super) fn listed(transaction: &Transaction) -> Result<Vec<output::Network>, store::Error> {
    let mut endpoints: BTreeMap<Name, usize> = BTreeMap::new();
    for link in transaction.endpoints()?.into_iter().flat_map(|endpoint| endpoint.links) {
        *endpoints.entry(link.network).or_default() += 1;
    }
    let count = |name: &Name| endpoints.get(name).copied().unwrap_or(0);
    let networks = transaction.networks()?;
    Ok(networks.iter().map(|network| output::Network::new(network, count(&network.name))).collect())
}

fn leases(context: &Context, name: Option<&Name>) -> anyhow::Result<()> {
    let record = context.record()?;
    let (networks, endpoints) = (record.transaction.networks()?, record.transaction.endpoints()?);
    if let Some(name) = name
        && !networks.iter().any(|network| network.name == *name)
    {
        return Err(missing(name, networks.iter().map(|network| network.name.as_str())));
    }
    let wanted = networks.iter().filter(|network| name.is_none_or(|name| network.name == *name));
    let leases = wanted.flat_map(|network| output::Lease::of(network, &endpoints, context.now));
    context.print_list(&leases.collect::<Vec<_>>())
}

fn missing<'a>(name: &Name, names: impl Iterator<Item = &'a str>) -> anyhow::Error {
    anyhow::anyhow!("there is no network {name}: there is {}", names.collect::<Vec<_>>().join(", "))
}

fn inspect(context: &Context, name: &Name) -> anyhow::Result<()> {
    let networks = listed(&context.record()?.transaction)?;
    let Some(network) = networks.iter().find(|network| network.name == name.as_str()) else {
        return Err(missing(name, networks.iter().map(|network| network.name.as_str())));
    };
    match context.format {
        Format::Json => context.print_list(std::slice::from_ref(network)),
        Format::Table => Ok(output::print_details(&mut context.out(), network)?),
    }
}
