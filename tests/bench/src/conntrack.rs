//! Many tracked connections: what a packet of one of them costs, what each takes of memory, and what it costs to forget
//! those that are over.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path as FilePath;

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use vnet_common::maps;
use vnet_tests::frame::Frame;
use vnet_tests::lab::{Endpoint, Lab, eventually};
use vnet_tests::runner::{Kernel, Runner as _, Stage};

use crate::case::{Case, Effort, Kind};
use crate::chart::thousands;
use crate::ebpf::skb;
use crate::ebpf::timer::{Runs, Timed, in_turns};
use crate::generator::Sample;
use crate::programs::{Masqueraded, boundless_world};
use crate::raw::ManyFlows;
use crate::results::{Quantity, Section, VNET};
use crate::rival::{OUTSIDE_PORT, Path, Rival, Site};
use crate::run::{Plan, Run};

/// The section.
pub(crate) const NAME: &str = "conntrack";
pub(crate) const MEMORY: &str = "memory of a connection, both directions";
const EMPTY: &str = "a connection begun and confirmed, table empty";
const EXPIRED: &str = "a connection begun and confirmed, table full of expired ones";
/// The rival that tracks connections with nf_conntrack, and looks up little else.
const TRACKER: &str = "nftables";

/// From how many connections on the memory that the kernel takes meanwhile is theirs.
const TELLING: u32 = 10_000;

/// How many.
const fn sizes(effort: Effort) -> &'static [u32] {
    match effort {
        Effort::Full => &[1, 1_000, 100_000, 1_000_000],
        Effort::Quick => &[1, 1_000, 20_000],
    }
}

/// How many expire.
const fn expiring(effort: Effort) -> u32 {
    match effort {
        Effort::Full => 100_000,
        Effort::Quick => 10_000,
    }
}

const fn runs(effort: Effort) -> Runs {
    match effort {
        Effort::Full => Runs { rounds: 20, packets: 20_000 },
        Effort::Quick => Runs { rounds: 5, packets: 5_000 },
    }
}

/// The title of what is measured beside so many connections.
fn title(size: u32, what: &str) -> String {
    let connections = if size == 1 { "connection" } else { "connections" };
    format!("{} {connections}, {what}", thousands(f64::from(size)))
}

/// Measures all of it.
pub(crate) fn measure(run: &Run<'_>, section: &mut Section) {
    by_test_run(run, section);
    expiry(run, section);
    for rival in run.present.iter().filter(|rival| [VNET, TRACKER].contains(&rival.name())) {
        if let Err(error) = by_traffic(run, section, rival.as_ref()) {
            section.lacks(rival.name(), &format!("{error:#}"));
        }
    }
}

/// A table with room for the most of them, so that nothing but their number differs.
fn by_test_run(run: &Run<'_>, section: &mut Section) {
    let effort = run.plan.effort;
    let room = sizes(effort).iter().copied().max().unwrap_or_default();
    for &size in sizes(effort) {
        eprintln!("==> tracked connections: {size}, by test run");
        let found = run.guarded(|| {
            Stage::run(|stage| {
                run.rig.stay()?;
                let mut kernel = Kernel::tc_with_room(stage, room + room / 16);
                kernel.fill(&boundless_world());
                established(&kernel, size, run.plan)
            })
        });
        let note = |section: &mut Section, what: &str, outcome| {
            run.note(section, &Quantity::cost(title(size, what), "ns"), VNET, || outcome);
        };
        match found.and_then(|found| found) {
            Ok(found) => {
                for (what, cost) in found {
                    note(section, what, Ok(Sample::plain(cost)));
                }
            }
            Err(error) => note(section, "a packet", Err(error)),
        }
    }
}

/// What a packet of each of so many connections costs, in turns; one entry for each repetition.
fn established(kernel: &Kernel, size: u32, plan: &Plan) -> Result<Vec<(&'static str, f64)>> {
    // A prime far from any power of two: neighbours in time are none in the table.
    const STEP: u32 = 7_368_787;
    let all = Masqueraded { count: size, step: 1, ..Masqueraded::FIRST };
    all.establish(kernel)?;
    let scattered = Masqueraded { step: STEP % size.max(2), ..all };
    let mut found = Vec::new();
    for _ in 0..plan.repetitions {
        let mut all = [
            Timed::new("a packet out", scattered.out(kernel, Frame::ack)?, skb::REDIRECT),
            Timed::new("a packet back", scattered.back(kernel, Frame::ack)?, skb::REDIRECT),
        ];
        in_turns(&mut all, runs(plan.effort))?;
        found.extend(all.iter().map(|it| (it.name, it.cost())));
    }
    Ok(found)
}

