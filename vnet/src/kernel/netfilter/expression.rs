//! Rules of nftables: a program for a small machine with registers, put back into what it asks of a packet.
//!
//! Every expression loads something into a register, changes a register, compares one (and ends the rule if that
//! fails) or decides. Numbers and names are those of linux/netfilter/nf_tables.h.

use std::collections::BTreeMap;

use super::nfnetlink::Attributes;
use super::xtables;
use crate::firewall::{Action, Condition, Field, Part, Rule, Test};

/// `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFTA_DATA_VALUE` and `NFTA_DATA_VERDICT`.
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
/// Bytes of a register of the newer kind, of which one of the older kind is four.
const REGISTER: usize = 4;

/// A rule; without expressions, one that does nothing.
pub(super) fn rule(expressions: Option<Attributes<'_>>) -> Rule {
    let mut machine = Machine::default();
    for expression in expressions.into_iter().flat_map(Attributes::values) {
        let name = expression.string(NAME).unwrap_or_default();
        let data = expression.nested(DATA).unwrap_or(Attributes(&[]));
        if machine.step(&name, data).is_none() {
            machine.unknown(&format!("`{name}`"), false);
            // Whatever it loaded is not what was there before.
            machine.registers.clear();
        }
    }
    Rule { conditions: machine.conditions, action: machine.action.unwrap_or(Action::Continue) }
}

/// The bytes of a value.
pub(super) fn value(data: Attributes<'_>) -> Option<&[u8]> {
    data.bytes(VALUE)
}

/// A verdict, as an immediate value or in a map.
pub(super) fn verdict(data: Attributes<'_>) -> Option<Action> {
    const CODE: u16 = 1;
    const CHAIN: u16 = 2;
    let verdict = data.nested(VERDICT)?;
    let chain = || verdict.string(CHAIN).unwrap_or_default();
    Some(match verdict.u32(CODE)?.cast_signed() {
        0 => Action::Drop,
        1 => Action::Accept,
        -1 => Action::Continue,
        -3 => Action::Jump(chain()),
        -4 => Action::Goto(chain()),
        -5 => Action::Return,
        // `NF_QUEUE`: a program decides.
        3 => Action::Unknown("what a program says (queue)".to_owned()),
        code => Action::Unknown(format!("verdict {code}")),
    })
}

#[derive(Default)]
struct Machine {
    /// What lies in the registers, by the byte where it begins.
    registers: BTreeMap<usize, Part>,
    conditions: Vec<Condition>,
    action: Option<Action>,
}

impl Machine {
    /// Does one expression; `None` if it is not understood.
    fn step(&mut self, name: &str, data: Attributes<'_>) -> Option<()> {
        match name {
            "immediate" => self.immediate(data),
            "meta" => self.load(data, 1, meta(data)),
            "ct" => self.load(data, 1, connection(data)),
            "payload" => self.load(data, 1, payload(data)),
            "fib" => self.load(data, 1, fib(data)),
            "bitwise" => self.bitwise(data),
            "byteorder" => self.byteorder(data),
            "cmp" => self.compare(data),
            "range" => self.range(data),
            "lookup" => self.lookup(data),
            "reject" => self.act(Action::Drop),
            "queue" => self.act(Action::Unknown("what a program says (queue)".to_owned())),
            "counter" | "log" | "notrack" | "last" | "dup" | "flow_offload" => Some(()),
            // They load what is not known in advance.
            "rt" | "socket" | "osf" | "hash" | "numgen" | "xfrm" | "tunnel" => None,
            // They stop matching when there is too much of something.
            "limit" | "quota" | "connlimit" | "dynset" => {
                self.unknown(&format!("`{name}`"), true);
                Some(())
            }
            "exthdr" => self.extension_header(data),
            "objref" => self.object(data),
            "match" => self.extend(xtables::matches(&data.string(1)?, data.u32(2)?, data.bytes(3)?)),
            "target" => self.act(xtables::target(&data.string(1)?, data.bytes(3)?)),
            // It may end the packet's way.
            _ => self.act(Action::Unknown(format!("`{name}`"))),
        }
    }

    fn act(&mut self, action: Action) -> Option<()> {
        if action != Action::Continue {
            self.action.get_or_insert(action);
        }
        Some(())
    }

