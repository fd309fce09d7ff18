//! A name server at the gateways of the networks (`--resolver`).
//!
//! ```text
//! endpoint --> gateway:53 --> names (pure) --> an answer
//!                                '-----------> a resolver of the host's, with the question as it came, and back
//! ```
//! What it holds is bounded: questions that are asked elsewhere, in all and for each who asks, and connections. What is
//! beyond is dropped and counted. Each question that is asked elsewhere has a socket, and so a port, and a number of its
//! own (RFC 5452).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};

use super::files::Files;
use super::{Counts, Stamp, stamp_of};
use crate::instance::Instance;
use crate::kernel::Kernel;
use crate::names::{self, Asker, Host, Names, Network, Outcome, Verdict};
use crate::store::{self, Store};

/// Where name servers listen.
const PORT: u16 = 53;
/// Questions under way elsewhere, and connections, in all.
const AT_ONCE: usize = 256;
/// The same for one endpoint, by all of its addresses, and for all together who are none as yet.
const OF_ONE: usize = 32;
/// How long a resolver of the host's may take before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many of them are asked.
const ASKED: usize = 3;
/// How long a connection may be quiet.
const QUIET: Duration = Duration::from_secs(10);
/// How long it may last.
const LIFETIME: Duration = Duration::from_mins(1);
/// Most bytes of a datagram with a question.
const LARGEST: usize = 4096;
/// A pause when no connection can be taken, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the record is read anew before somebody is told that there is no such name, while it is being changed.
const TRIES: u32 = 50;
/// Between two of these.
const BETWEEN: Duration = Duration::from_millis(10);
/// How often it is looked which resolvers the host has.
const FRESH: Duration = Duration::from_secs(5);
/// Where the host's resolvers are listed.
const RESOLVERS: &str = "/etc/resolv.conf";
/// Where systemd-resolved lists those that it asks itself, if it is the host's resolver.
const BEHIND_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Every outcome that is counted.
pub(super) const OUTCOMES: [&str; 7] =
    ["answered", "unknown", "refused", "forwarded", "failed", "ignored", "dropped"];

/// The name server.
pub(super) struct Resolver {
    instance: Instance,
    shared: Rc<Shared>,
    listeners: BTreeMap<Place, Listening>,
    files: Files,
}

/// Where it listens: a gateway's address, its network, and its bridge, by name and number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    addr: IpAddr,
    network: String,
    bridge: String,
    index: u32,
}

/// The tasks that listen: they end with this.
struct Listening([JoinHandle<()>; 2]);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// What all tasks have in common.
struct Shared {
    instance: Instance,
    domain: String,
    names: RefCell<Rc<Names>>,
    /// Of which version of the record they are.
    stamp: Cell<Option<Stamp>>,
    counts: Rc<RefCell<Counts>>,
    /// What is under way, in all and for each who asks.
    all: Cell<usize>,
    of_each: RefCell<HashMap<Who, usize>>,
    /// The host's resolvers, and when they were looked at.
    resolvers: RefCell<(Option<Instant>, Rc<[SocketAddr]>)>,
}

/// Who asks: an endpoint by its name, or somebody who is none, but may be being made.
type Who = Option<Rc<str>>;

/// What is recorded that concerns names.
struct Recorded {
    networks: Vec<(Network, Vec<(IpAddr, String)>)>,
    hosts: Vec<Host>,
    /// Endpoints whose namespaces are vnet's own, with the gateways that they are to ask.
    own: Vec<(String, Vec<IpAddr>)>,
    /// Of which version of the record this is.
    stamp: Option<Stamp>,
}

impl Resolver {
    pub(super) fn new(instance: &Instance, domain: &str, counts: Rc<RefCell<Counts>>) -> Self {
        let shared = Shared {
            instance: instance.clone(),
            domain: domain.to_owned(),
            names: RefCell::default(),
            stamp: Cell::new(None),
            counts,
            all: Cell::new(0),
            of_each: RefCell::default(),
            resolvers: RefCell::new((None, Rc::new([]))),
        };
        Self {
            instance: instance.clone(),
            shared: Rc::new(shared),
            listeners: BTreeMap::new(),
            files: Files::of(instance),
        }
    }

