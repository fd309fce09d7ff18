//! CPUs that stop between two table operations, where they are told to, and let others work on the same tables.

use std::cell::{Cell, RefCell};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, Scope};

use bytemuck::Zeroable;
use vnet_common::{
    Addr, CtEntry, CtState, DatapathConfig, DropReason, EndpointUse, EndpointValue, FloatingValue,
    FragmentKey, FragmentValue, Hook, HostAddressValue, MappingEntry, MasqueradeValue, NetworkValue, Origin,
    Port, PortMapKey, PortMapValue, Tuple, UplinkValue, Zone,
};

use super::super::{BRIDGE, INSIDE, Packet, UPLINK, WORLD};
use crate::answer::Budget;
use crate::model::Model;
use crate::tables::{Flow, Mapping, Ports, Route, RouteQuery, Tables};
use crate::{Parsed, Place, Scratch, Slice, Verdict, parse, pipeline};

/// Something for a CPU to do. Packets are numbered from 0 in the order in which the scenario names them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    /// A packet with this tuple arrives from there; TCP flags.
    Sent(Tuple, u8),
    /// The answer to what became of a packet.
    Answer(usize, u8),
    /// What the sender of a packet sends next, with other TCP flags.
    Next(usize, u8),
    /// What [`BESIDE`] sends to the external port by which a packet left for somewhere else.
    Back(usize, u8),
    /// Seconds go by, for everybody.
    Wait(u32),
}

/// A server that is spoken to otherwise too.
pub(super) const BESIDE: ([u8; 4], u16) = (WORLD[0], 53);

/// What became of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fate {
    /// As it arrived.
    pub(super) sent: Tuple,
    /// As it left, from the side to which it left.
    pub(super) became: Tuple,
    /// Whether it went on, and not into the stack.
    pub(super) verdict: Result<Verdict, DropReason>,
}

impl Fate {
    /// Whether it went on to where it was sent.
    pub(super) fn arrived(&self) -> bool {
        !matches!(self.verdict, Ok(Verdict::Pass) | Err(_))
    }
}

/// What all CPUs share; whoever holds it is the one that works.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    /// The tables.
    pub(super) model: Model,
    /// By the packets' numbers; `None` for those that have not come so far, and for pauses.
    pub(super) fates: Vec<Option<Fate>>,
}

/// What a CPU is told: to go on for so many operations, and at first what with.
struct Turn {
    shared: Box<Shared>,
    operations: usize,
    jobs: Vec<(usize, Job)>,
}

/// What it says when it stops: whether there is nothing left to do.
struct Report {
    shared: Box<Shared>,
    done: bool,
}

/// How often each CPU is told to go on, and how far: all the way if it says nothing else.
pub(super) type Order<'a> = &'a [(usize, Option<usize>)];

/// The other end of the CPUs, each a thread of its own.
pub(super) struct Machine {
    cpus: Vec<(Sender<Turn>, Receiver<Report>)>,
}

impl Machine {
    /// Starts CPUs that have the model's routes, endpoints and settings.
    pub(super) fn start<'scope>(scope: &'scope Scope<'scope, '_>, model: &Model, cpus: usize) -> Self {
        let start = |_| {
            let ((turns, orders), (reports, said)) = (channel(), channel());
            let fixed = model.clone();
            scope.spawn(move || {
                let shared = RefCell::default();
                let mut cpu = Cpu { fixed, shared, left: Cell::new(0), turns: orders, reports };
                while cpu.take_turn().is_some() {}
            });
            (turns, said)
        };
        Self { cpus: (0..cpus).map(start).collect() }
    }

    /// Has one CPU do a list of jobs, one after the other and without a pause.
    pub(super) fn one_by_one(&self, shared: Box<Shared>, jobs: Vec<(usize, Job)>) -> Box<Shared> {
        self.turn(0, Turn { shared, operations: usize::MAX, jobs }).shared
    }

    /// Has the CPUs do their lists in this order. Also says which turns ended with something left to do.
    pub(super) fn interleaved(
        &self,
        mut shared: Box<Shared>,
        lists: &[Vec<(usize, Job)>],
        order: Order<'_>,
    ) -> (Box<Shared>, Vec<bool>) {
        let (mut begun, mut done) = (vec![false; lists.len()], vec![false; lists.len()]);
        let mut stalled = Vec::with_capacity(order.len());
        for &(cpu, operations) in order {
            if !done[cpu] {
                let jobs = if begun[cpu] { Vec::new() } else { lists[cpu].clone() };
                let report =
                    self.turn(cpu, Turn { shared, operations: operations.unwrap_or(usize::MAX), jobs });
                (shared, begun[cpu], done[cpu]) = (report.shared, true, report.done);
            }
            stalled.push(!done[cpu]);
        }
        assert!(done.iter().all(|done| *done), "an order lets everybody come to an end");
        (shared, stalled)
    }

    fn turn(&self, cpu: usize, turn: Turn) -> Report {
        let (turns, reports) = &self.cpus[cpu];
        turns.send(turn).expect("it waits for its turn");
        reports.recv().expect("it does not panic")
    }
}

