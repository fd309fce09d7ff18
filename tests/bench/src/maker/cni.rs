//! The reference plugins of CNI, called as a container runtime calls them: bridge, which calls host-local for an address,
//! then portmap, with what bridge has answered.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use vnet_tests::lab::{Lab, Netns};

use super::given::{Namespaces, told};
use super::{Host, Maker, published};
use crate::packaged::Packaged;
use crate::rival::{Absent, TARGET_PORT, timed};

const PORTMAP: Packaged = Packaged {
    program: "portmap",
    package: "containernetworking-plugins",
    variable: "VNET_CNI_PORTMAP",
    places: &["/usr/lib/cni", "/opt/cni/bin"],
};
const VERSION: &str = "1.0.0";

#[derive(Debug)]
pub(super) struct Cni;

impl Maker for Cni {
    fn name(&self) -> &'static str {
        "CNI"
    }

    fn what(&self) -> &'static str {
        "the plugins bridge (masquerade, addresses from host-local) and portmap, which write iptables' rules; the \
         namespace is made for them by system calls"
    }

    fn version(&self) -> Result<String, Absent> {
        PORTMAP.version()
    }

    fn set_up(&self) -> Box<dyn Host> {
        let portmap = PORTMAP.path().expect("looked for before");
        let plugins = portmap.parent().expect("a directory").to_owned();
        let addresses = TempDir::new().expect("a temporary directory");
        Box::new(Runtime { namespaces: Namespaces::default(), lab: Lab::new(), plugins, addresses })
    }
}

#[derive(Debug)]
struct Runtime {
    // Dropped first: the lab would complain of them.
    namespaces: Namespaces,
    lab: Lab,
    plugins: PathBuf,
    /// Where host-local notes which are taken.
    addresses: TempDir,
}

impl Host for Runtime {
    fn create(&self, number: u16) -> Duration {
        timed(|| {
            let netns = self.netns(number);
            self.namespaces.make(number, &netns);
            let made = self.call("ADD", "bridge", &netns, self.bridge());
            self.call("ADD", "portmap", &netns, self.portmap(number, &made));
        })
    }

    fn remove(&self, number: u16) -> Duration {
        let netns = self.netns(number);
        timed(|| {
            self.call("DEL", "portmap", &netns, self.portmap(number, &Value::Null));
            self.call("DEL", "bridge", &netns, self.bridge());
            self.namespaces.remove(number);
        })
    }

    fn lab(&self) -> &Lab {
        &self.lab
    }
}

impl Runtime {
    fn bridge(&self) -> Value {
        json!({
            "cniVersion": VERSION,
            "name": "bench",
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "ipMasq": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": self.addresses.path(),
                "ranges": [[{ "subnet": "10.88.0.0/16" }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        })
    }

    /// Its configuration holds what bridge answered, if there is an answer.
    fn portmap(&self, number: u16, made: &Value) -> Value {
        let ports =
            json!([{ "hostPort": published(number), "containerPort": TARGET_PORT, "protocol": "tcp" }]);
        let mut configuration = json!({
            "cniVersion": VERSION,
            "name": "bench",
            "type": "portmap",
            "capabilities": { "portMappings": true },
            "runtimeConfig": { "portMappings": ports },
        });
        if !made.is_null() {
            configuration["prevResult"] = made.clone();
        }
        configuration
    }

    /// Calls a plugin; what it answers, if that is anything.
    fn call(&self, verb: &str, plugin: &str, netns: &Netns, configuration: Value) -> Value {
        let mut command = Command::new(Path::new(&self.plugins).join(plugin));
        command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", netns.name()).env("CNI_IFNAME", "eth0");
        command.env("CNI_NETNS", netns.path()).env("CNI_PATH", &self.plugins);
        let answer = told(self.lab.host(), &mut command, &configuration.to_string());
        serde_json::from_str(&answer).unwrap_or_default()
    }
}
