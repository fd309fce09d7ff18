//! The page: what was measured where, as Markdown round the charts. A function of the results alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::case::Effort;
use crate::chart::{description, number};
use crate::goals::{self, Judged};
use crate::latency::Percentiles;
use crate::results::{Entrant, Measured, Results, Section, VNET};
use crate::spread::Spread;

/// What the page begins with.
const HEAD: &str = "# Benchmarks

Written by `cargo xtask bench`, which measures vnet beside other ways to do the same. Do not edit by hand.
All numbers are in [results.json](results.json).

";

/// How it was measured.
const METHOD: &str = "## How

Every rival gets hosts of its own, which are network namespaces joined by veth pairs; only one stands at a time. A
repetition measures all of them, in an order that moves on by one each time. Each measurement has a warm-up and then a
fixed number of operations, timed by the monotonic clock. Client and server of a dialogue are two processes on one CPU,
those of one-way traffic on two.

The median of the repetitions is shown, with the smallest and the largest. *To vnet* is a median as a multiple of vnet's
in the same run. **≈** marks a difference that is smaller than the spread of one of the two: it says nothing.

What vnet remembers is on a tmpfs, as /run is on hosts. The times of commands include the start of their processes; a
namespace is made by vnet's own command, and for others by system calls.

What a UDP datagram costs is the time of the sender's CPU, which carries it all the way to the receiver's queue; behind a
proxy it only carries it to the proxy.

";

/// What the table of goals begins with.
const GOALS: &str = "## Goals

What vnet is meant to reach, with all of its NAT on. *Beside* is the best of those it is compared with, *ratio* is
vnet's median as a multiple of that. **≈** marks a verdict that may be chance: the limit is nearer than the numbers
scatter, or there was only one repetition.

| goal | vnet | beside | ratio | limit | holds |
|---|---:|---:|---:|---:|---|
";

/// What is said of a run that is not to be quoted.
const QUICK: &str = "**A quick run: it shows that everything works, and measures little.**\n\n";
const BUSY: &str =
    "**The machine was busy when the run began: what is quick and what is slow here may be chance.**\n\n";
/// Load for each CPU from which on a machine is called busy.
const BUSY_FROM: f64 = 0.5;

/// The page.
#[must_use]
pub fn markdown(results: &Results) -> String {
    let mut page = HEAD.to_owned();
    if results.effort == Effort::Quick {
        page.push_str(QUICK);
    }
    if results.machine.load_before / results.machine.cores.max(1) as f64 >= BUSY_FROM {
        page.push_str(BUSY);
    }
    page.push_str(&machine(results));
    page.push_str(METHOD);
    page.push_str(&entrants(&results.rivals));
    page.push_str(&goals(&goals::judge(results)));
    for section in &results.topics {
        page.push_str(&of_section(section));
    }
    page
}

fn machine(results: &Results) -> String {
    let it = &results.machine;
    let kind = if it.virtual_machine { ", virtual" } else { "" };
    let bridge = if it.bridge_netfilter { "pass through netfilter" } else { "do not pass through netfilter" };
    let rows = [
        ("date", results.date.clone()),
        ("commit", results.commit.clone().unwrap_or_else(|| "unknown".to_owned())),
        ("CPU", format!("{}, {} of them{kind}", it.cpu, it.cores)),
        ("kernel", format!("Linux {}", it.kernel)),
        ("repetitions", format!("{}", results.repetitions)),
        ("bridged packets", bridge.to_owned()),
        ("load before", format!("{:.2}", it.load_before)),
        ("time taken away by other guests", format!("{:.1} %", it.stolen_percent)),
    ];
    let rows: String = rows.iter().map(|(name, value)| format!("| {name} | {} |\n", cell(value))).collect();
    format!("| | |\n|---|---|\n{rows}\n")
}

