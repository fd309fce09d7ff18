//! A case of the packet table: a packet, the world it meets, and what must become of it.
//!
//! ```
//! # use vnet_common::Proto;
//! # use vnet_tests::case::{Case, Flow, world::{V4, NET1, at}};
//! # use vnet_tests::frame::Frame;
//! let (client, server, seen) = (at(V4.net1, 50_000), at(V4.www, 80), at(V4.host, 50_000));
//! let case = Case::from_endpoint(NET1, "a first packet is masqueraded", Frame::tcp(client, server).syn())
//!     .forwarded(Frame::tcp(seen, server).syn())
//!     .leaves([Flow::masqueraded(Proto::TCP, client, server, 50_000).just_seen()]);
//! # case.run_on_host().unwrap();
//! ```
//!
//! Expected frames are built from scratch, so their checksums owe nothing to the code under test. What every case
//! expects without saying so: one more on the counter of the reason, for what is dropped, and on no other;
//! packet and bytes counted in the flow, for what is translated; checksums that add up, for what has changed.

mod flow;
mod mapped;
pub mod random;
pub mod world;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use vnet_common::{DropKey, DropReason, EndpointUse, Hook, MappingEntry, Tuple};
use vnet_datapath::model::Model;
use vnet_datapath::{NextHop, Verdict};

use crate::frame::dissect::{Network, dissect};
use crate::frame::{Frame, IcmpError, describe};
use crate::runner::{Arrival, Fate, Host, Outcome, Refused, Runner, Way};

use self::world::{BRIDGE, Endpoint, Family, HOST_MAC, PEER_MAC, STRAY, UPLINK};

pub use flow::{Entry, Flow, SLACK, describe as describe_flow, differences, tuple};
pub use mapped::Mapped;

/// A packet, the world it meets, and what must become of it.
#[must_use]
pub struct Case {
    name: String,
    hook: Hook,
    ifindex: u32,
    came_in_by: u32,
    waited: bool,
    segment: u32,
    /// What has met the same hook before.
    before: Vec<Vec<u8>>,
    frame: Sent,
    model: Model,
    given: Vec<Flow>,
    mappings: Vec<Mapped>,
    ways: &'static [Way],
    expected: Expectation,
}

/// What is sent: a description, which link addresses are added to, or bytes as they are.
enum Sent {
    Described(Box<Frame>),
    Bytes(Vec<u8>),
}

/// What must become of a packet; of one that gets a drawn source port, as a function of that.
enum Expectation {
    Fixed(Box<Expected>),
    WithPort(Box<dyn Fn(u16) -> Expected>),
}

struct Expected {
    fate: Fate,
    /// `None` is "unchanged".
    frame: Option<Frame>,
    /// Whether a flow counts it, if it changes.
    counted: bool,
    /// What is answered, if it is dropped.
    answer: Option<Frame>,
    /// `None` is "as they were".
    flows: Option<Vec<Flow>>,
    /// `None` is "as they were".
    mappings: Option<Vec<Mapped>>,
    /// Where to, of what is forwarded or delivered.
    next_hop: Option<NextHop>,
    receiver: Option<u32>,
}

impl Expected {
    const fn only(fate: Fate) -> Self {
        Self {
            fate,
            frame: None,
            counted: true,
            answer: None,
            flows: None,
            mappings: None,
            next_hop: None,
            receiver: None,
        }
    }
}

/// Where cases can run.
const EVERYWHERE: &[Way] = &[Way::Host, Way::Tc, Way::Xdp];
/// XDP sees no packet that leaves, and no aggregate.
const NOT_XDP: &[Way] = &[Way::Host, Way::Tc];

/// What a case begins with.
impl Case {
    /// An endpoint sends a frame to its gateway.
    pub fn from_endpoint(sender: Endpoint, name: &str, frame: Frame) -> Self {
        let frame = frame.macs(sender.mac, sender.gateway_mac);
        Self::new(Hook::FromEndpoint, sender.ifindex, name, frame)
    }

