//! `vnet up`, `vnet down`, `vnet status`.

use std::path::PathBuf;

use clap::Args;

use super::context::{Context, DryRun, already, note};
use crate::firewall::Netfilter;
use crate::kernel::Kernel;
use crate::manage::{self, Examination, Manager, Mode, Standing, UpRequest, UplinkReach};
use crate::output::{self, Format, Program};
use crate::run;
use crate::spec::{
    Firewall, InterfaceName, PortMap, Ports, Settings, SettingsChange, Subnet, TableSizes, TimeoutSetting,
    XdpSetting, parse_nat_ports,
};
use crate::store::{self, Store, Transaction};

/// Bring the instance up: programs on the uplinks, and the network `default`.
///
/// Run again, it adds uplinks, learns the host's new addresses and the uplink's MTU, and brings back whatever of the
/// instance has gone; `vnet run` does so by itself.
/// Ports, timeouts, limits of endpoints and the way to treat the firewall can be changed at any time; what is not named
/// stays as it is. The room for flows is fixed until `vnet down`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet up                                          uplinks by default route, 192.168.0.0/24 and a local IPv6 prefix
  vnet up --uplink eth0 --subnet 10.88.0.0/16      another uplink, another prefix
  vnet up --timeout udp-replied=10m --timeout tcp-established=1d
  vnet up --firewall respect                       the host's rules for forwarded packets decide on published ports
  vnet up --xdp native --flood-rate 100            floods end in the uplinks' drivers
  vnet up --dry-run                                what it would do")]
pub(super) struct Up {
    /// An interface that leads to the world [default: every Ethernet interface with a default route].
    #[arg(long = "uplink", value_name = "IF")]
    uplinks: Vec<InterfaceName>,
    /// A prefix of the network `default`, one for each family [default: 192.168.0.0/24 and a local IPv6 prefix].
    #[arg(long = "subnet", value_name = "CIDR")]
    subnets: Vec<Subnet>,
    /// Bridge of the network `default` [default: vnet0].
    #[arg(long, value_name = "IF")]
    bridge: Option<InterfaceName>,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    dry_run: DryRun,
}

/// What holds for the instance.
#[derive(Debug, Args)]
struct ChangeArgs {
    /// Source ports for masquerade, 64 at least: the host does not choose them, and they cannot be published
    /// [default: 49152-65535].
    #[arg(long, value_name = "FIRST-LAST", value_parser = parse_nat_ports)]
    nat_ports: Option<Ports>,
    /// How long idle flows are kept, as 90s, 5m, 2h4m or seconds. NAME is tcp-established [default: 2h4m],
    /// tcp-opening [4m], tcp-closing [4m], udp-unreplied [2m], udp-replied [5m], dns [10s], icmp-query [1m] or
    /// fragment [30s]. What endpoints send to UDP port 53 is kept for dns, whatever its state.
    #[arg(long = "timeout", value_name = "NAME=DURATION")]
    timeouts: Vec<TimeoutSetting>,
    /// Room for flows that are answered; fixed until `vnet down` [default: 131072].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(TableSizes::BOUNDS))]
    max_flows: Option<u32>,
    /// Room for flows that are not, and for endpoint-independent ports; fixed until `vnet down` [default: 65536].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(TableSizes::BOUNDS))]
    max_unanswered: Option<u32>,
    /// Most answered flows of one endpoint, 0 for any number [default: 65536].
    #[arg(long, value_name = "N")]
    endpoint_flows: Option<u32>,
    /// Most flows of one endpoint that wait for an answer, 0 for any number [default: 2048].
    #[arg(long, value_name = "N")]
    endpoint_unanswered: Option<u32>,
    /// What the host's firewall has to say about published ports: nothing, as packets go past the host's stack, or
    /// whether their first packets are forwarded. Uplinks then forward; IPv6 needs Linux 6.17 for that, or
    /// net.ipv6.conf.all.forwarding [default: bypass].
    #[arg(long, value_name = "MODE", value_parser = super::one_of::<Firewall>(Firewall::WORDS))]
    firewall: Option<Firewall>,
    /// Have an uplink drop what is certainly not wanted before the host's stack sees it: what `vnet deny` lists,
    /// malformed packets for endpoints, floods. MODE is native (in the driver), generic (in the stack, slower) or off;
    /// without IF for all uplinks [default: off].
    #[arg(long, value_name = "[IF=]MODE")]
    xdp: Vec<XdpSetting>,
    /// New flows to published ports that uplinks with XDP let pass of each source, an IPv4 /24 or an IPv6 /64, in a
    /// second; 0 for any number [default: 0].
    #[arg(long, value_name = "N")]
    flood_rate: Option<u32>,
    /// New flows to published ports that uplinks with XDP let pass in a second of all sources together; 0 for any
    /// number [default: 0].
    #[arg(long, value_name = "N")]
    flood_total: Option<u32>,
}

