//! The command line: noun, then verb. Arguments and what is printed; what happens is in [`crate::manage`].
//!
//! stdout is the answer, stderr is everything else. Exit 0: done, 1: failed, 2: the command makes no sense.

mod apply;
mod completions;
mod context;
mod deny;
mod doctor;
mod drops;
mod floating;
mod flow;
mod graph;
mod hints;
mod home;
mod instance;
mod limit;
mod lines;
mod link;
mod masquerade;
mod namespace;
mod network;
mod portmap;
mod router;
mod run;
mod top;
mod trace;

use std::io;
use std::process::ExitCode;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use self::context::{Context, DEFAULT_INSTANCE, Global, LostHome};
use self::home::Without;
use crate::instance::Instance;
use crate::{file, manage, spec, store};

/// Networks for namespaces on eBPF: addresses, masquerade, published ports. Without iptables, without a daemon.
#[derive(Debug, Parser)]
#[command(
    name = "vnet",
    version,
    after_help = "\
Examples:
  vnet up                                  bridge vnet0, 192.168.0.0/24, programs on the uplink
  vnet ns create net1                      a namespace with 192.168.0.2
  vnet ns exec net1 -- ping 203.0.113.2    out through masquerade
  vnet portmap add 8088 net1:80            published on every address of the host
  vnet down                                nothing is left

Exit status: 0 done, 1 failed, 2 the command makes no sense. Everything is idempotent."
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(instance::Up),
    Down(instance::Down),
    Status(instance::Status),
    Doctor(doctor::Doctor),
    Apply(apply::Apply),
    Export(apply::Export),
    /// Networks: a bridge with its prefixes, gateway and masquerade.
    #[command(subcommand)]
    Network(network::Command),
    /// Endpoints: network namespaces with a link to a network.
    #[command(subcommand)]
    Ns(namespace::Command),
    /// Direct links: two endpoints joined by a pair of interfaces of their own.
    #[command(subcommand)]
    Link(link::Command),
    /// Routers: network namespaces with a link to a bridge of this host, each with an instance of its own.
    #[command(subcommand)]
    Router(router::Command),
    /// Published ports: ports of the host that lead to an endpoint.
    #[command(subcommand)]
    Portmap(portmap::Command),
    /// Masquerade: sources that leave the host under the host's address.
    #[command(subcommand)]
    Masquerade(masquerade::Command),
    /// Floating addresses: addresses of the host that are one endpoint's alone.
    #[command(subcommand)]
    Floating(floating::Command),
    /// Limits: how much endpoints may send and receive, and cgroups may send.
    #[command(subcommand)]
    Limit(limit::Command),
    /// The deny list: sources that uplinks with XDP drop.
    #[command(subcommand)]
    Deny(deny::Command),
    /// Flows that are tracked.
    #[command(subcommand)]
    Flow(flow::Command),
    Drops(drops::Drops),
    Graph(graph::Draw),
    Trace(trace::Trace),
    Run(run::Run),
    Top(top::Top),
    Completions(completions::Completions),
}

impl Command {
    /// The instance that it is about, if not the one that is named for all commands.
    fn own_instance(&self) -> Option<&Instance> {
        match self {
            Self::Router(command) => command.instance(),
            _ => None,
        }
    }

    /// Reads what it has to know before anything else happens.
    fn prepare(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Apply(command) => command.read(),
            _ => Ok(()),
        }
    }

    /// What it makes of a router whose namespace is not there.
    fn without_home(&self) -> Without {
        match self {
            Self::Up(_) | Self::Down(_) => Without::Works,
            Self::Router(command) if command.makes() => Without::Makes,
            Self::Router(command) if command.instance().is_none() => Without::Outside,
            Self::Router(_) => Without::Works,
            Self::Apply(command) if command.makes_router() => Without::Makes,
            Self::Apply(_) => Without::Works,
            _ => Without::Fails,
        }
    }

    /// Checks what a router is to be linked to, before it is entered.
    fn check_outside(&self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Router(command) => command.check(context),
            Self::Apply(command) => command.check(context),
            _ => Ok(()),
        }
    }

    async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Up(command) => command.run(context).await,
            Self::Down(command) => command.run(context).await,
            Self::Status(command) => command.run(context).await,
            Self::Doctor(command) => command.run(context).await,
            Self::Apply(command) => command.run(context).await,
            Self::Export(command) => command.run(context),
            Self::Network(command) => command.run(context).await,
            Self::Ns(command) => command.run(context).await,
            Self::Link(command) => command.run(context).await,
            Self::Router(command) => command.run(context).await,
            Self::Portmap(command) => command.run(context).await,
            Self::Masquerade(command) => command.run(context).await,
            Self::Floating(command) => command.run(context).await,
            Self::Limit(command) => command.run(context).await,
            Self::Deny(command) => command.run(context).await,
            Self::Flow(command) => command.run(context).await,
            Self::Drops(command) => command.run(context).await,
            Self::Graph(command) => command.run(context).await,
            Self::Trace(command) => command.run(context).await,
            Self::Run(command) => command.run(context).await,
            Self::Top(command) => command.run(context).await,
            Self::Completions(command) => command.run(),
        }
    }
}