    /// The next hop sends a frame to the host.
    pub fn from_uplink(name: &str, frame: Frame) -> Self {
        Self::new(Hook::FromUplink, UPLINK, name, frame.macs(PEER_MAC, HOST_MAC))
    }

    /// The host is about to send the next hop a frame that it received by the bridge of network 1.
    pub fn to_uplink(name: &str, frame: Frame) -> Self {
        let case = Self::new(Hook::ToUplink, UPLINK, name, frame.macs(HOST_MAC, PEER_MAC));
        Self { came_in_by: BRIDGE, ways: NOT_XDP, ..case }
    }

    /// The host is about to send into network 1 a frame that it received by the interface that is no uplink.
    pub fn to_bridge(name: &str, frame: Frame) -> Self {
        let case = Self::new(Hook::ToBridge, BRIDGE, name, frame.macs(HOST_MAC, PEER_MAC));
        Self { came_in_by: STRAY, ways: NOT_XDP, ..case }
    }

    /// The host is about to send into network 1, which has no bridge, a frame that it received by the interface that is no
    /// uplink.
    pub fn to_network(name: &str, frame: Frame) -> Self {
        let case = Self::new(Hook::ToNetwork, BRIDGE, name, frame.macs(HOST_MAC, HOST_MAC));
        Self { came_in_by: STRAY, ways: NOT_XDP, ..case }
    }

    /// A fragment that came from `origin` comes out of where it waits. On the host only: test runs cannot say so.
    pub fn from_hold(origin: Endpoint, name: &str, frame: Frame) -> Self {
        let frame = frame.macs(origin.mac, origin.gateway_mac);
        let case = Self::new(Hook::FromHold, STRAY, name, frame).given(|model| model.config.hold = STRAY);
        Self { came_in_by: origin.ifindex, ..case }.on_host_only()
    }

    fn new(hook: Hook, ifindex: u32, name: &str, frame: Frame) -> Self {
        Self {
            name: name.to_owned(),
            hook,
            ifindex,
            came_in_by: 0,
            waited: false,
            segment: 0,
            before: Vec::new(),
            frame: Sent::Described(Box::new(frame)),
            model: world::world(),
            given: Vec::new(),
            mappings: Vec::new(),
            ways: EVERYWHERE,
            expected: Expectation::Fixed(Box::new(Expected::only(Fate::Passed))),
        }
    }

    /// The frame has exactly these link addresses, as described.
    pub fn link(mut self, frame: Frame) -> Self {
        self.frame = Sent::Described(Box::new(frame));
        self
    }

    /// The case is about one family.
    pub fn of_family(mut self, family: &Family) -> Self {
        self.name = format!("{}: {}", family.name, self.name);
        self
    }

    /// The frame's bytes are changed, for what no description can say.
    pub fn bytes(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = self.sent();
        change(&mut bytes);
        self.frame = Sent::Bytes(bytes);
        self
    }

    /// Another frame with the same link addresses has met the same hook just before, and left what [`Self::leaves`]
    /// says, counts apart.
    pub fn after(mut self, frame: Frame) -> Self {
        self.before.push(self.with_same_link(frame).build());
        self
    }

    /// The frame stands for several with a payload of `segment` bytes each.
    pub fn in_segments_of(mut self, segment: u32) -> Self {
        self.segment = segment;
        self.ways = NOT_XDP;
        self
    }

    /// It leaves by this interface instead of the uplink, or arrives there.
    pub fn at(mut self, ifindex: u32) -> Self {
        self.ifindex = ifindex;
        self
    }

    /// The host received it on this interface.
    pub fn came_in_by(mut self, ifindex: u32) -> Self {
        self.came_in_by = ifindex;
        self
    }

    /// It is a fragment that has waited for the first of its datagram as long as it may. On the host only: test runs
    /// cannot say so.
    pub fn having_waited(mut self) -> Self {
        self.waited = true;
        self.on_host_only()
    }

