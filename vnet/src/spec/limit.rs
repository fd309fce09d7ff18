//! How much an endpoint may send and receive.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Error;

/// What of an endpoint is limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// What it sends.
    pub egress: Option<Limit>,
    /// What it receives.
    pub ingress: Option<Limit>,
}

impl Limits {
    /// Whether nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let both = [("egress", self.egress), ("ingress", self.ingress)];
        let parts =
            both.iter().filter_map(|(direction, limit)| Some(format!("{direction} {}", (*limit)?.rate)));
        let parts: Vec<String> = parts.collect();
        if parts.is_empty() { f.write_str("no limit") } else { f.write_str(&parts.join(", ")) }
    }
}

/// A limit in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The rate, in the long run.
    pub rate: Rate,
    /// Bytes that may pass at once after a pause; chosen by the rate without.
    pub burst: Option<Bytes>,
}

impl Limit {
    /// The same, with the burst of another if it has none of its own.
    #[must_use]
    pub fn with_burst_of(self, other: Option<Self>) -> Self {
        Self { burst: self.burst.or(other.and_then(|other| other.burst)), ..self }
    }

    /// Bytes that pass at once, of packets that have up to `mtu` bytes: those of 5 ms, one large packet at least. More
    /// would be noticed by others, less would cut the large packets of offloading senders up, which costs the host time.
    #[must_use]
    pub fn burst(&self, mtu: u32) -> u32 {
        const PER_SECOND: u64 = 200;
        let default = || (u64::from(self.rate.bytes()) / PER_SECOND).max(8192) as u32;
        self.burst.map_or_else(default, u32::from).max(Self::least_burst(mtu))
    }

    /// Bytes of a packet and its link-layer header.
    #[must_use]
    pub fn least_burst(mtu: u32) -> u32 {
        /// An Ethernet header with a tag of IEEE 802.1Q and one of 802.1ad.
        const LINK_LAYER: u32 = 14 + 4 + 4;
        mtu + LINK_LAYER
    }

    /// Bytes of packets that may wait: those of 50 ms, eight packets at least. What comes on top is dropped.
    #[must_use]
    pub fn queue(&self, mtu: u32) -> u32 {
        const PER_SECOND: u64 = 20;
        let waiting = (u64::from(self.rate.bytes()) / PER_SECOND).max(8 * u64::from(Self::least_burst(mtu)));
        u32::try_from(waiting).unwrap_or(u32::MAX).saturating_add(self.burst(mtu))
    }
}

/// Bits in a second, counted as frames of Ethernet without preamble and checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Rate(u64);

/// Units of a rate, largest first.
const RATE_UNITS: [(&str, u64); 4] =
    [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];

impl Rate {
    /// Below this a single packet waits for seconds.
    pub const LEAST: Self = Self(8_000);
    /// More the kernel cannot count in 32 bits of bytes.
    pub const MOST: Self = Self(32_000_000_000);

    /// Bits in a second.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Bytes in a second.
    #[must_use]
    pub fn bytes(self) -> u32 {
        u32::try_from(self.0 / 8).unwrap_or(u32::MAX)
    }
}

impl TryFrom<u64> for Rate {
    type Error = Error;

    fn try_from(bits: u64) -> Result<Self, Error> {
        if (Self::LEAST..=Self::MOST).contains(&Self(bits)) {
            return Ok(Self(bits));
        }
        Err(Error::Rate { text: bits.to_string(), reason: "it is 8kbit at least and 32gbit at most" })
    }
}

impl From<Rate> for u64 {
    fn from(rate: Rate) -> Self {
        rate.0
    }
}

impl FromStr for Rate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |reason| Error::Rate { text: text.to_owned(), reason };
        let lower = text.to_ascii_lowercase();
        let (digits, unit) = RATE_UNITS
            .iter()
            .find_map(|(name, unit)| lower.strip_suffix(name).map(|digits| (digits, *unit)))
            .ok_or_else(|| bad("write it like 500kbit, 50mbit or 1.5gbit"))?;
        let bits = scaled(digits, unit).ok_or_else(|| bad("write it like 500kbit, 50mbit or 1.5gbit"))?;
        Self::try_from(bits).map_err(|_| bad("it is 8kbit at least and 32gbit at most"))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = RATE_UNITS.iter().find(|(_, unit)| self.0.is_multiple_of(*unit));
        let (name, unit) = unit.copied().unwrap_or(("bit", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

/// A rate, or that there is to be none: `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateSetting(pub Option<Rate>);

impl FromStr for RateSetting {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(|rate| Self(Some(rate))) }
    }
}

