//! A program that hands another one its packets: `BPF_PROG_TEST_RUN` gives each run the packet as the one before has left
//! it, translated and one hop older. This one writes the packet anew, of the next flow if that is wanted, and goes on to
//! the program that is measured by a tail call. So that may be run thousands of times between two looks at the clock,
//! which take as long as the program itself. What the feeder takes is measured with a program that does nothing in
//! place of the other, and taken off.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd as _};

use anyhow::{Context, Result, ensure};
use aya_obj::generated::{bpf_func_id, bpf_map_type};

use super::instruction::{
    Instruction, R0, R1, R2, R3, R4, R5, R6, R7, Size, add, call, copy, divide, exit, first_value, load, map,
    remainder, set, store, to_network,
};
use super::skb;
use super::system::{Classifier, Map, Ran};

/// What the feeder keeps: which flow it is at, which program is next, and the packet, so that its addresses are aligned.
const AT: i16 = 0;
const NEXT: i16 = 4;
const FRAME: i16 = 18;
/// Bytes of a packet of TCP or UDP over IPv4, without options or payload; the shorter one is filled up.
pub(crate) const FRAME_BYTES: usize = 54;
/// Where a packet has its ports, from the first byte on.
const PORTS_AT: i16 = 34;
const SOURCE_AT: i16 = 26;

/// The programs that the feeder goes on to.
const MEASURED: u32 = 0;
const NOTHING: u32 = 1;

/// One of a packet's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

/// Many flows: number `n` has the port `first_port + n % ports` and the address `first_address + n / ports`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flows {
    /// Whose address that is, and whose port.
    pub(crate) address: End,
    pub(crate) port: End,
    pub(crate) first_address: Ipv4Addr,
    pub(crate) first_port: u16,
    pub(crate) ports: u16,
    /// How many there are.
    pub(crate) count: u32,
    /// How far the next is from the one before: each comes once before the first comes again if this and `count` have
    /// no common divisor.
    pub(crate) step: u32,
}

/// What is fed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Feed<'a> {
    /// The interface that it arrives on.
    pub(crate) ifindex: u32,
    pub(crate) frame: &'a [u8],
    /// Nothing for the same packet again and again.
    pub(crate) flows: Option<Flows>,
}

/// Feeds one program.
#[derive(Debug)]
pub(crate) struct Feeder {
    program: Classifier,
    state: Map,
    ifindex: u32,
    frame: Vec<u8>,
    #[expect(dead_code, reason = "what programs go on to is forgotten with the last descriptor")]
    programs: Map,
    #[expect(dead_code, reason = "as above")]
    nothing: Classifier,
}

impl Feeder {
    /// Makes one for a program.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(crate) fn new(feed: Feed<'_>, program: &impl AsFd) -> Result<Self> {
        ensure!(feed.frame.len() <= FRAME_BYTES, "a packet of {} bytes", feed.frame.len());
        let mut frame = feed.frame.to_vec();
        frame.resize(FRAME_BYTES, 0);
        let state = Map::new(bpf_map_type::BPF_MAP_TYPE_ARRAY, (4, FRAME as usize + FRAME_BYTES), 1)?;
        let programs = Map::new(bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY, (4, 4), 2)?;
        let nothing = Classifier::load("nothing", &[set(R0, skb::PASS), exit()])?;
        for (number, fd) in [(MEASURED, program.as_fd()), (NOTHING, nothing.as_fd())] {
            let fd = fd.as_raw_fd().to_ne_bytes();
            programs.set(&number.to_ne_bytes(), &fd).context("feed a program")?;
        }
        let program = Classifier::load("feeder", &feeding(feed.flows, &state, &programs))?;
        Ok(Self { program, state, ifindex: feed.ifindex, frame, programs, nothing })
    }

    /// Runs the program so many times, beginning with the first flow after number `at`.
    ///
    /// # Errors
    /// When the kernel refuses, or went on to no program.
    pub(crate) fn run(&self, at: u32, times: u32) -> Result<Ran> {
        self.start(MEASURED, at, times)
    }

    /// The same, of a program that does nothing.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) fn run_nothing(&self, at: u32, times: u32) -> Result<Ran> {
        self.start(NOTHING, at, times)
    }

    fn start(&self, program: u32, at: u32, times: u32) -> Result<Ran> {
        let mut state = vec![0; FRAME as usize];
        state[AT as usize..][..4].copy_from_slice(&at.to_ne_bytes());
        state[NEXT as usize..][..4].copy_from_slice(&program.to_ne_bytes());
        state.extend(&self.frame);
        self.state.set(&0_u32.to_ne_bytes(), &state)?;
        let ran = self.program.test_run(self.ifindex, &self.frame, times)?;
        ensure!(ran.verdict != LOST, "the feeder goes on to no program");
        Ok(ran)
    }
}

/// What the feeder returns where a tail call fails: no verdict.
const LOST: i32 = 0x1057;

