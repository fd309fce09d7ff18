//! `vnet top`: on a terminal, whatever becomes of it, and as tables; with real traffic, and with more than one can see.

use std::net::IpAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use aya::maps::{HashMap, Map, MapData};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;
use vnet::top::{App, Event, Row, Snapshot, Tab, Table};
use vnet_common::{Addr, CtEntry, CtState, Origin, Port, Proto, Tuple, Zone, maps};
use vnet_tests::lab::{HOST_V4, Lab, eventually, vnet_binary};
use vnet_tests::peer::{Ask, Server};
use vnet_tests::report::report;
use vnet_tests::terminal::OnTerminal;

fn on_terminal(lab: &Lab, args: &[&str]) -> OnTerminal {
    let binary = vnet_binary().to_str().expect("a path in UTF-8").to_owned();
    let argv: Vec<String> =
        [binary, "top".to_owned()].into_iter().chain(args.iter().map(|&arg| arg.to_owned())).collect();
    OnTerminal::start(lab.host(), &argv, &lab.environment())
}

/// Questions to a published port, from outside, until this is dropped.
struct Traffic {
    stop: Option<mpsc::Sender<()>>,
    asking: Option<std::thread::JoinHandle<()>>,
}

impl Traffic {
    fn new(lab: &Lab) -> Self {
        let outside = lab.outside().clone();
        let (stop, stopped) = mpsc::channel::<()>();
        let asking = std::thread::spawn(move || {
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                Ask::tcp((HOST_V4, 8088).into()).in_netns(&outside);
            }
        });
        Self { stop: Some(stop), asking: Some(asking) }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(asking) = self.asking.take() {
            let _ = asking.join();
        }
    }
}

#[test]
fn a_terminal_shows_it_and_is_given_back() {
    let lab = Lab::up();
    let web = lab.endpoint("web");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", web.name())]);
    let _server = Server::echo(&web, "0.0.0.0:80");
    let traffic = Traffic::new(&lab);
    let mut top = on_terminal(&lab, &["--interval", "0.2"]);
    top.shows(&["vnet top", "1 endpoints, 1 mappings"]);
    top.shows(&["ENDPOINT", "SENT", "PKT/S", "RECEIVED", "FLOWS"]);
    top.shows(&[web.name(), "default", "kbit/s"]);
    assert!(top.is_taken_over());
    top.press("2");
    top.shows(&["8088/tcp", web.name(), "kbit/s"]);
    top.press("3");
    let flow = format!("> {HOST_V4}:8088");
    top.shows(&["tcp", &flow]);
    // A filter that nothing holds, and one that something does.
    top.press("/nothing of the kind\r");
    top.shows(&["none of "]);
    top.shows(&["filter: nothing of the kind"]);
    top.press("\u{1b}");
    top.shows(&["tcp", &flow]);
    top.press("p");
    top.shows(&["paused"]);
    drop(traffic);
    // In a smaller window and in a larger one the last line is the last.
    for (columns, rows) in [(80, 10), (160, 50)] {
        top.resize(columns, rows);
        let help = || top.lines().last().is_some_and(|line| line.contains("q end")).then_some(());
        eventually(help, || format!("help in the last line of {columns} by {rows}: {:#?}", top.lines()));
    }
    top.press("4");
    top.shows(&["INTERFACE", "REASON"]);
    top.press("h");
    top.shows(&["sort by the next column"]);
    // It goes on when the instance goes away, and says so; and comes back with it.
    top.press("hp1");
    lab.vnet_ok(&["down"]);
    top.shows(&["is not up"]);
    lab.vnet_ok(&["up"]);
    top.shows(&["q end"]);
    top.press("q");
    assert_eq!(top.wait(), Some(0));
    for (keys, signal) in
        [("\u{3}", None), ("", Some(Signal::SIGTERM)), ("", Some(Signal::SIGINT)), ("", Some(Signal::SIGHUP))]
    {
        let mut top = on_terminal(&lab, &["--show", "flows"]);
        top.shows(&["vnet top", "endpoints"]);
        assert!(top.is_taken_over());
        top.press(keys);
        signal.into_iter().for_each(|signal| top.signal(signal));
        assert_eq!(top.wait(), Some(0), "{keys:?} {signal:?}");
    }
    // What cannot be shown at all is said without taking the terminal over.
    lab.vnet_ok(&["down"]);
    let mut top = on_terminal(&lab, &[]);
    top.shows(&["is not up"]);
    assert_eq!(top.wait(), Some(1));
}

