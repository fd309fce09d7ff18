//! The target `parse`.

use bytemuck::Zeroable;
use vnet_common::{Hook, Tuple};
use vnet_datapath::buffer::Buffer;
use vnet_datapath::{Parsed, Place, Scratch, answer, parse as read, pipeline};

use crate::input::Input;
use crate::packet::{NETWORK, sums};
use crate::world::{ENDPOINT_ZONES, HOLD, STRAY, UPLINK, World, bridge_of, ifindex_of};

/// Any bytes: they can be parsed or not, what is said of them is within them, and every hook comes to a verdict, after
/// which nothing has changed unless the frame goes on.
///
/// The input is one byte that says what the frame is (bit 0: it carries a tag beside its bytes, bit 1: it stands for
/// several segments), the options of a world, and the frame.
///
/// # Panics
/// When one of that does not hold.
pub fn parse(data: &[u8]) {
    let input = &mut Input::new(data);
    let kind = input.byte();
    let world = World::choose(input);
    let segment = if kind & 2 == 0 { 0 } else { 1 + u32::from(input.byte()) };
    let frame = input.rest();
    let tagged = kind & 1 != 0;
    let dressed = Buffer { bytes: frame.to_vec(), segment, tagged };
    let mut tuple = Tuple::zeroed();
    let parsed = read(&dressed, &mut bytemuck::Zeroable::zeroed(), &mut tuple);
    if let Ok(Parsed::Ip(headers)) = parsed {
        assert!(!tagged, "a tag is not for vnet");
        let length = headers.length as usize;
        assert!(NETWORK + length <= frame.len(), "{headers:?} of {} bytes", frame.len());
        assert!(segment != 0 || usize::from(headers.wire_length) == length, "{headers:?}");
        assert_eq!((tuple.src.is_v4(), tuple.dst.is_v4()), (headers.is_v4(), headers.is_v4()), "{tuple:?}");
        assert!(
            !headers.is_translatable() || headers.l4_offset as usize + 8 <= NETWORK + length,
            "{headers:?} has no room for its transport header"
        );
    }
    let scratch = &mut Scratch::zeroed();
    for (hook, ifindex, arrived) in [
        (Hook::FromEndpoint, ifindex_of(0), 0),
        (Hook::FromUplink, UPLINK, 0),
        (Hook::ToUplink, UPLINK, bridge_of(ENDPOINT_ZONES[0])),
        (Hook::ToBridge, bridge_of(ENDPOINT_ZONES[0]), STRAY),
        (Hook::FromHold, HOLD, UPLINK),
    ] {
        let mut packet = dressed.clone();
        let place = Place { ifindex, arrived, waited: 0 };
        let verdict = pipeline::run(&mut packet, &world.model, scratch, (hook, place));
        let unchanged = packet.bytes == frame;
        assert!(verdict.is_ok() || unchanged, "{hook:?}: {verdict:?}, but the frame has changed");
        assert!(parsed.is_ok() || unchanged, "{hook:?}: {parsed:?}, but the frame has changed");
        if verdict.is_err() && scratch.answering.is_wanted() && answer::build(&mut packet, scratch).is_some()
        {
            let sums = sums(&packet.bytes);
            assert!(sums.network && sums.transport, "{hook:?}: a wrong sum in {:x?}", packet.bytes);
        }
    }
}
