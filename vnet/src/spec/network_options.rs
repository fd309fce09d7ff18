//! What may be changed of a network while it is in use.

use serde::{Deserialize, Serialize};
use vnet_common::{NetworkValue, filtering, mapping};

use super::choice::choice;

choice! {
    /// How a network and the world reach each other.
    #[derive(Default)]
    GatewayMode ("gateway mode") {
        /// Endpoints go out under the host's address; the world reaches published ports only.
        #[default]
        Nat = "nat",
        /// As much, but anybody outside may address the endpoints directly.
        NatUnprotected = "nat-unprotected",
        /// Endpoints keep their own addresses, to which the world has routes; published ports answer there.
        Routed = "routed",
    }
}

choice! {
    /// Which external port a port of an endpoint becomes (RFC 4787 section 4.1).
    Mapping ("mapping behaviour") {
        /// One for all destinations, shared with nobody.
        EndpointIndependent = "endpoint-independent",
        /// One for each destination; those of several flows may be the same.
        AddressAndPort = "address-and-port",
    }
}

choice! {
    /// Who may send to an external port that is endpoint-independent (RFC 4787 section 5).
    #[derive(Default)]
    Filtering ("filtering behaviour") {
        /// Anybody.
        EndpointIndependent = "endpoint-independent",
        /// The addresses that were sent to.
        #[default]
        Address = "address",
        /// The addresses and ports that were sent to.
        AddressAndPort = "address-and-port",
    }
}

/// The choices of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkOptions {
    /// How it and the world reach each other.
    pub gateway_mode: GatewayMode,
    /// External ports of UDP.
    pub udp_mapping: Mapping,
    /// External ports of TCP.
    pub tcp_mapping: Mapping,
    /// Who may send to them.
    pub filtering: Filtering,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            gateway_mode: GatewayMode::default(),
            udp_mapping: Mapping::EndpointIndependent,
            tcp_mapping: Mapping::AddressAndPort,
            filtering: Filtering::default(),
        }
    }
}

impl NetworkOptions {
    /// Flags of [`NetworkValue`].
    pub(super) fn flags(self) -> u8 {
        match self.gateway_mode {
            GatewayMode::Nat => 0,
            GatewayMode::NatUnprotected => NetworkValue::FLAG_UNPROTECTED,
            GatewayMode::Routed => NetworkValue::FLAG_ROUTED,
        }
    }

    /// Bits of [`vnet_common::mapping`].
    pub(super) fn mapping(self) -> u8 {
        let bit = |mapping, bit| if mapping == Mapping::EndpointIndependent { bit } else { 0 };
        bit(self.udp_mapping, mapping::ENDPOINT_INDEPENDENT_UDP)
            | bit(self.tcp_mapping, mapping::ENDPOINT_INDEPENDENT_TCP)
    }

    /// One of [`vnet_common::filtering`].
    pub(super) fn filtering(self) -> u8 {
        match self.filtering {
            Filtering::EndpointIndependent => filtering::ENDPOINT_INDEPENDENT,
            Filtering::Address => filtering::ADDRESS,
            Filtering::AddressAndPort => filtering::ADDRESS_AND_PORT,
        }
    }
}

/// The choices that are to be other than they are; what is not named stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkChange {
    /// How it and the world reach each other.
    pub gateway_mode: Option<GatewayMode>,
    /// External ports of UDP.
    pub udp_mapping: Option<Mapping>,
    /// External ports of TCP.
    pub tcp_mapping: Option<Mapping>,
    /// Who may send to them.
    pub filtering: Option<Filtering>,
}

impl NetworkChange {
    /// The choices with what is named changed.
    #[must_use]
    pub fn onto(self, options: NetworkOptions) -> NetworkOptions {
        NetworkOptions {
            gateway_mode: self.gateway_mode.unwrap_or(options.gateway_mode),
            udp_mapping: self.udp_mapping.unwrap_or(options.udp_mapping),
            tcp_mapping: self.tcp_mapping.unwrap_or(options.tcp_mapping),
            filtering: self.filtering.unwrap_or(options.filtering),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_written_as_they_are_read() {
        for mode in GatewayMode::ALL {
            assert_eq!(mode.to_string().parse::<GatewayMode>().unwrap(), *mode);
            assert_eq!(serde_json::to_string(mode).unwrap(), format!("\"{mode}\""));
        }
        let error = "bridge".parse::<GatewayMode>().unwrap_err().to_string();
        assert_eq!(error, "\"bridge\" is not a gateway mode: choose nat, nat-unprotected or routed");
        assert!("Nat".parse::<GatewayMode>().is_err() && "".parse::<Filtering>().is_err());
    }

    #[test]
    fn each_choice_has_bits_of_its_own() {
        let options = |change: NetworkChange| change.onto(NetworkOptions::default());
        let default = options(NetworkChange::default());
        assert_eq!(
            (default.flags(), default.mapping(), default.filtering()),
            (0, mapping::ENDPOINT_INDEPENDENT_UDP, filtering::ADDRESS)
        );
        let (independent, dependent) = (Some(Mapping::EndpointIndependent), Some(Mapping::AddressAndPort));
        let other = options(NetworkChange {
            gateway_mode: Some(GatewayMode::Routed),
            udp_mapping: dependent,
            tcp_mapping: independent,
            filtering: Some(Filtering::AddressAndPort),
        });
        assert_eq!(
            (other.flags(), other.mapping(), other.filtering()),
            (NetworkValue::FLAG_ROUTED, mapping::ENDPOINT_INDEPENDENT_TCP, filtering::ADDRESS_AND_PORT)
        );
        let open = NetworkChange {
            gateway_mode: Some(GatewayMode::NatUnprotected),
            tcp_mapping: independent,
            filtering: Some(Filtering::EndpointIndependent),
            ..NetworkChange::default()
        };
        let open = options(open);
        let both = mapping::ENDPOINT_INDEPENDENT_UDP | mapping::ENDPOINT_INDEPENDENT_TCP;
        assert_eq!(
            (open.flags(), open.mapping(), open.filtering()),
            (NetworkValue::FLAG_UNPROTECTED, both, filtering::ENDPOINT_INDEPENDENT)
        );
    }
}
