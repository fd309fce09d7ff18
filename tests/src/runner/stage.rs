//! Where the kernel's runners perform: a network namespace with the interfaces, addresses and routes of
//! [`crate::case::world`], so that its route lookups answer as the model's do.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::panic::resume_unwind;
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, unshare};

use crate::case::world::{BRIDGE, ENDPOINTS, FAMILIES, OTHER_BRIDGE, STRAY, UPLINK};

/// A network namespace of one thread. It has no name and no pin: when the thread ends it is gone, also when the
/// whole process is killed.
#[derive(Debug)]
pub struct Stage {
    _made_here_only: (),
}

impl Stage {
    /// Runs something on a new stage, on a thread of its own. A panic is passed on.
    ///
    /// # Panics
    /// When not root, or `ip` is missing.
    pub fn run<T: Send>(play: impl FnOnce(&Self) -> T + Send) -> T {
        thread::scope(|scope| {
            let actor = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own (are you root?)");
                set();
                play(&Self { _made_here_only: () })
            });
            actor.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }
}

/// Makes interfaces, addresses and routes.
fn set() {
    // No link-local addresses: they come seconds after their interface, and would be a source at times.
    write("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1");
    let mut links = vec!["link set lo up".to_owned()];
    for (name, index) in [("uplink", UPLINK), ("stray", STRAY)] {
        links.extend([veth(name, index), format!("link set {name} up"), format!("link set far-{name} up")]);
    }
    for (name, index) in [("vnet0", BRIDGE), ("vnet1", OTHER_BRIDGE)] {
        links.extend([format!("link add {name} index {index} type bridge"), format!("link set {name} up")]);
    }
    // The runners only name them: they need not be up.
    links.extend(
        (1..).zip(&ENDPOINTS).map(|(number, endpoint)| veth(&format!("net{number}"), endpoint.ifindex)),
    );
    for family in &FAMILIES {
        let of_host = [
            ("uplink", family.host),
            ("stray", family.stray_host),
            ("vnet0", family.gateway),
            ("vnet1", family.other_gateway),
        ];
        links.extend(of_host.map(|(name, addr)| address(name, addr)));
        // Where no packet takes its source from.
        let bits = if family.spare.is_ipv4() { 32 } else { 128 };
        links.push(format!("addr add {}/{bits} dev lo", family.spare));
    }
    links.extend(FAMILIES.iter().map(|family| format!("route add default via {}", family.peer)));
    ip(&links);
    for (bridge, family) in [("vnet0", "ipv4"), ("vnet0", "ipv6"), ("vnet1", "ipv4"), ("vnet1", "ipv6")] {
        write(&format!("/proc/sys/net/{family}/conf/{bridge}/forwarding"), "1");
    }
}

fn write(path: &str, text: &str) {
    fs::write(path, text).unwrap_or_else(|e| panic!("write {text} to {path}: {e}"));
}

fn veth(name: &str, index: u32) -> String {
    format!("link add {name} index {index} type veth peer name far-{name}")
}

fn address(name: &str, addr: IpAddr) -> String {
    // Nobody else could have it; looking for them would take a second.
    let (bits, nodad) = if addr.is_ipv4() { (24, "") } else { (64, "nodad") };
    format!("addr add {addr}/{bits} dev {name} {nodad}")
}

/// Runs `ip` once for all of it.
fn ip(commands: &[String]) {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("`ip` is installed (apt-get install iproute2)");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(commands.join("\n").as_bytes()).expect("`ip` reads its commands");
    drop(stdin);
    let status = child.wait().expect("`ip` ends");
    assert!(status.success(), "`ip -batch` failed on one of\n{}", commands.join("\n"));
}