    /// Listens where the record says by now, and has the endpoints told; says what cannot be done.
    pub(super) async fn refresh(&mut self) -> Vec<String> {
        let mut notes = Vec::new();
        let Ok(Some(recorded)) = Recorded::read(&self.instance) else { return notes };
        // What follows takes its time.
        self.shared.learn(&recorded);
        let Ok(kernel) = Kernel::open(&self.instance).await else { return notes };
        let indexes: HashMap<String, u32> = kernel
            .interface_names()
            .unwrap_or_default()
            .into_iter()
            .map(|(index, name)| (name, index))
            .collect();
        let places = recorded.networks.iter().flat_map(|(network, gateways)| {
            let indexes = &indexes;
            gateways.iter().filter_map(move |(addr, bridge)| {
                let (network, bridge) = (network.name.clone(), bridge.clone());
                Some(Place { addr: *addr, network, index: *indexes.get(&bridge)?, bridge })
            })
        });
        let places: Vec<Place> = places.collect();
        self.listeners.retain(|place, _| places.contains(place));
        for place in places {
            if self.listeners.contains_key(&place) {
                continue;
            }
            match self.shared.listen(&place) {
                Ok(listening) => drop(self.listeners.insert(place, listening)),
                Err(error) => notes.push(format!(
                    "names are not answered at {} of network {}: {error}; is port {PORT} published, or another server's?",
                    place.addr, place.network
                )),
            }
        }
        if self.shared.resolvers().is_empty() {
            notes.push(format!(
                "names of others are not answered: {RESOLVERS} lists only resolvers at loopback addresses, which cannot be \
                 reached from the router: list another one there"
            ));
        }
        notes.extend(self.files.write(&self.shared.domain, &recorded.own));
        notes
    }

    /// Takes back what the endpoints were told.
    pub(super) fn end(&mut self) {
        self.listeners.clear();
        self.files.remove();
    }
}

impl Recorded {
    /// Reads it; nothing if a command is changing the instance at the moment.
    fn read(instance: &Instance) -> Result<Option<Self>, store::Error> {
        let Some(store) = Store::open_if_free(instance)? else { return Ok(None) };
        let transaction = store.begin()?;
        let mut networks = Vec::new();
        let mut gateways: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for network in transaction.networks()? {
            let subnets: Vec<IpNet> = network.segments.subnets().map(|subnet| subnet.net()).collect();
            let addrs: Vec<IpAddr> = network.segments.iter().map(|segment| segment.gateway).collect();
            let bridge = network.bridge.to_string();
            let places = addrs.iter().map(|addr| (*addr, bridge.clone())).collect();
            let name = network.name.to_string();
            gateways.insert(name.clone(), addrs);
            let (isolated, internal) = (network.isolated, network.internal);
            networks.push((Network { name, subnets, isolated, internal }, places));
        }
        let endpoints = transaction.endpoints()?;
        let mut hosts: Vec<Host> = Vec::new();
        let mut own = Vec::new();
        for endpoint in &endpoints {
            // One that shares the namespace of another has its addresses.
            let of = endpoints.iter().find(|other| endpoint.shares_with(&other.name)).unwrap_or(endpoint);
            let links = of.links.iter().map(|link| (link.network.to_string(), link.addrs().collect()));
            hosts.push(Host { name: endpoint.name.to_string(), links: links.collect() });
            if endpoint.has_own_namespace() {
                let asked = endpoint.links.iter().filter_map(|link| gateways.get(link.network.as_str()));
                own.push((endpoint.name.to_string(), asked.flatten().copied().collect()));
            }
        }
        // An address has one name: that of the endpoint whose it is comes last, and so wins.
        hosts.reverse();
        drop(transaction);
        // To close a record writes to it, and whoever comes next does as well: it is looked at in between.
        let lock = store.close();
        let stamp = stamp_of(instance);
        drop(lock);
        Ok(Some(Self { networks, hosts, own, stamp }))
    }
}

impl Shared {
    /// Reads the names anew if the record has changed, unless a command has it at the moment.
    fn renew(&self) {
        if self.is_fresh() {
            return;
        }
        if let Ok(Some(recorded)) = Recorded::read(&self.instance) {
            self.learn(&recorded);
        }
    }

    /// Takes over what was recorded.
    fn learn(&self, recorded: &Recorded) {
        let networks = recorded.networks.iter().map(|(network, _)| network.clone()).collect();
        self.names.replace(Rc::new(Names::new(&self.domain, networks, recorded.hosts.clone())));
        self.stamp.set(recorded.stamp);
    }

    /// Whether the record is the one that was read. While it is looked at or changed it is not.
    fn is_fresh(&self) -> bool {
        let stamp = stamp_of(&self.instance);
        stamp.is_some() && stamp == self.stamp.get()
    }

