//! What flows use of what there is, and how long that will do.

use std::collections::HashMap;

use vnet_common::{
    Addr, CtState, DatapathConfig, EndpointUse, MappingEntry, PortRange, Proto, Tuple, Zone, maps,
};
use vnet_datapath::{conntrack, mappings};

use super::Flow;

/// Percentage in use from which on there is a warning.
pub const ALARM: f64 = 80.0;

/// Seconds over which new flows are counted for a forecast.
const RECENT: u32 = 60;

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// The flows that the tables hold, whether they are over or not.
    pub flows: &'a [Flow],
    /// The entries of the endpoint-independent mappings.
    pub mappings: &'a HashMap<Tuple, MappingEntry>,
    /// How many datagrams are in fragments.
    pub fragments: usize,
    /// What each endpoint has in use, by name.
    pub endpoints: &'a [(String, EndpointUse)],
    /// For how many flows there is room.
    pub room: Room,
}

/// For how many flows the tables were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Confirmed ones.
    pub confirmed: usize,
    /// Ones that are not confirmed; there is as much for mappings.
    pub unanswered: usize,
}

/// How much is used of something of which there is only so much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What is in use.
    pub used: u64,
    /// What there is.
    pub room: u64,
}

impl Usage {
    /// What is left.
    #[must_use]
    pub fn left(self) -> u64 {
        self.room.saturating_sub(self.used)
    }

    /// How much is in use, of a hundred.
    #[must_use]
    pub fn percent(self) -> f64 {
        if self.room == 0 { 0.0 } else { self.used as f64 * 100.0 / self.room as f64 }
    }

    /// Whether it is nearly all in use.
    #[must_use]
    pub fn is_alarming(self) -> bool {
        self.percent() >= ALARM
    }
}

/// A table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fill {
    /// The map.
    pub map: &'static str,
    /// What it holds, in words.
    pub what: &'static str,
    /// Live flows or entries, of those there is room for.
    pub usage: Usage,
    /// Flows that are over and make room as soon as that is needed.
    pub over: u64,
    /// What to expect, of a table that does not make room by itself.
    pub forecast: Option<Forecast>,
    /// What it means that it is full.
    consequence: &'static str,
}

/// What is to come if flows go on beginning as in the last minute, and are kept as long as those that are there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// How many begin in a second.
    pub rate: f64,
    /// Seconds for which each is kept, on average: its age and the time it has left.
    pub lifetime: f64,
    /// Seconds until there is no room left; `None` if it never comes to that.
    pub full_in: Option<u64>,
}

/// The live flows of one state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StateShare {
    /// The state.
    pub state: CtState,
    /// How many have it.
    pub flows: u64,
    /// Seconds for which each is kept, on average: its age and the time it has left.
    pub lifetime: f64,
}

/// What an endpoint has in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointFill {
    /// Its name.
    pub name: String,
    /// Confirmed flows that it began, some of which may be over.
    pub flows: u32,
    /// How many it may have; `None` for any number.
    pub flows_limit: Option<u32>,
    /// Flows that it may begin now without an answer; `None` for any number.
    pub unanswered_left: Option<u32>,
    /// How many that is at most.
    pub unanswered_limit: Option<u32>,
    /// Flows that it was refused so far.
    pub refused: u64,
}

/// The external ports of one address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PortFill {
    /// The protocol.
    pub proto: Proto,
    /// The address.
    pub addr: Addr,
    /// The ports that masquerade may use.
    pub range: PortRange,
    /// How many of them live flows and mappings have.
    pub usage: Usage,
    /// What to expect.
    pub forecast: Forecast,
}

/// What is used of what there is.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// The tables.
    pub tables: Vec<Fill>,
    /// The live flows by state; only states that there are.
    pub states: Vec<StateShare>,
    /// The endpoints.
    pub endpoints: Vec<EndpointFill>,
    /// The external addresses that have ports in use.
    pub ports: Vec<PortFill>,
}

impl Stats {
    /// Counts, at a time in seconds since boot.
    #[must_use]
    pub fn count(counted: &Counted<'_>, config: &DatapathConfig, now: u32) -> Self {
        let counting = Counting { counted, config, now };
        Self {
            tables: counting.tables(),
            states: counting.states(),
            endpoints: counting.endpoints(),
            ports: counting.ports(),
        }
    }

    /// How many flows the tables hold, whether they are over or not.
    #[must_use]
    pub fn flows(&self) -> u64 {
        let flows =
            self.tables.iter().filter(|fill| [maps::CONNTRACK, maps::UNCONFIRMED].contains(&fill.map));
        flows.map(|fill| fill.usage.used + fill.over).sum()
    }

