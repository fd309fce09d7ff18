//! Another build of vnet takes over while traffic runs, and the first one takes over again: programs are exchanged in
//! place, maps are kept or their entries carried over, what is attached is kept, and nothing is lost.
//!
//! One other build is the one under test with one letter of its eBPF object changed, in what names the compiler: the
//! same programs, in an object that is not the same, as after an upgrade that changed nothing of the ABI. Another
//! (`VNET_OTHER_ABI`) is compiled anew, with maps that are laid out otherwise.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aya::maps::{HashMap, Map, MapData};
use nix::sys::socket::{setsockopt, sockopt};
use tempfile::{NamedTempFile, TempDir};
use vnet::kernel::Kernel;
use vnet_common::{
    Addr, CtEntry, CtState, DatapathConfig, LocalFlowKey, LocalFlowValue, Origin, Port, Proto, Tuple, Zone,
    maps,
};
use vnet_tests::lab::{
    HOST_V4, HOST_V6, Lab, Netns, OUTSIDE_V4, OUTSIDE_V6, UPLINK, eventually, vnet_binary,
};
use vnet_tests::peer::{Ask, Ping, Server};
use vnet_tests::report::report;
use vnet_tests::runner::Abi;

use super::{Extent, extent};

/// How often one build takes over from the other.
const TIMES: usize = 6;
/// How often, if all is to be tried.
const ALL_TIMES: usize = 60;
/// How long a datagram or an answer may take. Longer than any exchange, so that what is late is not taken for lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two questions of a socket.
const TICK: Duration = Duration::from_millis(1);
/// Between two connections of a client: one that is closed keeps its external port for four minutes, and towards one
/// server there are 16,384.
const PAUSE: Duration = Duration::from_millis(20);

/// The vnet under test as another build.
pub(super) struct OtherBuild {
    _directory: TempDir,
    pub(super) path: PathBuf,
}

impl OtherBuild {
    pub(super) fn new() -> Self {
        const COMPILER: &[u8] = b"clang LLVM (rustc version";
        let mut binary = fs::read(vnet_binary()).expect("read vnet");
        let objects: Vec<usize> =
            places_of(&binary, b"\x7fELF\x02\x01\x01").filter(|at| is_for_bpf(&binary[*at..])).collect();
        let object = objects.iter().enumerate().find_map(|(nth, begin)| {
            let end = objects.get(nth + 1).copied().unwrap_or(binary.len());
            let is_ours = places_of(&binary[*begin..end], b"from_endpoint\0").next().is_some();
            is_ours.then_some(*begin..end)
        });
        let object = object.expect("vnet has an object with its programs");
        let place =
            places_of(&binary[object.clone()], COMPILER).next().expect("the object names its compiler");
        binary[object.start + place] = b'C';
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("vnet");
        fs::write(&path, binary).expect("write it");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it a program");
        Self { _directory: directory, path }
    }
}

fn places_of<'a>(text: &'a [u8], what: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    text.windows(what.len()).enumerate().filter(move |(_, window)| *window == what).map(|(at, _)| at)
}

/// Whether an ELF file is for BPF (`EM_BPF`).
fn is_for_bpf(file: &[u8]) -> bool {
    file.get(18..20) == Some(&247_u16.to_le_bytes()[..])
}

/// The mark of the build whose programs are in use.
pub(super) fn mark(lab: &Lab) -> String {
    let names = fs::read_dir(lab.pin_dir()).expect("list pins").flatten();
    let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.find(|name| name.starts_with("build-")).expect("a mark")
}

/// What was asked and what was answered.
#[derive(Default)]
pub(super) struct Count {
    asked: AtomicU64,
    answered: AtomicU64,
}

/// Clients of one kind, until they are told to stop.
pub(super) struct Load {
    what: String,
    count: Arc<Count>,
    thread: JoinHandle<()>,
}

