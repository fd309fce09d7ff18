//! Metrics as values, and as the text that Prometheus reads (OpenMetrics 1.0).
//!
//! What is counted here comes from the kernel's counters, which begin anew when an interface or a map is made anew.
//! [`Totals`] add up what they grow by, so that a counter of vnet's never goes back while `vnet run` lives.

mod totals;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode as encode_registry;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

pub use totals::Totals;

use crate::flow::{Traffic, Usage};

/// What the text is, for HTTP.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is told, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Version of the program, and of its maps.
    pub version: &'static str,
    /// [`vnet_common::ABI_VERSION`].
    pub abi: u32,
    /// Whether the instance is up.
    pub up: bool,
    /// Dropped packets by hook and reason.
    pub drops: Vec<(&'static str, &'static str, u64)>,
    /// What endpoints sent and received.
    pub endpoints: Vec<EndpointSample>,
    /// What went through published ports.
    pub mappings: Vec<MappingSample>,
    /// Tracked flows by network, confirmed or not.
    pub flows: Vec<FlowsSample>,
    /// Slots for confirmed flows; some of those in use may be of flows that are over.
    pub slots: Usage,
    /// Entries of maps.
    pub maps: Vec<(&'static str, Usage)>,
    /// Repairs by kind of object.
    pub repairs: Vec<(&'static str, u64)>,
    /// What cannot be repaired at the moment, by kind of object.
    pub failing: Vec<(&'static str, u64)>,
    /// What happened, by kind.
    pub changes: Vec<(&'static str, u64)>,
    /// Looks at the instance by what came of them.
    pub looks: Vec<(&'static str, u64)>,
    /// Questions for names by what came of them, if they are answered.
    pub questions: Vec<(&'static str, u64)>,
    /// The last look.
    pub last: Option<LookSample>,
}

/// What an endpoint sent and received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSample {
    /// Its name.
    pub name: String,
    /// Its network.
    pub network: String,
    /// What left its interface.
    pub sent: Traffic,
    /// What came in by its interface.
    pub received: Traffic,
}

/// What went through published ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingSample {
    /// What is published.
    pub published: String,
    /// Its protocol.
    pub protocol: String,
    /// The endpoint it leads to.
    pub endpoint: String,
    /// From clients to the endpoint.
    pub inwards: Traffic,
    /// From the endpoint to clients.
    pub outwards: Traffic,
}

/// Flows of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowsSample {
    /// The network.
    pub network: String,
    /// Those whose sides have shown that they hear each other.
    pub confirmed: u64,
    /// The others.
    pub unconfirmed: u64,
}

/// A look at the instance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LookSample {
    /// Seconds since 1970 at which it ended.
    pub time: f64,
    /// Seconds that it took.
    pub took: f64,
    /// Whether everything was as recorded afterwards.
    pub ok: bool,
}

/// The text.
///
/// # Errors
/// Never: it is written into memory.
pub fn encode(sample: &Sample) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("vnet");
    registry.register_collector(Box::new(sample.clone()));
    let mut text = String::new();
    encode_registry(&mut text, &registry)?;
    Ok(text)
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Writes metrics that share a name: only with something to say.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn counters<'a>(
        &mut self,
        (name, help, unit): (&str, &str, Option<&Unit>),
        values: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        values.try_for_each(|(labels, value)| ConstCounter::new(value).encode(family.encode_family(&labels)?))
    }

    fn gauges<'a>(
        &mut self,
        (name, help, unit): (&str, &str, Option<&Unit>),
        values: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) -> fmt::Result {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        values.try_for_each(|(labels, value)| ConstGauge::new(value).encode(family.encode_family(&labels)?))
    }

    /// The only one of its name.
    fn gauge(&mut self, (name, help, unit): (&str, &str, Option<&Unit>), value: f64) -> fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?)
    }
}

impl Collector for Sample {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer(encoder);
        self.write_own(&mut writer)?;
        self.write_traffic(&mut writer)?;
        self.write_tables(&mut writer)
    }
}

