//! `vnet drops`.

use std::collections::{BTreeMap, HashMap};
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use vnet_common::{Addr, CaptureFilter, DropReason, Event, Hook, MAX_SNAPLEN, Tuple, Zone};
use vnet_datapath::buffer::Buffer;
use vnet_datapath::parse;

use super::context::{Context, follow, interface_names, interrupted, note};
use super::namespace::existing;
use super::usage;
use crate::kernel::{Capture, Captured, Kernel};
use crate::output::{Drop, DropEvent, DroppedPacket, Format, Networks, PacketFile};
use crate::spec::{self, Name, Seconds};

/// Where a capture goes that is to be read by another program.
const STANDARD_OUTPUT: &str = "-";
/// The longest IP packet, with its link header.
const LONGEST: usize = 65_535 + 14;

/// Show how many packets were dropped where and why, and what to do about it; or each as it happens.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vnet drops                                        counted since `vnet up`
  vnet drops --reason direct-access,not-allowed
  vnet drops -f --hook from_endpoint                what endpoints send and may not, as it happens
  vnet drops --pcapng drops.pcapng --duration 1m    the packets themselves, for Wireshark
  vnet drops --pcapng - | tshark -r - -V            why each was dropped is its comment
  vnet trace tcp 203.0.113.2:5555 203.0.113.1:8088  why would this one be dropped?

Of the drops of one reason, `-f` shows on each CPU one in 1,024 where the program is
xdp_uplink: a flood is not told of packet by packet. All are counted, and all are captured.")]
pub(super) struct Drops {
    /// Print drops as they happen, until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// Only those for this reason, or one of several with commas between.
    #[arg(long = "reason", value_name = "REASON", value_delimiter = ',', value_parser = reason_parser())]
    reasons: Vec<DropReason>,
    /// Only those of this program, or one of several with commas between.
    #[arg(long = "hook", value_name = "HOOK", value_delimiter = ',', value_parser = hook_parser())]
    hooks: Vec<Hook>,
    /// Only those of packets from or to this endpoint; of the counts, of those that it sent.
    #[arg(long, value_name = "NAME")]
    endpoint: Option<Name>,
    /// Write the packets that are dropped from now on to a pcapng file, `-` for standard output, until interrupted.
    #[arg(long, value_name = "FILE")]
    pcapng: Option<PathBuf>,
    /// End after so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time: 90s, 5m, 2h4m or 300.
    #[arg(long, value_name = "TIME")]
    duration: Option<Seconds>,
    /// End before the file is longer than this: 500k, 100m.
    #[arg(long, value_name = "BYTES", requires = "pcapng")]
    max_size: Option<spec::Bytes>,
    /// Bytes of each packet that are written [default: 16384, the most there may be].
    #[arg(
        long,
        value_name = "BYTES",
        requires = "pcapng",
        value_parser = clap::value_parser!(u32).range(14..=i64::from(MAX_SNAPLEN))
    )]
    snaplen: Option<u32>,
}

fn reason_parser() -> impl clap::builder::TypedValueParser<Value = DropReason> {
    let named = |name: String| DropReason::ALL.iter().copied().find(|reason| reason.name() == name);
    PossibleValuesParser::new(DropReason::ALL.iter().map(|reason| reason.name()))
        .try_map(move |name| named(name).ok_or("it is none of the reasons"))
}

fn hook_parser() -> impl clap::builder::TypedValueParser<Value = Hook> {
    let named = |name: String| Hook::ALL.into_iter().find(|hook| hook.name() == name);
    PossibleValuesParser::new(Hook::ALL.map(Hook::name))
        .try_map(move |name| named(name).ok_or("it is none of the programs"))
}

/// Which endpoints a dropped packet has to do with.
struct Endpoints {
    /// Links by the index of the host's end.
    links: HashMap<u32, Link>,
    /// Names, by address.
    addresses: HashMap<Addr, String>,
}

/// A link to an endpoint.
struct Link {
    zone: Zone,
    endpoint: String,
}

impl Endpoints {
    /// Those that are recorded, with the links whose ends are named among the host's interfaces.
    fn new(recorded: &[spec::Endpoint], interfaces: &BTreeMap<u32, String>) -> Self {
        let mut addresses = HashMap::new();
        let mut links = HashMap::new();
        for endpoint in recorded {
            let name = endpoint.name.to_string();
            addresses.extend(endpoint.addresses().map(|addr| (Addr::from(addr), name.clone())));
            links.extend(endpoint.links.iter().map(|link| {
                (link.host_interface.as_str(), Link { zone: link.zone(), endpoint: name.clone() })
            }));
        }
        let indexed =
            interfaces.iter().filter_map(|(index, name)| Some((*index, links.remove(name.as_str())?)));
        Self { links: indexed.collect(), addresses }
    }

