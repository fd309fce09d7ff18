//! Every kind of problem with its message, and what is written against what is read.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

fn sources(texts: &[&str]) -> Vec<Source> {
    let source = |(nth, text): (usize, &&str)| Source {
        name: if nth == 0 { "vnet.toml".to_owned() } else { format!("{nth}.toml") },
        text: Ok((*text).to_owned()),
    };
    texts.iter().enumerate().map(source).collect()
}

fn problems(texts: &[&str]) -> Vec<String> {
    match read(sources(texts), &Known::default()) {
        Ok(file) => panic!("nothing is wrong: {:?}", file.description),
        Err(flawed) => flawed.problems(Vec::new()).lines().to_vec(),
    }
}

#[test]
fn every_kind_of_problem_has_a_place_a_reason_and_a_way_out() {
    for (text, expected) in [
        ("a =", "1:4: this is not TOML: "),
        ("[networks.a]\n[networks.a]", "2:11: this is not TOML: duplicate key"),
        ("version = 2", "1:11: version 2 of the format is not known: this vnet reads version 1"),
        (
            "prot = 1",
            "1:1: \"prot\" is not known: a file may have version, instance, router, networks, endpoints, \
             portmaps, direct, masquerades, floating, limits, excluded, denied",
        ),
        (
            "[[limits]]\negress = \"1mbit\"",
            "1:1: a limit needs cgroup or classid: write cgroup = \"/user.slice\", or classid = \"1:10\"",
        ),
        ("[[limits]]\ncgroup = \"/a\"", "1:1: a limit needs egress: write egress = \"50mbit\""),
        (
            "[[limits]]\ncgroup = \"/a\"\negress = \"none\"",
            "1:1: a limit of \"none\" is none: leave it out, ",
        ),
        (
            "[[limits]]\ncgroup = \"../a\"\negress = \"1mbit\"",
            "2:10: \"../a\" is not a cgroup: write it without \"..\"",
        ),
        (
            "[[limits]]\nclassid = \"x\"\negress = \"1mbit\"",
            "2:11: \"x\" is not a class: write it like 1:10 ",
        ),
        (
            "[[limits]]\ncgroup = \"/a\"\nclassid = \"1:1\"\negress = \"1mbit\"",
            "3:1: a limit is for a cgroup or for a classid: leave one of the two out",
        ),
        (
            "[[limits]]\ncgroup = \"/a\"\negress = \"1mbit\"\n[[limits]]\ncgroup = \"a/\"\negress = \"2mbit\"",
            "4:1: ",
        ),
        ("instance = 1", "1:12: this is a number and is to be a table"),
        (
            "[router]\naddresses = [\"16.158.1.100/24\"]",
            "1:1: a router needs outside: write outside = \"br0\"",
        ),
        (
            "[router]\noutside = \"br0\"",
            "1:1: a router needs addresses: write addresses = [\"203.0.113.5/24\"]",
        ),
        (
            "[router]\noutside = \"br0\"\naddresses = [\"16.158.1.0/24\"]",
            "3:14: 16.158.1.0/24 cannot be a router's address outside: it is the first or the last",
        ),
        (
            "[router]\noutside = \"br0\"\naddresses = [\"10.0.0.1/24\"]\nuplink = \"br0\"",
            "4:1: \"uplink\" is not known: a router may have outside, addresses, gateways, mac",
        ),
        ("[instance]\nuplinks = \"eth0\"", "2:11: uplinks is a list, not a string: put it in brackets"),
        ("[instance]\nuplinks = [1]", "2:12: this is a number and is to be a string: put it in quotes"),
        ("[instance]\nuplinks = [\"a/b\"]", "2:12: \"a/b\" cannot name an interface: "),
        (
            "[instance]\nnat-ports = \"1-10\"",
            "2:13: \"1-10\" is not a port or a range of ports: masquerade needs 64 ports at least",
        ),
        ("[instance]\nmax-flows = 0", "2:13: this is to be a number from 16 to 16777216"),
        ("[instance]\nmax-flows = \"9\"", "2:13: this is a string and is to be a number without quotes"),
        (
            "[instance]\nfirewall = \"no\"",
            "2:12: \"no\" is not a way to treat the firewall: choose bypass or respect",
        ),
        ("[instance.timeouts]\nudp = 5", "2:1: \"udp\" is not a timeout: choose tcp-established, "),
        ("[instance.timeouts]\ndns = \"soon\"", "2:7: \"soon\" is not a duration: "),
        ("[instance]\nxdp = \"fast\"", "2:7: \"fast\" is not a XDP mode: choose off, native or generic"),
        (
            "[networks.blue]\nranges = \"10.1.0.0/25\"",
            "2:10: ranges is a list, not a string: put it in brackets",
        ),
        ("[networks.blue]\nreserved = [\"x\"]", "2:13: \"x\" is not an address: "),
        (
            "[networks.blue]\nsubnets = [\"10.1.0.1/24\"]",
            "2:12: 10.1.0.1/24 is an address inside a prefix: the prefix is 10.1.0.0/24",
        ),
        ("[networks.\"a/b\"]\nsubnets = []", "1:11: \"a/b\" is not a name: "),
        (
            "[networks.default]\ngateways = [\"10.1.0.1/24\"]",
            "2:13: \"10.1.0.1/24\" is not an address: write it like 192.168.0.2 or fd00::2, without a prefix",
        ),
        ("[networks.default]\ninternal = \"yes\"", "2:12: this is a string and is to be true or false"),
        ("[networks.default]\nmtu = 60", "2:7: this is to be a number from 68 to 65535"),
        (
            "[endpoints.web]\nmode = \"macvlan\"",
            "2:8: \"macvlan\" is not a mode: choose bridge, none, host or container:NAME",
        ),
        (
            "[endpoints.web]\nmode = \"container:db\"",
            "2:8: there is no endpoint db: describe it as [endpoints.db]",
        ),
        (
            "[endpoints.web]\nmode = \"host\"\nnetns = \"/run/netns/web\"",
            "3:1: mode \"host\" has a namespace already: leave one of the two out",
        ),
        (
            "[endpoints.web]\nmode = \"host\"\n[[endpoints.web.links]]\nnetwork = \"default\"",
            "3:17: mode \"host\" has no links: leave one of the two out",
        ),
        (
            "[endpoints.web]\n[[endpoints.web.links]]\naddresses = []",
            "2:1: a link needs network: write network = \"blue\"",
        ),
        (
            "[endpoints.web]\n[[endpoints.web.links]]\nnetwork = \"default\"",
            "3:11: endpoint web is on network default twice: leave one of the two links out",
        ),
        (
            "[endpoints.web]\nroutes = [\"0.0.0.0/0\"]",
            "2:11: \"0.0.0.0/0\" is not a route that an endpoint can have: the default route leads by the first link",
        ),
        (
            "[endpoints.web]\nmode = \"none\"\nmac = \"02:00:00:00:00:01\"",
            "3:1: mode \"none\" has no mac: leave one of the two out",
        ),
        ("[endpoints.web]\nmac = \"x\"", "2:7: \"x\" is not a hardware address: "),
        (
            "[endpoints.web]\nnetns = \"web\"",
            "2:9: \"web\" is not a path from the root: write /run/netns/NAME",
        ),
        (
            "[endpoints.web]\negress = \"50\"",
            "2:10: \"50\" is not a rate: write it like 500kbit, 50mbit or 1.5gbit",
        ),
        (
            "[endpoints.web]\negress-burst = 5000",
            "2:16: egress-burst is nothing without egress: say that, too",
        ),
        (
            "[endpoints.web]\negress = \"1mbit\"\negress-burst = \"64kb\"",
            "3:16: \"64kb\" is not a number of bytes: write it like 1514, 64k or 1m, 1024m at most",
        ),
        (
            "[endpoints.web]\nmode = \"none\"\negress = \"1mbit\"",
            "3:1: mode \"none\" has no egress: leave one of the two out",
        ),
        (
            "[endpoints.web]\nnetwork = \"blue\"",
            "2:11: there is no network blue: describe it as [networks.blue]",
        ),
        ("portmaps = 1", "1:12: portmaps is a list of tables, not a number: write [[portmaps]]"),
        ("[[portmaps]]\ntarget = \"192.168.0.2:80\"", "1:1: a mapping needs publish: write publish = 8088"),
        ("[[portmaps]]\npublish = 80", "1:1: a mapping needs target: write target = \"web:80\""),
        (
            "[[portmaps]]\npublish = true\ntarget = \"192.168.0.2:80\"",
            "2:11: this is true or false and is to be a string or a number",
        ),
        (
            "[[portmaps]]\npublish = 80\ntarget = \"web:80\"",
            "3:10: there is no endpoint web: describe it as [endpoints.web]",
        ),
        (
            "[[portmaps]]\npublish = 80\ntarget = \"192.168.0.2:80\"\nprotocol = \"icmp\"",
            "4:12: \"icmp\" is not a protocol: choose tcp, udp or sctp",
        ),
        (
            "[[portmaps]]\npublish = 80\ntarget = \"192.168.0.2:80\"\n[[portmaps]]\npublish = \"70-80\"\n\
             target = \"192.168.0.2:70-80\"",
            "4:1: 70-80/tcp is published twice, as 80: leave one of the two out, see vnet.toml:1:1",
        ),
        (
            "[networks.a]\nsubnets = [\"10.0.0.0/8\"]\n[networks.b]\nsubnets = [\"10.1.0.0/16\"]",
            "4:12: 10.1.0.0/16 overlaps 10.0.0.0/8 of network a: choose another prefix for one of the two, see \
             vnet.toml:2:12",
        ),
        (
            "[endpoints.a]\naddresses = [\"192.168.0.2\"]\n[endpoints.b]\naddresses = [\"192.168.0.2\"]",
            "4:14: address 192.168.0.2 is there twice: change one of the two, see vnet.toml:2:14",
        ),
        (
            "[[masquerades]]\nsources = \"10.0.0.0/8\"\n[[masquerades]]\nsources = \"10.0.0.0/8\"",
            "3:1: masquerade of 10.0.0.0/8 is there twice: change one of the two, see vnet.toml:1:1",
        ),
        ("[[direct]]\naddresses = []", "1:1: a direct link needs between: write between = "),
        ("[[direct]]\nbetween = [\"web\"]", "1:1: a direct link is between two endpoints: name both"),
        (
            "[endpoints.a]\n[endpoints.b]\n[[direct]]\nbetween = [\"a\", \"b\"]",
            "3:1: a direct link needs addresses: write addresses = ",
        ),
        (
            "[endpoints.a]\n[[direct]]\nbetween = [\"a\", \"b\"]\naddresses = [\"10.0.0.0/31\", \"10.0.0.1/31\"]",
            "3:11: there is no endpoint b: describe it as [endpoints.b]",
        ),
        ("[[masquerades]]\nto = \"203.0.113.1\"", "1:1: a masquerade rule needs sources: write sources = "),
        (
            "[[floating]]\ntarget = \"192.168.0.2\"",
            "1:1: a floating address needs external: write external = ",
        ),
        ("excluded = [\"10.0.0.1/8\"]", "1:13: 10.0.0.1/8 is an address inside a prefix: "),
    ] {
        let found = problems(&[text]);
        assert!(found[0].starts_with(&format!("vnet.toml:{expected}")), "{text}\n{found:#?}\n{expected}");
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
    }
}

