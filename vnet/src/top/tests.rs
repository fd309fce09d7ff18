use std::sync::Arc;

use bytemuck::Zeroable as _;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use vnet_common::{Addr, CtState, Port, Proto, Tuple, Zone};

use super::*;
use crate::flow::{Flow, Halves, Traffic};
use crate::output::{Format, Names, Networks};

const NETWORK: Zone = Zone { id: 1 };

fn addr(text: &str) -> Addr {
    Addr::from(text.parse::<std::net::IpAddr>().unwrap())
}

fn traffic(packets: u64, bytes: u64) -> Traffic {
    Traffic { packets, bytes }
}

fn tuple(zone: Zone, src: &str, sport: u16, dst: &str, dport: u16) -> Tuple {
    let (src, dst, sport, dport) = (addr(src), addr(dst), Port::new(sport), Port::new(dport));
    Tuple { src, dst, sport, dport, zone, proto: Proto::TCP, ..Tuple::zeroed() }
}

/// A client outside that uses the published port 8088.
fn flow(port: u16, created: u32, sent: Traffic, received: Traffic) -> Flow {
    Flow {
        original: tuple(Zone::WORLD, "203.0.113.2", port, "203.0.113.1", 8088),
        translated: tuple(NETWORK, "203.0.113.2", port, "192.168.0.2", 80),
        state: CtState::Established,
        confirmed: true,
        halves: Halves::Both,
        mapping: 7,
        mapped: false,
        brief: false,
        created,
        last_seen: created,
        sent,
        received,
    }
}

fn counts(at: f64, sent: u64, flows: Vec<Flow>, dropped: u64) -> Counts {
    let place = (NETWORK, addr("192.168.0.2"));
    let names = Names {
        networks: Networks([(1, "default".to_owned())].into()),
        endpoints: [(place, "web".to_owned())].into(),
    };
    let endpoint = |name: &str, places, traffic| EndpointCounts {
        name: name.to_owned(),
        network: "default".to_owned(),
        places,
        traffic,
    };
    let mapping = |id, published: &str| Mapping {
        id,
        published: published.to_owned(),
        endpoint: "web".to_owned(),
        target: "80".to_owned(),
    };
    Counts {
        at,
        now: 100,
        endpoints: vec![
            endpoint("web", vec![place], Some([traffic(sent, sent * 100), traffic(sent / 2, sent * 10)])),
            endpoint("lonely", Vec::new(), None),
        ],
        mappings: Arc::new(vec![mapping(7, "8088/tcp"), mapping(8, "5353/udp")]),
        flows,
        drops: vec![Dropped {
            interface: "eth0".to_owned(),
            hook: "from_uplink",
            reason: "direct-access",
            packets: dropped,
        }],
        names: Arc::new(names),
    }
}

/// Two counts, two seconds apart: one flow goes on, one begins, and one has become another with the same ends.
fn two_counts() -> (Counts, Counts) {
    let before = vec![
        flow(1000, 10, traffic(10, 1000), traffic(5, 500)),
        flow(1001, 20, traffic(90, 9000), traffic(0, 0)),
    ];
    let after = vec![
        flow(1000, 10, traffic(30, 3000), traffic(9, 900)),
        flow(1001, 90, traffic(4, 400), traffic(2, 200)),
        flow(1002, 95, traffic(6, 600), traffic(0, 0)),
    ];
    (counts(0.0, 100, before, 7), counts(2.0, 300, after, 27))
}

fn numbers(snapshot: &Snapshot, tab: Tab, row: &str) -> Vec<f64> {
    let table = snapshot.table(tab);
    let found = table.rows.iter().find(|it| it.words.iter().any(|word| word.contains(row)));
    found.unwrap_or_else(|| panic!("no {row} in {table:?}")).numbers.clone()
}

