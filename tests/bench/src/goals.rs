//! What vnet is meant to reach, held against what a run measured. The one list of goals; the page shows it as a table.
//!
//! A goal is a limit to one of vnet's numbers: fixed, or a multiple of somebody else's number in the same run. Whether
//! it holds is said of the medians; that a median is nearer to the limit than the numbers scatter is said, too.

use crate::case::{Case, Kind};
use crate::chart::thousands;
use crate::results::{Measured, Quantity, Results, VNET};
use crate::spread::Spread;
use crate::{conntrack, endpoints, mappings, programs, sustained};

/// The rivals that translate by the kernel's own rules.
const NETFILTER: &[&str] = &["nftables", "iptables-nft", "iptables-legacy"];
const NFTABLES: &[&str] = &["nftables"];

/// A goal.
#[derive(Clone, Debug)]
struct Goal {
    what: String,
    section: &'static str,
    /// The title of the quantity.
    title: String,
    limit: Limit,
}

/// What a number may be at most; where more is better, at least.
#[derive(Clone, Debug)]
enum Limit {
    /// This, in the unit of the quantity.
    Fixed(f64),
    /// So many times what the best of these rivals has.
    Rivals(f64, &'static [&'static str]),
    /// So many times vnet's own number under another title of the section.
    Own(f64, String),
}

/// A goal, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// What is to be reached.
    pub what: String,
    /// What the numbers are in.
    pub unit: String,
    /// vnet's, if it was measured.
    pub vnet: Option<Spread>,
    /// Who or what it is compared with, and its number.
    pub beside: Option<(String, Spread)>,
    /// vnet's number as a multiple of that.
    pub ratio: Option<f64>,
    /// What the number, or the ratio, is to be.
    pub limit: String,
    /// Whether it is, if everything was measured.
    pub holds: Option<Holds>,
}

/// Whether a goal holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds {
    /// By the medians.
    pub yes: bool,
    /// The distance to the limit is more than the spread, which one repetition does not tell.
    pub clearly: bool,
}

/// All goals whose section a run has.
#[must_use]
pub fn judge(results: &Results) -> Vec<Judged> {
    let there = |goal: &Goal| results.topics.iter().any(|section| section.name == goal.section);
    goals().into_iter().filter(there).map(|goal| goal.judge(results)).collect()
}

fn goals() -> Vec<Goal> {
    let mut goals = Vec::new();
    let traffic = |case: Case, kind: Kind, limit, what: &str| Goal {
        what: format!("{case}, {}: {what}", kind.title()),
        section: case.name(),
        title: kind.title().to_owned(),
        limit,
    };
    for case in [Case::Masquerade, Case::Published] {
        for kind in [Kind::Rr, Kind::Crr] {
            let redirect = Limit::Rivals(1.05, &["redirect"]);
            goals.push(traffic(case, kind, redirect, "within 5 % of redirection without NAT"));
            let netfilter = Limit::Rivals(1.0 / 1.12, NETFILTER);
            goals.push(traffic(case, kind, netfilter, "at least 12 % faster than nftables and iptables"));
        }
        let udp = Limit::Rivals(0.9, NFTABLES);
        goals.push(traffic(case, Kind::Udp, udp, "at least 10 % below nftables"));
        for kind in [Kind::Stream1, Kind::Stream8] {
            let stream = Limit::Rivals(1.1, NFTABLES);
            goals.push(traffic(case, kind, stream, "at least 10 % above nftables"));
        }
    }
    for kind in [Kind::Rr, Kind::Crr] {
        let veth = Limit::Rivals(1.05, &["veth"]);
        goals.push(traffic(Case::Hairpin, kind, veth, "within 5 % of a bare veth pair"));
    }
    for kind in [Kind::Rr, Kind::Crr] {
        // Without translation the host dials the endpoint itself.
        let direct = Limit::Rivals(1.04, &["routing"]);
        goals.push(traffic(Case::HostLocal, kind, direct, "within 4 % of dialling the endpoint itself"));
    }
    goals.extend(of_topics());
    goals
}

