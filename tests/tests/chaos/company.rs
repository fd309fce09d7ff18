//! Many commands at once: they queue, none is lost, and whatever comes of them is consistent.

use std::fs::{File, TryLockError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::NamedTempFile;
use vnet_tests::lab::{Background, Lab, OUTSIDE_V4, eventually};
use vnet_tests::peer::Ping;
use vnet_tests::report::report;

use super::{Extent, chance, extent};

/// How many commands are under way at once.
const COMMANDS: usize = 50;
/// How often.
const ROUNDS: usize = 20;
/// How often in every run.
const ROUNDS_OF_SOME: usize = 10;
/// How often in every run where commands are killed.
const ROUNDS_OF_KILLS: usize = 4;
/// Between two looks at whether a command is done.
const INTERVAL: Duration = Duration::from_millis(2);
/// How long a round may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Why a command of this test may be refused: what it is about is not there, or is somebody's already.
const REFUSALS: [&str; 6] = [
    "there is no endpoint",
    "there is no network",
    "is taken: ",
    "is in use by",
    "is there already, with network",
    // Of a network that a command was killed over between the record and the bridge.
    "`vnet up` brings it back",
];

/// One of the commands, about one of few things, so that they meet.
fn some_command(lab: &Lab, file: &NamedTempFile) -> Vec<String> {
    let pick = |count: u64| chance() % count;
    let endpoint = || lab.name(&format!("n{}", pick(8)));
    let network = || pick(3);
    let port = || (8000 + pick(12)).to_string();
    let words: Vec<String> = match pick(20) {
        0..=3 => vec!["ns".into(), "create".into(), endpoint()],
        4 => {
            let network = format!("blue{}", network());
            vec![
                "ns".into(),
                "create".into(),
                lab.name(&format!("b{}", pick(3))),
                "--network".into(),
                network,
            ]
        }
        5..=7 => vec!["ns".into(), "rm".into(), endpoint()],
        8 => vec!["ns".into(), "rm".into(), lab.name(&format!("b{}", pick(3)))],
        9..=11 => vec!["portmap".into(), "add".into(), port(), format!("{}:80", endpoint())],
        12 | 13 => vec!["portmap".into(), "rm".into(), port()],
        14 => {
            let number = network();
            let subnet = format!("10.{}.0.0/24", 50 + number);
            vec!["network".into(), "create".into(), format!("blue{number}"), "--subnet".into(), subnet]
        }
        15 => vec!["network".into(), "rm".into(), format!("blue{}", network())],
        16 => vec!["flow".into(), "ls".into()],
        17 => vec!["status".into()],
        18 => vec!["up".into()],
        _ => vec!["apply".into(), "-f".into(), file.path().to_str().expect("a path").into()],
    };
    words
}

/// A description that some of the commands apply, and the endpoint in it.
fn description(lab: &Lab) -> (NamedTempFile, String) {
    let file = NamedTempFile::with_suffix(".toml").expect("a file");
    let name = lab.name("n0");
    let text = format!("[endpoints.\"{name}\"]\n[[portmaps]]\npublish = 8011\ntarget = \"{name}:80\"\n");
    std::fs::write(file.path(), text).expect("write it");
    (file, name)
}

/// Starts so many commands.
fn crowd(lab: &Lab, file: &NamedTempFile) -> Vec<(String, Background)> {
    let start = |_| {
        let words = some_command(lab, file);
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        (words.join(" "), lab.vnet_start(&args))
    };
    (0..COMMANDS).map(start).collect()
}

/// What became of commands.
#[derive(Default)]
struct Outcome {
    done: u32,
    refused: u32,
    killed: u32,
}

impl Outcome {
    /// Counts one that has ended.
    fn count(&mut self, command: &str, process: &mut Background) {
        match process.wait() {
            Some(0) => self.done += 1,
            Some(1) => {
                // What it printed last may not have been collected as yet.
                let refused = |line: &String| REFUSALS.iter().any(|why| line.contains(why));
                eventually(
                    || process.lines().into_iter().find(refused),
                    || format!("a reason of `vnet {command}`: {:#?}", process.lines()),
                );
                self.refused += 1;
            }
            None => self.killed += 1,
            other => panic!("`vnet {command}` ended with {other:?}: {:#?}", process.lines()),
        }
    }
}

#[test]
fn fifty_commands_at_once_end_in_a_consistent_state() {
    let lab = Lab::up();
    let (file, described) = description(&lab);
    let rounds = if extent() == Extent::Some { ROUNDS_OF_SOME } else { ROUNDS };
    let (mut outcome, mut longest) = (Outcome::default(), Duration::ZERO);
    for _ in 0..rounds {
        let begun = Instant::now();
        for (command, process) in &mut crowd(&lab, &file) {
            while process.is_running() {
                assert!(begun.elapsed() < PATIENCE, "`vnet {command}` hangs: {:#?}", process.lines());
                std::thread::sleep(INTERVAL);
            }
            outcome.count(command, process);
        }
        longest = longest.max(begun.elapsed());
        lab.assert_consistent();
    }
    let Outcome { done, refused, killed } = outcome;
    report(format_args!(
        "{rounds} rounds of {COMMANDS} commands at once: {done} done, {refused} refused, {longest:.1?} at most for a round"
    ));
    assert!(done > refused && killed == 0, "{done} done, {refused} refused, {killed} killed");
    lab.vnet_ok(&["ns", "create", &described]);
    Ping::to(OUTSIDE_V4).in_netns(&lab.endpoint("n0"));
}

/// The command that has the lock is killed again and again; those behind it go on with what it left.
#[test]
fn fifty_commands_at_once_survive_those_of_them_that_are_killed() {
    let lab = Lab::up();
    let (file, _) = description(&lab);
    let rounds = if extent() == Extent::Some { ROUNDS_OF_KILLS } else { ROUNDS };
    let mut outcome = Outcome::default();
    for _ in 0..rounds {
        let begun = Instant::now();
        let mut commands = crowd(&lab, &file);
        while commands.iter_mut().any(|(_, process)| process.is_running()) {
            assert!(begun.elapsed() < PATIENCE, "some command hangs");
            // Another moment each time.
            std::thread::sleep(Duration::from_micros(chance() % 40_000));
            let holder = std::fs::read_to_string(lab.run_dir().join("lock")).unwrap_or_default();
            let is_holder = |process: &Background| holder.starts_with(&format!("{} (", process.pid()));
            for (_, process) in &mut commands {
                if is_holder(process) && process.is_running() {
                    process.signal(Signal::SIGKILL);
                }
            }
        }
        commands.iter_mut().for_each(|(command, process)| outcome.count(command, process));
        // What the last ones left half-way is completed.
        lab.vnet_ok(&["up"]);
        lab.assert_consistent();
    }
    let Outcome { done, refused, killed } = outcome;
    report(format_args!(
        "{rounds} rounds of {COMMANDS} commands at once: {killed} killed with the lock, {done} done, {refused} refused"
    ));
    assert!(killed >= rounds as u32, "only {killed} were killed");
    Ping::to(OUTSIDE_V4).in_netns(&lab.endpoint("n0"));
}

/// A command that has the lock for as long as it is stopped.
fn stopped(lab: &Lab) -> Background {
    let name = lab.name("slow");
    let lock = lab.run_dir().join("lock");
    loop {
        let mut slow = lab.vnet_start(&["ns", "create", &name]);
        let note = format!("{} (", slow.pid());
        let locked = || std::fs::read_to_string(&lock).is_ok_and(|holder| holder.starts_with(&note));
        while !locked() && slow.is_running() {
            std::thread::yield_now();
        }
        slow.signal(Signal::SIGSTOP);
        // It may have been done by then, and then it is tried once more.
        let file = File::open(&lock).expect("open the lock");
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return slow;
        }
        drop(file);
        slow.signal(Signal::SIGCONT);
        slow.wait();
        lab.vnet_ok(&["ns", "rm", &name]);
    }
}

