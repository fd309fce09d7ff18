//! vnet where the uplink and the server's side have BIG TCP, which endpoints follow.

use vnet::spec::GsoSizes;
use vnet_tests::lab::{Lab, UPLINK, vnet_binary};

use super::{Absent, Rival, Site, publish_one, version_of};
use crate::case::{Case, Kind};

#[derive(Debug)]
pub(super) struct BigTcp;

impl Rival for BigTcp {
    fn name(&self) -> &'static str {
        "vnet, BIG TCP"
    }

    fn what(&self) -> &'static str {
        "the same with gso_max_size and gso_ipv4_max_size of 196,608 at both ends of the uplink, streams alone"
    }

    fn version(&self) -> Result<String, Absent> {
        version_of(&vnet_binary())
    }

    fn lacks(&self, _case: Case) -> Option<&'static str> {
        None
    }

    fn measures(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Stream1 | Kind::Stream8)
    }

    fn set_up(&self) -> Box<dyn Site> {
        let lab = Lab::new();
        for netns in [lab.host(), lab.outside()] {
            netns.set_gso(UPLINK, GsoSizes::MOST.v4);
        }
        lab.vnet_ok(&["up"]);
        publish_one(lab)
    }
}