impl Load {
    pub(super) fn start(
        netns: &Netns,
        what: &str,
        over: &Arc<AtomicBool>,
        run: impl FnOnce(&Count, &AtomicBool) + Send + 'static,
    ) -> Self {
        let count = Arc::new(Count::default());
        let (for_thread, over) = (Arc::clone(&count), Arc::clone(over));
        let thread = netns.spawn(move || run(&for_thread, &over));
        Self { what: format!("{what} from {}", netns.name()), count, thread }
    }

    /// Waits until it has been answered that often more.
    pub(super) fn answered_again(&self, times: u64) {
        let begin = self.count.answered.load(Ordering::Relaxed);
        eventually(
            || (self.count.answered.load(Ordering::Relaxed) >= begin + times).then_some(()),
            || format!("{times} more answers to {}", self.what),
        );
    }

    /// Waits until it has come to its end, and says what was asked and what was answered.
    pub(super) fn join(self) -> (String, u64, u64) {
        let Self { what, count, thread } = self;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (what, count.asked.load(Ordering::Relaxed), count.answered.load(Ordering::Relaxed))
    }
}

/// One connection, a line and its echo after the other.
pub(super) fn one_connection(target: SocketAddr) -> impl FnOnce(&Count, &AtomicBool) + Send + 'static {
    move |count, over| {
        let mut stream = connect(target);
        let mut lines = BufReader::new(stream.try_clone().expect("another handle"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("the server's greeting");
        while !over.load(Ordering::Relaxed) {
            let number = count.asked.fetch_add(1, Ordering::Relaxed);
            writeln!(stream, "{number}").unwrap_or_else(|e| panic!("write to {target}: {e}"));
            line.clear();
            lines.read_line(&mut line).unwrap_or_else(|e| panic!("read from {target}: {e}"));
            assert_eq!(line.trim_end(), number.to_string(), "from {target}");
            count.answered.fetch_add(1, Ordering::Relaxed);
            thread::sleep(TICK);
        }
    }
}

/// One connection after the other, each with one question.
fn new_connections(target: SocketAddr) -> impl FnOnce(&Count, &AtomicBool) + Send + 'static {
    move |count, over| {
        while !over.load(Ordering::Relaxed) {
            count.asked.fetch_add(1, Ordering::Relaxed);
            let mut lines = BufReader::new(connect(target));
            let mut line = String::new();
            lines.read_line(&mut line).unwrap_or_else(|e| panic!("read from {target}: {e}"));
            assert!(!line.is_empty(), "{target} hung up");
            count.answered.fetch_add(1, Ordering::Relaxed);
            thread::sleep(PAUSE);
        }
    }
}

fn connect(target: SocketAddr) -> TcpStream {
    let stream =
        TcpStream::connect_timeout(&target, PATIENCE).unwrap_or_else(|e| panic!("connect to {target}: {e}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit of time");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// A datagram every millisecond, whether those before have been answered or not.
fn ticker(target: SocketAddr) -> impl FnOnce(&Count, &AtomicBool) + Send + 'static {
    move |count, over| {
        let any: SocketAddr = if target.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            "[::]:0".parse().expect("an address")
        };
        let socket = roomy(any);
        socket.connect(target).expect("connect a datagram socket");
        let answers = socket.try_clone().expect("another handle");
        answers.set_read_timeout(Some(Duration::from_millis(200))).expect("a limit of time");
        let sending = AtomicBool::new(true);
        let still = &sending;
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut buffer = [0; 64];
                let mut last = Instant::now();
                loop {
                    match answers.recv(&mut buffer) {
                        Ok(_) => {
                            count.answered.fetch_add(1, Ordering::Relaxed);
                            last = Instant::now();
                        }
                        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                        Err(e) => panic!("receive from {target}: {e}"),
                    }
                    let all = count.answered.load(Ordering::Relaxed) == count.asked.load(Ordering::Relaxed);
                    if !still.load(Ordering::Relaxed) && (all || last.elapsed() > PATIENCE) {
                        return;
                    }
                }
            });
            while !over.load(Ordering::Relaxed) {
                let number = count.asked.fetch_add(1, Ordering::Relaxed);
                socket.send(&number.to_le_bytes()).unwrap_or_else(|e| panic!("send to {target}: {e}"));
                thread::sleep(TICK);
            }
            still.store(false, Ordering::Relaxed);
        });
    }
}

