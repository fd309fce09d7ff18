//! vnet itself.

use vnet_tests::lab::{Endpoint, Lab, vnet_binary};

use super::{Absent, PUBLISHED, Path, Rival, Site, TARGET_PORT, version_of};
use crate::case::Case;

#[derive(Debug)]
pub(super) struct Vnet;

impl Rival for Vnet {
    fn name(&self) -> &'static str {
        "vnet"
    }

    fn what(&self) -> &'static str {
        "two endpoints, masquerade, one port published for TCP and UDP; everything at its defaults"
    }

    fn version(&self) -> Result<String, Absent> {
        version_of(&vnet_binary())
    }

    fn lacks(&self, _case: Case) -> Option<&'static str> {
        None
    }

    fn set_up(&self) -> Box<dyn Site> {
        let lab = Lab::up();
        let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
        let (port, target) = (PUBLISHED.to_string(), format!("{}:{TARGET_PORT}", net1.name()));
        for proto in ["tcp", "udp"] {
            lab.vnet_ok(&["portmap", "add", &port, &target, "--proto", proto]);
        }
        Box::new(Up { net1, net2, lab })
    }
}

#[derive(Debug)]
struct Up {
    net1: Endpoint,
    net2: Endpoint,
    lab: Lab,
}

impl Site for Up {
    fn path(&self, case: Case) -> Path {
        Path::translated(case, &self.lab, (self.net1.netns(), self.net1.v4()), self.net2.netns())
    }
}
