//! Published ports that move to another target: the new mapping's entries are written over the old one's, so that at no
//! moment the ports are published nowhere, and what only the old one had [goes](super::going) after that.
//!
//! A move whose new entries cannot be written is undone, with the old ones written again.

use super::going::leftovers;
use super::port_map::{WhichLink, describe_port_map, mapping_name};
use super::{Claim, Done, Error, Manager, Mode, PortMapRequest};
use crate::plan::{Op, expand};
use crate::reconcile::{self, Failure, Machine};
use crate::spec::{Going, PortMap, Protocol, Published, Target};
use crate::store::Savepoint;

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
        let served = self.served(&transaction, &wish.target.host, WhichLink::published_on(published.host))?;
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
        let going = Going { port_maps: vec![old.clone()], ..Going::default() };
        transaction.set_going(&going)?;
        let switch = self.plan_recorded(expand::port_map(&new)).await?;
        let leftovers = self.plan(Vec::new(), leftovers(&transaction, &settings, &going)?).await?;
        let ops: Vec<Op> = switch.ops.iter().chain(&leftovers.ops).cloned().collect();
        if self.mode == Mode::Apply {
            let before = transaction.commit()?;
            if let Err(failure) = reconcile::apply(&self.machine, &switch).await {
                return Err(self.move_back(&before, &old, &new, failure).await?);
            }
            self.finish_going().await?;
        }
        Ok(Done::new(new, ops))
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
        let name = mapping_name(old);
        Ok(Error::NotMade {
            what: format!("move of {name} to {}:{}", new.endpoint, new.target_ports),
            failure,
        })
    }
}

fn moved_in_part(new: &PortMap, failure: Failure) -> Error {
    Error::Unsettled { what: format!("move of {new}"), failure }
}
