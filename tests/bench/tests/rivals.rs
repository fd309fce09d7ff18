//! Every rival that is there translates what it claims to: a few bytes and datagrams come through in each case.

use std::path::Path;

use vnet_bench::case::{Case, Kind};
use vnet_bench::rig::Rig;
use vnet_bench::rival::{self, Absent};

#[test]
fn every_rival_reaches_the_server_in_every_case_it_has() {
    let rig = Rig::new(Path::new(env!("CARGO_BIN_EXE_vnet-bench"))).unwrap();
    for rival in rival::all() {
        if let Err(Absent(reason)) = rival.version() {
            eprintln!("{} is not tried: {reason}", rival.name());
            continue;
        }
        let site = rival.set_up();
        for case in Case::ALL.into_iter().filter(|case| rival.lacks(*case).is_none()) {
            for (kind, count) in [(Kind::Rr, 20), (Kind::Crr, 20), (Kind::Udp, 64)] {
                let measured = rig.measure(&site.path(case), kind, count);
                let sample = measured.unwrap_or_else(|e| panic!("{}, {case}, {kind}: {e:#}", rival.name()));
                let lost = sample.details.get("lost_percent");
                assert!(lost.is_none_or(|lost| *lost < 100.0), "{}, {case}: {sample:?}", rival.name());
            }
        }
    }
}
