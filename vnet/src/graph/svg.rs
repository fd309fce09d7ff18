//! The drawing as SVG: laid out and drawn here, so that it looks the same everywhere and needs no other program.
//!
//! ```text
//!  world ---- host: uplink  ----  network: endpoint endpoint
//!                   uplink   \             endpoint endpoint
//!                             '-  network: endpoint
//! ```
//!
//! All text is monospaced, so that its width is known without a font: what is wider than its card is cut and ends with
//! `…`, and is whole in the card's tooltip.

use std::fmt::Write as _;

use super::model::{Endpoint, Graph, Network, Uplink};

/// Width of a character, as a part of the font's size; of the usual monospaced fonts the widest has this.
const ADVANCE: f64 = 0.605;
const MARGIN: f64 = 28.0;
/// Between the columns, for the lines.
const GAP: f64 = 84.0;
/// Between cards.
const SPACE: f64 = 14.0;
const PADDING: f64 = 14.0;
const CARD: f64 = 300.0;
const HOST: f64 = 300.0;
const WORLD: f64 = 116.0;
const LINE: f64 = 19.0;
/// Height of the title of a card or a network.
const TITLE: f64 = 24.0;
/// Published ports that are shown of an endpoint.
const MOST_PUBLISHED: usize = 5;

const STYLE: &str = "\
    .page { fill: #ffffff; }
    .frame { fill: #f5f7fa; stroke: #c4ccd6; }
    .card { fill: #ffffff; stroke: #aab4c0; }
    .world { fill: #e6f0fb; stroke: #5b8fc7; }
    .wire { fill: none; stroke: #7b8794; stroke-width: 2; }
    .dashed { stroke-dasharray: 6 5; }
    text { font-family: 'DejaVu Sans Mono', 'Liberation Mono', Menlo, Consolas, monospace; font-size: 12px; fill: #1f2933; }
    .name { font-size: 14px; font-weight: bold; }
    .faint { fill: #52606d; }
    .published { fill: #0b6e4f; }
    .floating { fill: #7a3e9d; }
    .limit { fill: #a34700; }
    .rate { fill: #1358a8; }
    @media (prefers-color-scheme: dark) {
      .page { fill: #14181d; }
      .frame { fill: #1c2229; stroke: #3c4651; }
      .card { fill: #242b33; stroke: #4b5763; }
      .world { fill: #1b2c40; stroke: #4f82b8; }
      .wire { stroke: #7b8794; }
      text { fill: #e4e9ee; }
      .faint { fill: #a5b1bd; }
      .published { fill: #5fd0a5; }
      .floating { fill: #cf9bea; }
      .limit { fill: #f0a868; }
      .rate { fill: #7db7f2; }
    }
";

/// A line of text of a card.
struct Line {
    class: &'static str,
    text: String,
}

/// A card with a title and lines.
struct Card {
    title: String,
    lines: Vec<Line>,
}

/// A card at its place.
struct Placed {
    x: f64,
    y: f64,
    card: Card,
}

/// A network at its place.
struct Frame<'a> {
    network: Option<&'a Network>,
    title: String,
    lines: Vec<Line>,
    y: f64,
    width: f64,
    height: f64,
    cards: Vec<Placed>,
}

impl Line {
    fn new(class: &'static str, text: impl Into<String>) -> Self {
        Self { class, text: text.into() }
    }
}

impl Card {
    fn of_uplink(uplink: &Uplink) -> Self {
        let mut lines: Vec<Line> =
            uplink.addresses.iter().map(|addr| Line::new("faint", addr.to_string())).collect();
        lines.extend(uplink.rates.map(|rates| Line::new("rate", rates.words())));
        Self { title: uplink.name.clone(), lines }
    }

    fn of_endpoint(endpoint: &Endpoint) -> Self {
        let mut lines: Vec<Line> =
            endpoint.addresses.iter().map(|addr| Line::new("faint", addr.to_string())).collect();
        lines.extend(endpoint.namespace().map(|namespace| Line::new("faint", namespace)));
        lines.extend(endpoint.direct.iter().map(|direct| Line::new("faint", direct.words())));
        let published = &endpoint.published;
        // One line more says how many there are beyond; it takes the place of one if that is the last.
        let shown = if published.len() > MOST_PUBLISHED { MOST_PUBLISHED - 1 } else { published.len() };
        lines.extend(published[..shown].iter().map(|it| Line::new("published", it.words())));
        if shown < published.len() {
            lines.push(Line::new("published", format!("and {} more", published.len() - shown)));
        }
        lines.extend(endpoint.floating.iter().map(|it| Line::new("floating", it.words())));
        lines.extend(endpoint.limits().map(|limits| Line::new("limit", limits)));
        lines.extend(endpoint.rates.map(|rates| Line::new("rate", rates.words())));
        Self { title: endpoint.name.clone(), lines }
    }

    fn height(&self) -> f64 {
        PADDING + TITLE + self.lines.len() as f64 * LINE + PADDING - 6.0
    }
}

/// How many columns so many cards take: a drawing should be neither a tower nor a carpet.
fn columns(cards: usize) -> usize {
    match cards {
        0..=4 => 1,
        5..=12 => 2,
        13..=30 => 3,
        _ => 4,
    }
}

impl<'a> Frame<'a> {
    /// Lays a network out; its own place is set later.
    fn new(network: Option<&'a Network>, endpoints: &[Endpoint]) -> Self {
        let columns = columns(endpoints.len());
        let (title, lines) = match network {
            Some(network) => {
                let mut lines = vec![Line::new("faint", network.subnets.join("  "))];
                let flags = network.flags();
                if !flags.is_empty() {
                    lines.push(Line::new("limit", flags.join(", ")));
                }
                (format!("{} · {}", network.name, network.bridge), lines)
            }
            None => ("on no network".to_owned(), Vec::new()),
        };
        let top = PADDING + TITLE + lines.len() as f64 * LINE + SPACE - 4.0;
        let mut ends = vec![top; columns];
        let mut cards = Vec::new();
        for endpoint in endpoints {
            let card = Card::of_endpoint(endpoint);
            let shortest = (0..columns).min_by(|a, b| ends[*a].total_cmp(&ends[*b])).unwrap_or(0);
            let (x, y) = (PADDING + shortest as f64 * (CARD + SPACE), ends[shortest]);
            ends[shortest] = y + card.height() + SPACE;
            cards.push(Placed { x, y, card });
        }
        let bottom = ends.iter().copied().fold(top, f64::max);
        let width = PADDING * 2.0 + columns as f64 * (CARD + SPACE) - SPACE;
        Self { network, title, lines, y: 0.0, width, height: bottom - SPACE + PADDING, cards }
    }
}

/// The drawing as an SVG document.
#[must_use]
pub fn svg(graph: &Graph) -> String {
    let mut frames: Vec<Frame<'_>> =
        graph.networks.iter().map(|network| Frame::new(Some(network), &network.endpoints)).collect();
    if !graph.unlinked.is_empty() {
        frames.push(Frame::new(None, &graph.unlinked));
    }
    let mut end = MARGIN;
    for frame in &mut frames {
        frame.y = end;
        end += frame.height + SPACE * 2.0;
    }
    let uplinks: Vec<Card> = graph.uplinks.iter().map(Card::of_uplink).collect();
    let host_height = PADDING
        + TITLE
        + LINE
        + uplinks.iter().map(|card| card.height() + SPACE).sum::<f64>()
        + if uplinks.is_empty() { SPACE } else { 0.0 };
    let inner = (end - SPACE * 2.0 - MARGIN).max(host_height).max(WORLD);
    let height = inner + MARGIN * 2.0;
    let host_x = MARGIN + WORLD + GAP;
    let networks_x = host_x + HOST + GAP;
    let width = frames.iter().map(|frame| frame.width).fold(0.0, f64::max);
    let width = if frames.is_empty() { host_x + HOST + MARGIN } else { networks_x + width + MARGIN };
    // What there is one of stands beside the first of what there are many of, where the eye begins.
    let first = frames.first().map_or(inner, |frame| frame.height);
    let host_y = MARGIN + ((first.max(host_height) - host_height) / 2.0).max(0.0);
    let middle = host_y + host_height / 2.0;

    let mut out = Drawing::new(width, height, &format!("vnet instance {}", graph.instance));
    // Lines first: cards lie on them.
    let mut y = host_y + PADDING + TITLE + LINE;
    let mut placed = Vec::new();
    for card in uplinks {
        let at = y + card.height() / 2.0;
        out.wire((MARGIN + WORLD, middle), (host_x, at), false);
        y += card.height() + SPACE;
        placed.push(Placed { x: host_x + PADDING, y: at - card.height() / 2.0, card });
    }
    for frame in frames.iter().filter(|frame| frame.network.is_some()) {
        let dashed = frame.network.is_some_and(|network| network.internal);
        out.wire((host_x + HOST, middle), (networks_x, frame.y + PADDING + 10.0), dashed);
    }
    out.world(MARGIN, middle);
    out.frame(
        (host_x, host_y, HOST, host_height),
        "host",
        &[Line::new("faint", format!("instance {}", graph.instance))],
    );
    placed.iter().for_each(|card| out.card(0.0, 0.0, card, HOST - PADDING * 2.0));
    for frame in &frames {
        out.frame((networks_x, frame.y, frame.width, frame.height), &frame.title, &frame.lines);
        frame.cards.iter().for_each(|card| out.card(networks_x, frame.y, card, CARD));
    }
    out.end()
}

/// A document under way.
struct Drawing {
    text: String,
}

impl Drawing {
    fn new(width: f64, height: f64, title: &str) -> Self {
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\">\n  <title>{}</title>\n  <style>\n{STYLE}  </style>\n",
            escaped(title)
        );
        let _ = writeln!(text, "  <rect class=\"page\" width=\"100%\" height=\"100%\"/>");
        Self { text }
    }

    /// A curve from left to right.
    fn wire(&mut self, (x, y): (f64, f64), (to_x, to_y): (f64, f64), dashed: bool) {
        let bend = x + (to_x - x) / 2.0;
        let class = if dashed { "wire dashed" } else { "wire" };
        let _ = writeln!(
            self.text,
            "  <path class=\"{class}\" d=\"M {x:.1} {y:.1} C {bend:.1} {y:.1} {bend:.1} {to_y:.1} {to_x:.1} {to_y:.1}\"/>"
        );
    }

    fn world(&mut self, x: f64, middle: f64) {
        let radius = WORLD / 2.0;
        let _ = writeln!(
            self.text,
            "  <ellipse class=\"world\" cx=\"{:.1}\" cy=\"{middle:.1}\" rx=\"{radius:.1}\" ry=\"38\"/>\n  \
             <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">world</text>",
            x + radius,
            x + radius,
            middle + 5.0
        );
    }

    fn frame(&mut self, (x, y, width, height): (f64, f64, f64, f64), title: &str, lines: &[Line]) {
        let _ = writeln!(
            self.text,
            "  <rect class=\"frame\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"12\"/>"
        );
        self.lines((x + PADDING, y + PADDING), width - PADDING * 2.0, title, lines);
    }

    fn card(&mut self, x: f64, y: f64, Placed { x: dx, y: dy, card }: &Placed, width: f64) {
        let (x, y, height) = (x + dx, y + dy, card.height());
        let whole: Vec<&str> = std::iter::once(card.title.as_str())
            .chain(card.lines.iter().map(|line| line.text.as_str()))
            .collect();
        let _ = writeln!(self.text, "  <g>\n  <title>{}</title>", escaped(&whole.join("\n")));
        let _ = writeln!(
            self.text,
            "  <rect class=\"card\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"8\"/>"
        );
        self.lines((x + PADDING, y + PADDING - 2.0), width - PADDING * 2.0, &card.title, &card.lines);
        self.text.push_str("  </g>\n");
    }

    /// A title and the lines below it, none wider than `width`.
    fn lines(&mut self, (x, y): (f64, f64), width: f64, title: &str, lines: &[Line]) {
        self.write(x, y + 12.0, "name", &cut(title, width, 14.0));
        for (number, Line { class, text }) in lines.iter().enumerate() {
            self.write(x, y + 12.0 + TITLE - 3.0 + number as f64 * LINE, class, &cut(text, width, 12.0));
        }
    }

    fn write(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let text = escaped(text);
        let _ = writeln!(
            self.text,
            "  <text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" xml:space=\"preserve\">{text}</text>"
        );
    }

    fn end(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}

/// As much of a text as has room.
fn cut(text: &str, width: f64, size: f64) -> String {
    let room = (width / (size * ADVANCE)) as usize;
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
