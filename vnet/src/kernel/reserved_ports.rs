//! Ports kept from the host's own automatic choice, so that masquerade and the host never pick the same one.
//!
//! The parameter is one list for everybody. What was in it before is written down before it is changed
//! (`RUN/sysctl/ip_local_reserved_ports`), so that removal takes out exactly what vnet put in: a port that the
//! user had reserved already stays reserved, and so does one that the user reserves while vnet runs.

use std::fmt;
use std::path::Path;

use vnet_common::PortRange;

use super::error::Error;
use super::former::Former;
use super::sysctl;
use crate::instance::Instance;
use crate::plan::{Resource, State};

const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
const AUTOMATIC: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// A set of ports as the kernel writes it: `1,5-9,49152-65535`. Ranges are sorted and do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct PortSet {
    ranges: Vec<(u16, u16)>,
}

impl PortSet {
    /// Reads a list; `None` if it is not one.
    fn parse(text: &str) -> Option<Self> {
        let parts = text.split([',', ' ', '\t', '\n']).filter(|part| !part.is_empty());
        let ranges = parts.map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = (first.parse().ok()?, last.parse().ok()?);
            (range.0 <= range.1).then_some(range)
        });
        ranges.collect::<Option<Vec<_>>>().map(Self::from_ranges)
    }

    fn of(range: PortRange) -> Self {
        Self::from_ranges(vec![(range.first, range.last)])
    }

    fn from_ranges(mut ranges: Vec<(u16, u16)>) -> Self {
        ranges.sort_unstable();
        let mut joined: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some(before) if u32::from(first) <= u32::from(before.1) + 1 => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        Self { ranges: joined }
    }

    fn union(&self, other: &Self) -> Self {
        Self::from_ranges([self.ranges.as_slice(), &other.ranges].concat())
    }

    fn minus(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for &(first, last) in &self.ranges {
            // Counted in u32: what follows port 65535 is nothing, not port 0.
            let mut next = u32::from(first);
            let last = u32::from(last);
            for &(cut_first, cut_last) in &other.ranges {
                let (cut_first, cut_last) = (u32::from(cut_first), u32::from(cut_last));
                if cut_last >= next && cut_first <= last {
                    if cut_first > next {
                        left.push((next, cut_first - 1));
                    }
                    next = cut_last + 1;
                }
            }
            if next <= last {
                left.push((next, last));
            }
        }
        // All within the ports that were there.
        Self { ranges: left.into_iter().map(|(first, last)| (first as u16, last as u16)).collect() }
    }

    fn contains(&self, other: &Self) -> bool {
        other.minus(self).ranges.is_empty()
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

/// What is written down: the list as it was without vnet, and what vnet put in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Record {
    before: PortSet,
    ours: PortSet,
}

impl Record {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.and_then(PortSet::parse)
        };
        Some(Self { before: field("before")?, ours: field("ours")? })
    }

    /// The list as it would be now without vnet.
    fn without_ours(&self, now: &PortSet) -> PortSet {
        now.minus(&self.ours.minus(&self.before))
    }
}

/// The steps from one reservation, or none, to another. A command may die between any two of them: what is written
/// down is at all times at least what vnet has put in.
struct Change {
    /// Written down first: what was put in, and what will be.
    interim: Record,
    /// The list, written next.
    list: PortSet,
    /// Written down last.
    settled: Record,
}

impl Change {
    fn new(record: &Record, now: &PortSet, wanted: &PortSet) -> Self {
        let before = record.without_ours(now);
        Self {
            interim: Record { before: before.clone(), ours: record.ours.union(wanted) },
            list: before.union(wanted),
            settled: Record { before, ours: wanted.clone() },
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "before={}\nours={}", self.before, self.ours)
    }
}

/// How the reservation stands.
pub(super) fn state(instance: &Instance, range: PortRange) -> Result<State, Error> {
    let (now, record) = (reserved()?, load(instance)?);
    let wanted = PortSet::of(range);
    Ok(match record {
        _ if now.contains(&wanted) && record.as_ref().is_none_or(|record| record.ours == wanted) => {
            State::Present
        }
        None => State::Absent,
        Some(Record { ours, .. }) => State::Differs(format!("{ours} was reserved; the list is now {now}")),
    })
}

/// A reservation that is noted, whatever its record.
pub(super) fn noted(instance: &Instance) -> Result<Option<Resource>, Error> {
    let range = load(instance)?.and_then(|record| record.ours.ranges.first().copied());
    Ok(range.map(|(first, last)| Resource::ReservedPorts { first, last }))
}

