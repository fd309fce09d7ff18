//! What iptables brings along: matches and targets with structures of their own, the same in its older place in the
//! kernel and inside nftables. Numbers are in the byte order of the machine unless said otherwise.

use crate::firewall::{Action, Condition, Field, Part, Test};

/// What a match asks; one that is not known here may hold or not.
pub(super) fn matches(name: &str, revision: u32, data: &[u8]) -> Vec<Condition> {
    let known = match (name, revision) {
        ("comment", _) => Some(Vec::new()),
        // No first packet of a connection over TCP or UDP is, or has, one of these.
        ("icmp" | "icmp6" | "sctp" | "dccp" | "ah" | "esp" | "rt" | "frag" | "hbh" | "dst" | "mh", _) => {
            Some(vec![Condition::Never])
        }
        ("tcp", 0) => tcp(data),
        ("udp", 0) => udp(data),
        ("multiport", 1) => multiport(data),
        ("conntrack", 1..=3) => conntrack(data, revision),
        ("state", 0) => number(data, 0).map(|mask| vec![state(mask, false)]),
        ("addrtype", 0 | 1) => address_kind(data, revision),
        ("pkttype", 0) => packet_type(data),
        _ => None,
    };
    // Limits let most packets through.
    let usually = matches!(name, "limit" | "hashlimit" | "connlimit" | "quota" | "statistic");
    known.unwrap_or_else(|| vec![Condition::Unknown { what: format!("`-m {name}`"), usually }])
}

/// What a target does.
pub(super) fn target(name: &str, data: &[u8]) -> Action {
    match name {
        // Verdicts are counted downwards from -1 (`XT_STANDARD_TARGET`).
        "" | "standard" => match number(data, 0).map(u32::cast_signed) {
            Some(-1) => Action::Drop,
            Some(-2) => Action::Accept,
            Some(-5) => Action::Return,
            _ => Action::Unknown("a verdict that is not known".to_owned()),
        },
        "DROP" | "REJECT" | "TARPIT" => Action::Drop,
        "ACCEPT" => Action::Accept,
        "LOG" | "NFLOG" | "ULOG" | "AUDIT" | "TRACE" | "MARK" | "CONNMARK" | "SECMARK" | "CONNSECMARK"
        | "CT" | "NOTRACK" | "CLASSIFY" | "SET" | "TCPMSS" | "TOS" | "DSCP" | "TTL" | "HL" | "CHECKSUM"
        | "RATEEST" | "LED" | "IDLETIMER" | "TCPOPTSTRIP" | "TEE" | "ECN" => Action::Continue,
        name => Action::Unknown(format!("`-j {name}`")),
    }
}

/// A field within one of some ranges.
pub(super) fn field(field: Field, ranges: Vec<(Vec<u8>, Vec<u8>)>, inverted: bool) -> Condition {
    Condition::Holds { parts: vec![field.into()], test: Test::Within { ranges, inverted } }
}

/// The bits of a field that count are those of a value.
pub(super) fn masked(field: Field, mask: &[u8], value: &[u8], inverted: bool) -> Condition {
    let part = Part { mask: mask.to_vec(), ..field.into() };
    Condition::Holds { parts: vec![part], test: Test::equals(value.to_vec()).inverted_if(inverted) }
}

