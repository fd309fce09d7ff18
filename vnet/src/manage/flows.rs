//! Flows.

use std::net::IpAddr;

use vnet_common::{CtEntry, Tuple};

use super::{Error, Manager, Mode, kernel};
use crate::flow::{self, Doomed, Filter, Room};
use crate::reconcile::Machine;
use crate::spec::{Endpoint, Settings, TableSizes};

/// For how many flows an instance has room.
#[must_use]
pub fn room(settings: &Settings) -> Room {
    let TableSizes { flows, unanswered } = settings.tables;
    Room { confirmed: flows as usize, unanswered: unanswered as usize }
}

/// The links of endpoints, as [`Machine::flow_stats`] asks for them: each with its addresses and the endpoint's name, and
/// beyond the first link its network's. A quota is each link's.
#[must_use]
pub fn named(endpoints: &[Endpoint]) -> Vec<(String, Vec<IpAddr>)> {
    let links = endpoints.iter().flat_map(|endpoint| {
        endpoint.links.iter().enumerate().map(|(nth, link)| {
            let Endpoint { name, .. } = endpoint;
            let name = if nth == 0 { name.to_string() } else { format!("{name}/{}", link.network) };
            (name, link.addrs().collect())
        })
    });
    links.collect()
}

impl<M: Machine> Manager<M> {
    /// Forgets the flows that are asked for, unless this is a dry run, and says how many those are. Those that go on are
    /// new ones with their next packet, translated ones may break.
    ///
    /// # Errors
    /// When the flow tables cannot be read or written.
    pub fn flush_flows(&self, filter: &Filter) -> Result<usize, Error> {
        self.begin()?;
        let flows = flow::pair(&self.machine.flow_tables().map_err(kernel("read the flow tables"))?);
        let count = flows.iter().filter(|flow| filter.selects(flow)).count();
        if filter.is_everything() {
            // Also what has begun since.
            self.forget(|_, _| true)?;
        } else {
            let doomed = Doomed::among(&flows, filter);
            self.forget(|tuple, entry| doomed.contains(tuple, entry))?;
        }
        Ok(count)
    }

    /// Forgets the flows for which `doomed` holds, unless this is a dry run.
    pub(super) fn forget(&self, doomed: impl Fn(&Tuple, &CtEntry) -> bool) -> Result<usize, Error> {
        if self.mode == Mode::DryRun {
            return Ok(0);
        }
        self.machine.forget_flows(&doomed).map_err(kernel("forget flows"))
    }
}
