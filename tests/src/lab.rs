//! Network namespaces that play hosts: the one place where vnet meets real traffic.
//!
//! ```text
//!        outside                      host                          endpoints
//!   203.0.113.2/24      eth0 203.0.113.1/24   | vnet0
//!   2001:db8:113::2/64 ---- 2001:db8:113::1/64 | ...     ----  eth0, as vnet makes them
//! ```
//!
//! `outside` stands for the rest of the world: it knows no route to the endpoints' addresses, only to the host.
//! The host's default routes lead to it. Offloads stay at their defaults, because that is what users have.
//! vnet runs with the host's network namespace as its own and, for everything that is not of the network, with the
//! directories of this lab: `/run/vnet-lab/NAME/run`, a tmpfs as /run is on hosts, and a BPF file system of its own at
//! `/run/vnet-lab/NAME/bpf`.
//!
//! Several labs live side by side, in threads and in processes: whatever is named globally carries the lab's
//! name, `vl-PID-N`. A lab that is dropped, also by a panic, runs `vnet down`, removes what it made and
//! panics if vnet left anything behind. What a killed process left is removed by the next lab.
//!
//! Nothing here touches the network namespace of the machine.

mod consistency;
mod docker;
mod endpoint;
mod gso;
mod maps;
mod netns;
mod process;
mod snapshot;
mod traced;
mod wait;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags};

use crate::peer::Ping;
use crate::report::report;

pub use docker::Docker;
pub use endpoint::Endpoint;
pub use netns::Netns;
pub use process::{Background, Output};
pub use snapshot::Snapshot;
pub use traced::{Call, End, Fate};
pub use wait::{PATIENCE, eventually};

/// The address of `outside`.
pub const OUTSIDE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2));
/// The address of `outside`.
pub const OUTSIDE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 2));
/// The host's address on its uplink.
pub const HOST_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
/// The host's address on its uplink.
pub const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 1));
/// Both families: the address of `outside`, and the host's.
pub const FAMILIES: [(IpAddr, IpAddr); 2] = [(OUTSIDE_V4, HOST_V4), (OUTSIDE_V6, HOST_V6)];
/// The interface that joins host and outside, on both sides.
pub const UPLINK: &str = "eth0";

const LABS: &str = "/run/vnet-lab";
/// Where a lab has its BPF file system, and where vnet keeps its state.
const BPFFS: &str = "bpf";
const STATE: &str = "run";
const NETNS: &str = "/run/netns";

/// A world of its own.
#[derive(Debug)]
pub struct Lab {
    name: String,
    dir: PathBuf,
    outside: Netns,
    host: Netns,
    /// The vnet that runs here.
    binary: Mutex<PathBuf>,
}

impl Lab {
    /// Makes the namespaces and joins them; vnet is not up.
    ///
    /// # Panics
    /// When not root, or `ip` is missing.
    #[must_use]
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        remove_leftovers_of_the_dead();
        let name = format!("vl-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new(LABS).join(&name);
        let lab = Self {
            outside: Netns::named(&format!("{name}-outside")),
            host: Netns::named(&format!("{name}-host")),
            binary: Mutex::new(vnet_binary()),
            name,
            dir,
        };
        // From here on dropping the lab cleans up, however far this gets.
        lab.make_directories();
        lab.make_namespaces();
        lab
    }

    /// A lab in which `vnet up` has run.
    #[must_use]
    pub fn up() -> Self {
        let lab = Self::new();
        lab.vnet_ok(&["up"]);
        lab
    }

    /// A name that no other lab uses, for what is named globally, such as endpoints.
    #[must_use]
    pub fn name(&self, short: &str) -> String {
        format!("{}-{short}", self.name)
    }