fn of_topics() -> Vec<Goal> {
    let goal = |what: &str, section, title: &str, limit| Goal {
        what: what.to_owned(),
        section,
        title: title.to_owned(),
        limit,
    };
    let few = mappings::title(mappings::FEW, mappings::CONNECT);
    // Or at least, where more is better.
    let at_most = |what, section, title: &str, most| goal(what, section, title, Limit::Fixed(most));
    let many = |what| mappings::title(mappings::MANY, what);
    vec![
        at_most(
            "15,000 new connections a second from the host, for 120 s",
            sustained::NAME,
            sustained::RATE,
            15_000.0,
        ),
        at_most("none of them fails", sustained::NAME, sustained::FAILED, 0.0),
        goal(
            "new connections beside 50,000 mappings: within 3 % of those beside 10",
            mappings::NAME,
            &many(mappings::CONNECT),
            Limit::Own(1.03, few),
        ),
        at_most("one mapping added beside 50,000, as a command", mappings::NAME, &many(mappings::ADD), 3.0),
        at_most(
            "one mapping added beside 50,000, in process",
            mappings::NAME,
            &many(mappings::ADD_IN_PROCESS),
            100.0,
        ),
        at_most("50,000 mappings at once, as a command", mappings::NAME, &many(mappings::LOAD), 100.0),
        at_most(
            "50,000 mappings at once, the work on the map",
            mappings::NAME,
            &many(mappings::ENTRIES),
            100.0,
        ),
        at_most("a range of 10,000 ports, as a command", mappings::NAME, mappings::RANGE, 1.0),
        at_most("packet of an established flow, out", programs::NAME, programs::OUT, 150.0),
        at_most("packet of an established flow, back", programs::NAME, programs::BACK, 150.0),
        at_most("first packet of a masqueraded flow", programs::NAME, programs::NEW_OUT, 600.0),
        at_most("first packet to a published port", programs::NAME, programs::NEW_IN, 600.0),
        at_most("memory per connection, both directions", conntrack::NAME, conntrack::MEMORY, 160.0),
        at_most("an endpoint with a published port created", endpoints::NAME, endpoints::CREATE, 10.0),
        at_most("an endpoint with a published port removed", endpoints::NAME, endpoints::REMOVE, 10.0),
    ]
}

impl Goal {
    fn judge(&self, results: &Results) -> Judged {
        let of = |rival: &str, title: &str| self.measured(results, rival, title);
        let vnet = of(VNET, &self.title);
        let quantity = vnet.map(|it| &it.quantity);
        let more_is_better = quantity.is_some_and(|it| it.more_is_better);
        let other = match &self.limit {
            Limit::Fixed(_) => None,
            Limit::Rivals(_, rivals) => {
                let found = rivals.iter().filter_map(|rival| of(rival, &self.title));
                found.filter(|it| it.spread.is_some()).reduce(|best, it| better(best, it, more_is_better))
            }
            Limit::Own(_, title) => of(VNET, title),
        };
        let beside = other.and_then(|it| {
            let name = if it.rival == VNET { it.quantity.title.clone() } else { it.rival.clone() };
            Some((name, it.spread?))
        });
        let spread = vnet.and_then(|it| it.spread);
        let often = [vnet, other].into_iter().flatten().all(|it| it.samples.len() > 1);
        Judged {
            what: self.what.clone(),
            unit: quantity.map(|it| it.unit.clone()).unwrap_or_default(),
            vnet: spread,
            ratio: spread.zip(beside.as_ref()).and_then(|(vnet, (_, other))| vnet.ratio_to(other)),
            limit: self.limit(quantity),
            holds: spread.and_then(|vnet| {
                let limit = match &self.limit {
                    Limit::Fixed(limit) => Spread { median: *limit, min: *limit, max: *limit },
                    Limit::Rivals(factor, _) | Limit::Own(factor, _) => beside.as_ref()?.1.times(*factor),
                };
                let yes =
                    if more_is_better { vnet.median >= limit.median } else { vnet.median <= limit.median };
                // What does not scatter is not there by chance, however near it is.
                let exact = vnet.width() == 0.0 && limit.width() == 0.0;
                Some(Holds { yes, clearly: often && (exact || vnet.differs_from(&limit)) })
            }),
            beside,
        }
    }

    fn limit(&self, quantity: Option<&Quantity>) -> String {
        let sign = if quantity.is_some_and(|it| it.more_is_better) { '≥' } else { '≤' };
        let unit = quantity.map(|it| it.unit.as_str()).unwrap_or_default();
        match &self.limit {
            Limit::Fixed(limit) => format!("{sign} {} {unit}", plain(*limit)),
            Limit::Rivals(factor, _) | Limit::Own(factor, _) => format!("{sign} {factor:.2}×"),
        }
    }

    fn measured<'a>(&self, results: &'a Results, rival: &str, title: &str) -> Option<&'a Measured> {
        let section = results.topics.iter().find(|section| section.name == self.section)?;
        section.measured.iter().find(|it| it.rival == rival && it.quantity.title == title)
    }
}

/// A limit as it was set: no more digits than it has.
fn plain(limit: f64) -> String {
    if limit >= 1_000.0 { thousands(limit) } else { limit.to_string() }
}

