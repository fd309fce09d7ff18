//! What uplinks do to frames before the host's stack has them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vnet_common::DatapathConfig;

use super::choice::choice;
use super::{Error, InterfaceName};

choice! {
    /// How an uplink runs its XDP program.
    #[derive(Default)]
    Xdp ("XDP mode") {
        /// It has none.
        #[default]
        Off = "off",
        /// In its driver.
        Native = "native",
        /// In the host's stack, which has made a packet of the frame by then.
        Generic = "generic",
    }
}

/// An uplink's XDP mode, or that of all uplinks: `[IF=]MODE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpSetting {
    /// The uplink; all of the instance's without.
    pub interface: Option<InterfaceName>,
    /// How it is to run the program.
    pub mode: Xdp,
}

impl FromStr for XdpSetting {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (interface, mode) = match text.rsplit_once('=') {
            Some((interface, mode)) => (Some(interface.parse()?), mode),
            None => (None, text),
        };
        Ok(Self { interface, mode: mode.parse()? })
    }
}

/// How many new flows to published ports uplinks with XDP let pass in a second; 0 for any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FloodLimits {
    /// Of each source: an IPv4 /24, an IPv6 /64.
    pub rate: u32,
    /// Of all sources together.
    pub total: u32,
}

impl Default for FloodLimits {
    fn default() -> Self {
        let DatapathConfig { flood_rate, flood_total, .. } = DatapathConfig::DEFAULT;
        Self { rate: flood_rate, total: flood_total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_for_one_uplink_or_for_all() {
        let setting = |interface: Option<&str>, mode| XdpSetting {
            interface: interface.map(|name| name.parse().unwrap()),
            mode,
        };
        for (text, expected) in [
            ("native", setting(None, Xdp::Native)),
            ("eth0=generic", setting(Some("eth0"), Xdp::Generic)),
            ("a=b=off", setting(Some("a=b"), Xdp::Off)),
        ] {
            assert_eq!(text.parse::<XdpSetting>().unwrap(), expected);
        }
        for bad in ["", "eth0", "eth0=", "=native", "eth0=driver", "a/b=native"] {
            assert!(bad.parse::<XdpSetting>().is_err(), "{bad:?}");
        }
    }
}
