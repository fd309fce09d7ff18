//! What is wanted: names, networks, endpoints, published ports, masquerade rules.
//!
//! Everything here is parsed once, at the edge, into types that cannot hold a bad value; nothing below looks
//! again. These types are also what the store writes, so serde lives here and nowhere else in the library.

mod cgroup;
mod choice;
mod cidr;
mod direct;
mod endpoint;
mod error;
mod floating;
mod going;
mod gso;
mod limit;
mod masquerade;
mod name;
mod network;
mod network_options;
mod port_map;
mod router;
mod settings;
mod timeout;
mod xdp;

pub use cgroup::{Cgroup, CgroupLimit, CgroupPath, ClassId, Nesting, Pacing};
pub use cidr::{Cidr, Clients, Subnet};
pub use direct::{DirectEnd, DirectLink, both_ends};
pub use endpoint::{Endpoint, ExtraRoute, Link, LinkMode, Namespace};
pub use error::Error;
pub use floating::Floating;
pub use going::{Going, Networks};
pub use gso::GsoSizes;
pub use limit::{BurstSetting, Bytes, Limit, Limits, Rate, RateSetting};
pub use masquerade::Masquerade;
pub use name::{InterfaceName, Name};
pub use network::{Network, Segment, Segments};
pub use network_options::{Filtering, GatewayMode, Mapping, NetworkChange, NetworkOptions};
pub use port_map::{PortMap, Ports, Protocol, Published, Target, TargetHost};
pub use router::{Router, check_outside};
pub use settings::{Firewall, Hold, Quotas, Settings, SettingsChange, TableSizes, parse_nat_ports};
pub use timeout::{Seconds, Timeout, TimeoutSetting, Timeouts};
pub use xdp::{FloodLimits, Xdp, XdpSetting};

use serde::{Deserialize, Deserializer};
use vnet_common::Mac;

/// Reads a list, or what older versions recorded in its place: one item or none.
fn one_or_many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Items<T> {
        Many(Vec<T>),
        One(T),
    }
    Ok(match Option::<Items<T>>::deserialize(deserializer)? {
        Some(Items::Many(items)) => items,
        Some(Items::One(item)) => vec![item],
        None => Vec::new(),
    })
}

/// Reads a hardware address an interface may have: six bytes in hexadecimal, unicast, not all zero.
///
/// # Errors
/// When it is not one.
pub fn parse_mac(text: &str) -> Result<Mac, Error> {
    let bad = |reason| Error::Mac { text: text.to_owned(), reason };
    let mut bytes = [0_u8; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2).ok_or(bad("expected six pairs of digits"))?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| bad("expected hexadecimal digits"))?;
    }
    if parts.next().is_some() {
        return Err(bad("expected six pairs of digits"));
    }
    if bytes[0] & 1 != 0 {
        return Err(bad("it is a multicast address: the first byte must be even"));
    }
    if bytes == [0; 6] {
        return Err(bad("it is all zero"));
    }
    Ok(Mac::new(bytes))
}

/// Hardware addresses as text, for serde.
mod mac_text {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use vnet_common::Mac;

    pub(super) fn serialize<S: Serializer>(mac: &Mac, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mac, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_mac(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_unicast_and_six_bytes_long() {
        assert_eq!(parse_mac("02:00:5e:10:00:01").unwrap(), Mac::new([2, 0, 0x5e, 0x10, 0, 1]));
        assert_eq!(parse_mac("02-AA-5e-10-00-01").unwrap(), Mac::new([2, 0xaa, 0x5e, 0x10, 0, 1]));
        for bad in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:01:02",
            "03:00:5e:10:00:01",
            "00:00:00:00:00:00",
            "2:0:0:0:0:0",
            "xx:00:5e:10:00:01",
        ] {
            assert!(parse_mac(bad).is_err(), "{bad:?}");
        }
    }
}
