//! The tables of nftables, among them those that iptables makes there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::expression;
use super::nfnetlink::{Attributes, Filter, Message, Nfnetlink};
use crate::firewall::{
    Action, Backend, Base, Chain, Condition, Element, Families, Hook, Policy, Rule, Set, Table, Test,
};

/// What is asked for: `NFT_MSG_GET…` of linux/netfilter/nf_tables.h, whose names the numbers below follow.
mod get {
    pub(super) const TABLES: u8 = 1;
    pub(super) const CHAINS: u8 = 4;
    pub(super) const RULES: u8 = 7;
    pub(super) const SETS: u8 = 10;
    pub(super) const ELEMENTS: u8 = 13;
}

/// `NFTA_TABLE_…`
mod table {
    pub(super) const NAME: u16 = 1;
    pub(super) const FLAGS: u16 = 2;
    /// `NFT_TABLE_F_DORMANT`: its chains are not asked.
    pub(super) const DORMANT: u32 = 1;
}

/// `NFTA_CHAIN_…` and `NFTA_HOOK_…`
mod chain {
    pub(super) const TABLE: u16 = 1;
    pub(super) const NAME: u16 = 3;
    pub(super) const HOOK: u16 = 4;
    pub(super) const POLICY: u16 = 5;
    pub(super) const HOOK_NUMBER: u16 = 1;
    pub(super) const HOOK_PRIORITY: u16 = 2;
}

/// `NFTA_RULE_…`
mod rule {
    pub(super) const TABLE: u16 = 1;
    pub(super) const CHAIN: u16 = 2;
    pub(super) const EXPRESSIONS: u16 = 4;
}

/// `NFTA_SET_…`
mod set {
    pub(super) const TABLE: u16 = 1;
    pub(super) const NAME: u16 = 2;
    pub(super) const FLAGS: u16 = 3;
    pub(super) const KEY_TYPE: u16 = 4;
    /// `NFT_SET_INTERVAL`
    pub(super) const INTERVAL: u32 = 4;
    /// `NFT_SET_CONCAT`
    pub(super) const CONCAT: u32 = 0x80;
    /// Types of keys that are addresses, as libnftables numbers them: IPv4, IPv6, Ethernet.
    pub(super) const ADDRESSES: [u32; 3] = [7, 8, 9];
}

/// `NFTA_SET_ELEM_LIST_…` and `NFTA_SET_ELEM_…`
mod element {
    pub(super) const TABLE: u16 = 1;
    pub(super) const SET: u16 = 2;
    pub(super) const LIST: u16 = 3;
    pub(super) const KEY: u16 = 1;
    pub(super) const DATA: u16 = 2;
    pub(super) const FLAGS: u16 = 3;
    /// `NFT_SET_ELEM_INTERVAL_END`: the first key behind a range.
    pub(super) const INTERVAL_END: u32 = 1;
    /// `NFT_SET_ELEM_CATCHALL`
    pub(super) const CATCHALL: u32 = 2;
}

/// `NFPROTO_…`: the families whose packets concern the host.
fn families(number: u8) -> Option<Families> {
    match number {
        1 => Some(Families::Both),
        2 => Some(Families::V4),
        10 => Some(Families::V6),
        _ => None,
    }
}

