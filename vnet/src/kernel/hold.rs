//! Where fragments wait for the first of their datagram: a veth pair of the host whose one end sends slowly, and whose
//! other end has a program that sends them round once more, or back to where they came from.
//!
//! One token bucket filter, the only queueing discipline beside a plain queue that nearly every kernel has, bounds all
//! there is to bound:
//!
//! - **memory**, by its limit of half a mebibyte;
//! - **work**, by its rate: each fragment is charged 64 KiB beside its own length, so that the rate counts fragments
//!   and not bytes: two thousand rounds in a second, of which two may follow each other at once;
//! - **time**, together with the program, which lets nothing go round any more after 201 ms. A single fragment comes by
//!   every half millisecond. The 256 that an interface may have here at once come by every 128 ms, so that each is
//!   looked at again before its time is over.

use netlink_packet_route::link::LinkAttribute;

use super::error::Error;
use super::interface::{change_error, find, remove_link, require, taken};
use super::netlink::{Link, Netlink, TokenBucket};
use super::sysctl::Setting;
use crate::plan::State;

const KIND: &str = "veth";

/// Any IP packet fits.
const MTU: u32 = 65_535;

/// What bounds the fragments that wait.
const BUCKET: TokenBucket = TokenBucket {
    // Two thousand times the charge of one.
    rate: 134_000_000,
    overhead: u16::MAX,
    limit: 512 * 1024,
    // The least with which the largest frame can be sent at all.
    burst: 65_600,
};

/// A pair as it is to be.
pub(super) struct Hold<'a> {
    pub(super) entrance: &'a str,
    pub(super) exit: &'a str,
}

/// Whether the kernel has the queueing discipline.
pub(super) async fn is_possible(netlink: &Netlink) -> Result<bool, Error> {
    let known = netlink.has_token_bucket().await;
    known.map_err(|source| Error::Queue { interface: "lo".to_owned(), source })
}

impl Hold<'_> {
    /// How it stands.
    pub(super) async fn state(&self, netlink: &Netlink) -> Result<State, Error> {
        let Some(entrance) = find(netlink, self.entrance).await? else { return Ok(State::Absent) };
        if !entrance.is(KIND) {
            let description = entrance.description();
            return Ok(State::Differs(format!("{} is a {description}, not a veth", self.entrance)));
        }
        let Some(exit) = self.other_end(netlink, &entrance).await? else {
            return Ok(State::Differs(format!("the other end of {} is not {}", self.entrance, self.exit)));
        };
        if let Some(end) = [&entrance, &exit].into_iter().find(|end| !end.up || end.mtu != MTU) {
            return Ok(State::Differs(format!("{} is down, or its mtu is not {MTU}", end.name)));
        }
        let found = netlink.token_bucket(entrance.index, None).await;
        let found = found.map_err(|source| self.queue_error(source))?;
        Ok(if found.is_some_and(|found| found.is_like(BUCKET)) {
            State::Present
        } else {
            State::Differs(format!("{} has another queueing discipline", self.entrance))
        })
    }

    /// Makes it, or brings it to its description.
    pub(super) async fn create(&self, netlink: &Netlink) -> Result<(), Error> {
        let (entrance, exit) = self.pair(netlink).await?;
        // Nothing but fragments is to be there: no addresses, and no looking for neighbours.
        for name in [self.entrance, self.exit] {
            Setting::v6(name, "disable_ipv6", "1").apply()?;
        }
        let queued = netlink.set_token_bucket(entrance.index, None, BUCKET).await;
        queued.map_err(|source| self.queue_error(source))?;
        for end in [&entrance, &exit] {
            let up = netlink.set_up(end.index, vec![LinkAttribute::Mtu(MTU)]).await;
            up.map_err(|source| change_error(&end.name, "the host", source))?;
        }
        Ok(())
    }

    /// Removes it.
    pub(super) async fn remove(&self, netlink: &Netlink) -> Result<(), Error> {
        remove_link(netlink, self.entrance, KIND).await
    }

    /// Both ends, made if they are not there. A pair whose other end was renamed or moved is made anew.
    async fn pair(&self, netlink: &Netlink) -> Result<(Link, Link), Error> {
        if let Some(entrance) = find(netlink, self.entrance).await? {
            if !entrance.is(KIND) {
                return Err(taken(self.entrance, &entrance, KIND));
            }
            if let Some(exit) = self.other_end(netlink, &entrance).await? {
                return Ok((entrance, exit));
            }
            self.remove(netlink).await?;
        }
        let made = netlink.create_pair(self.entrance, self.exit).await;
        made.map_err(|source| Error::MakeInterface { interface: self.entrance.to_owned(), source })?;
        Ok((require(netlink, self.entrance).await?, require(netlink, self.exit).await?))
    }

    async fn other_end(&self, netlink: &Netlink, entrance: &Link) -> Result<Option<Link>, Error> {
        let exit = find(netlink, self.exit).await?;
        Ok(exit.filter(|exit| exit.is(KIND) && exit.other_end == Some(entrance.index)))
    }

    fn queue_error(&self, source: super::netlink::NetlinkError) -> Error {
        Error::Queue { interface: self.entrance.to_owned(), source }
    }
}