fn better<'a>(one: &'a Measured, other: &'a Measured, more_is_better: bool) -> &'a Measured {
    let median = |it: &Measured| it.spread.map_or(f64::NAN, |it| it.median);
    if (median(other) > median(one)) == more_is_better { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::Sample;
    use crate::page::tests::results;
    use crate::results::Section;

    fn measured(section: &mut Section, quantity: &Quantity, rival: &str, values: [f64; 3]) {
        for value in values {
            section.note(quantity, rival, Ok(Sample::plain(value)));
        }
    }

    fn judged(results: &mut Results, section: Section) -> Vec<Judged> {
        results.topics = vec![section];
        results.topics[0].finish(&[VNET]);
        judge(results)
    }

    #[test]
    fn the_best_rival_counts_and_less_is_better_for_times() {
        let mut section = Section::new(Case::Masquerade.name(), "");
        let rr = Quantity::from(Kind::Rr);
        measured(&mut section, &rr, VNET, [10.0, 10.1, 10.2]);
        measured(&mut section, &rr, "redirect", [10.0, 10.0, 10.0]);
        measured(&mut section, &rr, "nftables", [15.0, 15.0, 15.0]);
        measured(&mut section, &rr, "iptables-nft", [11.0, 11.0, 11.1]);
        let judged = judged(&mut results(), section);
        let [floor, netfilter] = &judged[..2] else { panic!("two goals") };
        assert_eq!(floor.holds, Some(Holds { yes: true, clearly: true }), "{floor:?}");
        assert_eq!(floor.limit, "≤ 1.05×");
        assert_eq!(netfilter.beside.as_ref().unwrap().0, "iptables-nft");
        assert_eq!(netfilter.holds, Some(Holds { yes: false, clearly: true }), "{netfilter:?}");
        assert_eq!(judged[2].holds, None, "CRR was not measured");
    }

    #[test]
    fn more_is_better_for_streams() {
        let mut section = Section::new(Case::Published.name(), "");
        let stream = Quantity::from(Kind::Stream1);
        measured(&mut section, &stream, VNET, [24.0, 24.0, 23.0]);
        measured(&mut section, &stream, "nftables", [21.0, 20.0, 21.0]);
        let judged = judged(&mut results(), section);
        let goal = judged.iter().find(|it| it.vnet.is_some()).unwrap();
        assert_eq!(goal.limit, "≥ 1.10×");
        // 24 is more than 23.1, by less than the gigabit by which the runs differ.
        assert_eq!(goal.holds, Some(Holds { yes: true, clearly: false }), "{goal:?}");
    }

    #[test]
    fn fixed_limits_and_own_numbers() {
        let mut section = Section::new(mappings::NAME, "");
        let (few, many) = (mappings::FEW, mappings::MANY);
        let connect = |size| Quantity::cost(mappings::title(size, mappings::CONNECT), "µs");
        measured(&mut section, &connect(few), VNET, [50.0, 50.0, 50.0]);
        measured(&mut section, &connect(many), VNET, [60.0, 60.0, 60.0]);
        measured(&mut section, &Quantity::cost(mappings::title(many, mappings::ADD), "ms"), VNET, [2.0; 3]);
        let judged = judged(&mut results(), section);
        assert_eq!(judged[0].ratio, Some(1.2));
        assert_eq!(judged[0].holds, Some(Holds { yes: false, clearly: true }));
        assert_eq!((judged[1].limit.as_str(), judged[1].holds.map(|it| it.yes)), ("≤ 3 ms", Some(true)));
        assert_eq!(judged[2].holds, None, "not measured");
    }

    #[test]
    fn a_rate_is_to_be_reached_and_nothing_to_fail() {
        let mut section = Section::new(sustained::NAME, "");
        let rate = Quantity { more_is_better: true, ..Quantity::cost(sustained::RATE, "/s") };
        measured(&mut section, &rate, VNET, [19_000.0, 18_900.0, 14_000.0]);
        measured(&mut section, &Quantity::cost(sustained::FAILED, "connections"), VNET, [0.0; 3]);
        let judged = judged(&mut results(), section);
        assert_eq!(judged[0].limit, "≥ 15,000 /s");
        assert_eq!(judged[0].holds, Some(Holds { yes: true, clearly: false }), "{:?}", judged[0]);
        assert_eq!(judged[1].holds, Some(Holds { yes: true, clearly: true }), "{:?}", judged[1]);
    }

    #[test]
    fn of_sections_that_are_not_there_nothing_is_said() {
        let mut results = results();
        results.topics.clear();
        assert!(judge(&results).is_empty());
    }
}