#[test]
fn all_problems_are_found_at_once_and_in_order() {
    let text =
        "ä = 1\n[instance]\nxyz = 2\nmax-flows = 1\n[[portmaps]]\npublish = 0\n\"ü\" = 1\ntarget = \"web\"\n";
    let places: Vec<String> = problems(&[&text.replace('ä', "zz")])
        .iter()
        .map(|line| line.split(": ").next().unwrap().to_owned())
        .collect();
    let expected = ["1:1", "3:1", "4:13", "6:11", "7:1", "8:10"].map(|place| format!("vnet.toml:{place}"));
    assert_eq!(places, expected);
}

#[test]
fn later_files_add_to_earlier_ones_and_conflicts_name_both() {
    let first =
        "[instance]\nuplinks = [\"eth0\"]\nflood-rate = 1\n[networks.blue]\nsubnets = [\"10.1.0.0/24\"]\n";
    let second = "[instance]\nuplinks = [\"eth1\"]\nflood-total = 2\n[endpoints.web]\nnetwork = \"blue\"\n";
    let file = read(sources(&[first, second]), &Known::default()).unwrap();
    let uplinks: Vec<&str> = file.description.uplinks.iter().map(|name| name.as_str()).collect();
    assert_eq!(uplinks, ["eth0", "eth1"]);
    assert_eq!((file.description.change.flood_rate, file.description.change.flood_total), (Some(1), Some(2)));
    let again = problems(&[first, &first.replace("blue", "green"), first]);
    assert_eq!(
        again,
        [
            "1.toml:3:14: flood-rate is said twice: leave one of the two out, see vnet.toml:3:14",
            "1.toml:5:12: 10.1.0.0/24 overlaps 10.1.0.0/24 of network blue: choose another prefix for one of the \
             two, see vnet.toml:5:12",
            "2.toml:3:14: flood-rate is said twice: leave one of the two out, see vnet.toml:3:14",
            "2.toml:4:11: network blue is described twice: leave one of the two out, see vnet.toml:4:11",
        ]
    );
}

