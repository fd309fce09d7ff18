//! `vnet top`.

use std::collections::HashMap;
use std::fs;
use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Sender, channel};
use vnet_common::{Addr, DatapathConfig, DropReason, Hook, Zone};

use super::context::{Context, interface_names, interrupted, places};
use super::graph::interval;
use super::usage;
use crate::flow::{self, Traffic};
use crate::kernel::{InterfaceTraffic, Kernel};
use crate::output::{Format, Names};
use crate::top::{self, App, Counts, Dropped, EndpointCounts, Event, Mapping, Tab};

/// Rows of each table that are printed for people.
const ROWS: usize = 20;
/// How many events may wait to be drawn.
const WAITING: usize = 16;

/// Show what goes on: endpoints, published ports, flows and drops, with rates, on the terminal until `q`.
///
/// Of an endpoint is shown what its own end of the link has counted, with link headers; of a published port what the flows
/// have counted that it has opened, from the network header on. Nothing is counted for this that is not counted anyway.
/// Without a terminal it prints tables.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet top
  vnet top --show flows --interval 5
  vnet top --once --limit 5                    tables, of each the first five rows
  vnet top -n 60 --interval 1 --json >rates    a line of JSON each second, for a minute

Keys: 1-4 or Tab another table, s and S another column to sort by, r the other way round, / only rows that hold a text,
p pause, h help, q end.")]
pub(super) struct Top {
    /// Print tables once, rates over one interval.
    #[arg(long, conflicts_with = "iterations")]
    once: bool,
    /// Print tables so many times [default: 1 without a terminal, or with --json].
    #[arg(short = 'n', long = "iterations", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    iterations: Option<u64>,
    /// Seconds between two counts.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Which table to begin with; of what is printed, which tables, with commas between [default: all].
    #[arg(long, value_name = "TABLE", value_delimiter = ',')]
    show: Vec<Shown>,
    /// Print the first N rows of each table [default: 20, with --json all].
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shown {
    /// What each endpoint sends and receives.
    Endpoints,
    /// What goes through each published port.
    Mappings,
    /// Each flow.
    Flows,
    /// What is dropped.
    Drops,
}

impl From<Shown> for Tab {
    fn from(shown: Shown) -> Self {
        match shown {
            Shown::Endpoints => Self::Endpoints,
            Shown::Mappings => Self::Mappings,
            Shown::Flows => Self::Flows,
            Shown::Drops => Self::Drops,
        }
    }
}

impl Top {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        // Less than this is not counted by the clock of flows, and keeps the host busy.
        const LEAST: Duration = Duration::from_millis(100);
        if self.interval < LEAST {
            return Err(usage("--interval is 0.1 seconds at least"));
        }
        let on_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
        let printed = self.once || self.iterations.is_some() || context.format == Format::Json;
        // What cannot be counted at all is said before the terminal is taken over.
        let kernel = context.kernel_to_read().await?;
        let mut counting = Counting::begin(context, &kernel)?;
        let first = counting.count().await?;
        if printed || !on_terminal {
            return self.print(context, counting, first).await;
        }
        drop(counting);
        self.show(context).await
    }

    async fn print(
        &self,
        context: &Context,
        mut counting: Counting<'_>,
        mut before: Counts,
    ) -> anyhow::Result<()> {
        let tabs: Vec<Tab> = if self.show.is_empty() {
            Tab::ALL.to_vec()
        } else {
            self.show.iter().map(|it| (*it).into()).collect()
        };
        let limit = self.limit.or((context.format == Format::Table).then_some(ROWS));
        let times = self.iterations.unwrap_or(1);
        for time in 0..times {
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                interrupted = interrupted(true) => return Ok(interrupted?),
            }
            let after = counting.count().await?;
            if time > 0 && context.format == Format::Table {
                context.print_line("")?;
            }
            let mut out = io::BufWriter::new(context.out());
            top::snapshot(Some(&before), &after).print(&mut out, context.format, &tabs, limit)?;
            io::Write::flush(&mut out)?;
            before = after;
        }
        Ok(())
    }

    async fn show(&self, context: &Context) -> anyhow::Result<()> {
        let app = App::new(self.show.first().map_or(Tab::Endpoints, |tab| (*tab).into()));
        let (sender, events) = channel(WAITING);
        // Counting takes a while where there is much to count, and keys are not to wait for that.
        let (counted, counting, interval) = (sender.clone(), context.clone(), self.interval);
        std::thread::Builder::new()
            .name("count".to_owned())
            .spawn(move || count_for_ever(&counting, &counted, interval))
            .context("start a thread that counts")?;
        let mut ends = Vec::new();
        for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
            ends.push(signal(kind)?);
        }
        let ended = sender.clone();
        tokio::spawn(async move {
            let ends = ends.iter_mut().map(|signal| Box::pin(signal.recv()));
            let _ = futures_util::future::select_all(ends).await;
            // Nobody listens when it has ended otherwise.
            let _ = ended.send(Event::End).await;
        });
        top::run(app, sender, events).await.context("show it on the terminal")
    }
}

