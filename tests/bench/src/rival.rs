//! What vnet is measured beside. Each rival is a module that makes a host of its own in a lab, says who dials whom
//! there for each case, and leaves nothing when it is dropped.
//!
//! Only one of them stands at a time: programs in the root cgroup and netfilter's hooks are felt by the whole
//! machine, and nobody is to pay for somebody else's.

mod big_tcp;
mod bridged;
mod docker_proxy;
mod flowtable;
mod iptables;
mod nftables;
pub(crate) mod range;
mod redirect;
mod routing;
mod veth;
mod vnet;

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path as FilePath, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vnet_tests::lab::{HOST_V4, Lab, Netns, OUTSIDE_V4};

use crate::case::{Case, Kind};
use crate::in_process::InProcess;

use bridged::Bridged;
/// The endpoint that serves, of every rival that has a bridge.
pub(crate) use bridged::NET1;
/// What vnet publishes, in a lab where it is up already.
pub(crate) use vnet::publish_one;

/// The name of the rival that carries connections through a process.
pub(crate) const DOCKER_PROXY: &str = "docker-proxy";

/// The port outside that endpoints dial.
pub(crate) const OUTSIDE_PORT: u16 = 5000;
/// The published port of the host.
pub(crate) const PUBLISHED: u16 = 8088;
/// The port of the endpoint that it leads to.
pub(crate) const TARGET_PORT: u16 = 80;

/// The first of many published ports; 50,000 more fit below those of masquerade.
const FIRST_OF_MANY: u16 = 5_001;
/// The port that is published beside them.
const ONE_MORE: u16 = 4_000;

/// A way to do what vnet does, or a part of it.
pub trait Rival: Debug {
    /// As in the results.
    fn name(&self) -> &'static str;

    /// What it does, in a sentence.
    fn what(&self) -> &'static str;

    /// What of it is measured.
    ///
    /// # Errors
    /// Why it cannot be.
    fn version(&self) -> Result<String, Absent>;

    /// Why it has not got a case, if it has not.
    fn lacks(&self, case: Case) -> Option<&'static str>;

    /// Whether a kind of traffic tells anything of it.
    fn measures(&self, _kind: Kind) -> bool {
        true
    }

    /// Makes a host of its own.
    ///
    /// # Panics
    /// As everything of the lab does, with what went wrong.
    fn set_up(&self) -> Box<dyn Site>;

    /// Makes a host of its own on which so many ports are published, each under its own number; `None` if it
    /// publishes none. Says after each step how many are done, where that takes long.
    ///
    /// # Panics
    /// As [`Self::set_up`].
    fn publish_many(&self, _count: u16, _done: &dyn Fn(u16)) -> Option<Box<dyn Many>> {
        None
    }

    /// Makes a host of its own on which [`Many::add`] publishes a range of ports, each leading to the same port of an
    /// endpoint; `None` if it publishes none.
    ///
    /// # Panics
    /// As [`Self::set_up`].
    fn publish_range(&self) -> Option<Box<dyn Many>> {
        None
    }
}

/// Why a rival is not measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absent(pub String);

/// A rival that is set up; it is taken down when it is dropped.
pub trait Site: Debug {
    /// Who dials whom in a case that the rival has.
    fn path(&self, case: Case) -> Path;
}

/// A host with many published ports.
pub trait Many: Debug {
    /// What it took to publish them.
    fn loaded_in(&self) -> Duration;

    /// A client outside dials the last of them.
    fn last(&self) -> Path;

    /// Publishes one more; what that took.
    fn add(&self) -> Duration;

    /// Takes it back; what that took.
    fn remove(&self) -> Duration;

    /// Publishes one more and takes it back so many times, in one process; `None` if only commands can do that.
    fn in_process(&self, _times: u32) -> Option<anyhow::Result<InProcess>> {
        None
    }
}

/// The ports of [`Rival::publish_many`].
fn many(count: u16) -> RangeInclusive<u16> {
    FIRST_OF_MANY..=FIRST_OF_MANY + (count - 1)
}

/// A client outside dials a published port that leads to the same port of an endpoint.
fn to_same_port(lab: &Lab, port: u16, net1: &Netns) -> Path {
    Path::new(lab.outside(), (HOST_V4, port), net1, port)
}

/// Who dials whom where nothing is translated: whoever would dial a published port dials the endpoint itself.
fn to_endpoint_itself(host: &Bridged, case: Case) -> Path {
    let mut path = host.path(case);
    if path.server == *host.net1() {
        path.dials = (NET1, TARGET_PORT).into();
    }
    path
}

/// What something took.
pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Who dials whom.
#[derive(Clone, Debug)]
pub struct Path {
    /// Where the client is.
    pub client: Netns,
    /// What it dials.
    pub dials: SocketAddr,
    /// Where the server is.
    pub server: Netns,
    /// The port that the server listens on.
    pub port: u16,
}

impl Path {
    fn new(client: &Netns, dials: (IpAddr, u16), server: &Netns, port: u16) -> Self {
        Self { client: client.clone(), dials: dials.into(), server: server.clone(), port }
    }

    /// The one of a case where the host translates: `net1` serves, `net2` is beside it.
    fn translated(case: Case, lab: &Lab, net1: (&Netns, IpAddr), net2: &Netns) -> Self {
        let to_net1 =
            |client: &Netns, addr: IpAddr| Self::new(client, (addr, PUBLISHED), net1.0, TARGET_PORT);
        match case {
            Case::Masquerade => Self::new(net1.0, (OUTSIDE_V4, OUTSIDE_PORT), lab.outside(), OUTSIDE_PORT),
            Case::Published => to_net1(lab.outside(), HOST_V4),
            Case::Hairpin => to_net1(net2, HOST_V4),
            Case::HostLocal => to_net1(lab.host(), IpAddr::from([127, 0, 0, 1])),
            Case::Direct => Self::new(net2, (net1.1, TARGET_PORT), net1.0, TARGET_PORT),
        }
    }
}

/// Every rival, vnet first: the others are compared with it.
#[must_use]
pub fn all() -> Vec<Box<dyn Rival>> {
    vec![
        Box::new(vnet::Vnet),
        Box::new(big_tcp::BigTcp),
        Box::new(veth::Veth),
        Box::new(redirect::Redirect),
        Box::new(routing::Routing),
        Box::new(nftables::Nftables),
        Box::new(flowtable::Flowtable),
        Box::new(iptables::NFT),
        Box::new(iptables::LEGACY),
        Box::new(docker_proxy::DockerProxy),
    ]
}

/// Where a program is: on `PATH`, or among the administrator's.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(admin).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// The first line that a program says when asked for its version.
pub(crate) fn version_of(program: &FilePath) -> Result<String, Absent> {
    let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let said = Command::new(program).arg("--version").output();
    let said = said.map_err(|error| Absent(format!("{name} does not start: {error}")))?;
    let text = String::from_utf8_lossy(&said.stdout);
    let line = text.lines().next().filter(|line| !line.trim().is_empty());
    line.map(|line| line.trim().to_owned()).ok_or_else(|| Absent(format!("{name} does not tell its version")))
}

/// The version of a program that Debian has in a package.
fn version_of_debian(program: &str, package: &str) -> Result<String, Absent> {
    let path = find(program).ok_or_else(|| Absent(format!("no {program} (Debian's package {package})")))?;
    version_of(&path)
}

/// The kernel's release, for rivals that are nothing but that.
fn kernel() -> Result<String, Absent> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    release.map(|text| format!("Linux {}", text.trim())).map_err(|error| Absent(error.to_string()))
}
