//! What metrics tell, read from the kernel when somebody asks.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep;
use vnet_common::{ABI_VERSION, DatapathConfig, DropKey, DropReason, Hook, Tuple, Zone, maps};

use super::Counts;
use super::account::{Account, LinkKey, Named, Published};
use crate::flow::{self, Flow, Traffic, Usage};
use crate::instance::Instance;
use crate::kernel::{self, InterfaceTraffic, Kernel};
use crate::metrics::{EndpointSample, FlowsSample, MappingSample, Sample, Totals};
use crate::store::Store;

/// How often the record is asked for anew while a command is changing the instance, before older names do.
const TRIES: u32 = 10;
/// Between two of these.
const PAUSE: Duration = Duration::from_millis(10);

/// Gathers samples, one after the other.
pub(super) struct Gatherer {
    instance: Instance,
    counts: Rc<RefCell<Counts>>,
    memory: Mutex<Memory>,
}

/// What is remembered from one sample to the next.
#[derive(Default)]
struct Memory {
    account: Account,
    /// Of which version of the record that is.
    stamp: Option<std::time::SystemTime>,
    drops: Totals<DropKey, (&'static str, &'static str), 1>,
    endpoints: Totals<OfInterface, LinkKey, 4>,
    mappings: Totals<OfFlow, Published, 4>,
}

/// The counters of an interface: one that is made again, under another number, counts anew.
type OfInterface = (LinkKey, u32);
/// The counters of a flow, by what it began with and when.
type OfFlow = (Tuple, u32);

impl Gatherer {
    pub(super) fn new(instance: &Instance, counts: Rc<RefCell<Counts>>) -> Self {
        Self { instance: instance.clone(), counts, memory: Mutex::default() }
    }

    /// Everything as it is now. Of an instance that is going down, what is left.
    pub(super) async fn sample(&self) -> Result<Sample, kernel::Error> {
        // One at a time: counters are added up in the order in which they were read.
        let mut memory = self.memory.lock().await;
        memory.name_anew(&self.instance).await;
        let kernel = Kernel::open(&self.instance).await?;
        let config = kernel.datapath_config()?;
        let drops = kernel.drops()?;
        let traffic = traffic(&kernel, &memory.account).await;
        let flows = flow::pair(&kernel.flow_tables()?);
        let now = Kernel::now();
        memory.take(&drops, &traffic, &flows);
        let mut usage: BTreeMap<&'static str, Usage> = kernel.map_usage()?.into_iter().collect();
        usage.extend(flow_usage(&kernel, &flows)?);
        let slots = usage.remove(maps::FLOW_SLOTS).unwrap_or_default();
        let live = flows.iter().filter(|flow| !flow.is_over(&config.unwrap_or(DatapathConfig::DEFAULT), now));
        let counts = self.counts.borrow();
        let listed = |counts: &BTreeMap<&'static str, u64>| {
            counts.iter().map(|(&kind, &count)| (kind, count)).collect()
        };
        Ok(Sample {
            version: env!("CARGO_PKG_VERSION"),
            abi: ABI_VERSION,
            up: config.is_some() && Store::exists(&self.instance).unwrap_or(false),
            drops: memory.drops_told(),
            endpoints: memory.endpoints_told(),
            mappings: memory.mappings_told(),
            flows: by_network(&memory.account, live),
            slots,
            maps: usage.into_iter().collect(),
            repairs: listed(&counts.repairs),
            failing: listed(&counts.failing),
            changes: listed(&counts.changes),
            looks: listed(&counts.looks),
            questions: counts.questions.as_ref().map(|questions| questions.counted()).unwrap_or_default(),
            last: counts.last,
        })
    }
}

