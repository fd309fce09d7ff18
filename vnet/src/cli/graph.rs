//! `vnet graph`.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::context::{Context, Record};
use crate::graph::{self, Direct, Endpoint, Floating, Graph, Network, Published, Rates, Uplink};
use crate::kernel::{InterfaceTraffic, Kernel};
use crate::output::{self, Format};
use crate::spec::{self, InterfaceName, Namespace, PortMap};

/// Draw the topology: the world, uplinks, networks, endpoints with addresses, published ports, floating addresses, limits
/// and rates.
///
/// Rates are what the interfaces have counted in an interval: of endpoints at their own end of the link, of uplinks all
/// that goes over them. Bytes have their link headers. With --json it is the same as an object.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet graph -o vnet.svg                       for a browser
  vnet graph --interval 10 -o vnet.svg         rates over ten seconds
  vnet graph --format dot | dot -Tpdf -o vnet.pdf
  vnet graph --format mermaid --interval 0     for a page in Markdown, without rates")]
pub(super) struct Draw {
    /// As what.
    #[arg(long, value_enum, default_value_t)]
    format: As,
    /// Write it to a file [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Seconds over which rates are counted, 0 for none.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum As {
    /// A drawing, for browsers.
    #[default]
    Svg,
    /// A description for Graphviz.
    Dot,
    /// A description for Mermaid.
    Mermaid,
}

/// Seconds, of which there may be parts: 0 to a day.
pub(super) fn interval(text: &str) -> Result<Duration, &'static str> {
    const DAY: f64 = 86_400.0;
    let seconds: Option<f64> = text.parse().ok().filter(|seconds| (0.0..=DAY).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or("write it as seconds, 0 to 86400: 1, 10 or 0.5")
}

impl Draw {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let kernel = context.kernel_to_read().await?;
        let graph = gather(context, &kernel, self.interval).await?;
        if context.format == Format::Json {
            let mut json = Vec::new();
            output::print_json(&mut json, &graph)?;
            return self.write(context, &String::from_utf8_lossy(&json));
        }
        let text = match self.format {
            As::Svg => graph::svg(&graph),
            As::Dot => graph::dot(&graph),
            As::Mermaid => graph::mermaid(&graph),
        };
        self.write(context, &text)
    }

    fn write(&self, context: &Context, text: &str) -> anyhow::Result<()> {
        match &self.output {
            Some(path) => put(path, text),
            None => Ok(context.out().write_all(text.as_bytes())?),
        }
    }
}

/// Draws into a file, for `vnet status`; rates are counted for a second.
pub(super) async fn draw_to(context: &Context, kernel: &Kernel, path: &Path) -> anyhow::Result<()> {
    let graph = gather(context, kernel, Duration::from_secs(1)).await?;
    put(path, &graph::svg(&graph))
}

fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// What is recorded, as far as it is drawn.
struct Recorded {
    uplinks: Vec<InterfaceName>,
    networks: Vec<spec::Network>,
    endpoints: Vec<spec::Endpoint>,
    published: HashMap<String, Vec<PortMap>>,
    floating: Vec<spec::Floating>,
    directs: Vec<spec::DirectLink>,
}

impl Recorded {
    fn read(record: &Record) -> anyhow::Result<Self> {
        let mut published: HashMap<String, Vec<PortMap>> = HashMap::new();
        for mapping in record.transaction.port_maps()? {
            published.entry(mapping.endpoint.to_string()).or_default().push(mapping);
        }
        Ok(Self {
            uplinks: record.settings.uplinks.clone(),
            networks: record.transaction.networks()?,
            endpoints: record.transaction.endpoints()?,
            published,
            floating: record.transaction.floatings()?,
            directs: record.transaction.directs()?,
        })
    }

    /// The host's ends of all links.
    fn links(&self) -> Vec<&str> {
        self.endpoints
            .iter()
            .flat_map(|endpoint| endpoint.links.iter().map(|link| link.host_interface.as_str()))
            .collect()
    }

