//! Names of things and of interfaces.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Error;

/// The name of a network or an endpoint. Also a file name (`/run/netns/NAME`), so it can be no path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Most characters a name has.
    pub const MAX: usize = 64;
    /// What `vnet trace --from` calls the rest of the world.
    pub const OUTSIDE: &str = "outside";
    /// What it calls the host.
    pub const HOST: &str = "host";
    /// What no new endpoint is called, because it means something else.
    pub const RESERVED: [&str; 2] = [Self::HOST, Self::OUTSIDE];

    /// The name as that of a new endpoint.
    ///
    /// # Errors
    /// When it is reserved.
    pub fn of_new_endpoint(&self) -> Result<&Self, Error> {
        if Self::RESERVED.contains(&self.as_str()) {
            return Err(Error::ReservedName { name: self.clone() });
        }
        Ok(self)
    }

    /// The name of the network that `vnet up` makes.
    #[must_use]
    pub fn default_network() -> Self {
        Self("default".to_owned())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !begins_well || text.len() > Self::MAX || !text.chars().all(fits) {
            return Err(Error::Name { text: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

/// The name of an interface, as the kernel accepts it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Most bytes of a name: `IFNAMSIZ` without its final zero.
    pub const MAX: usize = 15;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%');
        let reserved = matches!(text, "" | "." | ".." | "all" | "default");
        if reserved || text.len() > Self::MAX || !text.chars().all(fits) {
            return Err(Error::InterfaceName { text: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

macro_rules! text {
    ($($name:ident)+) => {
        $(
            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.pad(&self.0)
                }
            }

            impl From<$name> for String {
                fn from(name: $name) -> Self {
                    name.0
                }
            }

            impl TryFrom<String> for $name {
                type Error = Error;

                fn try_from(text: String) -> Result<Self, Error> {
                    text.parse()
                }
            }
        )+
    };
}

text!(Name InterfaceName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_file_names_and_nothing_else() {
        for good in ["a", "net1", "web-1.example_x", "0", &"x".repeat(64)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "-a", "_a", "a/b", "a b", "ä", "a\0", "../x", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn words_of_traces_name_no_new_endpoint() {
        for name in ["host", "outside"] {
            let name: Name = name.parse().unwrap();
            let error = name.of_new_endpoint().unwrap_err().to_string();
            assert!(error.contains(name.as_str()) && error.contains("--from"), "{error}");
        }
        for name in ["hosts", "Host", "world"] {
            name.parse::<Name>().unwrap().of_new_endpoint().unwrap();
        }
    }

    #[test]
    fn interface_names_are_what_the_kernel_accepts() {
        for good in ["eth0", "vnet0", "enp0s31f6", "br-1.7", "a23456789012345"] {
            assert_eq!(good.parse::<InterfaceName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "a\t", "a234567890123456", "all", "default", "é"] {
            assert!(bad.parse::<InterfaceName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_was_stored_is_parsed_again() {
        assert!(serde_json::from_str::<Name>("\"../x\"").is_err());
        assert_eq!(serde_json::to_string(&"a".parse::<Name>().unwrap()).unwrap(), "\"a\"");
    }
}
