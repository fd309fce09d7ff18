//! What the programs log, with names.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use vnet_common::{DropReason, LogKind, LogVerdict, Tuple};

use super::flow::{Networks, Side, clock, hook_name, interface, wall_clock};
use crate::flow::LogRecord;

/// Something that a program has logged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LogEvent {
    /// [`super::VERSION`].
    pub version: u32,
    /// Seconds since 1970 at which it was read, which is soon after it was logged.
    pub time: f64,
    /// `error`, `warn`, `debug` or `trace`.
    pub level: &'static str,
    /// `packet`, `drop`, `begin`, `confirm` or `end`.
    pub log: &'static str,
    /// The program.
    pub hook: &'static str,
    /// The interface that it ran on.
    pub interface: String,
    /// Why a packet was dropped.
    pub reason: Option<&'static str>,
    /// What became of a packet: `pass`, `forward`, `deliver`, `drop`, `answer`, `hold` or `return`.
    pub verdict: Option<&'static str>,
    /// The protocol, `null` if there was no readable tuple.
    pub protocol: Option<String>,
    /// The ends of the packet.
    pub packet: Option<Side>,
    /// What they become, `null` if nothing; of a flow that ends: those of its answers.
    pub becomes: Option<Side>,
}

impl LogEvent {
    /// A record, with the names of what it numbers.
    #[must_use]
    pub fn new(record: &LogRecord, interfaces: &BTreeMap<u32, String>, networks: &Networks) -> Self {
        let LogRecord { level, kind, hook, ifindex, number, tuple, becomes } = record;
        let side = |tuple: &Tuple| {
            let readable = !(tuple.src.is_unspecified() && tuple.dst.is_unspecified());
            readable.then(|| Side::new(tuple, networks))
        };
        let packet = side(tuple);
        let reason = u8::try_from(*number).ok().and_then(DropReason::from_u8);
        let verdict = LogVerdict::ALL.into_iter().find(|verdict| *verdict as u32 == *number);
        Self {
            version: super::VERSION,
            time: wall_clock(),
            level: level.name(),
            log: kind.name(),
            hook: hook_name(*hook),
            interface: interface(*ifindex, interfaces),
            reason: reason.filter(|_| *kind == LogKind::Drop).map(DropReason::name),
            verdict: verdict.filter(|_| *kind == LogKind::Packet).map(LogVerdict::name),
            protocol: packet.is_some().then(|| tuple.proto.to_string()),
            packet,
            becomes: side(becomes).filter(|_| tuple != becomes),
        }
    }
}

impl fmt::Display for LogEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log, hook, interface, .. } = self;
        write!(f, "{} {:<9} {hook} on {interface}: {log}", clock(self.time), self.level)?;
        if let Some(reason) = self.reason {
            write!(f, " for {reason}")?;
        }
        if let (Some(protocol), Some(packet)) = (&self.protocol, &self.packet) {
            write!(f, ", {protocol} {packet}")?;
        }
        if let Some(becomes) = &self.becomes {
            write!(f, " => {becomes}")?;
        }
        self.verdict.map_or(Ok(()), |verdict| write!(f, ", {verdict}"))
    }
}
