//! Endpoints, published ports and limits come and go for a long time, beside traffic and a `vnet run`: nothing grows.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vnet_common::{CtEntry, Tuple, maps};
use vnet_tests::lab::{Background, Endpoint, FAMILIES, HOST_V4, Lab, Netns, OUTSIDE_V4, eventually};
use vnet_tests::peer::{Ask, Server};
use vnet_tests::report::report;

/// How long it lasts in every run.
const SHORT: Duration = Duration::from_secs(15);
/// Says how many seconds it lasts instead.
const LENGTH: &str = "VNET_SOAK";
/// How many endpoints come and go at once.
const ENDPOINTS: usize = 4;
/// Between two connections of the steady client, so that the ports it has closed (a minute each) do not run out.
const PAUSE: Duration = Duration::from_millis(4);
/// How long one of them may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What `vnet run` may have more in memory at the end than at the start, in bytes: for itself, and for each entry of a flow,
/// which it reads, and of which it remembers what it has counted. Its tables double when they are full.
const MORE_MEMORY: u64 = 4 << 20;
const MORE_MEMORY_OF_ENTRY: u64 = 512;

/// What `vnet run` has of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holding {
    /// What its descriptors are of, without numbers.
    descriptors: Vec<String>,
    threads: usize,
}

fn holding(run: &Background) -> Holding {
    let proc = format!("/proc/{}", run.pid());
    let links = fs::read_dir(format!("{proc}/fd")).expect("its descriptors").flatten();
    let mut descriptors: Vec<String> = links
        .filter_map(|link| fs::read_link(link.path()).ok())
        .map(|of| of.to_string_lossy().trim_end_matches(|c: char| "[]0123456789".contains(c)).to_owned())
        .collect();
    descriptors.sort_unstable();
    let threads = fs::read_dir(format!("{proc}/task")).expect("its threads").count();
    Holding { descriptors, threads }
}

/// Likewise, while it does nothing: what it looks at things with it has open for as long as it looks.
fn holding_at_rest(run: &Background) -> Holding {
    let looks = |held: &Holding| held.descriptors.iter().any(|of| of.ends_with("/lock"));
    let same = || {
        let first = holding(run);
        thread::sleep(Duration::from_millis(50));
        (!looks(&first) && holding(run) == first).then_some(first)
    };
    eventually(same, || format!("`vnet run` to rest: {:#?}", holding(run)))
}

/// Memory of a process that is its own, in bytes.
fn memory(run: &Background) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", run.pid())).expect("its account");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a size");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes << 10
}

/// One connection after the other to a published port, until it is over.
fn connections(outside: &Netns, over: &Arc<AtomicBool>) -> (Arc<AtomicU64>, thread::JoinHandle<()>) {
    let count = Arc::new(AtomicU64::new(0));
    let (counted, over) = (Arc::clone(&count), Arc::clone(over));
    let client = outside.spawn(move || {
        for host in FAMILIES.iter().map(|(_, host)| *host).cycle() {
            if over.load(Ordering::Relaxed) {
                return;
            }
            let target = SocketAddr::new(host, 8088);
            let stream = TcpStream::connect_timeout(&target, PATIENCE)
                .unwrap_or_else(|e| panic!("connect to {target}: {e}"));
            stream.set_read_timeout(Some(PATIENCE)).expect("a limit of time");
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).unwrap_or_else(|e| panic!("read from {target}: {e}"));
            assert!(!line.is_empty(), "{target} hung up");
            counted.fetch_add(1, Ordering::Relaxed);
            thread::sleep(PAUSE);
        }
    });
    (count, client)
}

