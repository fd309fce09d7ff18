//! Published ports that move to another target: who gets what is sent, and what becomes of what was going on.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vnet_tests::lab::{Endpoint, FAMILIES, HOST_V4, Lab, PATIENCE, eventually};
use vnet_tests::peer::{Ask, Server, Service, send};

/// Numbered datagrams that arrived somewhere, each of which is sent back.
struct Echo {
    numbers: Arc<Mutex<Vec<u64>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start(endpoint: &Endpoint, listen: &str) -> Self {
        let socket = endpoint.enter(|| UdpSocket::bind(listen)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (numbers, stop) = (Arc::<Mutex<Vec<u64>>>::default(), Arc::new(AtomicBool::new(false)));
        let (for_thread, stopped) = (Arc::clone(&numbers), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut buffer = [0; 8];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((8, from)) = socket.recv_from(&mut buffer) else { continue };
                for_thread.lock().unwrap().push(u64::from_be_bytes(buffer));
                // Answers keep both directions of the flow alive.
                let _ = socket.send_to(&buffer, from);
            }
        });
        Self { numbers, stop, thread: Some(thread) }
    }

    fn numbers(&self) -> Vec<u64> {
        self.numbers.lock().unwrap().clone()
    }

    /// Waits for a number as high as this.
    #[track_caller]
    fn reached(&self, number: u64) {
        let arrived = || self.numbers().iter().any(|arrived| *arrived >= number).then_some(());
        eventually(arrived, || format!("datagram {number}, the last of {:?}", self.numbers().last()));
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Sends numbered datagrams as steadily as it can, from one socket, until it is dropped.
struct Steady {
    next: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Steady {
    fn start(lab: &Lab, to: SocketAddr) -> Self {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = lab.outside().enter(|| UdpSocket::bind(any)).unwrap();
        let (next, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped) = (Arc::clone(&next), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let _ = socket.send_to(&number.to_be_bytes(), to);
                // A pace that leaves the machine to others.
                thread::sleep(Duration::from_micros(300));
            }
        });
        Self { next, stop, thread: Some(thread) }
    }

    /// The number of the next datagram that is sent. The one before may still be on its way.
    fn next(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    /// Stops; gives how many were sent.
    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
        self.next()
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn target(endpoint: &Endpoint, port: u16) -> String {
    format!("{}:{port}", endpoint.name())
}

#[test]
fn the_first_datagram_after_a_move_reaches_the_new_target_and_none_is_lost() {
    let lab = Lab::up();
    let endpoints = [lab.endpoint("net1"), lab.endpoint("net2")];
    let udp = "5353";
    lab.vnet_ok(&["portmap", "add", udp, &target(&endpoints[0], 53), "--proto", "udp"]);
    for (_, host) in FAMILIES {
        lab.vnet_ok(&["portmap", "move", udp, &target(&endpoints[0], 53), "--proto", "udp"]);
        let echoes = endpoints.each_ref().map(|endpoint| Echo::start(endpoint, "[::]:53"));
        let client = Steady::start(&lab, SocketAddr::new(host, 5353));
        // To and fro, so that each flow that ends is one that both sides keep alive. Noted are datagrams that were
        // sent after one move had returned and before the next one began, and whose they are.
        let mut settled = Vec::new();
        let mut first = 0;
        for round in 0..6 {
            let (from, to) = (round % 2, (round + 1) % 2);
            echoes[from].reached(first + 20);
            // The one with the number before was taken before this, but maybe not sent.
            settled.push((from, first..client.next() - 1));
            lab.vnet_ok(&["portmap", "move", udp, &target(&endpoints[to], 53), "--proto", "udp"]);
            first = client.next();
        }
        let sent = client.end();
        let all = || {
            let mut all: Vec<u64> = echoes.iter().flat_map(Echo::numbers).collect();
            all.sort_unstable();
            all
        };
        let expected: Vec<u64> = (0..sent).collect();
        eventually(
            || (all() == expected).then_some(()),
            || format!("each of {sent} datagrams once, not {} of them", all().len()),
        );
        for (to, numbers) in settled {
            let arrived = echoes[to].numbers();
            let astray: Vec<u64> = numbers.clone().filter(|number| !arrived.contains(number)).collect();
            assert!(astray.is_empty(), "{host}: of {numbers:?} not at {}: {astray:?}", endpoints[to].name());
        }
    }
}

#[test]
fn a_connection_through_a_moved_mapping_is_reset() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let servers = [Server::echo(&net1, "[::]:80"), Server::echo(&net2, "[::]:80")];
    for (_, host) in FAMILIES {
        lab.vnet_ok(&["portmap", "add", "8088", &target(&net1, 80)]);
        let connect = || {
            let stream = lab.outside().enter(|| TcpStream::connect((host, 8088))).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            greeted(stream)
        };
        let reset = |mut stream: TcpStream, when: &str| {
            stream.write_all(b"anybody there?").unwrap();
            let error = stream.read(&mut [0; 100]).expect_err("no answer");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{host}, {when}: {error}");
        };
        let old = connect();
        lab.vnet_ok(&["portmap", "move", "8088", &target(&net2, 80)]);
        reset(old, "the new target listens");
        Ask::tcp((host, 8088).into()).in_netns(lab.outside());
        let old = connect();
        lab.vnet_ok(&["portmap", "move", "8088", &target(&net1, 81)]);
        reset(old, "nobody listens at the new target");
        lab.vnet_ok(&["portmap", "move", "8088", &target(&net1, 80)]);
        let old = connect();
        lab.vnet_ok(&["portmap", "rm", "8088"]);
        reset(old, "nothing is published any more");
    }
    assert_eq!(servers.map(|server| server.seen().len()), [4, 4]);
}

/// A stream whose server has said whom it sees.
fn greeted(mut stream: TcpStream) -> TcpStream {
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).unwrap();
    }
    stream
}

