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
//! `abi.txt` beside this crate changes. `vnet up` of another version carries the entries of pinned maps over by the names
//! of their fields, so a field keeps its name and its meaning as long as there is one, a new one means with zero what held
//! before, and numbers and bits are never given to something else.
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
mod limit;
mod local;
mod log;
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
pub use limit::{LimitClock, LimitKey, LimitValue};
pub use local::{LocalFlowKey, LocalFlowValue};
pub use log::{LogKind, LogLevel, LogVerdict};
pub use mapping_entry::MappingEntry;
pub use network::{
    FloatingValue, HostAddressValue, MasqueradeValue, NetworkValue, PrefixKey, UplinkValue, filtering,
    mapping,
};
pub use port::{Port, Proto};
pub use portmap::{AllowFrom, AllowFromKey, PortMapKey, PortMapValue};
pub use tuple::{Tuple, Zone};

/// Version of every type in this crate, taken together.
#[cfg(not(feature = "other-abi"))]
pub const ABI_VERSION: u32 = 2;
/// Not a version that ever comes: that of a build for tests.
#[cfg(feature = "other-abi")]
pub const ABI_VERSION: u32 = 0xffff;
