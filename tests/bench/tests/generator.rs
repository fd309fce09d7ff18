//! The load generator on a veth pair: every kind is measured and answers are plausible. How fast is not looked at.

use std::path::Path;

use vnet_bench::case::Case;
use vnet_bench::case::Kind;
use vnet_bench::generator::Sample;
use vnet_bench::rig::Rig;
use vnet_bench::rival;

/// A few hundred of whatever the kind counts.
fn few(kind: Kind) -> u64 {
    match kind {
        Kind::Stream1 | Kind::Stream8 => 64,
        Kind::Udp => 640,
        Kind::Ladder => 20,
        Kind::Rr | Kind::Crr => 300,
    }
}

#[test]
fn every_kind_of_load_is_measured_on_a_veth_pair() {
    let rivals = rival::all();
    let veth = rivals.iter().find(|rival| rival.name() == "veth").unwrap();
    let site = veth.set_up();
    let rig = Rig::new(Path::new(env!("CARGO_BIN_EXE_vnet-bench"))).unwrap();
    for kind in Kind::ALL {
        let Sample { value, latency, details } =
            rig.measure(&site.path(Case::Published), kind, few(kind)).unwrap();
        assert!(value > 0.0, "{kind}: {value}");
        if let Some(it) = latency {
            assert!(it.p50 <= it.p90 && it.p90 <= it.p99 && it.p99 <= it.p999, "{kind}: {it:?}");
        }
        assert_eq!(latency.is_some(), kind.shares_cpu(), "{kind}: only dialogues have latencies");
        if kind == Kind::Udp {
            assert_eq!(
                details["lost_percent"], 0.0,
                "so few datagrams fit the receiver's queue: {details:?}"
            );
        }
    }
}