impl Sample {
    fn write_own(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let abi = self.abi.to_string();
        let build = vec![("version", self.version), ("abi", abi.as_str())];
        // Not of the type for such things, which readers of the older format do not know.
        writer.gauges(("build_info", "Version of vnet and of its maps", None), [(build, 1.0)])?;
        let up = ("up", "Whether the instance is up: 1 or 0", None);
        writer.gauge(up, f64::from(u8::from(self.up)))?;
        let of = |label: &'static str, counts: &[(&'static str, u64)]| -> Vec<(Labels<'static>, u64)> {
            counts.iter().map(|(kind, count)| (vec![(label, *kind)], *count)).collect()
        };
        let repairs = ("repairs", "Objects that were not as recorded and were brought back", None);
        writer.counters(repairs, of("kind", &self.repairs))?;
        let failing = ("unrepaired", "Objects that are not as recorded and cannot be brought back", None);
        writer.gauges(
            failing,
            self.failing.iter().map(|(kind, count)| (vec![("kind", *kind)], *count as f64)),
        )?;
        let changes = ("changes", "What happened around the instance, as the kernel told", None);
        writer.counters(changes, of("kind", &self.changes))?;
        let looks = ("reconciles", "Comparisons of the instance with its record, by outcome", None);
        writer.counters(looks, of("outcome", &self.looks))?;
        let questions = ("dns_questions", "Questions for names at the gateways, by outcome", None);
        writer.counters(questions, of("outcome", &self.questions))?;
        let Some(last) = self.last else { return Ok(()) };
        for (name, help, unit, value) in [
            ("last_reconcile_duration", "How long the last comparison took", Some(&Unit::Seconds), last.took),
            (
                "last_reconcile_timestamp",
                "When the last comparison ended, since 1970",
                Some(&Unit::Seconds),
                last.time,
            ),
            (
                "last_reconcile_success",
                "Whether everything was as recorded after it: 1 or 0",
                None,
                f64::from(u8::from(last.ok)),
            ),
        ] {
            writer.gauge((name, help, unit), value)?;
        }
        Ok(())
    }

    fn write_traffic(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let drops = self
            .drops
            .iter()
            .map(|(hook, reason, count)| (vec![("hook", *hook), ("reason", *reason)], *count));
        writer.counters(("dropped_packets", "Packets that vnet dropped", None), drops)?;
        type Of<T> = fn(&T) -> u64;
        let labels = |it: &'_ EndpointSample| -> Vec<(&'static str, String)> {
            vec![("endpoint", it.name.clone()), ("network", it.network.clone())]
        };
        let endpoints: [(&str, &str, Option<&Unit>, Of<EndpointSample>); 4] = [
            ("endpoint_sent_packets", "Packets that left the endpoint's interface", None, |it| {
                it.sent.packets
            }),
            ("endpoint_sent", "Bytes that left the endpoint's interface", Some(&Unit::Bytes), |it| {
                it.sent.bytes
            }),
            ("endpoint_received_packets", "Packets that came in by the endpoint's interface", None, |it| {
                it.received.packets
            }),
            (
                "endpoint_received",
                "Bytes that came in by the endpoint's interface",
                Some(&Unit::Bytes),
                |it| it.received.bytes,
            ),
        ];
        let owned: Vec<_> = self.endpoints.iter().map(labels).collect();
        for (name, help, unit, value) in endpoints {
            let values = self.endpoints.iter().zip(&owned).map(|(it, labels)| (borrowed(labels), value(it)));
            writer.counters((name, help, unit), values)?;
        }
        let labels = |it: &'_ MappingSample| -> Vec<(&'static str, String)> {
            vec![
                ("published", it.published.clone()),
                ("protocol", it.protocol.clone()),
                ("endpoint", it.endpoint.clone()),
            ]
        };
        let mappings: [(&str, &str, Option<&Unit>, Of<MappingSample>); 4] = [
            ("portmap_inward_packets", "Packets from clients of published ports", None, |it| {
                it.inwards.packets
            }),
            ("portmap_inward", "Bytes from clients of published ports", Some(&Unit::Bytes), |it| {
                it.inwards.bytes
            }),
            ("portmap_outward_packets", "Packets to clients of published ports", None, |it| {
                it.outwards.packets
            }),
            ("portmap_outward", "Bytes to clients of published ports", Some(&Unit::Bytes), |it| {
                it.outwards.bytes
            }),
        ];
        let owned: Vec<_> = self.mappings.iter().map(labels).collect();
        for (name, help, unit, value) in mappings {
            let values = self.mappings.iter().zip(&owned).map(|(it, labels)| (borrowed(labels), value(it)));
            writer.counters((name, help, unit), values)?;
        }
        Ok(())
    }

    fn write_tables(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let flows = self.flows.iter().flat_map(|it| {
            let labels = |state| vec![("network", it.network.as_str()), ("state", state)];
            [(labels("confirmed"), it.confirmed as f64), (labels("unconfirmed"), it.unconfirmed as f64)]
        });
        writer.gauges(("flows", "Tracked flows", None), flows)?;
        for (name, help, value) in [
            (
                "flow_slots_used",
                "Slots for confirmed flows in use, those of flows that are over included",
                self.slots.used,
            ),
            ("flow_slots", "Slots for confirmed flows", self.slots.room),
        ] {
            writer.gauge((name, help, None), value as f64)?;
        }
        type Of = fn(&Usage) -> u64;
        let maps: [(&str, &str, Of); 2] = [
            ("map_entries", "Entries in a map", |usage| usage.used),
            ("map_capacity", "Entries that a map has room for", |usage| usage.room),
        ];
        for (name, help, value) in maps {
            let values = self.maps.iter().map(|(map, usage)| (vec![("map", *map)], value(usage) as f64));
            writer.gauges((name, help, None), values)?;
        }
        Ok(())
    }
}

