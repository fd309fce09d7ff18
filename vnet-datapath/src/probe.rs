//! What [`Tables`] asks of the kernel itself, as plain data: so that the questions of a packet that is only described
//! can be put to the kernel by the very code that asks them for real packets.

use bytemuck::{Pod, Zeroable};
use vnet_common::{Addr, Tuple};

use crate::tables::{NextHop, Route, RouteQuery, Source, Tables};

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Question {
    /// The packet's tuple. Of [`Self::OWNS`] its destination alone matters.
    pub tuple: Tuple,
    /// The interface on which the host's stack sees it arrive. Does not matter to [`Self::SOCKET`].
    pub arrived: u32,
    /// [`RouteQuery::length`].
    pub length: u16,
    /// One of the constants.
    pub kind: u8,
    /// Zero.
    pub reserved: u8,
}

impl Question {
    /// [`Tables::route`], with the source address that the host would choose.
    pub const ROUTE: u8 = 1;
    /// [`Tables::owns`].
    pub const OWNS: u8 = 2;
    /// [`Tables::host_socket`].
    pub const SOCKET: u8 = 3;
}

/// What the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Response {
    /// [`NextHop::addr`].
    pub next_hop: Addr,
    /// The source address that the host would choose.
    pub source: Addr,
    /// [`NextHop::ifindex`].
    pub ifindex: u32,
    /// 1 for yes, or [`Route::Via`]; 0 for no, or [`Route::Stack`].
    pub yes: u32,
}

impl Response {
    /// The answer to [`Question::ROUTE`].
    #[must_use]
    #[inline(always)]
    pub const fn route(&self) -> Route {
        if self.yes == 0 {
            return Route::Stack;
        }
        Route::Via(NextHop { ifindex: self.ifindex, addr: self.next_hop }, self.source)
    }
}

/// Asks a question; whoever has written another one than these is told no.
#[inline(always)]
pub fn ask<T: Tables>(tables: &T, question: &Question, response: &mut Response) {
    let Question { tuple, arrived, length, kind, reserved: _ } = question;
    response.yes = match *kind {
        Question::ROUTE => {
            let query = RouteQuery { tuple, length: *length, bridge: *arrived, source: Source::Wanted };
            match tables.route(&query) {
                Route::Via(next_hop, source) => {
                    response.ifindex = next_hop.ifindex;
                    response.next_hop = next_hop.addr;
                    response.source = source;
                    1
                }
                Route::Stack => 0,
            }
        }
        Question::OWNS => tables.owns(&tuple.dst, *arrived) as u32,
        Question::SOCKET => tables.host_socket(tuple) as u32,
        _ => 0,
    };
}