/// One CPU.
struct Cpu {
    /// What no packet changes.
    fixed: Model,
    /// The tables, during its turn.
    shared: RefCell<Option<Box<Shared>>>,
    /// Operations left of its turn.
    left: Cell<usize>,
    turns: Receiver<Turn>,
    reports: Sender<Report>,
}

impl Cpu {
    /// Waits for work and does it; `None` if there will be no more.
    fn take_turn(&mut self) -> Option<()> {
        for (number, job) in self.resume()? {
            let fate = match job {
                Job::Wait(seconds) => {
                    self.point();
                    self.shared.borrow_mut().as_mut()?.model.clock += seconds;
                    None
                }
                Job::Sent(tuple, flags) => Some(self.send(tuple, flags)),
                Job::Answer(to, flags) => {
                    self.fate(to).filter(Fate::arrived).map(|fate| self.send(fate.became.answer(), flags))
                }
                Job::Back(to, flags) => {
                    let out = self.fate(to).filter(Fate::arrived);
                    let (src, sport) = (Addr::v4(BESIDE.0), Port::new(BESIDE.1));
                    out.map(|fate| self.send(Tuple { src, sport, ..fate.became.answer() }, flags))
                }
                Job::Next(after, flags) => self.fate(after).map(|fate| self.send(fate.sent, flags)),
            };
            self.shared.borrow_mut().as_mut()?.fates[number] = fate;
        }
        let shared = self.shared.take()?;
        self.reports.send(Report { shared, done: true }).ok()
    }

    /// Begins a turn.
    fn resume(&self) -> Option<Vec<(usize, Job)>> {
        let Turn { shared, operations, jobs } = self.turns.recv().ok()?;
        self.shared.replace(Some(shared));
        self.left.set(operations);
        Some(jobs)
    }

    /// Between two operations: ends the turn if it is over.
    fn point(&self) {
        while self.left.get() == 0 {
            let shared = self.shared.take().expect("it is its turn");
            let said = self.reports.send(Report { shared, done: false }).ok();
            said.and_then(|()| self.resume()).expect("nobody leaves a packet stalled");
        }
        self.left.set(self.left.get() - 1);
    }

    /// One look at one of the tables of flows.
    fn look(&self, tuple: &Tuple, confirmed: bool) -> Option<Entry<'_>> {
        let found = self.operate(|model| {
            let table = if confirmed { &model.conntrack } else { &model.unconfirmed };
            table.borrow().get(tuple).copied()
        });
        found.map(|entry| Entry { cpu: self, key: *tuple, confirmed, last: Cell::new(entry) })
    }

    /// One operation on the tables.
    fn operate<R>(&self, operation: impl FnOnce(&Model) -> R) -> R {
        self.point();
        operation(&self.shared.borrow().as_ref().expect("it is its turn").model)
    }

    fn fate(&self, number: usize) -> Option<Fate> {
        self.shared.borrow().as_ref()?.fates[number]
    }

    /// Takes a packet all its way.
    fn send(&self, sent: Tuple, flags: u8) -> Fate {
        let (hook, ifindex) = match self.fixed.endpoints.get(&sent.src) {
            Some(endpoint) if sent.zone == INSIDE => (Hook::FromEndpoint, endpoint.ifindex),
            _ => (Hook::FromUplink, UPLINK),
        };
        let packet =
            Packet { tuple: sent, flags, hop_limit: 64, options: 0, checksum: true, payload: vec![1; 8] };
        let (mut bytes, mut became) = (packet.bytes(), Tuple::zeroed());
        let place = Place { ifindex, arrived: BRIDGE, waited: 0 };
        let slice = &mut Slice::new(&mut bytes);
        let verdict = pipeline::run(slice, self, &mut Scratch::zeroed(), (hook, place));
        assert!(
            matches!(parse(slice, &mut bytemuck::Zeroable::zeroed(), &mut became), Ok(Parsed::Ip(_))),
            "it is still a packet"
        );
        became.zone = if matches!(verdict, Ok(Verdict::Deliver(_))) { INSIDE } else { Zone::WORLD };
        Fate { sent, became, verdict }
    }
}

/// An entry in place. Once it is removed from its table it stays as it was: nobody else sees what is written to it.
/// That its memory may become another's at once, in the tables that make room, is left out.
struct Entry<'c> {
    cpu: &'c Cpu,
    key: Tuple,
    confirmed: bool,
    last: Cell<CtEntry>,
}

