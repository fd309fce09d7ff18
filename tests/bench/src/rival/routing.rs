//! Routing without NAT: what the kernel's own way costs before anything is translated.

use vnet_tests::lab::HOST_V4;

use super::bridged::{Bridged, SUBNET};
use super::{Absent, Path, Rival, Site, kernel, to_endpoint_itself};
use crate::case::Case;

#[derive(Debug)]
pub(super) struct Routing;

impl Rival for Routing {
    fn name(&self) -> &'static str {
        "routing"
    }

    fn what(&self) -> &'static str {
        "the kernel routes between a bridge and the uplink and translates nothing: clients dial the endpoint's own \
         address, the world has a route to it"
    }

    fn version(&self) -> Result<String, Absent> {
        kernel()
    }

    fn lacks(&self, case: Case) -> Option<&'static str> {
        (case == Case::Hairpin).then_some("nothing is published; see direct")
    }

    fn set_up(&self) -> Box<dyn Site> {
        let host = Bridged::new();
        host.lab.outside().ip(&format!("route add {SUBNET} via {HOST_V4}"));
        Box::new(Routed(host))
    }
}

#[derive(Debug)]
struct Routed(Bridged);

impl Site for Routed {
    fn path(&self, case: Case) -> Path {
        to_endpoint_itself(&self.0, case)
    }
}