/// Counts again and again, until nobody wants to know any more.
fn count_for_ever(context: &Context, counted: &Sender<Event>, interval: Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            let kernel = context.kernel_to_read().await?;
            let mut counting = Counting::begin(context, &kernel)?;
            let mut before: Option<Counts> = None;
            let mut next = Instant::now();
            loop {
                let event = match counting.count().await {
                    Ok(after) => {
                        let snapshot = top::snapshot(before.as_ref(), &after);
                        before = Some(after);
                        Ok(snapshot)
                    }
                    // It may come up again.
                    Err(error) => Err(format!("{error:#}")),
                };
                if counted.send(Event::Counted(event)).await.is_err() {
                    return Ok(());
                }
                next = (next + interval).max(Instant::now());
                tokio::time::sleep_until(next.into()).await;
            }
        })
    });
    if let Err(error) = ended {
        let error: anyhow::Error = error;
        let _ = counted.blocking_send(Event::Counted(Err(format!("{error:#}"))));
    }
}

/// What counts, and what is recorded of the instance.
struct Counting<'a> {
    context: &'a Context,
    kernel: &'a Kernel,
    begin: Instant,
    /// When the record was written that was read last.
    written: Option<SystemTime>,
    endpoints: Vec<Recorded>,
    mappings: Arc<Vec<Mapping>>,
    names: Arc<Names>,
}

/// An endpoint.
struct Recorded {
    name: String,
    network: String,
    places: Vec<(Zone, Addr)>,
    /// The host's ends of its links.
    links: Vec<String>,
}

impl Recorded {
    /// What it has sent and received over all its links; nothing if it has none.
    fn traffic(&self, counted: &HashMap<String, InterfaceTraffic>) -> Option<[Traffic; 2]> {
        let links = self.links.iter().filter_map(|link| counted.get(link));
        let sum =
            |a: Traffic, b: Traffic| Traffic { packets: a.packets + b.packets, bytes: a.bytes + b.bytes };
        links.map(|it| [it.sent, it.received]).reduce(|a, b| [sum(a[0], b[0]), sum(a[1], b[1])])
    }
}

impl<'a> Counting<'a> {
    fn begin(context: &'a Context, kernel: &'a Kernel) -> anyhow::Result<Self> {
        let mut counting = Self {
            context,
            kernel,
            begin: Instant::now(),
            written: None,
            endpoints: Vec::new(),
            mappings: Arc::default(),
            names: Arc::default(),
        };
        counting.read()?;
        Ok(counting)
    }

    /// Reads the record, unless it is the one that was read before: of fifty thousand mappings that takes a while, in
    /// which other commands wait.
    fn read(&mut self) -> anyhow::Result<()> {
        let written =
            || fs::metadata(self.context.instance.state_file()).and_then(|file| file.modified()).ok();
        if self.written.is_some() && written() == self.written {
            return Ok(());
        }
        let record = self.context.record()?;
        let recorded = |endpoint: crate::spec::Endpoint| Recorded {
            name: endpoint.name.to_string(),
            network: crate::output::words(endpoint.links.iter().map(|link| &link.network)),
            places: places(&endpoint).collect(),
            links: endpoint.links.iter().map(|link| link.host_interface.to_string()).collect(),
        };
        let endpoints = record.transaction.endpoints()?.into_iter().map(recorded).collect();
        let mapping = |it: crate::spec::PortMap| Mapping {
            id: it.id,
            published: format!("{}/{}", it.published, it.protocol),
            endpoint: it.endpoint.to_string(),
            target: it.target_ports.to_string(),
        };
        let mappings = record.transaction.port_maps()?.into_iter().map(mapping).collect();
        let names = record.names()?;
        drop(record);
        // Opening it may have touched it.
        let written = written();
        self.endpoints = endpoints;
        (self.mappings, self.names, self.written) = (Arc::new(mappings), Arc::new(names), written);
        Ok(())
    }

    async fn count(&mut self) -> anyhow::Result<Counts> {
        self.read()?;
        let links: Vec<&str> = self.endpoints.iter().flat_map(|it| &it.links).map(String::as_str).collect();
        let traffic = self.kernel.traffic_of_endpoints(&links).await?;
        let interfaces = interface_names(self.kernel).await?;
        let drops = self.kernel.drops()?.into_iter().map(|(key, packets)| Dropped {
            interface: interfaces.get(&key.ifindex).cloned().unwrap_or_else(|| format!("if{}", key.ifindex)),
            hook: Hook::from_u8(key.hook).map_or("unknown", Hook::name),
            reason: DropReason::from_u8(key.reason).map_or("unknown", DropReason::name),
            packets,
        });
        let drops = drops.collect();
        let (now, at) = (Kernel::now(), self.begin.elapsed().as_secs_f64());
        let config = self.kernel.datapath_config()?.unwrap_or(DatapathConfig::DEFAULT);
        let mut flows = flow::pair(&self.kernel.flow_tables()?);
        flows.retain(|flow| !flow.is_over(&config, now));
        let endpoint = |endpoint: &Recorded| EndpointCounts {
            name: endpoint.name.clone(),
            network: endpoint.network.clone(),
            places: endpoint.places.clone(),
            traffic: endpoint.traffic(&traffic),
        };
        Ok(Counts {
            at,
            now,
            endpoints: self.endpoints.iter().map(endpoint).collect(),
            mappings: Arc::clone(&self.mappings),
            flows,
            drops,
            names: Arc::clone(&self.names),
        })
    }
}