/// The tables with chains that decide about packets to the host or through it; none where there is no nftables.
///
/// What has nothing to do with such a table is not even asked for: a host may have ten thousand rules for something
/// else.
pub(super) fn tables() -> io::Result<Vec<Table>> {
    let Some(netlink) = Nfnetlink::open()? else { return Ok(Vec::new()) };
    let all = Filter::default();
    let awake: BTreeSet<(u8, String)> =
        list(&netlink, get::TABLES, 0, &all)?.iter().filter_map(awake).collect();
    if awake.is_empty() {
        return Ok(Vec::new());
    }
    let mut tables: BTreeMap<(u8, String), Table> = BTreeMap::new();
    for message in list(&netlink, get::CHAINS, 0, &all)? {
        let attributes = message.attributes();
        let (Some(name), Some(families)) = (attributes.string(chain::TABLE), families(message.family)) else {
            continue;
        };
        let key = (message.family, name.clone());
        if awake.contains(&key) {
            let empty = || Table {
                families,
                name,
                backend: Backend::Nftables,
                chains: BTreeMap::new(),
                sets: BTreeMap::new(),
            };
            let chain = Chain { base: base(attributes), rules: Vec::new() };
            let name = attributes.string(chain::NAME).unwrap_or_default();
            tables.entry(key).or_insert_with(empty).chains.insert(name, chain);
        }
    }
    tables.retain(|_, table| table.chains.values().any(|chain| chain.base.is_some()));
    for ((family, _), table) in &mut tables {
        read_rules(&netlink, *family, table)?;
        read_sets(&netlink, *family, table)?;
    }
    Ok(tables.into_values().collect())
}

/// A list; empty where there is no such thing.
fn list(netlink: &Nfnetlink, kind: u8, family: u8, filter: &Filter) -> io::Result<Vec<Message>> {
    Ok(netlink.list(kind, family, filter)?.unwrap_or_default())
}

/// Family and name of a table that is not dormant.
fn awake(message: &Message) -> Option<(u8, String)> {
    let attributes = message.attributes();
    let dormant = attributes.u32(table::FLAGS).unwrap_or(0) & table::DORMANT != 0;
    attributes.string(table::NAME).filter(|_| !dormant).map(|name| (message.family, name))
}

/// Where a chain hangs, if that is a place that matters here.
fn base(attributes: Attributes<'_>) -> Option<Base> {
    let hook = attributes.nested(chain::HOOK)?;
    let policy = match attributes.u32(chain::POLICY) {
        Some(0) => Policy::Drop,
        _ => Policy::Accept,
    };
    let hook_of = |number| match number {
        // `NF_INET_LOCAL_IN`, `NF_INET_FORWARD`
        1 => Some(Hook::Input),
        2 => Some(Hook::Forward),
        _ => None,
    };
    // A priority is signed, and most are not positive.
    let priority = hook.u32(chain::HOOK_PRIORITY).unwrap_or(0).cast_signed();
    Some(Base { hook: hook_of(hook.u32(chain::HOOK_NUMBER)?)?, priority, policy })
}

fn read_rules(netlink: &Nfnetlink, family: u8, table: &mut Table) -> io::Result<()> {
    let of_table = Filter::default().with(rule::TABLE, &table.name);
    for message in list(netlink, get::RULES, family, &of_table)? {
        let attributes = message.attributes();
        // Older kernels do not filter.
        if attributes.string(rule::TABLE).as_deref() != Some(&table.name) {
            continue;
        }
        let chain = attributes.string(rule::CHAIN).and_then(|name| table.chains.get_mut(&name));
        if let Some(chain) = chain {
            chain.rules.push(expression::rule(attributes.nested(rule::EXPRESSIONS)));
        }
    }
    Ok(())
}

/// The names of the sets that rules of a table ask for.
fn used_sets(table: &Table) -> BTreeSet<String> {
    let rules = table.chains.values().flat_map(|chain| &chain.rules);
    let names = rules.flat_map(|Rule { conditions, action }| {
        let of_conditions = conditions.iter().filter_map(|condition| match condition {
            Condition::Holds { test: Test::InSet { set, .. }, .. } => Some(set),
            _ => None,
        });
        let of_action = match action {
            Action::Map { set, .. } => Some(set),
            _ => None,
        };
        of_conditions.chain(of_action)
    });
    names.cloned().collect()
}