    fn listen(self: &Rc<Self>, place: &Place) -> io::Result<Listening> {
        let (datagrams, connections) = Kernel::gateway_sockets(place.addr, PORT, &place.bridge)?;
        let (datagrams, connections) = (UdpSocket::from_std(datagrams)?, TcpListener::from_std(connections)?);
        let network: Rc<str> = place.network.as_str().into();
        Ok(Listening([
            spawn_local(take_datagrams(Rc::clone(self), Rc::clone(&network), Rc::new(datagrams))),
            spawn_local(take_connections(Rc::clone(self), network, connections)),
        ]))
    }

    fn count(&self, outcome: &'static str) {
        *self.counts.borrow_mut().questions.entry(outcome).or_default() += 1;
    }

    /// What is to be done about a question by what is known now; nothing if that may be something else in a moment: what
    /// is not known may be being made.
    fn judge_once(&self, question: &[u8], asker: Asker<'_>) -> Option<Verdict> {
        self.renew();
        let verdict = self.names.borrow().judge(question, asker);
        (!is_in_vain(&verdict) || self.is_fresh()).then(|| self.counted(verdict))
    }

    /// What is to be done about a question, once the record has been changed, if that takes no longer than
    /// [`TRIES`].
    async fn judge(&self, question: &[u8], asker: Asker<'_>) -> Verdict {
        for _ in 0..TRIES {
            if let Some(verdict) = self.judge_once(question, asker) {
                return verdict;
            }
            sleep(BETWEEN).await;
        }
        self.renew();
        let verdict = self.names.borrow().judge(question, asker);
        self.counted(verdict)
    }

    /// Counts what is not to be asked elsewhere.
    fn counted(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Answer(Outcome::Answered, _) => self.count("answered"),
            Verdict::Answer(Outcome::Unknown, _) => self.count("unknown"),
            Verdict::Answer(Outcome::Refused, _) => self.count("refused"),
            Verdict::Ignore => self.count("ignored"),
            Verdict::Forward => {}
        }
        verdict
    }

    /// Room for one more thing under way, if there is any for whoever asks.
    fn admit(self: &Rc<Self>, network: &str, addr: IpAddr) -> Option<Admitted> {
        let who: Who = self.names.borrow().asker(network, addr).map(Rc::from);
        let mut of_each = self.of_each.borrow_mut();
        let own = of_each.get(&who).copied().unwrap_or_default();
        if self.all.get() >= AT_ONCE || own >= OF_ONE {
            self.count("dropped");
            return None;
        }
        of_each.insert(who.clone(), own + 1);
        self.all.set(self.all.get() + 1);
        Some(Admitted { shared: Rc::clone(self), who })
    }

    /// Whether nobody is known at an address, nor being made.
    fn is_stranger(&self, network: &str, addr: IpAddr) -> bool {
        self.renew();
        self.names.borrow().asker(network, addr).is_none() && self.is_fresh()
    }

    /// The host's resolvers, but for this one.
    fn resolvers(&self) -> Rc<[SocketAddr]> {
        let mut known = self.resolvers.borrow_mut();
        if known.0.is_none_or(|at| at.elapsed() > FRESH) {
            let read = |path| fs::read_to_string(path).unwrap_or_default();
            let found = if Kernel::has_moved() {
                reachable(&read(RESOLVERS), || read(BEHIND_RESOLVED))
            } else {
                listed(&read(RESOLVERS)).collect()
            };
            *known = (Some(Instant::now()), found.into_iter().take(ASKED).collect());
        }
        Rc::clone(&known.1)
    }

    /// Asks the host's resolvers, one after the other, in the way that was asked.
    async fn forward(&self, question: &[u8], way: Way) -> Option<Vec<u8>> {
        for resolver in self.resolvers().iter() {
            let renumbered = names::renumbered(question);
            let asked = async {
                match way {
                    Way::Datagram => ask_by_datagram(*resolver, &renumbered).await,
                    Way::Connection => ask_by_connection(*resolver, &renumbered).await,
                }
            };
            let Ok(Ok(mut answer)) = timeout(PATIENCE, asked).await else { continue };
            if let Some((number, own)) = answer.first_chunk_mut::<2>().zip(question.first_chunk::<2>()) {
                *number = *own;
                self.count("forwarded");
                return Some(answer);
            }
        }
        self.count("failed");
        names::failure(question)
    }
}

/// Something under way: room for another when it is dropped.
struct Admitted {
    shared: Rc<Shared>,
    who: Who,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.shared.all.set(self.shared.all.get() - 1);
        let mut of_each = self.shared.of_each.borrow_mut();
        match of_each.get_mut(&self.who) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(of_each.remove(&self.who)),
        }
    }
}