fn borrowed<'a>(labels: &'a [(&'static str, String)]) -> Labels<'a> {
    labels.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_units_totals_and_an_end() {
        let sample = Sample {
            version: "1.2.3",
            abi: 7,
            up: true,
            drops: vec![("from_uplink", "direct-access", 3)],
            endpoints: vec![EndpointSample {
                name: "net1".to_owned(),
                network: "default".to_owned(),
                sent: Traffic { packets: 1, bytes: 60 },
                received: Traffic { packets: 2, bytes: 120 },
            }],
            mappings: vec![MappingSample {
                published: "[::1]:80".to_owned(),
                protocol: "tcp".to_owned(),
                endpoint: "a\"b".to_owned(),
                inwards: Traffic { packets: 4, bytes: 5 },
                outwards: Traffic { packets: 6, bytes: 7 },
            }],
            flows: vec![FlowsSample { network: "default".to_owned(), confirmed: 8, unconfirmed: 9 }],
            slots: Usage { used: 10, room: 11 },
            maps: vec![("conntrack", Usage { used: 12, room: 13 })],
            repairs: vec![("network", 14)],
            failing: vec![("network", 15)],
            changes: vec![("route", 16)],
            looks: vec![("ok", 17)],
            questions: vec![("answered", 19)],
            last: Some(LookSample { time: 18.5, took: 0.25, ok: false }),
        };
        let text = encode(&sample).unwrap();
        for line in [
            "vnet_build_info{version=\"1.2.3\",abi=\"7\"} 1.0",
            "vnet_up 1.0",
            "# TYPE vnet_dropped_packets counter",
            "vnet_dropped_packets_total{hook=\"from_uplink\",reason=\"direct-access\"} 3",
            "# UNIT vnet_endpoint_sent_bytes bytes",
            "vnet_endpoint_sent_bytes_total{endpoint=\"net1\",network=\"default\"} 60",
            "vnet_endpoint_received_packets_total{endpoint=\"net1\",network=\"default\"} 2",
            "vnet_portmap_outward_bytes_total{published=\"[::1]:80\",protocol=\"tcp\",endpoint=\"a\\\"b\"} 7",
            "vnet_flows{network=\"default\",state=\"unconfirmed\"} 9.0",
            "vnet_flow_slots_used 10.0",
            "vnet_map_capacity{map=\"conntrack\"} 13.0",
            "vnet_repairs_total{kind=\"network\"} 14",
            "vnet_unrepaired{kind=\"network\"} 15.0",
            "vnet_changes_total{kind=\"route\"} 16",
            "vnet_reconciles_total{outcome=\"ok\"} 17",
            "vnet_dns_questions_total{outcome=\"answered\"} 19",
            "vnet_last_reconcile_duration_seconds 0.25",
            "vnet_last_reconcile_success 0.0",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