fn read_sets(netlink: &Nfnetlink, family: u8, table: &mut Table) -> io::Result<()> {
    let used = used_sets(table);
    if used.is_empty() {
        return Ok(());
    }
    let of_table = Filter::default().with(set::TABLE, &table.name);
    for message in list(netlink, get::SETS, family, &of_table)? {
        let attributes = message.attributes();
        let Some(name) = attributes.string(set::NAME).filter(|name| used.contains(name)) else { continue };
        let flags = attributes.u32(set::FLAGS).unwrap_or(0);
        // Blocklists may be very long, and who connects is not known. Ranges of several things at once are rare.
        let of_no_use = attributes.u32(set::KEY_TYPE).is_some_and(|key| set::ADDRESSES.contains(&key))
            || flags & set::CONCAT != 0 && flags & set::INTERVAL != 0;
        let of_set = Filter::default().with(element::TABLE, &table.name).with(element::SET, &name);
        let messages = if of_no_use { None } else { netlink.list(get::ELEMENTS, family, &of_set)? };
        let elements = messages.map(|messages| {
            let lists = messages.iter().filter_map(|message| message.attributes().nested(element::LIST));
            elements(lists.flat_map(Attributes::values), flags & set::INTERVAL != 0)
        });
        table.sets.insert(name, Set { elements });
    }
    Ok(())
}

/// The elements of a set. One with ranges lists the first key of each and the first one behind it, in any order.
fn elements<'a>(list: impl Iterator<Item = Attributes<'a>>, ranges: bool) -> Vec<Element> {
    let mut catchall = None;
    let mut keys: Vec<(Vec<u8>, bool, Option<Action>)> = Vec::new();
    for each in list {
        let flags = each.u32(element::FLAGS).unwrap_or(0);
        let action = each.nested(element::DATA).and_then(expression::verdict);
        if flags & element::CATCHALL != 0 {
            catchall = Some(Element { low: Vec::new(), high: Vec::new(), action });
        } else if let Some(key) = each.nested(element::KEY).and_then(expression::value) {
            keys.push((key.to_vec(), flags & element::INTERVAL_END == 0, action));
        }
    }
    // The end of one range may be the beginning of the next.
    keys.sort_by(|(a, begins_a, _), (b, begins_b, _)| (a, begins_a).cmp(&(b, begins_b)));
    let mut elements = Vec::new();
    for (i, (key, begins, action)) in keys.iter().enumerate() {
        let end = match keys.get(i + 1) {
            _ if !ranges => key.clone(),
            Some((next, ..)) => before(next),
            None => vec![0xff; key.len()],
        };
        if *begins {
            elements.push(Element { low: key.clone(), high: end, action: action.clone() });
        }
    }
    elements.extend(catchall);
    elements
}

/// The last key before another.
fn before(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        let (less, borrow) = byte.overflowing_sub(1);
        *byte = less;
        if !borrow {
            break;
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::super::nfnetlink::tests::attribute;
    use super::*;

    fn key(port: u16, flags: u32) -> Vec<u8> {
        let key = attribute(1, &attribute(1, &port.to_be_bytes()));
        [key, attribute(3, &flags.to_be_bytes())].concat()
    }

    fn ports(list: &[Vec<u8>], ranges: bool) -> Vec<(u16, u16)> {
        let number = |bytes: &[u8]| u16::from_be_bytes(bytes.try_into().unwrap());
        let elements = elements(list.iter().map(|bytes| Attributes(bytes)), ranges);
        elements.iter().map(|element| (number(&element.low), number(&element.high))).collect()
    }

    #[test]
    fn ranges_are_put_together_from_their_ends() {
        // As the kernel lists { 80, 443, 8000-8010, 60000-65535 }: backwards, with a mark at the very beginning.
        let list = [
            key(60000, 0),
            key(8011, 1),
            key(8000, 0),
            key(444, 1),
            key(443, 0),
            key(81, 1),
            key(80, 0),
            key(0, 1),
        ];
        assert_eq!(ports(&list, true), [(80, 80), (443, 443), (8000, 8010), (60000, 65535)]);
        assert_eq!(ports(&[key(80, 0), key(81, 1), key(81, 0), key(256, 1)], true), [(80, 80), (81, 255)]);
    }

    #[test]
    fn plain_sets_hold_single_keys() {
        assert_eq!(ports(&[key(443, 0), key(80, 0)], false), [(80, 80), (443, 443)]);
    }
}
