//! Flows.

use vnet_common::{CtEntry, Tuple};

use super::{Error, Manager, Mode, kernel};
use crate::reconcile::Machine;

impl<M: Machine> Manager<M> {
    /// Forgets every flow; those that go on are new ones with their next packet, translated ones may break.
    ///
    /// # Errors
    /// When the flow table cannot be written.
    pub fn flush_flows(&self) -> Result<usize, Error> {
        self.begin()?;
        self.forget(|_, _| true)
    }

    /// Forgets the flows for which `doomed` holds, unless this is a dry run.
    pub(super) fn forget(&self, doomed: impl Fn(&Tuple, &CtEntry) -> bool) -> Result<usize, Error> {
        if self.mode == Mode::DryRun {
            return Ok(0);
        }
        self.machine.forget_flows(&doomed).map_err(kernel("forget flows"))
    }
}
