//! What interfaces have received and sent, as the kernel counts it for each of them anyway.

use std::collections::HashMap;

use super::error::Error;
use super::netlink::{Counters, Netlink};
use crate::flow::Traffic;

/// What an interface has received and sent since it was made: packets, aggregates of them as one, and bytes with their
/// link headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceTraffic {
    /// The interface, by its number in its namespace: another one counts anew.
    pub index: u32,
    /// What it has received.
    pub received: Traffic,
    /// What it has sent.
    pub sent: Traffic,
}

impl From<&Counters> for InterfaceTraffic {
    fn from(counters: &Counters) -> Self {
        Self { index: counters.index, received: counters.received, sent: counters.sent }
    }
}

/// Of interfaces of the host, by name; nothing of those that there are not.
pub(super) async fn of_interfaces(
    netlink: &Netlink,
    names: &[&str],
) -> Result<HashMap<String, InterfaceTraffic>, Error> {
    let counted = netlink.counters().await.map_err(|source| Error::ReadInterfaces { source })?;
    let wanted = counted.iter().filter(|counters| names.contains(&counters.name.as_str()));
    Ok(wanted.map(|counters| (counters.name.clone(), counters.into())).collect())
}

/// Of the far ends of links to endpoints, by the names of their near ends; nothing of those that there are not.
///
/// What the programs hand to an endpoint goes past the near end, and is counted by the far one alone (since Linux 6.7:
/// `bpf_redirect_peer` was not counted before).
pub(super) async fn of_far_ends(
    netlink: &Netlink,
    near: &[&str],
) -> Result<HashMap<String, InterfaceTraffic>, Error> {
    let near: std::collections::HashSet<&str> = near.iter().copied().collect();
    let counted = netlink.counters().await.map_err(|source| Error::ReadInterfaces { source })?;
    let mut far = HashMap::new();
    for counters in counted.iter().filter(|counters| near.contains(counters.name.as_str())) {
        let Some((namespace, index)) = counters.other_end else { continue };
        let found = netlink.counters_in(namespace, index).await;
        let found = found.map_err(|source| Error::ReadInterface {
            interface: format!("the other end of {}", counters.name),
            source,
        })?;
        far.extend(found.map(|found| (counters.name.clone(), InterfaceTraffic::from(&found))));
    }
    Ok(far)
}