    fn extend(&mut self, conditions: Vec<Condition>) -> Option<()> {
        self.conditions.extend(conditions);
        Some(())
    }

    fn unknown(&mut self, what: &str, usually: bool) {
        self.conditions.push(Condition::Unknown { what: what.to_owned(), usually });
    }

    fn immediate(&mut self, data: Attributes<'_>) -> Option<()> {
        let register = data.u32(1)?;
        match verdict(data.nested(2)?) {
            Some(action) if register == 0 => self.act(action),
            // A value for something else, such as a mark.
            _ => self.load(data, 1, Some(Field::Other { what: "a value".to_owned(), length: 16 })),
        }
    }

    /// Loads a field into the register that attribute `kind` names. Without such an attribute something is set,
    /// which decides nothing.
    fn load(&mut self, data: Attributes<'_>, kind: u16, field: Option<Field>) -> Option<()> {
        if let Some(register) = data.u32(kind) {
            self.registers.insert(offset(register)?, field?.into());
        }
        Some(())
    }

    fn bitwise(&mut self, data: Attributes<'_>) -> Option<()> {
        let (from, to) = (offset(data.u32(1)?)?, offset(data.u32(2)?)?);
        let mut part = self.registers.get(&from)?.clone();
        let plain = part.mask.is_empty() && part.flip.is_empty();
        let mask = data.nested(4).and_then(value);
        match (data.u32(6).unwrap_or(0), mask) {
            (0, Some(mask)) if plain => {
                part.mask = mask.to_vec();
                part.flip = data.nested(5).and_then(value).unwrap_or_default().to_vec();
            }
            _ => {
                let length = data.u32(3)? as usize;
                part = Field::Other { what: "bits of something".to_owned(), length }.into();
            }
        }
        self.registers.insert(to, part);
        Some(())
    }

    /// Turns a number of the machine into network order: then it is something else than what its field says.
    fn byteorder(&mut self, data: Attributes<'_>) -> Option<()> {
        let (to, length) = (offset(data.u32(2)?)?, data.u32(4)? as usize);
        self.registers.insert(to, Field::Other { what: "a number".to_owned(), length }.into());
        Some(())
    }

    fn condition(&mut self, register: u32, length: usize, test: Test) -> Option<()> {
        let parts = self.parts(offset(register)?, length)?;
        self.conditions.push(Condition::Holds { parts, test });
        Some(())
    }

    /// What lies in the registers from a byte on, so many bytes of it.
    fn parts(&self, begin: usize, length: usize) -> Option<Vec<Part>> {
        let mut parts = vec![self.registers.get(&begin)?.clone()];
        let inside = begin + 1..begin + length.max(1);
        let mut covered = begin + self.length(&parts[0]);
        for (at, part) in self.registers.range(inside) {
            // What was left there by something earlier is overwritten by what is longer than one register.
            if *at >= covered {
                covered = at + self.length(part);
                parts.push(part.clone());
            }
        }
        Some(parts)
    }

    fn length(&self, part: &Part) -> usize {
        let length = match &part.field {
            Field::InputName | Field::OutputName => 16,
            Field::Family | Field::Protocol | Field::PacketType => 1,
            Field::EtherType => 2,
            Field::Network { length, .. } | Field::Transport { length, .. } | Field::Other { length, .. } => {
                *length
            }
            _ => 4,
        };
        length.next_multiple_of(REGISTER)
    }

    fn compare(&mut self, data: Attributes<'_>) -> Option<()> {
        let value = value(data.nested(3)?)?.to_vec();
        let length = value.len();
        let (least, most) = (vec![0; length], vec![0xff; length]);
        let within = |low, high| Test::Within { ranges: vec![(low, high)], inverted: false };
        let test = match data.u32(2)? {
            0 => Test::equals(value),
            1 => Test::equals(value).inverted_if(true),
            2 => within(value, most).inverted_if(true),
            3 => within(least, value),
            4 => within(least, value).inverted_if(true),
            5 => within(value, most),
            _ => return None,
        };
        self.condition(data.u32(1)?, length, test)
    }

