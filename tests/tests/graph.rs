//! `vnet graph`: what is drawn is what is there, rates are those of real traffic, and other programs read the drawings.

use std::fs;

use serde_json::Value;
use vnet_tests::lab::{HOST_V4, Lab, UPLINK, eventually};
use vnet_tests::peer::{Ask, Server};

/// The endpoint of that name in a graph's JSON, with the name of its network.
#[track_caller]
fn endpoint<'a>(graph: &'a Value, name: &str) -> (&'a str, &'a Value) {
    let networks = graph["networks"].as_array().expect("networks");
    let all = networks.iter().flat_map(|network| {
        let endpoints = network["endpoints"].as_array().expect("endpoints");
        endpoints.iter().map(|endpoint| (network["name"].as_str().expect("a name"), endpoint))
    });
    all.into_iter()
        .find(|(_, endpoint)| endpoint["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {graph:#}"))
}

#[test]
fn what_is_there_is_drawn() {
    let lab = Lab::up();
    lab.vnet_ok(&["network", "create", "inner", "--subnet", "10.1.0.0/24", "--internal"]);
    let web = lab.endpoint("web");
    let inner = lab.endpoint_with("inner", &["--network", "inner"]);
    let lonely = lab.name("lonely");
    lab.vnet_ok(&["ns", "create", &lonely, "--mode", "none"]);
    let [near, side] = ["near", "side"].map(|name| lab.name(name));
    lab.vnet_ok(&["ns", "create", &near, "--mode", "host"]);
    lab.vnet_ok(&["ns", "create", &side, "--mode", &format!("container:{}", web.name())]);
    lab.vnet_ok(&["portmap", "add", "203.0.113.1:8000-8010", &format!("{}:80-90", web.name())]);
    lab.host().ip("addr add 203.0.113.77/24 dev eth0");
    lab.vnet_ok(&["up"]);
    lab.vnet_ok(&["floating", "add", "203.0.113.77", web.name()]);
    lab.vnet_ok(&["limit", "set", web.name(), "--egress", "50mbit"]);

    let graph = lab.vnet_json(&["graph", "--interval", "0"]);
    assert_eq!((&graph["version"], &graph["instance"]), (&1.into(), &lab.instance().into()));
    assert_eq!(graph["interval"], Value::Null);
    assert_eq!(graph["uplinks"][0]["name"], UPLINK);
    let addresses = graph["uplinks"][0]["addresses"].as_array().expect("addresses");
    assert!(addresses.contains(&HOST_V4.to_string().into()), "{graph:#}");
    let (network, drawn) = endpoint(&graph, web.name());
    assert_eq!(network, "default");
    assert_eq!(drawn["addresses"], serde_json::json!(web.addresses()));
    let published =
        serde_json::json!([{"host": "203.0.113.1:8000-8010", "protocol": "tcp", "target": "80-90"}]);
    assert_eq!(drawn["published"], published);
    assert_eq!(drawn["floating"], serde_json::json!([{"external": "203.0.113.77", "address": web.v4()}]));
    assert_eq!((&drawn["egress_limit"], &drawn["ingress_limit"]), (&50_000_000.into(), &Value::Null));
    assert_eq!(drawn["rates"], Value::Null);
    assert_eq!(endpoint(&graph, inner.name()).0, "inner");
    let unlinked = graph["unlinked"].as_array().expect("endpoints");
    let of = |it: &Value| [&it["name"], &it["in_host"], &it["shares_with"]].map(Clone::clone);
    let expected = [
        [lonely.into(), false.into(), Value::Null],
        [near.into(), true.into(), Value::Null],
        [side.into(), false.into(), web.name().into()],
    ];
    assert_eq!(unlinked.iter().map(of).collect::<Vec<_>>(), expected);

    let dir = tempfile::tempdir().expect("a directory");
    let [svg, status] = ["graph.svg", "status.svg"].map(|name| dir.path().join(name));
    let [svg, status] = [&svg, &status].map(|path| path.to_str().expect("ASCII"));
    lab.vnet_ok(&["graph", "-o", svg, "--interval", "0"]);
    let said = lab.vnet_ok(&["status", "--svg", status]).stdout;
    assert!(said.contains("endpoints: 5"), "{said}");
    for file in [svg, status] {
        let drawing = fs::read_to_string(file).expect("a drawing");
        let words =
            ["203.0.113.1:8000-8010/tcp → 80-90", "203.0.113.77 ⇄", "limit ↑ 50mbit", "internal", web.name()];
        assert!(words.iter().all(|word| drawing.contains(word)), "{drawing}");
    }
    // Programs that draw from what they are told, and one that draws the drawing.
    let picture = dir.path().join("graph.png");
    let argv = ["rsvg-convert", "--format=png", "--output", picture.to_str().expect("ASCII"), svg];
    lab.host().run(&argv).ok();
    let dot = lab.vnet_ok(&["graph", "--format", "dot", "--interval", "0"]).stdout;
    let source = dir.path().join("graph.dot");
    fs::write(&source, &dot).expect("written");
    lab.host().run(&["dot", "-Tcanon", source.to_str().expect("ASCII")]).ok();
    let mermaid = lab.vnet_ok(&["graph", "--format", "mermaid", "--interval", "0"]).stdout;
    assert!(mermaid.starts_with("flowchart LR\n") && mermaid.contains(web.name()), "{mermaid}");
    lab.vnet(&["graph", "-o", "/nowhere/x.svg", "--interval", "0"]).fails_with(1, &["/nowhere/x.svg"]);
}