    /// What is nearly all in use, and what happens then.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let tables = self.tables.iter().map(|fill| (fill.what.to_owned(), fill.usage, fill.consequence));
        let endpoints = self.endpoints.iter().flat_map(EndpointFill::usages);
        let ports = self.ports.iter().map(|fill| {
            let what = format!("{} ports of {}", fill.proto, fill.addr);
            (what, fill.usage, "flows that find none free are dropped (no-free-port)")
        });
        let all = tables.chain(endpoints).chain(ports).filter(|(_, usage, _)| usage.is_alarming());
        all.map(|(what, usage, consequence)| {
            let Usage { used, room } = usage;
            format!("{what}: {used} of {room} in use ({:.1} %); {consequence}", usage.percent())
        })
        .collect()
    }
}

impl EndpointFill {
    fn usages(&self) -> Vec<(String, Usage, &'static str)> {
        const REFUSED: &str = "what it begins beyond that is dropped (quota)";
        let usage = |used: u32, room: u32| Usage { used: used.into(), room: room.into() };
        let mut usages = Vec::new();
        if let Some(limit) = self.flows_limit {
            usages.push((
                format!("confirmed flows of endpoint {}", self.name),
                usage(self.flows, limit),
                REFUSED,
            ));
        }
        if let (Some(limit), Some(left)) = (self.unanswered_limit, self.unanswered_left) {
            let used = limit.saturating_sub(left);
            usages.push((format!("unanswered flows of endpoint {}", self.name), usage(used, limit), REFUSED));
        }
        usages
    }
}

/// When there is no room left: `used` of `room` now, `recent` more in the last minute, each kept for `lifetime` seconds.
///
/// With as many beginning in every second, and each ending after its time, the number approaches `rate * lifetime`, as
/// a tank with a hole in it fills: `n(t) = end - (end - used) * exp(-t / lifetime)`.
#[must_use]
pub fn forecast(usage: Usage, recent: u64, lifetime: f64) -> Forecast {
    let Usage { used, room } = usage;
    let rate = recent as f64 / f64::from(RECENT);
    let (used, room) = (used as f64, room as f64);
    let end = rate * lifetime;
    let full_in = if used >= room {
        Some(0)
    } else if end <= room {
        None
    } else {
        Some((-lifetime * ((end - room) / (end - used)).ln()).ceil() as u64)
    };
    Forecast { rate, lifetime, full_in }
}

/// A mean in the making.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    count: u64,
    sum: u64,
}

impl Mean {
    fn add(&mut self, value: u64) {
        self.count += 1;
        self.sum += value;
    }

    fn value(self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }
}

/// External ports that are in use, and since when the first flow of each.
#[derive(Debug, Default)]
struct Pool {
    ports: HashMap<u16, Option<u32>>,
    lifetime: Mean,
}

struct Counting<'a> {
    counted: &'a Counted<'a>,
    config: &'a DatapathConfig,
    now: u32,
}

