//! `vnet flow`.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;
use tokio::time::{MissedTickBehavior, interval};
use vnet_common::{CtState, DatapathConfig, Event, Proto};

use super::context::{Context, DryRun, Record, follow, note, places};
use super::namespace::existing;
use crate::flow::{self, Filter, Flow, OfMapping, Told, Watch};
use crate::kernel::Kernel;
use crate::manage::{self, Mode};
use crate::output::{self, FlowEvent, FlowStats, Names};
use crate::spec::Name;

/// How often a watcher looks at the flow tables.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Ls(List),
    Watch(WatchFlows),
    Flush(Flush),
    /// Show what flows use: tables, endpoints' limits, external ports; and how long that will do.
    ///
    /// Counted are flows that have not run out of time; the others (OVER) make room as soon as that is needed. The
    /// forecast takes it that flows go on beginning as in the last minute, and are kept as long as those that are
    /// there (their age and the time they have left). An external port is in use once for all its TCP flows: the same
    /// port can serve flows to different destinations, so that running out of ports is not the end for TCP.
    ///
    /// There is a warning for whatever is in use to 80 % or more.
    Stats,
}

/// List the tracked flows: each as its opener sends it, and what it becomes.
///
/// A flow is confirmed once both sides have shown that they hear each other; until then it may have to make room for
/// others. FROM and TO are NETWORK/ENDPOINT, or the world. LEFT is the time after which it is over if no packet comes.
/// If only one of its two entries is there, that is said, and what the other one would have counted is 0.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet flow ls --endpoint web --proto tcp --state established
  vnet flow ls --mapping 8088 --sort bytes --limit 10       who uses a published port most
  vnet flow ls --address 198.51.100.0/24 --port 53
  vnet flow ls --unconfirmed --sort age                     what waits for an answer")]
