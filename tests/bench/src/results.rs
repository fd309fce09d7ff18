//! What a run found, as it is written to `results.json`; the page is made of nothing else.

use serde::{Deserialize, Serialize};

use crate::case::{Effort, Kind};
use crate::generator::Sample;
use crate::machine::Machine;
use crate::spread::Spread;

/// Whom the others are compared with.
pub const VNET: &str = "vnet";

/// Everything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// The day, in UTC.
    pub date: String,
    /// What of vnet's repository, if that is known.
    pub commit: Option<String>,
    /// How much was measured.
    pub effort: Effort,
    /// How often each measurement was repeated.
    pub repetitions: u32,
    /// Where.
    pub machine: Machine,
    /// Everybody, whether measured or not.
    pub rivals: Vec<Entrant>,
    /// Section by section.
    pub topics: Vec<Section>,
}

/// One who is measured, or would have been.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entrant {
    /// Who.
    pub name: String,
    /// What it does.
    pub what: String,
    /// What of it was measured.
    pub version: Option<String>,
    /// Why it was not.
    pub absent: Option<String>,
}

/// What one section of the page is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Section {
    /// As on the command line.
    pub name: String,
    /// In a sentence.
    pub what: String,
    /// Quantity by quantity, vnet first in each.
    pub measured: Vec<Measured>,
    /// Who has not got this, and why.
    pub missing: Vec<Missing>,
}

/// Who has not got something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Who.
    pub rival: String,
    /// Why.
    pub reason: String,
}

/// What a number is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantity {
    /// As a heading.
    pub title: String,
    /// What it is in.
    pub unit: String,
    /// Whether more is better.
    pub more_is_better: bool,
}

impl From<Kind> for Quantity {
    fn from(kind: Kind) -> Self {
        let (title, unit) = (kind.title().to_owned(), kind.unit().to_owned());
        Self { title, unit, more_is_better: kind.more_is_better() }
    }
}

impl Quantity {
    /// One of which less is better, like a time.
    #[must_use]
    pub fn cost(title: impl Into<String>, unit: &str) -> Self {
        Self { title: title.into(), unit: unit.to_owned(), more_is_better: false }
    }
}

/// One quantity of one rival.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// What.
    pub quantity: Quantity,
    /// Whose.
    pub rival: String,
    /// Each repetition.
    pub samples: Vec<Sample>,
    /// What went wrong in those that failed.
    pub failures: Vec<String>,
    /// Over the repetitions.
    pub spread: Option<Spread>,
    /// Its median as a multiple of vnet's in the same run.
    pub ratio_to_vnet: Option<f64>,
    /// Whether the difference is more than the spread, which one repetition does not tell.
    pub differs_from_vnet: Option<bool>,
}

impl Section {
    /// An empty one.
    #[must_use]
    pub fn new(name: &str, what: &str) -> Self {
        Self { name: name.to_owned(), what: what.to_owned(), measured: Vec::new(), missing: Vec::new() }
    }

    /// Notes one repetition.
    pub fn note(&mut self, quantity: &Quantity, rival: &str, outcome: anyhow::Result<Sample>) {
        let known = self.measured.iter().position(|it| it.quantity == *quantity && it.rival == rival);
        let at = known.unwrap_or_else(|| {
            self.measured.push(Measured::new(quantity.clone(), rival));
            self.measured.len() - 1
        });
        match outcome {
            Ok(sample) => self.measured[at].samples.push(sample),
            Err(error) => self.measured[at].failures.push(anonymous(&format!("{error:#}"))),
        }
    }

    /// Notes that somebody has not got this; once is enough.
    pub fn lacks(&mut self, rival: &str, reason: &str) {
        let missing = Missing { rival: rival.to_owned(), reason: anonymous(reason) };
        if !self.missing.contains(&missing) {
            self.missing.push(missing);
        }
    }

    /// Its quantities, each once, in the order in which they were measured.
    #[must_use]
    pub fn quantities(&self) -> Vec<&Quantity> {
        let mut found: Vec<&Quantity> = Vec::new();
        for it in &self.measured {
            if !found.contains(&&it.quantity) {
                found.push(&it.quantity);
            }
        }
        found
    }

    /// All who were measured on a quantity.
    pub fn of<'a>(&'a self, quantity: &'a Quantity) -> impl Iterator<Item = &'a Measured> {
        self.measured.iter().filter(move |it| it.quantity == *quantity)
    }

