//! The eBPF programs by themselves: what one packet costs, without wire, route or socket.
//!
//! A run may change the packet and the tables, so that each packet is run once and the median taken. The kernel's two
//! looks at the clock are a good part of so short a time: they are measured with a packet that is not ours, which may
//! be run once and a thousand times, and are taken off.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vnet_common::Hook;
use vnet_tests::case::world::{HOST_MAC, NET1, PEER_MAC, UPLINK, V4, at, world};
use vnet_tests::frame::Frame;
use vnet_tests::runner::{Arrival, Fate, Kernel, Runner as _, Stage};

use crate::case::Effort;
use crate::generator::Sample;
use crate::latency::rank;
use crate::results::{Quantity, Section, VNET};
use crate::run::Run;

/// The section.
pub(crate) const NAME: &str = "programs";
/// Kinds of packets.
pub(crate) const NOT_OURS: &str = "from_uplink, not ours";
pub(crate) const OUT: &str = "from_endpoint, established";
pub(crate) const BACK: &str = "from_uplink, established";
pub(crate) const NEW_OUT: &str = "from_endpoint, new, masqueraded";
pub(crate) const NEW_IN: &str = "from_uplink, new, published";

/// The port that is published in the world of the packet table.
const PUBLISHED: u16 = 8088;

/// How many packets of each kind.
const fn packets(effort: Effort) -> u16 {
    match effort {
        Effort::Full => 5_000,
        Effort::Quick => 500,
    }
}

/// Measures every kind of packet.
pub(crate) fn measure(run: &Run<'_>, section: &mut Section) {
    for _ in 0..run.plan.repetitions {
        let found = run.guarded(|| {
            Stage::run(|stage| {
                run.rig.stay()?;
                all(&mut Kernel::tc(stage), packets(run.plan.effort))
            })
        });
        match found.and_then(|found| found) {
            Ok(found) => {
                for (what, sample) in found {
                    run.note(section, &Quantity::cost(what, "ns"), VNET, || Ok(sample));
                }
            }
            Err(error) => {
                run.note(section, &Quantity::cost("all", "ns"), VNET, || Err(error));
            }
        }
    }
}

/// What each kind of packet takes, by name.
fn all(kernel: &mut Kernel, count: u16) -> Result<Vec<(&'static str, Sample)>> {
    kernel.fill(&world());
    let inside = |frame: Frame| frame.macs(NET1.mac, NET1.gateway_mac).build();
    let outside = |frame: Frame| frame.macs(PEER_MAC, HOST_MAC).build();
    let (client, www) = (at(V4.net1, 40_000), at(V4.www, 80));

    let not_ours = outside(Frame::tcp(www, at(V4.host, 22)).ack());
    let stranger = arrival(Hook::FromUplink, &not_ours);
    ensure!(kernel.run(&stranger).is_ok_and(|it| it.fate == Fate::Passed), "the stranger does not pass");
    let often = kernel.time(&stranger, 1_000);
    let once = median((0..count).map(|_| kernel.time(&stranger, 1)))?;
    let clock = once.saturating_sub(often);

    // A connection of an endpoint, until it is confirmed.
    let syn = inside(Frame::tcp(client, www).syn());
    let began =
        kernel.run(&arrival(Hook::FromEndpoint, &syn)).ok().context("the kernel refuses a SYN")?.began;
    let (_, translated) = began.first().context("no flow began")?;
    let seen = at(V4.host, translated.sport.number());
    let answer = outside(Frame::tcp(www, seen).syn().ack());
    let ack = inside(Frame::tcp(client, www).ack());
    let reply = outside(Frame::tcp(www, seen).ack());
    for (hook, frame) in [(Hook::FromUplink, &answer), (Hook::FromEndpoint, &ack), (Hook::FromUplink, &reply)]
    {
        let outcome = kernel.run(&arrival(hook, frame)).ok().context("the kernel refuses a packet")?;
        ensure!(outcome.fate == Fate::Redirected, "{} does not follow its flow: {outcome:?}", hook.name());
    }
    let established = |kernel: &mut Kernel, hook, frame: &[u8]| {
        median((0..count).map(|_| kernel.time(&arrival(hook, frame), 1)))
    };
    let out = established(kernel, Hook::FromEndpoint, &ack)?;
    let back = established(kernel, Hook::FromUplink, &reply)?;

    // Each of them new: they differ in the client's port.
    let first = 10_000;
    let syns: Vec<Vec<u8>> =
        (0..count).map(|n| inside(Frame::tcp(at(V4.net1, first + n), www).syn())).collect();
    let new_out = median(syns.iter().map(|frame| kernel.time(&arrival(Hook::FromEndpoint, frame), 1)))?;
    let published = at(V4.host, PUBLISHED);
    let syns: Vec<Vec<u8>> =
        (0..count).map(|n| outside(Frame::tcp(at(V4.www, first + n), published).syn())).collect();
    let new_in = median(syns.iter().map(|frame| kernel.time(&arrival(Hook::FromUplink, frame), 1)))?;

    let sample = |took: Duration| {
        let mut sample = Sample::plain(took.saturating_sub(clock).as_nanos() as f64);
        sample.details.insert("clock_ns".to_owned(), clock.as_nanos() as f64);
        sample
    };
    Ok(vec![
        (NOT_OURS, sample(once)),
        (OUT, sample(out)),
        (BACK, sample(back)),
        (NEW_OUT, sample(new_out)),
        (NEW_IN, sample(new_in)),
    ])
}

fn arrival(hook: Hook, frame: &[u8]) -> Arrival<'_> {
    let ifindex = if hook == Hook::FromEndpoint { NET1.ifindex } else { UPLINK };
    Arrival { hook, ifindex, came_in_by: 0, waited: false, segment: 0, frame }
}

fn median(took: impl Iterator<Item = Duration>) -> Result<Duration> {
    let mut took: Vec<Duration> = took.collect();
    took.sort_unstable();
    rank(&took, 500).context("nothing was measured")
}
