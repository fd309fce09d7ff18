//! The judge: follows a connection through the chains, both ways where it is not sure.

use std::collections::{BTreeMap, BTreeSet};

use super::connection::{Connection, Span};
use super::rules::{Action, Chain, Condition, Element, Netfilter, Part, Policy, Rule, Table, Test};
use super::verdict::{Block, By, Owner, Verdict};

/// Chains that call each other deeper than this are not followed. nftables allows 16, and nobody needs as many.
const DEPTH: usize = 32;

/// What the host's firewall would do to a new connection.
///
/// Every chain of the hook has its say, in the order of their priorities; a packet passes that all of them accept.
#[must_use]
pub fn judge(netfilter: &Netfilter, connection: &Connection) -> Verdict {
    let mut reasons: BTreeSet<String> = netfilter.unread.iter().cloned().collect();
    let mut uncertain = !netfilter.unread.is_empty();
    let mut block = None;
    for (table, name) in base_chains(netfilter, connection) {
        let mut walk = Walk { table, connection, done: BTreeMap::new(), reasons: BTreeSet::new(), depth: 0 };
        let fates = walk.base(name);
        let Some(dropped) = fates.drops else {
            uncertain |= fates.unknown;
            if fates.unknown {
                reasons.append(&mut walk.reasons);
            }
            continue;
        };
        if !fates.accepts && !fates.unknown {
            return Verdict::Blocked(dropped);
        }
        uncertain = true;
        reasons.append(&mut walk.reasons);
        if fates.stranger == Some(Fate::Drops) {
            block.get_or_insert(dropped);
        }
    }
    if !uncertain {
        return Verdict::Open;
    }
    let why = reasons.into_iter().collect::<Vec<_>>().join(", ");
    Verdict::Undecided { why, block }
}

/// The chains where such a packet begins, first one first.
fn base_chains<'a>(netfilter: &'a Netfilter, connection: &Connection) -> Vec<(&'a Table, &'a str)> {
    let tables = netfilter.tables.iter().filter(|table| table.families.cover(connection.v4));
    let chains = tables.flat_map(|table| table.chains.iter().map(move |(name, chain)| (table, name, chain)));
    let mut found: Vec<(i32, &Table, &str)> = chains
        .filter_map(|(table, name, chain)| {
            let base = chain.base.filter(|base| base.hook == connection.hook)?;
            Some((base.priority, table, name.as_str()))
        })
        .collect();
    found.sort_by_key(|(priority, ..)| *priority);
    found.into_iter().map(|(_, table, name)| (table, name)).collect()
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
    /// Not known. `usually`: whether it does for a stranger, who is on no list and has no particular address.
    Maybe {
        usually: bool,
    },
}

impl Holds {
    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Maybe { usually } => Self::Maybe { usually: !usually },
        }
    }
}

/// One way on from a rule or a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Accepts,
    Drops,
    Unknown,
    /// Leaves the chain.
    Returns,
}

/// All ways on from a rule or a chain.
#[derive(Clone, Debug, Default)]
struct Fates {
    accepts: bool,
    /// Where it may end; for a stranger, if it does.
    drops: Option<Block>,
    unknown: bool,
    returns: bool,
    /// On with the next rule.
    continues: bool,
    /// What happens to a stranger; `None` while that goes on.
    stranger: Option<Fate>,
}

impl Fates {
    fn only(fate: Fate) -> Self {
        Self {
            accepts: fate == Fate::Accepts,
            unknown: fate == Fate::Unknown,
            returns: fate == Fate::Returns,
            stranger: Some(fate),
            ..Self::default()
        }
    }

    fn drops(block: Block) -> Self {
        Self { drops: Some(block), stranger: Some(Fate::Drops), ..Self::default() }
    }

    fn continues() -> Self {
        Self { continues: true, ..Self::default() }
    }

