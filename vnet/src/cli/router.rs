//! `vnet router`.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use ipnet::IpNet;
use vnet_common::Mac;

use super::context::{Context, DryRun, note};
use super::instance::list;
use crate::instance::{BadInstanceName, Instance};
use crate::kernel::{Interface, Kernel};
use crate::manage::{self, Downed, Manager, Mode, Recorded, RouterRequest, Standing, UpRequest};
use crate::output::{self, Format};
use crate::spec::{self, InterfaceName, Subnet};
use crate::store::Store;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Create(Create),
    /// List the routers of this host.
    Ls,
    /// Show one router.
    Inspect {
        /// Its name.
        #[arg(value_parser = named)]
        name: Instance,
    },
    /// Remove a router with everything in it: its instance, its namespace, its link to the outside. One that is not there
    /// is removed already.
    Rm {
        /// Its name.
        #[arg(value_parser = named)]
        name: Instance,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

/// Create a router: a network namespace with a link to a bridge of this host, and an instance of vnet in it whose uplink
/// that link is.
///
/// The instance has the router's name: `vnet --instance NAME ...` works on it from here. The bridge stays as it is. Floating
/// addresses in the prefixes of the router's own are given to its link by themselves.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet router create r1 --outside br-out --address 16.158.1.100/24 --gateway 16.158.1.1 --subnet 192.168.1.0/24
  vnet --instance r1 ns create web --ip 192.168.1.3
  vnet --instance r1 floating add 16.158.1.103 192.168.1.3
  vnet router rm r1")]
pub(super) struct Create {
    /// Its name, its namespace's and its instance's.
    #[arg(value_parser = named)]
    name: Instance,
    /// The bridge outside: one of this host, and none of vnet's own.
    #[arg(long, value_name = "BRIDGE")]
    outside: InterfaceName,
    /// An address outside, with the length of its prefix; one of each family or more.
    #[arg(long = "address", value_name = "ADDR/LEN", required = true)]
    addresses: Vec<IpNet>,
    /// Where what leaves goes, one for each family [default: nowhere beyond the prefixes of its addresses].
    #[arg(long = "gateway", value_name = "IP")]
    gateways: Vec<IpAddr>,
    /// Hardware address outside [default: made from the name].
    #[arg(long, value_name = "M", value_parser = spec::parse_mac)]
    mac: Option<Mac>,
    /// A prefix of the network inside, one for each family [default: 192.168.0.0/24 and a local IPv6 prefix].
    #[arg(long = "subnet", value_name = "CIDR")]
    subnets: Vec<Subnet>,
    /// Bridge of the network inside [default: vnet0].
    #[arg(long, value_name = "IF")]
    bridge: Option<InterfaceName>,
    #[command(flatten)]
    dry_run: DryRun,
}

fn named(name: &str) -> Result<Instance, BadInstanceName> {
    Instance::new(name)
}

impl Command {
    /// The instance that it is about, if it is about one.
    pub(super) fn instance(&self) -> Option<&Instance> {
        match self {
            Self::Create(Create { name, .. }) | Self::Rm { name, .. } => Some(name),
            // What is recorded is read from outside.
            Self::Ls | Self::Inspect { .. } => None,
        }
    }

    /// Whether it makes a router.
    pub(super) fn makes(&self) -> bool {
        matches!(self, Self::Create(_))
    }

    /// What is to be known before the router is entered, and its instance locked.
    pub(super) fn check(&self, context: &Context) -> anyhow::Result<()> {
        if let Self::Create(command) = self {
            manage::check_outside_of(&context.instance, &command.request(), Kernel::here()?)?;
        }
        Ok(())
    }

    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Create(command) => command.run(context).await,
            Self::Ls => {
                let (routers, unread) = manage::routers(&context.instance, Kernel::here()?)?;
                note(&unread);
                let outside = outside(context).await;
                let shown = |recorded| shown(recorded, standing(recorded, outside.as_deref()));
                context.print_list(&routers.iter().map(shown).collect::<Vec<_>>())
            }
            Self::Inspect { name } => inspect(context, name).await,
            Self::Rm { dry_run, .. } => remove(context, dry_run.mode()).await,
        }
    }
}

