//! `vnet trace`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use vnet_common::{Addr, EndpointValue, Hook, Mac};

use super::context::{Context, Record, interface_names};
use super::flow::ProtoArg;
use super::namespace::existing;
use super::usage;
use crate::kernel::Kernel;
use crate::output::{self, Vocabulary};
use crate::spec::{self, InterfaceName, Name};
use crate::trace::{self, Arrival, Described, FLAGS, Live as _};

/// The identifier of a ping that is given none.
const IDENTIFIER: u16 = 1;
/// What most hosts send with.
const HOP_LIMIT: u8 = 64;
const SYN: &str = "syn";
/// Words of `--from`, which name no new endpoint ([`Name::RESERVED`]).
const OUTSIDE: &str = Name::OUTSIDE;
const HOST: &str = Name::HOST;
/// What stands before an endpoint's name that could be one of these words.
const ENDPOINT: &str = "ns:";

/// Show what would become of a packet, and why: each decision in the order taken. Nothing is sent, nothing changed.
///
/// The packet runs through the very code of the eBPF programs, over the tables as they are now; the kernel's routing and
/// its sockets are asked as the programs ask them. What it would leave behind (flows, external ports) is shown and not
/// written. A source port that is drawn by chance may be another for a real packet. What is left to the host's stack is
/// followed as far as the host's routes say where it goes; the host's own firewall is not asked (see `vnet doctor`).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet trace tcp 203.0.113.2:5555 203.0.113.1:8088          does somebody outside reach the published port?
  vnet trace udp 192.168.0.2:4000 9.9.9.9:53                how does an endpoint's question leave?
  vnet trace tcp 127.0.0.1:5555 127.0.0.1:8088              and a program of the host?
  vnet trace tcp 203.0.113.2:80 203.0.113.1:51234 --flags syn,ack
  vnet trace icmp 192.168.0.2 203.0.113.2 --length 1600     too big for the way; --fragmentable if it may be cut
  vnet trace tcp 192.168.0.1:5555 192.168.0.2:80            from the host to an endpoint's own address
  vnet trace tcp 192.168.0.9:1 203.0.113.2:80 --from net1   what if net1 sent with another's address?")]
pub(super) struct Trace {
    /// Its protocol.
    #[arg(value_name = "PROTO")]
    proto: ProtoArg,
    /// Its source: ADDRESS:PORT, `[IPv6]:PORT`; of a ping the address alone.
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Its destination, likewise.
    #[arg(value_name = "DESTINATION")]
    destination: String,
    /// Where it comes from: `outside`, `host`, or an endpoint's name, also as `ns:NAME` [default: whose the source address
    /// is].
    #[arg(long, value_name = "WHERE")]
    from: Option<String>,
    /// The uplink by which it comes in from outside [default: the only one].
    #[arg(long, value_name = "IF")]
    uplink: Option<InterfaceName>,
    /// Its flags, for TCP: one or several with commas between [default: syn].
    #[arg(long, value_name = "FLAG", value_delimiter = ',', value_parser = flag_parser())]
    flags: Vec<u8>,
    /// Its identifier, for a ping [default: 1].
    #[arg(long, value_name = "N")]
    id: Option<u16>,
    /// The reply of a ping, not the request.
    #[arg(long)]
    reply: bool,
    /// Its time to live, or hop limit [default: 64].
    #[arg(long, value_name = "HOPS")]
    ttl: Option<u8>,
    /// Its length in bytes, network header included [default: as short as it can be].
    #[arg(long, value_name = "BYTES")]
    length: Option<u16>,
    /// Of IPv4: it may be cut into fragments on its way, as most hosts do not allow.
    #[arg(long)]
    fragmentable: bool,
}

fn flag_parser() -> impl clap::builder::TypedValueParser<Value = u8> {
    let named = |name: String| FLAGS.into_iter().find(|(flag, _)| *flag == name).map(|(_, bit)| bit);
    PossibleValuesParser::new(FLAGS.map(|(name, _)| name))
        .try_map(move |name| named(name).ok_or("it is none of TCP's flags"))
}

/// Where a packet comes from.
enum Whence {
    Outside(Uplink),
    Host,
    Endpoint { name: Name, value: EndpointValue },
}

/// The uplink by which a packet comes in.
struct Uplink {
    index: u32,
    mac: Mac,
    early: bool,
}

