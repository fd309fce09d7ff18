//! What is somebody else's survives everything that vnet does, and vnet survives it.

use std::ffi::CString;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use aya::programs::{SchedClassifier, TcAttachType};
use nix::libc;
use vnet_tests::lab::{FAMILIES, Lab, Netns, OUTSIDE_V4, UPLINK};
use vnet_tests::peer::{Ask, Capture, Ping, Server};
use vnet_tests::report::report;

/// Somebody's program at the ingress of an interface, until it is dropped.
struct Theirs {
    _link: OwnedFd,
    program: u32,
}

/// On which side of the programs that are there.
#[derive(Clone, Copy)]
enum Side {
    Before,
    After,
}

impl Theirs {
    /// Attaches one that says so of every packet, by a TCX link.
    fn on(netns: &Netns, interface: &str, side: Side, verdict: u32) -> Self {
        let index = netns.ip(&format!("-j link show {interface}")).json()[0]["ifindex"].as_u64();
        let index = u32::try_from(index.expect("an index")).expect("an index");
        let program = load(verdict);
        let link = netns.enter(|| link_tcx(&program, index, side));
        Self { _link: link, program: number_of(&program) }
    }
}

/// Let the next program decide (`TCX_NEXT`, -1).
const NEXT: u32 = u32::MAX;
/// On to the host's stack, past all other programs (`TCX_PASS`).
const PASS: u32 = 0;

/// Loads a classifier that says so of every packet.
fn load(verdict: u32) -> OwnedFd {
    const PROG_LOAD: libc::c_long = 5;
    const SCHED_CLS: u32 = 3;
    // r0 = verdict; exit
    let instructions = [u64::from(verdict) << 32 | 0xb7, 0x95_u64];
    #[repr(C)]
    struct Attribute {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
    }
    let attribute = Attribute {
        kind: SCHED_CLS,
        count: 2,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
    };
    // SAFETY: these are the first members of BPF_PROG_LOAD; the rest is zero to the kernel. What they point to lives on.
    unsafe { bpf(PROG_LOAD, &attribute) }.expect("load a program")
}

/// Attaches a classifier at the ingress of an interface.
fn link_tcx(program: &OwnedFd, index: u32, side: Side) -> OwnedFd {
    const LINK_CREATE: libc::c_long = 28;
    const TCX_INGRESS: u32 = 46;
    #[repr(C)]
    struct Attribute {
        program: u32,
        index: u32,
        kind: u32,
        flags: u32,
    }
    let flags = match side {
        Side::Before => 1 << 3,
        Side::After => 1 << 4,
    };
    let attribute = Attribute { program: program.as_raw_fd() as u32, index, kind: TCX_INGRESS, flags };
    // SAFETY: these are the first members of BPF_LINK_CREATE; the rest is zero to the kernel.
    unsafe { bpf(LINK_CREATE, &attribute) }.expect("attach a program (TCX needs Linux 6.6)")
}

/// Pins a program, for `tc` to find.
fn pin_at(program: &OwnedFd, path: &Path) {
    const OBJ_PIN: libc::c_long = 6;
    #[repr(C)]
    struct Attribute {
        path: u64,
        program: u32,
        flags: u32,
    }
    let name = CString::new(path.as_os_str().as_bytes()).expect("no zero byte");
    let attribute = Attribute { path: name.as_ptr() as u64, program: program.as_raw_fd() as u32, flags: 0 };
    // SAFETY: these are the members of BPF_OBJ_PIN; the path lives until the call is over.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, OBJ_PIN, std::ptr::from_ref(&attribute), size_of::<Attribute>())
    };
    assert_eq!(done, 0, "pin it at {}: {}", path.display(), io::Error::last_os_error());
}

/// The number of a program in the kernel.
fn number_of(program: &OwnedFd) -> u32 {
    let info = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    let info = std::fs::read_to_string(&info).expect("what the kernel says of it");
    let line = info.lines().find_map(|line| line.strip_prefix("prog_id:")).expect("its number");
    line.trim().parse().expect("a number")
}

