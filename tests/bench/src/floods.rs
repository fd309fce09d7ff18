//! Floods: what a frame that nobody wants costs one CPU, and what an honest client feels meanwhile.
//!
//! Frames are generated in the kernel, by test runs with live frames, and sent across the uplink, whose other end is
//! polled as a network card is; all on one CPU. So every cost has that of making a frame and moving it in it, which is
//! measured with a program that does nothing but drop. Of many short rounds the quickest counts: whatever else the machine
//! does only adds to some of them. Beside a client and its server so many frames a second are made on another CPU, and the
//! uplink is polled on theirs, by a thread that goes before all others as interrupts do. All of it goes before other
//! processes.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use nix::libc;
use vnet_tests::frame::Frame;
use vnet_tests::lab::{Endpoint, HOST_V4, Lab, Netns, UPLINK};
use vnet_tests::peer::{Generator, Redirect, interface_mac};

use crate::case::{Case, Effort, Kind};
use crate::chart::thousands;
use crate::delivery;
use crate::generator::Sample;
use crate::results::{Quantity, Section, VNET};
use crate::rig::Rig;
use crate::rival::{PUBLISHED, Path, Rival, Site};
use crate::run::Run;

/// As on the command line.
pub(crate) const NAME: &str = "floods";

/// Who floods.
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 64, 7, 7));
/// nft, not at the interface.
const PREROUTING: &str = "nftables, prerouting";
/// New connections of a source that are let through in a second.
const RATE: u32 = 100;
/// Sources on a long list.
const MANY: u32 = 10_000;
/// How many times a generator looks whether a frame is due, at once.
const BURST: u32 = 1 << 22;
/// Frames that come in a second beside a client, with a defence and without.
const FEW: u32 = 300_000;
const MANY_MORE: u32 = 900_000;
const UNDEFENDED: u32 = 100_000;
/// Of these, what has to be sent for a number to count: from one burst to the next there is a gap.
const ENOUGH: f64 = 0.8;

/// How many rounds a cost is the least of.
const fn rounds(effort: Effort) -> u32 {
    match effort {
        Effort::Full => 30,
        Effort::Quick => 15,
    }
}

/// How many times a client beside a flood says something.
const fn round_trips(effort: Effort) -> u64 {
    match effort {
        Effort::Full => 10_000,
        Effort::Quick => 4_000,
    }
}

/// How often everything is measured in a run of so many repetitions: it takes longer than other sections.
pub(crate) fn repetitions(effort: Effort, repetitions: u32) -> u32 {
    repetitions.min(match effort {
        Effort::Full => 2,
        Effort::Quick => 1,
    })
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
    /// What is malformed is dropped, and comes in place of SYNs; without XDP by a classifier.
    Malformed(Xdp),
}

/// Where vnet drops what is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Xdp {
    Native,
    Off,
}

impl Defence {
    /// Those that everybody has.
    const ALL: [Self; 4] = [Self::Denied, Self::DeniedAmongMany, Self::Limited, Self::Nothing];

    const fn title(self) -> &'static str {
        match self {
            Self::Nothing => "SYNs from anywhere, no defence",
            Self::Denied => "SYNs, their source denied",
            Self::DeniedAmongMany => "SYNs, their source one of 10,000 denied",
            Self::Limited => "SYNs, beyond the rate of their source",
            Self::Malformed(_) => "malformed segments for an endpoint",
        }
    }
}

/// Measures vnet and all that are firewalls.
pub(crate) fn measure(run: &Run<'_>, section: &mut Section) {
    let repetitions = repetitions(run.plan.effort, run.plan.repetitions);
    for repetition in 0..repetitions {
        eprintln!("==> floods, repetition {} of {repetitions}", repetition + 1);
        delivery::measure(run, section);
        let _before_others = BeforeOthers::now();
        match run.guarded(Host::of_vnet) {
            Ok(host) => {
                costs(run, section, VNET, &host);
                own_costs(run, section, &host);
                latencies(run, section, VNET, &host);
            }
            Err(error) => section.lacks(VNET, &format!("it could not be set up: {error:#}")),
        }
        for rival in run.beginning_with(repetition) {
            let Some(firewall) = Firewall::of(rival) else { continue };
            match run.guarded(|| Host::of(rival, firewall)) {
                Ok(mut host) => {
                    costs(run, section, rival.name(), &host);
                    latencies(run, section, rival.name(), &host);
                    if matches!(firewall, Firewall::Nft(_)) {
                        host.firewall = Firewall::Nft(Chain::Prerouting);
                        costs(run, section, PREROUTING, &host);
                    }
                }
                Err(error) => section.lacks(rival.name(), &format!("it could not be set up: {error:#}")),
            }
        }
    }
}