    fn endpoint(
        &self,
        endpoint: &spec::Endpoint,
        link: Option<&spec::Link>,
        rates: &HashMap<String, Rates>,
    ) -> Endpoint {
        let addresses: Vec<IpAddr> =
            link.map(|link| link.addresses.iter().map(|net| net.addr()).collect()).unwrap_or_default();
        let bits = |limit: Option<spec::Limit>| limit.map(|limit| limit.rate.bits());
        let published = self.published.get(endpoint.name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let here = published.iter().filter(|it| it.targets.iter().any(|target| addresses.contains(target)));
        let floating = self.floating.iter().filter(|floating| addresses.contains(&floating.addr));
        Endpoint {
            name: endpoint.name.to_string(),
            in_host: endpoint.namespace == Namespace::Host,
            shares_with: match &endpoint.namespace {
                Namespace::Shared { with, .. } => Some(with.to_string()),
                _ => None,
            },
            published: here
                .map(|it| Published {
                    host: it.published.to_string(),
                    protocol: it.protocol,
                    target: it.target_ports.to_string(),
                })
                .collect(),
            floating: floating.map(|it| Floating { external: it.external, address: it.addr }).collect(),
            addresses,
            egress_limit: bits(endpoint.limits.egress),
            ingress_limit: bits(endpoint.limits.ingress),
            rates: link.and_then(|link| rates.get(link.host_interface.as_str()).copied()),
            direct: match link.map(|link| &link.network) == endpoint.links.first().map(|link| &link.network) {
                true => self.directs(&endpoint.name),
                false => Vec::new(),
            },
        }
    }

    /// An endpoint's direct links.
    fn directs(&self, name: &spec::Name) -> Vec<Direct> {
        let mut directs = Vec::new();
        for link in &self.directs {
            let [a, b] = &link.ends;
            for (own, other) in [(a, b), (b, a)] {
                if own.endpoint == *name {
                    directs.push(Direct {
                        to: other.endpoint.to_string(),
                        interface: own.ifname.to_string(),
                        addresses: own.addresses.iter().map(|net| net.addr()).collect(),
                    });
                }
            }
        }
        directs
    }
}

/// What interfaces have counted: uplinks and the far ends of links, by the names they have on the host.
async fn count(kernel: &Kernel, recorded: &Recorded) -> anyhow::Result<HashMap<String, InterfaceTraffic>> {
    let uplinks: Vec<&str> = recorded.uplinks.iter().map(InterfaceName::as_str).collect();
    let mut traffic = kernel.traffic_of_endpoints(&recorded.links()).await?;
    traffic.extend(kernel.traffic(&uplinks).await?);
    Ok(traffic)
}

async fn gather(context: &Context, kernel: &Kernel, interval: Duration) -> anyhow::Result<Graph> {
    let record = context.record()?;
    let recorded = Recorded::read(&record)?;
    // Nobody waits for the lock of the state while traffic is counted.
    drop(record);
    let rates = if interval.is_zero() { HashMap::new() } else { rates(kernel, &recorded, interval).await? };
    let names: Vec<&str> = recorded.uplinks.iter().map(InterfaceName::as_str).collect();
    let addressed = kernel.addressed(&names).await?;
    let uplink = |name: &InterfaceName| Uplink {
        name: name.to_string(),
        addresses: addressed
            .iter()
            .filter(|it| it.name == name.as_str())
            .flat_map(|it| it.addresses.iter().map(|net| net.addr()))
            .filter(|addr| !matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local()))
            .collect(),
        rates: rates.get(name.as_str()).copied(),
    };
    let network = |network: &spec::Network| Network {
        name: network.name.to_string(),
        bridge: network.bridge.to_string(),
        subnets: network.segments.subnets().map(|subnet| subnet.to_string()).collect(),
        gateways: network.segments.iter().map(|segment| segment.gateway).collect(),
        internal: network.internal,
        isolated: network.isolated,
        no_bridge: !network.is_bridged(),
        gateway_mode: network.options.gateway_mode,
        endpoints: recorded
            .endpoints
            .iter()
            .flat_map(|endpoint| endpoint.links.iter().map(move |link| (endpoint, link)))
            .filter(|(_, link)| link.network == network.name)
            .map(|(endpoint, link)| recorded.endpoint(endpoint, Some(link), &rates))
            .collect(),
    };
    let unlinked = recorded.endpoints.iter().filter(|endpoint| endpoint.links.is_empty());
    Ok(Graph {
        version: output::VERSION,
        instance: context.instance.name().to_owned(),
        interval: (!interval.is_zero()).then_some(interval.as_secs_f64()),
        uplinks: recorded.uplinks.iter().map(uplink).collect(),
        networks: recorded.networks.iter().map(network).collect(),
        unlinked: unlinked.map(|endpoint| recorded.endpoint(endpoint, None, &rates)).collect(),
    })
}

async fn rates(
    kernel: &Kernel,
    recorded: &Recorded,
    interval: Duration,
) -> anyhow::Result<HashMap<String, Rates>> {
    let (begin, before) = (Instant::now(), count(kernel, recorded).await?);
    tokio::time::sleep(interval).await;
    let seconds = begin.elapsed().as_secs_f64();
    let after = count(kernel, recorded).await?;
    let both = |traffic: &InterfaceTraffic| [traffic.sent, traffic.received];
    let rate = |(name, after): (&String, &InterfaceTraffic)| {
        let rates = Rates::between(both(before.get(name)?), both(after), seconds)?;
        Some((name.clone(), rates))
    };
    Ok(after.iter().filter_map(rate).collect())
}