#[test]
fn rates_are_those_of_the_traffic() {
    let lab = Lab::up();
    let web = lab.endpoint("web");
    let still = lab.endpoint("still");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", web.name())]);
    let server = Server::echo(&web, "0.0.0.0:80");
    // Questions from outside go past the host's end of the link, and are counted all the same.
    let outside = lab.outside().clone();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let asking = std::thread::spawn(move || {
        let mut asked = 0_u64;
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            Ask::tcp((HOST_V4, 8088).into()).in_netns(&outside);
            asked += 1;
        }
        asked
    });
    let number = |value: &Value| value.as_f64().expect("a number");
    let rates = eventually(
        || {
            let graph = lab.vnet_json(&["graph", "--interval", "0.5"]);
            let rates = endpoint(&graph, web.name()).1["rates"].clone();
            let quiet = &endpoint(&graph, still.name()).1["rates"];
            assert!(
                number(&quiet["received_bits"]) < number(&rates["received_bits"]) || rates.is_null(),
                "{graph:#}"
            );
            (number(&rates["sent_packets"]) >= 8.0).then_some((rates, graph["uplinks"][0]["rates"].clone()))
        },
        || "traffic".to_owned(),
    );
    drop(stop);
    let asked = asking.join().expect("nobody panicked");
    assert_eq!(server.seen().len() as u64, asked);
    // Each question is a connection: as many packets one way as the other, give or take those without data.
    let (of_web, of_uplink) = rates;
    for field in ["sent_packets", "received_packets", "sent_bits", "received_bits"] {
        let [web, uplink] = [&of_web, &of_uplink].map(|rates| number(&rates[field]));
        assert!(web > 0.0 && uplink > 0.0, "{field}: {of_web} {of_uplink}");
    }
    let ratio = number(&of_web["sent_packets"]) / number(&of_web["received_packets"]);
    assert!((0.5..2.0).contains(&ratio), "{of_web}");
    // What comes in by the uplink is what the endpoint receives, and both are read within milliseconds.
    let ratio = number(&of_web["received_packets"]) / number(&of_uplink["received_packets"]);
    assert!((0.6..1.6).contains(&ratio), "{of_web} {of_uplink}");
}
