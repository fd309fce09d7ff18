//! `vnet portmap`.

use clap::{Args, Subcommand, ValueEnum};

use super::context::{Context, DryRun};
use crate::manage::PortMapRequest;
use crate::output;
use crate::spec::{Protocol, Published, Target};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Add(Add),
    /// List the published ports.
    Ls,
    /// Take published ports back, and end their flows. Those that are not published are taken back already.
    Rm {
        /// As they were published.
        #[arg(value_name = "[HOST-IP:]PORT[-END]")]
        published: Published,
        /// Their protocol.
        #[arg(long = "proto", value_enum, default_value_t)]
        protocol: Proto,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

/// Publish ports: what arrives there goes to an endpoint.
///
/// Without HOST-IP they are published on every address of the host, in both families if the endpoint has both. A
/// mapping on one address goes before one on all of them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet portmap add 8088 192.168.0.2:80
  vnet portmap add 127.0.0.1:5432 db:5432               for this host only
  vnet portmap add '[2001:db8::1]:443' web:8443
  vnet portmap add 10000-19999 media:10000-19999 --proto udp

Ports 49152-65535 are kept for masquerade: `vnet up --nat-ports` has it use others.")]
pub(super) struct Add {
    /// Ports of the host, on one of its addresses or on all.
    #[arg(value_name = "[HOST-IP:]PORT[-END]")]
    published: Published,
    /// Endpoint, by address or name, and as many of its ports.
    #[arg(value_name = "TARGET:PORT[-END]")]
    target: Target,
    /// Protocol.
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
}

impl From<Proto> for Protocol {
    fn from(proto: Proto) -> Self {
        match proto {
            Proto::Tcp => Self::Tcp,
            Proto::Udp => Self::Udp,
        }
    }
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Add(command) => command.run(context).await,
            Self::Ls => {
                let mappings = context.record()?.transaction.port_maps()?;
                context.print_list(&mappings.iter().map(output::PortMap::from).collect::<Vec<_>>())
            }
            Self::Rm { published, protocol, dry_run } => {
                remove(context, published, protocol.into(), dry_run).await
            }
        }
    }
}

impl Add {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mode = self.dry_run.mode();
        let Self { published, target, protocol, .. } = self;
        let request = PortMapRequest { published, target, protocol: protocol.into() };
        let done = context.manager(mode).await?.publish(&request).await?;
        let line = format!("published {}", done.value);
        context.print_made(mode, &done, output::PortMap::from(&done.value), &line)
    }
}

async fn remove(
    context: &Context,
    published: Published,
    protocol: Protocol,
    dry_run: DryRun,
) -> anyhow::Result<()> {
    let manager = context.manager(dry_run.mode()).await?;
    let done = manager.unpublish(&published, protocol).await?;
    let line = match &done.value {
        Some(mapping) => format!("{mapping} removed"),
        None => format!("{published}/{protocol} is not published: nothing to remove"),
    };
    context.print_removed(dry_run.mode(), &done, &line)
}
