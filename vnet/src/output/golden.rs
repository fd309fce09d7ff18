//! The JSON that programs rely on, field by field: what is here may grow and never change.

use std::collections::BTreeMap;

use bytemuck::Zeroable;
use vnet_common::{
    Addr, CtEntry, CtState, DatapathConfig, DropKey, DropReason, EndpointUse, Event, Hook, Mac, Port, Proto,
    Tuple, Zone,
};

use super::*;
use crate::firewall::{Block, By, Families, Owner, Verdict};
use crate::flow::{self, Ended, News, Tables};
use crate::{spec, trace};

fn json<T: Listed>(item: T) -> String {
    let mut out = Vec::new();
    print_list(&mut out, Format::Json, &[item]).unwrap();
    String::from_utf8(out).unwrap()
}

fn network() -> spec::Network {
    let subnets = ["192.168.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
    spec::Network {
        name: "default".parse().unwrap(),
        number: 1,
        segments: spec::Segments::new(&subnets, &[]).unwrap(),
        ranges: vec!["192.168.0.128/25".parse().unwrap()],
        reserved: vec!["192.168.0.9".parse().unwrap()],
        bridge: "vnet0".parse().unwrap(),
        far_end: None,
        mac: Mac::new([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        follows_uplink: true,
        gso: spec::GsoSizes { v4: 65_536, v6: 196_608 },
        internal: false,
        isolated: true,
        options: spec::NetworkOptions::default(),
    }
}

#[test]
fn networks() {
    assert_eq!(
        json(Network::new(&network(), 3)),
        "{\"version\":1,\"networks\":[{\"name\":\"default\",\"number\":1,\"subnets\":[\"192.168.0.0/24\",\
         \"fd00::/64\"],\"gateways\":[\"192.168.0.1\",\"fd00::1\"],\"bridge\":\"vnet0\",\
         \"mac\":\"02:00:00:00:00:01\",\"mtu\":1500,\"gso_max_size\":196608,\"gso_ipv4_max_size\":65536,\
         \"internal\":false,\"isolated\":true,\"endpoints\":3,\
         \"gateway_mode\":\"nat\",\"udp_mapping\":\"endpoint-independent\",\"tcp_mapping\":\"address-and-port\",\
         \"filtering\":\"address\",\"ranges\":[\"192.168.0.128/25\"],\"reserved\":[\"192.168.0.9\"],\"no_bridge\":false}]}\n"
    );
}

#[test]
fn endpoints() {
    let link = spec::Link {
        network: "default".parse().unwrap(),
        number: 1,
        addresses: vec!["192.168.0.2/24".parse().unwrap(), "fd00::2/64".parse().unwrap()],
        mac: Mac::new([2, 0, 0, 0, 0, 2]),
        ifname: "eth0".parse().unwrap(),
        host_interface: "vn-net1".parse().unwrap(),
        created: Some(1030),
        routes: vec!["10.9.0.0/16=192.168.0.1".parse().unwrap()],
        table: None,
    };
    let mut endpoint = spec::Endpoint {
        name: "net1".parse().unwrap(),
        namespace: spec::Namespace::Own,
        links: vec![link.clone()],
        created: 1000,
        limits: spec::Limits::default(),
    };
    assert_eq!(
        json(Endpoint::new(&endpoint, 1060)),
        "{\"version\":1,\"endpoints\":[{\"name\":\"net1\",\"network\":\"default\",\"addresses\":[\"192.168.0.2\",\
         \"fd00::2\"],\"mac\":\"02:00:00:00:00:02\",\"ifname\":\"eth0\",\"interface\":\"vn-net1\",\
         \"namespace\":\"/run/netns/net1\",\"attached\":false,\"created\":1000,\"age\":60,\"links\":[{\
         \"network\":\"default\",\"addresses\":[\"192.168.0.2\",\"fd00::2\"],\"mac\":\"02:00:00:00:00:02\",\
         \"ifname\":\"eth0\",\"interface\":\"vn-net1\",\"default_routes\":[\"IPv4\",\"IPv6\"],\
         \"routes\":[\"10.9.0.0/16=192.168.0.1\"]}],\"mode\":\"bridge\"}]}\n"
    );
    endpoint.links.push(spec::Link {
        network: "blue".parse().unwrap(),
        number: 2,
        addresses: vec!["10.1.0.2/24".parse().unwrap()],
        mac: Mac::new([2, 0, 0, 0, 0, 3]),
        ifname: "eth1".parse().unwrap(),
        host_interface: "vn-net1-1234".parse().unwrap(),
        created: None,
        routes: Vec::new(),
        table: Some(1 << 30),
    });
    let mut out = Vec::new();
    let leases = Lease::of(&network(), std::slice::from_ref(&endpoint), 1060);
    print_list(&mut out, Format::Table, &leases).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "NETWORK  ADDRESS      OWNER       AGE\ndefault  192.168.0.1  (gateway)   -\n\
         default  192.168.0.2  net1        30s\ndefault  192.168.0.9  (reserved)  -\n\
         default  fd00::1      (gateway)   -\ndefault  fd00::2      net1        30s\n"
    );
    assert_eq!(
        json(leases[1].clone()),
        "{\"version\":1,\"leases\":[{\"network\":\"default\",\"address\":\"192.168.0.2\",\"kind\":\"endpoint\",\
         \"endpoint\":\"net1\",\"since\":1030,\"age\":30}]}\n"
    );
    let both = Endpoint::new(&endpoint, 1060);
    assert_eq!(
        both.row(),
        ["net1", "default blue", "192.168.0.2 fd00::2 +1", "vn-net1 +1", "bridge", "1m00s"]
    );
    assert_eq!(both.links[1].to_string(), "eth1 to blue: 10.1.0.2, 02:00:00:00:00:03, by vn-net1-1234");
    assert_eq!(
        both.links[0].to_string(),
        "eth0 to default: 192.168.0.2 fd00::2, 02:00:00:00:00:02, by vn-net1, default route of IPv4 and IPv6, \
         routes 10.9.0.0/16=192.168.0.1"
    );
    assert_eq!((both.network.as_deref(), both.ifname.as_deref()), (Some("default"), Some("eth0")));
    endpoint.links.clear();
    endpoint.namespace = spec::Namespace::Foreign { path: "/proc/7/ns/net".into() };
    assert_eq!(
        json(Endpoint::new(&endpoint, 1060)),
        "{\"version\":1,\"endpoints\":[{\"name\":\"net1\",\"network\":null,\"addresses\":[],\"mac\":null,\
         \"ifname\":null,\"interface\":null,\"namespace\":\"/proc/7/ns/net\",\"attached\":true,\
         \"created\":1000,\"age\":60,\"links\":[],\"mode\":\"none\"}]}\n"
    );
    let (with, path) = ("web".parse().unwrap(), "/run/netns/web".into());
    for (namespace, mode) in
        [(spec::Namespace::Host, "host"), (spec::Namespace::Shared { with, path }, "container:web")]
    {
        endpoint.namespace = namespace;
        assert!(json(Endpoint::new(&endpoint, 1060)).contains(&format!("\"mode\":\"{mode}\"")));
    }
}

#[test]
fn direct_links() {
    let end = |nth: u8| spec::DirectEnd {
        endpoint: format!("net{nth}").parse().unwrap(),
        namespace: format!("/run/netns/net{nth}").into(),
        addresses: vec![format!("192.168.1.{nth}/24").parse().unwrap()],
        mac: Mac::new([2, 0, 0, 0, 1, nth]),
        ifname: "link0".parse().unwrap(),
    };
    let link = DirectLink::from(&spec::DirectLink { ends: [end(1), end(2)], mtu: 1500 });
    assert_eq!(link.described(), "link0 192.168.1.1/24 and link0 192.168.1.2/24");
    assert_eq!(link.row(), ["net1 net2", "link0 link0", "192.168.1.1/24 192.168.1.2/24", "1500"]);
    assert_eq!(
        json(link),
        "{\"version\":1,\"links\":[{\"ends\":[{\"endpoint\":\"net1\",\"addresses\":[\"192.168.1.1/24\"],\
         \"mac\":\"02:00:00:00:01:01\",\"ifname\":\"link0\"},{\"endpoint\":\"net2\",\"addresses\":[\"192.168.1.2/24\"],\
         \"mac\":\"02:00:00:00:01:02\",\"ifname\":\"link0\"}],\"mtu\":1500}]}\n"
    );
}

#[test]
fn portmaps() {
    let mapping = spec::PortMap {
        id: 7,
        published: "203.0.113.1:8000-8010".parse().unwrap(),
        protocol: spec::Protocol::Udp,
        endpoint: "net1".parse().unwrap(),
        targets: vec!["192.168.0.2".parse().unwrap()],
        target_ports: "80-90".parse().unwrap(),
        number: 1,
        allow_from: vec!["10.0.0.0/8".parse().unwrap()],
    };
    assert_eq!(
        json(PortMap::from(&mapping)),
        "{\"version\":1,\"portmaps\":[{\"id\":7,\"host\":\"203.0.113.1\",\"port\":8000,\"end\":8010,\
         \"protocol\":\"udp\",\"endpoint\":\"net1\",\"targets\":[\"192.168.0.2\"],\"target_port\":80,\
         \"target_end\":90,\"allow_from\":[\"10.0.0.0/8\"]}]}\n"
    );
}

#[test]
fn denied() {
    let sources: spec::Cidr = "198.51.100.0/24".parse().unwrap();
    assert_eq!(
        json(Denied::from(&sources)),
        "{\"version\":1,\"denied\":[{\"subnet\":\"198.51.100.0/24\"}]}\n"
    );
}

#[test]
fn what_holds_where_uplinks_have_xdp() {
    let mut settings = spec::Settings { uplinks: vec!["eth0".parse().unwrap()], ..spec::Settings::new(7, 8) };
    settings.set_xdp(&"native".parse().unwrap()).unwrap();
    settings.flood = spec::FloodLimits { rate: 100, total: 0 };
    let text = serde_json::to_string(&Settings::from(&settings)).unwrap();
    assert!(text.ends_with("\"xdp\":{\"eth0\":\"native\"},\"flood_rate\":100,\"flood_total\":0}"), "{text}");
}

#[test]
fn masquerades() {
    let rule = spec::Masquerade { subnet: "10.0.0.0/8".parse().unwrap(), to: None, network: None };
    let excluded = ["10.8.0.0/16".parse().unwrap()];
    let print = |format| {
        let mut out = Vec::new();
        Masquerades::new(std::slice::from_ref(&rule), &excluded).print(&mut out, format).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        print(Format::Json),
        "{\"version\":1,\"masquerades\":[{\"subnet\":\"10.0.0.0/8\",\"to\":null,\"network\":null}],\
         \"excluded\":[{\"subnet\":\"10.8.0.0/16\"}]}\n"
    );
    assert_eq!(
        print(Format::Table),
        "SUBNET      AS          NETWORK\n10.0.0.0/8  (by route)  -\n\nEXCLUDED DESTINATIONS\n10.8.0.0/16\n"
    );
    assert_eq!(
        json(Masquerade::from(&rule)),
        "{\"version\":1,\"masquerades\":[{\"subnet\":\"10.0.0.0/8\",\"to\":null,\"network\":null}]}\n"
    );
}

#[test]
fn floating() {
    let floating = spec::Floating {
        external: "203.0.113.5".parse().unwrap(),
        endpoint: "net1".parse().unwrap(),
        addr: "192.168.0.2".parse().unwrap(),
        number: 1,
        on: None,
    };
    assert_eq!(
        json(Floating::from(&floating)),
        "{\"version\":1,\"floating\":[{\"external\":\"203.0.113.5\",\"endpoint\":\"net1\",\
         \"address\":\"192.168.0.2\"}]}\n"
    );
}

#[test]
fn limits() {
    let limit = spec::Limit { rate: "50mbit".parse().unwrap(), burst: Some("64k".parse().unwrap()) };
    let limits = spec::Limits { egress: Some(limit), ingress: None };
    let (name, namespace) = ("net1".parse().unwrap(), spec::Namespace::Own);
    let limited = Limit::from(&spec::Endpoint { name, namespace, links: Vec::new(), created: 0, limits });
    assert_eq!(
        json(limited.clone()),
        "{\"version\":1,\"limits\":[{\"endpoint\":\"net1\",\"cgroup\":null,\"classid\":null,\"by\":\"tbf\",\"egress\":50000000,\"egress_burst\":65536,\"ingress\":null,\
         \"ingress_burst\":null}]}\n"
    );
    assert_eq!(limited.row(), ["net1", "50mbit", "65536", "-", "-", "tbf"]);
    let of_class = |cgroup| {
        let limit = spec::CgroupLimit { cgroup, limit, number: 3, pacing: spec::Pacing::Htb };
        Limit::from(&limit)
    };
    let limited = of_class(spec::Cgroup::ClassId("1:10".parse().unwrap()));
    assert_eq!(
        json(limited.clone()),
        "{\"version\":1,\"limits\":[{\"endpoint\":null,\"cgroup\":null,\"classid\":\"1:10\",\"by\":\"htb\",\
         \"egress\":50000000,\"egress_burst\":65536,\"ingress\":null,\"ingress_burst\":null}]}\n"
    );
    assert_eq!(limited.row(), ["1:10", "50mbit", "65536", "-", "-", "htb"]);
    assert_eq!(of_class(spec::Cgroup::Path("a/b".parse().unwrap())).cgroup.as_deref(), Some("/a/b"));
}

fn names() -> Networks {
    Networks(BTreeMap::from([(1, "default".to_owned())]))
}

fn out() -> (Tuple, Tuple) {
    let inside = Tuple {
        src: Addr::v4([192, 168, 0, 2]),
        dst: Addr::v4([203, 0, 113, 2]),
        sport: Port::new(4000),
        dport: Port::new(80),
        zone: Zone { id: 1 },
        proto: Proto::TCP,
        reserved: 0,
    };
    let outside = Tuple { src: Addr::v4([203, 0, 113, 1]), zone: Zone::WORLD, ..inside };
    (inside, outside)
}

#[test]
fn both_directions_are_one_flow() {
    let (inside, outside) = out();
    let opener = CtEntry {
        translated: outside,
        packets: 5,
        bytes: 500,
        last_seen: 90,
        created: 40,
        mapping: 0,
        state: 2,
        origin: 1,
        flags: 0,
        reserved: 0,
    };
    let answer =
        CtEntry { translated: inside.answer(), packets: 4, bytes: 400, last_seen: 95, origin: 2, ..opener };
    let tables =
        Tables { confirmed: [(opener.twin(), answer), (inside, opener)].into(), ..Tables::default() };
    let flows = flow::pair(&tables);
    assert_eq!(flows.len(), 1);
    assert_eq!(
        json(printed(&flows[0])),
        "{\"version\":1,\"flows\":[{\"protocol\":\"tcp\",\"state\":\"established\",\"original\":{\
         \"zone\":\"default\",\"source\":\"192.168.0.2\",\"source_port\":4000,\"destination\":\"203.0.113.2\",\
         \"destination_port\":80},\"translated\":{\"zone\":\"world\",\"source\":\"203.0.113.1\",\
         \"source_port\":4000,\"destination\":\"203.0.113.2\",\"destination_port\":80},\"mapping\":null,\
         \"age\":60,\"idle\":5,\"packets_sent\":5,\"bytes_sent\":500,\"packets_received\":4,\
         \"bytes_received\":400,\"confirmed\":true,\"halves\":\"both\",\"opener\":\"net1\",\"target\":null,\
         \"endpoint_independent\":false,\"timeout\":7440,\"expires\":7435,\"expired\":false}]}\n"
    );
}

/// A flow as it is printed at second 100.
fn printed(flow: &flow::Flow) -> Flow {
    let endpoints = [((Zone { id: 1 }, Addr::v4([192, 168, 0, 2])), "net1".to_owned())];
    let names = Names { networks: names(), endpoints: endpoints.into() };
    Flow::new(flow, &names, &DatapathConfig::DEFAULT, 100)
}

#[test]
fn the_row_of_a_flow_names_both_ends_and_says_what_is_missing() {
    let (inside, outside) = out();
    let alone = CtEntry {
        translated: inside.answer(),
        packets: 4,
        bytes: 4096,
        last_seen: 70,
        created: 40,
        mapping: 7,
        state: 1,
        origin: 2,
        flags: 0,
        reserved: 0,
    };
    let tables = Tables { unconfirmed: [(outside.answer(), alone)].into(), ..Tables::default() };
    let mut out = Vec::new();
    print_list(&mut out, Format::Table, &[printed(&flow::pair(&tables)[0])]).unwrap();
    let out = String::from_utf8(out).unwrap();
    let [header, row] = out.lines().collect::<Vec<_>>()[..] else { panic!("{out}") };
    let cells = |line: &str| {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(cells(header), Flow::HEADER);
    assert_eq!(
        cells(row),
        [
            "tcp",
            "new",
            "no, answer's half alone",
            "default/net1",
            "192.168.0.2:4000 > 203.0.113.2:80",
            "world",
            "203.0.113.1:4000 > 203.0.113.2:80",
            "7",
            "1m00s",
            "30s",
            "3m30s",
            "0 (0 B)",
            "4 (4.0 KiB)"
        ]
    );
}

#[test]
fn flow_stats() {
    let endpoint =
        EndpointUse { flows: 60_000, credit: 2_000, credited: 100, refused: 3, ..EndpointUse::zeroed() };
    let (inside, outside) = out();
    let opener = CtEntry {
        translated: Tuple { sport: Port::new(50_000), ..outside },
        packets: 1,
        bytes: 40,
        last_seen: 100,
        created: 40,
        mapping: 0,
        state: 2,
        origin: 1,
        flags: 0,
        reserved: 0,
    };
    let tables = Tables { confirmed: [(inside, opener)].into(), ..Tables::default() };
    let counted = flow::Counted {
        flows: &flow::pair(&tables),
        mappings: &std::collections::HashMap::new(),
        fragments: 2,
        endpoints: &[("net1".to_owned(), endpoint)],
        room: flow::Room { confirmed: 131_072, unanswered: 65_536 },
    };
    let stats = FlowStats::from(&flow::Stats::count(&counted, &DatapathConfig::DEFAULT, 100));
    let mut out = Vec::new();
    stats.print(&mut out, Format::Json).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "{\"version\":1,\"stats\":[{\"tables\":[{\"map\":\"conntrack\",\"holds\":\"confirmed flows\",\"used\":1,\
         \"room\":131072,\"percent\":0.0,\"over\":0,\"forecast\":{\"rate\":0.0,\"lifetime\":7500.0,\
         \"full_in\":null}},{\"map\":\"unconfirmed\",\"holds\":\"unconfirmed flows\",\"used\":0,\"room\":65536,\
         \"percent\":0.0,\"over\":0,\"forecast\":null},{\"map\":\"mappings\",\"holds\":\"entries of mappings\",\
         \"used\":0,\"room\":131072,\"percent\":0.0,\"over\":0,\"forecast\":null},{\"map\":\"fragments\",\
         \"holds\":\"fragmented datagrams\",\"used\":2,\"room\":8192,\"percent\":0.0,\"over\":0,\
         \"forecast\":null}],\"states\":[{\"state\":\"established\",\"flows\":1,\"lifetime\":7500.0}],\
         \"endpoints\":[{\"endpoint\":\"net1\",\"flows\":60000,\"flows_limit\":65536,\"unanswered_left\":2000,\
         \"unanswered_limit\":2048,\"refused\":3}],\"ports\":[{\"protocol\":\"tcp\",\
         \"address\":\"203.0.113.1\",\"first\":49152,\"last\":65535,\"used\":1,\"left\":16383,\"percent\":0.0,\
         \"forecast\":{\"rate\":0.0,\"lifetime\":7500.0,\"full_in\":null}}],\"warnings\":[\"confirmed flows of \
         endpoint net1: 60000 of 65536 in use (91.6 %); what it begins beyond that is dropped (quota)\"]}]}\n"
    );
    let mut out = Vec::new();
    stats.print(&mut out, Format::Table).unwrap();
    let text = String::from_utf8(out).unwrap();
    for words in [
        "confirmed flows       1     131072  0.0 %    0     0.0/s  never",
        "established  1      2h05m",
        "net1      60000      65536  91.6 %   2000             2048  3",
        "tcp    203.0.113.1  49152-65535  1     16383  0.0 %    0.0/s  never",
        "warning: confirmed flows of endpoint net1: ",
    ] {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
}

#[test]
fn drops() {
    let key = DropKey { ifindex: 2, reason: 7, hook: 2, reserved: [0; 2] };
    let interfaces = BTreeMap::from([(2, "eth0".to_owned())]);
    assert_eq!(
        json(Drop::new(&key, 12, &interfaces)),
        "{\"version\":1,\"drops\":[{\"interface\":\"eth0\",\"hook\":\"from_uplink\",\"reason\":\"direct-access\",\
         \"packets\":12,\"explanation\":\"Somebody outside addressed an endpoint directly, not through a \
         published port.\",\"remedy\":\"Publish the port with `vnet portmap add`, or open the network with \
         `--gateway-mode routed` or `nat-unprotected`.\"}]}\n"
    );
}

#[test]
fn a_trace() {
    let (inside, outside) = out();
    let refused = trace::Fact::Allowed { mapping: 7, client: inside.src, allowed: false };
    let drop = trace::Leg {
        met: trace::Met::Program(Hook::FromEndpoint, 2),
        facts: vec![trace::Fact::Flow(None), refused, refused],
        verdict: Err(DropReason::NotAllowed),
        frame: Vec::new(),
        answer: None,
        onward: None,
    };
    let added = CtEntry { translated: outside, state: 1, packets: 1, ..CtEntry::zeroed() };
    let change = trace::Change::Flow { tuple: inside, confirmed: false, before: None, after: Some(added) };
    let words = Vocabulary {
        names: Names { networks: names(), ..Names::default() },
        interfaces: [(2, "vn-net1".to_owned())].into(),
        links: [("vn-net1".to_owned(), "net1".to_owned())].into(),
        mappings: [(7, "22/tcp to jump:22".to_owned())].into(),
    };
    let told = trace::Trace { legs: vec![drop], changes: vec![change] };
    let told = Trace::new("tcp A > B (syn)".to_owned(), "net1".to_owned(), &told, &words);
    let mut out = Vec::new();
    told.print(&mut out, Format::Json).unwrap();
    let why = "dropped for not-allowed: The mapping is not for this client: no `--allow-from` prefix covers it. Take \
               the mapping back with `vnet portmap rm`, and publish it again with the client's prefix as one more \
               `--allow-from`.";
    let refused = "192.168.0.2 may not use 22/tcp to jump:22 (mapping 7), by its --allow-from";
    let added =
        "tcp 192.168.0.2:4000 > 203.0.113.2:80 becomes 203.0.113.1:4000 > 203.0.113.2:80, new, packets: 1";
    let json = [
        r#"{"version":1,"traces":[{"packet":"tcp A > B (syn)","from":"net1","way":[{"hook":"from_endpoint","#,
        r#""interface":"vn-net1","decisions":[{"about":"flow","text":"no flow is tracked that it belongs to"},"#,
        &format!(r#"{{"about":"mapping","text":"{refused}"}}],"verdict":"drop","reason":"not-allowed","#),
        &format!(r#""text":"{why}"}}],"verdict":"dropped","reason":"not-allowed","endpoint":null,"#),
        &format!(r#""interface":null,"next_hop":null,"becomes":null,"text":"{why}","changes":["#),
        &format!(r#"{{"map":"unconfirmed","change":"added","text":"{added}"}}]}}]}}"#),
        "\n",
    ];
    assert_eq!(String::from_utf8(out).unwrap(), json.concat());
    let mut out = Vec::new();
    told.print(&mut out, Format::Table).unwrap();
    let lines = [
        "tcp A > B (syn), from net1",
        "",
        "from_endpoint on vn-net1",
        "  flow        no flow is tracked that it belongs to",
        &format!("  mapping     {refused}"),
        &format!("  DROP        {why}"),
        "",
        "dropped",
        "",
        "A real packet would leave behind (nothing has been changed now):",
        &format!("  unconfirmed  added    {added}"),
        "",
    ];
    assert_eq!(String::from_utf8(out).unwrap(), lines.join("\n"));
}

#[test]
fn an_event_is_a_flow_or_a_drop() {
    let (inside, outside) = out();
    let begun = Event {
        time: 0,
        tuple: inside,
        translated: outside,
        ifindex: 0,
        length: 98,
        reason: 0,
        hook: 1,
        reserved: [0; 6],
    };
    let flow = printed(&flow::Flow::begun(&begun));
    let event = FlowEvent::new(flow::News::Began, flow.clone());
    let text = event.to_string();
    let expected = "Z began     tcp    192.168.0.2:4000 > 203.0.113.2:80 becomes 203.0.113.1:4000 > \
                    203.0.113.2:80, default/net1 to world";
    assert!(text.ends_with(expected), "{text}");
    let fields = serde_json::to_value(&event).unwrap();
    let fields = fields.as_object().unwrap();
    for field in ["version", "time", "event", "previous", "reason"] {
        assert!(fields.contains_key(field), "no {field} in {fields:?}");
    }
    for (field, value) in serde_json::to_value(&flow).unwrap().as_object().unwrap() {
        assert_eq!(fields.get(field), Some(value), "{field}, as it is listed");
    }
    let established = Flow { state: "established", ..flow };
    for (news, event, previous, reason, expected) in [
        (News::Confirmed(CtState::New), "confirmed", Some("new"), None, ", new -> established"),
        (News::Changed(CtState::Closing), "changed", Some("closing"), None, ", closing -> established"),
        (
            News::Ended(Ended::Timeout),
            "ended",
            None,
            Some("timeout"),
            ", timeout when established, after 1m40s, 1 (98 B) sent and 0 (0 B) received",
        ),
    ] {
        let told = FlowEvent::new(news, established.clone());
        assert_eq!((told.event, told.previous, told.reason), (event, previous, reason));
        assert!(told.to_string().ends_with(expected), "{told}");
    }

    let dropped = Event { reason: 7, ifindex: 2, hook: 2, ..begun };
    assert!(DropEvent::new(&begun, &BTreeMap::new(), &names()).is_none());
    let drop = DropEvent::new(&dropped, &BTreeMap::new(), &names()).unwrap();
    let expected =
        "dropped for direct-access: tcp 192.168.0.2:4000 > 203.0.113.2:80, 98 bytes, from_uplink on if2";
    assert!(drop.to_string().ends_with(expected), "{drop}");
    let fields = serde_json::to_value(&drop).unwrap();
    let fields: Vec<&String> = fields.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["hook", "interface", "length", "packet", "protocol", "reason", "time", "version"]);
}

#[test]
fn status() {
    let mut out = Vec::new();
    print_json(&mut out, &Status::not_up("default")).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "{\"version\":1,\"instance\":\"default\",\"up\":false,\"created\":null,\"uplinks\":[],\"networks\":[],\
         \"endpoints\":0,\"portmaps\":0,\"flows\":0,\"programs\":[],\"problems\":[],\"reachable\":[],\"floating\":0,\
         \"settings\":null,\"warnings\":[],\"filling\":[],\"floating_addresses\":[],\"router\":null}\n"
    );
    let settings = Settings::from(&spec::Settings::new(1, 2));
    assert_eq!(
        serde_json::to_string(&settings).unwrap(),
        "{\"nat_port\":49152,\"nat_end\":65535,\"timeouts\":{\"dns\":10,\"fragment\":30,\"icmp-query\":60,\
         \"tcp-closing\":240,\"tcp-established\":7440,\"tcp-opening\":240,\"udp-replied\":300,\"udp-unreplied\":120},\
         \"max_flows\":131072,\"max_unanswered\":65536,\"endpoint_flows\":65536,\"endpoint_unanswered\":2048,\
         \"firewall\":\"bypass\",\"xdp\":{},\"flood_rate\":0,\"flood_total\":0}"
    );
    let program = Program { hook: "to_uplink".to_owned(), interface: "eth0".to_owned() };
    assert_eq!(serde_json::to_string(&program).unwrap(), "{\"hook\":\"to_uplink\",\"interface\":\"eth0\"}");
}

#[test]
fn reachable() {
    let mapping = spec::PortMap {
        id: 7,
        published: "8000-8010".parse().unwrap(),
        protocol: spec::Protocol::Tcp,
        endpoint: "net1".parse().unwrap(),
        targets: vec!["192.168.0.2".parse().unwrap()],
        target_ports: "80-90".parse().unwrap(),
        number: 1,
        allow_from: Vec::new(),
    };
    let block = Block {
        families: Families::Both,
        table: "filter".to_owned(),
        chain: "input".to_owned(),
        by: By::Policy,
        owner: Owner::Nft,
    };
    let by_host = Reachable::by_host(&mapping);
    assert_eq!(
        serde_json::to_string(&by_host).unwrap(),
        "{\"id\":7,\"published\":\"8000-8010\",\"ports\":11,\"protocol\":\"tcp\",\"target\":\"net1:80-90\",\
         \"from\":\"host\",\"allow_from\":[],\"uplinks\":[],\"networks\":[],\"firewall\":null}"
    );
    let uplink = Uplink { interface: "eth0".to_owned(), addresses: vec!["203.0.113.1".parse().unwrap()] };
    let by_world = Reachable {
        from: "world",
        uplinks: vec![uplink],
        networks: vec!["default".to_owned()],
        firewall: Some(Firewall::new(&Verdict::Blocked(block), false)),
        ..by_host
    };
    let printed = serde_json::to_string(&by_world).unwrap();
    let expected = "\"from\":\"world\",\"allow_from\":[],\"uplinks\":[{\"interface\":\"eth0\",\"addresses\":[\"203.0.113.1\"]}],\
                    \"networks\":[\"default\"],\"firewall\":{\"verdict\":\"blocked\",\"owner\":\"nft\",\
                    \"table\":\"inet filter\",\"chain\":\"input\",\"by\":\"policy\",\"why\":null,\
                    \"text\":\"would block it: the policy of chain input in table inet filter (nft)\",\
                    \"asked\":false}}";
    assert!(printed.ends_with(expected), "{printed}");
}

#[test]
fn findings() {
    let finding = Finding { check: "forward", problem: "it is".to_owned(), fix: "`make`".to_owned() };
    assert_eq!(finding.text(), "forward: it is\n  fix: `make`");
    assert_eq!(
        json(finding),
        "{\"version\":1,\"findings\":[{\"check\":\"forward\",\"problem\":\"it is\",\"fix\":\"`make`\"}]}\n"
    );
}

#[test]
fn steps_are_a_list_or_lines() {
    let ops = ["create a".to_owned(), "remove b".to_owned()];
    let print = |format, ops: &[String]| {
        let mut out = Vec::new();
        print_ops(&mut out, format, ops).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(print(Format::Json, &ops), "{\"version\":1,\"ops\":[\"create a\",\"remove b\"]}\n");
    assert_eq!(print(Format::Table, &ops), "create a\nremove b\n");
    assert_eq!(print(Format::Table, &[]), "nothing to do\n");
}