/// Set for the process that is to panic.
const PANICS: &str = "VNET_TEST_PANICS";

#[test]
fn a_panic_gives_the_terminal_back() {
    if std::env::var_os(PANICS).is_some() {
        return panic_while_it_is_shown();
    }
    let lab = Lab::new();
    let this = std::env::current_exe().expect("the running test has a path");
    let this = this.to_str().expect("a path in UTF-8").to_owned();
    let argv =
        [this, "--exact".to_owned(), "a_panic_gives_the_terminal_back".to_owned(), "--nocapture".to_owned()];
    let mut shown = OnTerminal::start(lab.host(), &argv, &[(PANICS.to_owned(), "1".to_owned())]);
    shown.shows(&["index out of bounds"]);
    assert_eq!(shown.wait(), Some(101));
}

/// Draws a row that lacks what its table has columns for.
fn panic_while_it_is_shown() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (sender, events) = tokio::sync::mpsc::channel(1);
    let table = |tab| Table { tab, rows: vec![Row { words: Vec::new(), numbers: Vec::new() }] };
    let tables = Tab::ALL.map(table);
    let broken = Snapshot { seconds: 1.0, tables, flows: 0, new_flows: 0.0, drops: 0.0 };
    sender.try_send(Event::Counted(Ok(broken))).expect("there is room for one");
    let shown = runtime.block_on(vnet::top::run(App::new(Tab::Endpoints), sender, events));
    panic!("it was shown: {shown:?}");
}

#[test]
fn without_a_terminal_there_are_tables() {
    let lab = Lab::up();
    let web = lab.endpoint("web");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", web.name())]);
    let _server = Server::echo(&web, "0.0.0.0:80");
    let traffic = Traffic::new(&lab);
    // Each question is a flow, and each has packets in both directions.
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap_or_else(|| panic!("no {key} in {row:#}"));
    let goes_on = || {
        let top = lab.vnet_json(&["top", "--interval", "0.5"]);
        assert_eq!(top["version"], 1);
        let [endpoint, mapping] = [&top["endpoints"][0], &top["mappings"][0]];
        assert_eq!((&endpoint["endpoint"], &mapping["published"]), (&web.name().into(), &"8088/tcp".into()));
        (number(endpoint, "new_flows") > 4.0).then(|| top.clone())
    };
    let top = eventually(goes_on, || "flows to begin".to_owned());
    let [endpoint, mapping] = [&top["endpoints"][0], &top["mappings"][0]];
    assert_eq!(number(endpoint, "new_flows"), number(mapping, "new_flows"));
    assert_eq!(number(endpoint, "new_flows"), number(&top, "new_flows"));
    // Packets of a question in one direction: SYN, what is asked, acknowledgements, FIN.
    let of_one = number(mapping, "in_packets") / number(mapping, "new_flows");
    assert!((2.5..10.0).contains(&of_one), "{top:#}");
    for (here, there) in [("received_packets", "in_packets"), ("sent_packets", "out_packets")] {
        let ratio = number(endpoint, here) / number(mapping, there);
        assert!((0.6..1.7).contains(&ratio), "{here} at the link, {there} of the flows: {top:#}");
    }
    let sent = top["flows"].as_array().expect("flows");
    assert!(sent.iter().all(|flow| flow["to"] == format!("default/{}", web.name())), "{sent:#?}");
    drop(traffic);

    lab.outside().ip(&format!("route add 192.168.0.0/24 via {HOST_V4}"));
    let _ = lab.outside().run(&["ping", "-c1", "-W1", &web.v4().to_string()]);
    let text = lab
        .vnet_ok(&["top", "--once", "--interval", "0.1", "--show", "drops,endpoints", "--limit", "1"])
        .stdout;
    assert!(
        text.contains("direct-access") && text.contains(web.name()) && !text.contains("PUBLISHED"),
        "{text}"
    );
    let lines = lab.vnet_ok(&["--json", "top", "-n", "3", "--interval", "0.1", "--show", "drops"]).stdout;
    let parsed: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(parsed.len(), 3, "{lines}");
    lab.vnet(&["top", "--interval", "0"]).fails_with(2, &["--interval", "0.1"]);
    lab.vnet_ok(&["down"]);
    lab.vnet(&["top", "--once"]).fails_with(1, &["not up"]);
}

