//! Ten thousand ports published as one range, each leading to the same port of an endpoint.

use std::time::Duration;

use vnet_tests::lab::{Endpoint, Lab};

use super::{Many, Path, timed, to_same_port};

/// The range.
pub(super) const FIRST: u16 = 20_000;
pub(super) const LAST: u16 = 29_999;

/// vnet with nothing published yet.
pub(crate) fn of_vnet() -> Box<dyn Many> {
    let lab = Lab::up();
    Box::new(Ranged { net1: lab.endpoint("net1"), lab })
}

#[derive(Debug)]
struct Ranged {
    net1: Endpoint,
    lab: Lab,
}

impl Many for Ranged {
    fn loaded_in(&self) -> Duration {
        Duration::ZERO
    }

    fn last(&self) -> Path {
        to_same_port(&self.lab, LAST, self.net1.netns())
    }

    fn add(&self) -> Duration {
        let (range, name) = (format!("{FIRST}-{LAST}"), self.net1.name());
        timed(|| drop(self.lab.vnet_ok(&["portmap", "add", &range, &format!("{name}:{range}")])))
    }

    fn remove(&self) -> Duration {
        timed(|| drop(self.lab.vnet_ok(&["portmap", "rm", &format!("{FIRST}-{LAST}")])))
    }
}
