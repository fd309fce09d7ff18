//! Floods: what a frame that nobody wants costs one CPU, and what an honest client feels meanwhile.
//!
//! Frames are generated in the kernel, by test runs with live frames. For the cost they are handed in where the uplink's
//! driver would, all on one CPU: vnet's XDP program is run on them, or for the others the host's stack gets them. Beside
//! a client they cross the uplink, so many in each millisecond, and its driver is on the CPU of the flood.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use vnet_tests::frame::Frame;
use vnet_tests::lab::{Endpoint, HOST_V4, Lab, Netns, UPLINK};
use vnet_tests::peer::{Generator, Goes, interface_mac, live};

use crate::case::{Case, Effort, Kind};
use crate::generator::Sample;
use crate::results::{Quantity, Section, VNET};
use crate::rival::{Path, Rival, Site};
use crate::run::Run;

/// Who floods.
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 64, 7, 7));
/// The published port of every rival.
const PUBLISHED: u16 = 8088;
/// New connections of a source that are let through in a second.
const RATE: u32 = 100;
/// Sources on a long list.
const MANY: u32 = 10_000;
/// Frames that cross the uplink in a second, beside the client.
const OFFERED: [u32; 3] = [100_000, 300_000, 600_000];

/// How many frames a cost is measured with.
const fn frames(effort: Effort) -> u32 {
    match effort {
        Effort::Full => 2_000_000,
        Effort::Quick => 500_000,
    }
}

/// What somebody has against a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defence {
    Nothing,
    /// Its source is denied.
    Denied,
    /// It and many others are.
    DeniedAmongMany,
    /// New connections of a source have a rate.
    Limited,
}

impl Defence {
    const ALL: [Self; 4] = [Self::Denied, Self::DeniedAmongMany, Self::Limited, Self::Nothing];

    const fn title(self) -> &'static str {
        match self {
            Self::Nothing => "SYNs of one connection, no defence",
            Self::Denied => "SYNs, their source denied",
            Self::DeniedAmongMany => "SYNs, their source one of 10,000 denied",
            Self::Limited => "SYNs, beyond the rate of their source",
        }
    }
}

/// Measures vnet and all that are firewalls.
pub(crate) fn measure(run: &Run<'_>, section: &mut Section) {
    for repetition in 0..run.plan.repetitions {
        eprintln!("==> floods, repetition {} of {}", repetition + 1, run.plan.repetitions);
        match run.guarded(Host::of_vnet) {
            Ok(host) => all(run, section, VNET, &host),
            Err(error) => section.lacks(VNET, &format!("it could not be set up: {error:#}")),
        }
        for rival in &run.present {
            let Some(firewall) = Firewall::of(rival.as_ref()) else { continue };
            match run.guarded(|| Host::of(rival.as_ref(), firewall)) {
                Ok(host) => all(run, section, rival.name(), &host),
                Err(error) => section.lacks(rival.name(), &format!("it could not be set up: {error:#}")),
            }
        }
    }
}

fn all(run: &Run<'_>, section: &mut Section, name: &str, host: &Host) {
    let count = frames(run.plan.effort);
    for defence in Defence::ALL {
        let defended = run.guarded(|| host.defend(defence));
        let quantity = Quantity::cost(defence.title(), "ns");
        run.note(section, &quantity, name, || {
            defended?;
            run.rig.stay()?;
            host.cost(defence, count)
        });
    }
    if name == VNET {
        let floor = Quantity::cost("a program that drops all, and nothing else", "ns");
        run.note(section, &floor, name, || {
            run.rig.stay()?;
            Ok(per_frame(
                Generator::on((&host.host, UPLINK), Goes::Down, &host.syn(), false).run(count),
                count,
            ))
        });
    }
    for defence in [Defence::Limited, Defence::Nothing] {
        let defended = run.guarded(|| host.defend(defence));
        if let Err(error) = defended {
            section.lacks(name, &format!("{error:#}"));
            continue;
        }
        let beside = if defence == Defence::Nothing { "no defence" } else { "beyond its rate" };
        for offered in OFFERED {
            let title = format!("one byte there and back beside {} SYNs/s, {beside}", offered);
            run.note(section, &Quantity::cost(title, "µs"), name, || host.beside(run, offered));
        }
    }
    let quiet = Quantity::cost("one byte there and back, no flood", "µs");
    run.note(section, &quiet, name, || run.rig.measure(&host.path, Kind::Rr, round_trips(run)));
}

fn round_trips(run: &Run<'_>) -> u64 {
    Kind::Rr.count(run.plan.effort) / 4
}

fn per_frame(took: Duration, count: u32) -> Sample {
    Sample::plain(took.as_nanos() as f64 / f64::from(count))
}

