//! What has been counted at a moment.

use std::sync::Arc;

use vnet_common::{Addr, Zone};

use crate::flow::{Flow, Traffic};
use crate::output::Names;

/// Everything that has been counted at a moment.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// When, in seconds since some moment.
    pub at: f64,
    /// Seconds since boot, on the clock of the flow table.
    pub now: u32,
    /// The endpoints.
    pub endpoints: Vec<EndpointCounts>,
    /// The published ports.
    pub mappings: Arc<Vec<Mapping>>,
    /// The flows that are not over.
    pub flows: Vec<Flow>,
    /// Drops, by where and why.
    pub drops: Vec<Dropped>,
    /// What tuples stand for.
    pub names: Arc<Names>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointCounts {
    /// Its name.
    pub name: String,
    /// Its networks.
    pub network: String,
    /// Its addresses, as flows name them.
    pub places: Vec<(Zone, Addr)>,
    /// What it has sent and received since its link was made, if it has one.
    pub traffic: Option<[Traffic; 2]>,
}

/// A published port or range of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its number.
    pub id: u32,
    /// What is published, with the protocol.
    pub published: String,
    /// The endpoint.
    pub endpoint: String,
    /// The endpoint's port or ports.
    pub target: String,
}

/// Packets dropped for one reason in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The interface.
    pub interface: String,
    /// The program.
    pub hook: &'static str,
    /// The reason.
    pub reason: &'static str,
    /// How many since `vnet up`.
    pub packets: u64,
}