    /// The tables are not quite those of the world.
    pub fn given<T>(mut self, change: impl FnOnce(&mut Model) -> T) -> Self {
        change(&mut self.model);
        self
    }

    /// These flows are tracked.
    pub fn tracked(mut self, flows: impl IntoIterator<Item = Flow>) -> Self {
        self.given.extend(flows);
        self
    }

    /// These endpoint-independent mappings are there.
    pub fn mapped(mut self, mappings: impl IntoIterator<Item = Mapped>) -> Self {
        self.mappings.extend(mappings);
        self
    }

    /// The host has a socket that takes packets with this tuple.
    pub fn host_socket(mut self, tuple: Tuple) -> Self {
        self.model.host_sockets.insert(tuple);
        self
    }

    /// The case is about something that only the model's tables do.
    pub fn on_host_only(mut self) -> Self {
        self.ways = &[Way::Host];
        self
    }
}

/// What a case expects.
impl Case {
    /// It goes on unchanged.
    pub fn passes(self) -> Self {
        self.expects(Expected::only(Fate::Passed))
    }

    /// It goes on as another.
    pub fn passes_as(self, frame: Frame) -> Self {
        let frame = Some(self.with_same_link(frame));
        self.expects(Expected { frame, ..Expected::only(Fate::Passed) })
    }

    /// It goes on unchanged to the host's stack by the interface of its network. XDP programs, which only stand for the
    /// others, let it pass.
    pub fn enters(mut self) -> Self {
        self.ways = NOT_XDP;
        self.expects(Expected::only(Fate::Entered))
    }

    /// It waits unchanged for the first of its datagram.
    pub fn waits(self) -> Self {
        self.expects(Expected::only(Fate::Held))
    }

    /// It has waited, and goes back unchanged to where it came from.
    pub fn returns(self) -> Self {
        self.expects(Expected::only(Fate::Returned))
    }

    /// It is dropped unchanged.
    pub fn dropped(self, reason: DropReason) -> Self {
        self.expects(Expected::only(Fate::Dropped(reason)))
    }

    /// It is dropped unchanged, and answered with an ICMP error: to the world from the address that was dialled, to an
    /// endpoint from its gateway.
    pub fn refused(self, reason: DropReason, error: IcmpError) -> Self {
        let answer = Some(refusal(self.hook, &self.sent(), error));
        self.expects(Expected { answer, ..Expected::only(Fate::Dropped(reason)) })
    }

    /// The answer has another source.
    pub fn answered_by(mut self, addr: IpAddr) -> Self {
        let expected = self.fixed();
        expected.answer = expected.answer.take().map(|frame| frame.source(addr));
        self
    }

    /// It leaves for the next hop of its family as another, with one hop less.
    pub fn forwarded(self, frame: Frame) -> Self {
        let expected = self.forwarding(frame);
        self.expects(expected)
    }

    /// As [`Self::forwarded`], from a drawn source port: what leaves, and the flows afterwards, are functions of it.
    pub fn forwarded_from_a_drawn_port(
        mut self,
        as_port: impl Fn(u16) -> (Frame, Vec<Flow>) + 'static,
    ) -> Self {
        let sent = self.sent();
        self.expected = Expectation::WithPort(Box::new(move |port| {
            let (frame, flows) = as_port(port);
            Expected { flows: Some(flows), ..forwarding(&sent, frame) }
        }));
        self
    }

    /// It leaves by another interface, or for another next hop.
    pub fn by(mut self, ifindex: u32, addr: IpAddr) -> Self {
        self.fixed().next_hop = Some(NextHop { ifindex, addr: addr.into() });
        self
    }

    /// It appears inside an endpoint as another, with one hop less, sent by the gateway.
    pub fn delivered(self, receiver: Endpoint, frame: Frame) -> Self {
        let frame = Some(frame.macs(receiver.gateway_mac, receiver.mac).ttl(63));
        let receiver = Some(receiver.ifindex);
        self.expects(Expected { frame, receiver, ..Expected::only(Fate::Delivered) })
    }

