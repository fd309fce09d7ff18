//! The drawing as Mermaid wants it described.

use std::fmt::Write as _;

use super::dot::{lines_of, node};
use super::model::Graph;

/// The graph as a flow chart of Mermaid, which many a renderer of Markdown draws.
#[must_use]
pub fn mermaid(graph: &Graph) -> String {
    let mut text = String::from("flowchart LR\n  world((world))\n");
    let _ = writeln!(text, "  subgraph host[{}]", label(&[format!("host, instance {}", graph.instance)]));
    for (number, uplink) in graph.uplinks.iter().enumerate() {
        let mut lines = vec![uplink.name.clone()];
        lines.extend(uplink.addresses.iter().map(ToString::to_string));
        lines.extend(uplink.rates.map(|rates| rates.words()));
        let _ = writeln!(text, "    uplink{number}[{}]", label(&lines));
    }
    text.push_str("    stack((host))\n  end\n");
    for number in 0..graph.uplinks.len() {
        let _ = writeln!(text, "  world <--> uplink{number}\n  uplink{number} <--> stack");
    }
    for (number, network) in graph.networks.iter().enumerate() {
        let mut title = vec![format!("{} ({})", network.name, network.bridge)];
        title.extend(network.subnets.iter().cloned());
        title.extend(network.flags().into_iter().map(ToOwned::to_owned));
        let _ = writeln!(text, "  network{number}([{}])", label(&title));
        let arrow = if network.internal { "-.-" } else { "<-->" };
        let _ = writeln!(text, "  stack {arrow} network{number}");
        for (place, endpoint) in network.endpoints.iter().enumerate() {
            let _ = writeln!(text, "  endpoint{number}_{place}[{}]", label(&lines_of(endpoint)));
            let _ = writeln!(text, "  network{number} --- endpoint{number}_{place}");
        }
    }
    for (place, endpoint) in graph.unlinked.iter().enumerate() {
        let _ = writeln!(text, "  unlinked{place}[{}]", label(&lines_of(endpoint)));
    }
    for [a, b] in graph.direct_links(node) {
        let _ = writeln!(text, "  {a} --- {b}");
    }
    text
}

/// Lines of text as a label, in which nothing means anything.
fn label(lines: &[String]) -> String {
    let lines: Vec<String> = lines
        .iter()
        .map(|line| line.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;"))
        .collect();
    format!("\"{}\"", lines.join("<br/>"))
}