    /// Puts rivals into the order of a list, and compares them with vnet.
    pub fn finish(&mut self, order: &[&str]) {
        let quantities: Vec<Quantity> = self.quantities().into_iter().cloned().collect();
        let place = |it: &Measured| {
            (
                quantities.iter().position(|quantity| *quantity == it.quantity),
                // What is no entrant of its own, behind them.
                order.iter().position(|name| *name == it.rival).unwrap_or(order.len()),
            )
        };
        self.measured.sort_by_key(place);
        for it in &mut self.measured {
            it.spread = Spread::of(it.samples.iter().map(|sample| sample.value));
        }
        for quantity in &quantities {
            let Some((vnet, often)) = self.of(quantity).find(|it| it.rival == VNET).and_then(Measured::known)
            else {
                continue;
            };
            let others = self.measured.iter_mut().filter(|it| it.quantity == *quantity && it.rival != VNET);
            for it in others {
                let Some((spread, too)) = it.known() else { continue };
                it.ratio_to_vnet = spread.ratio_to(&vnet);
                it.differs_from_vnet = Some(often && too && spread.differs_from(&vnet));
            }
        }
    }
}

impl Measured {
    /// Its spread, and whether there was more than one repetition to tell it.
    fn known(&self) -> Option<(Spread, bool)> {
        Some((self.spread?, self.samples.len() > 1))
    }

    fn new(quantity: Quantity, rival: &str) -> Self {
        Self {
            quantity,
            rival: rival.to_owned(),
            samples: Vec::new(),
            failures: Vec::new(),
            spread: None,
            ratio_to_vnet: None,
            differs_from_vnet: None,
        }
    }
}

impl Sample {
    /// A number without details.
    #[must_use]
    pub fn plain(value: f64) -> Self {
        Self { value, latency: None, details: std::collections::BTreeMap::new() }
    }
}

/// The first line of a complaint, with names of files instead of paths: those are of the machine it was measured on.
fn anonymous(text: &str) -> String {
    let words = text.lines().next().unwrap_or_default().split(' ');
    let words = words.map(|word| match word.rsplit_once('/') {
        Some((before, name)) if before.is_empty() || before.contains('/') => name,
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use anyhow::anyhow;

    /// Three rivals, one of which once failed, one of which is like vnet.
    pub(crate) fn section() -> Section {
        let mut section = Section::new("masquerade", "an endpoint dials a server outside");
        let rr = Quantity::from(Kind::Rr);
        for (rival, values) in
            [("slow", [20.0, 21.0, 20.5]), ("vnet", [14.0, 14.2, 14.1]), ("alike", [14.1, 14.9, 14.3])]
        {
            for value in values {
                section.note(&rr, rival, Ok(Sample::plain(value)));
            }
        }
        section.note(&rr, "slow", Err(anyhow!("no answer & no <hope>")));
        section.lacks("other", "it cannot");
        section.lacks("other", "it cannot");
        section.finish(&["vnet", "alike", "slow"]);
        section
    }

    #[test]
    fn rivals_are_compared_with_vnet() {
        let section = section();
        let names: Vec<&str> = section.measured.iter().map(|it| it.rival.as_str()).collect();
        assert_eq!(names, ["vnet", "alike", "slow"]);
        let [vnet, alike, slow] = &section.measured[..] else { panic!("three rivals") };
        assert_eq!((vnet.ratio_to_vnet, vnet.differs_from_vnet), (None, None));
        assert_eq!(alike.differs_from_vnet, Some(false));
        assert_eq!((slow.ratio_to_vnet, slow.differs_from_vnet), (Some(20.5 / 14.1), Some(true)));
        assert_eq!((slow.samples.len(), slow.failures.len()), (3, 1));
        assert_eq!(section.missing.len(), 1);
    }

    #[test]
    fn complaints_name_no_directories() {
        assert_eq!(anonymous("open /run/netns/a: gone\nat /x/y"), "open a: gone");
        assert_eq!(anonymous("`/usr/bin/nft` and/or 10.0.0.0/8"), "nft` and/or 10.0.0.0/8");
    }

    #[test]
    fn without_vnet_nothing_is_compared() {
        let mut section = Section::new("x", "y");
        section.note(&Quantity::cost("a", "ms"), "other", Ok(Sample::plain(1.0)));
        section.finish(&["vnet", "other"]);
        assert_eq!(section.measured[0].ratio_to_vnet, None);
        assert!(section.measured[0].spread.is_some());
    }
}
