//! `vnet portmap`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};

use super::context::{Context, DryRun};
use super::lines::{Lines, Words};
use super::usage;
use crate::manage::{MoveRequest, PortMapRequest};
use crate::output;
use crate::spec::{self, Clients, Protocol, Published, Target};

/// What published ports are called.
const PUBLISHED: &str = "[HOST-IP:]PORT[-END]";
/// What the target of published ports is called.
const TARGET: &str = "TARGET:PORT[-END]";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Add(Add),
    Move(Move),
    /// List the published ports.
    Ls,
    Rm(Rm),
}

/// Publish ports: what arrives there goes to an endpoint.
///
/// Without HOST-IP they are published on every address of the host, in both families if the endpoint has both. A
/// mapping on one address goes before one on all of them.
///
/// A published port is reserved: it is refused if a program of the host holds it (a TCP socket that listens, a UDP
/// socket that is bound), and no program of the host can bind it afterwards, on the addresses on which it is published.
/// To bind every address (0.0.0.0, ::) fails if the port is published on any; to bind :: also if it is published for
/// IPv4 alone, because such a socket would hear IPv4 as well. Programs in endpoints bind what they like.
///
/// With --allow-from only those clients reach the endpoint. If prefixes of one family are given, clients of the other
/// family are allowed from nowhere. Programs of the host itself may always use a published port.
///
/// With --file many are published at once, all of them or none: one on each line of the file, in the words of the command
/// line. Empty lines and what follows a # are left out.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet portmap add 8088 192.168.0.2:80
  vnet portmap add 127.0.0.1:5432 db:5432               for this host only
  vnet portmap add '[2001:db8::1]:443' web:8443
  vnet portmap add 10000-19999 media:10000-19999 --proto udp
  vnet portmap add 22 jump:22 --allow-from 198.51.100.0/24 --allow-from 2001:db8:1::/48
  vnet portmap add 3868 diameter:3868 --proto sctp      the same port: SCTP's cannot be translated
  vnet portmap add --file mappings.txt                  one mapping a line, as above: \"8088 web:80 --proto udp\"