    /// The instance's name.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.name
    }

    /// The rest of the world.
    #[must_use]
    pub fn outside(&self) -> &Netns {
        &self.outside
    }

    /// Where vnet runs.
    #[must_use]
    pub fn host(&self) -> &Netns {
        &self.host
    }

    /// Where the instance pins its maps and programs.
    #[must_use]
    pub fn pin_dir(&self) -> PathBuf {
        self.bpffs().join("vnet").join(&self.name)
    }

    /// Where the instance keeps its state.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.state().join(&self.name)
    }

    /// Runs vnet on the host and waits for it.
    pub fn vnet(&self, args: &[&str]) -> Output {
        self.vnet_from(&self.host, args)
    }

    /// Runs vnet in any namespace and waits for it.
    pub fn vnet_from(&self, netns: &Netns, args: &[&str]) -> Output {
        netns.run_with(&self.vnet_argv(args), &self.environment())
    }

    /// Runs vnet on the host; it must succeed.
    pub fn vnet_ok(&self, args: &[&str]) -> Output {
        self.vnet(args).ok()
    }

    /// Runs vnet on the host; it must succeed. The numbers of the system calls it makes, those of its start among them.
    ///
    /// # Panics
    /// When it does not succeed.
    #[must_use]
    pub fn system_calls_of_vnet(&self, args: &[&str]) -> Vec<u64> {
        let mut calls = Vec::new();
        let end = self.vnet_followed(args, |call| {
            calls.push(call.number());
            Fate::GoesOn
        });
        assert_eq!(end, End::Exited(0), "expected success of `vnet {}`", args.join(" "));
        calls
    }

    /// Runs vnet on the host and shows `before` each system call that any of its threads is about to make, which says what
    /// becomes of it.
    pub fn vnet_followed(&self, args: &[&str], before: impl FnMut(&Call) -> Fate + Send) -> End {
        let (argv, environment) = (self.vnet_argv(args), self.environment());
        self.host.enter(|| traced::follow(&argv, &environment, before))
    }

    /// Runs vnet with `--json`; it must succeed.
    pub fn vnet_json(&self, args: &[&str]) -> serde_json::Value {
        self.vnet_ok(&[&["--json"], args].concat()).json()
    }

    /// The list that `vnet --json NOUN ls` prints under `list`.
    ///
    /// # Panics
    /// When there is no such list, or its version is not 1.
    #[must_use]
    pub fn vnet_list(&self, args: &[&str], list: &str) -> Vec<serde_json::Value> {
        let json = self.vnet_json(args);
        assert_eq!(json["version"], 1, "version of {json:#}");
        json[list].as_array().unwrap_or_else(|| panic!("no list {list:?} in {json:#}")).clone()
    }

    /// How many packets were dropped for a reason so far, as `vnet drops` says.
    ///
    /// # Panics
    /// When vnet's account is not understood.
    #[must_use]
    pub fn dropped(&self, reason: &str) -> u64 {
        let drops = self.vnet_list(&["drops"], "drops");
        let of_reason = drops.iter().filter(|drop| drop["reason"] == reason);
        of_reason.map(|drop| drop["packets"].as_u64().unwrap_or_else(|| panic!("no count in {drop}"))).sum()
    }

    /// Starts vnet on the host and leaves it running.
    #[must_use]
    pub fn vnet_start(&self, args: &[&str]) -> Background {
        self.host.start_with(&self.vnet_argv(args), &self.environment())
    }

    /// Makes an endpoint on the default network. Its name is [`Self::name`] of `short`.
    #[must_use]
    pub fn endpoint(&self, short: &str) -> Endpoint {
        self.endpoint_with(short, &[])
    }

    /// Makes an endpoint with more arguments to `vnet ns create`.
    #[must_use]
    pub fn endpoint_with(&self, short: &str, args: &[&str]) -> Endpoint {
        let name = self.name(short);
        self.vnet_ok(&[&["ns", "create", &name], args].concat());
        Endpoint::observe(&name)
    }

    /// Whether the host's stack forwards packets of the family of `like` though the host is no router, and so answers
    /// them as a router would. Before Linux 6.17 it does not do that for IPv6, which is a limit that the README names:
    /// then the test's output says that something is left out.
    #[must_use]
    pub fn forwards(&self, like: IpAddr) -> bool {
        const SETTING: &str = "force_forwarding";
        let file = format!("/proc/sys/net/ipv6/conf/{UPLINK}/{SETTING}");
        let forwards = like.is_ipv4() || self.host.enter(|| Path::new(&file).exists());
        if !forwards {
            report(format_args!(
                "not tried: IPv6 that the host's stack forwards; this kernel has no {SETTING}"
            ));
        }
        forwards
    }

    /// What the environment of vnet says about where this instance lives.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: PathBuf| path.to_str().expect("ASCII").to_owned();
        vec![
            ("VNET_INSTANCE".to_owned(), self.name.clone()),
            ("VNET_RUN".to_owned(), text(self.state())),
            ("VNET_BPFFS".to_owned(), text(self.bpffs())),
        ]
    }

    /// Runs another vnet from now on; gives the one before.
    ///
    /// # Panics
    /// Never, unless another thread that used the lab did.
    pub fn use_binary(&self, binary: PathBuf) -> PathBuf {
        std::mem::replace(&mut *self.binary.lock().expect("nobody panics who has it"), binary)
    }

    /// Everything of the host that vnet could change.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(self)
    }

    /// Likewise, and all that vnet recorded and wrote into its maps; the instance must be up. Flows, counters and what
    /// is numbered anew each time are left out.
    #[must_use]
    pub fn snapshot_with_contents(&self) -> Snapshot {
        Snapshot::take_with_contents(self)
    }

    fn directories_of_vnet(&self) -> [(&'static str, PathBuf); 2] {
        [("pins", self.pin_dir()), ("state", self.run_dir())]
    }

    fn vnet_argv(&self, args: &[&str]) -> Vec<String> {
        let binary = self.binary.lock().expect("nobody panics who has it");
        let binary = binary.to_str().expect("a path in UTF-8").to_owned();
        std::iter::once(binary).chain(args.iter().map(|&arg| arg.to_owned())).collect()
    }

    fn bpffs(&self) -> PathBuf {
        self.dir.join(BPFFS)
    }

    fn state(&self) -> PathBuf {
        self.dir.join(STATE)
    }

    fn make_directories(&self) {
        // What `/run` is wherever systemd runs, and not on every machine that tests run on: in memory.
        for (kind, dir) in [("tmpfs", self.state()), ("bpf", self.bpffs())] {
            fs::create_dir_all(&dir)
                .unwrap_or_else(|e| panic!("create {} (are you root?): {e}", dir.display()));
            nix::mount::mount(Some(kind), &dir, Some(kind), MsFlags::empty(), Some("mode=0700"))
                .unwrap_or_else(|e| panic!("mount {kind} on {} (are you root?): {e}", dir.display()));
        }
    }

    fn make_namespaces(&self) {
        self.outside.create();
        self.host.create();
        self.host
            .ip(&format!("link add {UPLINK} type veth peer name {UPLINK} netns {}", self.outside.name()));
        for (netns, v4, v6) in [(&self.outside, OUTSIDE_V4, OUTSIDE_V6), (&self.host, HOST_V4, HOST_V6)] {
            // Nobody else could have the link-local addresses; looking for them would take a second.
            netns.write(&format!("/proc/sys/net/ipv6/conf/{UPLINK}/accept_dad"), "0");
            netns.ip(&format!("addr add {v4}/24 dev {UPLINK}"));
            netns.ip(&format!("addr add {v6}/64 dev {UPLINK} nodad"));
            netns.ip(&format!("link set {UPLINK} up"));
        }
        self.host.ip(&format!("route add default via {OUTSIDE_V4}"));
        self.host.ip(&format!("route add default via {OUTSIDE_V6}"));
        self.wait_for_the_link();
    }

    /// IPv6 is not there the moment an interface is up; tests are not about that moment.
    fn wait_for_the_link(&self) {
        for (from, to) in [(&self.host, OUTSIDE_V6), (&self.outside, HOST_V6)] {
            let settled = || !from.ip("-6 -o addr show tentative").stdout.contains("inet6");
            let answered = || Ping::to(to).patience(Duration::from_millis(50)).try_in(from).is_ok();
            eventually(|| (settled() && answered()).then_some(()), || format!("IPv6 from {}", from.name()));
        }
    }

    /// Takes everything down and returns what vnet failed to remove.
    fn dismantle(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.directories_of_vnet().iter().any(|(_, dir)| dir.exists()) {
            let down = self.vnet(&["down"]);
            if down.status != Some(0) {
                complaints.push(down.to_string());
            }
        }
        for (what, dir) in self.directories_of_vnet() {
            if dir.exists() {
                complaints.push(format!("{what} left: {}: {:?}", dir.display(), everything_below(&dir)));
            }
        }
        for netns in namespaces_of(&self.name) {
            if netns != self.outside.name() && netns != self.host.name() {
                complaints.push(format!("namespace left: {netns}"));
            }
        }
        remove(&self.name);
        complaints
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let already_failing = std::thread::panicking();
        let complaints = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.dismantle())) {
            Ok(complaints) => complaints,
            Err(_) => {
                remove(&self.name);
                vec!["taking the lab down failed".to_owned()]
            }
        };
        // A second panic while unwinding would abort and hide the first.
        match (complaints.is_empty(), already_failing) {
            (true, _) => {}
            (false, true) => eprintln!("lab {}: {}", self.name, complaints.join("\n")),
            (false, false) => panic!("lab {}: {}", self.name, complaints.join("\n")),
        }
    }
}