/// Whose rules drop.
#[derive(Clone, Copy, Debug)]
enum Firewall {
    Vnet,
    Nft,
    Iptables(&'static str),
}

impl Firewall {
    fn of(rival: &dyn Rival) -> Option<Self> {
        match rival.name() {
            "nftables" => Some(Self::Nft),
            name @ ("iptables-nft" | "iptables-legacy") => Some(Self::Iptables(name)),
            _ => None,
        }
    }
}

/// A host with a published port.
struct Host {
    firewall: Firewall,
    outside: Netns,
    host: Netns,
    path: Path,
    // Dropped in this order.
    _net1: Option<Endpoint>,
    lab: Option<Lab>,
    _site: Option<Box<dyn Site>>,
}

impl Host {
    fn of_vnet() -> Self {
        let lab = Lab::up();
        let net1 = lab.endpoint("net1");
        lab.vnet_ok(&["portmap", "add", &PUBLISHED.to_string(), &format!("{}:80", net1.name())]);
        let path = Path {
            client: lab.outside().clone(),
            dials: (HOST_V4, PUBLISHED).into(),
            server: net1.netns().clone(),
            port: 80,
        };
        let (outside, host) = (lab.outside().clone(), lab.host().clone());
        Self { firewall: Firewall::Vnet, outside, host, path, _net1: Some(net1), lab: Some(lab), _site: None }
            .ready()
    }

    fn of(rival: &dyn Rival, firewall: Firewall) -> Self {
        let site = rival.set_up();
        let (path, host) = (site.path(Case::Published), site.path(Case::HostLocal).client);
        Self { firewall, outside: path.client.clone(), host, path, _net1: None, lab: None, _site: Some(site) }
            .ready()
    }

    /// With a driver that polls, as that of any network card; a pair of virtual interfaces has one only with receive
    /// offload or XDP.
    fn ready(self) -> Self {
        self.host.run(&["ethtool", "-K", UPLINK, "gro", "on"]).ok();
        self
    }

    /// The frame of the flood.
    fn syn(&self) -> Vec<u8> {
        let (mac, host_mac) = (interface_mac(&self.outside, UPLINK), interface_mac(&self.host, UPLINK));
        Frame::tcp((SOURCE, 40_000).into(), (HOST_V4, PUBLISHED).into()).syn().macs(mac, host_mac).build()
    }

    /// Sets one defence up instead of what was there.
    fn defend(&self, defence: Defence) {
        match self.firewall {
            Firewall::Vnet => self.vnet(defence),
            Firewall::Nft => self.nft(defence),
            Firewall::Iptables(program) => self.iptables(program, defence),
        }
    }

    fn vnet(&self, defence: Defence) {
        let lab = self.lab.as_ref().expect("vnet's own lab");
        let listed = lab.vnet_list(&["deny", "ls"], "denied");
        let listed: Vec<&str> = listed.iter().filter_map(|it| it["subnet"].as_str()).collect();
        if !listed.is_empty() {
            lab.vnet_ok(&[&["deny", "rm"], &listed[..]].concat());
        }
        let rate = if defence == Defence::Limited { RATE } else { 0 };
        let mode = if defence == Defence::Nothing { "off" } else { "native" };
        lab.vnet_ok(&["up", "--xdp", mode, "--flood-rate", &rate.to_string()]);
        let denied = denied(defence);
        if !denied.is_empty() {
            let words: Vec<&str> =
                ["deny", "add"].into_iter().chain(denied.iter().map(String::as_str)).collect();
            lab.vnet_ok(&words);
        }
    }

    /// Where it is cheapest: at the interface, before the stack has looked at the packet.
    fn nft(&self, defence: Defence) {
        // Deleted after it was made, so that it need not be there.
        let again = "add table netdev flood; delete table netdev flood;";
        let rule = match defence {
            Defence::Nothing => return drop(self.host.run(&["nft", again]).ok()),
            Defence::Limited => format!(
                "set sources {{ type ipv4_addr; size 65536; flags dynamic; timeout 10s; }}
                 chain ingress {{ type filter hook ingress device {UPLINK} priority 0;
                   tcp dport {PUBLISHED} tcp flags & (syn | ack) == syn \
                   update @sources {{ ip saddr & 255.255.255.0 limit rate over {RATE}/second burst {RATE} packets }} \
                   drop; }};"
            ),
            Defence::Denied | Defence::DeniedAmongMany => format!(
                "set denied {{ type ipv4_addr; flags interval; elements = {{ {} }} }}
                 chain ingress {{ type filter hook ingress device {UPLINK} priority 0; ip saddr @denied drop; }};",
                denied(defence).join(", ")
            ),
        };
        let file = self.file(&format!("{again}\ntable netdev flood {{ {rule} }}\n"));
        self.host.run(&["nft", "-f", file.path().to_str().expect("a path in UTF-8")]).ok();
    }

