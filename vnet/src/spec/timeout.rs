//! How long flows are kept.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vnet_common::DatapathConfig;

use super::Error;
use super::choice::choice;

choice! {
    /// A timeout of the data path.
    Timeout ("timeout") {
        /// An idle, established TCP flow.
        TcpEstablished = "tcp-established",
        /// An idle TCP flow that opens.
        TcpOpening = "tcp-opening",
        /// An idle TCP flow after both FINs or a RST.
        TcpClosing = "tcp-closing",
        /// An idle UDP flow without an answer.
        UdpUnreplied = "udp-unreplied",
        /// An idle UDP flow with one.
        UdpReplied = "udp-replied",
        /// An idle UDP flow of an endpoint to port 53, answered or not.
        Dns = "dns",
        /// An idle ICMP query.
        IcmpQuery = "icmp-query",
        /// A datagram in fragments.
        Fragment = "fragment",
    }
}

impl Timeout {
    /// Its field of the configuration.
    pub(super) fn field(self, config: &mut DatapathConfig) -> &mut u32 {
        match self {
            Self::TcpEstablished => &mut config.tcp_established,
            Self::TcpOpening => &mut config.tcp_opening,
            Self::TcpClosing => &mut config.tcp_closing,
            Self::UdpUnreplied => &mut config.udp_unreplied,
            Self::UdpReplied => &mut config.udp_replied,
            Self::Dns => &mut config.dns,
            Self::IcmpQuery => &mut config.icmp_query,
            Self::Fragment => &mut config.fragment,
        }
    }

    /// What it is in a configuration.
    #[must_use]
    pub fn of(self, config: &DatapathConfig) -> Seconds {
        Seconds(*self.field(&mut { *config }))
    }

    /// The least that an RFC allows or suggests, and where it does.
    #[must_use]
    pub fn minimum(self) -> (Seconds, &'static str) {
        let (seconds, rfc) = match self {
            Self::TcpEstablished => (7440, "RFC 5382 REQ-5"),
            Self::TcpOpening => (240, "RFC 5382 REQ-5; RFC 7857 section 2.1 allows less"),
            Self::TcpClosing => (240, "RFC 5382 REQ-5; RFC 7857 section 2.2 allows less"),
            Self::UdpUnreplied | Self::UdpReplied => (120, "RFC 4787 REQ-5"),
            // What a resolver waits before it asks again: RFC 4787 REQ-5a leaves it to the application's RFC.
            Self::Dns => (5, "RFC 1035 section 4.2.1"),
            Self::IcmpQuery => (60, "RFC 5508 REQ-2"),
            Self::Fragment => (15, "RFC 791 section 3.2"),
        };
        (Seconds(seconds), rfc)
    }
}

/// A time span of at least a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Seconds(u32);

