//! Two namespaces joined by one veth pair: made by one request, in its final places and under its final names. All after
//! that can be done again, so a creation that was killed is finished by the next one.

use ipnet::IpNet;
use netlink_packet_route::link::LinkAttribute;

use super::error::Error;
use super::interface::{addresses, change_error, find, remove_link};
use super::netlink::{Link, Netlink, OtherEnd};
use super::netns::Namespace;
use super::sysctl::Setting;
use crate::plan::{Direct, DirectEnd, State};

const KIND: &str = "veth";

/// An end of the pair, looked for in its namespace.
struct Found {
    namespace: Namespace,
    inside: Netlink,
    link: Option<Link>,
}

async fn look(end: &DirectEnd, namespace: Namespace) -> Result<Found, Error> {
    let inside = namespace.netlink()?;
    let link = find(&inside, &end.ifname).await?;
    Ok(Found { namespace, inside, link })
}

/// Whether two interfaces are the ends of one pair.
fn are_joined(a: &Link, b: &Link) -> bool {
    a.is(KIND) && b.is(KIND) && a.other_end == Some(b.index) && b.other_end == Some(a.index)
}

/// How a pair stands.
pub(super) async fn state(direct: &Direct) -> Result<State, Error> {
    let mut found = Vec::new();
    for end in &direct.ends {
        let Some(namespace) = Namespace::open_if_any(&end.namespace)? else { return Ok(State::Absent) };
        found.push(look(end, namespace).await?);
    }
    let (a, b) = match (&found[0].link, &found[1].link) {
        (Some(a), Some(b)) => (a, b),
        (None, None) => return Ok(State::Absent),
        _ => return Ok(State::Differs("one of its ends is not where it should be".to_owned())),
    };
    if !are_joined(a, b) {
        return Ok(State::Differs("the interfaces of these names are not joined".to_owned()));
    }
    for ((end, link), found) in direct.ends.iter().zip([a, b]).zip(&found) {
        let present = addresses(&found.inside, link)?;
        if let Some(difference) = difference(end, direct.mtu, link, &present) {
            return Ok(State::Differs(difference));
        }
    }
    Ok(State::Present)
}

fn difference(end: &DirectEnd, mtu: u32, link: &Link, present: &[IpNet]) -> Option<String> {
    let place = end.namespace.display();
    if link.mac != Some(end.mac) {
        return Some(format!("{} in {place} has not the hardware address {}", end.ifname, end.mac));
    }
    if link.mtu != mtu {
        return Some(format!("mtu of {} in {place} is {}, not {mtu}", end.ifname, link.mtu));
    }
    if !link.up {
        return Some(format!("{} in {place} is down", end.ifname));
    }
    let missing = end.addresses.iter().find(|wanted| !present.contains(wanted));
    missing.map(|missing| format!("{} in {place} has not the address {missing}", end.ifname))
}

/// Makes the pair, or brings it to its description.
pub(super) async fn create(direct: &Direct) -> Result<(), Error> {
    let [a, b] = &direct.ends;
    let mut first = look(a, Namespace::open(&a.namespace)?).await?;
    let mut second = look(b, Namespace::open(&b.namespace)?).await?;
    let joined = first.link.as_ref().zip(second.link.as_ref()).is_some_and(|(a, b)| are_joined(a, b));
    if !joined {
        for (end, found) in [(a, &first), (b, &second)] {
            if let Some(link) = &found.link {
                return Err(Error::NameInNamespaceTaken {
                    interface: end.ifname.clone(),
                    kind: link.description().to_owned(),
                    namespace: end.namespace.clone(),
                });
            }
        }
        let other = OtherEnd { name: &b.ifname, mac: b.mac, namespace: second.namespace.as_raw_fd() };
        let made = first.inside.create_joined((&a.ifname, a.mac), direct.mtu, &other).await;
        made.map_err(|source| Error::MakeInterface { interface: a.ifname.clone(), source })?;
        first = look(a, first.namespace).await?;
        second = look(b, second.namespace).await?;
    }
    configure(a, direct.mtu, &first).await?;
    configure(b, direct.mtu, &second).await
}

async fn configure(end: &DirectEnd, mtu: u32, found: &Found) -> Result<(), Error> {
    let Some(link) = &found.link else {
        return Err(Error::NoInterface { interface: end.ifname.clone() });
    };
    let has_v6 = end.addresses.iter().any(|net| net.addr().is_ipv6());
    let off = Setting::v6(&end.ifname, "disable_ipv6", if has_v6 { "0" } else { "1" });
    let no_router = Setting::v6(&end.ifname, "accept_ra", "0");
    found.namespace.within(|| no_router.apply().and_then(|()| off.apply()))?;
    let failed =
        |address: IpNet| move |source| Error::Address { address, interface: end.ifname.clone(), source };
    let present = addresses(&found.inside, link)?;
    for address in present.iter().filter(|address| !end.addresses.contains(address)) {
        found.inside.delete_address(link.index, *address).await.map_err(failed(*address))?;
    }
    for address in &end.addresses {
        found.inside.add_address(link.index, *address).await.map_err(failed(*address))?;
    }
    let mut attributes = vec![LinkAttribute::Mtu(mtu)];
    if link.mac != Some(end.mac) {
        attributes.push(LinkAttribute::Address(end.mac.bytes.to_vec()));
    }
    let up = found.inside.set_up(link.index, attributes).await;
    up.map_err(|source| change_error(&end.ifname, &end.namespace.display().to_string(), source))
}

/// Removes the pair; with one end goes the other, and with a namespace its end. What has the name of an end and is
/// another interface stays.
pub(super) async fn remove(direct: &Direct) -> Result<(), Error> {
    for end in &direct.ends {
        let Some(namespace) = Namespace::open_if_any(&end.namespace)? else { continue };
        let found = look(end, namespace).await?;
        if found.link.is_some_and(|link| link.is(KIND) && link.mac == Some(end.mac)) {
            remove_link(&found.inside, &end.ifname, KIND).await?;
        }
    }
    Ok(())
}