    /// In the table that comes first, before connections are tracked.
    fn iptables(&self, program: &str, defence: Defence) {
        let syn = format!("-A PREROUTING -i {UPLINK} -p tcp --dport {PUBLISHED} --syn");
        let rules: Vec<String> = match defence {
            Defence::Nothing => Vec::new(),
            Defence::Limited => vec![format!(
                "{syn} -m hashlimit --hashlimit-name flood --hashlimit-mode srcip --hashlimit-srcmask 24 \
                 --hashlimit-above {RATE}/second --hashlimit-burst {RATE} -j DROP"
            )],
            Defence::Denied | Defence::DeniedAmongMany => denied(defence)
                .iter()
                .map(|source| format!("-A PREROUTING -i {UPLINK} -s {source} -j DROP"))
                .collect(),
        };
        let text = format!("*raw\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n{}\nCOMMIT\n", rules.join("\n"));
        let file = self.file(&text);
        let restore = format!("{program}-restore");
        self.host.run(&[&restore, file.path().to_str().expect("a path in UTF-8")]).ok();
    }

    fn file(&self, text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::io::Write::write_all(&mut file, text.as_bytes()).expect("write a temporary file");
        file
    }

    /// What a frame of the flood costs this CPU, from the driver to its end.
    fn cost(&self, defence: Defence, count: u32) -> Result<Sample> {
        let (frame, before) = (self.syn(), self.arrived()?);
        let took = match (&self.lab, defence) {
            (None, _) | (_, Defence::Nothing) => {
                Generator::on((&self.host, UPLINK), Goes::Up, &frame, false).run(count)
            }
            (Some(lab), _) => {
                let pin = lab.pin_dir().join("programs/xdp_uplink");
                live(&pin, (&self.host, UPLINK), &frame, count)
            }
        };
        let arrived = self.arrived()? - before;
        let allowed = match defence {
            Defence::Nothing => u64::MAX,
            Defence::Denied | Defence::DeniedAmongMany => 50,
            // With a second's worth at once.
            Defence::Limited => u64::from(RATE) * (took.as_secs() + 3) + 50,
        };
        ensure!(arrived <= allowed, "{arrived} frames came through to the endpoint, {allowed} may");
        if defence == Defence::Nothing {
            ensure!(arrived > u64::from(count) / 2, "only {arrived} of {count} frames came to the endpoint");
        }
        let mut sample = per_frame(took, count);
        sample.details.insert("frames_per_second".to_owned(), f64::from(count) / took.as_secs_f64());
        Ok(sample)
    }

    /// Packets that the endpoint has received.
    fn arrived(&self) -> Result<u64> {
        let links = self.path.server.ip("-j -s link show dev eth0").json();
        links[0]["stats64"]["rx"]["packets"].as_u64().context("the endpoint's counters")
    }

    /// Round trips of an honest client while so many frames cross the uplink in a second.
    fn beside(&self, run: &Run<'_>, offered: u32) -> Result<Sample> {
        let over = AtomicBool::new(false);
        let (rig, mut generator) =
            (run.rig, Generator::on((&self.outside, UPLINK), Goes::Out, &self.syn(), false));
        thread::scope(|scope| {
            let over = &over;
            let flood = scope.spawn(move || {
                rig.stay()?;
                Ok::<_, anyhow::Error>(paced(&mut generator, offered, over))
            });
            let sample = run.rig.measure(&self.path, Kind::Rr, round_trips(run));
            over.store(true, Ordering::Relaxed);
            let sent = flood.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            let mut sample = sample?;
            sample.details.insert("offered_per_second".to_owned(), sent);
            Ok(sample)
        })
    }
}

/// The sources that a defence denies, that of the flood last.
fn denied(defence: Defence) -> Vec<String> {
    let others = match defence {
        Defence::Nothing | Defence::Limited => return Vec::new(),
        Defence::Denied => 0,
        Defence::DeniedAmongMany => MANY - 1,
    };
    let other = |number: u32| format!("{}/32", Ipv4Addr::from_bits(0x0a00_0000 + 7 * number));
    (0..others).map(other).chain([format!("{SOURCE}/32")]).collect()
}

/// Generates frames, some every millisecond, until it is told to stop; how many in a second there were.
fn paced(generator: &mut Generator, offered: u32, over: &AtomicBool) -> f64 {
    const TICK: Duration = Duration::from_millis(1);
    let (begun, mut sent) = (Instant::now(), 0_u64);
    while !over.load(Ordering::Relaxed) {
        let due = (begun.elapsed().as_secs_f64() * f64::from(offered)) as u64;
        // What it could not send in time is not made up for in one go.
        let count = due.saturating_sub(sent).min(u64::from(offered) / 100);
        if count > 0 {
            generator.run(count as u32);
            sent = due;
        } else {
            thread::sleep(TICK / 4);
        }
    }
    sent as f64 / begun.elapsed().as_secs_f64()
}
