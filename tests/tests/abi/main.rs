//! What crosses the boundary between control plane and programs stays as it is listed in `vnet-common/abi.txt`, and
//! both sides see the same: the maps of the kernel, and the type information by which `bpftool` prints them.

mod layout;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use aya::maps::{Map, MapData};
use vnet::kernel::{OBJECT, RUNNERS, btf};
use vnet_common::{
    ABI_VERSION, CtState, DatapathConfig, DropReason, Hook, MasqueradeValue, NetworkValue, Origin,
    PortMapValue, Proto, Zone, features, filtering, mapping, maps,
};
use vnet_tests::runner::load;

use self::layout::{Layout, layouts};

/// Set to write the listing anew, once the version is bumped.
const UPDATE: &str = "VNET_UPDATE_ABI";

#[test]
fn the_abi_is_the_recorded_one() {
    let path = listing_path();
    let found = listing();
    let recorded = fs::read_to_string(&path).unwrap_or_default();
    if recorded == found {
        return;
    }
    let bumped = recorded.lines().next() != found.lines().next();
    if env::var_os(UPDATE).is_some() && bumped {
        fs::write(&path, &found).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
        return;
    }
    let advice = if bumped {
        format!("Run this test with {UPDATE}=1 to record it.")
    } else {
        format!(
            "Bump ABI_VERSION in vnet-common/src/lib.rs, then run this test with {UPDATE}=1 to record it."
        )
    };
    panic!("the ABI is not the one in {}.\n{advice}\n{}", path.display(), diff(&recorded, &found));
}

#[test]
fn a_changed_listing_is_shown_line_by_line() {
    let shown = diff("version 1\nTuple 40\nEvent 112\n", "version 1\nTuple 44\nEvent 112\nMore 4\n");
    assert_eq!(shown, "- Tuple 40\n+ Tuple 44\n+ More 4\n");
}

#[test]
fn the_kernels_maps_have_the_sizes_of_the_abi() {
    for object in [OBJECT, RUNNERS] {
        let object = load(object, 0);
        for shape in shapes() {
            let Some(map) = object.map(shape.name) else { continue };
            let info = data(map).info().expect("what the kernel says of a map");
            let found = (info.key_size(), info.value_size(), info.max_entries());
            let entries = if shape.entries == 0 { found.2 } else { shape.entries };
            assert_eq!(found, (shape.key, shape.value, entries), "key, value and entries of {}", shape.name);
            assert_eq!(info.name_as_str(), Some(shape.name));
        }
    }
}

#[test]
fn bpftool_shows_the_fields_of_the_abi() {
    let object = load(OBJECT, 0);
    let layouts: BTreeMap<_, _> = layouts().into_iter().map(|layout| (layout.name, layout)).collect();
    let mut described = 0;
    for shape in shapes().iter().filter(|shape| shape.key > 0) {
        // The kernel knows no types of what a perf event array holds.
        let Some(map) = object.map(shape.name).filter(|_| shape.name != maps::CAPTURED) else { continue };
        let types = btf::of_map(data(map).fd().as_fd()).expect("ask the kernel");
        let (key, value) = types.unwrap_or_else(|| panic!("{} has no types", shape.name));
        let sizes = (key.size as u32, value.size as u32);
        assert_eq!(sizes, (shape.key, shape.value), "key and value of {}", shape.name);
        for side in [key, value] {
            let leaves: usize = side.leaves.iter().map(|leaf| leaf.size * leaf.count).sum();
            assert_eq!(leaves, side.size, "what {} in {} consists of", side.name, shape.name);
            match layouts.get(side.name.as_str()) {
                Some(Layout { fields, .. }) => {
                    assert_eq!(&side.fields, fields, "fields of {} in {}", side.name, shape.name);
                    described += 1;
                }
                // A longest-prefix map has its key from aya: the same two fields, the second by another name.
                None if side.name.starts_with("Key_") => {
                    let key = if shape.name == maps::ALLOW_FROM { "AllowFromKey" } else { "PrefixKey" };
                    let ours = layouts[key].fields.iter().map(|field| (field.offset, field.size));
                    assert!(ours.eq(side.fields.iter().map(|field| (field.offset, field.size))), "{side:?}");
                }
                None => assert!(matches!(side.name.as_str(), "u32" | "u64"), "{side:?} in {}", shape.name),
            }
        }
    }
    assert_eq!(described, 31, "structures of the ABI that are keys or values");
}

