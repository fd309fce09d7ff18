//! Published ports, and how they are written: `[HOST-IP:]PORT[-END]` and `TARGET:PORT[-END]`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vnet_common::{Proto, Zone};

use super::cidr::is_mapped;
use super::{Clients, Error, Name};

/// A published port or range of ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMap {
    /// Its number, from 1, never used twice.
    pub id: u32,
    /// What is published.
    pub published: Published,
    /// Its protocol.
    pub protocol: Protocol,
    /// The endpoint it leads to.
    pub endpoint: Name,
    /// The endpoint's addresses, one of each published family.
    pub targets: Vec<IpAddr>,
    /// The endpoint's ports, as many as are published.
    pub target_ports: Ports,
    /// Number of the endpoint's network.
    pub number: u16,
    /// Who may use it, none of them named twice; everybody if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_from: Vec<Clients>,
}

impl PortMap {
    /// The zone of the endpoint's flows.
    #[must_use]
    pub fn zone(&self) -> Zone {
        Zone { id: self.number }
    }

    /// Whether it is published on the endpoint's own address, as endpoints of routed networks can be.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.published.host.is_some_and(|host| self.targets.contains(&host))
    }
}

impl fmt::Display for PortMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, protocol, endpoint, target_ports, .. } = self;
        write!(f, "{published}/{protocol} to {endpoint}:{target_ports}")
    }
}

/// A transport protocol with published ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP. Its ports are not translated.
    Sctp,
}

impl Protocol {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Its number.
    #[must_use]
    pub fn number(self) -> Proto {
        match self {
            Self::Tcp => Proto::TCP,
            Self::Udp => Proto::UDP,
            Self::Sctp => Proto::SCTP,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// A port or a range of ports, from 1, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u16, u16)", into = "(u16, u16)")]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// Every port.
    pub const ALL: Self = Self { first: 1, last: u16::MAX };

    /// First port.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// Last port.
    #[must_use]
    pub fn last(self) -> u16 {
        self.last
    }

    /// How many ports.
    #[must_use]
    pub fn count(self) -> u32 {
        u32::from(self.last - self.first) + 1
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Whether both hold a port.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    pub(super) const fn reserved(first: u16, last: u16) -> Self {
        Self { first, last }
    }
}

impl TryFrom<(u16, u16)> for Ports {
    type Error = Error;

    fn try_from((first, last): (u16, u16)) -> Result<Self, Error> {
        let bad = |reason| Error::Ports { text: format!("{first}-{last}"), reason };
        match (first, last) {
            (0, _) => Err(bad("ports count from 1")),
            _ if last < first => Err(bad("it ends before it begins")),
            _ => Ok(Self { first, last }),
        }
    }
}

impl From<Ports> for (u16, u16) {
    fn from(ports: Ports) -> Self {
        (ports.first, ports.last)
    }
}

impl FromStr for Ports {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            let reason = if text.contains('/') {
                "name the protocol with --proto"
            } else {
                "a port is a number from 1 to 65535"
            };
            let port = part.parse::<u16>().ok().filter(|_| digits);
            port.ok_or_else(|| Error::Ports { text: text.to_owned(), reason })
        };
        match text.split_once('-') {
            None => number(text).and_then(|port| (port, port).try_into()),
            Some((first, last)) => (number(first)?, number(last)?).try_into(),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// What is published: ports, on one address of the host or on all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Published {
    /// The host's address; without one, every address of both families.
    pub host: Option<IpAddr>,
    /// The ports.
    pub ports: Ports,
}

impl FromStr for Published {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let Some((host, ports)) = text.rsplit_once(':') else {
            return Ok(Self { host: None, ports: text.parse()? });
        };
        let bad = |reason| Error::Address { text: host.to_owned(), reason };
        let Some(addr) = parse_addr(host) else {
            let written = "write [HOST-IP:]PORT[-END], an IPv6 address in brackets";
            return Err(two_ports(text).unwrap_or_else(|| bad(written)));
        };
        if addr.is_unspecified() {
            return Err(bad("leave the address out to publish on every address of the host"));
        }
        if addr.is_multicast() || is_mapped(addr) {
            return Err(bad("no interface can have it"));
        }
        Ok(Self { host: Some(addr), ports: ports.parse()? })
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            None => write!(f, "{}", self.ports),
            Some(IpAddr::V4(host)) => write!(f, "{host}:{}", self.ports),
            Some(IpAddr::V6(host)) => write!(f, "[{host}]:{}", self.ports),
        }
    }
}

/// What is wrong with `[HOST-IP:]PORT:PORT[/PROTO]`, which is how other programs have ports published.
fn two_ports(text: &str) -> Option<Error> {
    let (ports, protocol) = match text.rsplit_once('/') {
        Some((ports, protocol)) => (ports, format!(" --proto {protocol}")),
        None => (text, String::new()),
    };
    let (published, target) = ports.rsplit_once(':')?;
    Some(Error::TwoPorts {
        text: text.to_owned(),
        published: Box::new(published.parse().ok()?),
        target: target.parse().ok()?,
        protocol,
    })
}

/// Where published ports lead: an endpoint, by address or by name, and its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The endpoint.
    pub host: TargetHost,
    /// Its ports.
    pub ports: Ports,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            TargetHost::Addr(IpAddr::V6(addr)) => write!(f, "[{addr}]:{}", self.ports),
            host => write!(f, "{host}:{}", self.ports),
        }
    }
}