/// A datagram socket with room for seconds of what arrives while its thread has no processor.
fn roomy(addr: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(addr).unwrap_or_else(|e| panic!("bind {addr}: {e}"));
    setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).expect("room for datagrams");
    socket
}

/// Sends every datagram back, until told to stop.
fn reflector(netns: &Netns, port: u16, over: &Arc<AtomicBool>) -> JoinHandle<()> {
    let socket = netns.enter(|| roomy(SocketAddr::new("::".parse().expect("an address"), port)));
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a limit of time");
    let over = Arc::clone(over);
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while !over.load(Ordering::Relaxed) {
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                // An error of one client's is that client's.
                let _ = socket.send_to(&buffer[..length], from);
            }
        }
    })
}

#[test]
fn builds_take_over_from_each_other_under_load_and_nothing_is_lost() {
    take_over_from_each_other(&OtherBuild::new().path);
}

#[test]
fn builds_of_different_abis_take_over_from_each_other_under_load_and_nothing_is_lost() {
    let Some(other) = other_abi() else { return };
    take_over_from_each_other(&other);
}

/// The build with another ABI; says so if there is none.
pub(super) fn other_abi() -> Option<PathBuf> {
    let path = std::env::var_os("VNET_OTHER_ABI").map(PathBuf::from);
    if path.is_none() {
        println!(
            "skipped: VNET_OTHER_ABI names no build of vnet with another ABI; `cargo xtask test` makes one"
        );
    }
    path
}

/// Another build takes over and is taken over from, again and again.
fn take_over_from_each_other(other: &Path) {
    let lab = Lab::new();
    // Whichever build finds that the host has got another address by itself would note it.
    let local = || !lab.host().ip(&format!("-6 -o addr show dev {UPLINK} scope link")).stdout.is_empty();
    eventually(|| local().then_some(()), || "the uplink's link-local address".to_owned());
    lab.vnet_ok(&["up", "--xdp", "native"]);
    let net1 = lab.endpoint("net1");
    let _servers = [Server::echo(&net1, "[::]:80"), Server::echo(lab.outside(), "[::]:7")];
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    lab.vnet_ok(&["portmap", "add", "5353", &format!("{}:53", net1.name()), "--proto", "udp"]);
    lab.vnet_ok(&[
        "portmap",
        "add",
        "8089",
        &format!("{}:81", net1.name()),
        "--allow-from",
        "203.0.113.0/24",
    ]);
    let (over, reflected) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let reflectors = [reflector(&net1, 53, &reflected), reflector(lab.outside(), 9, &reflected)];
    let mut loads = Vec::new();
    for (outside, host) in [(OUTSIDE_V4, HOST_V4), (OUTSIDE_V6, HOST_V6)] {
        let at = |addr: IpAddr, port| SocketAddr::new(addr, port);
        for (netns, tcp, udp) in [
            (lab.outside(), at(host, 8088), at(host, 5353)),
            (&*net1, at(outside, 7), at(outside, 9)),
            (lab.host(), at(host, 8088), at(host, 5353)),
        ] {
            loads.push(Load::start(netns, &format!("a connection to {tcp}"), &over, one_connection(tcp)));
            loads.push(Load::start(netns, &format!("connections to {tcp}"), &over, new_connections(tcp)));
            loads.push(Load::start(netns, &format!("datagrams to {udp}"), &over, ticker(udp)));
        }
    }
    loads.iter().for_each(|load| load.answered_again(20));
    let before = lab.snapshot_with_contents();
    let marks = [mark(&lab), {
        lab.use_binary(other.to_owned());
        lab.vnet_ok(&["up"]);
        mark(&lab)
    }];
    assert_ne!(marks[0], marks[1], "another build");
    let times = if extent() == Extent::Some { TIMES } else { ALL_TIMES };
    for nth in 0..times {
        lab.use_binary(if nth % 2 == 0 { vnet_binary() } else { other.to_owned() });
        lab.vnet_ok(&["up"]);
        assert_eq!(mark(&lab), marks[nth % 2]);
        loads.iter().for_each(|load| load.answered_again(20));
    }
    lab.use_binary(vnet_binary());
    lab.vnet_ok(&["up"]);
    over.store(true, Ordering::Relaxed);
    let (mut total, mut lost) = (0, Vec::new());
    for load in loads {
        let (what, asked, answered) = load.join();
        total += asked;
        if asked != answered {
            lost.push(format!("{what}: {answered} of {asked}"));
        }
    }
    reflected.store(true, Ordering::Relaxed);
    reflectors.into_iter().for_each(|reflector| reflector.join().expect("it ends by itself"));
    assert!(lost.is_empty(), "not all was answered: {lost:#?}");
    lab.snapshot_with_contents().assert_same_as(&before);
    lab.assert_consistent();
    report(format_args!("{} builds took over from each other: {total} questions, all answered", times + 2));
}

