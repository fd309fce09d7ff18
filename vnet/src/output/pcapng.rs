//! Dropped packets as a pcapng file (`draft-ietf-opsawg-pcapng`), which Wireshark and its like read: of each its bytes,
//! and as its comment why it was dropped and what to do about it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapError};
use vnet_common::{DropReason, Hook};

/// Times are in nanoseconds: 10 to the power of minus nine seconds.
const NANOSECONDS: u8 = 9;
/// What the flags of a packet say of its direction.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A packet to be written.
#[derive(Clone, Copy, Debug)]
pub struct DroppedPacket<'a> {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Index of the interface on which it was met.
    pub ifindex: u32,
    /// That interface's name.
    pub interface: &'a str,
    /// The program that dropped it.
    pub hook: Option<Hook>,
    /// Why.
    pub reason: Option<DropReason>,
    /// The endpoints that it was from or for, as far as that is known.
    pub endpoints: &'a [&'a str],
    /// Its length in bytes, link header included.
    pub length: u32,
    /// As many of them as were captured.
    pub bytes: &'a [u8],
}

impl DroppedPacket<'_> {
    /// Why it was dropped and what to do about it.
    fn comment(&self) -> String {
        let hook = self.hook.map_or("unknown", Hook::name);
        let reason = self.reason.map_or("unknown", DropReason::name);
        let mut comment = format!("dropped for {reason} by {hook} on {}", self.interface);
        match self.endpoints {
            [] => {}
            [one] => comment += &format!(", endpoint {one}"),
            several => comment += &format!(", endpoints {}", several.join(" and ")),
        }
        if let Some(reason) = self.reason {
            comment += &format!("\n{}\n{}", reason.explanation().trim(), reason.remedy());
        }
        comment
    }
}

/// A file under way.
pub struct PacketFile<W> {
    out: W,
    /// A block on its way to the file.
    block: PcapNgWriter<Vec<u8>>,
    /// The number of each interface in the file, and how many of its packets are in there.
    interfaces: HashMap<u32, (u32, u64)>,
    snaplen: u32,
    size: u64,
    packets: u64,
}

impl<W: Write> PacketFile<W> {
    /// Begins a file in which packets have at most so many bytes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(out: W, snaplen: u32) -> io::Result<Self> {
        let application = concat!("vnet ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::native(),
            options: vec![
                SectionHeaderOption::OS(Cow::Borrowed("Linux")),
                SectionHeaderOption::UserApplication(Cow::Borrowed(application)),
            ],
            ..SectionHeaderBlock::default()
        };
        let block = PcapNgWriter::with_section_header(Vec::new(), section).map_err(unwritten)?;
        let mut file = Self { out, block, interfaces: HashMap::new(), snaplen, size: 0, packets: 0 };
        file.put()?;
        Ok(file)
    }

    /// Writes a packet, unless the file would become longer than `most` bytes: then says that it has not.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, packet: &DroppedPacket<'_>, most: Option<u64>) -> io::Result<bool> {
        let next = self.interfaces.len() as u32;
        let known = self.interfaces.get(&packet.ifindex).copied();
        let (interface, packets) = known.unwrap_or((next, 0));
        if known.is_none() {
            let options = vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(packet.interface)),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ];
            let description =
                InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: self.snaplen, options };
            self.block.write_pcapng_block(description).map_err(unwritten)?;
        }
        let outbound = matches!(packet.hook, Some(Hook::ToUplink | Hook::ToBridge | Hook::ToNetwork));
        let block = EnhancedPacketBlock {
            interface_id: interface,
            timestamp: Duration::from_nanos(packet.time),
            original_len: packet.length,
            data: Cow::Borrowed(packet.bytes),
            options: vec![
                EnhancedPacketOption::Comment(Cow::Owned(packet.comment())),
                EnhancedPacketOption::Flags(if outbound { OUTBOUND } else { INBOUND }),
            ],
        };
        self.block.write_pcapng_block(block).map_err(unwritten)?;
        let size = self.size + self.block.get_ref().len() as u64;
        if most.is_some_and(|most| size > most) {
            self.block.get_mut().clear();
            return Ok(false);
        }
        self.put()?;
        self.interfaces.insert(packet.ifindex, (interface, packets + 1));
        self.packets += 1;
        Ok(true)
    }

    /// Hands on what is held back.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// How many packets it has.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Ends it with how many packets of each interface are in there, and with how many packets of any of them were lost.
    /// `time` is in nanoseconds since 1970.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(mut self, time: u64, lost: u64) -> io::Result<()> {
        let lost = format!("{lost} packets were not captured for want of room, of all interfaces together");
        let interfaces: BTreeMap<u32, u64> = self.interfaces.values().copied().collect();
        for (number, packets) in interfaces {
            let statistics = InterfaceStatisticsBlock {
                interface_id: number,
                // The format wants the upper half first, whatever the byte order, and the library writes one number.
                timestamp: if cfg!(target_endian = "little") { time.rotate_left(32) } else { time },
                options: vec![
                    InterfaceStatisticsOption::Comment(Cow::Borrowed(&lost)),
                    InterfaceStatisticsOption::IsbUsrDeliv(packets),
                ],
            };
            self.block.write_pcapng_block(statistics).map_err(unwritten)?;
        }
        self.put()?;
        self.out.flush()
    }

    /// Writes the blocks that are ready.
    fn put(&mut self) -> io::Result<()> {
        let bytes = self.block.get_mut();
        self.out.write_all(bytes)?;
        self.size += bytes.len() as u64;
        bytes.clear();
        Ok(())
    }
}