/// Reserves the range.
pub(super) fn create(instance: &Instance, range: PortRange) -> Result<(), Error> {
    let record = load(instance)?.unwrap_or_default();
    let Change { interim, list, settled } = Change::new(&record, &reserved()?, &PortSet::of(range));
    let automatic =
        read_ports(Path::new(AUTOMATIC), |text| PortSet::parse(&text.trim().replace(['\t', ' '], "-")))?;
    if list.contains(&automatic) {
        return Err(Error::NoAutomaticPorts { automatic: automatic.to_string(), reserved: list.to_string() });
    }
    former(instance).save(&interim.to_string())?;
    sysctl::write(Path::new(RESERVED), &list.to_string())?;
    if settled == interim { Ok(()) } else { former(instance).save(&settled.to_string()) }
}

/// Takes out what was put in.
pub(super) fn remove(instance: &Instance) -> Result<(), Error> {
    let Some(record) = load(instance)? else { return Ok(()) };
    let now = reserved()?;
    let without_ours = record.without_ours(&now);
    if without_ours != now {
        sysctl::write(Path::new(RESERVED), &without_ours.to_string())?;
    }
    former(instance).remove()
}

fn reserved() -> Result<PortSet, Error> {
    read_ports(Path::new(RESERVED), PortSet::parse)
}

fn read_ports(path: &Path, parse: impl Fn(&str) -> Option<PortSet>) -> Result<PortSet, Error> {
    let text = sysctl::read(path)?;
    parse(&text).ok_or_else(|| Error::NotPorts { path: path.to_owned(), text })
}

fn former(instance: &Instance) -> Former {
    Former::of(instance, "ip_local_reserved_ports")
}

fn load(instance: &Instance) -> Result<Option<Record>, Error> {
    let Some(text) = former(instance).load()? else { return Ok(None) };
    match Record::parse(&text) {
        Some(record) => Ok(Some(record)),
        None => Err(Error::NotPorts { path: former(instance).path(), text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> PortSet {
        PortSet::parse(text).unwrap()
    }

    #[test]
    fn lists_are_read_and_written_as_the_kernel_does() {
        for (text, written) in [
            ("", ""),
            ("\n", ""),
            ("8080\n", "8080"),
            ("1,3-5,9", "1,3-5,9"),
            ("9,1,3-5", "1,3-5,9"),
            ("1-4,5-9", "1-9"),
            ("1-9,3-5", "1-9"),
            ("0-65535", "0-65535"),
        ] {
            assert_eq!(set(text).to_string(), written, "{text:?}");
        }
        for text in ["x", "5-1", "65536", "1-2-3", "-4"] {
            assert_eq!(PortSet::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn differences_keep_what_lies_around() {
        for (from, cut, left) in [
            ("1-9", "3-5", "1-2,6-9"),
            ("1-9", "1-9", ""),
            ("1-9", "0-1,9-65535", "2-8"),
            ("1-9", "20-30", "1-9"),
            ("1-3,5-7,9-11", "2-10", "1,11"),
            ("49152-65535", "65535", "49152-65534"),
            ("0-65535", "0-65535", ""),
        ] {
            assert_eq!(set(from).minus(&set(cut)).to_string(), left, "{from} minus {cut}");
        }
    }

    #[test]
    fn removal_restores_what_was_there_before() {
        for before in ["", "8080", "49152-50000", "60000-65535,80", "0-65535", "49152-65535"] {
            let record = Record { before: set(before), ours: set("49152-65535") };
            let now = record.before.union(&record.ours);
            assert_eq!(record.without_ours(&now), record.before, "{before}");
            assert_eq!(Record::parse(&record.to_string()).as_ref(), Some(&record));
        }
    }

    #[test]
    fn what_the_user_reserved_meanwhile_stays() {
        let record = Record { before: set("80"), ours: set("49152-65535") };
        assert_eq!(record.without_ours(&set("80,443,49152-65535")).to_string(), "80,443");
        assert_eq!(record.without_ours(&set("443")).to_string(), "443");
    }

    #[test]
    fn a_change_that_was_interrupted_takes_nothing_of_vnet_s_for_the_user_s() {
        for before in ["", "80", "52000-53000,60000", "0-65535"] {
            let before = set(before);
            let ours = set("49152-65535");
            let (record, list) = (Record { before: before.clone(), ours: ours.clone() }, before.union(&ours));
            for wanted in ["55000-55999", "40000-49999", "49152-65535"].map(set) {
                let change = Change::new(&record, &list, &wanted);
                // What is found when it dies before each of its steps, and after the last.
                for (record, list) in [
                    (&record, &list),
                    (&change.interim, &list),
                    (&change.interim, &change.list),
                    (&change.settled, &change.list),
                ] {
                    assert_eq!(record.without_ours(list), before, "{record} {list}");
                    let again = Change::new(record, list, &wanted);
                    assert_eq!(
                        (again.list, again.settled),
                        (before.union(&wanted), Record { before: before.clone(), ours: wanted.clone() })
                    );
                }
            }
        }
    }

    #[test]
    fn a_damaged_record_is_recognised() {
        assert_eq!(Record::parse("before=1"), None);
        assert_eq!(Record::parse("before=x\nours=1"), None);
    }
}