impl Counting<'_> {
    fn live(&self) -> impl Iterator<Item = &Flow> {
        self.counted.flows.iter().filter(|flow| !flow.is_over(self.config, self.now))
    }

    fn is_recent(&self, created: u32) -> bool {
        self.now.saturating_sub(created) < RECENT
    }

    fn lifetime(&self, flow: &Flow) -> u64 {
        u64::from(flow.age(self.now)) + u64::from(flow.left(self.config, self.now))
    }

    fn tables(&self) -> Vec<Fill> {
        let entries = |map, what, used: usize, room: usize| Fill {
            map,
            what,
            usage: Usage { used: used as u64, room: room as u64 },
            over: 0,
            forecast: None,
            consequence: "the least recently used make room for new ones",
        };
        let Counted { mappings, fragments, .. } = *self.counted;
        vec![
            self.confirmed(),
            self.unconfirmed(),
            entries(maps::MAPPINGS, "entries of mappings", mappings.len(), 2 * self.counted.room.unanswered),
            entries(maps::FRAGMENTS, "fragmented datagrams", fragments, maps::FRAGMENT_ENTRIES),
        ]
    }

    fn confirmed(&self) -> Fill {
        let (usage, over) = self.of_table(true, self.counted.room.confirmed);
        let mut lifetime = Mean::default();
        let mut recent = 0;
        for flow in self.live().filter(|flow| flow.confirmed) {
            lifetime.add(self.lifetime(flow));
            recent += u64::from(self.is_recent(flow.created));
        }
        Fill {
            map: maps::CONNTRACK,
            what: "confirmed flows",
            usage,
            over,
            forecast: Some(forecast(usage, recent, lifetime.value())),
            consequence: "flows for which there is no room stay unconfirmed and may be evicted",
        }
    }

    fn unconfirmed(&self) -> Fill {
        let (usage, over) = self.of_table(false, self.counted.room.unanswered);
        Fill {
            map: maps::UNCONFIRMED,
            what: "unconfirmed flows",
            usage,
            over,
            forecast: None,
            consequence: "the least recently used make room for new ones",
        }
    }

    /// Live flows of a table, and those that are over.
    fn of_table(&self, confirmed: bool, room: usize) -> (Usage, u64) {
        let all = self.counted.flows.iter().filter(|flow| flow.confirmed == confirmed).count() as u64;
        let used = self.live().filter(|flow| flow.confirmed == confirmed).count() as u64;
        (Usage { used, room: room as u64 }, all - used)
    }

    fn states(&self) -> Vec<StateShare> {
        let share = |state| {
            let mut lifetime = Mean::default();
            self.live().filter(|flow| flow.state == state).for_each(|flow| lifetime.add(self.lifetime(flow)));
            StateShare { state, flows: lifetime.count, lifetime: lifetime.value() }
        };
        CtState::ALL.into_iter().map(share).filter(|share| share.flows > 0).collect()
    }

    fn endpoints(&self) -> Vec<EndpointFill> {
        let limit = |limit: u32| (limit != 0).then_some(limit);
        let unanswered_limit = limit(self.config.unanswered);
        let fill = |(name, used): &(String, EndpointUse)| EndpointFill {
            name: name.clone(),
            flows: used.flows,
            flows_limit: limit(self.config.endpoint_flows),
            unanswered_left: unanswered_limit.map(|limit| {
                used.credit.saturating_add(conntrack::earned(used, self.config, self.now)).min(limit)
            }),
            unanswered_limit,
            refused: used.refused,
        };
        self.counted.endpoints.iter().map(fill).collect()
    }

    fn ports(&self) -> Vec<PortFill> {
        let mut pools: HashMap<(Proto, Addr), Pool> = HashMap::new();
        for flow in self.live() {
            let Some((addr, port)) = self.external(flow) else { continue };
            let pool = pools.entry((flow.original.proto, addr)).or_default();
            pool.lifetime.add(self.lifetime(flow));
            let began = pool.ports.entry(port).or_default();
            *began = Some(began.map_or(flow.created, |first| first.min(flow.created)));
        }
        for (proto, addr, port) in self.mapped() {
            pools.entry((proto, addr)).or_default().ports.entry(port).or_default();
        }
        let mut ports: Vec<PortFill> =
            pools.into_iter().map(|((proto, addr), pool)| self.port_fill(proto, addr, &pool)).collect();
        ports.sort_by_key(|fill| (fill.proto, fill.addr));
        ports
    }

    fn port_fill(&self, proto: Proto, addr: Addr, pool: &Pool) -> PortFill {
        let range = self.config.nat_ports;
        let room = u64::from(range.last.saturating_sub(range.first)) + 1;
        let usage = Usage { used: pool.ports.len() as u64, room };
        let recent = pool.ports.values().flatten().filter(|began| self.is_recent(**began)).count() as u64;
        PortFill { proto, addr, range, usage, forecast: forecast(usage, recent, pool.lifetime.value()) }
    }

    /// The address and port of the range that a flow has instead of its endpoint's own.
    fn external(&self, flow: &Flow) -> Option<(Addr, u16)> {
        let (original, translated) = (&flow.original, &flow.translated);
        let port = translated.sport.number();
        let masqueraded = original.zone != Zone::WORLD && translated.src != original.src;
        (masqueraded && self.in_range(port)).then_some((translated.src, port))
    }

    /// The protocols, addresses and ports of live mappings.
    fn mapped(&self) -> impl Iterator<Item = (Proto, Addr, u16)> {
        let live = |proto: Proto, mapping: &MappingEntry| {
            self.now.saturating_sub(mapping.last_seen) <= mappings::timeout(self.config, proto, mapping.flags)
        };
        let of_outside = |key: &Tuple| key.zone == Zone::WORLD && key.src.is_unspecified();
        let entries = self.counted.mappings.iter();
        let outside = entries.filter(move |(key, mapping)| of_outside(key) && live(key.proto, mapping));
        let ports = outside.map(|(key, _)| (key.proto, key.dst, key.dport.number()));
        ports.filter(|(_, _, port)| self.in_range(*port))
    }

    fn in_range(&self, port: u16) -> bool {
        (self.config.nat_ports.first..=self.config.nat_ports.last).contains(&port)
    }
}