    /// These or those; `met`: whether a stranger meets those.
    fn join(&mut self, other: Self, met: bool) {
        let decides = met && self.stranger.is_none() && other.stranger.is_some();
        if decides {
            self.stranger = other.stranger;
        }
        self.accepts |= other.accepts;
        self.unknown |= other.unknown;
        self.returns |= other.returns;
        if decides && other.stranger == Some(Fate::Drops) || self.drops.is_none() {
            self.drops = other.drops.or(self.drops.take());
        }
    }

    /// After a jump, leaving the chain that was jumped to means going on.
    fn after_jump(self) -> Self {
        let stranger = self.stranger.filter(|fate| *fate != Fate::Returns);
        Self { continues: self.returns, returns: false, stranger, ..self }
    }
}

/// The way through one table.
struct Walk<'a> {
    table: &'a Table,
    connection: &'a Connection,
    /// Chains that were gone through: for one packet, a chain always ends the same way.
    done: BTreeMap<&'a str, Fates>,
    /// What was not known on the way.
    reasons: BTreeSet<String>,
    depth: usize,
}

impl<'a> Walk<'a> {
    /// Through a base chain, to its policy.
    fn base(&mut self, name: &'a str) -> Fates {
        let mut fates = self.chain(name);
        if !std::mem::take(&mut fates.returns) {
            return fates;
        }
        let policy = self.table.chains.get(name).and_then(|chain| chain.base).map(|base| base.policy);
        let met = fates.stranger == Some(Fate::Returns);
        if met {
            fates.stranger = None;
        }
        let end = match policy {
            Some(Policy::Drop) => Fates::drops(self.block(name, By::Policy)),
            _ => Fates::only(Fate::Accepts),
        };
        fates.join(end, met);
        fates
    }

    fn chain(&mut self, name: &'a str) -> Fates {
        if let Some(fates) = self.done.get(name) {
            return fates.clone();
        }
        let chain = self.table.chains.get(name).filter(|_| self.depth < DEPTH);
        let Some(chain) = chain else { return self.unknown(&format!("chain {name}, which was not read")) };
        self.depth += 1;
        let fates = self.rules(name, chain);
        self.depth -= 1;
        self.done.insert(name, fates.clone());
        fates
    }

    fn rules(&mut self, name: &'a str, chain: &'a Chain) -> Fates {
        let mut fates = Fates::default();
        for rule in &chain.rules {
            let (holds, reasons) = self.holds(rule);
            // What does not decide need not be decided about.
            if holds == Holds::No || rule.action == Action::Continue {
                continue;
            }
            self.reasons.extend(reasons);
            let action = self.act(name, &rule.action);
            let ends = holds == Holds::Yes && !action.continues;
            fates.join(action, matches!(holds, Holds::Yes | Holds::Maybe { usually: true }));
            if ends {
                return fates;
            }
        }
        fates.join(Fates::only(Fate::Returns), true);
        fates
    }

    /// Whether all conditions of a rule hold, and what is not known about that.
    fn holds(&self, rule: &Rule) -> (Holds, Vec<String>) {
        let mut all = Holds::Yes;
        let mut reasons = Vec::new();
        for condition in &rule.conditions {
            let (holds, reason) = self.condition(condition);
            all = match (all, holds) {
                (_, Holds::No) => return (Holds::No, Vec::new()),
                (all, Holds::Yes) => all,
                (Holds::Maybe { usually: false }, Holds::Maybe { .. }) => Holds::Maybe { usually: false },
                (_, maybe) => maybe,
            };
            reasons.extend(reason);
        }
        (all, reasons)
    }

    fn condition(&self, condition: &Condition) -> (Holds, Option<String>) {
        let (parts, test) = match condition {
            Condition::Never => return (Holds::No, None),
            Condition::Unknown { what, usually } => {
                return (Holds::Maybe { usually: *usually }, Some(what.clone()));
            }
            Condition::Holds { parts, test } => (parts, test),
        };
        let span = self.connection.span(parts);
        let (holds, inverted) = match test {
            Test::Within { ranges, inverted } => {
                let ranges = ranges.iter().map(|(low, high)| within(&span, low, high));
                (any(ranges), *inverted)
            }
            Test::InSet { set, inverted } => (self.in_set(&span, set), *inverted),
        };
        let holds = if inverted { holds.not() } else { holds };
        let reason = matches!(holds, Holds::Maybe { .. }).then(|| self.reason(parts));
        (holds, reason)
    }