/// A command of `bpf` that gives a descriptor.
///
/// # Safety
/// `attribute` has the layout of the beginning of the command's member of `union bpf_attr`.
unsafe fn bpf<T>(command: libc::c_long, attribute: &T) -> io::Result<OwnedFd> {
    // SAFETY: as promised; the kernel reads no more than this size.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attribute), size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, of nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The programs at the ingress of the uplink, in their order.
fn attached(lab: &Lab) -> Vec<u32> {
    let (_, programs) = lab
        .host()
        .enter(|| SchedClassifier::query_tcx(UPLINK, TcAttachType::Ingress))
        .expect("ask what is attached");
    programs.iter().map(|program| program.id()).collect()
}

#[test]
fn programs_of_others_before_and_after_ours_stay_and_are_passed_by() {
    let lab = Lab::new();
    let untouched = lab.snapshot();
    let early = Theirs::on(lab.host(), UPLINK, Side::Before, NEXT);
    lab.vnet_ok(&["up"]);
    let net1 = lab.endpoint("net1");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    let _server = Server::echo(&net1, "[::]:80");
    let before = Theirs::on(lab.host(), UPLINK, Side::Before, NEXT);
    let after = Theirs::on(lab.host(), UPLINK, Side::After, NEXT);
    let works = || {
        for (outside, host) in FAMILIES {
            Ping::to(outside).in_netns(&net1);
            Ping::to(outside).in_netns(lab.host());
            Ask::tcp((host, 8088).into()).in_netns(lab.outside());
        }
    };
    let order = attached(&lab);
    assert_eq!(order.len(), 4, "{order:?}");
    assert_eq!([order[0], order[2], order[3]], [before.program, early.program, after.program], "{order:?}");
    works();
    {
        // Who decides in front of vnet's program takes from it what it decides, for as long as it is there.
        let _greedy = Theirs::on(lab.host(), UPLINK, Side::Before, PASS);
        let lost = Ping::to(OUTSIDE_V4).patience(Duration::from_millis(300)).try_in(&net1);
        assert!(lost.is_err(), "the answer was for the host's stack");
        Ping::to(OUTSIDE_V4).in_netns(lab.host());
        let told = lab.vnet_ok(&["doctor"]).stdout;
        assert!(told.contains(&format!("in front of from_uplink on {UPLINK}")), "{told}");
    }
    works();
    // Nothing is out of order for vnet, which leaves them where they are.
    lab.vnet_ok(&["up"]);
    assert_eq!(attached(&lab), order);
    let pin = lab.pin_dir().join(format!("links/from_uplink@{UPLINK}"));
    lab.host().run(&["bpftool", "link", "detach", "pinned", pin.to_str().expect("a path")]).ok();
    lab.vnet_ok(&["up"]);
    // Attached anew it comes first, as at the beginning.
    assert_eq!(attached(&lab)[1..], [before.program, early.program, after.program]);
    works();
    lab.vnet_ok(&["down"]);
    assert_eq!(attached(&lab), [before.program, early.program, after.program]);
    lab.snapshot().assert_same_as(&untouched);
}

#[test]
fn what_is_others_survives_whatever_happens_to_vnet() {
    let lab = Lab::new();
    let host = lab.host();
    // In the neighbourhood of what vnet makes: under names like its own, at the same hooks, in the same tables.
    host.ip("link add cni0 type bridge");
    host.ip("addr add 10.88.0.1/16 dev cni0");
    host.ip("link set cni0 up");
    host.ip("link add vn-other type veth peer name vnet-other");
    host.ip("link set vn-other master cni0 up");
    host.ip("link add vfrag7 type bridge");
    host.ip("route add 198.51.100.0/24 via 203.0.113.2");
    host.ip("route add 198.51.101.0/24 via 203.0.113.2 table 100");
    host.ip("rule add from 198.51.100.7 table 100 priority 1000");
    host.ip("-6 rule add from 2001:db8:7::/64 table 100 priority 1000");
    host.ip(&format!("neigh add proxy 203.0.113.77 dev {UPLINK}"));
    host.ip(&format!("addr add 203.0.113.9/32 dev {UPLINK}"));
    host.run(&["tc", "qdisc", "add", "dev", UPLINK, "clsact"]).ok();
    let pin = lab.pin_dir().ancestors().nth(2).expect("where it is mounted").join("theirs");
    pin_at(&load(NEXT), &pin);
    let filter = ["tc", "filter", "add", "dev", UPLINK, "ingress", "pref", "7", "bpf", "da", "object-pinned"];
    host.run(&[&filter[..], &[pin.to_str().expect("a path")]].concat()).ok();
    host.run(&["tc", "qdisc", "add", "dev", UPLINK, "root", "pfifo", "limit", "77"]).ok();
    host.run(&[
        "nft",
        "add table inet mine; add chain inet mine forward { type filter hook forward priority 0; }",
    ])
    .ok();
    host.write("/proc/sys/net/ipv4/conf/all/rp_filter", "2");
    host.write("/proc/sys/net/ipv4/ip_local_reserved_ports", "8080,50000-50010");
    host.write(&format!("/proc/sys/net/ipv4/conf/{UPLINK}/forwarding"), "1");
    let theirs = Netns::named(&lab.name("theirs"));
    theirs.create();
    let filters = || host.run(&["tc", "filter", "show", "dev", UPLINK, "ingress"]).ok().stdout;
    let (before, filters_before) = (lab.snapshot(), filters());
    assert!(filters_before.contains("pref 7 bpf"), "{filters_before}");
    let name = lab.name("net1");
    for round in 0..3 {
        lab.vnet_ok(&["up", "--firewall", "respect", "--xdp", "generic"]);
        let net1 = lab.endpoint("net1");
        lab.vnet_ok(&["portmap", "add", "8088", &format!("{name}:80")]);
        lab.vnet_ok(&["floating", "add", "203.0.113.9", &name]);
        lab.vnet_ok(&["limit", "set", &name, "--egress", "50mbit"]);
        Ping::to(OUTSIDE_V4).in_netns(&net1);
        match round {
            0 => {}
            // Repaired after something else was broken.
            1 => {
                host.ip("link del vnet0");
                lab.vnet_ok(&["up"]);
            }
            // Its record is lost.
            _ => {
                lab.vnet_ok(&["ns", "rm", &name]);
                std::fs::remove_file(lab.run_dir().join("state.redb")).expect("remove the record");
            }
        }
        lab.vnet_ok(&["down"]);
        if round == 2 {
            // What vnet cannot know without it.
            host.ip("link del vnet0");
            host.ip("link del vfrag0");
        }
        lab.snapshot().assert_same_as(&before);
        assert_eq!(filters(), filters_before);
    }
    theirs.delete();
}

/// Whether a frame was sent by an endpoint under its own address.
fn is_of_an_endpoint(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(26..29) == Some(&[192, 168, 0]),
        Some([0x86, 0xdd]) => frame.get(22) == Some(&0xfd),
        _ => false,
    }
}