/// Nobody goes about to remove connections that are over: whoever needs the room does. So this is what it costs.
fn expiry(run: &Run<'_>, section: &mut Section) {
    eprintln!("==> expired connections");
    for _ in 0..run.plan.repetitions {
        let found = run.guarded(|| {
            Stage::run(|stage| {
                run.rig.stay()?;
                let count = expiring(run.plan.effort);
                let mut kernel = Kernel::tc_with_room(stage, count);
                before_and_after(&mut kernel, count)
            })
        });
        let outcomes = match found.and_then(|found| found) {
            Ok([empty, expired]) => vec![(EMPTY, Ok(empty)), (EXPIRED, Ok(expired))],
            Err(error) => vec![(EXPIRED, Err(error))],
        };
        for (what, outcome) in outcomes {
            run.note(section, &Quantity::cost(what, "ns"), VNET, || outcome.map(Sample::plain));
        }
    }
}

/// What a connection takes to be established in an empty table, and in one that has only expired ones.
fn before_and_after(kernel: &mut Kernel, count: u32) -> Result<[f64; 2]> {
    let mut world = boundless_world();
    kernel.fill(&world);
    let first = Masqueraded { count, step: 1, ..Masqueraded::FIRST };
    let empty = first.establish(kernel)?;
    let (idle, since) = (1, vnet::kernel::Kernel::now());
    eventually(
        || (vnet::kernel::Kernel::now() > since + idle + 1).then_some(()),
        || "the clock to go on".to_owned(),
    );
    world.config.tcp_established = idle;
    kernel.configure(world.config);
    let expired = Masqueraded { count, step: 1, ..Masqueraded::SECOND }.establish(kernel)?;
    Ok([empty, expired])
}

/// Real packets past real connections.
fn by_traffic(run: &Run<'_>, section: &mut Section, rival: &dyn Rival) -> Result<()> {
    let name = rival.name();
    let mut host = run.guarded(|| Tracking::new(rival, run.plan.effort))??;
    let before = kernel_memory()?;
    for &size in sizes(run.plan.effort) {
        if size > host.room {
            section.lacks(
                name,
                &format!("net.netfilter.nf_conntrack_max leaves room for {} connections", host.room),
            );
            break;
        }
        eprintln!("==> tracked connections: {size}, {name}");
        run.guarded(|| {
            host.flows.establish(size, &|done| {
                run.interrupt.check();
                eprintln!("    {done} are established");
            })
        })??;
        host.confirm(size)?;
        for _ in 0..run.plan.repetitions {
            for kind in [Kind::Rr, Kind::Crr] {
                let count = kind.count(run.plan.effort) / 2;
                let quantity = Quantity::cost(title(size, kind.title()), kind.unit());
                // Connections that are over keep their external port for minutes, towards the port they went to.
                host.path.port += 1;
                host.path.dials.set_port(host.path.port);
                run.note(section, &quantity, name, || run.rig.measure(&host.path, kind, count));
            }
        }
        let most = sizes(run.plan.effort).iter().rev().find(|size| **size <= host.room);
        if Some(&size) == most && size >= TELLING {
            let memory = host.memory(size, before);
            run.note(section, &Quantity::cost(MEMORY, "bytes"), name, || memory);
        }
    }
    run.take_down(name, host);
    Ok(())
}

/// A host with a client in an endpoint.
#[derive(Debug)]
struct Tracking {
    flows: ManyFlows,
    path: Path,
    /// How many connections there is room for.
    room: u32,
    made: Made,
}

