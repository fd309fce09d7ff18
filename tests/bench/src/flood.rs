//! Floods: what a frame that nobody wants costs one CPU, and what an honest client feels meanwhile.
//!
//! Frames are generated in the kernel, by test runs with live frames, and sent across the uplink, whose other end is
//! polled as a network card is; all on one CPU. So every cost has that of making a frame and moving it in it, which is
//! measured with a program that does nothing but drop. Beside a client and its server so many frames a second are made on
//! another CPU, and the uplink is polled on theirs, by a thread that goes before all others as interrupts do.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use vnet_tests::frame::Frame;
use vnet_tests::lab::{Endpoint, HOST_V4, Lab, Netns, UPLINK};
use vnet_tests::peer::{Generator, Redirect, interface_mac};

use crate::case::{Case, Effort, Kind};
use crate::chart::thousands;
use crate::delivery;
use crate::generator::Sample;
use crate::results::{Quantity, Section, VNET};
use crate::rig::Rig;
use crate::rival::{Path, Rival, Site};
use crate::run::Run;

/// As on the command line.
pub(crate) const NAME: &str = "floods";

/// Who floods.
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 64, 7, 7));
/// The published port of every rival.
const PUBLISHED: u16 = 8088;
/// New connections of a source that are let through in a second.
const RATE: u32 = 100;
/// Sources on a long list.
const MANY: u32 = 10_000;
/// How many times a generator looks whether a frame is due, at once.
const BURST: u32 = 1 << 22;
/// Frames that come in a second beside a client, with a defence and without.
const DEFENDED: [u32; 2] = [300_000, 900_000];
const UNDEFENDED: [u32; 1] = [100_000];

/// How many frames a cost is measured with.
const fn frames(effort: Effort) -> u32 {
    match effort {
        Effort::Full => 2_000_000,
        Effort::Quick => 400_000,
    }
}

