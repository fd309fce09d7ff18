//! The packet table: what becomes of a packet, in one sentence each, on the host, as a TC classifier and as an XDP
//! program.

mod exposure_modes;
mod fragments;
mod guard;
mod hairpin;
mod icmp;
mod lifetime;
mod malformed;
mod mappings;
mod masquerade;
mod neighbours;
mod published;
mod quota;
mod stack;
mod unbridged;

use std::panic::{AssertUnwindSafe, catch_unwind};

use vnet_tests::case::world::{FAMILIES, Family};
use vnet_tests::case::{Case, Failure};
use vnet_tests::report::report;
use vnet_tests::runner::{Host, Kernel, Runner, Stage, Way};

/// Every case, by subject.
fn table() -> Vec<Case> {
    let subjects: [fn() -> Vec<Case>; 14] = [
        masquerade::cases,
        published::cases,
        hairpin::cases,
        neighbours::cases,
        stack::cases,
        icmp::cases,
        lifetime::cases,
        malformed::cases,
        guard::cases,
        mappings::cases,
        quota::cases,
        exposure_modes::cases,
        fragments::cases,
        unbridged::cases,
    ];
    subjects.iter().flat_map(|subject| subject()).collect()
}

/// The same cases for both families.
fn for_both_families(cases: impl Fn(&Family) -> Vec<Case>) -> Vec<Case> {
    FAMILIES.iter().flat_map(|family| cases(family).into_iter().map(|case| case.of_family(family))).collect()
}

#[test]
fn the_packet_table_holds_on_the_host() {
    run(&mut Host::default());
}

#[test]
fn the_packet_table_holds_under_tc() {
    Stage::run(|stage| run(&mut Kernel::tc(stage)));
}

#[test]
fn the_packet_table_holds_under_xdp() {
    Stage::run(|stage| run(&mut Kernel::xdp(stage)));
}

#[test]
fn no_two_cases_have_the_same_name() {
    let mut names: Vec<_> = table().iter().map(|case| case.name().to_owned()).collect();
    names.sort();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
    assert!(twice.is_empty(), "{twice:#?}");
}

/// Runs the table, all of it, before it complains.
fn run(runner: &mut dyn Runner) {
    let way = runner.way();
    let (mut held, mut refused, mut complaints) = (0, Vec::new(), Vec::new());
    let table = table();
    let elsewhere = table.iter().filter(|case| !case.runs(way)).count();
    for case in table.iter().filter(|case| case.runs(way)) {
        match catch_unwind(AssertUnwindSafe(|| case.run_on(runner))) {
            Ok(Ok(())) => held += 1,
            Ok(Err(Failure::Refused)) => refused.push(case.name()),
            Ok(Err(Failure::Wrong(complaint))) => complaints.push(complaint),
            Err(_) => complaints.push(format!("{}: panicked, see above", case.name())),
        }
    }
    report(format_args!(
        "{way:?}: {held} cases hold, {} do not, {elsewhere} are for other runners",
        complaints.len()
    ));
    if !refused.is_empty() {
        report(format_args!(
            "{way:?}: test runs refuse {} frames that end before their network header",
            refused.len()
        ));
    }
    assert!(way != Way::Host || refused.is_empty(), "the host refuses nothing");
    assert!(complaints.is_empty(), "{} cases do not hold:\n{}", complaints.len(), complaints.join("\n\n"));
}