    /// It appears inside an endpoint exactly as it was sent.
    pub fn switched(self, receiver: Endpoint) -> Self {
        self.expects(Expected { receiver: Some(receiver.ifindex), ..Expected::only(Fate::Delivered) })
    }

    /// It appears inside an endpoint as it was sent, but from the gateway.
    pub fn handed(self, receiver: Endpoint, frame: Frame) -> Self {
        let frame = Some(frame.macs(receiver.gateway_mac, receiver.mac));
        let receiver = Some(receiver.ifindex);
        self.expects(Expected { frame, receiver, counted: false, ..Expected::only(Fate::Delivered) })
    }

    /// These flows, and no others, are tracked afterwards. Unless a case says so they are those from before.
    pub fn leaves(mut self, flows: impl IntoIterator<Item = Flow>) -> Self {
        self.fixed().flows = Some(flows.into_iter().collect());
        self
    }

    /// These mappings, and no others, are there afterwards. Unless a case says so they are those from before.
    pub fn leaves_mappings(mut self, mappings: impl IntoIterator<Item = Mapped>) -> Self {
        self.fixed().mappings = Some(mappings.into_iter().collect());
        self
    }

    /// The frame that is to come out has another hop limit than the usual.
    pub fn with_ttl(mut self, ttl: u8) -> Self {
        let expected = self.fixed();
        expected.frame = expected.frame.take().map(|frame| frame.ttl(ttl));
        self
    }

    /// It changes, but is no packet of a flow: none counts it.
    pub fn uncounted(mut self) -> Self {
        self.fixed().counted = false;
        self
    }

    fn expects(mut self, expected: Expected) -> Self {
        self.expected = Expectation::Fixed(Box::new(expected));
        self
    }

    fn fixed(&mut self) -> &mut Expected {
        match &mut self.expected {
            Expectation::Fixed(expected) => expected,
            Expectation::WithPort(_) => panic!("{}: say it in the function of the port", self.name),
        }
    }

    fn forwarding(&self, frame: Frame) -> Expected {
        forwarding(&self.sent(), frame)
    }

    fn with_same_link(&self, frame: Frame) -> Frame {
        with_same_link(&self.sent(), frame)
    }
}

/// What a forwarded frame becomes.
fn forwarding(sent: &[u8], frame: Frame) -> Expected {
    let Ok(Network::Ip(ip)) = dissect(sent).map(|dissected| dissected.network) else {
        panic!("only IP is forwarded")
    };
    let next_hop = Some(NextHop { ifindex: UPLINK, addr: Family::of(ip.source).peer.into() });
    let frame = Some(with_same_link(sent, frame).ttl(63));
    Expected { frame, next_hop, ..Expected::only(Fate::Forwarded) }
}

fn with_same_link(sent: &[u8], frame: Frame) -> Frame {
    let sent = dissect(sent).expect("a frame that can be read");
    frame.macs(sent.source_mac, sent.destination_mac)
}

/// Running.
impl Case {
    /// The case in one sentence.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it can be run so.
    #[must_use]
    pub fn runs(&self, way: Way) -> bool {
        self.ways.contains(&way)
    }

    /// Runs it on the host.
    ///
    /// # Errors
    /// Says in which way the outcome is not the expected one, as for [`Self::run_on`].
    pub fn run_on_host(&self) -> Result<(), String> {
        match self.run_on(&mut Host::default()) {
            Ok(()) => Ok(()),
            Err(Failure::Refused) => unreachable!("the host runs anything"),
            Err(Failure::Wrong(complaint)) => Err(complaint),
        }
    }

