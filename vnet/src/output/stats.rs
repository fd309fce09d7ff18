//! What flows use of what there is, as it is printed.

use std::io::{self, Write};
use std::net::IpAddr;

use serde::Serialize;

use super::table::{self, words};
use super::{Format, List, age, print_json};
use crate::flow::{self, EndpointFill, Fill, PortFill, StateShare, Stats, Usage};

/// What is to come if flows go on beginning as in the last minute, and are kept as long as those that are there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// How many begin in a second.
    pub rate: f64,
    /// Seconds for which each is kept, on average: its age and the time it has left.
    pub lifetime: f64,
    /// Seconds until there is no room left; `null` if it never comes to that.
    pub full_in: Option<u64>,
}

impl Forecast {
    fn words(&self) -> String {
        self.full_in.map_or_else(|| "never".to_owned(), |seconds| format!("in {}", age(seconds)))
    }

    fn rate(&self) -> String {
        format!("{:.1}/s", self.rate)
    }
}

impl From<flow::Forecast> for Forecast {
    fn from(forecast: flow::Forecast) -> Self {
        let flow::Forecast { rate, lifetime, full_in } = forecast;
        Self { rate: rounded(rate), lifetime: rounded(lifetime), full_in }
    }
}

/// A table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableStats {
    /// The map.
    pub map: &'static str,
    /// What it holds, in words.
    pub holds: &'static str,
    /// Live flows, or entries.
    pub used: u64,
    /// How many there is room for.
    pub room: u64,
    /// `used` of `room`, in percent.
    pub percent: f64,
    /// Flows that are over and make room as soon as that is needed.
    pub over: u64,
    /// When it will be full; `null` for one in which the least recently used make room.
    pub forecast: Option<Forecast>,
}

impl From<&Fill> for TableStats {
    fn from(fill: &Fill) -> Self {
        Self {
            map: fill.map,
            holds: fill.what,
            used: fill.usage.used,
            room: fill.usage.room,
            percent: rounded(fill.usage.percent()),
            over: fill.over,
            forecast: fill.forecast.map(Forecast::from),
        }
    }
}

/// The live flows of one state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StateStats {
    /// The state.
    pub state: &'static str,
    /// How many have it.
    pub flows: u64,
    /// Seconds for which each is kept, on average: its age and the time it has left.
    pub lifetime: f64,
}

impl From<&StateShare> for StateStats {
    fn from(share: &StateShare) -> Self {
        let StateShare { state, flows, lifetime } = *share;
        Self { state: state.name(), flows, lifetime: rounded(lifetime) }
    }
}

/// What an endpoint has in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointStats {
    /// Its name.
    pub endpoint: String,
    /// Confirmed flows that it began.
    pub flows: u32,
    /// How many it may have; `null` for any number.
    pub flows_limit: Option<u32>,
    /// Flows that it may begin now without an answer; `null` for any number.
    pub unanswered_left: Option<u32>,
    /// How many that is at most.
    pub unanswered_limit: Option<u32>,
    /// Flows that it was refused so far.
    pub refused: u64,
}

impl From<&EndpointFill> for EndpointStats {
    fn from(fill: &EndpointFill) -> Self {
        let EndpointFill { name, flows, flows_limit, unanswered_left, unanswered_limit, refused } =
            fill.clone();
        Self { endpoint: name, flows, flows_limit, unanswered_left, unanswered_limit, refused }
    }
}

/// The external ports of one address.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PortStats {
    /// `tcp`, `udp`, `icmp` or `icmpv6`, of which the last two have identifiers of queries for ports.
    pub protocol: String,
    /// The address.
    pub address: IpAddr,
    /// First port that masquerade may use.
    pub first: u16,
    /// Last port that it may use.
    pub last: u16,
    /// How many of them flows and mappings have.
    pub used: u64,
    /// How many are left.
    pub left: u64,
    /// `used` of all, in percent.
    pub percent: f64,
    /// When all of them will be in use.
    pub forecast: Forecast,
}

impl From<&PortFill> for PortStats {
    fn from(fill: &PortFill) -> Self {
        Self {
            protocol: fill.proto.to_string(),
            address: fill.addr.into(),
            first: fill.range.first,
            last: fill.range.last,
            used: fill.usage.used,
            left: fill.usage.left(),
            percent: rounded(fill.usage.percent()),
            forecast: fill.forecast.into(),
        }
    }
}

