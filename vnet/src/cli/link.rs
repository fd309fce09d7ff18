//! `vnet link`.

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::context::{Context, DryRun};
use crate::manage::DirectRequest;
use crate::output;
use crate::spec::{InterfaceName, Name};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Create(Create),
    /// List the direct links.
    Ls,
    /// Remove the direct link of two endpoints. One that is not there is removed already.
    Rm {
        /// One endpoint.
        #[arg(value_name = "A")]
        first: Name,
        /// The other.
        #[arg(value_name = "B")]
        second: Name,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

/// Join two endpoints by a pair of interfaces of their own, without a bridge: what passes there, the host neither sees
/// nor limits. It goes with either endpoint.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet link create net1 net2 --ip 192.168.1.1/24 --ip 192.168.1.2/24
  vnet link create net1 net2 --ip fd01::1/64 --ip fd01::2/64 --ifname peer0 --mtu 9000")]
pub(super) struct Create {
    /// One endpoint.
    #[arg(value_name = "A")]
    first: Name,
    /// The other.
    #[arg(value_name = "B")]
    second: Name,
    /// An address with the length of its prefix: of each family the first is A's, the second B's.
    #[arg(long = "ip", value_name = "ADDR/LEN", required = true)]
    addresses: Vec<IpNet>,
    /// Names of the interfaces, A's and then B's [default: the first of link0, link1, … that is free].
    #[arg(long = "ifname", value_name = "IF")]
    ifnames: Vec<InterfaceName>,
    /// Largest packet in bytes [default: 1500].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1280..=65535))]
    mtu: Option<u32>,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Create(command) => command.run(context).await,
            Self::Ls => {
                let links = context.record()?.transaction.directs()?;
                context.print_list(&links.iter().map(output::DirectLink::from).collect::<Vec<_>>())
            }
            Self::Rm { first, second, dry_run } => {
                let manager = context.manager(dry_run.mode()).await?;
                let done = manager.remove_direct(&first, &second).await?;
                let line = match &done.value {
                    Some(link) => format!("direct link {link} removed"),
                    None => format!("{first} and {second} have no direct link: nothing to remove"),
                };
                context.print_removed(dry_run.mode(), &done, &line)
            }
        }
    }
}

impl Create {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mode = self.dry_run.mode();
        if self.ifnames.len() > 2 {
            return Err(super::usage("a direct link has two ends: name two interfaces at most"));
        }
        let mut ifnames = self.ifnames.into_iter();
        let request = DirectRequest {
            endpoints: [self.first, self.second],
            addresses: self.addresses,
            ifnames: [ifnames.next(), ifnames.next()],
            mtu: self.mtu,
        };
        let done = context.manager(mode).await?.create_direct(&request).await?;
        let link = output::DirectLink::from(&done.value);
        let line = format!("direct link {}: {}", done.value, link.described());
        context.print_made(mode, &done, link, &line)
    }
}
