//! `vnet floating`.

use std::net::IpAddr;

use clap::{Args, Subcommand};

use super::context::{Context, DryRun};
use crate::manage::{self, FloatingRequest};
use crate::output;
use crate::spec::TargetHost;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Add(Add),
    /// List the floating addresses.
    Ls,
    /// Take an address back from its endpoint, and end the flows by it. One that no endpoint has is taken back
    /// already.
    Rm {
        /// The host's address.
        #[arg(value_name = "EXTERNAL-IP")]
        external: IpAddr,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

/// Give an address of the host to one endpoint alone (one-to-one NAT): all that arrives for it goes to the endpoint,
/// and what the endpoint sends to the world comes from it, ports unchanged.
///
/// The host must have the address, as a second one of an uplink; a router (`vnet router`) gives itself one in the prefixes
/// of its own addresses. No port can be published on it, and the endpoint's
/// address can have no masquerade rule of its own. It goes with the endpoint.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ip addr add 203.0.113.5/32 dev eth0
  vnet floating add 203.0.113.5 192.168.0.2
  vnet floating add 2001:db8::5 net1                    net1's IPv6 address
  vnet floating rm 203.0.113.5")]
pub(super) struct Add {
    /// The host's address.
    #[arg(value_name = "EXTERNAL-IP")]
    external: IpAddr,
    /// The endpoint, by address, or by name for its address of the same family.
    #[arg(value_name = "IP")]
    target: TargetHost,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Add(command) => command.run(context).await,
            Self::Ls => {
                let floating = context.record()?.transaction.floatings()?;
                context.print_list(&floating.iter().map(output::Floating::from).collect::<Vec<_>>())
            }
            Self::Rm { external, dry_run } => {
                let manager = context.manager(dry_run.mode()).await?;
                let done = manager.remove_floating(external).await?;
                let line = match &done.value {
                    Some(floating) => format!("floating address {floating} removed"),
                    None => format!("{external} is not a floating address: nothing to remove"),
                };
                context.print_removed(dry_run.mode(), &done, &line)
            }
        }
    }
}

impl Add {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mode = self.dry_run.mode();
        manage::check_external_of(&context.instance, self.external)?;
        let request = FloatingRequest { external: self.external, target: self.target };
        let done = context.manager(mode).await?.add_floating(&request).await?;
        let line = format!("floating address {}", done.value);
        context.print_made(mode, &done, output::Floating::from(&done.value), &line)
    }
}