/// What somebody has against a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defence {
    /// Nothing.
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
            Self::Nothing => "SYNs from anywhere, no defence",
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
        delivery::measure(run, section);
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
    for defence in Defence::ALL {
        let defended = run.guarded(|| host.defend(defence));
        run.note(section, &Quantity::cost(defence.title(), "ns"), name, || {
            defended?;
            run.rig.stay()?;
            host.cost(defence, host.frames(run.plan.effort, defence))
        });
    }
    if name == VNET {
        let floor = Quantity::cost("SYNs, a program that drops all it receives", "ns");
        let bare = run.guarded(|| host.defend(Defence::Nothing));
        run.note(section, &floor, name, || {
            bare?;
            run.rig.stay()?;
            let _drops = Redirect::nowhere(&host.host, UPLINK);
            host.flood(Defence::Denied, frames(run.plan.effort))
        });
    }
    for defence in [Defence::Denied, Defence::Limited, Defence::Nothing] {
        let defended = run.guarded(|| host.defend(defence));
        if let Err(error) = defended {
            section.lacks(name, &format!("{error:#}"));
            continue;
        }
        let offered = if defence == Defence::Nothing { &UNDEFENDED[..] } else { &DEFENDED };
        for &offered in offered {
            let title = format!(
                "one byte there and back beside {} {} a second",
                thousands(f64::from(offered)),
                defence.title()
            );
            run.note(section, &Quantity::cost(title, "µs"), name, || host.beside(run, defence, offered));
        }
    }
    let quiet = Quantity::cost("one byte there and back, no flood", "µs");
    run.note(section, &quiet, name, || host.round_trips(run));
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

    /// What a frame of the flood costs this CPU, from its making to its end.
    fn cost(&self, defence: Defence, count: u32) -> Result<Sample> {
        let before = self.arrived()?;
        let mut sample = self.flood(defence, count)?;
        let arrived = self.arrived()? - before;
        // With a second's worth at once, and what a namespace hears by itself.
        let seconds = sample.value * f64::from(count) / 1e9;
        let allowed = match defence {
            Defence::Nothing => u64::MAX,
            Defence::Denied | Defence::DeniedAmongMany => 50,
            Defence::Limited => u64::from(RATE) * (seconds as u64 + 3) + 50,
        };
        ensure!(arrived <= allowed, "{arrived} frames came through to the endpoint, {allowed} may");
        sample.details.insert("came_through".to_owned(), arrived as f64);
        Ok(sample)
    }

    fn generator(&self, defence: Defence) -> Generator {
        // What is defended against is one source; without, each is a connection of its own.
        let vary = defence == Defence::Nothing;
        Generator::out_of(&self.outside, UPLINK, &self.syn(), vary)
    }

    fn flood(&self, defence: Defence, count: u32) -> Result<Sample> {
        let mut generator = self.generator(defence);
        let before = received(&self.host, UPLINK)?;
        let took = generator.run(count);
        let received = received(&self.host, UPLINK)? - before;
        ensure!(received > u64::from(count) * 9 / 10, "only {received} of {count} frames crossed the uplink");
        let mut sample = Sample::plain(took.as_nanos() as f64 / f64::from(count));
        sample.details.insert("frames_per_second".to_owned(), f64::from(count) / took.as_secs_f64());
        Ok(sample)
    }

    /// Packets that the endpoint has received.
    fn arrived(&self) -> Result<u64> {
        received(&self.path.server, "eth0")
    }

    /// Round trips of an honest client.
    fn round_trips(&self, run: &Run<'_>) -> Result<Sample> {
        let mut sample = run.rig.measure(&self.path, Kind::Rr, Kind::Rr.count(run.plan.effort))?;
        // The mean: beside a flood it is the few that wait long that matter.
        let per_second = sample.details.get("per_second").context("round trips in a second")?;
        sample.value = 1e6 / per_second;
        Ok(sample)
    }

    /// The same beside a flood.
    fn beside(&self, run: &Run<'_>, defence: Defence, offered: u32) -> Result<Sample> {
        let _polled = Polled::on(&self.host, run.rig)?;
        let over = AtomicBool::new(false);
        let (rig, mut generator) = (run.rig, self.generator(defence).paced(offered));
        let (before, begun) = (received(&self.host, UPLINK)?, Instant::now());
        let (sample, came) = thread::scope(|scope| {
            let over = &over;
            let flood = scope.spawn(move || {
                rig.stay_apart()?;
                while !over.load(Ordering::Relaxed) {
                    generator.run(BURST);
                }
                Ok::<_, anyhow::Error>(())
            });
            // A panic has to end the flood, too.
            let sample = run.guarded(|| self.round_trips(run)).and_then(|sample| sample);
            let came = received(&self.host, UPLINK);
            let seconds = begun.elapsed().as_secs_f64();
            over.store(true, Ordering::Relaxed);
            flood.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok::<_, anyhow::Error>((sample, (came? - before) as f64 / seconds))
        })?;
        let mut sample = sample?;
        sample.details.insert("received_per_second".to_owned(), came);
        Ok(sample)
    }

    fn frames(&self, effort: Effort, defence: Defence) -> u32 {
        match (self.firewall, defence) {
            // Rules that are gone through one after the other take their time.
            (Firewall::Iptables(_), Defence::DeniedAmongMany) => frames(effort) / 100,
            (_, Defence::Nothing) => frames(effort) / 10,
            _ => frames(effort),
        }
    }
}

/// The uplink's driver polled by threads of the kernel, on the CPU of clients and before all else there; until it is
/// dropped.
struct Polled<'a>(&'a Netns);

impl<'a> Polled<'a> {
    fn on(host: &'a Netns, rig: &Rig) -> Result<Self> {
        let polled = Self(host);
        polled.by_threads(true);
        // They are named for the interface, and no other namespace has such threads.
        let named = Command::new("pgrep").args(["-f", &format!("^.?napi/{UPLINK}-")]).output();
        let named = named.context("start pgrep")?;
        let threads = String::from_utf8_lossy(&named.stdout).into_owned();
        ensure!(!threads.trim().is_empty(), "the kernel polls {UPLINK} by no thread");
        for thread in threads.split_whitespace() {
            rig.keep(thread)?;
        }
        Ok(polled)
    }

    fn by_threads(&self, yes: bool) {
        // Below /sys is what the namespace has only for those whom `ip netns exec` shows it.
        let set = format!("echo {} > /sys/class/net/{UPLINK}/threaded", u8::from(yes));
        self.0.run(&["ip", "netns", "exec", self.0.name(), "sh", "-c", &set]).ok();
    }
}

impl Drop for Polled<'_> {
    fn drop(&mut self) {
        self.by_threads(false);
    }
}

/// Packets that an interface has received.
fn received(netns: &Netns, interface: &str) -> Result<u64> {
    let links = netns.ip(&format!("-j -s link show dev {interface}")).json();
    links[0]["stats64"]["rx"]["packets"].as_u64().context("the counters of an interface")
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
