//! What the record says of names, read by a thread of its own: whoever asks for a name waits neither for a disk nor for a
//! command, and is answered by what was read last.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;
use tokio::sync::watch;
use tokio::time::timeout;

use super::super::{Stamp, stamp_of};
use crate::instance::Instance;
use crate::names::{Host, Names, Network};
use crate::store::{self, Reading};

/// How long a question waits for a look into the record.
const BRIEF: Duration = Duration::from_millis(100);
/// A record that was changed so short a time ago may be changed again without another time stamp: the file system's clock
/// is a coarse one.
const TICK: Duration = Duration::from_millis(20);

/// What was read last.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) names: Arc<Names>,
    /// Where names are to be answered, and who is told of it.
    pub(super) told: Arc<Told>,
    /// Of which version of the record that is, if it cannot have been changed since without showing.
    stamp: Option<Stamp>,
    /// How many looks have been taken by then, and whether a command had the instance at the last one.
    looks: u64,
    busy: bool,
}

/// What is told of the name server.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// The gateways: address, network, and bridge.
    pub(super) gateways: Vec<(IpAddr, String, String)>,
    /// Endpoints whose namespaces are vnet's own, with the gateways that they are to ask.
    pub(super) own: Vec<(String, Vec<IpAddr>)>,
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It is known what the record says now.
    Renewed,
    /// A command is changing the instance.
    Busy,
    /// It takes longer than a question waits.
    Late,
}

/// The thread that reads.
#[derive(Clone, Debug)]
pub(super) struct Record {
    instance: Instance,
    wake: SyncSender<()>,
    begun: Arc<AtomicU64>,
    known: watch::Receiver<Known>,
}

impl Record {
    /// Starts the thread; it ends with the last of these.
    pub(super) fn start(instance: &Instance, domain: &str) -> io::Result<Self> {
        // One wish is kept while the one before is seen to.
        let (wake, wishes) = sync_channel(1);
        let (tell, known) = watch::channel(Known::default());
        let begun = Arc::new(AtomicU64::new(0));
        let reader =
            Reader { instance: instance.clone(), domain: domain.to_owned(), begun: Arc::clone(&begun), tell };
        std::thread::Builder::new().name("record".to_owned()).spawn(move || reader.read(&wishes))?;
        Ok(Self { instance: instance.clone(), wake, begun, known })
    }

    /// What was read last.
    pub(super) fn known(&self) -> Known {
        self.known.borrow().clone()
    }

    /// The names that were read last.
    pub(super) fn names(&self) -> Arc<Names> {
        Arc::clone(&self.known.borrow().names)
    }

    /// Whether the record is the one that was read.
    pub(super) fn is_fresh(&self) -> bool {
        let stamp = self.known.borrow().stamp;
        stamp.is_some() && stamp == stamp_of(&self.instance)
    }

    /// Has the record looked at, from now on, and waits for that; not for long.
    pub(super) async fn look(&self) -> Look {
        let before = self.begun.load(Ordering::SeqCst);
        // If there is a wish already, what it leads to begins later than this.
        let _ = self.wake.try_send(());
        let mut known = self.known.clone();
        match timeout(BRIEF, known.wait_for(|known| known.looks > before)).await {
            Ok(Ok(known)) if !known.busy => Look::Renewed,
            Ok(Ok(_)) => Look::Busy,
            // It ends with the process, or takes its time.
            Ok(Err(_)) | Err(_) => Look::Late,
        }
    }
}

struct Reader {
    instance: Instance,
    domain: String,
    begun: Arc<AtomicU64>,
    tell: watch::Sender<Known>,
}

impl Reader {
    fn read(&self, wishes: &Receiver<()>) {
        while wishes.recv().is_ok() {
            let began = Instant::now();
            let looks = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            match read(&self.instance, &self.domain) {
                Ok(Some(known)) => {
                    self.tell.send_replace(Known { looks, ..known });
                    // Commands get the instance for half of the time at least.
                    std::thread::sleep(began.elapsed());
                }
                // What is not up any more goes on to be what it was, until the process ends.
                Ok(None) | Err(_) => self.tell.send_modify(|known| {
                    known.looks = looks;
                    known.busy = true;
                }),
            }
        }
    }
}

