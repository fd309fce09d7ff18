//! How much processes of a cgroup may send by the uplinks.

use super::repair::{Object, Part};
use super::{Claim, Done, Error, Manager, Steps, Unnamed, kernel};
use crate::plan::{Resource, State, expand};
use crate::reconcile::Machine;
use crate::spec::{Cgroup, CgroupLimit, InterfaceName, Limit, Nesting, Pacing, Settings};
use crate::store::Transaction;

/// A limit of a cgroup that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupLimitRequest {
    /// Whose.
    pub cgroup: Cgroup,
    /// How much.
    pub limit: Limit,
}

/// A limit that was noted.
pub(super) struct NotedLimit {
    pub(super) limit: CgroupLimit,
    /// What is worth knowing.
    pub(super) note: Option<String>,
}

impl<M: Machine> Manager<M> {
    /// Limits what a cgroup may send by the uplinks, or changes its limit. Its connections go on. A burst that is not named
    /// stays as it is, or follows from the rate.
    ///
    /// # Errors
    /// When the kernel has nothing to make packets wait with, an uplink has a queueing discipline that somebody has
    /// chosen, the cgroup is too deep in its hierarchy, or there are too many limits.
    pub async fn limit_cgroup(
        &self,
        request: &CgroupLimitRequest,
        burst: Unnamed,
    ) -> Result<Done<CgroupLimit>, Error> {
        let (transaction, settings) = self.begin_settled().await?;
        let before = transaction.cgroup_limits()?;
        let mut limits = before.clone();
        let NotedLimit { limit, note } =
            self.note_cgroup_limit(&transaction, request, burst, &mut limits).await?;
        let uplinks = self.uplinks_there(&settings).await?;
        let resources = |limits: &[CgroupLimit], own: Option<&CgroupLimit>| -> Vec<Resource> {
            let shaping = uplinks.iter().flat_map(|uplink| expand::shaping(uplink, limits));
            shaping.chain(own.map(expand::cgroup_limit)).collect()
        };
        let old = before.iter().find(|other| other.cgroup == limit.cgroup);
        let steps = Steps {
            wanted: Claim::Recorded.on(resources(&limits, Some(&limit))),
            obsolete: Vec::new(),
            former: resources(&before, old),
        };
        let ops =
            self.change(transaction, &format!("the limit of {}", limit.cgroup.in_full()), steps).await?;
        Ok(Done { value: limit, ops, notes: note.into_iter().collect() })
    }

    /// Takes the limit of a cgroup away; gives it, if there was one. With the last one the uplinks get back the queueing
    /// disciplines of the kernel's own choice.
    ///
    /// # Errors
    /// When it stays.
    pub async fn unlimit_cgroup(&self, asked: &Cgroup) -> Result<Done<Option<CgroupLimit>>, Error> {
        let (transaction, settings) = self.begin_settled().await?;
        // What was recorded can be taken away, whatever has become of it.
        let cgroup = match transaction.cgroup_limit(asked)? {
            Some(limit) => limit.cgroup,
            None => self.recorded_as(asked)?,
        };
        let Some(limit) = transaction.cgroup_limit(&cgroup)? else { return Ok(Done::new(None, Vec::new())) };
        transaction.remove_cgroup_limit(&cgroup)?;
        let rest = transaction.cgroup_limits()?;
        let uplinks = self.uplinks_there(&settings).await?;
        let shaping = |limits: &[CgroupLimit]| -> Vec<Resource> {
            uplinks.iter().flat_map(|uplink| expand::shaping(uplink, limits)).collect()
        };
        let mut obsolete = if rest.is_empty() { shaping(std::slice::from_ref(&limit)) } else { Vec::new() };
        obsolete.push(expand::cgroup_limit(&limit));
        let what = format!("the limit of {}", cgroup.in_full());
        let ops = self.unmake(transaction, &what, obsolete, shaping(&rest)).await?;
        Ok(Done::new(Some(limit), ops))
    }

    /// Notes what a cgroup may send, in the record and among all limits.
    pub(super) async fn note_cgroup_limit(
        &self,
        transaction: &Transaction,
        request: &CgroupLimitRequest,
        burst: Unnamed,
        limits: &mut Vec<CgroupLimit>,
    ) -> Result<NotedLimit, Error> {
        let cgroup = self.recorded_as(&request.cgroup)?;
        if let Cgroup::Path(path) = &cgroup
            && path.depth() > CgroupLimit::DEEPEST
        {
            return Err(Error::CgroupTooDeep { cgroup: path.clone(), most: CgroupLimit::DEEPEST });
        }
        let recorded = limits.iter().position(|other| other.cgroup == cgroup);
        let number = match recorded {
            Some(nth) => limits[nth].number,
            None => self.free_number(transaction, limits)?,
        };
        let pacing = match limits.first() {
            Some(limit) => limit.pacing,
            None => self.pacing().await?,
        };
        let before = recorded.map(|nth| limits[nth].limit).filter(|_| burst == Unnamed::Stays);
        let limit = CgroupLimit { cgroup, limit: request.limit.with_burst_of(before), number, pacing };
        match recorded {
            Some(nth) => limits[nth] = limit.clone(),
            None => {
                limits.push(limit.clone());
                if let Err(error) = check_levels(&limit, limits) {
                    limits.pop();
                    return Err(error);
                }
            }
        }
        transaction.put_cgroup_limit(&limit)?;
        let note = missing(&self.machine, &limit)?;
        Ok(NotedLimit { limit, note })
    }