#[test]
fn rates_are_of_what_has_come_since() {
    let (before, after) = two_counts();
    let snapshot = snapshot(Some(&before), &after);
    assert_eq!((snapshot.seconds, snapshot.flows, snapshot.new_flows, snapshot.drops), (2.0, 3, 1.0, 10.0));
    // 200 packets of 100 bytes sent in two seconds, half as many received; two flows have begun, three there are.
    assert_eq!(numbers(&snapshot, Tab::Endpoints, "web"), [80_000.0, 100.0, 8_000.0, 50.0, 1.0, 3.0]);
    let lonely = numbers(&snapshot, Tab::Endpoints, "lonely");
    assert!(lonely[..4].iter().all(|rate| rate.is_nan()) && lonely[4..] == [0.0, 0.0], "{lonely:?}");
    // 20 + 4 + 6 packets in, 4 + 2 + 0 out.
    assert_eq!(numbers(&snapshot, Tab::Mappings, "8088"), [12_000.0, 15.0, 2_400.0, 3.0, 1.0, 3.0]);
    assert_eq!(numbers(&snapshot, Tab::Mappings, "5353"), [0.0; 6]);
    assert_eq!(numbers(&snapshot, Tab::Flows, ":1000 >"), [8_000.0, 10.0, 1_600.0, 2.0, 3900.0, 90.0]);
    assert_eq!(numbers(&snapshot, Tab::Flows, ":1001 >")[..2], [1_600.0, 2.0]);
    assert_eq!(numbers(&snapshot, Tab::Drops, "direct-access"), [10.0, 27.0]);
    let flow = &snapshot.table(Tab::Flows).rows[0].words;
    let ends =
        ["world", "203.0.113.2:1000 > 203.0.113.1:8088", "default/web", "203.0.113.2:1000 > 192.168.0.2:80"];
    assert_eq!(flow[2..], ends);
    // Nothing was counted before.
    let first = super::snapshot(None, &after);
    assert!(
        first.new_flows.is_nan()
            && numbers(&first, Tab::Endpoints, "web")[..5].iter().all(|rate| rate.is_nan())
    );
    assert_eq!(numbers(&first, Tab::Endpoints, "web")[5], 3.0);
    // A link that was made anew has counted less.
    assert!(numbers(&super::snapshot(Some(&after), &before), Tab::Endpoints, "web")[0].is_nan());
}

#[test]
fn rows_are_sorted_and_selected() {
    let (before, after) = two_counts();
    let snapshot = snapshot(Some(&before), &after);
    let flows = snapshot.table(Tab::Flows);
    let (words, ends) = (Tab::Flows.words(), |order: Vec<usize>| {
        order.into_iter().map(|row| flows.rows[row].words[3][12..16].to_owned()).collect::<Vec<_>>()
    });
    assert_eq!(ends(flows.order(words, false, "")), ["1000", "1002", "1001"], "by what is sent");
    assert_eq!(ends(flows.order(words, true, "")), ["1001", "1002", "1000"]);
    assert_eq!(ends(flows.order(3, false, "")), ["1000", "1001", "1002"], "by a word");
    assert_eq!(ends(flows.order(words, false, ":1002 > 192")), ["1002"]);
    assert!(flows.order(0, false, "nowhere").is_empty());
    assert_eq!(ends(flows.order(0, false, "DEFAULT/WEB")).len(), 3, "however it is written");
}