impl Memory {
    /// Reads the record if it has changed, unless commands have it for too long.
    async fn name_anew(&mut self, instance: &Instance) {
        let stamp = || fs::metadata(instance.state_file()).and_then(|metadata| metadata.modified()).ok();
        if self.stamp.is_some() && self.stamp == stamp() {
            return;
        }
        for _ in 0..TRIES {
            match Account::read(instance) {
                Ok(Some(account)) => {
                    self.account = account;
                    self.forget();
                    self.stamp = stamp();
                    return;
                }
                Ok(None) => sleep(PAUSE).await,
                // It is going down: what is left has the names that it had.
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, drops: &[(DropKey, u64)], traffic: &[(LinkKey, InterfaceTraffic)], flows: &[Flow]) {
        let name = |key: &DropKey| {
            let hook = Hook::from_u8(key.hook).map_or("unknown", Hook::name);
            (hook, DropReason::from_u8(key.reason).map_or("unknown", DropReason::name))
        };
        self.drops.take(drops.iter().map(|(key, count)| (*key, name(key), [*count])));
        let of_endpoints = traffic.iter().map(|(key, InterfaceTraffic { index, sent, received })| {
            ((key.clone(), *index), key.clone(), counters(*sent, *received))
        });
        self.endpoints.take(of_endpoints);
        let of_mappings = flows.iter().filter(|flow| flow.mapping != 0).filter_map(|flow| {
            // One that is recorded no more is not told of.
            let published = self.account.mappings.get(&flow.mapping)?;
            let counts = counters(flow.sent, flow.received);
            Some(((flow.original, flow.created), published.clone(), counts))
        });
        self.mappings.take(of_mappings);
    }

    /// Forgets what was counted of what is recorded no more: others come, under other names.
    fn forget(&mut self) {
        let endpoints: HashSet<LinkKey> = self.account.endpoints.iter().map(Named::key).collect();
        self.endpoints.retain(|key| endpoints.contains(key));
        let mappings: HashSet<&Published> = self.account.mappings.values().collect();
        self.mappings.retain(|published| mappings.contains(published));
    }

    fn drops_told(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut told: Vec<_> =
            self.drops.sums().map(|(&(hook, reason), [count])| (hook, reason, count)).collect();
        told.sort_unstable();
        told
    }

    fn endpoints_told(&self) -> Vec<EndpointSample> {
        let endpoints = self.account.endpoints.iter();
        let sample = |it: &Named| {
            let [sent, received] = traffic_of(self.endpoints.sum(&it.key()));
            EndpointSample { name: it.name.clone(), network: it.network.clone(), sent, received }
        };
        endpoints.map(sample).collect()
    }

    fn mappings_told(&self) -> Vec<MappingSample> {
        let sample = |it: &Published| {
            // Clients open, so what they send is what comes in.
            let [inwards, outwards] = traffic_of(self.mappings.sum(it));
            let Published { published, protocol, endpoint } = it.clone();
            MappingSample { published, protocol, endpoint, inwards, outwards }
        };
        let mut told: Vec<MappingSample> = self.account.mappings.values().map(sample).collect();
        told.sort_unstable_by(|a, b| (&a.published, &a.protocol).cmp(&(&b.published, &b.protocol)));
        told
    }
}

/// The four counters of something that is sent and received, as [`traffic_of`] takes them apart.
fn counters(sent: Traffic, received: Traffic) -> [u64; 4] {
    [sent.packets, sent.bytes, received.packets, received.bytes]
}

/// What was sent and received.
fn traffic_of([sent, sent_bytes, received, received_bytes]: [u64; 4]) -> [Traffic; 2] {
    [(sent, sent_bytes), (received, received_bytes)].map(|(packets, bytes)| Traffic { packets, bytes })
}

/// What went through the endpoints' interfaces, of those that are there and can be asked at the moment.
async fn traffic(kernel: &Kernel, account: &Account) -> Vec<(LinkKey, InterfaceTraffic)> {
    let near: Vec<&str> = account.endpoints.iter().map(|endpoint| endpoint.host_interface.as_str()).collect();
    let counted = kernel.traffic_of_endpoints(&near).await.unwrap_or_default();
    let of = |endpoint: &Named| Some((endpoint.key(), *counted.get(&endpoint.host_interface)?));
    account.endpoints.iter().filter_map(of).collect()
}

/// How much of the flow tables is in use: each flow has an entry for each direction.
fn flow_usage(kernel: &Kernel, flows: &[Flow]) -> Result<Vec<(&'static str, Usage)>, kernel::Error> {
    let entries = |confirmed: bool| {
        let flows = flows.iter().filter(|flow| flow.confirmed == confirmed);
        flows.map(|flow| if flow.halves == flow::Halves::Both { 2 } else { 1 }).sum()
    };
    let mut usage = Vec::new();
    for (map, used) in [(maps::CONNTRACK, entries(true)), (maps::UNCONFIRMED, entries(false))] {
        if let Some(room) = kernel.room(map)? {
            usage.push((map, Usage { used, room: room.into() }));
        }
    }
    Ok(usage)
}

/// Counts flows by the network of the endpoint that has them; both ends may be endpoints: the one that began it counts.
fn by_network<'a>(account: &Account, flows: impl Iterator<Item = &'a Flow>) -> Vec<FlowsSample> {
    let mut counts: BTreeMap<u16, [u64; 2]> =
        account.networks.keys().map(|&number| (number, [0, 0])).collect();
    for flow in flows {
        let zone = if flow.original.zone == Zone::WORLD { flow.translated.zone } else { flow.original.zone };
        counts.entry(zone.id).or_default()[usize::from(flow.confirmed)] += 1;
    }
    let sample = |(number, [unconfirmed, confirmed]): (u16, [u64; 2])| FlowsSample {
        network: account.networks.get(&number).cloned().unwrap_or_else(|| number.to_string()),
        confirmed,
        unconfirmed,
    };
    counts.into_iter().map(sample).collect()
}