    /// Runs it, and checks the outcome: against what the case expects and, in the kernel, against the host.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run_on(&self, runner: &mut dyn Runner) -> Result<(), Failure> {
        let model = self.tables();
        let bytes = self.sent();
        let arrival = self.arrival(&bytes);
        runner.fill(&model);
        let mut earlier = Vec::new();
        for frame in &self.before {
            earlier.push(runner.run(&self.arrival(frame)).map_err(|Refused| Failure::Refused)?);
        }
        let counted = Counted { flows: runner.flows(), drops: runner.drops() };
        let outcome = runner.run(&arrival).map_err(|Refused| Failure::Refused)?;
        let after = After {
            outcome,
            flows: counted.flows_since(runner.flows()),
            mappings: runner.mappings(),
            endpoint_use: runner.endpoint_use(),
            drops: counted.drops_since(runner.drops()),
            earlier,
        };
        let mut complaints = self.check(runner.way(), &after);
        if runner.way() != Way::Host {
            complaints.extend(self.compare_with_host((runner.way(), &model), &arrival, &after));
        }
        if complaints.is_empty() {
            return Ok(());
        }
        let head =
            format!("{} ({:?}, {})\n  {}", self.name, runner.way(), self.hook.name(), describe(&bytes));
        complaints.insert(0, head);
        Err(Failure::Wrong(complaints.join("\n  ")))
    }

    fn sent(&self) -> Vec<u8> {
        match &self.frame {
            Sent::Described(frame) => frame.build(),
            Sent::Bytes(bytes) => bytes.clone(),
        }
    }

    /// The tables with the flows given, at the present time.
    fn tables(&self) -> Model {
        let model = Model { clock: world::now(), ..self.model.clone() };
        // A table of cases may take longer than a datagram is remembered.
        let passed = model.clock.saturating_sub(self.model.clock);
        model.fragments.borrow_mut().values_mut().for_each(|noted| noted.began += passed);
        for (tuple, Entry { entry, confirmed }) in
            self.given.iter().flat_map(|flow| flow.entries(model.clock))
        {
            let table = if confirmed { &model.conntrack } else { &model.unconfirmed };
            table.borrow_mut().insert(tuple, entry);
        }
        model.mappings.borrow_mut().extend(mapped::entries(&self.mappings, model.clock));
        model
    }

    const fn arrival<'a>(&self, frame: &'a [u8]) -> Arrival<'a> {
        let Self { hook, ifindex, came_in_by, waited, segment, .. } = *self;
        Arrival { hook, ifindex, came_in_by, waited, segment, frame }
    }

    fn check(&self, way: Way, after: &After) -> Vec<String> {
        let drawn;
        let expected = match &self.expected {
            Expectation::Fixed(expected) => expected,
            Expectation::WithPort(expected) => {
                let [(_, translated)] = *after.outcome.began else {
                    return vec![format!("expected one flow to begin, not {:?}", after.outcome.began)];
                };
                drawn = expected(translated.sport.number());
                &drawn
            }
        };
        let mut complaints = Vec::new();
        complaints.extend(expected.check_fate(&after.outcome));
        complaints.extend(self.check_frame(expected, after));
        if way != Way::Xdp {
            complaints.extend(expected.check_answer(after.outcome.answer.as_deref()));
        }
        complaints.extend(self.check_flows(expected, &after.flows));
        complaints.extend(self.check_mappings(expected, &after.mappings));
        complaints.extend(self.check_counts(expected, &after.flows));
        complaints.extend(self.check_drops(expected, &after.drops));
        complaints
    }

    fn check_frame(&self, expected: &Expected, after: &After) -> Option<String> {
        let found = &after.outcome.frame[..];
        let wanted = match (&expected.frame, self.drawn_identification(after)) {
            (None, _) => self.sent(),
            (Some(frame), None) => frame.build(),
            (Some(frame), Some(id)) => frame.clone().id(id).build(),
        };
        if wanted != found {
            return Some(differing(&wanted, found));
        }
        let verified = if self.adds_up() { Frame::verify(found) } else { Ok(()) };
        verified.err().map(|error| format!("after the translation: {error}"))
    }

    /// The identification that a translated packet of IPv4 must have if one is drawn: fragments have that of the first.
    fn drawn_identification(&self, after: &After) -> Option<u16> {
        if is_cuttable(&self.sent()) {
            return drawn_identification((&self.sent(), &after.outcome.frame));
        }
        let arrived: Vec<_> = self.before.iter().cloned().chain([self.sent()]).collect();
        let left = after.earlier.iter().chain([&after.outcome]).map(|outcome| &outcome.frame[..]);
        drawn_identification(
            arrived.iter().map(Vec::as_slice).zip(left).find(|(arrived, _)| is_first_fragment(arrived))?,
        )
    }

    /// Whether all checksums of what is sent are right.
    fn adds_up(&self) -> bool {
        Frame::verify(&self.sent()).is_ok()
    }

    fn check_flows(&self, expected: &Expected, found: &HashMap<Tuple, Entry>) -> Vec<String> {
        let now = world::now();
        let flows = expected.flows.as_ref().unwrap_or(&self.given);
        let wanted = flows.iter().flat_map(|flow| flow.entries(now)).collect();
        differences(&wanted, found)
    }

    fn check_mappings(&self, expected: &Expected, found: &HashMap<Tuple, MappingEntry>) -> Vec<String> {
        let mappings = expected.mappings.as_ref().unwrap_or(&self.mappings);
        mapped::differences(&mapped::entries(mappings, world::now()), found)
    }

    /// The packet is counted once if it was translated, and never otherwise.
    fn check_counts(&self, expected: &Expected, found: &HashMap<Tuple, Entry>) -> Option<String> {
        let counts: Vec<_> = found
            .values()
            .map(|found| (found.entry.packets, found.entry.bytes))
            .filter(|c| *c != (0, 0))
            .collect();
        let counted = expected.frame.is_some() && expected.counted;
        let wanted = if counted { vec![(1, length_of_packet(&self.sent()))] } else { Vec::new() };
        (counts != wanted)
            .then(|| format!("packets and bytes counted in flows: {counts:?}, expected {wanted:?}"))
    }

    fn check_drops(&self, expected: &Expected, found: &HashMap<DropKey, u64>) -> Option<String> {
        let wanted: HashMap<_, _> = match expected.fate {
            Fate::Dropped(reason) => {
                let (reason, hook) = (reason as u8, self.hook as u8);
                HashMap::from([(DropKey { ifindex: self.ifindex, reason, hook, reserved: [0; 2] }, 1)])
            }
            _ => HashMap::new(),
        };
        (&wanted != found).then(|| format!("drop counters are {found:?}, expected {wanted:?}"))
    }

    /// The host, which is told the port that the kernel drew, does the same to the last bit.
    fn compare_with_host(
        &self,
        (kernel_way, model): (Way, &Model),
        arrival: &Arrival<'_>,
        kernel: &After,
    ) -> Vec<String> {
        let mut host = Host::default();
        host.fill(model);
        let range = model.config.nat_ports;
        if let Some((_, translated)) = kernel.outcome.began.first()
            && (range.first..=range.last).contains(&translated.sport.number())
        {
            host.draws(translated.sport.number());
        }
        for (frame, there) in self.before.iter().zip(&kernel.earlier) {
            if let Some(id) = drawn_identification((frame, &there.frame)) {
                host.numbers(id);
            }
            let Ok(here) = host.run(&self.arrival(frame)) else { unreachable!("the host runs anything") };
            if here.frame != there.frame {
                return vec![format!("before that on the host, {}", differing(&here.frame, &there.frame))];
            }
        }
        let counted = Counted { flows: host.flows(), drops: HashMap::new() };
        if let Some(id) = drawn_identification((&self.sent(), &kernel.outcome.frame)) {
            host.numbers(id);
        }
        let Ok(outcome) = host.run(arrival) else { unreachable!("the host runs anything") };
        let mut complaints = differences(&counted.flows_since(host.flows()), &kernel.flows);
        complaints.extend(mapped::differences(&host.mappings(), &kernel.mappings));
        let (host_use, kernel_use) = (in_use(&host.endpoint_use()), in_use(&kernel.endpoint_use));
        if host_use != kernel_use {
            complaints.push(format!("endpoints use {kernel_use:?}, but {host_use:?} on the host"));
        }
        if !outcome.fate.agrees_with(kernel.outcome.fate) {
            complaints.push(format!("{:?}, but {:?} on the host", kernel.outcome.fate, outcome.fate));
        }
        if outcome.frame != kernel.outcome.frame {
            complaints.push(format!("on the host, {}", differing(&outcome.frame, &kernel.outcome.frame)));
        }
        if kernel_way != Way::Xdp && outcome.answer != kernel.outcome.answer {
            complaints.push("another answer than on the host".to_owned());
        }
        if outcome.began != kernel.outcome.began {
            complaints.push(format!("{:?} began, but {:?} on the host", kernel.outcome.began, outcome.began));
        }
        complaints
    }
}

