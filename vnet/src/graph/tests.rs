use super::*;
use crate::flow::Traffic;
use crate::spec;

fn rates() -> Rates {
    Rates { sent_bits: 1.25e6, sent_packets: 100.0, received_bits: 34_000.0, received_packets: 50.0 }
}

fn endpoint(number: usize) -> Endpoint {
    let addresses = [format!("192.168.0.{}", number + 2), format!("fd8a:3804:fd7d:5355::{:x}", number + 2)];
    let published = (0..number % 9).map(|port| Published {
        host: (8000 + port).to_string(),
        protocol: spec::Protocol::Tcp,
        target: "80".to_owned(),
    });
    let floating =
        Floating { external: "203.0.113.77".parse().unwrap(), address: addresses[0].parse().unwrap() };
    Endpoint {
        name: if number == 1 {
            format!("a-name-of-64-characters-{}", "x".repeat(40))
        } else {
            format!("web{number}")
        },
        addresses: addresses.iter().map(|addr| addr.parse().unwrap()).collect(),
        published: published.collect(),
        floating: if number.is_multiple_of(5) { vec![floating] } else { Vec::new() },
        egress_limit: number.is_multiple_of(3).then_some(50_000_000),
        ingress_limit: number.is_multiple_of(6).then_some(200_000_000),
        rates: number.is_multiple_of(2).then(rates),
        in_host: number == 7,
        shares_with: (number == 8).then(|| "web0".to_owned()),
        direct: match number {
            2 | 3 => vec![Direct {
                to: format!("web{}", 5 - number),
                interface: "link0".to_owned(),
                addresses: vec![format!("10.7.0.{number}").parse().unwrap()],
            }],
            _ => Vec::new(),
        },
    }
}

fn network(name: &str, endpoints: usize) -> Network {
    Network {
        name: name.to_owned(),
        bridge: format!("vn-{name}"),
        subnets: vec!["192.168.0.0/24".to_owned(), "fd8a:3804:fd7d:5355::/64".to_owned()],
        gateways: vec!["192.168.0.1".parse().unwrap()],
        internal: name == "inner",
        isolated: false,
        no_bridge: false,
        gateway_mode: spec::GatewayMode::default(),
        endpoints: (0..endpoints).map(endpoint).collect(),
    }
}

fn graph(sizes: &[usize], uplinks: usize) -> Graph {
    let uplink = |number: usize| Uplink {
        name: format!("eth{number}"),
        addresses: vec![
            "203.0.113.1".parse().unwrap(),
            "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap(),
        ],
        rates: Some(rates()),
    };
    let names = ["default", "inner", "blue", "green"];
    Graph {
        version: 1,
        instance: "de<fault".to_owned(),
        interval: Some(1.0),
        uplinks: (0..uplinks).map(uplink).collect(),
        networks: sizes.iter().zip(names).map(|(size, name)| network(name, *size)).collect(),
        unlinked: Vec::new(),
    }
}

/// A rectangle of a class.
#[derive(Clone, Copy, Debug)]
struct Rect {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

impl Rect {
    fn overlaps(&self, other: &Self) -> bool {
        self.x < other.x + other.width
            && other.x < self.x + self.width
            && self.y < other.y + other.height
            && other.y < self.y + self.height
    }

