//! `vnet limit`.

use clap::{Args, Subcommand};

use super::context::{Context, DryRun};
use crate::manage::LimitChange;
use crate::output;
use crate::spec::{Bytes, Name, RateSetting};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Set(Set),
    /// List the endpoints that are limited.
    Ls,
    /// Take an endpoint's limits away. One that has none has none already.
    Rm {
        /// The endpoint.
        #[arg(value_name = "NS")]
        endpoint: Name,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

/// Limit what an endpoint sends or receives: packets above the rate wait, and are dropped when more than 50 ms of them
/// wait. Its connections go on; a direction that is not named stays as it is.
///
/// A rate counts frames of Ethernet, so that TCP carries some 4 % less. It holds for all that passes the endpoint's
/// interface, neighbours on its network included. Whoever has CAP_NET_ADMIN inside the endpoint's namespace can take
/// the limit of what it sends away; `vnet doctor` tells.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet limit set net1 --egress 50mbit --ingress 200mbit
  vnet limit set net1 --egress 1.5gbit --burst 256k
  vnet limit set net1 --ingress none
  vnet limit rm net1")]
pub(super) struct Set {
    /// The endpoint.
    #[arg(value_name = "NS")]
    endpoint: Name,
    /// Bits that it may send in a second: kbit, mbit or gbit; or `none`.
    #[arg(long, value_name = "RATE", required_unless_present = "ingress")]
    egress: Option<RateSetting>,
    /// Bits that it may receive in a second, or `none`.
    #[arg(long, value_name = "RATE")]
    ingress: Option<RateSetting>,
    /// Bytes that may pass at once after a pause, in each direction that is named [default: those of 5 ms, 8k at
    /// least].
    #[arg(long, value_name = "BYTES")]
    burst: Option<Bytes>,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Set(command) => command.run(context).await,
            Self::Ls => {
                let endpoints = context.record()?.transaction.endpoints()?;
                let limited = endpoints.iter().filter(|endpoint| !endpoint.limits.is_empty());
                context.print_list(&limited.map(output::Limit::from).collect::<Vec<_>>())
            }
            Self::Rm { endpoint, dry_run } => {
                let mode = dry_run.mode();
                let manager = context.manager(mode).await?;
                let done = manager.set_limits(&endpoint, LimitChange::NONE_LEFT).await?;
                let limit = output::Limit::from(&done.value);
                context.print_made(mode, &done, limit, &format!("endpoint {endpoint}: no limit"))
            }
        }
    }
}

impl Set {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mode = self.dry_run.mode();
        let limit = |rate: RateSetting| rate.with(self.burst);
        let change = LimitChange { egress: self.egress.map(limit), ingress: self.ingress.map(limit) };
        let done = context.manager(mode).await?.set_limits(&self.endpoint, change).await?;
        let line = format!("endpoint {}: {}", self.endpoint, done.value.limits);
        context.print_made(mode, &done, output::Limit::from(&done.value), &line)
    }
}
