//! `vnet ns`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use vnet_common::Mac;

use super::context::{Context, DryRun, Record};
use crate::kernel::{self, Kernel};
use crate::manage::{self, EndpointRequest, LimitChange, Mode, Place, RemovedEndpoint, check_namespace};
use crate::output::{self, Format};
use crate::plan::expand;
use crate::run;
use crate::runtime::{self, Runtime};
use crate::spec::{
    self, Endpoint, ExtraRoute, Floating, InterfaceName, LinkMode, Name, Namespace, PortMap, TargetHost,
};
use crate::store::Store;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Create(Create),
    Attach(Attach),
    /// List the endpoints.
    Ls,
    /// Show one endpoint.
    Inspect {
        /// Its name.
        name: Name,
    },
    /// Remove an endpoint, its namespace unless it was attached, the ports published for it and its floating
    /// addresses. One that is not there is removed already.
    Rm {
        /// Its name.
        name: Name,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Run a command in an endpoint's namespace.
    Exec {
        /// The endpoint.
        name: Name,
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
}

/// Create an endpoint: a network namespace, seen by `ip netns` too, with a link to a network.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet ns create net1
  vnet ns create web --network blue --ip 10.1.0.80
  vnet ns create lonely --mode none
  vnet ns create sidecar --mode container:web")]
pub(super) struct Create {
    /// Its name, and its namespace's.
    name: Name,
    #[command(flatten)]
    place: PlaceArgs,
    /// Where it lives, and how it is linked.
    ///
    /// bridge: in a namespace of its own, linked to the bridge of its network.
    /// none: in a namespace of its own, with a loopback interface and nothing else.
    /// host: in the host's namespace, where nothing is made for it.
    /// container:NAME: in the namespace of another endpoint, which stays as long; as a target it means that one.
    #[arg(long, default_value_t, verbatim_doc_comment)]
    mode: LinkMode,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Attach a namespace that is there: a container's or a process's. It stays when the endpoint is removed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet ns attach web --container web             a running container of Docker, Podman or containerd
  vnet ns attach web --pid 4711
  vnet ns attach web --netns /run/netns/web --network blue")]
pub(super) struct Attach {
    /// Name of the endpoint.
    name: Name,
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// Whose container it is [default: of whichever runtime knows it].
    #[arg(long, value_name = "R", requires = "container", value_parser = runtime_parser())]
    runtime: Option<Runtime>,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct NamespaceArgs {
    /// The namespace of this process.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
    /// The namespace at this path.
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// The namespace of this running container: a name or identifier of Docker's or Podman's, an identifier of
    /// containerd's.
    #[arg(long, value_name = "CONTAINER")]
    container: Option<String>,
}

fn runtime_parser() -> impl TypedValueParser<Value = Runtime> {
    PossibleValuesParser::new(Runtime::WORDS.map(|(word, _)| word)).map(|word| {
        let named = Runtime::WORDS.iter().find(|(known, _)| *known == word);
        named.map_or(Runtime::Docker, |(_, runtime)| *runtime)
    })
}

impl NamespaceArgs {
    /// Where the namespace can be opened.
    async fn path(self, runtime: Option<Runtime>) -> anyhow::Result<PathBuf> {
        let path = match self {
            Self { container: Some(name), .. } => {
                runtime::Places::of_environment()?.find(&name, runtime).await?.namespace
            }
            Self { pid: Some(pid), .. } => runtime::of_process(pid),
            Self { netns, .. } => netns.unwrap_or_default(),
        };
        Ok(std::path::absolute(path)?)
    }
}

#[derive(Debug, Args)]
struct PlaceArgs {
    /// The network [default: default].
    #[arg(long, value_name = "N")]
    network: Option<Name>,
    #[command(flatten)]
    link: LinkArgs,
}

/// What can be chosen of a link.
#[derive(Debug, Args)]
pub(super) struct LinkArgs {
    /// An address, one for each family [default: the lowest that is free].
    #[arg(long = "ip", value_name = "A")]
    addresses: Vec<IpAddr>,
    /// Hardware address [default: made from the name].
    #[arg(long, value_name = "M", value_parser = spec::parse_mac)]
    mac: Option<Mac>,
    /// Name of the interface in the namespace [default: eth0, or the first of eth1, eth2, … that is free].
    #[arg(long, value_name = "IF")]
    ifname: Option<InterfaceName>,
    /// A route in the namespace, by the network's gateway unless VIA is named.
    #[arg(long = "route", value_name = "CIDR[=VIA]")]
    routes: Vec<ExtraRoute>,
}

impl LinkArgs {
    fn is_empty(&self) -> bool {
        let Self { addresses, mac, ifname, routes } = self;
        addresses.is_empty() && mac.is_none() && ifname.is_none() && routes.is_empty()
    }

    pub(super) fn place(self, network: Name) -> Place {
        let Self { addresses, mac, ifname, routes } = self;
        Place { network, addresses, mac, ifname, routes }
    }
}

impl PlaceArgs {
    fn is_empty(&self) -> bool {
        self.network.is_none() && self.link.is_empty()
    }

    fn place(self) -> Place {
        self.link.place(self.network.unwrap_or_else(Name::default_network))
    }
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Create(command) => command.run(context).await,
            Self::Attach(command) => command.run(context).await,
            Self::Ls => {
                let record = context.record()?;
                let mut directs: HashMap<Name, Vec<spec::DirectLink>> = HashMap::new();
                for link in record.transaction.directs()? {
                    for end in &link.ends {
                        directs.entry(end.endpoint.clone()).or_default().push(link.clone());
                    }
                }
                let endpoints = record.transaction.endpoints()?;
                let listed = endpoints.iter().map(|endpoint| {
                    let directs = directs.get(&endpoint.name).map(Vec::as_slice).unwrap_or_default();
                    output::Endpoint::new(endpoint, context.now).with_direct(directs)
                });
                context.print_list(&listed.collect::<Vec<_>>())
            }
            Self::Inspect { name } => inspect(context, &name),
            Self::Rm { name, dry_run } => remove(context, &name, dry_run).await,
            Self::Exec { name, command } => exec(context, &name, command).await,
        }
    }
}

impl Create {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mode = self.mode;
        if mode != LinkMode::Bridge && !self.place.is_empty() {
            let message = format!("--mode {mode} has no network, address, interface or route");
            return Err(super::usage(&message));
        }
        let (namespace, places) = match mode {
            LinkMode::Bridge => (Namespace::Own, vec![self.place.place()]),
            LinkMode::None => (Namespace::Own, Vec::new()),
            LinkMode::Host => (Namespace::Host, Vec::new()),
            LinkMode::Container(with) => (Namespace::Shared { with, path: PathBuf::new() }, Vec::new()),
        };
        let request = EndpointRequest { name: self.name, namespace, places, limits: LimitChange::default() };
        make(context, &request, self.dry_run).await
    }
}

