//! What all rivals but vnet and the floor stand on: a host that routes, with two endpoints on a bridge, as Docker
//! makes them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use vnet_tests::lab::{Background, Lab, Netns};

use super::{Many, Path, Site, timed, to_same_port};
use crate::case::Case;

/// The bridge.
pub(super) const BRIDGE: &str = "br0";
/// What the endpoints' addresses are out of.
pub(super) const SUBNET: &str = "192.168.0.0/24";
/// The endpoint that serves.
pub(crate) const NET1: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 2));
const NET2: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 3));
/// The endpoints: the host's end of the veth pair, and the address.
pub(super) const ENDPOINTS: [(&str, IpAddr); 2] = [("net1", NET1), ("net2", NET2)];
const GATEWAY: &str = "192.168.0.1";

/// A host with endpoints on a bridge. What translates is added by the rival.
#[derive(Debug)]
pub(super) struct Bridged {
    // Dropped in this order: programs, endpoints, lab.
    pub(super) programs: Vec<Background>,
    net1: Made,
    net2: Made,
    pub(super) lab: Lab,
}

/// A namespace that we made and remove; the lab would take it for one that vnet left behind.
#[derive(Debug)]
struct Made(Netns);

impl Drop for Made {
    fn drop(&mut self) {
        self.0.delete();
    }
}

impl Bridged {
    pub(super) fn new() -> Self {
        let lab = Lab::new();
        let host = lab.host();
        host.ip(&format!("link add {BRIDGE} type bridge"));
        host.ip(&format!("addr add {GATEWAY}/24 dev {BRIDGE}"));
        host.ip(&format!("link set {BRIDGE} up"));
        host.write("/proc/sys/net/ipv4/ip_forward", "1");
        let [net1, net2] = ENDPOINTS.map(|(name, addr)| endpoint(&lab, name, addr));
        Self { programs: Vec::new(), net1, net2, lab }
    }

    /// Where `net1` is.
    pub(super) fn net1(&self) -> &Netns {
        &self.net1.0
    }

    /// Lets packets from 127.0.0.1 leave the host, as Docker does without its proxy.
    pub(super) fn route_loopback(&self) {
        self.lab.host().write(&format!("/proc/sys/net/ipv4/conf/{BRIDGE}/route_localnet"), "1");
    }
}

/// Bridged, with many published ports; a rule or two for each is written by its rival.
#[derive(Debug)]
pub(super) struct BridgedMany {
    host: Bridged,
    last: u16,
    loaded_in: Duration,
    /// Commands that publish one more, and those that take it back.
    add: Vec<String>,
    remove: Vec<String>,
}

impl BridgedMany {
    /// Runs a command over a file with everything in it, and notes what that took. Commands are split at blanks.
    pub(super) fn load(last: u16, command: &str, rules: &str, [add, remove]: [Vec<String>; 2]) -> Self {
        let host = Bridged::new();
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), rules).expect("write the rules");
        let mut argv: Vec<&str> = command.split(' ').collect();
        argv.push(file.path().to_str().expect("a path in UTF-8"));
        let loaded_in = timed(|| drop(host.lab.host().run(&argv).ok()));
        Self { host, last, loaded_in, add, remove }
    }

    fn run(&self, commands: &[String]) -> Duration {
        timed(|| {
            for command in commands {
                self.host.lab.host().run(&command.split(' ').collect::<Vec<_>>()).ok();
            }
        })
    }
}

impl Many for BridgedMany {
    fn loaded_in(&self) -> Duration {
        self.loaded_in
    }

    fn last(&self) -> Path {
        to_same_port(&self.host.lab, self.last, self.host.net1())
    }

    fn add(&self) -> Duration {
        self.run(&self.add)
    }

    fn remove(&self) -> Duration {
        self.run(&self.remove)
    }
}

impl Site for Bridged {
    fn path(&self, case: Case) -> Path {
        Path::translated(case, &self.lab, (&self.net1.0, NET1), &self.net2.0)
    }
}

fn endpoint(lab: &Lab, short: &str, addr: IpAddr) -> Made {
    let endpoint = Made(Netns::named(&lab.name(short)));
    let netns = &endpoint.0;
    netns.create();
    lab.host().ip(&format!("link add {short} type veth peer name eth0 netns {}", netns.name()));
    lab.host().ip(&format!("link set {short} master {BRIDGE} up"));
    netns.ip(&format!("addr add {addr}/24 dev eth0"));
    netns.ip("link set eth0 up");
    netns.ip(&format!("route add default via {GATEWAY}"));
    endpoint
}
