//! What has become of flows since the last look.
//!
//! The data path tells when a flow begins and no more. All else is found by comparing: what happens between two looks
//! is seen as one change at the second.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use vnet_common::{CtState, DatapathConfig, Tuple};

use super::Flow;

/// The flows as they were when last looked at.
#[derive(Clone, Debug)]
pub struct Watch {
    /// By the opener's tuple.
    known: HashMap<Tuple, Flow>,
}

/// What has become of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It began.
    Began,
    /// Both sides have shown that they hear each other. It had this state before.
    Confirmed(CtState),
    /// It has another state than this one now.
    Changed(CtState),
    /// It is gone.
    Ended(Ended),
}

/// Why a flow is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was idle for too long.
    Timeout,
    /// It was forgotten: flushed, with its mapping or its endpoint, or to make room.
    Removed,
}

impl Ended {
    /// A word for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Removed => "removed",
        }
    }
}

/// Something to tell: what, and the flow as it is now, or was when last seen.
pub type Told = (News, Flow);

impl Watch {
    /// Begins with what is there.
    #[must_use]
    pub fn new(flows: Vec<Flow>, config: &DatapathConfig, now: u32) -> Self {
        let live = flows.into_iter().filter(|flow| !flow.is_over(config, now));
        Self { known: live.map(|flow| (flow.original, flow)).collect() }
    }

    /// Notes a flow that the data path told of; what there is to tell.
    ///
    /// Whatever it has come to since is told by the next look.
    pub fn began(&mut self, flow: Flow) -> Vec<Told> {
        let flow = at_first(flow);
        match self.known.entry(flow.original) {
            Entry::Occupied(known) if known.get().created == flow.created => Vec::new(),
            Entry::Occupied(mut known) => {
                let before = known.insert(flow.clone());
                vec![(News::Ended(Ended::Removed), before), (News::Began, flow)]
            }
            Entry::Vacant(place) => {
                place.insert(flow.clone());
                vec![(News::Began, flow)]
            }
        }
    }

    /// Compares with what is there now; what there is to tell, in the order in which the flows began.
    pub fn look(&mut self, flows: Vec<Flow>, config: &DatapathConfig, now: u32) -> Vec<Told> {
        let mut before = std::mem::replace(self, Self::new(flows, config, now)).known;
        let mut told = Vec::new();
        for (tuple, flow) in &self.known {
            match before.remove(tuple) {
                Some(old) if old.created == flow.created => {
                    told.extend(difference(&old, flow).map(|news| (news, flow.clone())));
                }
                Some(old) => {
                    told.push((ended(&old, config, now), old));
                    told.extend(missed(flow));
                }
                None => told.extend(missed(flow)),
            }
        }
        told.extend(before.into_values().map(|old| (ended(&old, config, now), old)));
        told.sort_by_key(|(_, flow)| (flow.created, flow.original));
        told
    }
}

/// A flow as it was when it began.
fn at_first(flow: Flow) -> Flow {
    Flow { state: CtState::New, confirmed: false, ..flow }
}

/// What there is to tell of a flow whose beginning nobody told.
fn missed(flow: &Flow) -> Vec<Told> {
    let began = at_first(flow.clone());
    let since = difference(&began, flow).map(|news| (news, flow.clone()));
    std::iter::once((News::Began, began)).chain(since).collect()
}

fn difference(old: &Flow, new: &Flow) -> Option<News> {
    if new.confirmed && !old.confirmed {
        Some(News::Confirmed(old.state))
    } else if new.state != old.state {
        Some(News::Changed(old.state))
    } else {
        None
    }
}

fn ended(flow: &Flow, config: &DatapathConfig, now: u32) -> News {
    News::Ended(if flow.is_over(config, now) { Ended::Timeout } else { Ended::Removed })
}