impl Expected {
    fn check_answer(&self, found: Option<&[u8]>) -> Option<String> {
        match (&self.answer, found) {
            (None, None) => None,
            (None, Some(found)) => Some(format!("answered with {}", describe(found))),
            (Some(wanted), None) => Some(format!("not answered, expected {wanted}")),
            (Some(wanted), Some(found)) if wanted.build() != found => {
                Some(format!("the answer: {}", differing(&wanted.build(), found)))
            }
            (Some(_), Some(found)) => Frame::verify(found).err().map(|error| format!("the answer: {error}")),
        }
    }

    fn check_fate(&self, outcome: &Outcome) -> Option<String> {
        if !outcome.fate.agrees_with(self.fate) {
            return Some(format!("{:?}, expected {:?}", outcome.fate, self.fate));
        }
        match outcome.verdict {
            Some(Verdict::Forward(next_hop)) if Some(next_hop) != self.next_hop => {
                Some(format!("forwarded to {next_hop:?}, expected {:?}", self.next_hop))
            }
            Some(Verdict::Deliver(delivery)) if Some(delivery.ifindex) != self.receiver => {
                Some(format!("delivered to interface {}, expected {:?}", delivery.ifindex, self.receiver))
            }
            _ => None,
        }
    }
}

/// The ICMP error about a frame that is dropped: written here once more, as the RFCs have it.
fn refusal(hook: Hook, sent: &[u8], error: IcmpError) -> Frame {
    let dissected = dissect(sent).expect("a frame that can be read");
    let Network::Ip(ip) = dissected.network else { panic!("only IP is answered") };
    let sender = world::ENDPOINTS.iter().find(|endpoint| endpoint.addrs.contains(&ip.source));
    let family = Family::of(ip.source);
    let (from, macs) = match (hook, sender) {
        (Hook::FromUplink, _) => (ip.destination, (dissected.destination_mac, dissected.source_mac)),
        (_, Some(sender)) => {
            let gateway = if sender.bridge == BRIDGE { family.gateway } else { family.other_gateway };
            (gateway, (sender.gateway_mac, sender.mac))
        }
        (_, None) => panic!("{} is no endpoint's address", ip.source),
    };
    let v4 = ip.source.is_ipv4();
    let class = if v4 { 0xc0 } else { 0 };
    let length = usize::try_from(length_of_packet(sent)).expect("a short packet");
    Frame::icmp_error_quoting((from, ip.source), error, &sent[14..14 + length])
        .id(0)
        .traffic_class(class)
        .macs(macs.0, macs.1)
}