impl Attach {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let path = self.namespace.path(self.runtime).await?;
        let request = EndpointRequest {
            name: self.name,
            namespace: Namespace::Foreign { path },
            places: vec![self.place.place()],
            limits: LimitChange::default(),
        };
        make(context, &request, self.dry_run).await
    }
}

async fn make(context: &Context, request: &EndpointRequest, dry_run: DryRun) -> anyhow::Result<()> {
    let mode = dry_run.mode();
    let is_recorded = mode == Mode::DryRun
        && Store::exists(&context.instance)?
        && context.record()?.transaction.endpoint(&request.name)?.is_some();
    let done = context.manager(mode).await?.create_endpoint(request).await?;
    let endpoint = output::Endpoint::new(&done.value, context.now);
    let line = line(&endpoint);
    // Of an endpoint in another's namespace there is nothing but the record, so that steps say nothing of it.
    let in_others = matches!(done.value.namespace, Namespace::Host | Namespace::Shared { .. });
    match (in_others, mode) {
        (true, Mode::DryRun) if !is_recorded => {
            return context.print_steps(&[format!("record {line}")]);
        }
        (true, Mode::Apply) if context.format == Format::Table => return context.print_line(&line),
        _ => {}
    }
    context.print_made(mode, &done, endpoint, &line)
}

