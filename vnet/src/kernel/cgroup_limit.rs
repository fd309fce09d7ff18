//! Limits of cgroups, as the data path knows them: by the cgroup's number.
//!
//! A cgroup that is removed and made again has another number. So what belongs to a limit is found by the number of the
//! limit, and what has another key is taken away. Of a cgroup that is not there, there is nothing to be limited: that is
//! as it is to be.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use vnet_common::{LimitClock, LimitKey, LimitValue};

use super::error::Error;
use super::maps::{Maps, OTHER_VALUE};
use super::{cgroup, shaping};
use crate::plan::{Cgroup, CgroupShare, Pacing, State};

/// How limits stand: the map is read once for all of them.
pub(super) fn states(maps: &Maps, shares: &[CgroupShare]) -> Result<Vec<State>, Error> {
    let mut by_number: HashMap<u32, Vec<(LimitKey, LimitValue)>> = HashMap::new();
    for (key, value) in maps.limits.entries()? {
        by_number.entry(value.number).or_default().push((key, value));
    }
    let has_paths = shares.iter().any(|share| matches!(share.cgroup, Cgroup::Path(_)));
    let root = if has_paths { cgroup::root()? } else { PathBuf::new() };
    let state_of = |share: &CgroupShare| {
        let found = by_number.get(&share.class.number.into()).map_or(&[][..], Vec::as_slice);
        state(maps, share, key(&root, share)?, found)
    };
    shares.iter().map(state_of).collect()
}

/// How the limit of a key stands, of which the map holds this.
fn state(
    maps: &Maps,
    share: &CgroupShare,
    key: Option<LimitKey>,
    found: &[(LimitKey, LimitValue)],
) -> Result<State, Error> {
    let clock = maps.limit_clocks.get(&share.class.number.into())?;
    let wanted = key.map(|key| (key, value(share)));
    Ok(match (wanted, found) {
        (None, []) => State::Present,
        (None, [..]) => State::Differs("the cgroup is gone".to_owned()),
        (Some(_), []) => State::Absent,
        (Some((key, value)), [(is, says)]) if *is == key && *says == value && clock.is_some() => {
            State::Present
        }
        (Some((key, _)), [(is, _)]) if *is != key => {
            State::Differs("the cgroup was removed and made again".to_owned())
        }
        (Some(_), _) => State::Differs(OTHER_VALUE.to_owned()),
    })
}

/// Writes what there is to be of a limit, and takes the rest away.
pub(super) fn create(maps: &Maps, share: &CgroupShare) -> Result<(), Error> {
    let number = share.class.number.into();
    let wanted = match &share.cgroup {
        Cgroup::Path(_) => key(&cgroup::root()?, share)?,
        Cgroup::ClassId(_) => key(Path::new(""), share)?,
    };
    if let Some(key) = wanted {
        // The clock of a limit that is changed goes on.
        if maps.limit_clocks.get(&number)?.is_none() {
            maps.limit_clocks.insert(number, LimitClock::UNUSED)?;
        }
        maps.limits.insert(key, value(share))?;
    }
    for (other, _) in of_limit(maps, share)? {
        if Some(other) != wanted {
            maps.limits.remove(&other)?;
        }
    }
    Ok(())
}

/// Takes a limit away.
pub(super) fn remove(maps: &Maps, share: &CgroupShare) -> Result<(), Error> {
    for (key, _) in of_limit(maps, share)? {
        maps.limits.remove(&key)?;
    }
    maps.limit_clocks.remove(&share.class.number.into())?;
    Ok(())
}

/// What the map holds of a limit.
fn of_limit(maps: &Maps, share: &CgroupShare) -> Result<Vec<(LimitKey, LimitValue)>, Error> {
    let number = u32::from(share.class.number);
    let own = maps.limits.entries()?.into_iter().filter(|(_, value)| value.number == number);
    Ok(own.collect())
}

/// Whose limit it is, where the unified hierarchy is mounted there; `None` if there is no such cgroup.
fn key(root: &Path, share: &CgroupShare) -> Result<Option<LimitKey>, Error> {
    Ok(match &share.cgroup {
        Cgroup::Path(path) => {
            cgroup::number_below(root, path)?.map(|cgroup| LimitKey { cgroup, classid: 0, reserved: 0 })
        }
        Cgroup::ClassId(class) => Some(LimitKey { cgroup: 0, classid: (*class).into(), reserved: 0 }),
    })
}

fn value(share: &CgroupShare) -> LimitValue {
    /// `fq` drops what is to leave in more than ten seconds.
    const LONGEST: u64 = 5_000_000_000;
    let rate = u64::from(share.class.rate.bytes());
    let takes = |bytes: u32| u64::from(bytes) * 1_000_000_000 / rate;
    LimitValue {
        rate,
        burst: takes(share.class.burst),
        queue: takes(share.class.queue).min(LONGEST),
        number: share.class.number.into(),
        class: match share.pacing {
            Pacing::Fq => 0,
            Pacing::Htb => shaping::priority(share.class.number),
        },
    }
}