    /// Those of a packet with this tuple on an interface, each once.
    fn of(&self, ifindex: u32, tuple: &Tuple) -> Vec<&str> {
        let link = self.links.get(&ifindex).map(|link| &link.endpoint);
        let ends = [&tuple.src, &tuple.dst].into_iter().filter_map(|addr| self.addresses.get(addr));
        let mut names: Vec<&str> = Vec::new();
        for name in link.into_iter().chain(ends) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    /// The tuple of a captured packet, as far as it can be read.
    fn tuple(&self, captured: &Captured<'_>) -> Tuple {
        let mut tuple = bytemuck::Zeroable::zeroed();
        // A packet of which the end was not captured is as long as it was.
        let mut bytes = captured.bytes.to_vec();
        bytes.resize((captured.header.length as usize).clamp(bytes.len(), LONGEST.max(bytes.len())), 0);
        let _ = parse(&Buffer::plain(bytes), &mut bytemuck::Zeroable::zeroed(), &mut tuple);
        tuple.zone = self.links.get(&captured.header.ifindex).map_or(Zone::WORLD, |link| link.zone);
        tuple
    }
}

/// What stands for numbers.
struct Words {
    interfaces: BTreeMap<u32, String>,
    networks: Networks,
    endpoints: Endpoints,
}

impl Drops {
    /// Whether drops for a reason by a hook are asked for, each as a byte of a map.
    fn selects(&self, reason: u8, hook: u8) -> bool {
        let reason = self.reasons.is_empty() || self.reasons.iter().any(|wanted| *wanted as u8 == reason);
        reason && (self.hooks.is_empty() || self.hooks.iter().any(|wanted| *wanted as u8 == hook))
    }

    /// Whether a packet has to do with the endpoint that is asked for.
    fn concerns(&self, words: &Words, ifindex: u32, tuple: &Tuple) -> bool {
        let Some(endpoint) = &self.endpoint else { return true };
        words.endpoints.of(ifindex, tuple).contains(&endpoint.as_str())
    }

    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let to_standard_output = self.pcapng.as_ref().is_some_and(|path| path.as_os_str() == STANDARD_OUTPUT);
        if to_standard_output && self.follow {
            return Err(usage(
                "`--pcapng -` and -f both write to standard output: leave -f out, or name a file",
            ));
        }
        let bounded = self.count.is_some() || self.duration.is_some();
        if bounded && !self.follow && self.pcapng.is_none() {
            return Err(usage("--count and --duration are for -f and --pcapng: add one of them"));
        }
        let record = context.record()?;
        if let Some(endpoint) = &self.endpoint {
            existing(&record, endpoint)?;
        }
        let networks = record.network_names()?;
        let endpoints = record.transaction.endpoints()?;
        // The lock of the state is not held while drops are waited for.
        drop(record);
        let kernel = context.kernel_to_read().await?;
        let interfaces = interface_names(&kernel).await?;
        let endpoints = Endpoints::new(&endpoints, &interfaces);
        let words = Words { interfaces, networks, endpoints };
        if self.pcapng.is_some() {
            return self.capture(context, &kernel, &words).await;
        }
        if self.follow {
            return self.follow(context, &kernel, &words).await;
        }
        self.counts(context, &kernel, &words)
    }

    fn counts(&self, context: &Context, kernel: &Kernel, words: &Words) -> anyhow::Result<()> {
        let mut counters = kernel.drops()?;
        counters.retain(|(key, _)| {
            let nobody = bytemuck::Zeroable::zeroed();
            self.selects(key.reason, key.hook) && self.concerns(words, key.ifindex, &nobody)
        });
        let mut drops: Vec<Drop> =
            counters.iter().map(|(key, packets)| Drop::new(key, *packets, &words.interfaces)).collect();
        drops.sort_by(|a, b| (&a.interface, a.hook, a.reason).cmp(&(&b.interface, b.hook, b.reason)));
        context.print_list(&drops)?;
        // For programs, each has its own.
        if context.format == Format::Table {
            let remedies: BTreeMap<_, _> = drops.iter().map(|drop| (drop.reason, drop.remedy)).collect();
            for (number, (reason, remedy)) in remedies.iter().enumerate() {
                let space = if number == 0 { "\n" } else { "" };
                context.print_line(&format!("{space}{reason}: {remedy}"))?;
            }
        }
        Ok(())
    }

    async fn follow(&self, context: &Context, kernel: &Kernel, words: &Words) -> anyhow::Result<()> {
        let mut left = self.count;
        let followed = follow(context, kernel, |event| {
            let Some(drop) = DropEvent::new(event, &words.interfaces, &words.networks) else {
                return Ok(true);
            };
            if !self.selects(event.reason, event.hook) || !self.concerns(words, event.ifindex, &event.tuple) {
                return Ok(true);
            }
            context.print_event(&drop)?;
            left = left.map(|left| left - 1);
            Ok(left != Some(0))
        });
        tokio::select! {
            followed = followed => followed,
            () = elapsed(self.duration) => Ok(()),
        }
    }