/// Whether somebody is told that there is nothing for him.
fn is_in_vain(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Answer(Outcome::Unknown | Outcome::Refused, _))
}

#[derive(Clone, Copy)]
enum Way {
    Datagram,
    Connection,
}

/// The resolvers that a file lists (`resolv.conf(5)`); without any it is the host itself.
fn listed(text: &str) -> impl Iterator<Item = SocketAddr> {
    let addr = |line: &str| {
        let mut words = line.split_whitespace();
        let addr = (words.next() == Some("nameserver")).then(|| words.next())??;
        addr.parse::<IpAddr>().ok()
    };
    let mut found: Vec<IpAddr> = text.lines().filter_map(addr).collect();
    if found.is_empty() {
        found.push(Ipv4Addr::LOCALHOST.into());
    }
    found.into_iter().map(|addr| SocketAddr::new(addr, PORT))
}

/// Those that can be asked from another namespace than the host's: not those that only the host itself reaches. Without
/// any, those of the other file.
fn reachable(text: &str, other: impl FnOnce() -> String) -> Vec<SocketAddr> {
    let of = |text: &str| {
        let is_elsewhere = |resolver: &SocketAddr| {
            let addr = resolver.ip().to_canonical();
            !addr.is_loopback() && !addr.is_unspecified()
        };
        listed(text).filter(is_elsewhere).collect::<Vec<_>>()
    };
    let found = of(text);
    if found.is_empty() { of(&other()) } else { found }
}

