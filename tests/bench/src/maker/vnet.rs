//! vnet, by two commands.

use std::time::Duration;

use vnet_tests::lab::{Lab, vnet_binary};

use super::{Host, Maker, published};
use crate::results::VNET;
use crate::rival::{Absent, TARGET_PORT, timed, version_of};

#[derive(Debug)]
pub(super) struct Vnet;

impl Maker for Vnet {
    fn name(&self) -> &'static str {
        VNET
    }

    fn what(&self) -> &'static str {
        "`ns create`, which makes the namespace, too, and `portmap add`; `portmap rm` and `ns rm`"
    }

    fn version(&self) -> Result<String, Absent> {
        version_of(&vnet_binary())
    }

    fn set_up(&self) -> Box<dyn Host> {
        Box::new(Up(Lab::up()))
    }
}

#[derive(Debug)]
struct Up(Lab);

impl Host for Up {
    fn create(&self, number: u16) -> Duration {
        let (netns, port) = (self.netns(number), published(number).to_string());
        let name = netns.name();
        let target = format!("{name}:{TARGET_PORT}");
        timed(|| {
            self.0.vnet_ok(&["ns", "create", name]);
            self.0.vnet_ok(&["portmap", "add", &port, &target]);
        })
    }

    fn remove(&self, number: u16) -> Duration {
        let (netns, port) = (self.netns(number), published(number).to_string());
        let name = netns.name();
        timed(|| {
            self.0.vnet_ok(&["portmap", "rm", &port]);
            self.0.vnet_ok(&["ns", "rm", name]);
        })
    }

    fn lab(&self) -> &Lab {
        &self.0
    }
}