fn feeding(flows: Option<Flows>, state: &Map, programs: &Map) -> Vec<Instruction> {
    let mut program = vec![copy(R6, R1)];
    program.extend(first_value(R7, state.number()));
    program.extend(flows.into_iter().flat_map(next_flow));
    // What programs tell each other in the packet's metadata.
    program.extend([set(R1, 0), store(Size::B4, R6, skb::MARK, R1), store(Size::B4, R6, skb::TC_INDEX, R1)]);
    program.extend([
        copy(R1, R6),
        set(R2, 0),
        copy(R3, R7),
        add(R3, i32::from(FRAME)),
        set(R4, FRAME_BYTES as i32),
        set(R5, 0),
        call(bpf_func_id::BPF_FUNC_skb_store_bytes as u32),
        load(Size::B4, R3, R7, NEXT),
        copy(R1, R6),
    ]);
    program.extend(map(R2, programs.number()));
    program.extend([call(bpf_func_id::BPF_FUNC_tail_call as u32), set(R0, LOST), exit()]);
    program
}

fn next_flow(flows: Flows) -> Vec<Instruction> {
    let Flows { address, port, first_address, first_port, ports, count, step } = flows;
    let address_at = SOURCE_AT + if address == End::Destination { 4 } else { 0 };
    let port_at = PORTS_AT + if port == End::Destination { 2 } else { 0 };
    vec![
        load(Size::B4, R0, R7, AT),
        add(R0, step as i32),
        remainder(R0, count),
        store(Size::B4, R7, AT, R0),
        copy(R1, R0),
        divide(R1, u32::from(ports)),
        add(R1, first_address.to_bits() as i32),
        to_network(Size::B4, R1),
        store(Size::B4, R7, FRAME + address_at, R1),
        remainder(R0, u32::from(ports)),
        add(R0, i32::from(first_port)),
        to_network(Size::B2, R0),
        store(Size::B2, R7, FRAME + port_at, R0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ebpf::instruction::{skip_if_greater, skip_unless_equal};
    use vnet_tests::runner::Stage;

    /// Redirects packets to 198.51.100.7, port 0x1234 of the sender, and lets others pass; whatever it says, it spoils
    /// the packet.
    fn particular() -> Classifier {
        let program = [
            copy(R6, R1),
            load(Size::B4, R2, R6, skb::DATA),
            load(Size::B4, R3, R6, skb::DATA_END),
            copy(R4, R2),
            add(R4, 40),
            skip_if_greater(R4, R3, 8),
            load(Size::B4, R5, R2, SOURCE_AT + 4),
            load(Size::B2, R7, R2, PORTS_AT),
            set(R0, 0),
            store(Size::B4, R2, SOURCE_AT + 4, R0),
            skip_unless_equal(R5, i32::from_ne_bytes([198, 51, 100, 7]), 3),
            skip_unless_equal(R7, i32::from(0x1234_u16.to_be()), 2),
            set(R0, skb::REDIRECT),
            exit(),
            set(R0, skb::PASS),
            exit(),
        ];
        Classifier::load("particular", &program).unwrap()
    }

    fn frame(port: u16) -> Vec<u8> {
        let mut frame = vec![0; FRAME_BYTES];
        frame[12] = 8;
        frame[14] = 0x45;
        frame[30..34].copy_from_slice(&[198, 51, 100, 7]);
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        frame
    }

    #[test]
    fn each_run_gets_the_packet_as_it_was() {
        Stage::run(|_| {
            for (port, verdict) in [(0x1234, skb::REDIRECT), (0x1235, skb::PASS)] {
                let feed = Feed { ifindex: 11, frame: &frame(port), flows: None };
                let feeder = Feeder::new(feed, &particular()).unwrap();
                assert_eq!(feeder.run(0, 1).unwrap().verdict, verdict);
                assert_eq!(feeder.run(0, 1_000).unwrap().verdict, verdict, "spoilt for the second time");
                assert_eq!(feeder.run_nothing(0, 1_000).unwrap().verdict, skb::PASS);
            }
        });
    }

    #[test]
    fn flows_come_one_after_the_other() {
        let flows = Flows {
            address: End::Destination,
            port: End::Source,
            first_address: Ipv4Addr::new(198, 51, 100, 6),
            first_port: 0x1230,
            ports: 8,
            count: 24,
            step: 1,
        };
        // Port 0x1230 + 4 of the second address.
        let wanted = 8 + 4;
        Stage::run(|_| {
            let feed = Feed { ifindex: 11, frame: &frame(0), flows: Some(flows) };
            let feeder = Feeder::new(feed, &particular()).unwrap();
            assert_eq!(feeder.run(0, wanted).unwrap().verdict, skb::REDIRECT);
            assert_eq!(feeder.run(0, wanted + 1).unwrap().verdict, skb::PASS);
            assert_eq!(feeder.run(wanted - 1, 1).unwrap().verdict, skb::REDIRECT);
            assert_eq!(feeder.run(wanted - 1, 1 + 24).unwrap().verdict, skb::REDIRECT, "it goes round");
        });
    }
}