const TUPLE: usize = size_of::<Tuple>();
const ENTRY: usize = size_of::<CtEntry>();

/// Both entries of one of many flows of an endpoint.
fn made_up(n: u32, now: u32) -> [([u8; TUPLE], [u8; ENTRY]); 2] {
    let original = Tuple {
        src: Addr::v4([192, 168, 0, 2]),
        dst: Addr::from(IpAddr::from((0xc612_0000 + n / 16_384).to_be_bytes())),
        sport: Port::new(1024 + (n % 16_384) as u16),
        dport: Port::new(443),
        zone: Zone { id: 1 },
        proto: Proto::TCP,
        reserved: 0,
    };
    let sport = Port::new(49_152 + (n % 16_384) as u16);
    let translated = Tuple { src: Addr::from(HOST_V4), sport, zone: Zone::WORLD, ..original };
    let opener = CtEntry {
        translated,
        packets: 1,
        bytes: 60,
        last_seen: now,
        created: now,
        mapping: 0,
        state: CtState::Established as u8,
        origin: Origin::Opener as u8,
        flags: 0,
        reserved: 0,
    };
    let answer = CtEntry { translated: original.answer(), origin: Origin::Answer as u8, ..opener };
    [(original, opener), (translated.answer(), answer)]
        .map(|(key, value)| (bytemuck::cast(key), bytemuck::cast(value)))
}

#[test]
fn keys_are_heard_beside_fifty_thousand_mappings_and_a_hundred_thousand_flows() {
    const FLOWS: u32 = 100_000;
    const MAPPINGS: u32 = 50_000;
    let lab = Lab::up();
    let web = lab.endpoint("web");
    // Without the ports that masquerade uses.
    let lines: String = (0..MAPPINGS)
        .map(|n| {
            (if n < 48_000 { 1000 + n } else { n - 48_000 + 1000 }, if n < 48_000 { "tcp" } else { "udp" })
        })
        .map(|(port, proto)| format!("{port} {}:{port} --proto {proto}\n", web.name()))
        .collect();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("mappings");
    std::fs::write(&file, lines).expect("written");
    lab.vnet_ok(&["portmap", "add", "--file", file.to_str().expect("ASCII")]);
    let pin = lab.pin_dir().join(maps::CONNTRACK);
    let data = MapData::from_pin(&pin).unwrap_or_else(|e| panic!("open {}: {e}", pin.display()));
    let mut table: HashMap<_, [u8; TUPLE], [u8; ENTRY]> =
        HashMap::try_from(Map::HashMap(data)).expect("of these sizes");
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("a clock").tv_sec() as u32;
    for (key, value) in (0..FLOWS).flat_map(|n| made_up(n, now)) {
        table.insert(key, value, 0).expect("there is room");
    }
    let began = Instant::now();
    let printed = lab.vnet_ok(&["top", "--once", "--interval", "0.1"]).stdout;
    assert!(printed.starts_with(&format!("1 endpoints, {MAPPINGS} mappings, {FLOWS} flows")), "{printed}");
    assert!(printed.contains(&format!("and {} more", FLOWS - 20)), "{printed}");
    let counted = began.elapsed();
    let mut top = on_terminal(&lab, &["--interval", "0.1", "--show", "flows"]);
    let summary = format!("{MAPPINGS} mappings, {FLOWS} flows");
    top.shows(&[&summary]);
    // Keys while it counts without a pause.
    let mut slowest = Duration::ZERO;
    for (keys, words) in
        [("2", "PUBLISHED"), ("3", "ORIGINAL"), ("1", "ADDRESSES"), ("4", "REASON"), ("3", "ORIGINAL")]
    {
        let began = Instant::now();
        top.press(keys);
        top.shows(&[words]);
        slowest = slowest.max(began.elapsed());
    }
    top.press("/:1024 > 198\r");
    top.shows(&[" of 100000"]);
    top.press("q");
    assert_eq!(top.wait(), Some(0));
    report(format_args!(
        "{FLOWS} flows, {MAPPINGS} mappings: printed in {counted:?}, slowest key {slowest:?}"
    ));
    // A count of all that takes far longer than this on a slow machine, and more so without optimisation.
    assert!(slowest < Duration::from_secs(5), "{slowest:?} until a key was heard");
}
