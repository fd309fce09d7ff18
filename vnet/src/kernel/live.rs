//! [`trace::Live`] over the pinned maps and the kernel's routing: everything is read, nothing written.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io;

use aya::maps::{Array, Map, MapData, MapInfo};
use aya::programs::ProgramInfo;
use nix::net::if_::{if_indextoname, if_nameindex};
use nix::time::{ClockId, clock_gettime};
use vnet_common::{
    Addr, AllowFrom, AllowFromKey, CtEntry, DatapathConfig, EndpointUse, EndpointValue, FloatingValue,
    FlowHand, FragmentKey, FragmentValue, Hook, HostAddressValue, MappingEntry, MasqueradeValue,
    NetworkValue, PortMapKey, PortMapValue, PrefixKey, Tuple, UplinkValue, maps as names,
};
use vnet_datapath::probe::Question;
use vnet_datapath::{Route, RouteQuery};

use super::Kernel;
use super::error::Error;
use super::maps::{Maps, room};
use super::netlink::Netlink;
use super::probe::Probe;
use super::sysctl;
use crate::instance::Instance;
use crate::trace::{self, Forwarding};

/// Parameters of IPv6 by which an interface forwards: as a router's, which has it ignore router advertisements, and all the
/// same (Linux 6.17).
const FORWARDING: &str = "forwarding";
const FORCED: &str = "force_forwarding";

/// The one map of those asked that nobody has pinned.
const FLOOD_TOTAL: &str = "flood_total";

/// The tables and the kernel's routing as an instance's programs see them.
#[derive(Debug)]
pub struct Live<'k> {
    instance: &'k Instance,
    maps: &'k Maps,
    probe: Probe,
    slots: OnceCell<u32>,
    /// Addresses of the host's interfaces, and their broadcasts.
    local: HashSet<Addr>,
}

impl<'k> Live<'k> {
    pub(super) async fn open(
        instance: &'k Instance,
        maps: &'k Maps,
        netlink: &Netlink,
    ) -> Result<Self, Error> {
        // Another process may have replaced the maps since they were opened.
        maps.close();
        if maps.config.get(&0)?.is_none() {
            return Err(Error::NoMap { map: names::CONFIG, pin: instance.map_pin(names::CONFIG) });
        }
        let addresses = netlink.addresses(None).map_err(|source| Error::ReadInterfaces { source })?;
        let local = addresses.iter().flat_map(|address| [address.net.addr(), address.net.broadcast()]);
        let local = local.map(Addr::from).collect();
        Ok(Self { instance, maps, probe: Probe::load(instance)?, slots: OnceCell::new(), local })
    }

    fn ask(&self, kind: u8, tuple: &Tuple, (arrived, hooked): (u32, u32)) -> Result<bool, Error> {
        let question = Question { tuple: *tuple, arrived, length: 0, kind, reserved: 0 };
        Ok(self.probe.ask(question, hooked)?.yes != 0)
    }
}

