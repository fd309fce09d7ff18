//! One step of a plan.

use std::fmt;

use super::resource::Resource;

/// One step: idempotent, readable, and undone by what [`super::Plan::undo`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Make it.
    Create(Resource),
    /// Bring it to its description, without taking it away in between.
    Change(Resource),
    /// Take it away; one that is not there is taken away already.
    Remove(Resource),
}

impl Op {
    /// Whether it and the next one can be done by one request to the kernel: both write blocks of published ports, or
    /// both take some away.
    #[must_use]
    pub fn joins(&self, next: &Self) -> bool {
        let writes = |op: &Self| {
            matches!(op, Self::Create(Resource::PortMap { .. }) | Self::Change(Resource::PortMap { .. }))
        };
        let removes = |op: &Self| matches!(op, Self::Remove(Resource::PortMap { .. }));
        writes(self) && writes(next) || removes(self) && removes(next)
    }

    /// Whether it only keeps account of the host's addresses, which every command does by the way.
    #[must_use]
    pub const fn is_by_the_way(&self) -> bool {
        let (Self::Create(resource) | Self::Change(resource) | Self::Remove(resource)) = self;
        matches!(resource, Resource::HostAddress { .. })
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(resource) => write!(f, "create {resource}"),
            Self::Change(resource) => write!(f, "change {resource}"),
            Self::Remove(resource) => write!(f, "remove {resource}"),
        }
    }
}