#[test]
fn a_stream_through_another_mapping_loses_nothing_by_a_move() {
    const BYTES: u64 = 64 << 20;
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let _sink = Server::tcp(&net1, "[::]:90", Service::Sink);
    let _servers = [Server::echo(&net1, "[::]:80"), Server::echo(&net2, "[::]:80")];
    lab.vnet_ok(&["portmap", "add", "8088", &target(&net1, 80)]);
    lab.vnet_ok(&["portmap", "add", "9090", &target(&net1, 90)]);
    let stream = lab.outside().enter(|| TcpStream::connect((HOST_V4, 9090))).unwrap();
    let sender = thread::spawn(move || {
        let digest = send(&stream, BYTES).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        (&stream).read_to_string(&mut answer).unwrap();
        (digest, answer)
    });
    let mut moves = 0;
    while !sender.is_finished() || moves < 4 {
        for endpoint in [&net2, &net1] {
            lab.vnet_ok(&["portmap", "move", "8088", &target(endpoint, 80)]);
            Ask::tcp((HOST_V4, 8088).into()).in_netns(lab.outside());
            moves += 1;
        }
    }
    let (digest, answer) = sender.join().unwrap();
    assert_eq!(answer, format!("{digest} {BYTES}\n"), "after {moves} moves");
}

#[test]
fn a_move_that_is_killed_is_completed_by_the_same_command() {
    // Milliseconds: before, in and after its work.
    const MOMENTS: [u64; 12] = [0, 1, 2, 3, 4, 6, 8, 10, 13, 17, 25, 40];
    let lab = Lab::up();
    let endpoints = [lab.endpoint("net1"), lab.endpoint("net2")];
    let servers = endpoints.each_ref().map(|endpoint| Server::echo(endpoint, "[::]:80"));
    let [first, _] = &endpoints;
    lab.vnet_ok(&["portmap", "add", "8088", &target(first, 80), "--allow-from", "203.0.113.0/24"]);
    for (moment, to) in MOMENTS.into_iter().zip([1, 0].into_iter().cycle()) {
        let command = ["portmap", "move", "8088", &target(&endpoints[to], 80)];
        let mut killed = lab.vnet_start(&command);
        // Not to wait for anything: this is the moment at which it dies.
        thread::sleep(Duration::from_millis(moment));
        killed.signal(nix::sys::signal::Signal::SIGKILL);
        killed.wait();
        lab.vnet_ok(&command);
        let before = servers[to].seen().len();
        Ask::tcp((HOST_V4, 8088).into()).in_netns(lab.outside());
        assert_eq!(servers[to].seen().len(), before + 1, "killed after {moment} ms");
        let pin = lab.pin_dir().join("allow_from");
        let dump = ["bpftool", "--json", "map", "dump", "pinned", pin.to_str().unwrap()];
        let clients = lab.host().run(&dump).ok().json();
        assert_eq!(clients.as_array().map(Vec::len), Some(1), "killed after {moment} ms: {clients:#}");
    }
}

#[test]
fn a_moved_mapping_is_another_generation_with_the_same_clients() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    lab.vnet_ok(&["portmap", "add", "8088", &target(&net1, 80), "--allow-from", "203.0.113.0/24"]);
    let before = lab.vnet_list(&["portmap", "ls"], "portmaps");
    let planned = lab.vnet_ok(&["portmap", "move", "8088", &target(&net2, 8080), "--dry-run"]).stdout;
    assert_eq!(lab.vnet_list(&["portmap", "ls"], "portmaps"), before, "a dry run changes nothing");
    assert!(planned.contains("change published tcp ports 8088-8088"), "{planned}");
    let moved = lab.vnet_ok(&["portmap", "move", "8088", &target(&net2, 8080)]).stdout;
    assert!(moved.starts_with("moved 8088/tcp to") && !moved.contains("already"), "{moved}");
    let after = lab.vnet_list(&["portmap", "ls"], "portmaps");
    assert_ne!(after[0]["id"], before[0]["id"]);
    assert_eq!((&after[0]["endpoint"], &after[0]["target_port"]), (&net2.name().into(), &8080.into()));
    assert_eq!(after[0]["allow_from"], before[0]["allow_from"]);
    let again = lab.vnet_ok(&["portmap", "move", "8088", &target(&net2, 8080)]).stdout;
    assert!(again.contains("(already)"), "{again}");
    assert_eq!(lab.vnet_list(&["portmap", "ls"], "portmaps"), after);
    // Programs of the host reach the new target as well, with whatever they dial next.
    let server = Server::echo(&net2, "[::]:8080");
    Ask::tcp("127.0.0.1:8088".parse().unwrap()).in_netns(lab.host());
    assert_eq!(server.seen().len(), 1);
    let none = lab.vnet(&["portmap", "move", "8089", &target(&net2, 80)]);
    none.fails_with(1, &["8089/tcp is not published", "vnet portmap add"]);
}