/// Endpoints come, are used, and go; gives the addresses they had.
fn round(lab: &Lab, number: u64) -> BTreeSet<IpAddr> {
    // Under other names each time, as containers have them.
    let come = |nth| lab.endpoint(&format!("s{number}x{nth}"));
    let endpoints: Vec<Endpoint> = (0..ENDPOINTS).map(come).collect();
    for (nth, endpoint) in endpoints.iter().enumerate() {
        let port = 9000 + nth as u16;
        let target = format!("{}:80", endpoint.name());
        lab.vnet_ok(&["portmap", "add", &port.to_string(), &target, "--allow-from", "203.0.113.0/24"]);
        let _server = Server::echo(endpoint, "[::]:80");
        Ask::tcp((HOST_V4, port).into()).in_netns(lab.outside());
        Ask::tcp((OUTSIDE_V4, 7).into()).in_netns(endpoint);
    }
    lab.vnet_ok(&["limit", "set", endpoints[0].name(), "--egress", "50mbit", "--ingress", "50mbit"]);
    let addresses = endpoints.iter().flat_map(|endpoint| endpoint.addresses().to_vec()).collect();
    for endpoint in &endpoints {
        lab.vnet_ok(&["ns", "rm", endpoint.name()]);
    }
    addresses
}

/// Reads the metrics, as somebody does every few seconds.
fn scrape(socket: &std::path::Path) {
    let mut stream = UnixStream::connect(socket).expect("a server");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

/// Flows of any of these addresses.
fn flows_of(lab: &Lab, gone: &BTreeSet<IpAddr>) -> Vec<Tuple> {
    let tuples = lab.entries::<Tuple, CtEntry>(maps::CONNTRACK).into_iter().map(|(tuple, _)| tuple);
    tuples.filter(|tuple| [tuple.src, tuple.dst].iter().any(|addr| gone.contains(&(*addr).into()))).collect()
}

#[test]
fn endpoints_come_and_go_and_nothing_grows() {
    let length = std::env::var(LENGTH).map_or(SHORT, |seconds| {
        let seconds = seconds.parse();
        Duration::from_secs(seconds.unwrap_or_else(|e| panic!("{LENGTH} is not a number of seconds: {e}")))
    });
    let lab = Lab::up();
    let socket = lab.run_dir().with_file_name("metrics.socket");
    let run = lab.vnet_start(&["run", "--metrics", &format!("unix:{}", socket.display())]);
    let _ = run.line_with(&["started"]);
    let steady = lab.endpoint("steady");
    let _servers = [Server::echo(&steady, "[::]:80"), Server::echo(lab.outside(), "[::]:7")];
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", steady.name())]);
    let over = Arc::new(AtomicBool::new(false));
    let (count, client) = connections(lab.outside(), &over);

    let begun = Instant::now();
    // What is made once and kept is made by then.
    round(&lab, 0);
    scrape(&socket);
    let mut rounds = 1;
    let (before, held, start) = (lab.snapshot_with_contents(), holding_at_rest(&run), memory(&run));
    while begun.elapsed() < length || rounds < 3 {
        let gone = round(&lab, rounds);
        scrape(&socket);
        rounds += 1;
        eventually(
            || flows_of(&lab, &gone).is_empty().then_some(()),
            || format!("no flows of endpoints that are gone in round {rounds}: {:?}", flows_of(&lab, &gone)),
        );
        assert!(!client.is_finished(), "the steady client has ended in round {rounds}");
    }
    over.store(true, Ordering::Relaxed);
    client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    lab.assert_consistent();
    lab.snapshot_with_contents().assert_same_as(&before);
    eventually(
        || (holding(&run) == held).then_some(()),
        || format!("`vnet run` to hold what it held: {held:#?}, not {:#?}", holding(&run)),
    );
    let end = memory(&run);
    let connections = count.load(Ordering::Relaxed);
    let flows = lab.entries::<Tuple, CtEntry>(maps::CONNTRACK).len() as u64;
    report(format_args!(
        "{rounds} rounds in {:.0?}, {connections} connections beside them, {flows} entries of flows; \
         `vnet run` has {} kB, then {} kB",
        begun.elapsed(),
        start >> 10,
        end >> 10
    ));
    let most = start + MORE_MEMORY + flows * MORE_MEMORY_OF_ENTRY;
    assert!(end <= most, "`vnet run` has grown from {start} B to {end} B, more than {most} B");
    assert!(connections > 0, "no connection was made");
}