pub(super) struct List {
    #[command(flatten)]
    filter: FilterArgs,
    /// List flows as well that have run out of time and are there only because nobody has met them since.
    #[arg(long)]
    all: bool,
    /// Put the oldest, the longest idle, or those with the most bytes first [default: by protocol and opener].
    #[arg(long, value_name = "BY")]
    sort: Option<SortBy>,
    /// List the first N only.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// Print flows as they begin, change and end, until interrupted.
///
/// A flow that begins is told at once. Everything else is found by looking at the flow tables once a second: that both
/// sides hear each other (confirmed), another state (changed), and the end. So it is told up to a second late, and of
/// several changes within a second only the last one is seen. The filters apply to the flow as it is when something is
/// told of it: with --state established, that it began is not told.
///
/// Ends with Ctrl-C, SIGTERM, or when nobody reads the output any more, and then reports success.
#[derive(Debug, Args)]
pub(super) struct WatchFlows {
    #[command(flatten)]
    filter: FilterArgs,
}

/// Forget flows: all, or those that are asked for.
///
/// Those that are translated break, unless their next packet begins the same one anew; the others go on as new ones.
/// An external port that only forgotten flows of a UDP socket had is given up as well, so that nobody can begin
/// them anew from outside.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet flow flush --dry-run
  vnet flow flush --endpoint web --address 198.51.100.7
  vnet flow flush --mapping 8088")]
pub(super) struct Flush {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Which flows; all that is given must hold.
#[derive(Debug, Args)]
struct FilterArgs {
    /// Opened by this endpoint, or leading to it.
    #[arg(long, value_name = "NAME")]
    endpoint: Option<Name>,
    /// Of this protocol.
    #[arg(long, value_name = "P")]
    proto: Option<ProtoArg>,
    /// In this state, or one of several with commas between.
    #[arg(long = "state", value_name = "S", value_delimiter = ',', value_parser = state_parser())]
    states: Vec<CtState>,
    /// With this port at either end, before or after translation; of a ping, with this identifier.
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// With an address of this prefix at either end, before or after translation.
    #[arg(long, value_name = "A[/LEN]", value_parser = prefix)]
    address: Option<IpNet>,
    /// Opened through this published port, or through any.
    #[arg(long, value_name = "PORT|all", value_parser = of_mapping)]
    mapping: Option<OfMapping>,
    /// Confirmed: both sides have shown that they hear each other.
    #[arg(long, conflicts_with = "unconfirmed")]
    confirmed: bool,
    /// Not confirmed.
    #[arg(long)]
    unconfirmed: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ProtoArg {
    Tcp,
    Udp,
    Sctp,
    Icmp,
    Icmpv6,
}

impl From<ProtoArg> for Proto {
    fn from(proto: ProtoArg) -> Self {
        match proto {
            ProtoArg::Tcp => Self::TCP,
            ProtoArg::Udp => Self::UDP,
            ProtoArg::Sctp => Self::SCTP,
            ProtoArg::Icmp => Self::ICMP,
            ProtoArg::Icmpv6 => Self::ICMPV6,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SortBy {
    Age,
    Idle,
    Bytes,
}

fn state_parser() -> impl clap::builder::TypedValueParser<Value = CtState> {
    let named = |name: String| CtState::ALL.into_iter().find(|state| state.name() == name);
    PossibleValuesParser::new(CtState::ALL.map(CtState::name))
        .try_map(move |name| named(name).ok_or("it is none of the states"))
}

fn prefix(text: &str) -> Result<IpNet, &'static str> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(address).ok_or("expected an address or a prefix: 192.0.2.7, 2001:db8::/32")
}

fn of_mapping(text: &str) -> Result<OfMapping, &'static str> {
    match text {
        "all" => Ok(OfMapping::Any),
        port => port.parse().map(OfMapping::Port).map_err(|_| "expected a published port, or `all`"),
    }
}

impl FilterArgs {
    fn filter(self, record: &Record) -> anyhow::Result<Filter> {
        let Self { endpoint, proto, states, port, address, mapping, confirmed, unconfirmed } = self;
        let endpoint = endpoint.map(|name| existing(record, &name)).transpose()?;
        Ok(Filter {
            endpoint: endpoint.map(|endpoint| places(&endpoint).collect()),
            proto: proto.map(Proto::from),
            states,
            port,
            address,
            mapping,
            confirmed: (confirmed || unconfirmed).then_some(confirmed),
        })
    }
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Ls(command) => command.run(context).await,
            Self::Watch(command) => command.run(context).await,
            Self::Flush(command) => command.run(context).await,
            Self::Stats => stats(context).await,
        }
    }
}

impl List {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let record = context.record()?;
        let (names, filter) = (record.names()?, self.filter.filter(&record)?);
        drop(record);
        let kernel = context.kernel_to_read().await?;
        let config = config(&kernel)?;
        let now = Kernel::now();
        let mut flows = flow::pair(&kernel.flow_tables()?);
        flows.retain(|flow| filter.selects(flow) && (self.all || !flow.is_over(&config, now)));
        sort(&mut flows, self.sort);
        let found = flows.len();
        flows.truncate(self.limit.unwrap_or(found));
        let listed: Vec<_> = flows.iter().map(|flow| output::Flow::new(flow, &names, &config, now)).collect();
        context.print_list(&listed)?;
        if listed.len() < found {
            note(&[format!("{} of {found} flows are listed", listed.len())]);
        }
        Ok(())
    }
}

fn sort(flows: &mut [Flow], by: Option<SortBy>) {
    let rank = |flow: &Flow| match by {
        None => 0,
        Some(SortBy::Age) => u64::from(flow.created),
        Some(SortBy::Idle) => u64::from(flow.last_seen),
        Some(SortBy::Bytes) => u64::MAX - flow.sent.bytes.saturating_add(flow.received.bytes),
    };
    flows.sort_by_key(|flow| (rank(flow), flow.original.proto, flow.original));
}

/// How long flows are kept. Without a data path there are none.
fn config(kernel: &Kernel) -> anyhow::Result<DatapathConfig> {
    Ok(kernel.datapath_config()?.unwrap_or(DatapathConfig::DEFAULT))
}

impl WatchFlows {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let record = context.record()?;
        let (names, filter) = (record.names()?, self.filter.filter(&record)?);
        drop(record);
        let kernel = context.kernel_to_read().await?;
        let watching = RefCell::new(Watching::begin(context, &kernel, names, filter)?);
        let looks = async {
            let mut ticks = interval(LOOK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            while watching.borrow_mut().look()? {
                ticks.tick().await;
            }
            note(&[format!("instance {} is not up any more", context.instance.name())]);
            Ok(())
        };
        tokio::select! {
            ended = follow(context, &kernel, |event| watching.borrow_mut().hear(event).map(|()| true)) => ended,
            ended = looks => ended,
        }
    }
}

/// A watcher of flows, and what it knows of them.
struct Watching<'a> {
    context: &'a Context,
    kernel: &'a Kernel,
    filter: Filter,
    names: Names,
    /// When these were read, in seconds since boot.
    named: u32,
    watch: Watch,
}