impl From<ChangeArgs> for SettingsChange {
    fn from(args: ChangeArgs) -> Self {
        Self {
            nat_ports: args.nat_ports,
            timeouts: args.timeouts,
            max_flows: args.max_flows,
            max_unanswered: args.max_unanswered,
            endpoint_flows: args.endpoint_flows,
            endpoint_unanswered: args.endpoint_unanswered,
            firewall: args.firewall,
            xdp: args.xdp,
            flood_rate: args.flood_rate,
            flood_total: args.flood_total,
        }
    }
}

impl Up {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mode = self.dry_run.mode();
        let kernel = context.kernel().await?;
        let manager = Manager::create(&context.instance, kernel, mode, context.now)?;
        let Self { uplinks, subnets, bridge, change, .. } = self;
        let request = UpRequest { uplinks, subnets, bridge, change: change.into(), router: None };
        let done = manager.up(&request).await?;
        note(&done.notes);
        if mode == Mode::DryRun {
            return context.print_ops(&done.ops);
        }
        // While this command has the instance.
        run::forget_resolver(&context.instance);
        let kernel = manager.into_machine();
        run::silence(&context.instance, &kernel).await?;
        if context.format == Format::Json {
            let status = gather(context, &kernel).await?;
            return Ok(output::print_json(&mut context.out(), &status)?);
        }
        let network = &done.value.network;
        context.print_line(&format!(
            "instance {} is up{}: uplink {}; network default, {}, on {}",
            context.instance.name(),
            already(&done.ops),
            list(&done.value.settings.uplinks),
            list(&network.segments.subnets().collect::<Vec<_>>()),
            network.bridge,
        ))
    }
}

pub(super) fn list(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Take the instance down with everything in it: endpoints, networks, published ports, programs, maps.
///
/// What cannot be removed is reported, and the rest goes all the same. An instance that is not up is down.
#[derive(Debug, Args)]
pub(super) struct Down {
    #[command(flatten)]
    dry_run: DryRun,
}

impl Down {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mode = self.dry_run.mode();
        let kernel = context.kernel().await?;
        if mode == Mode::Apply {
            run::forget_resolver(&context.instance);
        }
        let done = manage::down(&context.instance, &kernel, mode).await?;
        let line = format!("instance {}: {}", context.instance.name(), done.value);
        context.print_removed(mode, &done, &line)
    }
}

/// Show how the instance is doing, and what of it is not as recorded.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// Draw the topology into a file as well, as `vnet graph` does.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl Status {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let status = if Store::exists(&context.instance)? {
            let kernel = context.kernel().await?;
            if let Some(path) = &self.svg {
                super::graph::draw_to(context, &kernel, path).await?;
            }
            gather(context, &kernel).await?
        } else {
            note(&store::Error::others_up(&context.instance).into_iter().collect::<Vec<_>>());
            output::Status::not_up(context.instance.name())
        };
        match context.format {
            Format::Json => output::print_json(&mut context.out(), &status)?,
            Format::Table => {
                let mut text = Vec::new();
                status.print(&mut text, context.now)?;
                context.print_text(&String::from_utf8_lossy(&text))?;
            }
        }
        Ok(())
    }
}