/// What an endpoint sends while it goes is translated or lost, and does not leave the host as it is: its programs and
/// entries go in an order in which nothing passes them by.
#[test]
fn nothing_leaves_under_an_endpoints_own_address_while_it_goes() {
    let lab = Lab::up();
    let mut capture = Capture::start(lab.outside(), UPLINK);
    for last in [["ns", "rm"].as_slice(), &["down"]] {
        let net1 = lab.endpoint("net1");
        let over = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = FAMILIES
            .into_iter()
            .map(|(outside, _)| {
                let (over, own) = (Arc::clone(&over), SocketAddr::new(net1.addr_like(outside), 4_444));
                net1.spawn(move || {
                    let socket = UdpSocket::bind(own).expect("bind a socket");
                    while !over.load(Ordering::Relaxed) {
                        // Once its interface is gone there is no way.
                        let _ = socket.send_to(b"from within", (outside, 9));
                        thread::sleep(Duration::from_micros(50));
                    }
                })
            })
            .collect();
        capture
            .until("what the endpoint sends", |frame| frame.windows(11).any(|part| part == b"from within"));
        let name = net1.name();
        let args: Vec<&str> = if last == ["down"] { last.to_vec() } else { [last, &[name]].concat() };
        lab.vnet_ok(&args);
        over.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|sender| sender.join().expect("it ends by itself"));
    }
    Ping::to(OUTSIDE_V4).in_netns(lab.host());
    let frames = capture.frames();
    let leaked = frames.iter().filter(|frame| is_of_an_endpoint(frame)).count();
    report(format_args!("{} frames while endpoints went, {leaked} under their own addresses", frames.len()));
    assert_eq!(leaked, 0);
}
