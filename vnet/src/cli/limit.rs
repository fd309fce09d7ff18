//! `vnet limit`.

use clap::{ArgGroup, Args, Subcommand};

use super::context::{Context, DryRun, note};
use crate::manage::{CgroupLimitRequest, Done, LimitChange, Mode, Unnamed};
use crate::output::{self, Format};
use crate::spec::{BurstSetting, Cgroup, CgroupPath, ClassId, Endpoint, Name, RateSetting};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Set(Set),
    /// List the endpoints and the cgroups that are limited.
    Ls,
    /// Take the limits of an endpoint or a cgroup away. One that has none has none already.
    Rm {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

/// Who is limited.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Whose {
    /// The endpoint.
    #[arg(value_name = "NS")]
    endpoint: Option<Name>,
    /// A cgroup of the unified hierarchy (version 2), with those below it: its path there, as in /proc/PID/cgroup, or
    /// the directory that it is.
    #[arg(long, value_name = "PATH")]
    cgroup: Option<CgroupPath>,
    /// A class of net_cls (version 1), as in net_cls.classid: MAJOR:MINOR in hexadecimal, or one number as 0x10010.
    #[arg(long, value_name = "CLASS")]
    classid: Option<ClassId>,
}

impl Whose {
    /// The endpoint, or else the cgroup.
    fn which(self) -> Result<Name, Cgroup> {
        match self {
            Self { endpoint: Some(endpoint), .. } => Ok(endpoint),
            Self { cgroup: Some(path), .. } => Err(Cgroup::Path(path)),
            Self { classid: Some(class), .. } => Err(Cgroup::ClassId(class)),
            Self { endpoint: None, cgroup: None, classid: None } => unreachable!("one of them is required"),
        }
    }
}

/// Limit what an endpoint sends or receives, or what processes of a cgroup send by the uplinks: packets above the rate wait, and are dropped when more than 50 ms of them
/// wait. Its connections go on; a direction that is not named stays as it is.
///
/// A rate counts frames of Ethernet, so that TCP carries some 4 % less. It holds for all that passes the endpoint's
/// interface, neighbours on its network included. Whoever has CAP_NET_ADMIN inside the endpoint's namespace can take
/// the limit of what it sends away; `vnet doctor` tells.
///
/// The limit of a cgroup holds for the sockets that its processes open, on the host and in endpoints, where they send by
/// an uplink. Limits inside one another all hold. While there are any, each uplink has a queueing discipline of vnet's own
/// in place of the kernel's choice: fq, or htb where the kernel has no fq.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet limit set net1 --egress 50mbit --ingress 200mbit
  vnet limit set net1 --egress 1.5gbit --burst 256k
  vnet limit set net1 --egress 2gbit --burst default
  vnet limit set net1 --ingress none
  vnet limit rm net1
  vnet limit set --cgroup /user.slice/user-1000.slice --egress 50mbit
  vnet limit set --cgroup /sys/fs/cgroup/batch --egress 10mbit --burst 64k
  vnet limit set --classid 1:10 --egress 10mbit
  vnet limit rm --classid 1:10")]
#[command(group = ArgGroup::new("direction").required(true).multiple(true))]
pub(super) struct Set {
    #[command(flatten)]
    whose: Whose,
    /// Bits that it may send in a second: kbit, mbit or gbit; or `none`.
    #[arg(long, value_name = "RATE", group = "direction")]
    egress: Option<RateSetting>,
    /// Bits that it may receive in a second, or `none`; of an endpoint only.
    #[arg(long, value_name = "RATE", group = "direction", conflicts_with_all = ["cgroup", "classid"])]
    ingress: Option<RateSetting>,
    /// Bytes that may pass at once after a pause, in each direction that is named; or `default`: those of 5 ms, 8k at
    /// least. Without, a limit that is there keeps its own.
    #[arg(long, value_name = "BYTES")]
    burst: Option<BurstSetting>,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Set(command) => command.run(context).await,
            Self::Ls => {
                let record = context.record()?;
                let endpoints = record.transaction.endpoints()?;
                let limited = endpoints.iter().filter(|endpoint| !endpoint.limits.is_empty());
                let cgroups = record.transaction.cgroup_limits()?;
                let both = limited.map(output::Limit::from).chain(cgroups.iter().map(output::Limit::from));
                context.print_list(&both.collect::<Vec<_>>())
            }
            Self::Rm { whose, dry_run } => {
                let mode = dry_run.mode();
                match whose.which() {
                    Ok(endpoint) => {
                        let manager = context.manager(mode).await?;
                        let none = LimitChange::NONE_LEFT;
                        let done = manager.set_limits(&endpoint, none, Unnamed::Goes).await?;
                        print(context, mode, &done)
                    }
                    Err(cgroup) => lift(context, mode, &cgroup).await,
                }
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

/// Takes the limit of a cgroup away.
async fn lift(context: &Context, mode: Mode, cgroup: &Cgroup) -> anyhow::Result<()> {
    let done = context.manager(mode).await?.unlimit_cgroup(cgroup).await?;
    let line = match &done.value {
        Some(limit) => format!("{}: no limit", limit.cgroup.in_full()),
        None => format!("{}: no limit (already)", cgroup.in_full()),
    };
    context.print_removed(mode, &done, &line)
}

impl Set {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Self { whose, egress, ingress, burst, dry_run } = self;
        let mode = dry_run.mode();
        let (unnamed, burst) = match burst {
            None => (Unnamed::Stays, None),
            Some(BurstSetting(bytes)) => (Unnamed::Goes, bytes),
        };
        let limit = |rate: RateSetting| rate.with(burst);
        let change = LimitChange { egress: egress.map(limit), ingress: ingress.map(limit) };
        let cgroup = match whose.which() {
            Ok(endpoint) => {
                let done = context.manager(mode).await?.set_limits(&endpoint, change, unnamed).await?;
                return print(context, mode, &done);
            }
            Err(cgroup) => cgroup,
        };
        let Some(limit) = change.egress.flatten() else { return lift(context, mode, &cgroup).await };
        let request = CgroupLimitRequest { cgroup, limit };
        let done = context.manager(mode).await?.limit_cgroup(&request, unnamed).await?;
        let made = &done.value;
        let (whose, rate, by) = (made.cgroup.in_full(), made.limit.rate, made.pacing.discipline());
        let line = format!("{whose}: egress {rate}, by {by}");
        context.print_made(mode, &done, output::Limit::from(made), &line)
    }
}