#[derive(Debug)]
enum Made {
    Vnet(Lab),
    Other(#[expect(dead_code, reason = "stands as long as it is kept")] Box<dyn Site>),
}

impl Tracking {
    fn new(rival: &dyn Rival, effort: Effort) -> Result<Self> {
        let most = sizes(effort).iter().copied().max().unwrap_or_default();
        if rival.name() == VNET {
            let lab = Lab::new();
            // Room for the connections that are measured with, too.
            let room = most + most / 16 + 16_384;
            lab.vnet_ok(&["up", "--max-flows", &room.to_string(), "--endpoint-flows", "0"]);
            let net1: Endpoint = lab.endpoint("net1");
            let flows = ManyFlows::new((net1.netns(), net1.v4()), lab.outside())?;
            let path = Path {
                client: net1.netns().clone(),
                dials: (vnet_tests::lab::OUTSIDE_V4, OUTSIDE_PORT).into(),
                server: lab.outside().clone(),
                port: OUTSIDE_PORT,
            };
            return Ok(Self { flows, path, room, made: Made::Vnet(lab) });
        }
        let site = rival.set_up();
        let path = site.path(Case::Masquerade);
        let flows = ManyFlows::new((&path.client, crate::rival::NET1), &path.server)?;
        // The limit is the kernel's, for all namespaces together.
        let limit = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max");
        let limit: u32 = limit.context("read nf_conntrack_max")?.trim().parse()?;
        Ok(Self { flows, path, room: limit.saturating_sub(16_384), made: Made::Other(site) })
    }

    /// Looks whether vnet takes all of them for answered; nf_conntrack knows no difference.
    fn confirm(&self, connections: u32) -> Result<()> {
        let Made::Vnet(lab) = &self.made else { return Ok(()) };
        let stats = lab.vnet_json(&["flow", "stats"]);
        let tables = stats["stats"][0]["tables"].as_array().context("no tables in `vnet flow stats`")?;
        let confirmed = tables.iter().find(|table| table["map"] == maps::CONNTRACK);
        let used = confirmed.and_then(|table| table["used"].as_u64()).context("no table of flows")?;
        ensure!(used >= u64::from(connections), "only {used} of {connections} connections are confirmed");
        Ok(())
    }

    /// Bytes that one of so many connections takes.
    fn memory(&self, connections: u32, before: u64) -> Result<Sample> {
        match &self.made {
            // All of it is taken at the start.
            Made::Vnet(lab) => {
                let mut bytes = 0;
                for map in [maps::CONNTRACK, maps::FLOW_SLOTS] {
                    bytes += map_memory(&lab.pin_dir().join(map))?;
                }
                Ok(Sample::plain(bytes as f64 / f64::from(self.room)))
            }
            Made::Other(_) => {
                let grown = kernel_memory()?.checked_sub(before).context("the kernel's memory has shrunk")?;
                Ok(Sample::plain(grown as f64 / f64::from(connections)))
            }
        }
    }
}

/// Bytes that the kernel says a map takes.
fn map_memory(pin: &FilePath) -> Result<u64> {
    let data = MapData::from_pin(pin).with_context(|| format!("open {}", pin.display()))?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd()))?;
    number_after(&info, "memlock:").context("the kernel does not say what a map takes")
}

/// Bytes that the kernel has taken for itself and could not give back.
fn kernel_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let kibibytes = number_after(&text, "SUnreclaim:").context("no SUnreclaim in /proc/meminfo")?;
    Ok(kibibytes * 1024)
}

/// The number behind a word at the start of a line.
fn number_after(text: &str, word: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_behind_their_word() {
        assert_eq!(number_after("Slab: 1 kB\nSUnreclaim:   42 kB\n", "SUnreclaim:"), Some(42));
        assert_eq!(number_after("memlock:\t512\n", "memlock:"), Some(512));
        assert_eq!(number_after("memlock:\n", "memlock:"), None);
    }

    #[test]
    fn titles_count() {
        assert_eq!(title(1, "x"), "1 connection, x");
        assert_eq!(title(1_000_000, "x"), "1,000,000 connections, x");
    }

    /// All that expired make room, and nothing is lost.
    #[test]
    fn expired_connections_make_room_for_others() {
        Stage::run(|stage| {
            let count = 5_000;
            let mut kernel = Kernel::tc_with_room(stage, count);
            let [empty, expired] = before_and_after(&mut kernel, count).unwrap();
            assert!(empty > 0.0 && expired > 0.0, "{empty} {expired}");
            assert_eq!(kernel.flows().values().filter(|entry| entry.confirmed).count(), 2 * 5_000);
        });
    }
}
