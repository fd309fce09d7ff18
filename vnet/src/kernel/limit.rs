//! How much an endpoint may send or receive: a token bucket filter on one end of its veth pair.
//!
//! What an endpoint sends waits at its own end, where a sending socket notices and slows down before anything is dropped.
//! What it receives waits at the end on the host. The token bucket filter is the only shaper that nearly every kernel
//! has; what is fairer between an endpoint's own connections (fq, fq_codel) could stand behind it.

use netlink_packet_route::tc::TcHandle;

use super::error::Error;
use super::interface::{find, require};
use super::netlink::{Netlink, TokenBucket};
use super::netns::Namespace;
use crate::plan::{Shaper, State};

/// By what vnet's own is known: somebody else's is left alone.
const HANDLE: TcHandle = TcHandle { major: 0x7e7, minor: 0 };

/// How it stands.
pub(super) async fn state(netlink: &Netlink, shaper: &Shaper) -> Result<State, Error> {
    let Some(place) = Place::of(netlink, shaper)? else { return Ok(State::Absent) };
    let netlink = place.netlink();
    let Some(link) = find(netlink, &shaper.interface).await? else { return Ok(State::Absent) };
    let found = netlink.token_bucket(link.index, Some(HANDLE)).await;
    let found = found.map_err(|source| queue_error(shaper, source))?;
    Ok(match found {
        None => State::Absent,
        Some(found) if found.is_like(bucket(shaper)) => State::Present,
        Some(found) => {
            let (rate, burst) = (u64::from(found.rate) * 8, found.burst);
            State::Differs(format!("it is {rate} bit/s with a burst of {burst} bytes"))
        }
    })
}

/// Makes it, or brings it to its description.
pub(super) async fn create(netlink: &Netlink, shaper: &Shaper) -> Result<(), Error> {
    let place = match &shaper.namespace {
        Some(path) => Place::Inside(Namespace::open(path)?.netlink()?),
        None => Place::Host(netlink),
    };
    let netlink = place.netlink();
    let link = require(netlink, &shaper.interface).await?;
    let set = netlink.set_token_bucket(link.index, Some(HANDLE), bucket(shaper)).await;
    set.map_err(|source| queue_error(shaper, source))
}

/// Removes it, if there is one.
pub(super) async fn remove(netlink: &Netlink, shaper: &Shaper) -> Result<(), Error> {
    let Some(place) = Place::of(netlink, shaper)? else { return Ok(()) };
    let netlink = place.netlink();
    let Some(link) = find(netlink, &shaper.interface).await? else { return Ok(()) };
    let failed = |source| queue_error(shaper, source);
    if netlink.token_bucket(link.index, Some(HANDLE)).await.map_err(failed)?.is_some() {
        netlink.remove_token_bucket(link.index, HANDLE).await.map_err(failed)?;
    }
    Ok(())
}

/// Where the interface is.
enum Place<'a> {
    Host(&'a Netlink),
    Inside(Netlink),
}

impl<'a> Place<'a> {
    /// The place of a limit, if there is such a namespace.
    fn of(host: &'a Netlink, shaper: &Shaper) -> Result<Option<Self>, Error> {
        let Some(path) = &shaper.namespace else { return Ok(Some(Self::Host(host))) };
        let namespace = Namespace::open_if_any(path)?;
        namespace.map(|namespace| Ok(Self::Inside(namespace.netlink()?))).transpose()
    }

    fn netlink(&self) -> &Netlink {
        match self {
            Self::Host(netlink) => netlink,
            Self::Inside(netlink) => netlink,
        }
    }
}

fn bucket(shaper: &Shaper) -> TokenBucket {
    TokenBucket { rate: shaper.rate.bytes(), overhead: 0, limit: shaper.queue, burst: shaper.burst }
}

fn queue_error(shaper: &Shaper, source: super::netlink::NetlinkError) -> Error {
    Error::Queue { interface: shaper.interface.clone(), source }
}