/// The units of a time span in seconds, largest first.
const UNITS: [(char, u32); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl TryFrom<u32> for Seconds {
    type Error = Error;

    fn try_from(seconds: u32) -> Result<Self, Error> {
        let bad = || Error::Duration { text: seconds.to_string(), reason: "it is a second at least" };
        if seconds == 0 { Err(bad()) } else { Ok(Self(seconds)) }
    }
}

impl From<Seconds> for u32 {
    fn from(seconds: Seconds) -> Self {
        seconds.0
    }
}

impl FromStr for Seconds {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |reason| Error::Duration { text: text.to_owned(), reason };
        let number = |digits: &str| {
            let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<u32>().ok().filter(|_| all_digits).ok_or(bad("write it like 90s, 5m, 2h4m or 300"))
        };
        if text.ends_with(|last: char| last.is_ascii_digit()) {
            return number(text)?.try_into();
        }
        let mut seconds = 0_u32;
        let mut rest = text;
        for (unit, size) in UNITS {
            if let Some((count, after)) = rest.split_once(unit) {
                let more = number(count)?.checked_mul(size).and_then(|more| seconds.checked_add(more));
                seconds = more.ok_or(bad("it is too long"))?;
                rest = after;
            }
        }
        if !rest.is_empty() || text.is_empty() {
            return Err(bad("write it like 90s, 5m, 2h4m or 300"));
        }
        seconds.try_into().map_err(|_| bad("it is a second at least"))
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        for (unit, size) in UNITS {
            if rest >= size {
                write!(f, "{}{unit}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

/// One timeout and its value, written `NAME=DURATION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutSetting {
    /// Which.
    pub timeout: Timeout,
    /// How long.
    pub value: Seconds,
}

impl TimeoutSetting {
    /// What is worth knowing of a value below what an RFC asks for.
    #[must_use]
    pub fn note(self) -> Option<String> {
        let Self { timeout, value } = self;
        let (least, rfc) = timeout.minimum();
        (value < least).then(|| format!("timeout {timeout} of {value} is less than {least} ({rfc})"))
    }
}

impl FromStr for TimeoutSetting {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (timeout, value) = text.split_once('=').ok_or_else(|| Error::Incomplete {
            text: text.to_owned(),
            missing: "value",
            example: "udp-replied=5m",
        })?;
        Ok(Self { timeout: timeout.parse()?, value: value.parse()? })
    }
}

/// The timeouts that are not as documented.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeouts(BTreeMap<Timeout, Seconds>);

impl Timeouts {
    /// Sets one.
    pub fn set(&mut self, TimeoutSetting { timeout, value }: TimeoutSetting) {
        self.0.insert(timeout, value);
    }

    /// Each that is not as documented.
    pub fn iter(&self) -> impl Iterator<Item = TimeoutSetting> {
        let settings = self.0.iter().map(|(&timeout, &value)| TimeoutSetting { timeout, value });
        settings.filter(|setting| setting.value != setting.timeout.of(&DatapathConfig::DEFAULT))
    }

    /// A configuration with these timeouts.
    pub(super) fn onto(&self, mut config: DatapathConfig) -> DatapathConfig {
        for (timeout, value) in &self.0 {
            *timeout.field(&mut config) = value.0;
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds_or_have_units() {
        for (text, seconds, shown) in [
            ("90", 90, "1m30s"),
            ("90s", 90, "1m30s"),
            ("5m", 300, "5m"),
            ("2h4m", 7440, "2h4m"),
            ("1d1s", 86_401, "1d1s"),
            ("60m", 3600, "1h"),
            ("4294967295", u32::MAX, "49710d6h28m15s"),
        ] {
            let parsed: Seconds = text.parse().unwrap();
            assert_eq!((u32::from(parsed), parsed.to_string().as_str()), (seconds, shown), "{text}");
            assert_eq!(shown.parse::<Seconds>().unwrap(), parsed);
        }
        for bad in [
            "",
            "0",
            "0s",
            "s",
            "m5",
            "5x",
            "4m2h",
            "5m5m",
            "5 m",
            "-5s",
            "+5",
            "1.5h",
            "49711d",
            "2h4",
            "4294967296",
        ] {
            assert!(bad.parse::<Seconds>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_timeout_has_a_name_and_a_value() {
        let setting: TimeoutSetting = "udp-replied=5m".parse().unwrap();
        assert_eq!((setting.timeout, u32::from(setting.value)), (Timeout::UdpReplied, 300));
        for bad in ["", "udp-replied", "udp=5m", "udp-replied=", "=5m", "udp-replied=never"] {
            assert!(bad.parse::<TimeoutSetting>().is_err(), "{bad:?}");
        }
        let message = "udp=5m".parse::<TimeoutSetting>().unwrap_err().to_string();
        assert!(message.contains("tcp-established") && message.contains("fragment"), "{message}");
    }

    #[test]
    fn every_timeout_has_a_field_of_its_own_and_a_default_that_keeps_to_the_rfc() {
        let mut config = DatapathConfig::DEFAULT;
        for (n, timeout) in (1..).zip(Timeout::ALL) {
            let (least, rfc) = timeout.minimum();
            assert!(timeout.of(&DatapathConfig::DEFAULT) >= least, "{timeout}: {rfc}");
            *timeout.field(&mut config) = n;
        }
        let values: Vec<u32> = Timeout::ALL.iter().map(|timeout| timeout.of(&config).into()).collect();
        assert_eq!(values, [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn less_than_an_rfc_asks_for_is_noted() {
        let note = |text: &str| text.parse::<TimeoutSetting>().unwrap().note();
        assert_eq!(note("tcp-established=2h4m"), None);
        assert_eq!(
            note("tcp-established=1h").unwrap(),
            "timeout tcp-established of 1h is less than 2h4m (RFC 5382 REQ-5)"
        );
        assert_eq!(note("dns=5s"), None);
        assert_eq!(note("dns=4s").unwrap(), "timeout dns of 4s is less than 5s (RFC 1035 section 4.2.1)");
    }
}