#[test]
fn who_waits_says_for_whom_no_longer_than_it_should_and_the_lock_of_the_dead_is_free() {
    let lab = Lab::up();
    let mut slow = stopped(&lab);
    let holder = format!("process {} (vnet ns create {})", slow.pid(), lab.name("slow"));
    let begun = Instant::now();
    lab.vnet(&["--wait", "0", "ns", "ls"]).fails_with(1, &[&holder, "--wait"]);
    lab.vnet(&["portmap", "ls", "--wait", "2"]).fails_with(1, &["waiting for", &holder, "for 2 s"]);
    assert!(begun.elapsed() >= Duration::from_secs(2));
    let mut patient = lab.vnet_start(&["ns", "create", &lab.name("net1")]);
    let said = patient.line_with(&["waiting for", &holder]);
    assert!(said.contains(lab.instance()), "{said}");
    // It waits, whatever the other does not do.
    assert!(patient.is_running());
    let killed = Instant::now();
    slow.signal(Signal::SIGKILL);
    assert_eq!(patient.wait(), Some(0), "{:#?}", patient.lines());
    report(format_args!(
        "the next command was done {:.0?} after the one before was killed",
        killed.elapsed()
    ));
    slow.wait();
    lab.vnet_ok(&["ns", "create", &lab.name("slow")]);
    lab.assert_consistent();
}