impl Trace {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let described = self.described()?;
        let record = context.record()?;
        let mut words = vocabulary(&record)?;
        let named = self.named(&record)?;
        let mut uplinks = record.settings.uplinks.clone();
        if let Some(uplink) = &self.uplink {
            if !uplinks.contains(uplink) {
                anyhow::bail!("{uplink} is no uplink of this instance; that is {}", listed(&uplinks));
            }
            uplinks = vec![uplink.clone()];
        }
        // The lock of the state is not held while the kernel is asked.
        drop(record);
        let kernel = context.kernel_to_read().await?;
        words.interfaces = interface_names(&kernel).await?;
        let live = kernel.live().await?;
        let whence = match named {
            Some(Named::Outside) => outside(&kernel, &uplinks).await?,
            Some(Named::Host) => Whence::Host,
            Some(Named::Endpoint(name, mut addresses)) => {
                // By the link that has the source.
                addresses.sort_by_key(|addr| *addr != described.source.ip());
                endpoint(&live, name, &addresses)?
            }
            None => guess(&kernel, &live, described.source.ip(), (&uplinks, &words)).await?,
        };
        let (from, trace) = match &whence {
            Whence::Host => (HOST.to_owned(), trace::dial(&live, &described)?),
            Whence::Outside(uplink) => {
                // Whoever sends it outside has no hardware address that anybody looks at.
                let frame = self.frame(&described, Mac::new([2, 0, 0, 0, 0, 1]), uplink.mac)?;
                let arrival =
                    Arrival { hook: Hook::FromUplink, ifindex: uplink.index, arrived: 0, segment: 0, frame };
                (OUTSIDE.to_owned(), trace::follow(&live, &arrival, uplink.early)?)
            }
            Whence::Endpoint { name, value } => {
                let neighbour = live.endpoint(&Addr::from(described.destination.ip()))?;
                let same = |other: &EndpointValue| other.zone == value.zone;
                let to = neighbour.filter(same).map_or(value.gateway_mac, |other| other.mac);
                let frame = self.frame(&described, value.mac, to)?;
                let arrival = Arrival {
                    hook: Hook::FromEndpoint,
                    ifindex: value.ifindex,
                    arrived: 0,
                    segment: 0,
                    frame,
                };
                (name.to_string(), trace::follow(&live, &arrival, false)?)
            }
        };
        words.mappings = mappings(context, &trace)?;
        let trace = output::Trace::new(described.to_string(), from, &trace, &words);
        Ok(trace.print(&mut context.out(), context.format)?)
    }

    fn frame(&self, described: &Described, from: Mac, to: Mac) -> anyhow::Result<Vec<u8>> {
        described.frame(from, to).map_err(|error| usage(&error.to_string()))
    }

    /// The packet that the arguments describe.
    fn described(&self) -> anyhow::Result<Described> {
        let echo = matches!(self.proto, ProtoArg::Icmp | ProtoArg::Icmpv6);
        let tcp = matches!(self.proto, ProtoArg::Tcp);
        if !tcp && !self.flags.is_empty() {
            return Err(usage("--flags are TCP's: leave them out, or trace tcp"));
        }
        if !echo && (self.id.is_some() || self.reply) {
            return Err(usage("--id and --reply are for pings: leave them out, or trace icmp or icmpv6"));
        }
        if self.uplink.is_some() && self.from.as_ref().is_some_and(|from| from != OUTSIDE) {
            return Err(usage("--uplink is for packets from outside: leave it out, or say --from outside"));
        }
        let id = self.id.unwrap_or(IDENTIFIER);
        let end = |text: &str| if echo { ping(text, id) } else { socket(text) };
        let syn = FLAGS.iter().filter(|(name, _)| tcp && self.flags.is_empty() && *name == SYN);
        let described = Described {
            proto: self.proto.into(),
            source: end(&self.source)?,
            destination: end(&self.destination)?,
            flags: syn.map(|(_, bit)| *bit).chain(self.flags.iter().copied()).fold(0, |all, bit| all | bit),
            reply: self.reply,
            hop_limit: self.ttl.unwrap_or(HOP_LIMIT),
            length: self.length,
            fragmentable: self.fragmentable,
        };
        // What makes no sense is said before anything is looked at.
        self.frame(&described, Mac::new([0; 6]), Mac::new([0; 6]))?;
        Ok(described)
    }

    /// Where it is said to come from.
    fn named(&self, record: &Record) -> anyhow::Result<Option<Named>> {
        let name = match self.from.as_deref() {
            None if self.uplink.is_none() => return Ok(None),
            None | Some(OUTSIDE) => return Ok(Some(Named::Outside)),
            Some(HOST) => return Ok(Some(Named::Host)),
            Some(name) => name.strip_prefix(ENDPOINT).unwrap_or(name),
        };
        let name: Name = name.parse().map_err(|error: spec::Error| {
            usage(&format!(
                "--from is `outside`, `host` or an endpoint's name, perhaps as `ns:NAME`: {error}"
            ))
        })?;
        let endpoint = existing(record, &name)?;
        let addresses = endpoint.addresses().collect();
        Ok(Some(Named::Endpoint(name, addresses)))
    }
}

