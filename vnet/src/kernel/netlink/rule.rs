//! Rules that choose a routing table by the source address.

use std::net::IpAddr;

use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};

use super::{Netlink, Result, family};

/// Before the main table's rule, which is the kernel's at 32766, and after that of its own addresses, at 0.
const PRIORITY: u32 = 20_000;

/// A rule: what is sent from an address is routed by a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct SourceRule {
    pub(in crate::kernel) source: IpAddr,
    pub(in crate::kernel) table: u32,
}

impl SourceRule {
    /// The rule of a message, if it asks for the source, as one address, and at [`PRIORITY`].
    fn from_message(message: &RuleMessage) -> Option<Self> {
        let mut table = u32::from(message.header.table);
        let (mut source, mut priority) = (None, 0);
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Source(addr) => source = Some(*addr),
                RuleAttribute::Table(number) => table = *number,
                RuleAttribute::Priority(number) => priority = *number,
                _ => {}
            }
        }
        let source = source.filter(|source| message.header.src_len == bits(*source))?;
        (priority == PRIORITY && message.header.action == RuleAction::ToTable)
            .then_some(Self { source, table })
    }

    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = family(self.source);
        message.header.src_len = bits(self.source);
        message.header.action = RuleAction::ToTable;
        message.attributes.push(RuleAttribute::Source(self.source));
        message.attributes.push(RuleAttribute::Priority(PRIORITY));
        message.attributes.push(RuleAttribute::Table(self.table));
        message.attributes.push(RuleAttribute::Protocol(RouteProtocol::Static));
        message
    }
}

const fn bits(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl Netlink {
    /// The rules of both families that lead to a table.
    pub(in crate::kernel) async fn source_rules(&self, table: u32) -> Result<Vec<SourceRule>> {
        let mut rules = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RuleMessage::default();
            message.header.family = family;
            let answer = match self.request(RouteNetlinkMessage::GetRule(message), NLM_F_DUMP).await {
                // There is no such family, or it has no rules.
                Err(error) if error.is(libc::EAFNOSUPPORT) || error.is(libc::EOPNOTSUPP) => continue,
                answer => answer?,
            };
            let found = answer.iter().filter_map(|message| match message {
                RouteNetlinkMessage::NewRule(message) => SourceRule::from_message(message),
                _ => None,
            });
            rules.extend(found.filter(|rule| rule.table == table));
        }
        Ok(rules)
    }

    /// Makes a rule; one that is there already is left alone.
    pub(in crate::kernel) async fn add_rule(&self, rule: SourceRule) -> Result<()> {
        let message = RouteNetlinkMessage::NewRule(rule.message());
        match self.command(message, NLM_F_CREATE | NLM_F_EXCL).await {
            Err(error) if error.is(libc::EEXIST) => Ok(()),
            done => done,
        }
    }

    /// Takes a rule away; one that is not there is taken away already.
    pub(in crate::kernel) async fn delete_rule(&self, rule: SourceRule) -> Result<()> {
        match self.command(RouteNetlinkMessage::DelRule(rule.message()), 0).await {
            Err(error) if error.is(libc::ENOENT) => Ok(()),
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_as_it_is_written_and_others_are_not_ours() {
        for source in ["10.1.0.2", "fd01::2"] {
            let rule = SourceRule { source: source.parse().unwrap(), table: 0x4000_0007 };
            assert_eq!(SourceRule::from_message(&rule.message()), Some(rule));
            let mut wider = rule.message();
            wider.header.src_len -= 8;
            assert_eq!(SourceRule::from_message(&wider), None);
            let mut elsewhere = rule.message();
            elsewhere.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Priority(_)));
            assert_eq!(SourceRule::from_message(&elsewhere), None);
        }
    }
}