async fn ask_by_datagram(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // From here on the kernel lets nobody else answer.
    socket.connect(resolver).await?;
    socket.send(question).await?;
    let mut answer = vec![0; 1 << 16];
    loop {
        let length = socket.recv(&mut answer).await?;
        if names::is_answer_to(&answer[..length], question) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_by_connection(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    send(&mut stream, question).await?;
    let answer = receive(&mut stream).await?;
    if names::is_answer_to(&answer, question) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// A message has its length in front of it (RFC 1035 section 4.2.2).
async fn send(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

async fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn take_datagrams(shared: Rc<Shared>, network: Rc<str>, socket: Rc<UdpSocket>) {
    let mut question = [0; LARGEST];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut question).await else {
            // An error that somebody sent about an answer of before.
            sleep(Duration::from_millis(1)).await;
            continue;
        };
        let question = &question[..length];
        let asker = Asker { network: &network, addr: from.ip(), room: Some(u16::MAX) };
        // Nothing here waits for the record or for others: whoever asks next is somebody else.
        let verdict = match shared.judge_once(question, asker) {
            Some(Verdict::Ignore) => continue,
            Some(Verdict::Answer(_, answer)) => {
                let _ = socket.send_to(&answer, from).await;
                continue;
            }
            Some(Verdict::Forward) => Some(Verdict::Forward),
            None => None,
        };
        let Some(admitted) = shared.admit(&network, from.ip()) else { continue };
        let (socket, network, question) = (Rc::clone(&socket), Rc::clone(&network), question.to_vec());
        spawn_local(async move {
            let asker = Asker { network: &network, addr: from.ip(), room: Some(u16::MAX) };
            let verdict = match verdict {
                Some(verdict) => verdict,
                None => admitted.shared.judge(&question, asker).await,
            };
            let answer = match verdict {
                Verdict::Ignore => None,
                Verdict::Answer(_, answer) => Some(answer),
                Verdict::Forward => admitted.shared.forward(&question, Way::Datagram).await,
            };
            if let Some(answer) = answer {
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

async fn take_connections(shared: Rc<Shared>, network: Rc<str>, listener: TcpListener) {
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        if shared.is_stranger(&network, from.ip()) {
            shared.count("refused");
            continue;
        }
        let Some(admitted) = shared.admit(&network, from.ip()) else { continue };
        let network = Rc::clone(&network);
        spawn_local(async move {
            // Whoever goes away in between is nobody's business.
            let _ = timeout(LIFETIME, serve(&admitted.shared, &network, from.ip(), stream)).await;
            drop(admitted);
        });
    }
}

/// Answers what is asked by a connection, one question after the other, until there is none for a while.
async fn serve(shared: &Shared, network: &str, addr: IpAddr, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let question = timeout(QUIET, receive(&mut stream)).await??;
        let asker = Asker { network, addr, room: None };
        let answer = match shared.judge(&question, asker).await {
            Verdict::Ignore => return Ok(()),
            Verdict::Answer(_, answer) => Some(answer),
            Verdict::Forward => shared.forward(&question, Way::Connection).await,
        };
        let Some(answer) = answer else { return Ok(()) };
        timeout(QUIET, send(&mut stream, &answer)).await??;
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::spec::Settings;

    fn instance(directory: &TempDir) -> Instance {
        let below = |name: &str| directory.path().join(name);
        Instance::below("default", below("run"), below("bpf")).unwrap()
    }

    fn shared(instance: &Instance) -> Rc<Shared> {
        Resolver::new(instance, "internal", Rc::default()).shared
    }

    fn change(instance: &Instance) {
        let store = Store::open(instance).unwrap();
        let transaction = store.begin().unwrap();
        transaction.set_settings(&Settings::new(1, 1)).unwrap();
        transaction.commit().unwrap();
    }

    #[test]
    fn what_was_read_before_a_change_is_not_fresh_after_it() {
        let directory = TempDir::new().unwrap();
        let instance = instance(&directory);
        drop(Store::create(&instance).unwrap());
        let shared = shared(&instance);
        shared.renew();
        assert!(shared.is_fresh(), "to read is no change");
        let before = Recorded::read(&instance).unwrap().unwrap();
        // The file system's clock is a coarse one.
        while stamp_of(&instance) == before.stamp {
            change(&instance);
        }
        shared.learn(&before);
        assert!(!shared.is_fresh());
        shared.renew();
        assert!(shared.is_fresh());
        // Nobody reads it while somebody has it.
        let store = Store::open(&instance).unwrap();
        assert!(Recorded::read(&instance).unwrap().is_none());
        drop(store);
    }

    #[test]
    fn an_endpoint_has_one_share_by_all_of_its_addresses() {
        let directory = TempDir::new().unwrap();
        let instance = instance(&directory);
        drop(Store::create(&instance).unwrap());
        let shared = shared(&instance);
        let addrs: [IpAddr; 3] = ["10.0.0.2", "fd00::2", "10.0.0.3"].map(|addr| addr.parse().unwrap());
        let host = |name: &str, addrs: &[IpAddr]| Host {
            name: name.to_owned(),
            links: vec![("blue".to_owned(), addrs.to_vec())],
        };
        let hosts = vec![host("web", &addrs[..2]), host("db", &addrs[2..])];
        shared.names.replace(Rc::new(Names::new("internal", Vec::new(), hosts)));
        let mut admitted: Vec<Admitted> =
            (0..OF_ONE).map(|n| shared.admit("blue", addrs[n % 2]).unwrap()).collect();
        assert!(addrs[..2].iter().all(|addr| shared.admit("blue", *addr).is_none()));
        assert!(shared.admit("blue", addrs[2]).is_some(), "another has its own");
        // All who are none have one together, wherever they are.
        let nobody: Vec<Admitted> =
            (0..OF_ONE).map(|n| shared.admit(&format!("net{n}"), addrs[0]).unwrap()).collect();
        assert!(shared.admit("green", addrs[0]).is_none());
        drop(nobody);
        admitted.pop();
        assert!(shared.admit("blue", addrs[1]).is_some());
        drop(admitted);
        assert!(shared.all.get() == 0 && shared.of_each.borrow().is_empty());
    }

    #[test]
    fn resolvers_are_read_as_the_library_of_the_host_does() {
        let text = "# comment\nsearch example.com\nnameserver 192.0.2.1\n  nameserver 2001:db8::1 \nnameserver x\noptions edns0\n";
        let found: Vec<String> = listed(text).map(|addr| addr.to_string()).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53"]);
        assert_eq!(listed("").map(|addr| addr.to_string()).collect::<Vec<_>>(), ["127.0.0.1:53"]);
    }

    #[test]
    fn resolvers_that_only_the_host_reaches_are_left_out_in_a_router() {
        let reachable = |text: &str, other: &str| {
            let found = reachable(text, || other.to_owned());
            found.iter().map(|addr| addr.ip().to_string()).collect::<Vec<_>>()
        };
        let stub = "nameserver 127.0.0.53\noptions edns0\n";
        assert_eq!(
            reachable(stub, "nameserver 192.0.2.1\nnameserver 2001:db8::1\n"),
            ["192.0.2.1", "2001:db8::1"]
        );
        assert_eq!(
            reachable("nameserver ::1\nnameserver 192.0.2.2\n", "nameserver 192.0.2.1\n"),
            ["192.0.2.2"]
        );
        assert!(reachable(stub, "").is_empty());
        assert!(reachable("", "nameserver ::ffff:127.0.0.1\nnameserver 0.0.0.0\n").is_empty());
    }
}
