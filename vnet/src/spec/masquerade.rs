//! A masquerade rule.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Cidr, Name};

/// Sources that leave the host under another address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Masquerade {
    /// The sources.
    pub subnet: Cidr,
    /// The address to use; without one, the one that the host's routing would choose.
    pub to: Option<IpAddr>,
    /// The network that brought the rule and takes it away again.
    pub network: Option<Name>,
}
