//! netavark, what Podman connects containers with.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use vnet_tests::lab::{Lab, Netns};

use super::given::{Namespaces, told};
use super::{Host, Maker, published};
use crate::packaged::Packaged;
use crate::rival::{Absent, TARGET_PORT, timed};

const NETAVARK: Packaged = Packaged {
    program: "netavark",
    package: "netavark",
    variable: "VNET_NETAVARK",
    places: &["/usr/lib/podman", "/usr/libexec/podman"],
};

#[derive(Debug)]
pub(super) struct Netavark;

impl Maker for Netavark {
    fn name(&self) -> &'static str {
        "netavark"
    }

    fn what(&self) -> &'static str {
        "`setup` and `teardown` of Podman's netavark, as Podman calls it, with a bridge and iptables' rules; the \
         namespace is made and the address chosen for it"
    }

    fn version(&self) -> Result<String, Absent> {
        NETAVARK.version()
    }

    fn set_up(&self) -> Box<dyn Host> {
        let program = NETAVARK.path().expect("looked for before");
        let state = TempDir::new().expect("a temporary directory");
        Box::new(Runtime { namespaces: Namespaces::default(), lab: Lab::new(), program, state })
    }
}

#[derive(Debug)]
struct Runtime {
    // Dropped first: the lab would complain of them.
    namespaces: Namespaces,
    lab: Lab,
    program: PathBuf,
    /// What it keeps for its DNS server, which is not used.
    state: TempDir,
}

impl Host for Runtime {
    fn create(&self, number: u16) -> Duration {
        timed(|| {
            let netns = self.netns(number);
            self.namespaces.make(number, &netns);
            self.call("setup", number, &netns);
        })
    }

    fn remove(&self, number: u16) -> Duration {
        let netns = self.netns(number);
        timed(|| {
            self.call("teardown", number, &netns);
            self.namespaces.remove(number);
        })
    }

    fn lab(&self) -> &Lab {
        &self.lab
    }
}

impl Runtime {
    fn call(&self, verb: &str, number: u16, netns: &Netns) {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.state.path()).arg(verb).arg(netns.path());
        told(self.lab.host(), &mut command, &wish(number, netns).to_string());
    }
}

/// What Podman writes of a container with a published port.
fn wish(number: u16, netns: &Netns) -> Value {
    const NETWORK: &str = "podman";
    // The first two are the network's and the gateway's.
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 88, 0, 1).to_bits() + u32::from(number));
    json!({
        "container_id": netns.name(),
        "container_name": netns.name(),
        "networks": { NETWORK: { "interface_name": "eth0", "static_ips": [address] } },
        "network_info": { NETWORK: {
            "name": NETWORK,
            "id": "b".repeat(64),
            "driver": "bridge",
            "network_interface": "podman0",
            "created": "2024-01-01T00:00:00Z",
            "subnets": [{ "subnet": "10.88.0.0/16", "gateway": "10.88.0.1" }],
            "ipv6_enabled": false,
            "internal": false,
            "dns_enabled": false,
            "ipam_options": { "driver": "host-local" },
        }},
        "port_mappings": [{
            "host_ip": "",
            "host_port": published(number),
            "container_port": TARGET_PORT,
            "range": 1,
            "protocol": "tcp",
        }],
    })
}
