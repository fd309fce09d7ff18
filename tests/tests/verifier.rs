//! Every program passes the verifier, on the kernel at hand, and takes it no more work than it used to.
//!
//! The verifier gives up at a million instructions. How many it looks at depends on every function that is
//! inlined, and grows by jumps: a program well below the limit today may be above it after an innocent change. So
//! the counts are recorded here, and a change that raises one is a change somebody has seen.

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::programs::{Program, ProgramInfo};
use vnet::kernel::{Kernel, OBJECT, RUNNERS};
use vnet_common::features::{CHECKSUM_IPV6, FIB_SOURCE, SET_RETVAL};
use vnet_common::maps;
use vnet_tests::report::report;
use vnet_tests::runner::load;

/// Instructions that the verifier of Linux 6.18 looked at, by program, with all features. Record what
/// `cargo test --test verifier -- --nocapture` prints when a change is worth it.
const RECORDED: [(&str, u32); 17] = [
    ("from_endpoint", 81_091),
    ("from_uplink", 82_671),
    ("from_hold", 13_945),
    ("to_bridge", 13_571),
    ("to_uplink", 70_460),
    ("host_bind4", 8_976),
    ("host_bind6", 11_916),
    ("host_connect4", 9_517),
    ("host_connect6", 9_454),
    ("host_getpeername4", 161),
    ("host_getpeername6", 206),
    ("host_recvmsg4", 161),
    ("host_recvmsg6", 206),
    ("host_sendmsg4", 9_517),
    ("host_sendmsg6", 9_454),
    ("xdp_from_endpoint", 88_435),
    ("xdp_from_uplink", 89_021),
];

/// What a count may grow by before somebody has to look, in percent. Another compiler moves the counts too: what
/// the margin guards against is a change that doubles the work, on the way to the kernel's limit of a million.
const MARGIN: u32 = 50;

/// Maps that are not pinned, because nobody but the programs has any use for them.
const UNPINNED: [&str; 4] = ["fib", "icmp_budget", "quote", "scratch"];

#[test]
fn every_program_passes_within_its_budget() {
    let features = Kernel::features();
    report(format_args!("kernel features {features:#b}"));
    let found = measure(features);
    print(&found);
    let recorded = BTreeMap::from(RECORDED);
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        recorded.keys().collect::<Vec<_>>(),
        "programs of the two objects"
    );
    let over: Vec<String> = found
        .iter()
        .filter(|(name, found)| found.verified > recorded[name.as_str()] * (100 + MARGIN) / 100)
        .map(|(name, found)| format!("{name}: {} instead of {}", found.verified, recorded[name.as_str()]))
        .collect();
    assert!(over.is_empty(), "more than {MARGIN} % above what is recorded: {over:#?}");
}

#[test]
fn every_program_passes_whatever_the_kernel_offers() {
    for features in [0, FIB_SOURCE, CHECKSUM_IPV6, SET_RETVAL, FIB_SOURCE | CHECKSUM_IPV6 | SET_RETVAL] {
        assert_eq!(measure(features).len(), RECORDED.len(), "with features {features:#b}");
    }
}

#[test]
fn the_maps_are_those_of_the_abi() {
    let mut expected: Vec<&str> = maps::ALL.iter().chain(&UNPINNED).copied().collect();
    expected.sort_unstable();
    for (name, object) in [("vnet-ebpf", OBJECT), ("runners", RUNNERS)] {
        let object = load(object, 0);
        // Constants and their like are maps too; aya gives them names with a dot.
        let mut found: Vec<&str> =
            object.maps().map(|(name, _)| name).filter(|name| !name.contains('.')).collect();
        found.sort_unstable();
        if name == "vnet-ebpf" {
            assert_eq!(found, expected, "maps of {name}");
        } else {
            // XDP has no use for those of the host-local hooks.
            assert!(found.iter().all(|map| expected.contains(map)), "maps of {name}: {found:?}");
        }
    }
}

/// What the kernel says of a program.
struct Found {
    verified: u32,
    translated: u32,
    jitted: u32,
}

/// Loads every program of both objects.
fn measure(features: u32) -> BTreeMap<String, Found> {
    let mut found = BTreeMap::new();
    for object in [OBJECT, RUNNERS] {
        let mut object: Ebpf = load(object, features);
        for (name, program) in object.programs_mut() {
            verify(program)
                .unwrap_or_else(|e| panic!("{name}, features {features:#b}: {:#}", anyhow::Error::from(e)));
            let info: ProgramInfo = program.info().expect("what the kernel says of a program");
            let sizes = Found {
                verified: info.verified_instruction_count().expect("Linux 5.16 or newer"),
                translated: info.size_translated().expect("a privileged reader"),
                jitted: info.size_jitted(),
            };
            assert!(sizes.jitted > 0, "{name} is interpreted: net.core.bpf_jit_enable is off");
            found.insert(name.to_owned(), sizes);
        }
    }
    found
}

fn verify(program: &mut Program) -> Result<(), aya::programs::ProgramError> {
    match program {
        Program::SchedClassifier(program) => program.load(),
        Program::Xdp(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        other => panic!("a program of an unexpected kind: {other:?}"),
    }
}

fn print(found: &BTreeMap<String, Found>) {
    report(format_args!("{:<20} {:>10} {:>12} {:>10}", "program", "verified", "translated", "jitted"));
    for (name, Found { verified, translated, jitted }) in found {
        report(format_args!("{name:<20} {verified:>10} {translated:>10} B {jitted:>8} B"));
    }
}