/// What flows use of what there is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FlowStats {
    /// The tables.
    pub tables: Vec<TableStats>,
    /// The live flows by state; only states that there are.
    pub states: Vec<StateStats>,
    /// The endpoints.
    pub endpoints: Vec<EndpointStats>,
    /// The external addresses that have ports in use.
    pub ports: Vec<PortStats>,
    /// What is nearly all in use, and what happens then.
    pub warnings: Vec<String>,
}

impl From<&Stats> for FlowStats {
    fn from(stats: &Stats) -> Self {
        Self {
            tables: stats.tables.iter().map(TableStats::from).collect(),
            states: stats.states.iter().map(StateStats::from).collect(),
            endpoints: stats.endpoints.iter().map(EndpointStats::from).collect(),
            ports: stats.ports.iter().map(PortStats::from).collect(),
            warnings: stats.warnings(),
        }
    }
}

impl FlowStats {
    /// Prints them: a list of one for programs, tables for people.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn print(&self, out: &mut impl Write, format: Format) -> io::Result<()> {
        if format == Format::Json {
            return print_json(out, &List { noun: "stats", items: std::slice::from_ref(self) });
        }
        self.print_tables(out)?;
        if !self.states.is_empty() {
            self.print_states(out)?;
        }
        if !self.endpoints.is_empty() {
            self.print_endpoints(out)?;
        }
        if !self.ports.is_empty() {
            self.print_ports(out)?;
        }
        if !self.warnings.is_empty() {
            writeln!(out)?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))
    }

    fn print_tables(&self, out: &mut impl Write) -> io::Result<()> {
        let header = ["TABLE", "HOLDS", "USED", "OF", "PERCENT", "OVER", "NEW", "FULL"];
        let row = |it: &TableStats| {
            vec![
                it.map.to_owned(),
                it.holds.to_owned(),
                it.used.to_string(),
                it.room.to_string(),
                percent(it.percent),
                it.over.to_string(),
                words(it.forecast.as_ref().map(Forecast::rate)),
                words(it.forecast.as_ref().map(Forecast::words)),
            ]
        };
        table::print(out, &header, self.tables.iter().map(row))
    }

    fn print_states(&self, out: &mut impl Write) -> io::Result<()> {
        let row = |it: &StateStats| {
            vec![it.state.to_owned(), it.flows.to_string(), age(it.lifetime.round() as u64)]
        };
        writeln!(out)?;
        table::print(out, &["STATE", "FLOWS", "KEPT FOR"], self.states.iter().map(row))
    }

    fn print_endpoints(&self, out: &mut impl Write) -> io::Result<()> {
        let share = |used: u32, room: u32| Usage { used: used.into(), room: room.into() }.percent();
        let row = |it: &EndpointStats| {
            vec![
                it.endpoint.clone(),
                it.flows.to_string(),
                words(it.flows_limit),
                words(it.flows_limit.map(|limit| percent(share(it.flows, limit)))),
                words(it.unanswered_left),
                words(it.unanswered_limit),
                it.refused.to_string(),
            ]
        };
        let header = ["ENDPOINT", "CONFIRMED", "OF", "PERCENT", "UNANSWERED LEFT", "OF", "REFUSED"];
        writeln!(out)?;
        table::print(out, &header, self.endpoints.iter().map(row))
    }

    fn print_ports(&self, out: &mut impl Write) -> io::Result<()> {
        let row = |it: &PortStats| {
            vec![
                it.protocol.clone(),
                it.address.to_string(),
                format!("{}-{}", it.first, it.last),
                it.used.to_string(),
                it.left.to_string(),
                percent(it.percent),
                it.forecast.rate(),
                it.forecast.words(),
            ]
        };
        let header = ["PROTO", "ADDRESS", "PORTS", "USED", "LEFT", "PERCENT", "NEW", "FULL"];
        writeln!(out)?;
        table::print(out, &header, self.ports.iter().map(row))
    }
}

fn percent(value: f64) -> String {
    format!("{value:.1} %")
}

/// With one digit after the point, as people want it and tests can compare it.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