impl<W> fmt::Debug for PacketFile<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, packets, .. } = self;
        f.debug_struct("PacketFile").field("size", size).field("packets", packets).finish_non_exhaustive()
    }
}

fn unwritten(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    fn packet(bytes: &[u8]) -> DroppedPacket<'_> {
        DroppedPacket {
            time: 1_700_000_000_123_456_789,
            ifindex: 7,
            interface: "eth0",
            hook: Some(Hook::FromUplink),
            reason: Some(DropReason::DirectAccess),
            endpoints: &["web"],
            length: 100,
            bytes,
        }
    }

    fn written(packets: &[DroppedPacket<'_>], most: Option<u64>) -> (Vec<bool>, Vec<u8>) {
        let mut out = Vec::new();
        let mut file = PacketFile::begin(&mut out, 64).unwrap();
        let kept = packets.iter().map(|packet| file.write(packet, most).unwrap()).collect();
        file.end(1_700_000_001_000_000_000, 3).unwrap();
        (kept, out)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let other =
            DroppedPacket { ifindex: 9, interface: "vn-web", hook: Some(Hook::ToBridge), ..packet(&[9; 3]) };
        let (_, file) = written(&[packet(&[1; 60]), other, packet(&[2; 61])], None);
        let mut reader = PcapNgReader::new(&file[..]).unwrap();
        let mut packets = Vec::new();
        let mut names = Vec::new();
        let mut lost = Vec::new();
        while let Some(block) = reader.next_block() {
            match block.unwrap().into_owned() {
                Block::InterfaceDescription(interface) => {
                    assert_eq!((interface.linktype, interface.snaplen), (DataLink::ETHERNET, 64));
                    assert!(interface.options.contains(&InterfaceDescriptionOption::IfTsResol(9)));
                    names.extend(interface.options.into_iter().filter_map(|option| match option {
                        InterfaceDescriptionOption::IfName(name) => Some(name.into_owned()),
                        _ => None,
                    }));
                }
                Block::EnhancedPacket(packet) => packets.push(packet),
                Block::InterfaceStatistics(statistics) => lost.push(statistics.options),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(names, ["eth0", "vn-web"]);
        let of =
            |packet: &EnhancedPacketBlock<'_>| (packet.interface_id, packet.data.len(), packet.original_len);
        assert_eq!(packets.iter().map(of).collect::<Vec<_>>(), [(0, 60, 100), (1, 3, 100), (0, 61, 100)]);
        assert_eq!(packets[0].timestamp, Duration::from_nanos(1_700_000_000_123_456_789));
        let comment = format!(
            "dropped for direct-access by from_uplink on eth0, endpoint web\n{}\n{}",
            DropReason::DirectAccess.explanation().trim(),
            DropReason::DirectAccess.remedy()
        );
        assert!(packets[0].options.contains(&EnhancedPacketOption::Comment(Cow::Owned(comment))));
        assert!(packets[0].options.contains(&EnhancedPacketOption::Flags(INBOUND)));
        assert!(packets[1].options.contains(&EnhancedPacketOption::Flags(OUTBOUND)));
        let counts = |written| {
            let lost = "3 packets were not captured for want of room, of all interfaces together";
            let lost = InterfaceStatisticsOption::Comment(Cow::Borrowed(lost));
            vec![lost, InterfaceStatisticsOption::IsbUsrDeliv(written)]
        };
        assert_eq!(lost, [counts(2), counts(1)]);
    }

    #[test]
    fn a_file_does_not_become_longer_than_it_may() {
        let (_, whole) = written(&[packet(&[1; 60])], None);
        let (kept, none) = written(&[packet(&[1; 60])], Some(100));
        assert_eq!(kept, [false]);
        assert!(none.len() <= 100, "{} bytes", none.len());
        let (kept, one) = written(&[packet(&[1; 60]), packet(&[1; 60])], Some(whole.len() as u64));
        assert_eq!((kept, one.len()), (vec![true, false], whole.len()));
    }
}
