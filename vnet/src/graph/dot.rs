//! The drawing as Graphviz wants it described.

use std::fmt::Write as _;

use super::model::{Endpoint, Graph};

/// The graph in the language of Graphviz: `dot -Tsvg`, `neato` and kin draw it.
#[must_use]
pub fn dot(graph: &Graph) -> String {
    let mut text = String::from(
        "digraph vnet {\n  rankdir=LR;\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n",
    );
    let _ = writeln!(
        text,
        "  label={};\n  world [label=\"world\", shape=ellipse];",
        quoted(std::slice::from_ref(&graph.instance))
    );
    text.push_str("  host [label=\"host\"];\n");
    for (number, uplink) in graph.uplinks.iter().enumerate() {
        let mut lines = vec![uplink.name.clone()];
        lines.extend(uplink.addresses.iter().map(ToString::to_string));
        lines.extend(uplink.rates.map(|rates| rates.words()));
        let _ = writeln!(text, "  uplink{number} [label={}];", quoted(&lines));
        let _ = writeln!(text, "  world -> uplink{number} [dir=both];\n  uplink{number} -> host [dir=both];");
    }
    for (number, network) in graph.networks.iter().enumerate() {
        let mut lines = vec![format!("{} ({})", network.name, network.bridge)];
        lines.extend(network.subnets.iter().cloned());
        lines.extend(network.flags().into_iter().map(ToOwned::to_owned));
        let style = if network.internal { ", style=dashed" } else { "" };
        let _ = writeln!(text, "  network{number} [label={}, shape=oval];", quoted(&lines));
        let _ = writeln!(text, "  host -> network{number} [dir=both{style}];");
        for (place, endpoint) in network.endpoints.iter().enumerate() {
            let _ = writeln!(text, "  endpoint{number}_{place} [label={}];", quoted(&lines_of(endpoint)));
            let _ = writeln!(text, "  network{number} -> endpoint{number}_{place} [dir=both];");
        }
    }
    for (place, endpoint) in graph.unlinked.iter().enumerate() {
        let _ = writeln!(
            text,
            "  unlinked{place} [label={}, style=\"rounded,dashed\"];",
            quoted(&lines_of(endpoint))
        );
    }
    for [a, b] in graph.direct_links(node) {
        let _ = writeln!(text, "  {a} -> {b} [dir=none, constraint=false];");
    }
    text.push_str("}\n");
    text
}

/// What an endpoint is called, by number of its network and its place there.
pub(super) fn node(network: Option<usize>, place: usize) -> String {
    match network {
        Some(number) => format!("endpoint{number}_{place}"),
        None => format!("unlinked{place}"),
    }
}

/// What is said of an endpoint, line by line.
pub(super) fn lines_of(endpoint: &Endpoint) -> Vec<String> {
    let mut lines = vec![endpoint.name.clone()];
    lines.extend(endpoint.addresses.iter().map(ToString::to_string));
    lines.extend(endpoint.namespace());
    lines.extend(endpoint.direct.iter().map(|direct| direct.words()));
    lines.extend(endpoint.published.iter().map(|published| published.words()));
    lines.extend(endpoint.floating.iter().map(|floating| floating.words()));
    lines.extend(endpoint.limits());
    lines.extend(endpoint.rates.map(|rates| rates.words()));
    lines
}

fn quoted(lines: &[String]) -> String {
    let lines: Vec<String> =
        lines.iter().map(|line| line.replace('\\', "\\\\").replace('"', "\\\"")).collect();
    format!("\"{}\"", lines.join("\\n"))
}
