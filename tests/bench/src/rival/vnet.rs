//! vnet itself.

use std::io::Write as _;
use std::time::Duration;

use vnet_tests::lab::{Endpoint, Lab, vnet_binary};

use super::{
    Absent, Many, ONE_MORE, PUBLISHED, Path, Rival, Site, TARGET_PORT, many, timed, to_same_port, version_of,
};
use crate::case::Case;
use crate::in_process::{self, InProcess};

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
        publish_one(Lab::up())
    }

    fn publish_many(&self, count: u16, done: &dyn Fn(u16)) -> Option<Box<dyn Many>> {
        let lab = Lab::new();
        // Room for all of them below.
        lab.vnet_ok(&["up", "--nat-ports", "60000-65535"]);
        let net1 = lab.endpoint("net1");
        let ports = many(count);
        done(0);
        let lines: String = ports.clone().map(|port| format!("{port} {}:{port}\n", net1.name())).collect();
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(lines.as_bytes()).unwrap_or_else(|e| panic!("write {}: {e}", file.path().display()));
        let name = file.path().to_str().expect("a path in UTF-8");
        let loaded_in = timed(|| drop(lab.vnet_ok(&["portmap", "add", "--file", name])));
        Some(Box::new(Published { last: *ports.end(), net1, lab, loaded_in }))
    }
}

/// Two endpoints in a lab where vnet is up, and a port that leads to one of them.
pub(crate) fn publish_one(lab: Lab) -> Box<dyn Site> {
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let (port, target) = (PUBLISHED.to_string(), format!("{}:{TARGET_PORT}", net1.name()));
    for proto in ["tcp", "udp"] {
        lab.vnet_ok(&["portmap", "add", &port, &target, "--proto", proto]);
    }
    Box::new(Up { net1, net2, lab })
}

#[derive(Debug)]
struct Published {
    net1: Endpoint,
    lab: Lab,
    last: u16,
    loaded_in: Duration,
}

impl Published {
    fn publish(&self, port: u16) -> Duration {
        let target = format!("{}:{port}", self.net1.name());
        timed(|| drop(self.lab.vnet_ok(&["portmap", "add", &port.to_string(), &target])))
    }
}

impl Many for Published {
    fn loaded_in(&self) -> Duration {
        self.loaded_in
    }

    fn last(&self) -> Path {
        to_same_port(&self.lab, self.last, self.net1.netns())
    }

    fn add(&self) -> Duration {
        self.publish(ONE_MORE)
    }

    fn remove(&self) -> Duration {
        timed(|| drop(self.lab.vnet_ok(&["portmap", "rm", &ONE_MORE.to_string()])))
    }

    fn in_process(&self, times: u32) -> Option<anyhow::Result<InProcess>> {
        let target = format!("{}:{ONE_MORE}", self.net1.name());
        Some(in_process::measure(&self.lab, &ONE_MORE.to_string(), &target, times))
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
