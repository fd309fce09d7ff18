//! Limits of cgroups in the store, by how the cgroup is written: a path begins with `/`, a class does not.

use redb::TableDefinition;

use super::Error;
use super::tables::{Json, Transaction};
use crate::spec::{Cgroup, CgroupLimit, CgroupPath};

const CGROUP_LIMITS: TableDefinition<&str, Json> = TableDefinition::new("cgroup_limits");

impl Transaction {
    /// The limit of a cgroup.
    pub fn cgroup_limit(&self, cgroup: &Cgroup) -> Result<Option<CgroupLimit>, Error> {
        self.get(CGROUP_LIMITS, cgroup.to_string().as_str())
    }

    /// Every limit of a cgroup, by cgroup.
    pub fn cgroup_limits(&self) -> Result<Vec<CgroupLimit>, Error> {
        self.all(CGROUP_LIMITS)
    }

    /// The cgroups of the unified hierarchy that are limited.
    pub fn limited_cgroups(&self) -> Result<Vec<CgroupPath>, Error> {
        Ok(self.cgroup_limits()?.into_iter().filter_map(|limit| limit.cgroup.into_path()).collect())
    }

    /// Notes the limit of a cgroup.
    pub fn put_cgroup_limit(&self, limit: &CgroupLimit) -> Result<(), Error> {
        self.put(CGROUP_LIMITS, limit.cgroup.to_string().as_str(), limit)
    }

    /// Forgets the limit of a cgroup.
    pub fn remove_cgroup_limit(&self, cgroup: &Cgroup) -> Result<(), Error> {
        self.inner.open_table(CGROUP_LIMITS)?.remove(cgroup.to_string().as_str())?;
        Ok(())
    }
}
