//! An instance.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vnet_common::{DatapathConfig, PortRange, maps};

use super::choice::choice;
use super::timeout::{TimeoutSetting, Timeouts};
use super::xdp::{FloodLimits, Xdp, XdpSetting};
use super::{Error, InterfaceName, Ports, Router};

/// What holds for a whole instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The interfaces that lead to the world.
    pub uplinks: Vec<InterfaceName>,
    /// Whether nobody has named them: they are those with a default route. Of a record that does not say, somebody has.
    #[serde(default)]
    pub follows_default_route: bool,
    /// Source ports kept for masquerade: neither the host's own choice nor published.
    pub nat_ports: Ports,
    /// Which network namespace plays its host.
    pub namespace: u64,
    /// Seconds since 1970 at which it came up.
    pub created: u64,
    /// How long flows are kept.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// How much room there is for flows.
    #[serde(default)]
    pub tables: TableSizes,
    /// How much of that one endpoint may have.
    #[serde(default)]
    pub quotas: Quotas,
    /// Whether the host's firewall sees what is published.
    #[serde(default)]
    pub firewall: Firewall,
    /// Where fragments wait for the first of their datagram; nowhere on a kernel that cannot make them.
    #[serde(default)]
    pub hold: Option<Hold>,
    /// The uplinks that have an XDP program, with their modes.
    #[serde(default)]
    pub xdp: BTreeMap<InterfaceName, Xdp>,
    /// How many new flows those let pass.
    #[serde(default)]
    pub flood: FloodLimits,
    /// Of a router, its link to the outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<Router>,
}

/// A pair of interfaces of the host between which fragments wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The end that they are sent out of, slowly.
    pub entrance: InterfaceName,
    /// The end where they come out again.
    pub exit: InterfaceName,
}

impl Settings {
    /// An instance without uplinks, with everything else as documented.
    #[must_use]
    pub fn new(namespace: u64, created: u64) -> Self {
        let PortRange { first, last } = DatapathConfig::DEFAULT.nat_ports;
        Self {
            uplinks: Vec::new(),
            follows_default_route: false,
            nat_ports: Ports::reserved(first, last),
            namespace,
            created,
            timeouts: Timeouts::default(),
            tables: TableSizes::default(),
            quotas: Quotas::default(),
            firewall: Firewall::default(),
            hold: None,
            xdp: BTreeMap::new(),
            flood: FloodLimits::default(),
            router: None,
        }
    }

    /// The same instance with everything as documented that can be changed, but for its uplinks.
    #[must_use]
    pub fn as_documented(&self) -> Self {
        let Self { uplinks, follows_default_route, namespace, created, tables, hold, router, .. } =
            self.clone();
        Self { uplinks, follows_default_route, tables, hold, router, ..Self::new(namespace, created) }
    }

    /// How an uplink runs its XDP program.
    #[must_use]
    pub fn xdp_of(&self, uplink: &InterfaceName) -> Xdp {
        self.xdp.get(uplink).copied().unwrap_or_default()
    }

    /// Sets the mode of one uplink, or of all that it has now.
    ///
    /// # Errors
    /// The name of what is not one of its uplinks.
    pub fn set_xdp(&mut self, setting: &XdpSetting) -> Result<(), InterfaceName> {
        let named = setting.interface.clone().map(|name| vec![name]);
        for name in named.unwrap_or_else(|| self.uplinks.clone()) {
            if !self.uplinks.contains(&name) {
                return Err(name);
            }
            match setting.mode {
                Xdp::Off => self.xdp.remove(&name),
                mode => self.xdp.insert(name, mode),
            };
        }
        Ok(())
    }

    /// The data path's configuration; bit n of `port_blocks` says whether blocks of prefix length n exist.
    #[must_use]
    pub fn config(&self, port_blocks: u32) -> DatapathConfig {
        let nat_ports = PortRange { first: self.nat_ports.first(), last: self.nat_ports.last() };
        let flags = match self.firewall {
            Firewall::Bypass => 0,
            Firewall::Respect => DatapathConfig::FLAG_RESPECT_FIREWALL,
        };
        self.timeouts.onto(DatapathConfig {
            port_blocks,
            nat_ports,
            endpoint_flows: self.quotas.flows,
            unanswered: self.quotas.unanswered,
            flags,
            flood_rate: self.flood.rate,
            flood_total: self.flood.total,
            ..DatapathConfig::DEFAULT
        })
    }
}