/// What `--from` says.
enum Named {
    Outside,
    Host,
    Endpoint(Name, Vec<IpAddr>),
}

fn socket(text: &str) -> anyhow::Result<SocketAddr> {
    text.parse().map_err(|_| {
        let ported = text.parse::<IpAddr>().is_ok();
        let advice = if ported { "add a port" } else { "write an address and a port" };
        usage(&format!(
            "{text:?} is no address with a port: {advice}, as 203.0.113.2:5555 or [2001:db8::2]:5555"
        ))
    })
}

fn ping(text: &str, id: u16) -> anyhow::Result<SocketAddr> {
    let addr = text.parse().map_err(|_| {
        let advice = if text.parse::<SocketAddr>().is_ok() { "a ping has no ports: " } else { "" };
        usage(&format!("{text:?} is no address: {advice}write it as 203.0.113.2 or 2001:db8::2, and --id for its identifier"))
    })?;
    Ok(SocketAddr::new(addr, id))
}

fn listed(names: &[InterfaceName]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// An uplink, the only one that there is or was asked for.
async fn outside(kernel: &Kernel, uplinks: &[InterfaceName]) -> anyhow::Result<Whence> {
    let uplink = match uplinks {
        [uplink] => uplink,
        [] => anyhow::bail!(
            "this instance has no uplink by which a packet could come in: `vnet up --uplink` names one"
        ),
        several => {
            return Err(usage(&format!(
                "a packet from outside could come in by {}: say which with --uplink",
                listed(several)
            )));
        }
    };
    let interfaces = kernel.interfaces().await.context("list the host's interfaces")?;
    let found = interfaces.into_iter().find(|interface| interface.name == uplink.as_str());
    let found = found.with_context(|| format!("the uplink {uplink} is gone: `vnet up` when it is back"))?;
    let early = kernel.has_xdp(&found.name);
    let mac = found.mac.unwrap_or(Mac::new([2, 0, 0, 0, 0, 2]));
    Ok(Whence::Outside(Uplink { index: found.index, mac, early }))
}

/// An endpoint, by its addresses.
fn endpoint(
    live: &impl trace::Live<Error = crate::kernel::Error>,
    name: Name,
    addresses: &[IpAddr],
) -> anyhow::Result<Whence> {
    for addr in addresses {
        if let Some(value) = live.endpoint(&Addr::from(*addr))? {
            return Ok(Whence::Endpoint { name, value });
        }
    }
    anyhow::bail!(
        "endpoint {name} has no link to a network, so that it sends nothing: `vnet ns inspect {name}` shows it"
    )
}

/// Whose a source address is.
async fn guess(
    kernel: &Kernel,
    live: &impl trace::Live<Error = crate::kernel::Error>,
    source: IpAddr,
    (uplinks, words): (&[InterfaceName], &Vocabulary),
) -> anyhow::Result<Whence> {
    let addr = Addr::from(source);
    if let Some(value) = live.endpoint(&addr)? {
        let named = words.names.endpoints.get(&(value.zone, addr));
        let link = words.interfaces.get(&value.ifindex).and_then(|link| words.links.get(link));
        if let Some(name) = named.or(link) {
            return Ok(Whence::Endpoint { name: name.parse()?, value });
        }
    }
    if addr.is_loopback() || live.host_address(&addr)?.is_some() {
        return Ok(Whence::Host);
    }
    outside(kernel, uplinks).await
}

/// What numbers stand for, but for the interfaces and mappings.
fn vocabulary(record: &Record) -> anyhow::Result<Vocabulary> {
    let endpoints = record.transaction.endpoints()?;
    let names = |endpoint: &spec::Endpoint| -> Vec<(String, String)> {
        let name = |link: &spec::Link| (link.host_interface.to_string(), endpoint.name.to_string());
        endpoint.links.iter().map(name).collect()
    };
    let links = endpoints.iter().flat_map(names).collect();
    Ok(Vocabulary { names: record.names()?, links, ..Vocabulary::default() })
}

/// The mappings that a trace speaks of: of fifty thousand there are few.
fn mappings(context: &Context, trace: &trace::Trace) -> anyhow::Result<HashMap<u32, String>> {
    let wanted = trace.mappings();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let all = context.record()?.transaction.port_maps()?;
    let all = all.into_iter().filter(|mapping| wanted.contains(&mapping.id));
    Ok(all.map(|mapping| (mapping.id, mapping.to_string())).collect())
}
