//! Who makes endpoints with a published port, and takes them away again: what the time for that is compared with.
//!
//! As with rivals, only one stands at a time, each on a host of its own, and nothing is left of it when it is dropped.

mod cni;
mod given;
mod netavark;
mod vnet;

use std::fmt::Debug;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use vnet_tests::lab::{HOST_V4, Lab, Netns};

use crate::rival::{Absent, TARGET_PORT};

/// How long a connection through a published port may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// One who makes endpoints.
pub(crate) trait Maker: Debug {
    /// As in the results.
    fn name(&self) -> &'static str;

    /// What it does, in a sentence.
    fn what(&self) -> &'static str;

    /// What of it is measured.
    ///
    /// # Errors
    /// Why it cannot be.
    fn version(&self) -> Result<String, Absent>;

    /// Makes a host of its own, with no endpoint yet.
    ///
    /// # Panics
    /// As everything of the lab does, with what went wrong.
    fn set_up(&self) -> Box<dyn Host>;
}

/// A host on which endpoints are made. They are numbered from 1 on.
pub(crate) trait Host: Debug {
    /// Makes an endpoint and publishes one of its ports; what that took.
    fn create(&self, number: u16) -> Duration;

    /// Takes both away; what that took.
    fn remove(&self, number: u16) -> Duration;

    /// Where it is.
    fn lab(&self) -> &Lab;

    /// The endpoint's namespace.
    fn netns(&self, number: u16) -> Netns {
        Netns::named(&self.lab().name(&format!("e{number}")))
    }
}

/// Everybody, vnet first.
pub(crate) fn all() -> Vec<Box<dyn Maker>> {
    vec![Box::new(vnet::Vnet), Box::new(cni::Cni), Box::new(netavark::Netavark)]
}

/// The port of the host that leads to an endpoint.
const fn published(number: u16) -> u16 {
    10_000 + number
}

/// Sees that an endpoint that is there can be reached by its published port: what is not done is not quick.
///
/// # Panics
/// When it cannot.
pub(crate) fn check_reachable(host: &dyn Host, number: u16) {
    let target = SocketAddr::new([0, 0, 0, 0].into(), TARGET_PORT);
    let listener = host.netns(number).enter(|| TcpListener::bind(target).expect("listen in the endpoint"));
    let dialled = SocketAddr::new(HOST_V4, published(number));
    host.lab().outside().enter(|| {
        let connected = TcpStream::connect_timeout(&dialled, PATIENCE);
        connected.unwrap_or_else(|e| panic!("endpoint {number} is not reached by {dialled}: {e}"));
    });
    drop(listener);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_reached_and_gone_afterwards() {
        for maker in all() {
            if let Err(Absent(reason)) = maker.version() {
                eprintln!("{} is not tried: {reason}", maker.name());
                continue;
            }
            let host = maker.set_up();
            for number in 1..=2 {
                assert!(!host.create(number).is_zero());
                check_reachable(host.as_ref(), number);
            }
            for number in [2, 1] {
                host.remove(number);
                assert!(!host.netns(number).exists(), "{} leaves endpoint {number}", maker.name());
            }
        }
    }
}