/// What a screen shows, line by line.
fn screen(app: &mut App, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

fn app() -> App {
    let (before, after) = two_counts();
    let mut app = App::new(Tab::Endpoints);
    app.update(snapshot(Some(&before), &after));
    app
}

fn press(app: &mut App, keys: &[Key]) {
    for key in keys {
        assert_eq!(app.key(*key), Outcome::Goes, "{key:?}");
    }
}

#[test]
fn a_screen_shows_a_table_with_its_numbers_under_their_titles() {
    let lines = screen(&mut app(), 120, 10);
    assert_eq!(
        lines,
        [
            "vnet top  2 endpoints, 2 mappings, 3 flows, 1.0/s new, 10.0/s dropped",
            " 1 endpoints   2 mappings   3 flows   4 drops                                                             by SENT  1 / 2",
            "ENDPOINT   NETWORK   ADDRESSES           SENT▼     PKT/S      RECEIVED     PKT/S     NEW/S     FLOWS",
            "web        default   192.168.0.2   80.0 kbit/s     100.0    8.0 kbit/s      50.0       1.0         3",
            "lonely     default   -                       -         -             -         -         0         0",
            "",
            "",
            "",
            "",
            "q end  1-4 tables  s sort  r reverse  / filter  p pause  h help",
        ]
    );
}

#[test]
fn keys_lead_everywhere_and_every_size_is_drawn() {
    let mut app = app();
    press(&mut app, &[Key::NextTab, Key::NextTab, Key::Down, Key::Char('s'), Key::Char('r')]);
    assert_eq!(app.tab(), Tab::Flows);
    let lines = screen(&mut app, 160, 8);
    assert!(lines[1].ends_with("2 / 3"), "{lines:#?}");
    assert!(lines[2].contains("PKT/S▲"), "sorted by the next column, the other way round: {lines:#?}");
    assert!(lines[3].contains("203.0.113.2:1001") && lines[5].contains("203.0.113.2:1000"), "{lines:#?}");

    press(&mut app, &[Key::Char('/')]);
    press(&mut app, &"1002".chars().map(Key::Char).collect::<Vec<_>>());
    let lines = screen(&mut app, 160, 8);
    assert!(lines[7].starts_with("filter: 1002") && lines[1].ends_with("1 / 1 of 3"), "{lines:#?}");
    press(&mut app, &[Key::Char('q'), Key::Backspace, Key::Enter]);
    assert!(screen(&mut app, 160, 8)[7].starts_with("filter: 1002  q end"));
    press(&mut app, &[Key::Escape]);
    assert!(screen(&mut app, 160, 8)[1].ends_with(" / 3"));

    // While it is paused nothing moves.
    press(&mut app, &[Key::Char('p'), Key::Char('4')]);
    let (before, after) = two_counts();
    app.update(snapshot(None, &before));
    let lines = screen(&mut app, 100, 6);
    assert!(lines[0].contains("3 flows") && lines[5].contains("paused"), "{lines:#?}");
    press(&mut app, &[Key::Char(' ')]);
    app.update(snapshot(None, &after));
    assert!(screen(&mut app, 100, 6)[0].contains("-"), "rates are not known of one count");
    app.trouble("instance x is not up".to_owned());
    assert_eq!(screen(&mut app, 100, 6)[5], "instance x is not up");

    press(&mut app, &[Key::Char('?')]);
    assert!(screen(&mut app, 100, 20).iter().any(|line| line.contains("sort by the next column")));
    press(
        &mut app,
        &[Key::Escape, Key::End, Key::PageUp, Key::PageDown, Key::Home, Key::Up, Key::PreviousTab],
    );
    for (width, height) in [(1, 1), (10, 3), (40, 5), (80, 24), (400, 100)] {
        for tab in ['1', '2', '3', '4', 'h'] {
            press(&mut app, &[Key::Char(tab)]);
            assert_eq!(screen(&mut app, width, height).len(), usize::from(height));
        }
    }
    assert_eq!(app.key(Key::Char('q')), Outcome::Ends);
    assert_eq!(app.key(Key::Interrupt), Outcome::Ends);
    // Nothing has been counted yet.
    let mut nothing = App::new(Tab::Drops);
    press(&mut nothing, &[Key::Down, Key::End, Key::Char('s'), Key::Char('r')]);
    assert!(screen(&mut nothing, 80, 5)[0].contains("counting"));
}

#[test]
fn what_there_is_no_room_for_is_left_out_and_numbers_are_whole() {
    let mut app = app();
    press(&mut app, &[Key::Char('3')]);
    for (width, titles) in [
        (200, "PROTO STATE FROM ORIGINAL TO TRANSLATED SENT▼ PKT/S RECEIVED PKT/S TOTAL AGE"),
        (120, "PROTO STATE ORIGINAL SENT▼ RECEIVED TOTAL AGE"),
        (80, "PROTO ORIGINAL SENT▼ RECEIVED"),
        (20, "PROTO ORIGINAL"),
    ] {
        let lines = screen(&mut app, width, 6);
        let shown = lines[2].split_whitespace().collect::<Vec<_>>().join(" ");
        if width > 20 {
            assert_eq!(shown, titles, "{width} columns");
            assert!(lines[3].contains("8.0 kbit/s") && lines[3].contains("1.6 kbit/s"), "{lines:#?}");
        }
        assert!(lines[3].starts_with("tcp"), "{lines:#?}");
    }
}

#[test]
fn the_marked_row_is_always_shown() {
    let (before, _) = two_counts();
    let flows =
        (0..1000).map(|port| flow(1000 + port, 10, traffic(u64::from(port), 0), traffic(0, 0))).collect();
    let after = counts(1.0, 0, flows, 0);
    let mut app = App::new(Tab::Flows);
    app.update(snapshot(Some(&before), &after));
    let marked = |app: &mut App| {
        let (rows, selected) = app.rows(20);
        assert_eq!(rows.len(), 20);
        rows[selected].words[3][12..16].to_owned()
    };
    // Sorted by bits, all the same, and so by their words.
    for (keys, expected) in [
        (&[][..], "1000"),
        (&[Key::Down; 25][..], "1025"),
        (&[Key::Up; 3], "1022"),
        (&[Key::PageDown], "1042"),
        (&[Key::End], "1999"),
        (&[Key::PageUp], "1979"),
        (&[Key::Home], "1000"),
    ] {
        press(&mut app, keys);
        assert_eq!(marked(&mut app), expected);
    }
    press(&mut app, &[Key::End]);
    app.update(snapshot(Some(&before), &before));
    let (rows, selected) = app.rows(20);
    assert_eq!((rows.len(), selected), (2, 1), "rows have gone, and the last is marked");
}

#[test]
fn tables_and_json_say_the_same() {
    let (before, after) = two_counts();
    let snapshot = snapshot(Some(&before), &after);
    let print = |format, tabs: &[Tab], limit| {
        let mut out = Vec::new();
        snapshot.print(&mut out, format, tabs, limit).unwrap();
        String::from_utf8(out).unwrap()
    };
    let text = print(Format::Table, &[Tab::Drops, Tab::Flows], Some(2));
    assert_eq!(text.lines().next(), Some("2 endpoints, 2 mappings, 3 flows, 1.0/s new, 10.0/s dropped"));
    assert!(text.contains("\nINTERFACE  HOOK") && text.ends_with("\nand 1 more\n"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&print(Format::Json, &Tab::ALL, None)).unwrap();
    assert_eq!(
        (&json["version"], &json["seconds"], &json["total_flows"]),
        (&1.into(), &2.0.into(), &3.into())
    );
    assert_eq!(
        json["endpoints"][0],
        serde_json::json!({
            "endpoint": "web", "network": "default", "addresses": "192.168.0.2",
            "sent_bits": 80_000.0, "sent_packets": 100.0, "received_bits": 8_000.0, "received_packets": 50.0,
            "new_flows": 1.0, "flows": 3
        })
    );
    assert_eq!(json["endpoints"][1]["sent_bits"], serde_json::Value::Null);
    assert_eq!(json["flows"].as_array().unwrap().len(), 3);
    assert_eq!(
        json["drops"][0],
        serde_json::json!({
            "interface": "eth0", "hook": "from_uplink", "reason": "direct-access", "packets_per_second": 10.0, "packets": 27
        })
    );
}