/// How many flows there is room for. Fixed when the maps are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableSizes {
    /// Confirmed flows.
    pub flows: u32,
    /// Flows that wait for an answer, and endpoint-independent mappings.
    pub unanswered: u32,
}

impl TableSizes {
    /// The least and the most flows that a table may be made for.
    pub const BOUNDS: std::ops::RangeInclusive<i64> = 16..=1 << 24;

    /// How many entries each map has whose size is not fixed; a flow has two, one for each direction.
    #[must_use]
    pub fn entries(self) -> [(&'static str, u32); 4] {
        [
            (maps::CONNTRACK, 2 * self.flows),
            (maps::FLOW_SLOTS, self.flows),
            (maps::UNCONFIRMED, 2 * self.unanswered),
            (maps::MAPPINGS, 2 * self.unanswered),
        ]
    }
}

impl Default for TableSizes {
    fn default() -> Self {
        Self { flows: maps::FLOW_SLOTS_ENTRIES as u32, unanswered: maps::UNCONFIRMED_ENTRIES as u32 / 2 }
    }
}

/// How many flows an endpoint may have begun at once; 0 for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quotas {
    /// Confirmed flows.
    pub flows: u32,
    /// Flows without an answer.
    pub unanswered: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        let DatapathConfig { endpoint_flows, unanswered, .. } = DatapathConfig::DEFAULT;
        Self { flows: endpoint_flows, unanswered }
    }
}

choice! {
    /// What the host's firewall has to say about published ports.
    #[derive(Default)]
    Firewall ("way to treat the firewall") {
        /// Nothing: packets go past the host's stack.
        #[default]
        Bypass = "bypass",
        /// The first packets of a published flow go through the host's stack, whose rules for forwarded packets
        /// decide.
        Respect = "respect",
    }
}

/// What is to be other than it is; what is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsChange {
    /// Source ports for masquerade.
    pub nat_ports: Option<Ports>,
    /// Timeouts, the last of each.
    pub timeouts: Vec<TimeoutSetting>,
    /// [`TableSizes::flows`].
    pub max_flows: Option<u32>,
    /// [`TableSizes::unanswered`].
    pub max_unanswered: Option<u32>,
    /// [`Quotas::flows`].
    pub endpoint_flows: Option<u32>,
    /// [`Quotas::unanswered`].
    pub endpoint_unanswered: Option<u32>,
    /// What the host's firewall has to say.
    pub firewall: Option<Firewall>,
    /// XDP modes of uplinks, one after the other ([`Settings::set_xdp`]).
    pub xdp: Vec<XdpSetting>,
    /// [`FloodLimits::rate`].
    pub flood_rate: Option<u32>,
    /// [`FloodLimits::total`].
    pub flood_total: Option<u32>,
}

impl SettingsChange {
    /// The settings with what is named changed, but for what depends on the uplinks.
    #[must_use]
    pub fn onto(&self, settings: Settings) -> Settings {
        let Settings { mut timeouts, tables, quotas, nat_ports, firewall, flood, .. } = settings;
        self.timeouts.iter().for_each(|setting| timeouts.set(*setting));
        Settings {
            nat_ports: self.nat_ports.unwrap_or(nat_ports),
            timeouts,
            tables: TableSizes {
                flows: self.max_flows.unwrap_or(tables.flows),
                unanswered: self.max_unanswered.unwrap_or(tables.unanswered),
            },
            quotas: Quotas {
                flows: self.endpoint_flows.unwrap_or(quotas.flows),
                unanswered: self.endpoint_unanswered.unwrap_or(quotas.unanswered),
            },
            firewall: self.firewall.unwrap_or(firewall),
            flood: FloodLimits {
                rate: self.flood_rate.unwrap_or(flood.rate),
                total: self.flood_total.unwrap_or(flood.total),
            },
            ..settings
        }
    }
}

/// The fewest source ports that masquerade can do with.
const FEWEST_NAT_PORTS: u32 = 64;

