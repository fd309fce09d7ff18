//! Every program passes the verifier, on the kernel at hand, and takes it no more work than it used to.
//!
//! The verifier gives up at a million instructions. How many it looks at depends on every function that is
//! inlined, and grows by jumps: a program well below the limit today may be above it after an innocent change. So
//! the counts are recorded here, and a change that raises one is a change somebody has seen.

use std::collections::{BTreeMap, BTreeSet};

use aya::Ebpf;
use aya::programs::{Program, ProgramInfo};
use aya_obj::generated::bpf_insn;
use vnet::kernel::{Kernel, OBJECT, RUNNERS};
use vnet_common::features::{CHECKSUM_IPV6, FIB_SOURCE, SET_RETVAL};
use vnet_common::maps;
use vnet_tests::report::report;
use vnet_tests::runner::load;

/// Instructions that the verifier of Linux 6.18 looked at, by program, with all features. Record what
/// `cargo test --test verifier -- --nocapture` prints when a change is worth it.
const RECORDED: [(&str, u32); 20] = [
    ("from_endpoint", 69_402),
    ("from_uplink", 69_499),
    ("from_hold", 31_871),
    ("to_bridge", 32_498),
    ("to_network", 33_017),
    ("to_uplink", 63_064),
    ("shape", 12_275),
    ("host_bind4", 4_194),
    ("host_bind6", 8_452),
    ("host_connect4", 4_729),
    ("host_connect6", 4_893),
    ("host_getpeername4", 55),
    ("host_getpeername6", 112),
    ("host_recvmsg4", 55),
    ("host_recvmsg6", 112),
    ("host_sendmsg4", 4_729),
    ("host_sendmsg6", 4_893),
    ("xdp_uplink", 36_959),
    ("xdp_from_endpoint", 57_890),
    ("xdp_from_uplink", 57_828),
];

/// What a count may grow by before somebody has to look, in percent. Another compiler moves the counts too: what
/// the margin guards against is a change that doubles the work, on the way to the kernel's limit of a million.
const MARGIN: u32 = 50;

/// What any program may take on other kernels: the verifier of Linux 6.1 looks at up to ten times as much.
const ELSEWHERE: u32 = 500_000;

/// Bytes of stack that a program and all the functions that are under way have together.
const STACK: u32 = 512;

/// What each function's part is rounded up to: since Linux 6.8 to 16 bytes where programs are compiled, before to this.
const STACK_UNIT: u32 = 32;

/// Maps that are not pinned, because nobody but the programs has any use for them.
const UNPINNED: [&str; 8] =
    ["ending", "fib", "flood_total", "icmp_budget", "log_ended", "quote", "scratch", "ways"];

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
    let here = runs_linux("6.18.");
    let allowed = |name: &str| if here { recorded[name] * (100 + MARGIN) / 100 } else { ELSEWHERE };
    let over: Vec<String> = found
        .iter()
        .filter(|(name, found)| found.verified > allowed(name))
        .map(|(name, found)| format!("{name}: {} instead of {}", found.verified, recorded[name.as_str()]))
        .collect();
    assert!(over.is_empty(), "more than {MARGIN} % above what is recorded, or above {ELSEWHERE}: {over:#?}");
}

fn runs_linux(version: &str) -> bool {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's version").starts_with(version)
}

/// A newer kernel would not notice.
#[test]
fn every_program_fits_the_stack_of_older_kernels() {
    for object in [OBJECT, RUNNERS] {
        let mut object = aya_obj::Object::parse(object).expect("an object");
        let sections = object.functions.keys().map(|(section, _)| *section).collect();
        object.relocate_calls(&sections).expect("functions and who calls them");
        for (name, program) in &object.programs {
            let way = deepest(&object.functions[&program.function_key()].instructions);
            report(format_args!("{name:<20} {way:?}"));
            let taken = taken(&way);
            assert!(
                taken <= STACK,
                "{name}: {taken} bytes of stack in functions that call each other: {way:?}"
            );
        }
    }
}

/// The bytes of stack of each of the functions, calling each other, that take most together. The first function is the
/// program; none calls itself, even by others.
fn deepest(program: &[bpf_insn]) -> Vec<u32> {
    const CALL: u8 = 0x85;
    const LOCAL: u8 = 1;
    let called = |(at, instruction): (usize, &bpf_insn)| {
        let local = instruction.code == CALL && instruction.src_reg() == LOCAL;
        local.then(|| at.checked_add_signed(instruction.imm as isize + 1).expect("a function"))
    };
    let mut starts: BTreeSet<usize> = program.iter().enumerate().filter_map(called).collect();
    starts.insert(0);
    // By where they start, what they take and whom they call.
    let mut functions: BTreeMap<usize, (u32, BTreeSet<usize>)> = BTreeMap::new();
    for &start in &starts {
        let end = starts.range(start + 1..).next().copied().unwrap_or(program.len());
        let calls = (start..end).filter_map(|at| called((at, &program[at]))).collect();
        functions.insert(start, (depth(&program[start..end]), calls));
    }
    way_down(&functions, 0)
}

fn way_down(functions: &BTreeMap<usize, (u32, BTreeSet<usize>)>, from: usize) -> Vec<u32> {
    let (depth, calls) = &functions[&from];
    let below = calls.iter().map(|&callee| way_down(functions, callee)).max_by_key(|way| taken(way));
    [vec![*depth], below.unwrap_or_default()].concat()
}

fn taken(way: &[u32]) -> u32 {
    way.iter().map(|depth| depth.max(&1).next_multiple_of(STACK_UNIT)).sum()
}

/// How far below the frame pointer a function's instructions reach.
fn depth(function: &[bpf_insn]) -> u32 {
    const FRAME: u8 = 10;
    const MOVE: u8 = 0xbf;
    const ADD: u8 = 0x07;
    let mut lowest = 0;
    let mut copies = BTreeSet::new();
    for instruction in function {
        let (to, from) = (instruction.dst_reg(), instruction.src_reg());
        match (instruction.code & 0x07, instruction.code) {
            // Loads, and both kinds of stores.
            (0x01, _) if from == FRAME => lowest = lowest.min(i32::from(instruction.off)),
            (0x02 | 0x03, _) if to == FRAME => lowest = lowest.min(i32::from(instruction.off)),
            (_, MOVE) if from == FRAME => _ = copies.insert(to),
            (_, ADD) if copies.remove(&to) => lowest = lowest.min(instruction.imm),
            (0x01 | 0x04 | 0x07, _) => _ = copies.remove(&to),
            _ => {}
        }
    }
    lowest.unsigned_abs()
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