    fn range(&mut self, data: Attributes<'_>) -> Option<()> {
        let (low, high) = (value(data.nested(3)?)?.to_vec(), value(data.nested(4)?)?.to_vec());
        let length = low.len();
        let test = Test::Within { ranges: vec![(low, high)], inverted: data.u32(2)? == 1 };
        self.condition(data.u32(1)?, length, test)
    }

    fn lookup(&mut self, data: Attributes<'_>) -> Option<()> {
        let (set, register) = (data.string(1)?, data.u32(2)?);
        // The key is as long as what was loaded for it: all that lies there.
        let parts = self.parts(offset(register)?, 16 * REGISTER)?;
        match data.u32(3) {
            None => {
                let inverted = data.u32(5).unwrap_or(0) & 1 != 0;
                self.conditions.push(Condition::Holds { parts, test: Test::InSet { set, inverted } });
            }
            Some(0) => return self.act(Action::Map { parts, set }),
            Some(_) => {
                self.unknown(&format!("what map {set} has"), true);
                let field = Field::Other { what: format!("what map {set} has"), length: 16 };
                return self.load(data, 3, Some(field));
            }
        }
        Some(())
    }

    /// Headers of IPv6 between the first and the last: a new connection has none.
    fn extension_header(&mut self, data: Attributes<'_>) -> Option<()> {
        const IPV6: u32 = 0;
        const PRESENT: u32 = 1;
        if data.u32(6).unwrap_or(0) != IPV6
            || data.u32(1).is_none()
            || data.u32(5).unwrap_or(0) & PRESENT != 0
        {
            return None;
        }
        self.extend(vec![Condition::Never])
    }

    /// A counter or a helper decides nothing, a limit or a quota may.
    fn object(&mut self, data: Attributes<'_>) -> Option<()> {
        const HARMLESS: [u32; 5] = [1, 3, 7, 8, 9];
        match data.u32(1) {
            Some(kind) if HARMLESS.contains(&kind) => Some(()),
            _ => {
                self.unknown("a limit or quota", true);
                Some(())
            }
        }
    }
}

/// The byte where a register begins: four old ones of 16 bytes, or sixteen of 4.
fn offset(register: u32) -> Option<usize> {
    let register = register as usize;
    match register {
        1..=4 => Some((register - 1) * 16),
        8..=23 => Some((register - 8) * REGISTER),
        _ => None,
    }
}

/// `NFT_META_…`
fn meta(data: Attributes<'_>) -> Option<Field> {
    Some(match data.u32(2)? {
        1 => Field::EtherType,
        4 => Field::InputIndex,
        5 => Field::OutputIndex,
        6 => Field::InputName,
        7 => Field::OutputName,
        15 => Field::Family,
        16 => Field::Protocol,
        19 => Field::PacketType,
        3 => Field::Other { what: "the packet's mark".to_owned(), length: 4 },
        key => Field::Other { what: format!("`meta` {key}"), length: 16 },
    })
}

/// `NFT_CT_…`
fn connection(data: Attributes<'_>) -> Option<Field> {
    Some(match data.u32(2)? {
        0 => Field::State,
        2 => Field::Status,
        3 => Field::Other { what: "the connection's mark".to_owned(), length: 4 },
        key => Field::Other { what: format!("`ct` {key}"), length: 16 },
    })
}

fn payload(data: Attributes<'_>) -> Option<Field> {
    let (offset, length) = (data.u32(3)? as usize, data.u32(4)? as usize);
    Some(match data.u32(2)? {
        1 => Field::Network { offset, length },
        2 => Field::Transport { offset, length },
        0 => Field::Other { what: "the Ethernet header".to_owned(), length },
        _ => Field::Other { what: "what is in the packet".to_owned(), length },
    })
}

/// `NFT_FIB_RESULT_…`: what the routing table says about an address.
fn fib(data: Attributes<'_>) -> Option<Field> {
    const KIND: u32 = 3;
    const SOURCE: u32 = 1;
    const DESTINATION: u32 = 2;
    Some(match (data.u32(2)?, data.u32(3)?) {
        (KIND, SOURCE) => Field::SourceKind,
        (KIND, DESTINATION) => Field::DestinationKind,
        _ => Field::Other { what: "a route".to_owned(), length: 16 },
    })
}