Ports 49152-65535 are kept for masquerade: `vnet up --nat-ports` has it use others.")]
pub(super) struct Add {
    /// Ports of the host, on one of its addresses or on all.
    #[arg(value_name = PUBLISHED, required_unless_present = "file")]
    published: Option<Published>,
    /// Endpoint, by address or name, and as many of its ports.
    #[arg(value_name = TARGET, required_unless_present = "file")]
    target: Option<Target>,
    /// Protocol.
    #[arg(long = "proto", value_enum, default_value_t)]
    protocol: Proto,
    /// Clients that may use it, of either family; may be given several times [default: everybody].
    #[arg(long, value_name = "CIDR")]
    allow_from: Vec<Clients>,
    /// Publish what is in this file, or on standard input (-).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["published", "target", "protocol", "allow_from"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Take published ports back, and end their flows. Those that are not published are taken back already.
///
/// With --file many are taken back at once: one on each line of the file, [HOST-IP:]PORT[-END] and perhaps --proto.
#[derive(Debug, Args)]
pub(super) struct Rm {
    /// As they were published.
    #[arg(value_name = PUBLISHED, required_unless_present = "file")]
    published: Option<Published>,
    /// Their protocol.
    #[arg(long = "proto", value_enum, default_value_t)]
    protocol: Proto,
    /// Take back what is in this file, or on standard input (-).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["published", "protocol"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Have published ports lead to another target, and end the flows to the old one.
///
/// At no moment are the ports published nowhere, and who may use them stays. Clients' next datagrams reach the new
/// target; TCP connections with the old one are reset when they are used next. Connections that programs of this host
/// have to the old target go on: their sockets were pointed there when they connected.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet portmap move 8088 web2:80
  vnet portmap move 127.0.0.1:5432 db2:5432
  vnet portmap move 10000-19999 media2:10000-19999 --proto udp")]
pub(super) struct Move {
    /// As they were published.
    #[arg(value_name = PUBLISHED)]
    published: Published,
    /// Endpoint, by address or name, and as many of its ports.
    #[arg(value_name = TARGET)]
    target: Target,
    /// Their protocol.
    #[arg(long = "proto", value_enum, default_value_t)]
    protocol: Proto,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum Proto {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl From<Proto> for Protocol {
    fn from(proto: Proto) -> Self {
        match proto {
            Proto::Tcp => Self::Tcp,
            Proto::Udp => Self::Udp,
            Proto::Sctp => Self::Sctp,
        }
    }
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Add(command) => command.run(context).await,
            Self::Move(command) => command.run(context).await,
            Self::Ls => {
                let mappings = context.record()?.transaction.port_maps()?;
                context.print_list(&mappings.iter().map(output::PortMap::from).collect::<Vec<_>>())
            }
            Self::Rm(command) => command.run(context).await,
        }
    }
}

impl Add {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mode = self.dry_run.mode();
        if let Some(file) = &self.file {
            let lines = Lines::read(file, "published", line_to_add)?;
            let done = context.manager(mode).await?.publish_all(&lines.requests).await;
            let done = done.map_err(|error| lines.refused(error))?;
            let line = format!("published {} mappings", done.value.len());
            let made = || done.value.iter().map(output::PortMap::from).collect();
            return context.print_all_made(mode, &done, made, &line);
        }
        let Self { published, target, protocol, allow_from, .. } = self;
        let (published, target) = published.zip(target).ok_or_else(|| usage("PORT and TARGET, or --file"))?;
        let request = PortMapRequest { published, target, protocol: protocol.into(), allow_from };
        let done = context.manager(mode).await?.publish(&request).await?;
        let line = format!("published {}", done.value);
        context.print_made(mode, &done, output::PortMap::from(&done.value), &line)
    }
}

/// What a line asks to be published.
fn line_to_add(words: &Words<'_>) -> Result<PortMapRequest, String> {
    let [published, target] = words.arguments([PUBLISHED, TARGET])?;
    let (published, target) = (parse(published)?, parse(target)?);
    let mut request =
        PortMapRequest { published, target, protocol: Protocol::default(), allow_from: Vec::new() };
    for (name, value) in words.options() {
        match name {
            "--proto" => request.protocol = proto(value)?,
            "--allow-from" => request.allow_from.push(parse(value)?),
            other => return Err(format!("a line has no option {other}: there are --proto and --allow-from")),
        }
    }
    Ok(request)
}

/// What a line asks to be taken back.
fn line_to_remove(words: &Words<'_>) -> Result<(Published, Protocol), String> {
    let [published] = words.arguments([PUBLISHED])?;
    let mut protocol = Protocol::default();
    for (name, value) in words.options() {
        match name {
            "--proto" => protocol = proto(value)?,
            other => return Err(format!("a line has no option {other}: there is --proto")),
        }
    }
    Ok((parse(published)?, protocol))
}

fn parse<T: FromStr<Err = spec::Error>>(word: &str) -> Result<T, String> {
    word.parse().map_err(|error: spec::Error| error.to_string())
}

fn proto(word: &str) -> Result<Protocol, String> {
    let unknown = |_| {
        let known = Proto::value_variants().iter().map(|proto| Protocol::from(*proto).to_string());
        format!("{word:?} is no protocol: there are {}", known.collect::<Vec<_>>().join(", "))
    };
    Proto::from_str(word, false).map(Protocol::from).map_err(unknown)
}

impl Rm {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mode = self.dry_run.mode();
        if let Some(file) = &self.file {
            let lines = Lines::read(file, "removed", line_to_remove)?;
            let done = context.manager(mode).await?.unpublish_all(&lines.requests).await;
            let done = done.map_err(|error| lines.refused(error))?;
            return context.print_removed(mode, &done, &format!("{} mappings removed", done.value.len()));
        }
        let published = self.published.ok_or_else(|| usage("PORT, or --file"))?;
        let protocol = Protocol::from(self.protocol);
        let done = context.manager(mode).await?.unpublish(&published, protocol).await?;
        let line = match &done.value {
            Some(mapping) => format!("{mapping} removed"),
            None => format!("{published}/{protocol} is not published: nothing to remove"),
        };
        context.print_removed(mode, &done, &line)
    }
}

impl Move {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mode = self.dry_run.mode();
        let Self { published, target, protocol, .. } = self;
        let request = MoveRequest { published, target, protocol: protocol.into() };
        let done = context.manager(mode).await?.repoint(&request).await?;
        let line = format!("moved {}", done.value);
        context.print_made(mode, &done, output::PortMap::from(&done.value), &line)
    }
}