    async fn capture(&self, context: &Context, kernel: &Kernel, words: &Words) -> anyhow::Result<()> {
        let Some(path) = &self.pcapng else { return Ok(()) };
        let to_standard_output = path.as_os_str() == STANDARD_OUTPUT;
        let all =
            |reasons: &[DropReason]| if reasons.is_empty() { DropReason::ALL } else { reasons }.to_vec();
        let hooks = if self.hooks.is_empty() { Hook::ALL.to_vec() } else { self.hooks.clone() };
        let snaplen = self.snaplen.unwrap_or(MAX_SNAPLEN);
        let filter = CaptureFilter::new(&all(&self.reasons), &hooks, snaplen);
        let out: Box<dyn Write> = if to_standard_output {
            Box::new(io::stdout())
        } else {
            // Packets are nobody else's business.
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
            Box::new(file.with_context(|| format!("write {}", path.display()))?)
        };
        let failed = || format!("write {}", path.display());
        let file = PacketFile::begin(BufWriter::new(out), snaplen).with_context(failed)?;
        let mut capture = kernel.capture(&filter)?;
        let offset = Capture::clock_offset();
        note(&[format!("capturing to {}; Ctrl-C ends it", path.display())]);
        let mut writing = Writing { drops: self, context, words, file, offset, full: false };
        let mut take = |captured: Option<Captured<'_>>| writing.take(captured);
        tokio::select! {
            read = capture.read(&mut take) => read.with_context(failed)?,
            interrupted = interrupted(to_standard_output || self.follow) => interrupted?,
            () = elapsed(self.duration) => {}
        }
        capture.end(&mut take).with_context(failed)?;
        let (file, lost) = (writing.file, capture.lost());
        let packets = file.packets();
        let now = Capture::now().saturating_add_signed(offset);
        file.end(now, lost).with_context(failed)?;
        let missing = if lost == 0 { String::new() } else { format!("; {lost} were lost for want of room") };
        note(&[format!("{packets} packets captured to {}{missing}", path.display())]);
        Ok(())
    }
}

/// A file of captured packets under way.
struct Writing<'a, W> {
    drops: &'a Drops,
    context: &'a Context,
    words: &'a Words,
    file: PacketFile<W>,
    /// From the clock of packets' times to that of the day, in nanoseconds.
    offset: i64,
    /// Whether the next packet had no room in it.
    full: bool,
}

impl<W: Write> Writing<'_, W> {
    /// Writes a captured packet, or what is held back when there is none; whether to go on.
    fn take(&mut self, captured: Option<Captured<'_>>) -> io::Result<bool> {
        let Self { drops, context, words, file, offset, full } = self;
        let Some(captured) = captured else {
            file.flush()?;
            return Ok(true);
        };
        if *full || drops.count.is_some_and(|count| file.packets() >= count) {
            return Ok(false);
        }
        let Captured { header, bytes } = captured;
        let tuple = words.endpoints.tuple(&captured);
        if !drops.concerns(words, header.ifindex, &tuple) {
            return Ok(true);
        }
        let unnamed = format!("if{}", header.ifindex);
        let packet = DroppedPacket {
            time: header.time.saturating_add_signed(*offset),
            ifindex: header.ifindex,
            interface: words.interfaces.get(&header.ifindex).unwrap_or(&unnamed),
            hook: Hook::from_u8(header.hook),
            reason: DropReason::from_u8(header.reason),
            endpoints: &words.endpoints.of(header.ifindex, &tuple),
            length: header.length,
            bytes,
        };
        if !file.write(&packet, drops.max_size.map(|most| u32::from(most).into()))? {
            *full = true;
            return Ok(false);
        }
        if drops.follow {
            let event = Event {
                time: header.time,
                tuple,
                ifindex: header.ifindex,
                length: header.length,
                reason: header.reason,
                hook: header.hook,
                ..bytemuck::Zeroable::zeroed()
            };
            if let Some(drop) = DropEvent::new(&event, &words.interfaces, &words.networks) {
                context.print_event(&drop).map_err(io::Error::other)?;
            }
        }
        Ok(drops.count.is_none_or(|count| file.packets() < count))
    }
}

/// Waits for so long: for ever if nothing is said.
async fn elapsed(duration: Option<Seconds>) {
    match duration {
        Some(duration) => tokio::time::sleep(Duration::from_secs(u32::from(duration).into())).await,
        None => std::future::pending().await,
    }
}