#[test]
fn maps_of_another_abi_are_left_alone_until_up_takes_them_over() {
    let Some(other) = other_abi() else { return };
    let lab = Lab::new();
    lab.use_binary(other.clone());
    lab.vnet_ok(&["up"]);
    let net1 = lab.endpoint("net1");
    let _servers = [Server::echo(&net1, "[::]:80"), Server::echo(lab.outside(), "[::]:7")];
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    let connections =
        [(&*net1, (OUTSIDE_V4, 7)), (&*net1, (OUTSIDE_V6, 7)), (lab.outside(), (HOST_V4, 8088))];
    let mut kept = connections.map(|(netns, target)| Kept::open(netns, target.into()));
    let flows = flows(&lab);

    lab.use_binary(vnet_binary());
    let before = lab.snapshot_with_contents();
    let (name, target) = (lab.name("net2"), format!("{}:81", net1.name()));
    for args in [&["ns", "create", &name][..], &["portmap", "add", "81", &target], &["portmap", "rm", "8088"]]
    {
        lab.vnet(args)
            .fails_with(1, &["another version of vnet", "ABI version", "`vnet up` takes them over"]);
        lab.snapshot_with_contents().assert_same_as(&before);
        Ping::to(OUTSIDE_V4).in_netns(&net1);
        Ask::tcp((HOST_V4, 8088).into()).in_netns(lab.outside());
    }
    for args in [&["flow", "ls"][..], &["drops"], &["trace", "tcp", "203.0.113.2:5", "203.0.113.1:8088"]] {
        lab.vnet(args).fails_with(1, &["`vnet up` takes them over"]);
    }
    let told = lab.vnet_ok(&["up", "--dry-run"]).stdout;
    assert!(told.contains("change maps and programs"), "{told}");
    lab.snapshot_with_contents().assert_same_as(&before);
    lab.vnet_ok(&["up"]);
    kept.iter_mut().for_each(Kept::ask);
    let after = self::flows(&lab);
    for flow in &flows {
        assert!(after.contains(flow), "{flow} is gone: {after:#?}");
    }
    lab.vnet_ok(&["portmap", "add", "81", &target]);
    // So does `apply`, as the unit does when the machine starts.
    let described = described(&lab);
    lab.use_binary(other);
    lab.vnet_ok(&["apply", "-f", described.path().to_str().expect("a path")]);
    kept.iter_mut().for_each(Kept::ask);
}

/// The instance as `vnet export` describes it.
fn described(lab: &Lab) -> NamedTempFile {
    let file = NamedTempFile::with_suffix(".toml").expect("a file");
    fs::write(file.path(), lab.vnet_ok(&["export"]).stdout).expect("write it");
    file
}

