//! A bare veth pair: nothing that joins two namespaces by one can be quicker.

use vnet_tests::lab::{Lab, OUTSIDE_V4};

use super::{Absent, OUTSIDE_PORT, Path, Rival, Site, kernel};
use crate::case::Case;

#[derive(Debug)]
pub(super) struct Veth;

impl Rival for Veth {
    fn name(&self) -> &'static str {
        "veth"
    }

    fn what(&self) -> &'static str {
        "the floor: client and server at the two ends of one veth pair, nothing forwarded, nothing translated"
    }

    fn version(&self) -> Result<String, Absent> {
        kernel()
    }

    fn lacks(&self, _case: Case) -> Option<&'static str> {
        None
    }

    fn set_up(&self) -> Box<dyn Site> {
        Box::new(Pair(Lab::new()))
    }
}

#[derive(Debug)]
struct Pair(Lab);

impl Site for Pair {
    fn path(&self, _case: Case) -> Path {
        Path::new(self.0.host(), (OUTSIDE_V4, OUTSIDE_PORT), self.0.outside(), OUTSIDE_PORT)
    }
}
