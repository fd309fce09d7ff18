//! `vnet limit`.

use clap::{ArgGroup, Args, Subcommand};

use super::context::{Context, DryRun, note};
use crate::manage::{Done, LimitChange, Mode};
use crate::output::{self, Format};
use crate::spec::{Bytes, Endpoint, Name, RateSetting};

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
#[command(group = ArgGroup::new("direction").required(true).multiple(true))]
pub(super) struct Set {
    /// The endpoint.
    #[arg(value_name = "NS")]
    endpoint: Name,
    /// Bits that it may send in a second: kbit, mbit or gbit; or `none`.
    #[arg(long, value_name = "RATE", group = "direction")]
    egress: Option<RateSetting>,
    /// Bits that it may receive in a second, or `none`.
    #[arg(long, value_name = "RATE", group = "direction")]
    ingress: Option<RateSetting>,
    /// Bytes that may pass at once after a pause, in each direction that is named [default: those of 5 ms, 8k at
    /// least; also of a direction whose rate alone is named].
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
                print(context, mode, &done)
            }
        }
    }
}

/// Says what is limited by now. Of an endpoint that is not there, that is all there is to say.
fn print(context: &Context, mode: Mode, done: &Done<Endpoint>) -> anyhow::Result<()> {
    let Endpoint { name, limits, .. } = &done.value;
    let line = format!("endpoint {name}: {limits}");
    if !done.notes.is_empty() && (mode, context.format) == (Mode::Apply, Format::Table) {
        note(&done.notes);
        return context.print_line(&line);
    }
    context.print_made(mode, done, output::Limit::from(&done.value), &line)
}

impl Set {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mode = self.dry_run.mode();
        let limit = |rate: RateSetting| rate.with(self.burst);
        let change = LimitChange { egress: self.egress.map(limit), ingress: self.ingress.map(limit) };
        let done = context.manager(mode).await?.set_limits(&self.endpoint, change).await?;
        print(context, mode, &done)
    }
}