#[test]
fn the_resident_part_takes_over_when_it_starts_and_never_after_that() {
    let other = OtherBuild::new();
    let others = [Some(other.path.clone()), other_abi()].into_iter().flatten();
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _server = Server::echo(&net1, "[::]:80");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    let usual = mark(&lab);
    for other in others {
        let mut connection = Kept::open(lab.outside(), (HOST_V4, 8088).into());
        let old = lab.vnet_start(&["run"]);
        let _ = old.line_with(&["started"]);
        // The upgrade is by hand, and the old process still there.
        lab.use_binary(other);
        lab.vnet_ok(&["up"]);
        let upgraded = mark(&lab);
        assert_ne!(upgraded, usual);
        let _ = old.line_with(&["failed", "another build of vnet has taken the instance over"]);
        lab.host().ip("link set vnet0 down");
        lab.host().ip("link set vnet0 up");
        lab.vnet_ok(&["up"]);
        assert_eq!(mark(&lab), upgraded, "the old process has undone the upgrade");
        drop(old);
        connection.ask();
        // The service is started anew: that is the upgrade.
        lab.use_binary(vnet_binary());
        let new = lab.vnet_start(&["run"]);
        let _ = new.line_with(&["started"]);
        assert_eq!(mark(&lab), usual);
        connection.ask();
        Ask::tcp((HOST_V4, 8088).into()).in_netns(lab.outside());
        assert_eq!(lab.vnet_json(&["status"])["problems"].as_array().map(Vec::len), Some(0));
    }
}

#[test]
fn a_hundred_thousand_flows_are_carried_over_and_back() {
    const FLOWS: u32 = 100_000;
    let Some(other) = other_abi() else { return };
    let lab = Lab::up();
    let pin = lab.pin_dir().join(maps::CONNTRACK);
    let mut table =
        Flows::try_from(Map::HashMap(MapData::from_pin(&pin).expect("open the map"))).expect("its types");
    let now = Kernel::now();
    for number in 0..FLOWS {
        let [a, b, c, d] = number.to_be_bytes();
        let tuple = Tuple {
            src: Addr::v4([10, b, c, d]),
            dst: Addr::v4([203, 0, 113, 2 + (number / 50_000) as u8]),
            sport: Port::new(1024 + (number % 50_000) as u16),
            dport: Port::new(443),
            zone: Zone { id: 1 },
            proto: Proto::TCP,
            reserved: a,
        };
        let translated = Tuple { src: Addr::v4([203, 0, 113, 1]), zone: Zone::WORLD, ..tuple };
        for (key, translated, origin) in
            [(tuple, translated, Origin::Opener), (translated.answer(), tuple.answer(), Origin::Answer)]
        {
            let entry = CtEntry {
                translated,
                packets: u64::from(number) << 20,
                bytes: u64::MAX - u64::from(number),
                last_seen: now,
                created: now - number % 7,
                mapping: number,
                state: CtState::Established as u8,
                origin: origin as u8,
                flags: (number % 8) as u8,
                reserved: 0,
            };
            table.insert(Abi(key), Abi(entry), 0).expect("write an entry");
        }
    }
    let before = all(&table);
    assert_eq!(before.len(), 2 * FLOWS as usize);
    for binary in [other, vnet_binary()] {
        lab.use_binary(binary);
        let config = watch_frozen(&lab);
        let begun = Instant::now();
        lab.vnet_ok(&["up"]);
        let frozen = config.join().expect("it ends with the takeover");
        report(format_args!(
            "{} entries of flows carried over: {:.0?} in all, in {frozen:.0?} of which no flow began",
            before.len(),
            begun.elapsed(),
        ));
    }
    let table =
        Flows::try_from(Map::HashMap(MapData::from_pin(&pin).expect("open the map"))).expect("its types");
    assert!(all(&table) == before, "not all entries are as they were");
}

/// The confirmed flows.
type Flows = HashMap<MapData, Abi<Tuple>, Abi<CtEntry>>;

fn all(flows: &Flows) -> BTreeMap<Tuple, [u8; size_of::<CtEntry>()]> {
    let entries = flows.iter().map(|entry| entry.expect("an entry"));
    entries.map(|(Abi(key), Abi(entry))| (key, bytemuck::cast(entry))).collect()
}