/// The vnet under test: `VNET_BIN`, else the release beside the running test.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn vnet_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("VNET_BIN") {
        let path = PathBuf::from(path);
        assert!(
            path.is_file(),
            "VNET_BIN names {}, which is not there: run `cargo xtask test`",
            path.display()
        );
        return path;
    }
    // target/debug/deps/TEST or target/release/demo.
    let test = std::env::current_exe().expect("the running test has a path");
    let release = test.ancestors().map(|dir| dir.join("release/vnet")).find(|path| path.is_file());
    release.expect("vnet is not built: run `cargo xtask test`, or set VNET_BIN")
}

/// Everything below a directory; nothing if it is not there.
fn everything_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        found.extend(everything_below(&path));
        found.push(path);
    }
    found.sort();
    found
}

/// Namespaces that carry the name of a lab; that of a router is called like its instance.
fn namespaces_of(lab: &str) -> Vec<String> {
    let prefix = format!("{lab}-");
    let Ok(entries) = fs::read_dir(NETNS) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(&prefix) || name == lab).collect();
    names.sort();
    names
}

/// Removes the namespaces, mounts and directories of a lab, whatever their state.
fn remove(lab: &str) {
    for netns in namespaces_of(lab) {
        Netns::named(&netns).delete();
    }
    let dir = Path::new(LABS).join(lab);
    // Unmounting takes the pins with it, and with the last pin of a link its program is detached.
    for mounted in [BPFFS, STATE] {
        let _ = nix::mount::umount2(&dir.join(mounted), MntFlags::MNT_DETACH);
    }
    let _ = fs::remove_dir_all(&dir);
    // Only the last lab of all can remove this.
    let _ = fs::remove_dir(LABS);
}

/// Removes labs whose process has been killed, and the programs left in them: their names say which process that
/// was.
fn remove_leftovers_of_the_dead() {
    let Ok(entries) = fs::read_dir(LABS) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let pid = name.strip_prefix("vl-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            namespaces_of(&name).iter().for_each(|netns| Netns::named(netns).end_processes());
            remove(&name);
        }
    }
}