fn shown(recorded: &Recorded, standing: Standing) -> output::Router {
    output::Router::new(
        recorded.instance.name(),
        &recorded.router,
        recorded.settings.created,
        standing.word(),
    )
}

/// The interfaces of the host; nothing where one may not look at them.
async fn outside(context: &Context) -> Option<Vec<Interface>> {
    context.kernel().await.ok()?.interfaces().await.ok()
}

fn standing(recorded: &Recorded, outside: Option<&[Interface]>) -> Standing {
    let Recorded { instance, settings, router } = recorded;
    let has_home = Kernel::has_home(instance.name(), settings.namespace).ok();
    Standing::of(router, has_home, outside)
}

impl Create {
    fn request(&self) -> RouterRequest {
        let Self { outside, addresses, gateways, mac, .. } = self;
        RouterRequest {
            bridge: outside.clone(),
            addresses: addresses.clone(),
            gateways: gateways.clone(),
            mac: *mac,
        }
    }

    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mode = self.dry_run.mode();
        let router = self.request();
        let Self { subnets, bridge, .. } = self;
        let manager = Manager::create(&context.instance, context.kernel().await?, mode, context.now)?;
        let request = UpRequest { subnets, bridge, router: Some(router), ..UpRequest::default() };
        let done = manager.up(&request).await?;
        let settings = &done.value.settings;
        let router =
            settings.router.clone().unwrap_or_else(|| unreachable!("a router that is up is recorded"));
        let made =
            output::Router::new(context.instance.name(), &router, settings.created, Standing::Up.word());
        let network = &done.value.network;
        let line = format!(
            "router {}: {} on {}; network {}, {}, on {}",
            context.instance.name(),
            list(&router.addresses),
            router.bridge,
            network.name,
            list(&network.segments.subnets().collect::<Vec<_>>()),
            network.bridge
        );
        context.print_made(mode, &done, made, &line)
    }
}

async fn inspect(context: &Context, name: Instance) -> anyhow::Result<()> {
    let instance = name.waiting(context.instance.wait());
    let Some(recorded) = manage::recorded_router(&instance)? else {
        let (routers, _) = manage::routers(&instance, Kernel::here()?)?;
        let names: Vec<&str> = routers.iter().map(|router| router.instance.name()).collect();
        let names = if names.is_empty() { "none yet".to_owned() } else { names.join(", ") };
        anyhow::bail!("there is no router {}; there is {names}", instance.name());
    };
    // It may be anywhere: of a bridge on another host nothing is known.
    let is_here = recorded.router.host == Kernel::here()?;
    let outside = if is_here { outside(context).await } else { None };
    let bridge = outside.iter().flatten().find(|interface| interface.name == recorded.router.bridge.as_str());
    let store = Store::open(&instance)?;
    let transaction = store.begin()?;
    let router = output::InspectedRouter {
        outside_mtu: bridge.map(|bridge| bridge.mtu),
        networks: super::network::listed(&transaction)?,
        endpoints: transaction.count_endpoints()?,
        floating_addresses: transaction.floatings()?.iter().map(output::Floating::from).collect(),
        published: transaction.port_maps()?.iter().map(output::PortMap::from).collect(),
        router: shown(&recorded, standing(&recorded, outside.as_deref())),
    };
    match context.format {
        Format::Json => context.print_list(&[router]),
        Format::Table => Ok(router.print(&mut context.out())?),
    }
}

async fn remove(context: &Context, mode: Mode) -> anyhow::Result<()> {
    let instance = &context.instance;
    if Store::exists(instance)? {
        // One that was killed before it was recorded has no settings, and is no other instance either.
        let store = Store::open(instance)?;
        let settings = store.begin()?.settings()?;
        if settings.is_some_and(|settings| settings.router.is_none()) {
            let name = instance.name();
            anyhow::bail!("instance {name} is no router: `vnet --instance {name} down` takes it down");
        }
    }
    let done = manage::down(instance, &context.kernel().await?, mode).await?;
    let name = instance.name();
    let line = match done.value {
        Downed::Instance => format!("router {name} removed"),
        Downed::Leftovers => {
            format!("router {name} was not up; maps and programs without a record are removed")
        }
        Downed::Nothing => format!("no router {name}: nothing to remove"),
    };
    context.print_removed(mode, &done, &line)
}
