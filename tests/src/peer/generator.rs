//! Frames generated in the kernel: `BPF_PROG_TEST_RUN` with live frames, which costs less than any socket.

use std::time::Duration;

use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use vnet::kernel::GENERATOR;

use super::capture::interface_index;
use crate::lab::Netns;

/// Frames that are dealt with at once, as by a driver.
const BATCH: u32 = 64;

/// Length of the frames: TCP over IPv4, without options or data.
const LENGTH: usize = 54;

/// Sends frames out of an interface, without a socket. What is at its other end has to be polled, as a network card is: a
/// virtual interface is with receive offload (GRO), or XDP.
#[derive(Debug)]
pub struct Generator {
    object: Ebpf,
    netns: Netns,
    ifindex: u32,
    frame: [u8; LENGTH],
    vary: bool,
}

impl Generator {
    /// Of a frame of TCP over IPv4 without options or data. With `vary` each gets another source.
    ///
    /// # Panics
    /// When it is another frame, there is no such interface, or the kernel refuses the program.
    #[must_use]
    #[track_caller]
    pub fn out_of(netns: &Netns, interface: &str, frame: &[u8], vary: bool) -> Self {
        let ifindex = index(netns, interface);
        let frame = frame.try_into().expect("TCP over IPv4 without options or data");
        let object = load(ifindex, &frame, if vary { 2 } else { 1 }, 0);
        Self { object, netns: netns.clone(), ifindex, frame, vary }
    }

    /// The same, which sends no more than so many frames in a second: of those that [`Self::run`] is asked for it leaves
    /// out what is not due.
    ///
    /// # Panics
    /// As [`Self::out_of`].
    #[must_use]
    #[track_caller]
    pub fn paced(self, per_second: u32) -> Self {
        let vary = if self.vary { 2 } else { 1 };
        Self { object: load(self.ifindex, &self.frame, vary, 1_000_000_000 / u64::from(per_second)), ..self }
    }

    /// Sends so many frames; how long each took by the kernel's count, with all that is done with it on this CPU
    /// meanwhile, but without what other processes do there, and without beginning and end, which wait for all CPUs.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn run(&mut self, count: u32) -> Duration {
        let Self { object, netns, ifindex, frame, vary: _ } = self;
        let program: &Xdp = program(object);
        netns.enter(|| run(program, *ifindex, frame, count))
    }
}

/// A program on an interface, in its driver, for all that it receives; until it is dropped.
#[derive(Debug)]
pub struct Redirect {
    _object: Ebpf,
}

impl Redirect {
    /// From one interface out of another.
    ///
    /// # Panics
    /// When there are no such interfaces, or the kernel refuses the program.
    #[must_use]
    #[track_caller]
    pub fn all(netns: &Netns, from: &str, to: &str) -> Self {
        Self::attach(netns, from, index(netns, to))
    }

    /// From an interface to nobody.
    ///
    /// # Panics
    /// As [`Self::all`].
    #[must_use]
    #[track_caller]
    pub fn nowhere(netns: &Netns, from: &str) -> Self {
        Self::attach(netns, from, u32::MAX)
    }

    #[track_caller]
    fn attach(netns: &Netns, from: &str, out: u32) -> Self {
        let mut object = load(out, &[0; LENGTH], 0, 0);
        let program = program(&mut object);
        let attached = netns.enter(|| program.attach(from, XdpMode::Driver).map(drop));
        attached.unwrap_or_else(|e| panic!("attach to {from}: {:#}", anyhow::Error::from(e)));
        Self { _object: object }
    }
}

fn run(program: &Xdp, ifindex: u32, frame: &[u8], count: u32) -> Duration {
    // `struct xdp_md`: all but the length and the interface is zero.
    let context = [0, frame.len() as u32, 0, ifindex, 0, 0];
    let options = TestRunOptions {
        data_in: Some(frame),
        ctx_in: Some(bytemuck::bytes_of(&context)),
        repeat: count,
        attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
        ..TestRunOptions::new()
    };
    let ran = program.test_run(options);
    ran.unwrap_or_else(|e| panic!("live frames: {:#}", anyhow::Error::from(e))).duration
}

#[track_caller]
fn index(netns: &Netns, interface: &str) -> u32 {
    u32::try_from(interface_index(netns, interface)).expect("interface indexes fit")
}

fn load(out: u32, frame: &[u8; LENGTH], write: u32, interval: u64) -> Ebpf {
    assert!(!GENERATOR.is_empty(), "built without eBPF programs: `cargo xtask setup`, then build again");
    let mut loader = EbpfLoader::new();
    loader.override_global("OUT", &out, true);
    loader.override_global("FRAME", frame, true);
    loader.override_global("WRITE", &write, true);
    loader.override_global("INTERVAL", &interval, true);
    let loaded = loader.load(GENERATOR);
    let mut object = loaded.unwrap_or_else(|e| panic!("load: {:#}", anyhow::Error::from(e)));
    let loaded = program(&mut object).load();
    loaded.unwrap_or_else(|e| panic!("load: {:#}", anyhow::Error::from(e)));
    object
}

fn program(object: &mut Ebpf) -> &mut Xdp {
    object.program_mut("generate").expect("the generator").try_into().expect("an XDP program")
}