/// What everybody's drops cost.
fn costs(run: &Run<'_>, section: &mut Section, name: &str, host: &Host) {
    Defence::ALL.into_iter().for_each(|defence| cost(run, section, name, host, defence));
}

fn cost(run: &Run<'_>, section: &mut Section, name: &str, host: &Host, defence: Defence) {
    let defended = run.guarded(|| host.defend(defence));
    run.note(section, &Quantity::cost(defence.title(), "ns"), name, || {
        defended?;
        run.rig.stay()?;
        host.cost(run.plan.effort, defence)
    });
}

/// What only vnet drops, with XDP and without; and what cannot be less.
fn own_costs(run: &Run<'_>, section: &mut Section, host: &Host) {
    cost(run, section, VNET, host, Defence::Malformed(Xdp::Native));
    cost(run, section, "vnet, no XDP", host, Defence::Malformed(Xdp::Off));
    let floor = Quantity::cost("SYNs, a program that drops all it receives", "ns");
    let bare = run.guarded(|| host.defend(Defence::Nothing));
    run.note(section, &floor, VNET, || {
        bare?;
        run.rig.stay()?;
        let _drops = Redirect::nowhere(&host.host, UPLINK);
        host.flood(run.plan.effort, Defence::Denied)
    });
}

fn latencies(run: &Run<'_>, section: &mut Section, name: &str, host: &Host) {
    for (defence, offered) in [
        (Defence::Denied, &[FEW, MANY_MORE][..]),
        (Defence::Limited, &[MANY_MORE]),
        (Defence::Nothing, &[UNDEFENDED]),
    ] {
        if let Err(error) = run.guarded(|| host.defend(defence)) {
            section.lacks(name, &format!("{error:#}"));
            continue;
        }
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
    Nft(Chain),
    Iptables(&'static str),
}

/// Where nft drops.
#[derive(Clone, Copy, Debug)]
enum Chain {
    /// At the interface, before the stack has looked at the packet.
    Ingress,
    /// Where iptables has its table that comes first.
    Prerouting,
}

impl Firewall {
    fn of(rival: &dyn Rival) -> Option<Self> {
        match rival.name() {
            "nftables" => Some(Self::Nft(Chain::Ingress)),
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
    endpoint: Option<Endpoint>,
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
        Self {
            firewall: Firewall::Vnet,
            outside,
            host,
            path,
            endpoint: Some(net1),
            lab: Some(lab),
            _site: None,
        }
        .ready()
    }

    fn of(rival: &dyn Rival, firewall: Firewall) -> Self {
        let site = rival.set_up();
        let (path, host) = (site.path(Case::Published), site.path(Case::HostLocal).client);
        Self {
            firewall,
            outside: path.client.clone(),
            host,
            path,
            endpoint: None,
            lab: None,
            _site: Some(site),
        }
        .ready()
    }

    /// With a driver that polls, as that of any network card; a pair of virtual interfaces has one only with receive
    /// offload or XDP.
    fn ready(self) -> Self {
        self.host.run(&["ethtool", "-K", UPLINK, "gro", "on"]).ok();
        self
    }

    /// The frame of the flood.
    fn frame(&self, defence: Defence) -> Vec<u8> {
        // Of the header length, which becomes more than there is.
        const DATA_OFFSET: usize = 14 + 20 + 12;
        let (mac, host_mac) = (interface_mac(&self.outside, UPLINK), interface_mac(&self.host, UPLINK));
        let source = (SOURCE, 40_000).into();
        let frame = match (defence, &self.endpoint) {
            (Defence::Malformed(_), Some(endpoint)) => {
                Frame::tcp(source, (endpoint.v4(), 80).into()).flip(DATA_OFFSET)
            }
            _ => Frame::tcp(source, (HOST_V4, PUBLISHED).into()).syn(),
        };
        frame.macs(mac, host_mac).build()
    }

    /// Sets one defence up instead of what was there.
    fn defend(&self, defence: Defence) {
        match self.firewall {
            Firewall::Vnet => self.vnet(defence),
            Firewall::Nft(chain) => self.nft(chain, defence),
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
        let without = matches!(defence, Defence::Nothing | Defence::Malformed(Xdp::Off));
        let mode = if without { "off" } else { "native" };
        lab.vnet_ok(&["up", "--xdp", mode, "--flood-rate", &rate.to_string()]);
        let denied = denied(defence);
        if !denied.is_empty() {
            let words: Vec<&str> =
                ["deny", "add"].into_iter().chain(denied.iter().map(String::as_str)).collect();
            lab.vnet_ok(&words);
        }
    }

    fn nft(&self, chain: Chain, defence: Defence) {
        // Deleted after they were made, so that they need not be there.
        let again =
            "add table netdev flood; delete table netdev flood; add table ip flood; delete table ip flood;";
        let (family, chain) = match chain {
            Chain::Ingress => ("netdev", format!("type filter hook ingress device {UPLINK} priority 0;")),
            Chain::Prerouting => ("ip", "type filter hook prerouting priority raw;".to_owned()),
        };
        let rule = match defence {
            Defence::Nothing | Defence::Malformed(_) => return drop(self.host.run(&["nft", again]).ok()),
            Defence::Limited => format!(
                "set sources {{ type ipv4_addr; size 65536; flags dynamic; timeout 10s; }}
                 chain drops {{ {chain}
                   tcp dport {PUBLISHED} tcp flags & (syn | ack) == syn \
                   update @sources {{ ip saddr & 255.255.255.0 limit rate over {RATE}/second burst {RATE} packets }} \
                   drop; }};"
            ),
            Defence::Denied | Defence::DeniedAmongMany => format!(
                "set denied {{ type ipv4_addr; flags interval; elements = {{ {} }} }}
                 chain drops {{ {chain} ip saddr @denied drop; }};",
                denied(defence).join(", ")
            ),
        };
        let file = self.file(&format!("{again}\ntable {family} flood {{ {rule} }}\n"));
        self.host.run(&["nft", "-f", file.path().to_str().expect("a path in UTF-8")]).ok();
    }

    /// In the table that comes first, before connections are tracked.
    fn iptables(&self, program: &str, defence: Defence) {
        let syn = format!("-A PREROUTING -i {UPLINK} -p tcp --dport {PUBLISHED} --syn");
        let rules: Vec<String> = match defence {
            Defence::Nothing | Defence::Malformed(_) => Vec::new(),
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
    fn cost(&self, effort: Effort, defence: Defence) -> Result<Sample> {
        let (before, begun) = (self.arrived()?, Instant::now());
        let mut sample = self.flood(effort, defence)?;
        let arrived = self.arrived()? - before;
        // With a second's worth at once, and what a namespace hears by itself.
        let allowed = match defence {
            Defence::Nothing => u64::MAX,
            Defence::Denied | Defence::DeniedAmongMany | Defence::Malformed(_) => 50,
            Defence::Limited => u64::from(RATE) * (begun.elapsed().as_secs() + 2) + 50,
        };
        ensure!(arrived <= allowed, "{arrived} frames came through to the endpoint, {allowed} may");
        sample.details.insert("came_through".to_owned(), arrived as f64);
        Ok(sample)
    }

    fn generator(&self, defence: Defence) -> Generator {
        // What is defended against is one source; without, each is a connection of its own.
        let vary = defence == Defence::Nothing;
        Generator::out_of(&self.outside, UPLINK, &self.frame(defence), vary)
    }

    fn flood(&self, effort: Effort, defence: Defence) -> Result<Sample> {
        let (rounds, count) = (rounds(effort), self.frames(defence));
        let mut generator = self.generator(defence);
        let before = received(&self.host, UPLINK)?;
        // The first time everything is new to the CPU.
        generator.run(count);
        let least = (0..rounds).map(|_| generator.run(count)).min().context("no rounds")?;
        let (received, sent) = (received(&self.host, UPLINK)? - before, count * (rounds + 1));
        ensure!(
            received as f64 > f64::from(sent) * ENOUGH,
            "only {received} of {sent} frames crossed the uplink"
        );
        let mut sample = Sample::plain(least.as_nanos() as f64);
        sample.details.insert("frames_per_second".to_owned(), 1.0 / least.as_secs_f64());
        Ok(sample)
    }

    /// How many frames a round has: so that it is over before anybody else gets the CPU.
    fn frames(&self, defence: Defence) -> u32 {
        match (self.firewall, defence) {
            // Rules that are gone through one after the other take their time.
            (Firewall::Iptables(_), Defence::DeniedAmongMany) => 64,
            (_, Defence::Nothing) => 1_000,
            _ => 10_000,
        }
    }

    /// Packets that the endpoint has received.
    fn arrived(&self) -> Result<u64> {
        received(&self.path.server, "eth0")
    }

    /// Round trips of an honest client.
    fn round_trips(&self, run: &Run<'_>) -> Result<Sample> {
        let mut sample = run.rig.measure(&self.path, Kind::Rr, round_trips(run.plan.effort))?;
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
        let before = received(&self.host, UPLINK)?;
        let (mut sample, [came, refused]) = thread::scope(|scope| {
            let over = &over;
            let flood = scope.spawn(move || {
                rig.stay_apart()?;
                as_from_a_wire()?;
                while !over.load(Ordering::Relaxed) {
                    generator.run(BURST);
                }
                Ok::<_, anyhow::Error>(())
            });
            // A panic has to end the flood, too.
            let sample = run.guarded(|| {
                while received(&self.host, UPLINK)? == before {
                    ensure!(!flood.is_finished(), "the flood has not begun");
                    thread::yield_now();
                }
                let counts =
                    || Ok::<_, anyhow::Error>([received(&self.host, UPLINK)?, refused(&self.outside)?]);
                let (before, begun) = (counts()?, Instant::now());
                let sample = self.round_trips(run)?;
                let (after, seconds) = (counts()?, begun.elapsed().as_secs_f64());
                let per_second = |which: usize| (after[which] - before[which]) as f64 / seconds;
                Ok((sample, [per_second(0), per_second(1)]))
            });
            over.store(true, Ordering::Relaxed);
            flood.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            sample.and_then(|sample| sample)
        })?;
        let sent = came + refused;
        ensure!(sent > f64::from(offered) * ENOUGH, "only {sent:.0} frames were sent in a second");
        sample.details.insert("received_per_second".to_owned(), came);
        sample.details.insert("lost_per_second".to_owned(), refused);
        Ok(sample)
    }
}

/// Has the calling thread, and what it starts, go before other processes, until it is dropped.
struct BeforeOthers(libc::c_int);

impl BeforeOthers {
    fn now() -> Self {
        const FIRST: libc::c_int = -20;
        // SAFETY: plain numbers; a refusal means that the numbers scatter more.
        unsafe {
            let before = libc::getpriority(libc::PRIO_PROCESS, 0);
            libc::setpriority(libc::PRIO_PROCESS, 0, FIRST);
            Self(before)
        }
    }
}

impl Drop for BeforeOthers {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, self.0) };
    }
}

/// Has the calling thread be kept up by no process: what comes from a wire waits for none either.
fn as_from_a_wire() -> Result<()> {
    // SAFETY: the structure is plain numbers, and lives as long as the call.
    let done = unsafe {
        let first = libc::sched_param { sched_priority: 1 };
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const first)
    };
    ensure!(done == 0, "go before all processes: {}", std::io::Error::last_os_error());
    Ok(())
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

/// Frames that an uplink's other end has not taken, because its ring was full.
fn refused(outside: &Netns) -> Result<u64> {
    let links = outside.ip(&format!("-j -s link show dev {UPLINK}")).json();
    links[0]["stats64"]["tx"]["dropped"].as_u64().context("the counters of an interface")
}

/// Packets that an interface has received.
fn received(netns: &Netns, interface: &str) -> Result<u64> {
    let links = netns.ip(&format!("-j -s link show dev {interface}")).json();
    links[0]["stats64"]["rx"]["packets"].as_u64().context("the counters of an interface")
}

/// The sources that a defence denies, that of the flood last.
fn denied(defence: Defence) -> Vec<String> {
    let others = match defence {
        Defence::Nothing | Defence::Limited | Defence::Malformed(_) => return Vec::new(),
        Defence::Denied => 0,
        Defence::DeniedAmongMany => MANY - 1,
    };
    let other = |number: u32| format!("{}/32", Ipv4Addr::from_bits(0x0a00_0000 + 7 * number));
    (0..others).map(other).chain([format!("{SOURCE}/32")]).collect()
}