    fn reason(&self, parts: &[Part]) -> String {
        let unknown =
            parts.iter().filter(|part| !self.connection.span(std::slice::from_ref(part)).is_known());
        let reasons: Vec<String> = unknown.map(|part| self.connection.describe(part)).collect();
        if reasons.is_empty() { "a set that was not read".to_owned() } else { reasons.join(", ") }
    }

    fn elements(&self, set: &str) -> Option<&'a [Element]> {
        self.table.sets.get(set)?.elements.as_deref()
    }

    fn in_set(&self, span: &Span, set: &str) -> Holds {
        match self.elements(set) {
            Some(elements) => any(elements.iter().map(|element| within(span, &element.low, &element.high))),
            None => Holds::Maybe { usually: false },
        }
    }

    fn act(&mut self, chain: &str, action: &'a Action) -> Fates {
        match action {
            Action::Continue => Fates::continues(),
            Action::Accept => Fates::only(Fate::Accepts),
            Action::Drop => Fates::drops(self.block(chain, By::Rule)),
            Action::Return => Fates::only(Fate::Returns),
            Action::Jump(to) => self.chain(to).after_jump(),
            Action::Goto(to) => self.chain(to),
            Action::Map { parts, set } => self.map(chain, parts, set),
            Action::Unknown(what) => self.unknown(what),
        }
    }

    fn unknown(&mut self, what: &str) -> Fates {
        self.reasons.insert(what.to_owned());
        Fates { continues: true, returns: true, stranger: None, ..Fates::only(Fate::Unknown) }
    }

    /// What a map has for the packet.
    fn map(&mut self, chain: &str, parts: &[Part], set: &str) -> Fates {
        let Some(elements) = self.elements(set) else {
            return self.unknown(&format!("map {set}, which was not read"));
        };
        let span = self.connection.span(parts);
        let mut fates = Fates::continues();
        for element in elements {
            let holds = within(&span, &element.low, &element.high);
            let Some(action) = element.action.as_ref().filter(|_| holds != Holds::No) else { continue };
            let action = self.act(chain, action);
            if holds == Holds::Yes {
                fates.continues = action.continues;
                fates.join(action, true);
                return fates;
            }
            let reason = self.reason(parts);
            self.reasons.insert(reason);
            fates.join(action, false);
        }
        fates
    }

    fn block(&self, chain: &str, by: By) -> Block {
        Block {
            families: self.table.families,
            table: self.table.name.clone(),
            chain: chain.to_owned(),
            by,
            owner: Owner::of(self.table),
        }
    }
}

/// Whether a span lies in a range, compared over the length of the range's ends.
fn within(span: &Span, low: &[u8], high: &[u8]) -> Holds {
    let cut = |bytes: &'_ [u8]| bytes[..bytes.len().min(low.len())].to_vec();
    let (first, last) = (cut(&span.low), cut(&span.high));
    // A register that is shorter than what it is compared with was not understood.
    if first.len() < low.len() {
        return Holds::Maybe { usually: false };
    }
    if low == high && span.excludes(low) {
        Holds::No
    } else if first.as_slice() >= low && last.as_slice() <= high {
        Holds::Yes
    } else if last.as_slice() < low || first.as_slice() > high {
        Holds::No
    } else {
        Holds::Maybe { usually: false }
    }
}

/// Whether any of several holds.
fn any(holds: impl Iterator<Item = Holds>) -> Holds {
    let mut found = Holds::No;
    for each in holds {
        match each {
            Holds::Yes => return Holds::Yes,
            Holds::Maybe { .. } => found = each,
            Holds::No => {}
        }
    }
    found
}