impl Entry<'_> {
    /// Something that is never replaced in place: when it is read makes no difference, so that it is no operation.
    fn fixed(&self) -> CtEntry {
        self.last.get()
    }

    fn change<R>(&self, change: impl FnOnce(&mut CtEntry) -> R) -> R {
        let mut last = self.last.get();
        let result = self.cpu.operate(|model| {
            let table = if self.confirmed { &model.conntrack } else { &model.unconfirmed };
            let mut table = table.borrow_mut();
            let still = |entry: &&mut CtEntry| {
                (entry.translated, entry.created, entry.origin)
                    == (last.translated, last.created, last.origin)
            };
            match table.get_mut(&self.key).filter(still) {
                Some(entry) => {
                    let result = change(entry);
                    last = *entry;
                    result
                }
                None => change(&mut last),
            }
        });
        self.last.set(last);
        result
    }
}

impl Flow for Entry<'_> {
    fn translate(&self, to: &mut Tuple) {
        *to = self.fixed().translated;
    }

    fn answer(&self, to: &mut Tuple) {
        *to = self.fixed().twin();
    }

    fn leads_to_answer_of(&self, tuple: &Tuple) -> bool {
        self.fixed().translated == tuple.answer()
    }

    fn created(&self) -> u32 {
        self.fixed().created
    }

    fn last_seen(&self) -> u32 {
        self.change(|entry| entry.last_seen)
    }

    fn state(&self) -> CtState {
        CtState::from_u8(self.change(|entry| entry.state))
    }

    fn origin(&self) -> Origin {
        Origin::from_u8(self.fixed().origin)
    }

    fn flags(&self) -> u8 {
        self.fixed().flags
    }

    fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    fn copy(&self, to: &mut CtEntry) {
        *to = self.change(|entry| *entry);
    }

    fn count(&self, _: u32) {
        // Nothing depends on it.
    }

    fn refresh(&self, now: u32, state: CtState) {
        self.change(|entry| {
            entry.last_seen = now;
            entry.state = state as u8;
        });
    }
}

/// A mapping in place, likewise.
struct MappingInPlace<'c> {
    cpu: &'c Cpu,
    key: Tuple,
    last: Cell<MappingEntry>,
}

impl MappingInPlace<'_> {
    fn change<R>(&self, change: impl FnOnce(&mut MappingEntry) -> R) -> R {
        let mut last = self.last.get();
        let result = self.cpu.operate(|model| {
            let mut table = model.mappings.borrow_mut();
            match table.get_mut(&self.key).filter(|entry| entry.translated == last.translated) {
                Some(entry) => {
                    let result = change(entry);
                    last = *entry;
                    result
                }
                None => change(&mut last),
            }
        });
        self.last.set(last);
        result
    }
}

impl Mapping for MappingInPlace<'_> {
    fn translated(&self) -> Tuple {
        self.last.get().translated
    }

    fn last_seen(&self) -> u32 {
        self.change(|entry| entry.last_seen)
    }

    fn filtering(&self) -> u8 {
        self.last.get().filtering
    }

    fn flags(&self) -> u8 {
        self.last.get().flags
    }

    fn refresh(&self, now: u32, flags: u8) {
        self.change(|entry| {
            entry.last_seen = now;
            if flags & CtEntry::FLAG_BRIEF == 0 {
                entry.flags = 0;
            }
        });
    }

    fn renew(&self, flags: u8) {
        self.change(|entry| entry.flags = flags);
    }
}

impl Ports for Cpu {
    fn host_address(&self, addr: &Addr) -> Option<&HostAddressValue> {
        self.fixed.host_address(addr)
    }

    fn port_map(&self, key: &PortMapKey) -> Option<&PortMapValue> {
        self.fixed.port_map(key)
    }

    fn config(&self) -> Option<&DatapathConfig> {
        self.fixed.config()
    }
}

/// What packets change is an operation of its own, or several where vnet-ebpf makes several calls.
impl Tables for Cpu {
    type Flow<'a> = Entry<'a>;
    type Mapping<'a> = MappingInPlace<'a>;

