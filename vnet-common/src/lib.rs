//! What crosses the boundary between the control plane and the eBPF programs.
//!
//! Plain old data, map names, drop reasons: no logic beyond constructors and accessors.
//!
//! **Byte order.** Whatever a packet carries ([`Addr`], [`Port`], [`Mac`]) is a byte array in network
//! order, so it can neither be added to by mistake nor printed the wrong way round. Everything else
//! (interface indexes, seconds, counters) is a native integer.
//!
//! **No padding, no `bool`, no enum inside a POD.** bytemuck's derive refuses the first at compile time;
//! a byte that means an enum is a `u8` with an accessor for which an unknown value means "none of these".
//!
//! **Version.** [`ABI_VERSION`] is the first word of [`DatapathConfig`]. Bump it whenever the listing
//! `abi.txt` beside this crate changes; the control plane refuses to work with pinned maps of another one.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod addr;
mod capture;
mod config;
mod conntrack;
mod drop;
mod endpoint;
mod event;
mod fragment;
mod local;
mod mapping_entry;
pub mod maps;
mod network;
mod port;
mod portmap;
mod tuple;

pub use addr::{Addr, Mac};
pub use capture::{CaptureFilter, CaptureHeader, MAX_SNAPLEN};
pub use config::{DatapathConfig, PortRange, features};
pub use conntrack::{CtEntry, CtState, EndpointUse, FlowHand, Origin, bpf_spin_lock};
pub use drop::{DropKey, DropReason};
pub use endpoint::EndpointValue;
pub use event::{Event, Hook};
pub use fragment::{FragmentKey, FragmentValue};
pub use local::{LocalFlowKey, LocalFlowValue};
pub use mapping_entry::MappingEntry;
pub use network::{
    FloatingValue, HostAddressValue, MasqueradeValue, NetworkValue, PrefixKey, UplinkValue, filtering,
    mapping,
};
pub use port::{Port, Proto};
pub use portmap::{AllowFrom, AllowFromKey, PortMapKey, PortMapValue};
pub use tuple::{Tuple, Zone};

/// Version of every type in this crate, taken together.
pub const ABI_VERSION: u32 = 2;
