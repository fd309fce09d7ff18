//! Whether XDP would deliver better: an endpoint reached through vnet's classifiers, the same with vnet's XDP program in
//! front of them, and by an XDP program that sends what the uplink receives straight into the endpoint's veth pair.

use vnet_tests::lab::{Lab, Netns, UPLINK};
use vnet_tests::peer::{Redirect, interface_mac};

use crate::case::{Case, Effort, Kind};
use crate::results::{Quantity, Section, VNET};
use crate::rival::{Path, publish_one};
use crate::run::Run;

/// With vnet's XDP program.
const IN_FRONT: &str = "vnet, XDP in front";
/// The sender sums up and cuts to size itself, and the receiver puts together what came: what an uplink that is a network
/// card has from its wire.
const WIRE: &str = "vnet, as from a wire";
const WIRE_IN_FRONT: &str = "vnet, as from a wire, XDP in front";
/// Without vnet, and as from a wire: it has to be.
const INTO_VETH: &str = "XDP into the veth";

const KINDS: [Kind; 3] = [Kind::Rr, Kind::Crr, Kind::Stream1];

const fn count(kind: Kind, effort: Effort) -> u64 {
    match (kind, effort) {
        (Kind::Rr, Effort::Full) => 10_000,
        (Kind::Crr, Effort::Full) => 2_000,
        _ => kind.count(Effort::Quick),
    }
}

/// Measures all of them in turn.
pub(crate) fn measure(run: &Run<'_>, section: &mut Section) {
    let published = |xdp: &str, wire: bool| {
        let lab = Lab::new();
        lab.vnet_ok(&["up", "--xdp", xdp]);
        if wire {
            compute_checksums(lab.outside());
            put_together(lab.host(), UPLINK);
        }
        publish_one(lab)
    };
    for (name, xdp, wire) in [
        (VNET, "off", false),
        (IN_FRONT, "native", false),
        (WIRE, "off", true),
        (WIRE_IN_FRONT, "native", true),
    ] {
        match run.guarded(|| published(xdp, wire)) {
            Ok(site) => all(run, section, name, &site.path(Case::Published)),
            Err(error) => section.lacks(name, &format!("{error:#}")),
        }
    }
    match run.guarded(Straight::new) {
        Ok(straight) => all(run, section, INTO_VETH, &straight.path()),
        Err(error) => section.lacks(INTO_VETH, &format!("{error:#}")),
    }
}

fn all(run: &Run<'_>, section: &mut Section, name: &str, path: &Path) {
    for kind in KINDS {
        let quantity = Quantity::from(kind);
        let quantity = Quantity { title: format!("into an endpoint: {}", quantity.title), ..quantity };
        let count = count(kind, run.plan.effort);
        run.note(section, &quantity, name, || run.rig.measure(path, kind, count));
    }
}

/// Has an interface be polled, as a network card is, and put segments together.
fn put_together(netns: &Netns, interface: &str) {
    netns.run(&["ethtool", "-K", interface, "gro", "on"]).ok();
}

/// Has a namespace sum up what it sends itself: what XDP redirects has lost that it was to be done.
fn compute_checksums(netns: &Netns) {
    netns.run(&["ethtool", "-K", UPLINK, "tx", "off"]).ok();
}

/// An endpoint behind an uplink whose XDP program sends it all there is; what it sends is routed.
struct Straight {
    // Dropped in this order.
    _redirect: Redirect,
    endpoint: Made,
    lab: Lab,
}

/// A namespace that goes with this.
struct Made(Netns);

impl Drop for Made {
    fn drop(&mut self) {
        self.0.delete();
    }
}

impl Straight {
    const ADDR: &str = "10.77.0.2";

    fn new() -> Self {
        let lab = Lab::new();
        let endpoint = Made(Netns::named(&lab.name("straight")));
        endpoint.0.create();
        let host = lab.host();
        host.ip(&format!("link add near type veth peer name eth0 netns {}", endpoint.0.name()));
        host.ip("addr add 10.77.0.1/24 dev near");
        host.ip("link set near up");
        host.write("/proc/sys/net/ipv4/ip_forward", "1");
        endpoint.0.ip(&format!("addr add {}/24 dev eth0", Self::ADDR));
        endpoint.0.ip("link set eth0 up");
        endpoint.0.ip("route add default via 10.77.0.1");
        // Polled, or nothing can be redirected into it.
        put_together(&endpoint.0, "eth0");
        // Nothing answers for it out there: all that arrives goes to the endpoint, as it is.
        let (mac, outside) = (interface_mac(&endpoint.0, "eth0"), lab.outside());
        outside.ip(&format!("route add {} dev {UPLINK}", Self::ADDR));
        outside.ip(&format!("neigh add {} lladdr {mac} dev {UPLINK}", Self::ADDR));
        host.ip(&format!(
            "neigh add {} lladdr {} dev {UPLINK}",
            vnet_tests::lab::OUTSIDE_V4,
            interface_mac(outside, UPLINK)
        ));
        compute_checksums(outside);
        Self { _redirect: Redirect::all(host, UPLINK, "near"), endpoint, lab }
    }

    fn path(&self) -> Path {
        Path {
            client: self.lab.outside().clone(),
            dials: (Self::ADDR.parse::<std::net::IpAddr>().expect("an address"), 80).into(),
            server: self.endpoint.0.clone(),
            port: 80,
        }
    }
}