/// Reads a range of source ports for masquerade.
///
/// # Errors
/// When it is not a range of ports, or too small a one.
pub fn parse_nat_ports(text: &str) -> Result<Ports, Error> {
    let ports: Ports = text.parse()?;
    if ports.count() < FEWEST_NAT_PORTS {
        return Err(Error::Ports { text: text.to_owned(), reason: "masquerade needs 64 ports at least" });
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_an_older_version_means_what_was_fixed_then() {
        let old = r#"{"uplinks":["eth0"],"nat_ports":[49152,65535],"namespace":7,"created":8}"#;
        let settings: Settings = serde_json::from_str(old).unwrap();
        let uplinks = vec!["eth0".parse().unwrap()];
        assert_eq!(settings, Settings { uplinks, ..Settings::new(7, 8) });
        assert_eq!(settings.config(0), DatapathConfig::DEFAULT);
        let again: Settings = serde_json::from_str(&serde_json::to_string(&settings).unwrap()).unwrap();
        assert_eq!(again, settings);
    }

    #[test]
    fn what_is_not_named_stays() {
        let first = SettingsChange {
            nat_ports: Some(parse_nat_ports("40000-40063").unwrap()),
            timeouts: vec!["udp-replied=60".parse().unwrap(), "udp-replied=90".parse().unwrap()],
            endpoint_flows: Some(0),
            firewall: Some(Firewall::Respect),
            ..SettingsChange::default()
        };
        let settings = first.onto(Settings::new(1, 2));
        let second = SettingsChange {
            timeouts: vec!["fragment=20".parse().unwrap()],
            endpoint_unanswered: Some(9),
            ..SettingsChange::default()
        };
        let config = second.onto(settings.clone()).config(0);
        let expected = DatapathConfig {
            nat_ports: PortRange { first: 40_000, last: 40_063 },
            udp_replied: 90,
            fragment: 20,
            endpoint_flows: 0,
            unanswered: 9,
            flags: DatapathConfig::FLAG_RESPECT_FIREWALL,
            ..DatapathConfig::DEFAULT
        };
        assert_eq!(config, expected);
        let again: Settings = serde_json::from_str(&serde_json::to_string(&settings).unwrap()).unwrap();
        assert_eq!(again, settings);
    }

    #[test]
    fn an_xdp_mode_is_for_an_uplink_or_all_of_them() {
        let name = |name: &str| name.parse::<InterfaceName>().unwrap();
        let mut settings = Settings { uplinks: vec![name("eth0"), name("eth1")], ..Settings::new(1, 2) };
        let mut set = |text: &str| {
            let result = settings.set_xdp(&text.parse().unwrap());
            (result, [settings.xdp_of(&name("eth0")), settings.xdp_of(&name("eth1"))])
        };
        assert_eq!(set("native"), (Ok(()), [Xdp::Native, Xdp::Native]));
        assert_eq!(set("eth1=generic"), (Ok(()), [Xdp::Native, Xdp::Generic]));
        assert_eq!(set("eth0=off"), (Ok(()), [Xdp::Off, Xdp::Generic]));
        assert_eq!(set("eth2=native"), (Err(name("eth2")), [Xdp::Off, Xdp::Generic]));
        let again: Settings = serde_json::from_str(&serde_json::to_string(&settings).unwrap()).unwrap();
        assert_eq!(again, settings);
    }

    #[test]
    fn the_default_sizes_are_those_of_the_object_file() {
        let sizes = TableSizes::default().entries();
        let expected = [
            (maps::CONNTRACK, maps::CONNTRACK_ENTRIES),
            (maps::FLOW_SLOTS, maps::FLOW_SLOTS_ENTRIES),
            (maps::UNCONFIRMED, maps::UNCONFIRMED_ENTRIES),
            (maps::MAPPINGS, maps::MAPPING_ENTRIES),
        ];
        assert_eq!(sizes, expected.map(|(name, size)| (name, size as u32)));
        let most = TableSizes { flows: *TableSizes::BOUNDS.end() as u32, unanswered: 16 };
        assert_eq!(most.entries()[0].1, 1 << 25, "no overflow");
    }

    #[test]
    fn masquerade_needs_some_ports() {
        for good in ["49152-65535", "1-65535", "1000-1063"] {
            assert_eq!(parse_nat_ports(good).unwrap().to_string(), good);
        }
        for bad in ["", "49152", "1000-1062", "2000-1000", "0-100", "1-65536"] {
            assert!(parse_nat_ports(bad).is_err(), "{bad:?}");
        }
    }
}