    fn holds(&self, x: f64, y: f64) -> bool {
        (self.x..=self.x + self.width).contains(&x) && (self.y..=self.y + self.height).contains(&y)
    }
}

fn attribute(line: &str, name: &str) -> Option<f64> {
    line.split_once(&format!(" {name}=\""))?.1.split('"').next()?.parse().ok()
}

fn rectangles(svg: &str, class: &str) -> Vec<Rect> {
    let of_class = svg.lines().filter(|line| line.contains(&format!("<rect class=\"{class}\"")));
    let rect = |line: &str| {
        let [x, y, width, height] = ["x", "y", "width", "height"].map(|name| attribute(line, name).unwrap());
        Rect { x, y, width, height }
    };
    of_class.map(rect).collect()
}

#[test]
fn nothing_overlaps_and_all_text_fits() {
    for (sizes, uplinks) in
        [(&[][..], 0), (&[0], 1), (&[1], 1), (&[2, 1], 1), (&[9, 3, 1], 2), (&[30, 12, 5, 3], 3), (&[50], 1)]
    {
        let graph = graph(sizes, uplinks);
        let svg = svg(&graph);
        let (cards, frames) = (rectangles(&svg, "card"), rectangles(&svg, "frame"));
        assert_eq!(cards.len(), sizes.iter().sum::<usize>() + uplinks);
        assert_eq!(frames.len(), sizes.len() + 1);
        for all in [&cards, &frames] {
            for (n, one) in all.iter().enumerate() {
                assert!(all[n + 1..].iter().all(|other| !one.overlaps(other)), "{sizes:?}: {one:?}");
            }
        }
        let whole = svg.lines().next().unwrap();
        let page = Rect {
            x: 0.0,
            y: 0.0,
            width: attribute(whole, "width").unwrap(),
            height: attribute(whole, "height").unwrap(),
        };
        for card in &cards {
            let within = |frame: &Rect| {
                frame.holds(card.x, card.y) && frame.holds(card.x + card.width, card.y + card.height)
            };
            assert!(frames.iter().any(within) && within(&page), "{sizes:?}: {card:?}");
        }
        for line in svg.lines().filter(|line| line.contains("<text ") && !line.contains("text-anchor")) {
            let (x, y) = (attribute(line, "x").unwrap(), attribute(line, "y").unwrap());
            let text = line.split_once('>').unwrap().1.split_once("</text>").unwrap().0;
            let text = text.replace("&lt;", "<").replace("&amp;", "&");
            let size = if line.contains("\"name\"") { 14.0 } else { 12.0 };
            let end = x + text.chars().count() as f64 * size * 0.6;
            let around = cards
                .iter()
                .filter(|card| card.holds(x, y))
                .chain(frames.iter().filter(|frame| frame.holds(x, y)));
            let innermost =
                around.min_by(|a, b| a.width.total_cmp(&b.width)).unwrap_or_else(|| panic!("{line}"));
            assert!(innermost.holds(end, y) && innermost.holds(x, y - size), "{line} in {innermost:?}");
        }
    }
}

#[test]
fn drawings_are_the_same_each_time_and_say_everything() {
    let mut graph = graph(&[9, 2], 1);
    graph.unlinked.push(Endpoint { addresses: Vec::new(), ..endpoint(0) });
    for draw in [svg, dot, mermaid] {
        let drawing = draw(&graph);
        assert_eq!(drawing, draw(&graph));
        for word in [
            "world",
            "eth0",
            "203.0.113.1",
            "default",
            "vn-inner",
            "192.168.0.0/24",
            "internal",
            "web0",
            "fd8a:3804:fd7d:5355::2",
            "8000/tcp → 80",
            "203.0.113.77 ⇄ 192.168.0.2",
            "limit ↑ 50mbit  ↓ 200mbit",
            "↑ 1.2 Mbit/s  ↓ 34.0 kbit/s",
            "in the host's namespace",
            "in the namespace of web0",
            "link0 ⇌ web3  10.7.0.2",
            "link0 ⇌ web2  10.7.0.3",
        ] {
            assert!(drawing.contains(word), "no {word:?} in {drawing}");
        }
        // What is in a name means nothing in the drawing's language.
        assert!(!drawing.contains("de<fault") || drawing.starts_with("digraph"), "{drawing}");
    }
    // A direct link is drawn once, between the first cards of both.
    let (dot, mermaid) = (dot(&graph), mermaid(&graph));
    assert_eq!(dot.matches("  endpoint0_2 -> endpoint0_3 [dir=none").count(), 1, "{dot}");
    assert_eq!(mermaid.matches("  endpoint0_2 --- endpoint0_3\n").count(), 1, "{mermaid}");
    // Of many published ports some are named, and how many more there are.
    assert!(svg(&graph).contains("and 4 more"), "8 are published for web8");
}

#[test]
fn rates_are_what_has_been_counted_meanwhile() {
    let traffic = |packets, bytes| Traffic { packets, bytes };
    let before = [traffic(10, 1_000), traffic(0, 0)];
    let after = [traffic(30, 3_000), traffic(4, 400)];
    let rates = Rates::between(before, after, 2.0).unwrap();
    assert_eq!((rates.sent_bits, rates.sent_packets), (8_000.0, 10.0));
    assert_eq!((rates.received_bits, rates.received_packets), (1_600.0, 2.0));
    assert_eq!(Rates::between(after, before, 2.0), None, "it was made anew");
    assert_eq!(Rates::between(before, after, 0.0), None);
}