/// Runs the command of this process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { global, mut command } = Cli::parse();
    let mut context = Context::new(global);
    if let Some(instance) = command.own_instance() {
        context.instance = instance.clone().waiting(context.instance.wait());
    }
    let usual = std::env::var("VNET_INSTANCE").unwrap_or_else(|_| DEFAULT_INSTANCE.to_owned());
    hints::are_for(&context.instance, &usual);
    store::tell_of_damage(&context.instance);
    let result = command.prepare().and_then(|()| home::enter(&command, &context)).and_then(|lost| {
        context.lost_home = lost.map(LostHome::new);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(command.run(&context))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has had enough of it.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(usage) = error.downcast_ref::<clap::Error>() {
                usage.exit();
            }
            eprintln!("vnet: {}", hints::complete(&manage::in_full(error.as_ref())));
            ExitCode::from(exit_status(&error))
        }
    }
}

/// Reads one of a few words, which are listed by `--help` and completed by shells.
fn one_of<T>(words: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = spec::Error> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(words).try_map(|word| word.parse())
}

/// Arguments that do not go together.
fn usage(message: &str) -> anyhow::Error {
    Cli::command().error(ErrorKind::ArgumentConflict, message).into()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(broken)
            || cause
                .downcast_ref::<serde_json::Error>()
                .is_some_and(|error| error.io_error_kind() == Some(io::ErrorKind::BrokenPipe))
    })
}