    fn conntrack(&self, tuple: &Tuple) -> Option<Entry<'_>> {
        let before = self.moved();
        let again = || (self.moved() != before).then(|| self.look(tuple, true)).flatten();
        self.look(tuple, true).or_else(|| self.unconfirmed(tuple)).or_else(again)
    }

    fn unconfirmed(&self, tuple: &Tuple) -> Option<Entry<'_>> {
        self.look(tuple, false)
    }

    fn is_confirmed(&self, tuple: &Tuple) -> bool {
        self.operate(|model| model.is_confirmed(tuple))
    }

    fn add_flow(&self, tuple: &Tuple, entry: &CtEntry) -> Option<()> {
        self.operate(|model| model.add_flow(tuple, entry))
    }

    fn add_confirmed(&self, tuple: &Tuple, entry: &CtEntry) -> Option<()> {
        self.operate(|model| model.add_confirmed(tuple, entry))
    }

    fn remove_flow(&self, tuple: &Tuple) -> bool {
        self.remove_unconfirmed(tuple);
        self.operate(|model| model.conntrack.borrow_mut().remove(tuple).is_some())
    }

    fn moves(&self) {
        self.operate(Tables::moves);
    }

    fn moved(&self) -> u32 {
        self.operate(Tables::moved)
    }

    fn remove_unconfirmed(&self, tuple: &Tuple) {
        self.operate(|model| model.remove_unconfirmed(tuple));
    }

    fn flow_began(&self, _: &Tuple, _: &CtEntry) {}

    fn next_slot(&self) -> u32 {
        self.operate(Model::next_slot)
    }

    fn next_swept(&self) -> u32 {
        self.operate(Model::next_swept)
    }

    fn sweep_anew(&self) {
        self.operate(Model::sweep_anew);
    }

    fn slot(&self, index: u32, tuple: &mut Tuple) {
        self.operate(|model| model.slot(index, tuple));
    }

    fn set_slot(&self, index: u32, tuple: &Tuple) {
        self.operate(|model| model.set_slot(index, tuple));
    }

    fn endpoint_use<R>(&self, ifindex: u32, change: impl FnOnce(&mut EndpointUse) -> R) -> Option<R> {
        self.operate(|model| model.endpoint_use(ifindex, change))
    }

    fn mapping(&self, key: &Tuple) -> Option<MappingInPlace<'_>> {
        let found = self.operate(|model| model.mappings.borrow().get(key).copied());
        found.map(|entry| MappingInPlace { cpu: self, key: *key, last: Cell::new(entry) })
    }

    fn add_mapping(&self, key: &Tuple, mapping: &MappingEntry) -> Option<()> {
        self.operate(|model| model.add_mapping(key, mapping))
    }

    fn put_mapping(&self, key: &Tuple, mapping: &MappingEntry) {
        self.operate(|model| model.put_mapping(key, mapping));
    }

    fn remove_mapping(&self, key: &Tuple) {
        self.operate(|model| model.remove_mapping(key));
    }

    fn random(&self) -> u32 {
        // Which CPU draws first makes no difference that matters: not a point.
        self.shared.borrow().as_ref().expect("it is its turn").model.random()
    }

    fn now(&self) -> u32 {
        self.operate(|model| model.clock)
    }

    fn fragment(&self, key: &FragmentKey, to: &mut FragmentValue) -> bool {
        self.fixed.fragment(key, to)
    }

    fn put_fragment(&self, key: &FragmentKey, value: &FragmentValue) {
        self.fixed.put_fragment(key, value);
    }

    fn identification(&self) -> [u8; 2] {
        self.fixed.identification()
    }

    fn endpoint(&self, addr: &Addr) -> Option<&EndpointValue> {
        self.fixed.endpoint(addr)
    }

    fn network(&self, addr: &Addr) -> Option<&NetworkValue> {
        self.fixed.network(addr)
    }

    fn masquerade(&self, source: &Addr) -> Option<&MasqueradeValue> {
        self.fixed.masquerade(source)
    }

    fn is_unmasqueraded(&self, destination: &Addr) -> bool {
        self.fixed.is_unmasqueraded(destination)
    }

    fn floating(&self, external: &Addr) -> Option<&FloatingValue> {
        self.fixed.floating(external)
    }

    fn is_allowed(&self, mapping: u32, client: &Addr) -> bool {
        self.fixed.is_allowed(mapping, client)
    }

    fn uplink(&self, ifindex: u32) -> Option<&UplinkValue> {
        self.fixed.uplink(ifindex)
    }

    fn route(&self, query: &RouteQuery<'_>) -> Route {
        self.fixed.route(query)
    }

    fn owns(&self, addr: &Addr, arrived: u32) -> bool {
        self.fixed.owns(addr, arrived)
    }

    fn host_socket(&self, tuple: &Tuple) -> bool {
        self.fixed.host_socket(tuple)
    }

    fn icmp_budget<R>(&self, change: impl FnOnce(&mut Budget) -> R) -> Option<R> {
        self.fixed.icmp_budget(change)
    }
}

/// Runs a story with as many CPUs as it needs.
pub(super) fn with_cpus<R>(model: &Model, cpus: usize, story: impl FnOnce(&Machine) -> R) -> R {
    thread::scope(|scope| {
        let machine = Machine::start(scope, model, cpus);
        let result = story(&machine);
        drop(machine);
        result
    })
}
