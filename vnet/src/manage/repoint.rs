//! Published ports that move to another target.
//!
//! ```text
//! record the new mapping, and the old one as what is being moved
//!   -> write the new entries over the old ones: at no moment are the ports published nowhere
//!   -> take away what the old mapping had and the new one has not -> end the old one's flows
//!   -> forget the old one
//! ```
//!
//! A move that was interrupted is completed by the next command that deals with published ports. One whose new entries
//! cannot be written is undone, with the old ones written again.

use super::port_map::{describe_port_map, mapping_name};
use super::{Claim, Done, Error, Manager, Mode, PortMapRequest};
use crate::plan::{Op, Plan, Resource, expand};
use crate::reconcile::{self, Failure, Machine};
use crate::spec::{PortMap, Protocol, Published, Settings, Target};
use crate::store::{Savepoint, Transaction};

/// Published ports to move.
#[derive(Clone, Debug)]
pub struct MoveRequest {
    /// What is published.
    pub published: Published,
    /// Where it is to lead.
    pub target: Target,
    /// Its protocol.
    pub protocol: Protocol,
}

impl<M: Machine> Manager<M> {
    /// Has published ports lead to another target, which the next packet of any client reaches: the mapping gets
    /// another number, and flows of the old one end. Who may use it stays.
    ///
    /// # Errors
    /// When the ports are not published, or cannot lead there.
    pub async fn repoint(&self, request: &MoveRequest) -> Result<Done<PortMap>, Error> {
        let (transaction, settings) = self.begin_settled().await?;
        let MoveRequest { published, target, protocol } = request;
        let (published, protocol) = (*published, *protocol);
        let advice = "move that with `vnet portmap move";
        let old = self
            .published_as(&transaction.open_port_maps()?, &published, protocol, advice)?
            .ok_or(Error::NotPublished { published, protocol })?;
        let allow_from = old.allow_from.clone();
        let wish = PortMapRequest { published, target: target.clone(), protocol, allow_from };
        let served = self.served(&transaction, &wish.target.host)?;
        let described = describe_port_map(&transaction, &settings, &wish, &served)?;
        if (PortMap { id: old.id, ..described.clone() }) == old {
            let what = format!("mapping {old}");
            let wanted = Claim::Recorded.on(expand::port_map(&old));
            let ops = self.make(transaction, &what, wanted, Vec::new()).await?;
            return Ok(Done::new(old, ops));
        }
        let new = PortMap { id: transaction.next_mapping()?, ..described };
        transaction.set_next_mapping(new.id + 1)?;
        transaction.remove_port_map(&old)?;
        transaction.put_port_map(&new)?;
        transaction.set_moving(Some(&old))?;
        let switch = self.plan_recorded(expand::port_map(&new)).await?;
        let leftovers = self.plan(Vec::new(), leftovers(&old, &new)).await?;
        let ops: Vec<Op> = switch.ops.iter().chain(&leftovers.ops).cloned().collect();
        if self.mode == Mode::Apply {
            let before = transaction.commit()?;
            if let Err(failure) = reconcile::apply(&self.machine, &switch).await {
                return Err(self.move_back(&before, &old, &new, failure).await?);
            }
            self.finish_move().await?;
        }
        Ok(Done::new(new, ops))
    }

    /// Begins a verb that deals with published ports.
    pub(super) async fn begin_settled(&self) -> Result<(Transaction, Settings), Error> {
        let begun = self.begin()?;
        if begun.0.moving()?.is_none() || self.mode == Mode::DryRun {
            return Ok(begun);
        }
        drop(begun);
        self.finish_move().await?;
        self.begin()
    }

    /// Completes a move that is recorded and may not have come to its end; there is at most one.
    pub(super) async fn finish_move(&self) -> Result<(), Error> {
        let (transaction, _) = self.begin()?;
        let Some(old) = transaction.moving()? else { return Ok(()) };
        let new = transaction.overlapping(&old.published, old.protocol)?;
        drop(transaction);
        let new = new.ok_or_else(|| {
            let (published, protocol) = (old.published, old.protocol);
            Error::NotPublished { published, protocol }
        })?;
        let switch = self.plan_recorded(expand::port_map(&new)).await?;
        reconcile::apply(&self.machine, &switch).await.map_err(|failure| moved_in_part(&new, failure))?;
        let leftovers: Plan = self.plan(Vec::new(), leftovers(&old, &new)).await?;
        reconcile::tear_down(&self.machine, &leftovers)
            .await
            .map_err(|failure| moved_in_part(&new, failure))?;
        self.forget(|_, entry| entry.mapping == old.id)?;
        let (transaction, _) = self.begin()?;
        transaction.set_moving(None)?;
        transaction.commit()?;
        Ok(())
    }

    /// Undoes a move whose new entries could not all be written, and says so.
    async fn move_back(
        &self,
        before: &Savepoint,
        old: &PortMap,
        new: &PortMap,
        failure: Failure,
    ) -> Result<Error, Error> {
        if !failure.not_undone.is_empty() {
            return Ok(moved_in_part(new, failure));
        }
        let back = self.plan_recorded(expand::port_map(old)).await?;
        if let Err(failure) = reconcile::apply(&self.machine, &back).await {
            return Ok(moved_in_part(new, failure));
        }
        // The number will be given again.
        self.forget(|_, entry| entry.mapping == new.id)?;
        self.store.restore(before)?;
        let name = mapping_name(&self.instance, old);
        Ok(Error::NotMade {
            what: format!("move of {name} to {}:{}", new.endpoint, new.target_ports),
            failure,
        })
    }
}

fn moved_in_part(new: &PortMap, failure: Failure) -> Error {
    Error::MovedInPart { mapping: Box::new(new.clone()), failure }
}

/// What the old mapping had and the new one has not.
fn leftovers(old: &PortMap, new: &PortMap) -> Vec<Resource> {
    let kept = expand::port_map(new);
    let mut left = expand::port_map(old);
    left.retain(|resource| !kept.iter().any(|other| other.same_identity(resource)));
    left
}