impl<'a> Watching<'a> {
    fn begin(context: &'a Context, kernel: &'a Kernel, names: Names, filter: Filter) -> anyhow::Result<Self> {
        let (config, now) = (config(kernel)?, Kernel::now());
        let watch = Watch::new(flow::pair(&kernel.flow_tables()?), &config, now);
        Ok(Self { context, kernel, filter, names, named: now, watch })
    }

    /// Takes an event of the data path.
    fn hear(&mut self, event: &Event) -> anyhow::Result<()> {
        if event.drop_reason().is_some() {
            return Ok(());
        }
        let halves = flow::pair(&self.kernel.flow(&event.tuple)?);
        let flow = halves.into_iter().find(|flow| flow.original == event.tuple);
        let told = self.watch.began(flow.unwrap_or_else(|| Flow::begun(event)));
        self.tell(told)
    }

    /// Looks what has become of the flows; `false` if there is no data path any more.
    fn look(&mut self) -> anyhow::Result<bool> {
        let config = self.kernel.datapath_config()?;
        let now = Kernel::now();
        let flows = flow::pair(&self.kernel.flow_tables()?);
        let told = self.watch.look(flows, &config.unwrap_or(DatapathConfig::DEFAULT), now);
        self.tell(told)?;
        Ok(config.is_some())
    }

    fn tell(&mut self, mut told: Vec<Told>) -> anyhow::Result<()> {
        told.retain(|(_, flow)| self.filter.selects(flow));
        if told.is_empty() {
            return Ok(());
        }
        self.name_anew();
        let config = config(self.kernel)?;
        for (news, flow) in told {
            let flow = output::Flow::new(&flow, &self.names, &config, Kernel::now());
            self.context.print_event(&FlowEvent::new(news, flow))?;
        }
        Ok(())
    }

    /// Endpoints come and go while somebody watches. Without a record the names stay what they were.
    fn name_anew(&mut self) {
        let now = Kernel::now();
        if now == self.named {
            return;
        }
        self.named = now;
        if let Ok(names) = self.context.record().and_then(|record| Ok(record.names()?)) {
            self.names = names;
        }
    }
}

impl Flush {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mode = self.dry_run.mode();
        let filter = self.filter.filter(&context.record()?)?;
        let count = context.manager(mode).await?.flush_flows(&filter)?;
        let flows = if count == 1 { "flow" } else { "flows" };
        match (mode, context.format) {
            (Mode::Apply, output::Format::Table) => context.print_line(&format!("{count} {flows} forgotten")),
            _ => {
                let ops = [format!("forget {count} {flows}")];
                Ok(output::print_ops(&mut context.out(), context.format, &ops)?)
            }
        }
    }
}

async fn stats(context: &Context) -> anyhow::Result<()> {
    let record = context.record()?;
    let endpoints = record.transaction.endpoints()?;
    let kernel = context.kernel_to_read().await?;
    let stats = kernel.flow_stats(&manage::named(&endpoints), manage::room(&record.settings))?;
    Ok(FlowStats::from(&stats).print(&mut context.out(), context.format)?)
}