/// A map as both sides must see it.
struct Shape {
    name: &'static str,
    key: u32,
    value: u32,
    entries: u32,
}

/// Every map of the ABI.
fn shapes() -> Vec<Shape> {
    use maps as m;
    use vnet_common::{
        Addr, AllowFromKey, CaptureFilter, CtEntry, DatapathConfig, DropKey, EndpointUse, EndpointValue,
        FloatingValue, FlowHand, FragmentKey, FragmentValue, HostAddressValue, LimitClock, LimitKey,
        LimitValue, LocalFlowKey, LocalFlowValue, MappingEntry, MasqueradeValue, PortMapKey, PortMapValue,
        PrefixKey, Tuple, UplinkValue,
    };
    const fn shape<K, V>(name: &'static str, entries: usize) -> Shape {
        Shape { name, key: size_of::<K>() as u32, value: size_of::<V>() as u32, entries: entries as u32 }
    }
    let shapes = vec![
        shape::<u32, DatapathConfig>(m::CONFIG, 1),
        shape::<u32, UplinkValue>(m::UPLINKS, m::UPLINK_ENTRIES),
        shape::<Addr, HostAddressValue>(m::HOST_ADDRESSES, m::HOST_ADDRESS_ENTRIES),
        shape::<PrefixKey, NetworkValue>(m::NETWORKS, m::NETWORK_ENTRIES),
        shape::<Addr, EndpointValue>(m::ENDPOINTS, m::ENDPOINT_ENTRIES),
        shape::<PrefixKey, MasqueradeValue>(m::MASQUERADE, m::MASQUERADE_ENTRIES),
        shape::<PrefixKey, u32>(m::UNMASQUERADED, m::UNMASQUERADED_ENTRIES),
        shape::<Addr, FloatingValue>(m::FLOATING, m::FLOATING_ENTRIES),
        shape::<PrefixKey, u32>(m::DENIED, m::DENIED_ENTRIES),
        shape::<PortMapKey, PortMapValue>(m::PORT_MAP, m::PORT_MAP_ENTRIES),
        shape::<AllowFromKey, u32>(m::ALLOW_FROM, m::ALLOW_FROM_ENTRIES),
        shape::<Tuple, CtEntry>(m::CONNTRACK, m::CONNTRACK_ENTRIES),
        shape::<Tuple, CtEntry>(m::UNCONFIRMED, m::UNCONFIRMED_ENTRIES),
        shape::<Tuple, MappingEntry>(m::MAPPINGS, m::MAPPING_ENTRIES),
        shape::<u32, Tuple>(m::FLOW_SLOTS, m::FLOW_SLOTS_ENTRIES),
        shape::<u32, FlowHand>(m::FLOW_HAND, 1),
        shape::<u32, EndpointUse>(m::ENDPOINT_USE, m::ENDPOINT_ENTRIES),
        shape::<FragmentKey, FragmentValue>(m::FRAGMENTS, m::FRAGMENT_ENTRIES),
        shape::<LocalFlowKey, LocalFlowValue>(m::LOCAL_FLOWS, m::LOCAL_FLOW_ENTRIES),
        shape::<Addr, u64>(m::FLOOD_SOURCES, m::FLOOD_SOURCE_ENTRIES),
        shape::<LimitKey, LimitValue>(m::LIMITS, m::LIMIT_ENTRIES),
        shape::<u32, LimitClock>(m::LIMIT_CLOCKS, m::LIMIT_ENTRIES),
        shape::<DropKey, u64>(m::DROPS, m::DROP_ENTRIES),
        // A ring buffer knows records, neither keys nor values, and its entries are bytes.
        shape::<(), ()>(m::EVENTS, m::EVENT_BYTES as usize),
        shape::<u32, CaptureFilter>(m::CAPTURE, 1),
        // One perf event for each CPU of the machine.
        shape::<u32, u32>(m::CAPTURED, 0),
        shape::<u32, u64>(m::LOGGED, 1),
        shape::<(), ()>(m::LOGS, m::LOG_BYTES as usize),
    ];
    assert!(shapes.iter().map(|shape| shape.name).eq(maps::ALL), "a shape for every map, in their order");
    shapes
}

fn data(map: &Map) -> &MapData {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::PerfEventArray(data)
        | Map::RingBuf(data) => data,
        other => panic!("a map of an unexpected kind: {other:?}"),
    }
}

fn listing_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../vnet-common/abi.txt")
}

