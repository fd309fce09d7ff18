//! The wall clock jumps by hours, forth and back: nothing that vnet decides depends on it.
//!
//! The machine's clock is everybody's, so only the processes under test see it jump: a library that is loaded in front of
//! the C library adds what a file says to the time of day, and leaves the clocks that do not jump alone. A release of vnet
//! has the C library inside, so it is the build with another ABI that is played with, which has not.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use vnet_tests::lab::{Background, FAMILIES, Lab, OUTSIDE_V4, Output, PATIENCE, eventually};
use vnet_tests::peer::Ping;
use vnet_tests::report::report;

use super::upgrade::other_abi;

/// Where the clock goes, in seconds from where it is.
const JUMPS: [i64; 4] = [6 * 3600, -12 * 3600, 400 * 86_400, 0];

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = syscall(SYS_clock_gettime, clock, time);
    char text[32] = {0};
    int file;
    if (failed || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return failed;
    if ((file = open(getenv("JUMPED_BY"), O_RDONLY | O_CLOEXEC)) < 0) return failed;
    if (read(file, text, sizeof text - 1) > 0) time->tv_sec += atoll(text);
    close(file);
    return failed;
}
"#;

/// A wall clock that jumps, for those that are started with it.
struct Clock {
    directory: TempDir,
    vnet: PathBuf,
}

impl Clock {
    /// `None` where there is no C compiler.
    fn new(vnet: PathBuf) -> Option<Self> {
        let clock = Self { directory: TempDir::new().expect("a directory"), vnet };
        let source = clock.directory.path().join("clock.c");
        fs::write(&source, SOURCE).expect("write it");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O", "-o"])
            .arg(clock.library())
            .arg(source)
            .output();
        let built = match built {
            Ok(built) => built,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => panic!("cc: {error}"),
        };
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        clock.jump(0);
        Some(clock)
    }

    fn library(&self) -> PathBuf {
        self.directory.path().join("clock.so")
    }

    fn offset(&self) -> PathBuf {
        self.directory.path().join("offset")
    }

    /// Sets it to so many seconds beside the machine's.
    fn jump(&self, seconds: i64) {
        let new = self.directory.path().join("new");
        fs::write(&new, seconds.to_string()).expect("write it");
        fs::rename(new, self.offset()).expect("put it in place");
    }

    fn environment(&self, lab: &Lab) -> Vec<(String, String)> {
        let text = |path: PathBuf| path.to_str().expect("text").to_owned();
        let own = [("LD_PRELOAD", self.library()), ("JUMPED_BY", self.offset())];
        let own = own.into_iter().map(|(name, path)| (name.to_owned(), text(path)));
        lab.environment().into_iter().chain(own).collect()
    }

    fn vnet(&self, lab: &Lab, args: &[&str]) -> Output {
        lab.host().run_with(&self.argv(args), &self.environment(lab))
    }

    fn start(&self, lab: &Lab, args: &[&str]) -> Background {
        lab.host().start_with(&self.argv(args), &self.environment(lab))
    }

    fn argv(&self, args: &[&str]) -> Vec<String> {
        let vnet = self.vnet.to_str().expect("text").to_owned();
        std::iter::once(vnet).chain(args.iter().map(|arg| (*arg).to_owned())).collect()
    }
}

/// What a command tells of the only flow: how long it has been idle, and until it ends.
fn flow(output: &Output) -> (i64, i64) {
    let flows = output.json();
    let flows = flows["flows"].as_array().expect("a list").clone();
    let [flow] = &flows[..] else { panic!("one flow: {flows:#?}") };
    assert_eq!(flow["expired"], false, "{flow}");
    (flow["idle"].as_i64().expect("seconds"), flow["expires"].as_i64().expect("seconds"))
}

#[test]
fn nothing_depends_on_the_time_of_day() {
    let Some(vnet) = other_abi() else { return };
    let Some(clock) = Clock::new(vnet.clone()) else {
        return report("not tried with another time of day: there is no C compiler");
    };
    let lab = Lab::new();
    lab.use_binary(vnet);
    clock.vnet(&lab, &["up"]).ok();
    let net1 = lab.endpoint("net1");
    // It is another clock that they see.
    clock.jump(JUMPS[0]);
    let created = |output: Output| -> i64 {
        let listed = output.ok().json();
        listed["endpoints"][0]["created"].as_i64().expect("a time")
    };
    let other = lab.name("net2");
    let before = created(lab.vnet(&["ns", "create", &other, "--json"]));
    lab.vnet_ok(&["ns", "rm", &other]);
    let jumped = created(clock.vnet(&lab, &["ns", "create", &other, "--json"]));
    assert!((JUMPS[0] - 60..JUMPS[0] + 60).contains(&(jumped - before)), "{before} and {jumped}");
    clock.vnet(&lab, &["ns", "rm", &other]).ok();

    let run = clock.start(&lab, &["run"]);
    let _ = run.line_with(&["is looked after"]);
    let listener = lab.outside().enter(|| TcpListener::bind("[::]:5001")).expect("listen");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut byte = [0];
        // Until the test ends, however long it is quiet in between.
        while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
    });
    let to = SocketAddr::from((OUTSIDE_V4, 5001));
    let mut stream = net1.enter(|| TcpStream::connect_timeout(&to, PATIENCE)).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    let mut say = move || {
        let mut heard = [0];
        stream.write_all(b"x").expect("say something");
        stream.read_exact(&mut heard).expect("hear it again");
        assert_eq!(heard, *b"x");
    };
    say();
    for jump in JUMPS {
        clock.jump(jump);
        // Flows: what is told of them, and what becomes of them.
        let begun = Instant::now();
        let (idle, expires) = flow(&lab.vnet_ok(&["flow", "ls", "--json"]));
        let (idle_jumped, expires_jumped) = flow(&clock.vnet(&lab, &["flow", "ls", "--json"]).ok());
        let passed = begun.elapsed().as_secs() as i64 + 2;
        assert!((idle - idle_jumped).abs() <= passed && (expires - expires_jumped).abs() <= passed);
        // The resident part: it brings back what is lost as fast as ever.
        let endpoints = lab.vnet_list(&["ns", "ls"], "endpoints");
        assert_eq!(endpoints.len(), 1, "what is leased stays leased: {endpoints:#?}");
        lab.host().ip("link set vnet0 down");
        let lost = Instant::now();
        eventually(
            || {
                let up = lab.host().run(&["ip", "-br", "link", "show", "vnet0"]).ok().stdout;
                up.contains(",UP").then_some(())
            },
            || "the resident part sets the bridge up".to_owned(),
        );
        report(format_args!("repaired {:.0?} after the clock was set by {jump} s", lost.elapsed()));
        // Waiting for the lock of another command.
        let state = lab.run_dir().join("lock");
        let lock = fs::File::open(&state).expect("the lock");
        lock.lock().expect("nobody else has it for long");
        let begun = Instant::now();
        let mut waiting = clock.start(&lab, &["--wait", "2", "ns", "ls"]);
        thread::sleep(Duration::from_millis(500));
        clock.jump(-jump - 3600);
        assert_eq!(waiting.wait(), Some(1), "{:#?}", waiting.lines());
        let waited = begun.elapsed();
        assert!(waited >= Duration::from_secs(2) && waited < Duration::from_secs(20), "{waited:?}");
        drop(lock);
        say();
    }
    run.signal(Signal::SIGTERM);
    for (outside, _) in FAMILIES {
        Ping::to(outside).in_netns(&net1);
    }
}