/// How a target names its endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetHost {
    /// By one of its addresses.
    Addr(IpAddr),
    /// By its name.
    Name(Name),
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let incomplete = |missing| Error::Incomplete {
            text: text.to_owned(),
            missing,
            example: "web:80, 192.168.0.2:80 or [fd00::2]:80",
        };
        let (host, ports) = text.rsplit_once(':').ok_or(incomplete("port"))?;
        if host.is_empty() {
            return Err(incomplete("endpoint"));
        }
        let host = match parse_addr(host) {
            Some(addr) => TargetHost::Addr(addr),
            None => TargetHost::Name(host.parse()?),
        };
        Ok(Self { host, ports: ports.parse()? })
    }
}

impl FromStr for TargetHost {
    type Err = Error;

    /// Alone, without a port, an IPv6 address has no brackets.
    fn from_str(text: &str) -> Result<Self, Error> {
        text.parse().map(Self::Addr).or_else(|_| text.parse().map(Self::Name))
    }
}

impl fmt::Display for TargetHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// An IPv4 address, or an IPv6 address in brackets as in a URL.
fn parse_addr(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => text.parse().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_or_a_range() {
        for (text, first, last) in [("80", 80, 80), ("1-65535", 1, 65535), ("8000-8010", 8000, 8010)] {
            let ports: Ports = text.parse().unwrap();
            assert_eq!((ports.first(), ports.last()), (first, last));
            assert_eq!(ports.to_string(), text);
        }
        for bad in ["", "0", "65536", "80-", "-80", "90-80", "http", "8 0", "+80", "80-90-95"] {
            assert!(bad.parse::<Ports>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn published_ports_may_name_an_address() {
        for text in ["8088", "203.0.113.1:8088", "[2001:db8::1]:8000-8010", "127.0.0.1:80"] {
            assert_eq!(text.parse::<Published>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            ":80",
            "0.0.0.0:80",
            "[::]:80",
            "fd00::1:80",
            "host:80",
            "[::ffff:1.2.3.4]:80",
            "224.0.0.1:80",
            "1.2.3.4:",
        ] {
            assert!(bad.parse::<Published>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn two_ports_in_one_word_are_told_apart() {
        for (text, expected) in [
            ("8080:80", "vnet portmap add 8080 TARGET:80,"),
            ("127.0.0.1:8080:80", "vnet portmap add 127.0.0.1:8080 TARGET:80,"),
            ("[::1]:8080:80", "vnet portmap add [::1]:8080 TARGET:80,"),
            ("8000-8010:80-90", "vnet portmap add 8000-8010 TARGET:80-90,"),
            ("53:53/udp", "vnet portmap add 53 TARGET:53 --proto udp,"),
        ] {
            let error = text.parse::<Published>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        for (text, expected) in [("net1:80", "HOST-IP"), ("fd00::1:80", "brackets"), ("53/udp", "--proto")] {
            let error = text.parse::<Published>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_mapping_that_was_recorded_before_there_were_restrictions_is_open_to_all() {
        let recorded = r#"{"id":7,"published":{"host":null,"ports":[8000,8010]},"protocol":"udp","endpoint":"net1",
            "targets":["192.168.0.2"],"target_ports":[80,90],"number":1}"#;
        let mapping: PortMap = serde_json::from_str(recorded).unwrap();
        assert_eq!((mapping.id, mapping.allow_from), (7, Vec::new()));
    }

    #[test]
    fn a_target_is_an_address_or_a_name() {
        assert_eq!(
            "192.168.0.2:80".parse::<Target>().unwrap().host,
            TargetHost::Addr("192.168.0.2".parse().unwrap())
        );
        assert_eq!(
            "[fd00::2]:80".parse::<Target>().unwrap().host,
            TargetHost::Addr("fd00::2".parse().unwrap())
        );
        assert_eq!("web:80-81".parse::<Target>().unwrap().host, TargetHost::Name("web".parse().unwrap()));
        for bad in ["", "web", ":80", "web:", "fd00::2:80", "a/b:80", "[web]:80"] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
    }
}