/// Reads the record; nothing if a command is changing the instance at the moment.
fn read(instance: &Instance, domain: &str) -> Result<Option<Known>, store::Error> {
    let Some(reading) = Reading::open_if_free(instance)? else { return Ok(None) };
    // Nobody changes it before it is closed.
    let stamp = stamp_of(instance).filter(is_settled);
    let mut told = Told::default();
    let mut networks = Vec::new();
    let mut gateways_of: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for network in reading.networks()? {
        let (name, bridge) = (network.name.to_string(), network.bridge.to_string());
        let subnets: Vec<IpNet> = network.segments.subnets().map(|subnet| subnet.net()).collect();
        let addrs: Vec<IpAddr> = network.segments.iter().map(|segment| segment.gateway).collect();
        told.gateways.extend(addrs.iter().map(|addr| (*addr, name.clone(), bridge.clone())));
        gateways_of.insert(name.clone(), addrs);
        let (isolated, internal) = (network.isolated, network.internal);
        networks.push(Network { name, subnets, isolated, internal });
    }
    let endpoints = reading.endpoints()?;
    drop(reading);
    let links: HashMap<&str, Vec<(String, Vec<IpAddr>)>> = endpoints
        .iter()
        .map(|endpoint| {
            let links = endpoint.links.iter().map(|link| (link.network.to_string(), link.addrs().collect()));
            (endpoint.name.as_str(), links.collect())
        })
        .collect();
    // An address has one name: that of the endpoint whose it is comes after those which share its namespace, and so wins.
    let (mut hosts, mut owners) = (Vec::new(), Vec::new());
    for endpoint in &endpoints {
        let name = endpoint.name.to_string();
        match endpoint.shared_with() {
            Some(of) => {
                let links = links.get(of.as_str()).cloned().unwrap_or_default();
                hosts.push(Host { name, links });
            }
            None => {
                let links = links.get(name.as_str()).cloned().unwrap_or_default();
                owners.push(Host { name, links });
            }
        }
        if endpoint.has_own_namespace() {
            let asked = endpoint.links.iter().filter_map(|link| gateways_of.get(link.network.as_str()));
            told.own.push((endpoint.name.to_string(), asked.flatten().copied().collect()));
        }
    }
    hosts.extend(owners);
    let names = Arc::new(Names::new(domain, networks, hosts));
    Ok(Some(Known { names, told: Arc::new(told), stamp, looks: 0, busy: false }))
}

/// Whether the next change would have another time stamp.
fn is_settled((_, seconds, nanoseconds, _): &Stamp) -> bool {
    let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(*seconds), u32::try_from(*nanoseconds)) else {
        return true;
    };
    let Some(changed) = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds)) else {
        return true;
    };
    let now = SystemTime::now();
    let apart = now.duration_since(changed).or_else(|_| changed.duration_since(now));
    apart.is_ok_and(|apart| apart > TICK)
}

/// Addresses of the gateways: what is asked there comes back.
pub(super) fn gateways(told: &Told) -> HashSet<IpAddr> {
    told.gateways.iter().map(|(addr, ..)| *addr).collect()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::spec::Settings;
    use crate::store::Store;

    fn instance(directory: &TempDir) -> Instance {
        let below = |name: &str| directory.path().join(name);
        Instance::below("default", below("run"), below("bpf")).unwrap()
    }

    fn change(instance: &Instance, port: u64) {
        let store = Store::open(instance).unwrap();
        let transaction = store.begin().unwrap();
        transaction.set_settings(&Settings::new(port, 1)).unwrap();
        transaction.commit().unwrap();
    }

    async fn renewed(record: &Record) {
        // The thread may be late on a busy machine.
        while record.look().await != Look::Renewed {}
    }

    #[tokio::test]
    async fn what_was_read_before_a_change_is_not_fresh_after_it() {
        let directory = TempDir::new().unwrap();
        let instance = instance(&directory);
        drop(Store::create(&instance).unwrap());
        let record = Record::start(&instance, "internal").unwrap();
        assert!(!record.is_fresh(), "nothing is known");
        for n in 0..20 {
            change(&instance, n);
            assert!(!record.is_fresh(), "{n} changes, the file system's clock notwithstanding");
            renewed(&record).await;
        }
        // What is left alone is read once more, and then no more.
        while !record.is_fresh() {
            renewed(&record).await;
        }
        renewed(&record).await;
        assert!(record.is_fresh(), "to read is no change");
    }

    #[tokio::test]
    async fn a_command_that_has_the_instance_is_not_waited_for() {
        let directory = TempDir::new().unwrap();
        let instance = instance(&directory);
        drop(Store::create(&instance).unwrap());
        let record = Record::start(&instance, "internal").unwrap();
        renewed(&record).await;
        let store = Store::open(&instance).unwrap();
        let look = loop {
            match record.look().await {
                Look::Late => {}
                look => break look,
            }
        };
        assert_eq!(look, Look::Busy);
        drop(store);
        renewed(&record).await;
    }
}