/// An endpoint and its addresses.
pub(super) fn line(endpoint: &output::Endpoint) -> String {
    let addresses: Vec<String> = endpoint.addresses.iter().map(ToString::to_string).collect();
    let addresses = match &addresses[..] {
        [] if endpoint.mode.contains(':') => format!("in the namespace of {}", endpoint.mode),
        [] if endpoint.mode == LinkMode::Host.to_string() => "in the host's namespace".to_owned(),
        [] => "no address".to_owned(),
        some => some.join(" "),
    };
    format!("endpoint {}: {addresses}", endpoint.name)
}

/// What has gone with something, after a comma; nothing if nothing has.
pub(super) fn and_with_it(mappings: &[PortMap], floating: &[Floating]) -> String {
    let published = mappings.iter().map(|it| format!("published {}/{}", it.published, it.protocol));
    let floating = floating.iter().map(|it| format!("floating {}", it.external));
    let with_it: Vec<String> = published.chain(floating).collect();
    if with_it.is_empty() { String::new() } else { format!(", and with it its {}", with_it.join(", ")) }
}

async fn remove(context: &Context, name: &Name, dry_run: DryRun) -> anyhow::Result<()> {
    let manager = context.manager(dry_run.mode()).await?;
    let done = manager.remove_endpoint(name).await?;
    if dry_run.mode() == Mode::Apply {
        // While this command has the instance.
        run::forget_resolver_of(&context.instance, name.as_str());
    }
    let line = match &done.value {
        None => format!("no endpoint {name}: nothing to remove"),
        Some(RemovedEndpoint { mappings, floating, directs, .. }) => {
            let directs = directs.iter().map(|link| format!("; direct link {link} removed"));
            let directs: String = directs.collect();
            format!("endpoint {name} removed{}{directs}", and_with_it(mappings, floating))
        }
    };
    if dry_run.mode() == Mode::DryRun && done.value.is_some() && done.ops.is_empty() {
        return context.print_steps(&[format!("forget endpoint {name}, of which nothing else is there")]);
    }
    context.print_removed(dry_run.mode(), &done, &line)
}

/// The endpoint of that name, which must be there.
pub(super) fn existing(record: &Record, name: &Name) -> anyhow::Result<Endpoint> {
    match record.transaction.endpoint(name)? {
        Some(endpoint) => Ok(endpoint),
        None => {
            let asked = TargetHost::Name(name.clone());
            Err(manage::no_such_endpoint(asked, &record.transaction.endpoints()?).into())
        }
    }
}

fn inspect(context: &Context, name: &Name) -> anyhow::Result<()> {
    let record = context.record()?;
    let recorded = existing(&record, name)?;
    let directs = record.transaction.directs_of(name)?;
    let endpoint = output::Endpoint::new(&recorded, context.now).with_direct(&directs);
    match context.format {
        Format::Json => context.print_list(&[endpoint]),
        Format::Table => {
            output::print_details(&mut context.out(), &endpoint)?;
            for link in endpoint.links.iter().filter(|_| endpoint.links.len() > 1) {
                context.print_line(&format!("link          {link}"))?;
            }
            let mappings = record.transaction.port_maps_of(name)?;
            mappings
                .iter()
                .try_for_each(|mapping| context.print_line(&format!("published     {mapping}")))?;
            for link in &directs {
                let described = output::DirectLink::from(link).described();
                context.print_line(&format!("direct link   {link}: {described}"))?;
            }
            if !recorded.limits.is_empty() {
                context.print_line(&format!("limited       {}", recorded.limits))?;
            }
            for addr in &endpoint.addresses {
                if let Some(floating) = record.transaction.floating_of(*addr)? {
                    context.print_line(&format!("floating      {} to {addr}", floating.external))?;
                }
            }
            Ok(())
        }
    }
}

async fn exec(context: &Context, name: &Name, argv: Vec<OsString>) -> anyhow::Result<()> {
    let record = context.record()?;
    let endpoint = existing(&record, name)?;
    if endpoint.namespace == Namespace::Host {
        // Which is this process's own, unless it is somewhere else.
        check_namespace(&context.instance, &context.kernel().await?, Some(&record.settings))?;
    }
    let namespace = expand::namespace_path(&endpoint);
    // The command may run for days: nobody waits for it.
    drop(record);
    Err(Kernel::exec(&kernel::Command { namespace, argv }).into())
}
