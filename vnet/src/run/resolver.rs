//! A name server at the gateways of the networks (`--resolver`).
//!
//! ```text
//! endpoint --> gateway:53 --> server: names (pure) --> an answer
//!                              ^        '-----------> upstream: a resolver of the host's, as it came, and back
//!              the record --> record: what was read last
//! ```
//! The server and the reader of the record are threads of their own: whoever asks waits neither for a look at the instance,
//! nor for a command that is changing it, nor for a disk. What it holds is bounded and shared fairly ([`room`]). What is
//! beyond is dropped and counted. Each question that is asked elsewhere has a socket, and so a port, and a number of its own
//! (RFC 5452).

mod record;
mod room;
mod server;
mod upstream;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use self::record::{Look, Record, Told};
use self::server::Order;
use super::files::Files;
use crate::instance::Instance;
use crate::kernel::Kernel;

/// Where name servers listen.
const PORT: u16 = 53;
/// How often the record is looked at before that is left to the next look at the instance.
const TRIES: u32 = 10;

/// Every outcome that is counted.
const OUTCOMES: [&str; 7] = ["answered", "dropped", "failed", "forwarded", "ignored", "refused", "unknown"];

/// Questions for names, by what came of them.
#[derive(Debug, Default)]
pub(super) struct Questions([AtomicU64; OUTCOMES.len()]);

impl Questions {
    fn count(&self, outcome: &'static str) {
        for (_, counter) in OUTCOMES.iter().zip(&self.0).filter(|(name, _)| **name == outcome) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All of them, none left out.
    pub(super) fn counted(&self) -> Vec<(&'static str, u64)> {
        OUTCOMES.into_iter().zip(self.0.iter().map(|counter| counter.load(Ordering::Relaxed))).collect()
    }
}

/// The name server.
pub(super) struct Resolver {
    instance: Instance,
    domain: String,
    record: Record,
    places: BTreeSet<Place>,
    orders: Option<UnboundedSender<Order>>,
    server: Option<JoinHandle<()>>,
    files: Files,
    /// What was said the last time.
    notes: Vec<String>,
}

/// Where it listens: a gateway's address, its network, and its bridge, by name and number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    addr: IpAddr,
    network: String,
    bridge: String,
    index: u32,
}

/// What came of a look at where to listen.
pub(super) struct Refreshed {
    /// What cannot be done.
    pub(super) notes: Vec<String>,
    /// Whether it is to be looked at again, as a command had the instance.
    pub(super) again: bool,
}

impl Resolver {
    /// Starts its threads. They listen nowhere as yet.
    pub(super) fn start(instance: &Instance, domain: &str, questions: Arc<Questions>) -> io::Result<Self> {
        let record = Record::start(instance, domain)?;
        let (orders, taken) = unbounded_channel();
        let known = record.clone();
        let server = std::thread::Builder::new().name("names".to_owned());
        // Without a runtime it listens nowhere, which shows.
        let server = server.spawn(move || drop(server::serve(known, questions, taken)))?;
        Ok(Self {
            instance: instance.clone(),
            domain: domain.to_owned(),
            record,
            places: BTreeSet::new(),
            orders: Some(orders),
            server: Some(server),
            files: Files::of(instance),
            notes: Vec::new(),
        })
    }

    /// Listens where the record says by now, and has the endpoints told.
    pub(super) async fn refresh(&mut self) -> Refreshed {
        let Some(told) = self.told().await else {
            return Refreshed { notes: self.notes.clone(), again: true };
        };
        let Ok(kernel) = Kernel::open(&self.instance).await else {
            return Refreshed { notes: self.notes.clone(), again: false };
        };
        let mut notes = self.listen(&told, &kernel);
        let own = record::gateways(&told);
        let resolvers = upstream::resolvers();
        if resolvers.iter().all(|resolver| own.contains(&resolver.ip())) {
            let why = if resolvers.is_empty() {
                "only resolvers at loopback addresses, which cannot be reached from the router"
            } else {
                "only gateways of this instance, at which names are asked of others in turn"
            };
            notes.push(format!(
                "names of others are not answered: {} lists {why}: list another one there",
                upstream::LISTED
            ));
        }
        notes.extend(self.files.write(&self.domain, &told.own));
        self.notes.clone_from(&notes);
        Refreshed { notes, again: false }
    }

    /// What the record says by now; nothing if commands have it.
    async fn told(&self) -> Option<Arc<Told>> {
        for _ in 0..TRIES {
            match self.record.look().await {
                Look::Renewed => return Some(self.record.known().told),
                Look::Busy => return None,
                Look::Late => {}
            }
        }
        None
    }

    fn listen(&mut self, told: &Told, kernel: &Kernel) -> Vec<String> {
        let mut notes = Vec::new();
        let Some(orders) = &self.orders else { return notes };
        let indexes: HashMap<String, u32> = kernel
            .interface_names()
            .unwrap_or_default()
            .into_iter()
            .map(|(index, name)| (name, index))
            .collect();
        let places = told.gateways.iter().filter_map(|(addr, network, bridge)| {
            let (network, bridge) = (network.clone(), bridge.clone());
            Some(Place { addr: *addr, network, index: *indexes.get(&bridge)?, bridge })
        });
        let places: BTreeSet<Place> = places.collect();
        // Who gives orders outlives who takes them, unless that one has panicked, which has been told.
        let order = |order| drop(orders.send(order));
        for place in self.places.difference(&places) {
            order(Order::Leave(place.clone()));
        }
        let mut listening: BTreeSet<Place> = self.places.intersection(&places).cloned().collect();
        for place in places.difference(&self.places) {
            match Kernel::gateway_sockets(place.addr, PORT, &place.bridge) {
                Ok((datagrams, connections)) => {
                    order(Order::Listen(place.clone(), datagrams, connections));
                    listening.insert(place.clone());
                }
                Err(error) => notes.push(format!(
                    "names are not answered at {} of network {}: {error}; is port {PORT} published, or another server's?",
                    place.addr, place.network
                )),
            }
        }
        self.places = listening;
        notes
    }

    /// Takes back what the endpoints were told, and listens no more.
    pub(super) fn end(&mut self) {
        drop(self.orders.take());
        if let Some(server) = self.server.take() {
            // It waits for nothing but its orders.
            let _ = server.join();
        }
        self.files.remove();
    }
}