fn entrants(rivals: &[Entrant]) -> String {
    let mut table = "## Who\n\n| | what it does | version |\n|---|---|---|\n".to_owned();
    for it in rivals {
        let version = match (&it.version, &it.absent) {
            (Some(version), _) => version.clone(),
            (None, Some(reason)) => format!("**not measured**: {reason}"),
            (None, None) => String::new(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| {} | {} | {} |", it.name, cell(&it.what), cell(&version));
    }
    table + "\n"
}

fn goals(judged: &[Judged]) -> String {
    if judged.is_empty() {
        return String::new();
    }
    let mut table = GOALS.to_owned();
    for it in judged {
        let shown = |spread: &Spread| format!("{} {}", number(spread.median), it.unit);
        let vnet = it.vnet.as_ref().map(shown).unwrap_or_default();
        let beside = it.beside.as_ref().map(|(name, spread)| format!("{name}: {}", shown(spread)));
        let ratio = it.ratio.map(|ratio| format!("{ratio:.2}×")).unwrap_or_default();
        let holds = match it.holds {
            None => "not measured".to_owned(),
            Some(holds) => format!(
                "{}{}",
                if holds.yes { "yes" } else { "**no**" },
                if holds.clearly { "" } else { " ≈" }
            ),
        };
        let (what, beside) = (cell(&it.what), cell(&beside.unwrap_or_default()));
        let _ = writeln!(table, "| {what} | {vnet} | {beside} | {ratio} | {} | {holds} |", it.limit);
    }
    table + "\n"
}

fn of_section(section: &Section) -> String {
    let mut text = format!("## {}\n\n{}.\n\n", section.name, capitalised(&section.what));
    if !section.measured.is_empty() {
        let alt = description(section).replace(['[', ']'], "");
        let _ = writeln!(text, "![{alt}]({}.svg)\n", section.name);
        text.push_str("| | | median | min – max | to vnet |\n|---|---|---:|---:|---:|\n");
        for quantity in section.quantities() {
            for (n, it) in section.of(quantity).enumerate() {
                let title =
                    if n == 0 { format!("{}, {}", quantity.title, quantity.unit) } else { String::new() };
                let _ = writeln!(text, "| {} | {} | {} |", cell(&title), it.rival, numbers(it));
            }
        }
        text.push('\n');
    }
    for it in &section.missing {
        let _ = writeln!(text, "- {}: not measured, {}", it.rival, cell(&it.reason));
    }
    for it in section.measured.iter().filter(|it| !it.failures.is_empty()) {
        let reason = cell(&it.failures[0]);
        let _ = writeln!(
            text,
            "- {}, {}: {} failed: {reason}",
            it.rival,
            it.quantity.title,
            times(it.failures.len())
        );
    }
    if !text.ends_with("\n\n") {
        text.push('\n');
    }
    text + &latencies(section) + &details(section)
}

fn numbers(it: &Measured) -> String {
    let Some(spread) = it.spread else { return "failed | |".to_owned() };
    let ratio = match (it.ratio_to_vnet, it.differs_from_vnet) {
        (Some(ratio), Some(true)) => format!("{ratio:.2}×"),
        (Some(ratio), _) => format!("{ratio:.2}× ≈"),
        (None, _) if it.rival == VNET => "1".to_owned(),
        (None, _) => String::new(),
    };
    format!("{} | {} – {} | {ratio}", number(spread.median), number(spread.min), number(spread.max))
}

/// Medians of the percentiles of single operations.
fn latencies(section: &Section) -> String {
    let mut rows = String::new();
    for it in &section.measured {
        let of = |pick: fn(&Percentiles) -> f64| {
            Spread::of(it.samples.iter().filter_map(|sample| sample.latency.as_ref()).map(pick))
                .map_or_else(String::new, |spread| number(spread.median))
        };
        if it.samples.iter().any(|sample| sample.latency.is_some()) {
            let columns = [of(|it| it.p50), of(|it| it.p90), of(|it| it.p99), of(|it| it.p999)].join(" | ");
            let _ = writeln!(rows, "| {} | {} | {columns} |", cell(&it.quantity.title), it.rival);
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<details><summary>Percentiles of single operations, µs (median of the repetitions)</summary>\n\n\
         | | | p50 | p90 | p99 | p99.9 |\n|---|---|---:|---:|---:|---:|\n{rows}\n</details>\n\n"
    )
}

/// Medians of whatever else was measured on the way.
fn details(section: &Section) -> String {
    let mut rows = String::new();
    for it in &section.measured {
        let mut found: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (name, value) in it.samples.iter().flat_map(|sample| &sample.details) {
            found.entry(name).or_default().push(*value);
        }
        let shown = found.into_iter().filter_map(|(name, values)| {
            Spread::of(values).map(|spread| format!("{} {}", name.replace('_', " "), number(spread.median)))
        });
        let shown: Vec<String> = shown.collect();
        if !shown.is_empty() {
            let _ = writeln!(rows, "| {} | {} | {} |", cell(&it.quantity.title), it.rival, shown.join("; "));
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<details><summary>What else was measured (median of the repetitions)</summary>\n\n| | | |\n|---|---|---|\n\
         {rows}\n</details>\n\n"
    )
}

fn times(count: usize) -> String {
    if count == 1 { "one repetition".to_owned() } else { format!("{count} repetitions") }
}

/// A text that breaks no table and names nothing of the machine.
fn cell(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    first.replace('|', "\\|").replace('<', "&lt;")
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::case::Kind;
    use crate::generator::Sample;
    use crate::machine::Machine;
    use crate::results::Quantity;
    use crate::results::tests::section;

    /// A run with one section.
    pub(crate) fn results() -> Results {
        let entrant = |name: &str, version: Option<&str>, absent: Option<&str>| Entrant {
            name: name.to_owned(),
            what: "a | b".to_owned(),
            version: version.map(str::to_owned),
            absent: absent.map(str::to_owned),
        };
        Results {
            date: "2024-02-29".to_owned(),
            commit: Some("0123456789ab".to_owned()),
            effort: Effort::Full,
            repetitions: 5,
            machine: Machine {
                cpu: "Some CPU".to_owned(),
                cores: 2,
                kernel: "6.18.0 x86_64".to_owned(),
                virtual_machine: true,
                load_before: 0.25,
                bridge_netfilter: true,
                stolen_percent: 1.5,
            },
            rivals: vec![
                entrant("vnet", Some("vnet 1"), None),
                entrant("gone", None, Some("no such program")),
            ],
            topics: vec![section()],
        }
    }

    #[test]
    fn the_page_says_where_when_and_who() {
        let page = markdown(&results());
        for part in [
            "| date | 2024-02-29 |",
            "| commit | 0123456789ab |",
            "| CPU | Some CPU, 2 of them, virtual |",
            "| kernel | Linux 6.18.0 x86_64 |",
            "| vnet | a \\| b | vnet 1 |",
            "**not measured**: no such program",
            "(masquerade.svg)",
            "- other: not measured, it cannot",
            "slow, TCP, one byte there and back: one repetition failed: no answer & no &lt;hope>",
        ] {
            assert!(page.contains(part), "no {part:?} in\n{page}");
        }
    }

    #[test]
    fn runs_that_are_not_to_be_quoted_say_so() {
        let mut results = results();
        let page = markdown(&results);
        assert!(!page.contains(QUICK) && !page.contains(BUSY), "{page}");
        results.effort = Effort::Quick;
        results.machine.load_before = 1.0;
        let page = markdown(&results);
        assert!(page.contains(QUICK) && page.contains(BUSY), "{page}");
    }

    #[test]
    fn a_difference_within_the_spread_is_marked() {
        let page = markdown(&results());
        assert!(
            page.contains("| TCP, one byte there and back, µs | vnet | 14.1 | 14.0 – 14.2 | 1 |"),
            "{page}"
        );
        assert!(page.contains("| alike | 14.3 | 14.1 – 14.9 | 1.01× ≈ |"), "{page}");
        assert!(page.contains("| slow | 20.5 | 20.0 – 21.0 | 1.45× |"), "{page}");
    }

    #[test]
    fn goals_say_whether_they_hold() {
        let page = markdown(&results());
        // The section has neither of them, but vnet's number.
        let row = "| masquerade, TCP, one byte there and back: within 5 % of redirection without NAT | 14.1 µs |  |  \
                   | ≤ 1.05× | not measured |";
        assert!(page.contains(row), "{page}");
        let mut results = results();
        let rr = Quantity::from(Kind::Rr);
        for value in [13.9, 14.0, 14.1] {
            results.topics[0].note(&rr, "redirect", Ok(Sample::plain(value)));
        }
        results.topics[0].finish(&[VNET, "redirect"]);
        let page = markdown(&results);
        assert!(page.contains("| 14.1 µs | redirect: 14.0 µs | 1.01× | ≤ 1.05× | yes |"), "{page}");
        results.topics.clear();
        assert!(!markdown(&results).contains("## Goals"), "nothing to judge");
    }

    #[test]
    fn percentiles_and_details_are_below_the_fold() {
        let mut results = results();
        assert!(!markdown(&results).contains("<details>"), "nothing to tell");
        let latency = Percentiles { p50: 1.0, p90: 2.0, p99: 3.0, p999: 4.0 };
        let mut sample = Sample { latency: Some(latency), ..Sample::plain(1.0) };
        sample.details.insert("per_second".to_owned(), 12_345.0);
        results.topics[0].note(&Quantity::from(Kind::Crr), VNET, Ok(sample));
        let page = markdown(&results);
        assert!(page.contains("| vnet | 1.00 | 2.00 | 3.00 | 4.00 |"), "{page}");
        assert!(page.contains("| vnet | per second 12,345 |"), "{page}");
    }
}