async fn gather(context: &Context, kernel: &Kernel) -> anyhow::Result<output::Status> {
    let record = context.record()?;
    // What is asked here is not the router's, whose namespace is gone.
    let lost = match manage::check_namespace(&context.instance, kernel, Some(&record.settings)) {
        Err(manage::Error::HomeGone { .. }) if context.lost_home.is_some() => &context.lost_home,
        checked => checked.map(|()| &None)?,
    };
    let is_there = lost.is_none();
    let mut problems: Vec<String> = lost.iter().map(|lost| lost.text.clone()).collect();
    let examination = if is_there {
        manage::examine(&context.instance, kernel, &record.transaction, &record.settings).await?
    } else {
        Examination::default()
    };
    problems.extend(examination.differences.iter().map(ToString::to_string));
    let endpoints = manage::named(&record.transaction.endpoints()?);
    let stats = kernel.flow_stats(&endpoints, manage::room(&record.settings))?;
    let reachable =
        if is_there { reachable(kernel, &record.transaction, &record.settings).await? } else { Vec::new() };
    let router = match &record.settings.router {
        Some(router) => {
            let outside = if is_there { kernel.outside().await? } else { None };
            let standing = Standing::of(router, is_there.then_some(true), outside.as_deref());
            let state = if is_there { standing } else { Standing::NamespaceGone }.word();
            let name = context.instance.name();
            Some(output::Router::new(name, router, record.settings.created, state))
        }
        None => None,
    };
    let warnings = if is_there {
        manage::missing_addresses(&record.transaction, &kernel.addressed(&[]).await?)?
    } else {
        Vec::new()
    };
    Ok(output::Status {
        up: true,
        created: Some(record.settings.created),
        uplinks: record.settings.uplinks.iter().map(ToString::to_string).collect(),
        router,
        networks: super::network::listed(&record.transaction)?,
        endpoints: record.transaction.count_endpoints()?,
        portmaps: record.transaction.count_port_maps()?,
        floating: record.transaction.count_floatings()?,
        flows: stats.flows(),
        filling: stats.warnings(),
        floating_addresses: record.transaction.floatings()?.iter().map(output::Floating::from).collect(),
        programs: examination.present.iter().filter_map(Program::of).collect(),
        problems,
        reachable,
        settings: Some(output::Settings::from(&record.settings)),
        warnings,
        ..output::Status::not_up(context.instance.name())
    })
}

/// From where each mapping is reached. A firewall that cannot be read is one more thing that is undecided.
async fn reachable(
    kernel: &Kernel,
    transaction: &Transaction,
    settings: &Settings,
) -> anyhow::Result<Vec<output::Reachable>> {
    let (mappings, networks) = (transaction.port_maps()?, transaction.networks()?);
    if mappings.is_empty() {
        return Ok(Vec::new());
    }
    let uplinks: Vec<&str> = settings.uplinks.iter().map(InterfaceName::as_str).collect();
    let interfaces = kernel.addressed(&uplinks).await?;
    let interfaces = manage::without_floating(interfaces, &transaction.floatings()?);
    let netfilter = kernel.netfilter().unwrap_or_else(|error| Netfilter {
        unread: vec![format!("rules that could not be read: {:#}", anyhow::Error::from(error))],
        ..Netfilter::default()
    });
    let shown = |mapping: &PortMap| {
        let by_host = output::Reachable::by_host(mapping);
        let reach = manage::reach(&netfilter, &interfaces, settings, &networks, mapping);
        let Some(verdict) = reach.firewall else { return by_host };
        let uplink = |uplink: UplinkReach| output::Uplink {
            interface: uplink.interface.to_string(),
            addresses: uplink.addresses,
        };
        output::Reachable {
            from: "world",
            uplinks: reach.uplinks.into_iter().map(uplink).collect(),
            networks: reach.networks.iter().map(ToString::to_string).collect(),
            firewall: Some(output::Firewall::new(&verdict, settings.firewall == Firewall::Respect)),
            ..by_host
        }
    };
    Ok(mappings.iter().map(shown).collect())
}