impl trace::Live for Live<'_> {
    type Error = Error;

    fn config(&self) -> Result<Option<DatapathConfig>, Error> {
        self.maps.config.get(&0)
    }

    fn host_address(&self, addr: &Addr) -> Result<Option<HostAddressValue>, Error> {
        self.maps.host_addresses.get(addr)
    }

    fn port_map(&self, key: &PortMapKey) -> Result<Option<PortMapValue>, Error> {
        self.maps.port_map.get(key)
    }

    fn confirmed(&self, tuple: &Tuple) -> Result<Option<CtEntry>, Error> {
        self.maps.conntrack.get(tuple)
    }

    fn unconfirmed(&self, tuple: &Tuple) -> Result<Option<CtEntry>, Error> {
        self.maps.unconfirmed.get(tuple)
    }

    fn hand(&self) -> Result<Option<FlowHand>, Error> {
        self.maps.flow_hand.get(&0)
    }

    fn slot(&self, index: u32) -> Result<Option<Tuple>, Error> {
        self.maps.flow_slots.get(&index)
    }

    fn slots(&self) -> Result<u32, Error> {
        if let Some(slots) = self.slots.get() {
            return Ok(*slots);
        }
        let slots = room(&self.instance.map_pin(names::FLOW_SLOTS), names::FLOW_SLOTS)?.unwrap_or(0);
        Ok(*self.slots.get_or_init(|| slots))
    }

    fn endpoint_use(&self, ifindex: u32) -> Result<Option<EndpointUse>, Error> {
        self.maps.endpoint_use.get(&ifindex)
    }

    fn mapping(&self, key: &Tuple) -> Result<Option<MappingEntry>, Error> {
        self.maps.mappings.get(key)
    }

    fn fragment(&self, key: &FragmentKey) -> Result<Option<FragmentValue>, Error> {
        self.maps.fragments.get(key)
    }

    fn endpoint(&self, addr: &Addr) -> Result<Option<EndpointValue>, Error> {
        self.maps.endpoints.get(addr)
    }

    fn network(&self, addr: &Addr) -> Result<Option<NetworkValue>, Error> {
        self.maps.networks.get(&PrefixKey::host(*addr))
    }

    fn masquerade(&self, source: &Addr) -> Result<Option<MasqueradeValue>, Error> {
        self.maps.masquerade.get(&PrefixKey::host(*source))
    }

    fn is_unmasqueraded(&self, destination: &Addr) -> Result<bool, Error> {
        Ok(self.maps.unmasqueraded.get(&PrefixKey::host(*destination))?.is_some())
    }

    fn floating(&self, external: &Addr) -> Result<Option<FloatingValue>, Error> {
        self.maps.floating.get(external)
    }

    fn is_allowed(&self, mapping: u32, client: &Addr) -> Result<bool, Error> {
        let key = AllowFromKey { prefix_len: 160, data: AllowFrom { mapping, client: *client } };
        Ok(self.maps.allow_from.get(&key)?.is_some())
    }

    fn uplink(&self, ifindex: u32) -> Result<Option<UplinkValue>, Error> {
        self.maps.uplinks.get(&ifindex)
    }

    fn is_denied(&self, source: &Addr) -> Result<bool, Error> {
        Ok(self.maps.denied.get(&PrefixKey::host(*source))?.is_some())
    }

    fn source_due(&self, prefix: &Addr) -> Result<Option<u64>, Error> {
        self.maps.flood_sources.get(prefix)
    }

    fn total_due(&self) -> Result<Option<u64>, Error> {
        let pin = self.instance.program_pin(Hook::XdpUplink.name());
        let failed = |source| Error::ReadMap { map: FLOOD_TOTAL, source };
        let program = ProgramInfo::from_pin(&pin);
        let program = program.map_err(|source| Error::OpenProgram { pin, source: Box::new(source) })?;
        let ids = program.map_ids().ok().flatten().unwrap_or_default();
        for id in ids {
            let info = MapInfo::from_id(id).map_err(failed)?;
            if info.name_as_str() == Some(FLOOD_TOTAL) {
                let data = MapData::from_id(id).map_err(failed)?;
                let total = Array::<_, u64>::try_from(Map::Array(data)).map_err(failed)?;
                return total.get(&0, 0).map(Some).map_err(failed);
            }
        }
        Ok(None)
    }

    fn route(&self, query: &RouteQuery<'_>, hooked: u32) -> Result<Route, Error> {
        let RouteQuery { tuple, length, bridge, source: _ } = query;
        let question = Question {
            tuple: **tuple,
            arrived: *bridge,
            length: *length,
            kind: Question::ROUTE,
            reserved: 0,
        };
        Ok(self.probe.ask(question, hooked)?.route())
    }

    fn owns(&self, addr: &Addr, arrived: u32, hooked: u32) -> Result<bool, Error> {
        let tuple = Tuple { dst: *addr, ..bytemuck::Zeroable::zeroed() };
        self.ask(Question::OWNS, &tuple, (arrived, hooked))
    }

    fn host_socket(&self, tuple: &Tuple, hooked: u32) -> Result<bool, Error> {
        self.ask(Question::SOCKET, tuple, (0, hooked))
    }

    fn is_local(&self, addr: &Addr) -> bool {
        self.local.contains(addr)
    }

    fn forwarding(&self, v4: bool, ifindex: u32) -> Result<Forwarding, Error> {
        if v4 {
            return Ok(Forwarding::AsRouted);
        }
        let Ok(name) = if_indextoname(ifindex) else { return Ok(Forwarding::AsRouted) };
        let name = name.to_string_lossy();
        let is_on = |interface: &str, key| sysctl::is_on_v6(interface, key);
        // As `ip6_forward` asks (net/ipv6/ip6_output.c, Linux 6.17).
        if !is_on("all", FORWARDING)? && !is_on(&name, FORCED)? {
            return Ok(Forwarding::Off);
        }
        // As `bpf_fib_lookup` does (net/core/filter.c).
        if is_on(&name, FORWARDING)? {
            return Ok(Forwarding::AsRouted);
        }
        for other in if_nameindex()
            .map_err(|errno| Error::ReadInterfaces { source: io::Error::from(errno).into() })?
            .to_slice()
        {
            if is_on(&other.name().to_string_lossy(), FORWARDING)? {
                return Ok(Forwarding::AskedAs(other.index()));
            }
        }
        Ok(Forwarding::AsRouted)
    }

    fn now(&self) -> u32 {
        Kernel::now()
    }

    fn nanoseconds(&self) -> u64 {
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
            (time.tv_sec() as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec() as u64)
        })
    }

    fn random(&self) -> u32 {
        // Keyed anew each time, from what the system has of chance.
        RandomState::new().hash_one(0_u8) as u32
    }
}
