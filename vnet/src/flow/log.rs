//! What the programs log, read from the text that aya-log makes of it.

use std::net::IpAddr;

use bytemuck::Zeroable as _;
use vnet_common::{Addr, Hook, LogKind, LogLevel, Port, Proto, Tuple, Zone};

/// What a program has logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// At which level.
    pub level: LogLevel,
    /// What it is of.
    pub kind: LogKind,
    /// Where, if that is known.
    pub hook: Option<Hook>,
    /// Index of the interface.
    pub ifindex: u32,
    /// What more there is to say: [`LogKind`] says what it means.
    pub number: u32,
    /// The tuple, all zeros if there was none to read.
    pub tuple: Tuple,
    /// What it becomes, all zeros if nothing.
    pub becomes: Tuple,
}

impl LogRecord {
    /// Reads the text of a record, as [`vnet_common::LogKind`] says that it is.
    #[must_use]
    pub fn parse(level: LogLevel, text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut next = || words.next()?.parse::<u32>().ok();
        let [kind, hook, ifindex, number] = [next()?, next()?, next()?, next()?];
        let mut tuple = || {
            let (proto, zone) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let mut side = || {
                let addr: IpAddr = words.next()?.parse().ok()?;
                Some((Addr::from(addr), Port::new(words.next()?.parse().ok()?)))
            };
            let ((src, sport), (dst, dport)) = (side()?, side()?);
            let (proto, zone) = (Proto { number: proto }, Zone { id: zone });
            Some(Tuple { src, dst, sport, dport, zone, proto, ..Tuple::zeroed() })
        };
        let (tuple, becomes) = (tuple()?, tuple()?);
        let kind = LogKind::ALL.into_iter().find(|known| *known as u32 == kind)?;
        let hook = u8::try_from(hook).ok().and_then(Hook::from_u8);
        Some(Self { level, kind, hook, ifindex, number, tuple, becomes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_record_is_understood_and_nothing_else() {
        let text = "3 1 7 0 6 1 ::ffff:10.0.0.2 4711 ::ffff:203.0.113.2 80 6 0 ::ffff:203.0.113.1 50000 2001:db8::1 80";
        let record = LogRecord::parse(LogLevel::Debug, text).expect("a record");
        assert_eq!((record.level, record.kind), (LogLevel::Debug, LogKind::Begin));
        assert_eq!((record.hook, record.ifindex), (Some(Hook::FromEndpoint), 7));
        assert_eq!(IpAddr::from(record.tuple.src).to_string(), "10.0.0.2");
        assert_eq!((record.tuple.dport, record.becomes.sport), (Port::new(80), Port::new(50000)));
        assert_eq!(IpAddr::from(record.becomes.dst).to_string(), "2001:db8::1");
        for broken in ["", "3 1 7", "9 1 7 0 6 1 :: 1 :: 1 0 0 :: 0 :: 0", &text[..text.len() - 3]] {
            assert_eq!(LogRecord::parse(LogLevel::Debug, broken), None, "{broken}");
        }
    }
}
