//! The packet logic run three ways over the same tables: on the host, as a TC classifier and as an XDP program.
//!
//! The kernel's two are the programs that vnet loads (TC) and the same logic under XDP, run by
//! `BPF_PROG_TEST_RUN` on a [`Stage`] over maps that [`Kernel::fill`] fills from a [`Model`]. What differs between
//! ways is a mistake of the compiler, the verifier's rewriting, a runner, or the model.

mod host;
mod kernel;
mod stage;

use std::collections::HashMap;

use vnet_common::{DropKey, DropReason, EndpointUse, Hook, MappingEntry, Tuple};
use vnet_datapath::Verdict;
use vnet_datapath::model::Model;

use crate::case::Entry;

pub use host::Host;
pub use kernel::{Abi, Kernel, load};
pub use stage::Stage;

/// How the packet logic is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over a slice and the model, on the host.
    Host,
    /// As a TC classifier.
    Tc,
    /// As an XDP program.
    Xdp,
}

/// A packet that meets vnet.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Where.
    pub hook: Hook,
    /// The interface whose hook it is.
    pub ifindex: u32,
    /// The interface on which the host received it, 0 if the host itself sends it. Matters to
    /// [`Hook::ToUplink`], [`Hook::ToBridge`] and [`Hook::ToNetwork`].
    pub came_in_by: u32,
    /// Whether it has waited as long as a fragment may for the first of its datagram.
    pub waited: bool,
    /// Payload in bytes of each segment of an aggregate, 0 for a plain packet.
    pub segment: u32,
    /// Its bytes.
    pub frame: &'a [u8],
}

/// What becomes of a packet, as far as every way can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on to whatever comes next.
    Passed,
    /// It goes on to the host's stack by the interface of its network.
    Entered,
    /// It leaves by an interface of the host.
    Forwarded,
    /// It appears inside an endpoint.
    Delivered,
    /// It is a fragment that waits for the first of its datagram.
    Held,
    /// It has waited, and goes back to where it came from.
    Returned,
    /// One of the last five: a classifier gives the same code for all. Delivered frames get other link addresses,
    /// or, between neighbours, do not change; forwarded frames have one hop less: the bytes tell.
    Redirected,
    /// It is dropped.
    Dropped(DropReason),
}

impl Fate {
    /// Whether two ways agree.
    #[must_use]
    pub fn agrees_with(self, other: Self) -> bool {
        let coarse = |fate| match fate {
            Self::Entered | Self::Forwarded | Self::Delivered | Self::Held | Self::Returned => {
                Self::Redirected
            }
            fate => fate,
        };
        self == other
            || ((self == Self::Redirected || other == Self::Redirected) && coarse(self) == coarse(other))
    }
}

/// What a run did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What becomes of the packet.
    pub fate: Fate,
    /// Its bytes afterwards; of one that is answered, those from before.
    pub frame: Vec<u8>,
    /// The ICMP error that is sent instead of it, which XDP programs never do.
    pub answer: Option<Vec<u8>>,
    /// Flows that began: as their packets arrive, and what that becomes.
    pub began: Vec<(Tuple, Tuple)>,
    /// Where exactly it goes; only the host tells.
    pub verdict: Option<Verdict>,
}

/// The kernel refuses to run a program on such a frame: it is shorter than its network header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// One way to run the packet logic.
pub trait Runner {
    /// Which.
    fn way(&self) -> Way;

    /// Replaces all tables.
    fn fill(&mut self, model: &Model);

    /// Runs a packet.
    ///
    /// # Errors
    /// [`Refused`].
    fn run(&mut self, arrival: &Arrival<'_>) -> Result<Outcome, Refused>;

    /// The flow tables.
    fn flows(&mut self) -> HashMap<Tuple, Entry>;

    /// Endpoint-independent mappings.
    fn mappings(&mut self) -> HashMap<Tuple, MappingEntry>;

    /// What endpoints have in use, by interface.
    fn endpoint_use(&mut self) -> HashMap<u32, EndpointUse>;

    /// Packets dropped since the tables were filled.
    fn drops(&mut self) -> HashMap<DropKey, u64>;
}