/// Watches for how long no flow begins while maps are taken over.
fn watch_frozen(lab: &Lab) -> JoinHandle<Duration> {
    let pin = lab.pin_dir().join(maps::CONFIG);
    let flags = move || {
        // Of either ABI: the fields in question are where they are in both.
        let data = MapData::from_pin(&pin).ok()?;
        let map: HashMap<MapData, u32, Abi<DatapathConfig>> = Map::HashMap(data).try_into().ok()?;
        let Abi(config) = map.get(&0, 0).ok()?;
        Some(config.flags & DatapathConfig::FLAG_FROZEN != 0)
    };
    thread::spawn(move || {
        let until = Instant::now() + PATIENCE;
        let wait_for = |wanted: bool| {
            while flags() != Some(wanted) {
                assert!(Instant::now() < until, "maps were not taken over in {PATIENCE:?}");
                thread::sleep(Duration::from_micros(200));
            }
            Instant::now()
        };
        let begun = wait_for(true);
        wait_for(false) - begun
    })
}

#[test]
fn maps_that_cannot_be_taken_over_are_refused_with_the_way_out_and_go_on() {
    let Some(other) = other_abi() else { return };
    let lab = Lab::new();
    lab.use_binary(other);
    lab.vnet_ok(&["up"]);
    let net1 = lab.endpoint("net1");
    let _server = Server::echo(&net1, "[::]:80");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    // One that does not tell its types. It is not the one that the programs use, so they go on.
    let pin = lab.pin_dir().join(maps::LOCAL_FLOWS);
    fs::remove_file(&pin).expect("remove a pin");
    untold(&pin);
    lab.use_binary(vnet_binary());
    let before = lab.snapshot_with_contents();
    lab.vnet(&["up"]).fails_with(
        1,
        &[
            "another version of vnet",
            maps::LOCAL_FLOWS,
            "nothing tells",
            "`vnet down` first, after `vnet export`",
        ],
    );
    lab.snapshot_with_contents().assert_same_as(&before);
    Ping::to(OUTSIDE_V4).in_netns(&net1);
    Ask::tcp((HOST_V4, 8088).into()).in_netns(lab.outside());
    // What can be described is described, and made again of that.
    let described = described(&lab);
    lab.vnet_ok(&["down"]);
    lab.vnet_ok(&["apply", "-f", described.path().to_str().expect("a path")]);
    let net1 = lab.endpoint("net1");
    let _server = Server::echo(&net1, "[::]:80");
    Ask::tcp((HOST_V4, 8088).into()).in_netns(lab.outside());
}

/// A connection that stays open.
struct Kept {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Kept {
    fn open(netns: &Netns, target: SocketAddr) -> Self {
        let stream = netns.enter(|| connect(target));
        let lines = BufReader::new(stream.try_clone().expect("another handle"));
        let mut kept = Self { stream, lines };
        kept.lines.read_line(&mut String::new()).expect("the server's greeting");
        kept.ask();
        kept
    }

    fn ask(&mut self) {
        let mut line = String::new();
        writeln!(self.stream, "still there").expect("write");
        self.lines.read_line(&mut line).expect("read");
        assert_eq!(line.trim_end(), "still there");
    }
}

/// The established flows, as far as they stay the same.
fn flows(lab: &Lab) -> Vec<String> {
    let flows = lab.vnet_list(&["flow", "ls"], "flows");
    assert!(!flows.is_empty());
    let described =
        |flow: serde_json::Value| format!("{} {} {}", flow["original"], flow["translated"], flow["state"]);
    flows.into_iter().filter(|flow| flow["state"] == "established").map(described).collect()
}

/// Pins a map that was made without type information.
fn untold(pin: &Path) {
    let map = HashMap::<MapData, Abi<LocalFlowKey>, Abi<LocalFlowValue>>::create(16, 0);
    map.expect("make a map").pin(pin).expect("pin it");
}