/// The properties of an object of the schema, with those of the objects inside of it.
fn properties(schema: &Value, pointer: &str) -> BTreeSet<String> {
    let object = schema.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
    object["properties"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_schema_has_the_keys_that_are_read() {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    for (text, pointer) in [
        ("x = 1", ""),
        ("[instance]\nx = 1", "/$defs/Instance"),
        ("[networks.default]\nx = 1", "/$defs/Network"),
        ("[endpoints.web]\nx = 1", "/$defs/Endpoint"),
        ("[[portmaps]]\npublish = 80\ntarget = \"192.168.0.2:80\"\nx = 1", "/$defs/PortMap"),
        (
            "[endpoints.a]\n[endpoints.b]\n[[direct]]\nbetween = [\"a\", \"b\"]\naddresses = []\nx = 1",
            "/$defs/Direct",
        ),
        ("[[masquerades]]\nsources = \"10.0.0.0/8\"\nx = 1", "/$defs/Masquerade"),
        ("[[floating]]\nexternal = \"203.0.113.5\"\ntarget = \"192.168.0.2\"\nx = 1", "/$defs/Floating"),
    ] {
        let found = problems(&[text]);
        let known = found[0].split(" may have ").nth(1).unwrap_or_else(|| panic!("{found:?}"));
        let known: BTreeSet<String> = known.split(", ").map(str::to_owned).collect();
        assert_eq!(properties(&schema, pointer), known, "{text}");
    }
}

#[test]
fn many_mappings_are_read_and_compared_in_no_time() {
    let mapping = |nth: u32| {
        let (port, host) = (1 + nth % 40_000, nth / 40_000);
        format!("[[portmaps]]\npublish = \"203.0.113.{host}:{port}\"\ntarget = \"web:{port}\"\n")
    };
    let time = |count: u32| {
        let text = format!("[endpoints.web]\n{}", (0..count).map(mapping).collect::<String>());
        let begun = std::time::Instant::now();
        let file = read(sources(&[&text]), &Known::default()).unwrap();
        assert_eq!(diff(None, &file.description).len(), count as usize + 2);
        begun.elapsed()
    };
    // The least of some, taken in turn: others work on the machine as well.
    let pairs: Vec<_> = (0..5).map(|_| (time(2_000), time(32_000))).collect();
    let few = pairs.iter().map(|pair| pair.0).min().unwrap();
    let many = pairs.iter().map(|pair| pair.1).min().unwrap();
    assert!(many < few * 64, "16 times as many took {many:?} instead of {few:?}");
}

#[test]
fn what_is_not_toml_ends_that_file_alone_and_hides_nothing_but_what_it_may_hold() {
    let broken = "[endpoints.web]\nnetwork = \n[networks.blue]\n";
    let other =
        "[[portmaps]]\npublish = 80\ntarget = \"web:80\"\nxyz = 1\n[endpoints.db]\nnetwork = \"blue\"\n";
    let flawed = read(sources(&[broken, other]), &Known::default()).unwrap_err();
    assert!(!flawed.doubt.instance && !flawed.doubt.router);
    assert!(flawed.doubt.endpoints.iter().any(|name| name.as_str() == "web"), "{:?}", flawed.doubt);
    assert!(flawed.doubt.networks.iter().any(|name| name.as_str() == "blue"), "{:?}", flawed.doubt);
    let found = flawed.problems(Vec::new());
    let [syntax, key] = found.lines() else { panic!("{found}") };
    assert!(syntax.starts_with("vnet.toml:2:") && syntax.contains("this is not TOML"), "{syntax}");
    assert!(key.starts_with("1.toml:4:1: \"xyz\" is not known"), "{key}");
    let named = "[instance]\n[endpoints.web]\n[networks.blue]\n[networks.default\n";
    let doubt = read(sources(&[named, other]), &Known::default()).unwrap_err().doubt;
    assert!(doubt.instance && doubt.networks.contains(&crate::spec::Name::default_network()), "{doubt:?}");
    // It cannot hold what it does not name.
    let found = problems(&["[endpoints.web]\n=", other]);
    assert!(found.iter().any(|line| line.contains("there is no network blue")), "{found:?}");
    // Once it can be understood, what it does not hold is missing.
    let mended = problems(&["[endpoints.web]\n", other]);
    assert!(mended.iter().any(|line| line.contains("there is no network blue")), "{mended:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_told_with_what_is_wrong_with_the_others() {
    let mut sources = sources(&["[endpoints.web]\nxyz = 1\n", ""]);
    sources[1].text = Err("this cannot be read: it is gone".to_owned());
    let problems = read(sources.clone(), &Known::default()).unwrap_err().problems(Vec::new());
    assert_eq!(problems.lines()[0], "1.toml: this cannot be read: it is gone");
    assert!(problems.lines()[1].starts_with("vnet.toml:2:1: ") && problems.make_no_sense, "{problems}");
    sources.remove(0);
    let problems = read(sources, &Known::default()).unwrap_err().problems(Vec::new());
    assert!(problems.lines().len() == 1 && !problems.make_no_sense, "{problems}");
}

#[test]
fn of_flawed_files_the_sound_parts_are_kept_where_they_stand() {
    let text = "[networks.a]\nmtu = 1\n[networks.b]\n[endpoints.x]\nnetwork = \"b\"\nxyz = 1\n[endpoints.y]\n\
                [[floating]]\nexternal = \"203.0.113.9\"\ntarget = \"nobody\"\n\
                [[floating]]\nexternal = \"203.0.113.8\"\ntarget = \"y\"\n[instance]\nuplinks = [\"eth0\"]\n";
    let flawed = read(sources(&[text]), &Known::default()).unwrap_err();
    let description = &flawed.sound.description;
    let names: Vec<&str> = description.networks.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["b"]);
    let names: Vec<&str> = description.endpoints.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["y"]);
    assert_eq!(description.floating.len(), 1);
    assert_eq!(description.uplinks.len(), 1);
    let names = |names: &std::collections::HashSet<crate::spec::Name>| {
        names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        (names(&flawed.doubt.networks), names(&flawed.doubt.endpoints)),
        (vec!["a".to_owned()], vec!["x".to_owned()])
    );
    assert!(!flawed.doubt.instance && !flawed.doubt.router);
    // What the host has against a part is told with the place of that part.
    let error = crate::manage::Error::DefaultNetwork;
    let refused = crate::manage::RefusedPart { part: crate::manage::Part::Floating(0), error };
    let problems = flawed.problems(vec![refused]);
    assert_eq!(problems.lines().len(), 4, "{problems}");
    assert!(problems.lines()[3].starts_with("vnet.toml:11:1: "), "{problems}");
}

#[test]
fn json_says_the_same_and_has_the_same_problems_with_their_places() {
    let text = "[instance]\nuplinks = [\"eth0\"]\ntimeouts = { dns = \"20s\" }\n[networks.blue]\nsubnets = [\"10.1.0.0/24\"]\n\
                [endpoints.web]\nnetwork = \"blue\"\n[[portmaps]]\npublish = 80\ntarget = \"web:80\"\n";
    let file = read(sources(&[text]), &Known::default()).unwrap();
    let json = serde_json::to_string_pretty(&Model::from(&file.description)).unwrap();
    assert_eq!(read(sources(&[&json]), &Known::default()).unwrap().description, file.description);
    let json = "{\n  \"endpoints\": {\n    \"web\": { \"adress\": 1 }\n  },\n  \"portmaps\": [\n    { \"publish\": 80 }\n  ]\n}\n";
    let found = problems(&[json]);
    assert!(found[0].starts_with("vnet.toml:3:14: \"adress\" is not known"), "{found:?}");
    assert!(found[1].starts_with("vnet.toml:6:5: a mapping needs target"), "{found:?}");
    assert_eq!(found.len(), 2);
    let found = problems(&["{\n  \"version\": 1,\n}\n"]);
    assert!(found[0].starts_with("vnet.toml:3:1: this is not JSON: key must be a string"), "{found:?}");
}