/// A number of four bytes.
pub(super) fn number(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// A number of two bytes.
pub(super) fn short(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

const SOURCE_PORT: Field = Field::Transport { offset: 0, length: 2 };
const DESTINATION_PORT: Field = Field::Transport { offset: 2, length: 2 };

type PortRange = (u16, u16);

fn ports(which: Field, ranges: &[PortRange], inverted: bool) -> Option<Condition> {
    // All ports, said or unsaid: nothing is asked.
    if ranges == [(0, u16::MAX)] && !inverted {
        return None;
    }
    let bytes = |port: u16| port.to_be_bytes().to_vec();
    let ranges = ranges.iter().map(|(first, last)| (bytes(*first), bytes(*last))).collect();
    Some(field(which, ranges, inverted))
}

/// The source and destination ports that `struct xt_tcp` and `struct xt_udp` begin with.
fn source_and_destination(data: &[u8], inverted: u8) -> Option<Vec<Condition>> {
    let (source, destination) = ((short(data, 0)?, short(data, 2)?), (short(data, 4)?, short(data, 6)?));
    let conditions = [
        ports(SOURCE_PORT, &[source], inverted & 1 != 0),
        ports(DESTINATION_PORT, &[destination], inverted & 2 != 0),
    ];
    Some(conditions.into_iter().flatten().collect())
}

/// `struct xt_tcp`
fn tcp(data: &[u8]) -> Option<Vec<Condition>> {
    let &[option, mask, flags, inverted] = data.get(8..)?.first_chunk()?;
    let mut conditions = source_and_destination(data, inverted)?;
    if mask != 0 {
        let of_header = Field::Transport { offset: 13, length: 1 };
        conditions.push(masked(of_header, &[mask], &[flags], inverted & 4 != 0));
    }
    if option != 0 {
        conditions.push(Condition::Unknown { what: "a TCP option".to_owned(), usually: false });
    }
    Some(conditions)
}

/// `struct xt_udp`
fn udp(data: &[u8]) -> Option<Vec<Condition>> {
    source_and_destination(data, *data.get(8)?)
}

/// `struct xt_multiport_v1`: up to 15 ports, of which one that is marked begins a range.
fn multiport(data: &[u8]) -> Option<Vec<Condition>> {
    const MOST: usize = 15;
    let (which, count) = (*data.first()?, usize::from(*data.get(1)?).min(MOST));
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < count {
        let begins_range = *data.get(2 + 2 * MOST + at)? != 0;
        let first = short(data, 2 + 2 * at)?;
        at += usize::from(begins_range);
        ranges.push((first, short(data, 2 + 2 * at)?));
        at += 1;
    }
    let inverted = *data.get(2 + 3 * MOST)? != 0;
    let which = match which {
        0 => SOURCE_PORT,
        1 => DESTINATION_PORT,
        _ => return None,
    };
    Some(ports(which, &ranges, inverted).into_iter().collect())
}

/// The connection's state is one of those in a mask. The bits are those of nftables, but for those of translated and
/// untracked connections, and a new one is none of these.
fn state(mask: u32, inverted: bool) -> Condition {
    let part = Part { mask: mask.to_ne_bytes().to_vec(), ..Field::State.into() };
    let none = Test::equals(vec![0; 4]);
    Condition::Holds { parts: vec![part], test: none.inverted_if(!inverted) }
}

/// `struct xt_conntrack_mtinfo1` to `3`, of which only the state is looked at.
fn conntrack(data: &[u8], revision: u32) -> Option<Vec<Condition>> {
    /// Eight addresses, two times, a protocol and four ports.
    const FLAGS: usize = 8 * 16 + 2 * 4 + 2 + 4 * 2;
    const STATE: u16 = 1;
    let (asked, inverted) = (short(data, FLAGS)?, short(data, FLAGS + 2)?);
    if asked & !(1 << 13) != STATE {
        return None;
    }
    let mask = match revision {
        1 => u32::from(*data.get(FLAGS + 4)?),
        _ => u32::from(short(data, FLAGS + 4)?),
    };
    Some(vec![state(mask, inverted & STATE != 0)])
}

/// `struct xt_addrtype_info` and `struct xt_addrtype_info_v1`: masks of kinds of addresses.
fn address_kind(data: &[u8], revision: u32) -> Option<Vec<Condition>> {
    let (source, destination) = (short(data, 0)?, short(data, 2)?);
    let (inverted_source, inverted_destination) = match revision {
        0 => (number(data, 4)? != 0, number(data, 8)? != 0),
        // Of one interface only: which one is not known.
        _ if number(data, 4)? & !3 != 0 => return None,
        _ => (number(data, 4)? & 1 != 0, number(data, 4)? & 2 != 0),
    };
    let kinds = |which: Field, mask: u16, inverted: bool| {
        let kinds = (0..u16::BITS).filter(|kind| mask & 1 << kind != 0);
        let ranges = kinds.map(|kind| (kind.to_ne_bytes().to_vec(), kind.to_ne_bytes().to_vec()));
        (mask != 0).then(|| field(which, ranges.collect(), inverted))
    };
    let conditions = [
        kinds(Field::SourceKind, source, inverted_source),
        kinds(Field::DestinationKind, destination, inverted_destination),
    ];
    Some(conditions.into_iter().flatten().collect())
}

/// `struct xt_pkttype_info`
fn packet_type(data: &[u8]) -> Option<Vec<Condition>> {
    let kind = u8::try_from(number(data, 0)?).ok()?;
    Some(vec![masked(Field::PacketType, &[], &[kind], number(data, 4)? != 0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(condition: &Condition) -> Vec<(u16, u16)> {
        let Condition::Holds { test: Test::Within { ranges, .. }, .. } = condition else {
            panic!("no ranges: {condition:?}")
        };
        let port = |bytes: &[u8]| u16::from_be_bytes(bytes.try_into().unwrap());
        ranges.iter().map(|(low, high)| (port(low), port(high))).collect()
    }

    #[test]
    fn several_ports_and_ranges_are_one_condition() {
        let mut data = vec![1, 4];
        let ports = [80_u16, 443, 8000, 8010].map(u16::to_ne_bytes).concat();
        data.extend(ports);
        data.resize(2 + 30, 0);
        data.extend([0, 0, 1, 0]);
        data.resize(2 + 45 + 1, 0);
        let conditions = matches("multiport", 1, &data);
        assert_eq!(ranges(&conditions[0]), [(80, 80), (443, 443), (8000, 8010)]);
        assert!(matches!(matches("multiport", 1, &data[..40])[..], [Condition::Unknown { .. }]));
    }

    #[test]
    fn ports_that_are_not_asked_for_make_no_condition() {
        let mut data = [0, u16::MAX, 22, 22].map(u16::to_ne_bytes).concat();
        data.extend([0, 0, 0, 0]);
        let conditions = matches("tcp", 0, &data);
        assert_eq!(conditions.len(), 1);
        assert_eq!(ranges(&conditions[0]), [(22, 22)]);
        data[9..11].copy_from_slice(&[0x17, 0x02]);
        assert_eq!(matches("tcp", 0, &data).len(), 2, "the flags count as well");
    }

    #[test]
    fn what_is_not_known_may_hold_or_not() {
        let unknown = |name: &str| match &matches(name, 0, &[])[..] {
            [Condition::Unknown { usually, .. }] => *usually,
            conditions => panic!("{conditions:?}"),
        };
        assert!(unknown("limit") && !unknown("recent") && !unknown("tcp"));
        assert!(matches!(target("NFQUEUE", &[]), Action::Unknown(_)));
        assert_eq!(target("", &(-2_i32).to_ne_bytes()), Action::Accept);
        assert_eq!(target("REJECT", &[]), Action::Drop);
    }
}
