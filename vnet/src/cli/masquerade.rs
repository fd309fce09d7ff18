//! `vnet masquerade`.

use std::net::IpAddr;

use clap::{Args, Subcommand};

use super::context::{Context, DryRun};
use crate::manage::MasqueradeRequest;
use crate::output;
use crate::spec::Cidr;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Add(Add),
    /// List the rules, of which networks bring their own, and the destinations that are left out.
    Ls,
    /// Leave destinations out: packets to them keep the endpoints' addresses, as for a tunnel or a network that has
    /// routes to them. Not for published ports.
    Exclude {
        /// The destinations.
        #[arg(value_name = "CIDR")]
        destinations: Cidr,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Masquerade destinations again that were left out. Those that were not are masqueraded already.
    Include {
        /// The destinations, as they were left out.
        #[arg(value_name = "CIDR")]
        destinations: Cidr,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Remove a rule. Flows that it opened go on; one that is not there is removed already.
    Rm {
        /// The sources.
        #[arg(value_name = "CIDR")]
        subnet: Cidr,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

/// Masquerade sources: they leave the host under an address of the host.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet masquerade add 10.0.0.0/8                       the address that routing would choose
  vnet masquerade add 10.1.0.0/24 --to 203.0.113.7     a fixed one
  vnet masquerade add 192.168.0.3/32 --to 203.0.113.8  one for one endpoint: the longest prefix counts

A rule is for what endpoints begin: `vnet floating add` gives an endpoint an address both ways.")]
pub(super) struct Add {
    /// The sources.
    #[arg(value_name = "CIDR")]
    subnet: Cidr,
    /// The address to use [default: the one that routing would choose, for each flow].
    #[arg(long, value_name = "ADDR")]
    to: Option<IpAddr>,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Add(command) => command.run(context).await,
            Self::Ls => {
                let record = context.record()?;
                let (rules, excluded) =
                    (record.transaction.masquerades()?, record.transaction.unmasqueraded()?);
                Ok(output::Masquerades::new(&rules, &excluded).print(&mut context.out(), context.format)?)
            }
            Self::Exclude { destinations, dry_run } => {
                let mode = dry_run.mode();
                let done = context.manager(mode).await?.exclude(destinations).await?;
                let line = format!("destinations {destinations} left out of masquerade");
                context.print_made(mode, &done, output::Excluded::from(&destinations), &line)
            }
            Self::Include { destinations, dry_run } => {
                let done = context.manager(dry_run.mode()).await?.include(destinations).await?;
                let line = match &done.value {
                    Some(_) => format!("destinations {destinations} masqueraded again"),
                    None => format!("destinations {destinations} are not left out: nothing to do"),
                };
                context.print_removed(dry_run.mode(), &done, &line)
            }
            Self::Rm { subnet, dry_run } => {
                let manager = context.manager(dry_run.mode()).await?;
                let done = manager.remove_masquerade(subnet).await?;
                let line = match &done.value {
                    Some(_) => format!("masquerade of {subnet} removed"),
                    None => format!("{subnet} is not masqueraded: nothing to remove"),
                };
                context.print_removed(dry_run.mode(), &done, &line)
            }
        }
    }
}

impl Add {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mode = self.dry_run.mode();
        let request = MasqueradeRequest { subnet: self.subnet, to: self.to };
        let done = context.manager(mode).await?.add_masquerade(&request).await?;
        let line = match done.value.to {
            Some(to) => format!("masquerade {} as {to}", done.value.subnet),
            None => format!("masquerade {}", done.value.subnet),
        };
        context.print_made(mode, &done, output::Masquerade::from(&done.value), &line)
    }
}