/// 2 for a request that makes no sense in itself, 1 for one that could not be fulfilled.
fn exit_status(error: &anyhow::Error) -> u8 {
    let is_spec = matches!(error.downcast_ref(), Some(manage::Error::Spec(_)));
    let bad_lines = error.downcast_ref::<lines::BadLines>();
    let problems = error.downcast_ref::<file::Problems>();
    if is_spec
        || problems.is_some_and(|problems| problems.make_no_sense)
        || bad_lines.is_some_and(|bad| bad.makes_no_sense)
    {
        2
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_people_type_is_understood() {
        for line in [
            "up",
            "up --uplink eth0 --uplink eth1 --subnet 10.0.0.0/24 --subnet fd00::/64 --bridge br7 --dry-run --json",
            "up --nat-ports 40000-49999 --timeout udp-replied=5m --timeout tcp-established=7440 --firewall respect",
            "up --max-flows 1000 --max-unanswered 500 --endpoint-flows 0 --endpoint-unanswered 100",
            "up --xdp native --flood-rate 100 --flood-total 5000",
            "up --xdp eth0=generic --xdp eth1=off --dry-run",
            "--instance blue down --dry-run",
            "--wait 5 ns create net1",
            "portmap rm 8088 --wait 0",
            "status --json",
            "doctor",
            "doctor --json",
            "apply -f vnet.toml",
            "apply -f a.toml -f /etc/vnet --file - --prune --dry-run --json",
            "export",
            "network create blue --subnet 10.1.0.0/24 --gateway 10.1.0.254 --mtu 1400 --internal --isolated",
            "network create blue --subnet 10.1.0.0/24 --gateway-mode routed --udp-mapping address-and-port",
            "network set blue --tcp-mapping endpoint-independent --filtering address --dry-run",
            "network create blue",
            "network create blue --subnet 10.1.0.0/24 --range 10.1.0.128/25 --reserve 10.1.0.200",
            "network connect blue web",
            "network connect blue web --ip 10.1.0.9 --mac 02:00:00:00:00:01 --ifname lan0 --default-route --dry-run",
            "network connect blue web --route 10.50.0.0/16 --route fd50::/64=fd01::9",
            "network disconnect blue web --dry-run --json",
            "network leases",
            "network leases blue --json",
            "network ls",
            "network inspect blue --json",
            "network rm blue --dry-run",
            "ns create net1",
            "ns create net1 --network blue --ip 10.1.0.9 --ip fd00::9 --mac 02:00:00:00:00:01 --ifname lan0",
            "ns create net1 --mode none",
            "ns create net1 --mode host",
            "ns create net1 --mode container:web",
            "ns create net1 --route 10.50.0.0/16",
            "ns attach net1 --pid 1234 --network blue",
            "ns attach net1 --netns /run/netns/x --ip 10.1.0.9",
            "ns exec net1 -- ping -c 1 192.168.0.1",
            "ns exec net1 ip -j addr",
            "ns rm net1",
            "portmap add 8088 192.168.0.2:80",
            "portmap add [fd00::1]:8000-8010 net1:8000-8010 --proto udp",
            "portmap add 8088 net1:80 --allow-from 10.0.0.0/8 --allow-from fd00::/64",
            "portmap add 3868 net1:3868 --proto sctp",
            "portmap add --file mappings.txt --dry-run",
            "portmap add --file -",
            "portmap rm --file - --json",
            "portmap move 8088 net2:80 --dry-run",
            "portmap move [fd00::1]:8000-8010 net2:8000-8010 --proto udp",
            "portmap rm 127.0.0.1:8088 --proto udp",
            "portmap ls",
            "masquerade add 10.0.0.0/8 --to 203.0.113.1",
            "masquerade rm 10.0.0.0/8",
            "masquerade exclude 10.8.0.0/16",
            "masquerade include 10.8.0.0/16 --dry-run",
            "masquerade ls",
            "floating add 203.0.113.5 192.168.0.2",
            "floating add 2001:db8::5 net1 --dry-run",
            "floating rm 203.0.113.5",
            "floating ls --json",
            "limit set net1 --egress 50mbit",
            "limit set net1 --egress none --ingress 1.5gbit --burst 256k --dry-run",
            "limit rm net1 --json",
            "limit ls",
            "limit set --cgroup /user.slice/user-1000.slice --egress 50mbit --burst 64k --dry-run",
            "limit set --classid 1:10 --egress none",
            "limit set net1 --egress 50mbit --burst default",
            "limit rm --cgroup /sys/fs/cgroup/batch --json",
            "link create a b --ip 192.168.1.1/24 --ip 192.168.1.2/24 --ifname l0 --ifname l1 --mtu 9000 --dry-run",
            "link rm a b --json",
            "link ls",
            "router create r1 --outside br-out --address 16.158.1.100/24 --gateway 16.158.1.1 --subnet 192.168.1.0/24",
            "router create r1 --outside br0 --address 2001:db8::2/64 --mac 02:00:00:00:00:01 --bridge br7 --dry-run",
            "router inspect r1 --json",
            "router ls",
            "router rm r1 --dry-run",
            "deny add 198.51.100.0/24 2001:db8::/32 --dry-run",
            "deny rm 198.51.100.0/24",
            "deny ls --json",
            "flow ls",
            "flow ls --all --sort bytes --limit 10 --endpoint net1 --proto icmpv6 --state new,opener-closed --port 80",
            "flow ls --address 198.51.100.0/24 --mapping 8088 --confirmed",
            "flow watch --json",
            "flow watch --address 2001:db8::1 --mapping all --unconfirmed",
            "flow flush --dry-run",
            "flow flush --endpoint net1 --state reset --state closing",
            "flow stats --json",
            "drops",
            "drops -f",
            "drops --hook from_uplink --reason direct-access,denied",
            "drops -f --count 10 --duration 1m --endpoint net1",
            "drops --pcapng drops.pcapng --snaplen 128 --max-size 10m --count 1000 --duration 90s",
            "graph",
            "graph --format dot -o vnet.dot --interval 0",
            "graph --format mermaid --interval 0.5 --json",
            "status --svg vnet.svg",
            "top",
            "top --once --limit 5",
            "top -n 60 --interval 0.5 --json --show flows,drops",
            "trace tcp 203.0.113.2:5555 203.0.113.1:8088",
            "trace tcp [2001:db8::2]:5555 [2001:db8::1]:8088 --from outside --uplink eth0 --flags syn,ack --json",
            "trace udp 192.168.0.2:4000 9.9.9.9:53 --from net1 --ttl 1",
            "trace icmp 192.168.0.2 9.9.9.9 --id 7 --reply --length 1600",
            "trace sctp 127.0.0.1:5555 127.0.0.1:3868 --from host",
            "run",
            "run --metrics 127.0.0.1:9464 --check 10 --hook-check 0 --drops --log-level debug --json",
            "run --metrics 0.0.0.0:9464 --metrics-remote",
            "run --metrics unix:/run/vnet/metrics.sock",
            "run -f /etc/vnet -f extra.toml --prune --program-log trace",
            "run --resolver --resolver-domain lab.example",
            "completions bash",
        ] {
            let words = std::iter::once("vnet").chain(line.split(' '));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for line in [
            "",
            "nonsense",
            "--instance a/b status",
            "status --wait soon",
            "up --subnet 192.168.0.5/24",
            "up --bridge a-name-that-is-too-long",
            "up --nat-ports 50000",
            "up --nat-ports 50000-50062",
            "up --timeout udp=5m",
            "up --timeout udp-replied=0",
            "up --timeout udp-replied",
            "up --max-flows 0",
            "up --max-unanswered 16777217",
            "up --endpoint-flows many",
            "up --firewall maybe",
            "up --xdp",
            "up --xdp eth0",
            "up --xdp eth0=fast",
            "up --flood-rate many",
            "limit set net1",
            "link create a b",
            "link create a --ip 192.168.1.1/24",
            "link create a b --ip 192.168.1.1/24 --mtu 100",
            "link rm a",
            "limit set net1 --burst 64k",
            "limit set --egress 50mbit",
            "limit set net1 --cgroup /a --egress 50mbit",
            "limit set --cgroup /a --classid 1:10 --egress 50mbit",
            "limit set --cgroup /a --ingress 50mbit",
            "limit set --cgroup /a/../b --egress 50mbit",
            "limit set --classid 0 --egress 50mbit",
            "limit rm",
            "limit set net1 --egress 50",
            "limit set net1 --ingress 50mbit --burst 0",
            "deny add",
            "deny add 198.51.100.1/24",
            "network set blue --gateway-mode bridge",
            "network set --filtering address",
            "masquerade exclude 10.0.0.1/8",
            "masquerade include",
            "floating add 203.0.113.5",
            "floating add net1 203.0.113.5",
            "floating add 203.0.113.5 a/b",
            "network create",
            "network create blue --range 10.1.0.1/24",
            "network create blue --reserve 10.1.0.0/24",
            "network connect blue",
            "network connect blue web --route 0.0.0.0/0",
            "network disconnect web",
            "network create ../x --subnet 10.0.0.0/24",
            "ns create net1 --mode macvlan",
            "ns create net1 --mac 03:00:00:00:00:00",
            "ns attach net1",
            "ns attach net1 --pid 1 --netns /x",
            "ns exec net1",
            "portmap add 8088",
            "portmap add",
            "portmap add 8088 net1:80 --file mappings.txt",
            "portmap add --file mappings.txt --proto udp",
            "portmap rm",
            "portmap rm 8088 --file -",
            "portmap add 0 net1:80",
            "portmap add 8088 net1:80 --proto icmp",
            "portmap add 8080:80",
            "portmap add 8088 net1:80 --allow-from 10.0.0.1/8",
            "router create r1 --outside br-out",
            "router create r1 --address 16.158.1.100/24",
            "router create a.b --outside br-out --address 16.158.1.100/24",
            "router create r1 --outside br-out --address 16.158.1.100",
            "flow ls --confirmed --unconfirmed",
            "flow ls --state nonsense",
            "flow ls --proto 6",
            "flow ls --port 65536",
            "flow ls --address somewhere",
            "flow ls --mapping some",
            "flow ls --sort size",
            "flow watch --limit 1",
            "flow flush --all",
            "portmap move 8088",
            "masquerade add 10.0.0.1/8",
            "apply",
            "apply vnet.toml",
            "drops --reason because",
            "drops --snaplen 64",
            "drops --pcapng x --snaplen 100000",
            "drops --pcapng x --count 0",
            "graph --format png",
            "top --once -n 2",
            "top -n 0",
            "top --show cats",
            "graph --interval -1",
            "run --metrics 9464",
            "run --metrics-remote",
            "run --check 0",
            "run --prune",
            "run --resolver-domain lab.example",
            "run --resolver --resolver-domain a..b",
            "run --program-log loud",
            "run --log-level loud",
            "trace",
            "trace tcp 203.0.113.2:5555",
            "trace igmp 203.0.113.2 224.0.0.1",
            "trace tcp 203.0.113.2:5555 203.0.113.1:80 --flags loud",
            "trace tcp 203.0.113.2:5555 203.0.113.1:80 --ttl 256",
            "trace tcp 203.0.113.2:5555 203.0.113.1:80 --uplink a-name-that-is-too-long",
        ] {
            let words = std::iter::once("vnet").chain(line.split(' ').filter(|word| !word.is_empty()));
            let error = Cli::try_parse_from(words).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