    /// How packets are made to wait.
    async fn pacing(&self) -> Result<Pacing, Error> {
        let pacing = self.machine.pacing().await.map_err(kernel("ask how packets can wait"))?;
        pacing.ok_or(Error::NoPacing)
    }

    /// A number that no limit has, and none that is to be gone.
    fn free_number(&self, transaction: &Transaction, limits: &[CgroupLimit]) -> Result<u16, Error> {
        let going = transaction.going()?.cgroup_limits;
        let is_free = |number: &u16| limits.iter().chain(&going).all(|other| other.number != *number);
        (1..=CgroupLimit::MOST).find(is_free).ok_or(Error::TooManyLimits { most: CgroupLimit::MOST })
    }

    /// A cgroup as it is recorded, however it was written.
    pub(super) fn recorded_as(&self, asked: &Cgroup) -> Result<Cgroup, Error> {
        self.machine.cgroup(asked.clone()).map_err(kernel("look for cgroups"))
    }

    /// The uplinks whose interfaces are there.
    pub(super) async fn uplinks_there(&self, settings: &Settings) -> Result<Vec<InterfaceName>, Error> {
        let mut there = Vec::new();
        for name in &settings.uplinks {
            let is_there = self.machine.has_interface(name.as_str()).await;
            if is_there.map_err(kernel("look for an uplink"))? {
                there.push(name.clone());
            }
        }
        Ok(there)
    }

    /// What limits of cgroups are made of, each uplink and each limit by itself.
    pub(super) async fn limit_parts(
        &self,
        transaction: &Transaction,
        settings: &Settings,
    ) -> Result<Vec<Part>, Error> {
        let limits = transaction.cgroup_limits()?;
        if limits.is_empty() {
            return Ok(Vec::new());
        }
        let uplinks = self.uplinks_there(settings).await?.into_iter();
        let shaping = uplinks.map(|uplink| {
            let resources = expand::shaping(&uplink, &limits);
            Part::new(Object::Shaping(uplink), resources)
        });
        // They are looked at together: by itself, each would take as long as all. What that does not tell comes out with
        // each.
        let resources: Vec<Resource> = limits.iter().map(expand::cgroup_limit).collect();
        let states = self.machine.states(&resources).await.unwrap_or_default();
        let entries = limits.iter().zip(resources).enumerate().filter_map(|(nth, (limit, resource))| {
            let is_present = states.get(nth) == Some(&State::Present);
            (!is_present).then(|| Part::new(Object::Cgroup(limit.cgroup.clone()), vec![resource]))
        });
        Ok(shaping.chain(entries).collect())
    }
}

/// Checks that the limits that come to be inside one another with a new one are no more than there is room for.
fn check_levels(new: &CgroupLimit, limits: &[CgroupLimit]) -> Result<(), Error> {
    let Some(most) = new.pacing.levels() else { return Ok(()) };
    let nesting = Nesting::of(limits);
    for limit in limits {
        let around: Vec<&CgroupLimit> = nesting.around(&limit.cgroup).collect();
        let concerns = limit == new || around.contains(&new);
        if concerns && around.len() >= most {
            let levels = around.iter().rev().map(|it| it.cgroup.to_string()).collect();
            return Err(Error::TooManyLevels { cgroup: limit.cgroup.clone(), levels, most });
        }
    }
    Ok(())
}

/// What is to be said of a limit whose cgroup is not there.
pub(super) fn missing<M: Machine>(machine: &M, limit: &CgroupLimit) -> Result<Option<String>, Error> {
    if machine.has_cgroup(&limit.cgroup).map_err(kernel("look for a cgroup"))? {
        return Ok(None);
    }
    Ok(Some(match &limit.cgroup {
        Cgroup::Path(path) => {
            format!(
                "there is no cgroup {path}: it is limited once it is there and `vnet up` or `vnet run` sees it"
            )
        }
        Cgroup::ClassId(class) => {
            format!("no process has class {class}: the kernel has no net_cls, or it is switched off")
        }
    }))
}