/// The length of an IP packet as its header says, from that header on; all there is if it says 0.
fn length_of_packet(frame: &[u8]) -> u64 {
    let word = |at: usize| u64::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let (field, before) = if frame[14] >> 4 == 4 { (word(16), 0) } else { (word(18), 40) };
    if field == 0 { frame.len() as u64 - 14 } else { before + field }
}

/// What endpoints have in use, but for what depends on the second: interface, flows, flows refused.
fn in_use(endpoints: &HashMap<u32, EndpointUse>) -> Vec<(u32, u32, u64)> {
    let mut list: Vec<_> =
        endpoints.iter().map(|(ifindex, used)| (*ifindex, used.flows, used.refused)).collect();
    list.sort_unstable();
    list
}

/// Whether a frame is the first fragment of an IPv4 datagram.
#[must_use]
pub fn is_first_fragment(frame: &[u8]) -> bool {
    matches!(frame, [_, _, _, _, _, _, _, _, _, _, _, _, 8, 0, 0x40..=0x4f, ..])
        && frame.get(20..22).is_some_and(|field| field[0] & 0x3f == 0x20 && field[1] == 0)
}

/// Whether a frame is a fragment of an IPv4 datagram, but not the first.
#[must_use]
pub fn is_later_fragment(frame: &[u8]) -> bool {
    matches!(frame, [_, _, _, _, _, _, _, _, _, _, _, _, 8, 0, 0x40..=0x4f, ..])
        && frame.get(20..22).is_some_and(|field| field[0] & 0x1f != 0 || field[1] != 0)
}