impl RateSetting {
    /// The limit with this burst, or that there is to be none.
    #[must_use]
    pub fn with(self, burst: Option<Bytes>) -> Option<Limit> {
        self.0.map(|rate| Limit { rate, burst })
    }
}

/// A burst, or that it is to follow from the rate: `default`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BurstSetting(pub Option<Bytes>);

impl FromStr for BurstSetting {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "default" { Ok(Self(None)) } else { text.parse().map(|bytes| Self(Some(bytes))) }
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(u32);

impl From<Bytes> for u32 {
    fn from(bytes: Bytes) -> Self {
        bytes.0
    }
}

impl FromStr for Bytes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::Bytes { text: text.to_owned() };
        let lower = text.to_ascii_lowercase();
        let (digits, unit) = match lower.strip_suffix(['k', 'm']) {
            Some(digits) if lower.ends_with('k') => (digits, 1 << 10),
            Some(digits) => (digits, 1 << 20),
            None => (lower.as_str(), 1),
        };
        let bytes = scaled(digits, unit).and_then(|bytes| u32::try_from(bytes).ok());
        // More than that, and the kernel could not wait for it to be saved up.
        bytes.filter(|bytes| (1..=1 << 30).contains(bytes)).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A decimal number of units; `None` unless it is one, and a whole number of the smallest.
fn scaled(text: &str, unit: u64) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let number = |digits: &str| {
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten()
    };
    let whole = number(whole)?.checked_mul(unit)?;
    if part.is_empty() {
        return (!text.ends_with('.')).then_some(whole);
    }
    let scale = 10_u64.checked_pow(u32::try_from(part.len()).ok()?)?;
    let part = number(part)?.checked_mul(unit)?;
    part.is_multiple_of(scale).then(|| whole.checked_add(part / scale)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_written() {
        for (text, bits, shown) in [
            ("50mbit", 50_000_000, "50mbit"),
            ("1gbit", 1_000_000_000, "1gbit"),
            ("1.5Gbit", 1_500_000_000, "1500mbit"),
            ("0.25mbit", 250_000, "250kbit"),
            ("8kbit", 8_000, "8kbit"),
            ("8001bit", 8_001, "8001bit"),
            ("32gbit", 32_000_000_000, "32gbit"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.bits(), rate.to_string()), (bits, shown.to_owned()), "{text}");
            assert_eq!(shown.parse::<Rate>().unwrap(), rate);
        }
        for bad in [
            "",
            "50",
            "mbit",
            "-1mbit",
            "1,5gbit",
            "1.mbit",
            ".5mbit",
            "50 mbit",
            "50mbps",
            "7kbit",
            "33gbit",
            "0mbit",
            "1.0005kbit",
            "99999999999999999999gbit",
        ] {
            let error = bad.parse::<Rate>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{bad:?} is not a rate: ")), "{error}");
        }
    }

    #[test]
    fn bursts_are_bytes() {
        for (text, bytes) in [("1514", 1514), ("64k", 65_536), ("1M", 1 << 20), ("1.5k", 1536)] {
            assert_eq!(text.parse::<Bytes>().map(u32::from), Ok(bytes), "{text}");
        }
        for bad in ["", "0", "k", "1.5", "2g", "-1", "2000m", "64kb"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_burst_is_five_milliseconds_and_a_packet_at_least() {
        let limit = |rate: &str, burst: Option<&str>| Limit {
            rate: rate.parse().unwrap(),
            burst: burst.map(|text| text.parse().unwrap()),
        };
        assert_eq!(limit("1gbit", None).burst(1500), 625_000);
        assert_eq!(limit("1mbit", None).burst(1500), 8192);
        assert_eq!(limit("1mbit", None).burst(65_535), 65_557);
        assert_eq!(limit("1mbit", Some("100k")).burst(1500), 102_400);
        assert_eq!(limit("1gbit", None).queue(1500), 625_000 + 6_250_000);
        assert_eq!(limit("8kbit", None).queue(1500), 8192 + 8 * 1522);
    }
}
