//! nftables with a flowtable: packets of flows that both sides have confirmed go from one interface's ingress to the
//! other's egress, translated, past the rest of the host's stack.

use vnet_tests::lab::{Lab, UPLINK};

use super::bridged::{Bridged, ENDPOINTS};
use super::nftables::{Nftables, ruleset};
use super::{Absent, PUBLISHED, Rival, Site, TARGET_PORT};
use crate::case::Case;

/// What hands a flow to the table, once there is an answer.
const OFFLOAD: &str = "meta l4proto { tcp, udp } ct state established flow add @fast";

#[derive(Debug)]
pub(super) struct Flowtable;

impl Rival for Flowtable {
    fn name(&self) -> &'static str {
        "flowtable"
    }

    fn what(&self) -> &'static str {
        "as nftables, with established flows in a flowtable between the uplink and the endpoints' interfaces"
    }

    fn version(&self) -> Result<String, Absent> {
        let version = Nftables.version()?;
        // Only the kernel itself can tell, and the rules have to be somewhere for that.
        let lab = Lab::new();
        let host = lab.host().run(&["nft", "--check", &rules(&[UPLINK])]);
        if host.status == Some(0) {
            return Ok(version);
        }
        let said = host.stderr.lines().next().unwrap_or_default().trim();
        Err(Absent(format!(
            "the kernel refuses a flowtable (CONFIG_NF_FLOW_TABLE, CONFIG_NF_FLOW_TABLE_INET, CONFIG_NFT_FLOW_OFFLOAD): \
             {said}"
        )))
    }

    fn lacks(&self, case: Case) -> Option<&'static str> {
        match case {
            Case::HostLocal => Some("what the host itself sends is not forwarded; see nftables"),
            Case::Direct => Some("what a bridge passes on is not forwarded; see nftables"),
            _ => None,
        }
    }

    fn set_up(&self) -> Box<dyn Site> {
        let host = Bridged::new();
        let [net1, net2] = ENDPOINTS.map(|(name, _)| name);
        host.lab.host().run(&["nft", &rules(&[UPLINK, net1, net2])]).ok();
        Box::new(host)
    }
}

/// Those of nftables, and a table of flows between some interfaces.
fn rules(interfaces: &[&str]) -> String {
    let rules = ruleset([(PUBLISHED, TARGET_PORT)], OFFLOAD);
    let table = format!(
        "table ip nat {{
            flowtable fast {{
                hook ingress priority 0
                devices = {{ {} }}
            }}",
        interfaces.join(", ")
    );
    rules.replacen("table ip nat {", &table, 1)
}
