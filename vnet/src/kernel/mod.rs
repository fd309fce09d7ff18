//! The only module that may name aya, rtnetlink, nix or `/proc`: everything above deals in plain values.

mod error;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use vnet_common::{CtEntry, DropKey, Event, Mac, Tuple};

pub use error::Error;

use crate::instance::Instance;
use crate::plan::{Op, Resource, State};

/// An interface of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, if it is an Ethernet interface.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its kind, as netlink says ("veth", "bridge"), if it has one.
    pub kind: Option<String>,
    /// Its addresses with their prefixes, in the kernel's order.
    pub addresses: Vec<IpNet>,
}

/// A route of the host's main or local table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it leads to; a zero prefix length is the default route.
    pub destination: IpNet,
    /// The interface it leads out of.
    pub interface: Option<String>,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// Its metric: lower is preferred.
    pub metric: u32,
}

/// A namespace to enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The namespace, as a path that can be opened.
    pub namespace: PathBuf,
    /// The program and its arguments.
    pub argv: Vec<OsString>,
}

/// The kernel as one instance sees it.
pub struct Kernel {
    instance: Instance,
}

impl Kernel {
    /// Opens the kernel for an instance, in the network namespace of the calling process.
    ///
    /// # Errors
    /// When a capability is missing (named) or the kernel lacks what vnet needs (named, with the version that
    /// brought it).
    pub async fn open(instance: &Instance) -> Result<Self, Error> {
        todo!()
    }

    /// How a resource stands.
    pub async fn state(&self, resource: &Resource) -> Result<State, Error> {
        todo!()
    }

    /// Does one step. Doing it again is doing it once.
    pub async fn apply(&self, op: &Op) -> Result<(), Error> {
        todo!()
    }

    /// The host's interfaces.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, Error> {
        todo!()
    }

    /// The host's unicast routes, main table.
    pub async fn routes(&self) -> Result<Vec<Route>, Error> {
        todo!()
    }

    /// The tracked flows: both directions of each, as the map has them. Empty when there is no data path.
    pub fn flows(&self) -> Result<Vec<(Tuple, CtEntry)>, Error> {
        todo!()
    }

    /// Forgets the flows for which `doomed` holds, together with their twins; returns how many entries went.
    pub fn forget_flows(&self, doomed: &dyn Fn(&Tuple, &CtEntry) -> bool) -> Result<usize, Error> {
        todo!()
    }

    /// The drop counters, summed over the CPUs.
    pub fn drops(&self) -> Result<Vec<(DropKey, u64)>, Error> {
        todo!()
    }

    /// Seconds since boot, on the clock of the flow table (`CLOCK_BOOTTIME`).
    pub fn now() -> u32 {
        todo!()
    }

    /// Reads events as they come and hands each to `each`, until it returns `false` or the future is dropped.
    pub async fn events(&self, each: &mut dyn FnMut(&Event) -> bool) -> Result<(), Error> {
        todo!()
    }

    /// Replaces the process by a command in a namespace; returns only on failure.
    pub fn exec(command: &Command) -> Error {
        todo!()
    }
}