/// The whole ABI as text.
fn listing() -> String {
    let mut text = format!("version {ABI_VERSION}\n");
    for Layout { name, size, align, fields } in layouts() {
        let _ = write!(text, "\n{name}: {size} bytes, aligned to {align}\n");
        for field in fields {
            let _ = writeln!(text, "{:>6} {:>4}  {}", field.offset, field.size, field.name);
        }
    }
    let mut list = |title: &str, entries: Vec<(String, u64)>| {
        let _ = write!(text, "\n{title}\n");
        for (name, number) in entries {
            let _ = writeln!(text, "{number:>11}  {name}");
        }
    };
    let named = |name: &str, number: u64| (name.to_owned(), number);
    list("drop reasons", DropReason::ALL.iter().map(|reason| named(reason.name(), *reason as u64)).collect());
    list("hooks", Hook::ALL.iter().map(|hook| named(hook.name(), *hook as u64)).collect());
    list("flow states", CtState::ALL.iter().map(|state| named(state.name(), *state as u64)).collect());
    list("origins", vec![named("opener", Origin::Opener as u64), named("answer", Origin::Answer as u64)]);
    list("zones", vec![named("world", u64::from(Zone::WORLD.id))]);
    list(
        "network flags",
        vec![
            named("internal", u64::from(NetworkValue::FLAG_INTERNAL)),
            named("isolated", u64::from(NetworkValue::FLAG_ISOLATED)),
            named("unprotected", u64::from(NetworkValue::FLAG_UNPROTECTED)),
            named("routed", u64::from(NetworkValue::FLAG_ROUTED)),
            named("unbridged", u64::from(NetworkValue::FLAG_UNBRIDGED)),
        ],
    );
    list(
        "mapping behaviours (bits)",
        vec![
            named("endpoint-independent udp", u64::from(mapping::ENDPOINT_INDEPENDENT_UDP)),
            named("endpoint-independent tcp", u64::from(mapping::ENDPOINT_INDEPENDENT_TCP)),
        ],
    );
    list(
        "filtering behaviours",
        vec![
            named("address and port", u64::from(filtering::ADDRESS_AND_PORT)),
            named("address", u64::from(filtering::ADDRESS)),
            named("endpoint-independent", u64::from(filtering::ENDPOINT_INDEPENDENT)),
        ],
    );
    list(
        "masquerade flags",
        vec![
            named("exempt", u64::from(MasqueradeValue::FLAG_EXEMPT)),
            named("one to one", u64::from(MasqueradeValue::FLAG_ONE_TO_ONE)),
        ],
    );
    list("port map flags", vec![named("restricted", u64::from(PortMapValue::FLAG_RESTRICTED))]);
    list(
        "configuration flags",
        vec![
            named("respect firewall", u64::from(DatapathConfig::FLAG_RESPECT_FIREWALL)),
            named("frozen", u64::from(DatapathConfig::FLAG_FROZEN)),
        ],
    );
    list(
        "protocols",
        vec![
            named("icmp", u64::from(Proto::ICMP.number)),
            named("tcp", u64::from(Proto::TCP.number)),
            named("udp", u64::from(Proto::UDP.number)),
            named("icmpv6", u64::from(Proto::ICMPV6.number)),
            named("sctp", u64::from(Proto::SCTP.number)),
        ],
    );
    list(
        &format!("features (bits of {})", features::SYMBOL),
        vec![
            named("fib source", u64::from(features::FIB_SOURCE)),
            named("checksum ipv6", u64::from(features::CHECKSUM_IPV6)),
            named("set retval", u64::from(features::SET_RETVAL)),
            named("set departure", u64::from(features::SET_DEPARTURE)),
        ],
    );
    list(
        "entries of maps",
        shapes().iter().map(|shape| named(shape.name, u64::from(shape.entries))).collect(),
    );
    text
}

/// The lines that differ: a common beginning of the rest is looked for after each.
fn diff(recorded: &str, found: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (recorded.lines().collect(), found.lines().collect());
    let (mut at, mut lines) = (0, String::new());
    for line in &old {
        match new[at..].iter().position(|other| other == line) {
            Some(added) => {
                new[at..at + added].iter().for_each(|line| lines.extend(["+ ", line, "\n"]));
                at += added + 1;
            }
            None => lines.extend(["- ", line, "\n"]),
        }
    }
    new[at..].iter().for_each(|line| lines.extend(["+ ", line, "\n"]));
    lines
}