/// Whether a frame is a whole packet of IPv4 that routers may cut.
fn is_cuttable(frame: &[u8]) -> bool {
    matches!(frame, [_, _, _, _, _, _, _, _, _, _, _, _, 8, 0, 0x45..=0x4f, ..])
        && frame.get(20..22).is_some_and(|field| field[0] & 0x7f == 0 && field[1] == 0)
}

/// The identification that a translated packet of IPv4 got, by what arrived and what left, if it is a first fragment or
/// may yet be cut.
#[must_use]
pub fn drawn_identification((arrived, left): (&[u8], &[u8])) -> Option<u16> {
    let changed = (is_first_fragment(arrived) || is_cuttable(arrived)) && arrived != left;
    let id = left.get(18..20).filter(|_| changed)?;
    Some(u16::from_be_bytes([id[0], id[1]]))
}

/// What a run left behind.
struct After {
    outcome: Outcome,
    /// With what the last frame alone has counted.
    flows: HashMap<Tuple, Entry>,
    mappings: HashMap<Tuple, MappingEntry>,
    endpoint_use: HashMap<u32, EndpointUse>,
    drops: HashMap<DropKey, u64>,
    /// What became of the frames before.
    earlier: Vec<Outcome>,
}

/// What was counted before the last frame.
struct Counted {
    flows: HashMap<Tuple, Entry>,
    drops: HashMap<DropKey, u64>,
}

impl Counted {
    fn flows_since(&self, mut flows: HashMap<Tuple, Entry>) -> HashMap<Tuple, Entry> {
        for (tuple, Entry { entry, .. }) in &mut flows {
            if let Some(before) = self.flows.get(tuple) {
                entry.packets -= before.entry.packets;
                entry.bytes -= before.entry.bytes;
            }
        }
        flows
    }

    fn drops_since(&self, mut drops: HashMap<DropKey, u64>) -> HashMap<DropKey, u64> {
        for (key, before) in &self.drops {
            drops.entry(*key).and_modify(|count| *count -= before);
        }
        drops.retain(|_, count| *count > 0);
        drops
    }
}

/// Why a case did not hold.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The kernel does not run programs on such a frame.
    Refused,
    /// What is wrong.
    Wrong(String),
}

/// How two frames differ, for people.
#[must_use]
pub fn differing(wanted: &[u8], found: &[u8]) -> String {
    let first = wanted.iter().zip(found).position(|(a, b)| a != b).unwrap_or(wanted.len().min(found.len()));
    format!(
        "from byte {first} on, expected {}\n    found    {}\n    expected {}\n    found    {}",
        describe(wanted),
        describe(found),
        hex(wanted),
        hex(found)
    )
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("hook", &self.hook).finish_non_exhaustive()
    }
}
