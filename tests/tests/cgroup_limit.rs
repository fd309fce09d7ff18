//! Limits of cgroups: what their processes send by the uplinks goes no faster than it may, whoever else sends.

use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use vnet_common::{LimitKey, LimitValue};
use vnet_tests::datagrams::{assert_keeps_to, flood, flood_time};
use vnet_tests::lab::{Background, FAMILIES, Lab, Netns, PATIENCE, UPLINK, eventually};
use vnet_tests::report::report;

/// Bits in a second.
const RATE: u64 = 40_000_000;
/// As `vnet limit set` wants it.
const RATE_TEXT: &str = "40mbit";
/// Bytes of a transfer: it takes a second.
const BYTES: u64 = RATE / 8;
/// What may pass at once, and wait in the sockets of both sides.
const AT_ONCE: u64 = 300_000;

/// A cgroup of the test's own, of either version; it goes with the test.
struct Cgroup {
    directory: PathBuf,
    /// Where its hierarchy is mounted, if that is the test's own as well.
    mount: Option<PathBuf>,
}

impl Cgroup {
    /// One of the unified hierarchy.
    fn unified(lab: &Lab, name: &str) -> Self {
        let directory = Path::new(&unified_root()).join(lab.name(name));
        fs::create_dir(&directory).expect("make a cgroup");
        Self { directory, mount: None }
    }

    /// One below this one.
    fn inner(&self, name: &str) -> Self {
        let directory = self.directory.join(name);
        fs::create_dir(&directory).expect("make a cgroup");
        Self { directory, mount: None }
    }

    /// One of `net_cls` with a class, where the kernel has that.
    fn classified(lab: &Lab, class: &str) -> Option<Self> {
        let mount = Path::new("/run").join(lab.name("net-cls"));
        fs::create_dir(&mount).expect("a directory to mount at");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "cgroup", "-o", "net_cls", "none"])
            .arg(&mount)
            .output()
            .expect("mount");
        if !mounted.status.success() {
            let _ = fs::remove_dir(&mount);
            return None;
        }
        let directory = mount.join(lab.name("class"));
        let cgroup = Self { directory, mount: Some(mount) };
        fs::create_dir(&cgroup.directory).expect("make a cgroup");
        fs::write(cgroup.directory.join("net_cls.classid"), class).expect("give it a class");
        Some(cgroup)
    }

    fn path(&self) -> &str {
        self.directory.to_str().expect("text")
    }

    /// By what the kernel knows it.
    fn number(&self) -> u64 {
        fs::metadata(&self.directory).expect("the cgroup").ino()
    }

    /// A connected socket that was opened in the cgroup, by a process that is gone.
    fn socket(&self, netns: &Netns, to: IpAddr, port: u16) -> UdpSocket {
        let mut opened =
            self.start(netns, &format!("exec 3<> /dev/udp/{to}/{port} && echo opened && exec sleep 60"));
        let _ = opened.line_with(&["opened"]);
        let socket = taken(opened.pid(), 3).expect("the socket of another process");
        opened.signal(nix::sys::signal::Signal::SIGKILL);
        opened.wait();
        UdpSocket::from(socket)
    }

    /// A shell in the cgroup that runs a script, in a namespace.
    fn start(&self, netns: &Netns, script: &str) -> Background {
        let script = format!("echo $$ > {}/cgroup.procs && {script}", self.path());
        netns.start(&["bash", "-c", &script])
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its processes take a moment to go.
        for _ in 0..100 {
            match fs::remove_dir(&self.directory) {
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                    thread::sleep(Duration::from_millis(20));
                }
                _ => break,
            }
        }
        if let Some(mount) = &self.mount {
            let _ = std::process::Command::new("umount").arg(mount).status();
            let _ = fs::remove_dir(mount);
        }
    }
}

/// Where a file system of a type is mounted.
fn mounted(kind: &str) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    let line = mounts.lines().find(|line| line.contains(&format!(" - {kind} ")))?;
    line.split(' ').nth(4).map(str::to_owned)
}

fn unified_root() -> String {
    mounted("cgroup2").expect("a unified hierarchy")
}

/// A file that describes what a text says, to be applied.
fn file(files: &tempfile::TempDir, text: &str) -> String {
    let path = files.path().join("limits.toml");
    fs::write(&path, text).expect("write a file");
    path.to_str().expect("text").to_owned()
}

/// A directory that is mounted at another place as well; no more when it goes.
struct Bound(PathBuf);

impl Bound {
    fn of(directory: &Path, place: PathBuf) -> Self {
        fs::create_dir(&place).expect("a directory to mount at");
        nix::mount::mount(Some(directory), &place, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>)
            .expect("mount");
        Self(place)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = nix::mount::umount(&self.0);
    }
}

/// A descriptor of another process, as one of this.
fn taken(process: nix::unistd::Pid, descriptor: i32) -> std::io::Result<OwnedFd> {
    use nix::libc::{SYS_pidfd_getfd, SYS_pidfd_open, syscall};
    let owned = |number: i64| match i32::try_from(number) {
        // SAFETY: the kernel has just given this process the descriptor, and nobody else knows of it.
        Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: the call takes two numbers.
    let process = owned(unsafe { syscall(SYS_pidfd_open, process.as_raw(), 0) })?;
    // SAFETY: the call takes three numbers.
    owned(unsafe { syscall(SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0) })
}

/// Receives one connection to its end on a thread of its own, at a port that is free: a program that another test is
/// starting may have inherited the socket of the one before for a moment. Says how many bytes came and how long that took.
fn receiver(netns: &Netns) -> (u16, thread::JoinHandle<(u64, Duration)>) {
    let listener = netns.enter(|| TcpListener::bind("[::]:0")).expect("listen");
    let port = listener.local_addr().expect("its port").port();
    let receiving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (start, mut bytes, mut buffer) = (Instant::now(), 0, vec![0; 1 << 16]);
        loop {
            match stream.read(&mut buffer).expect("read") {
                0 => return (bytes, start.elapsed()),
                length => bytes += length as u64,
            }
        }
    });
    (port, receiving)
}

fn sending(to: IpAddr, port: u16, bytes: u64) -> String {
    format!("head -c {bytes} /dev/zero > /dev/tcp/{to}/{port}")
}

/// How long it takes until the other side has all that a process in a cgroup sends.
fn upload(cgroup: Option<&Cgroup>, from: &Netns, to: (&Netns, IpAddr), bytes: u64) -> Duration {
    let (port, receiver) = receiver(to.0);
    let script = sending(to.1, port, bytes);
    let mut sender = match cgroup {
        Some(cgroup) => cgroup.start(from, &script),
        None => from.start(&["bash", "-c", &script]),
    };
    assert_eq!(sender.wait(), Some(0), "{script}: {:?}", sender.lines());
    let (came, took) = receiver.join().expect("the receiver");
    assert_eq!(came, bytes);
    took
}

/// Asserts that a transfer of [`BYTES`] took as long as it must, but for what may pass at once, and not for ever.
#[track_caller]
fn assert_limited(took: Duration, what: &str) {
    let least = (BYTES - AT_ONCE) as f64 * 8.0 / RATE as f64;
    assert!(took >= Duration::from_secs_f64(least) && took < Duration::from_secs(10), "{what} took {took:?}");
}

/// Asserts that transfers are not limited: of a few, on a busy machine, one takes a fraction of the time.
#[track_caller]
fn assert_unlimited(what: &str, mut upload: impl FnMut() -> Duration) {
    let took: Vec<Duration> = (0..5).map(|_| upload()).collect();
    assert!(took.iter().any(|took| *took < Duration::from_millis(600)), "{what} took {took:?}");
}

/// The queueing disciplines of the uplink, without what they have counted.
fn disciplines(lab: &Lab) -> String {
    let shown = lab.host().run(&["tc", "qdisc", "show", "dev", UPLINK]).ok().stdout;
    let words: Vec<&str> = shown.split_inclusive(char::is_whitespace).collect();
    let counted = |nth: usize| nth > 0 && words[nth - 1].trim_end() == "direct_packets_stat";
    words.iter().enumerate().filter(|(nth, _)| !counted(*nth)).map(|(_, word)| *word).collect()
}

/// Asserts that the doctor finds these of limits and of what they are made of, in this order, and no more.
#[track_caller]
fn assert_diagnosed(lab: &Lab, words: &[&str]) {
    let found = lab.vnet_list(&["doctor"], "findings");
    let of_limits = |it: &&serde_json::Value| it["check"] == "limits" || it["check"] == "record";
    let problems: Vec<&str> =
        found.iter().filter(of_limits).map(|it| it["problem"].as_str().expect("words")).collect();
    assert_eq!(problems.len(), words.len(), "{problems:?}");
    assert!(problems.iter().zip(words).all(|(problem, word)| problem.contains(word)), "{problems:?}");
}

fn by(lab: &Lab) -> String {
    let limits = lab.vnet_list(&["limit", "ls"], "limits");
    limits[0]["by"].as_str().expect("a word").to_owned()
}

#[test]
fn processes_of_a_cgroup_send_no_faster_than_they_may() {
    let lab = Lab::up();
    let (slow, other) = (Cgroup::unified(&lab, "slow"), Cgroup::unified(&lab, "other"));
    let inner = slow.inner("inner");
    let before = disciplines(&lab);
    lab.vnet_ok(&["limit", "set", "--cgroup", slow.path(), "--egress", RATE_TEXT]);
    let path = format!("/{}", lab.name("slow"));
    assert_eq!(
        lab.vnet_list(&["limit", "ls"], "limits"),
        [json!({"endpoint": null, "cgroup": path, "classid": null, "by": by(&lab), "egress": RATE,
            "egress_burst": null, "ingress": null, "ingress_burst": null})]
    );
    report(format_args!("limits of cgroups by {}", by(&lab)));
    for (outside, _) in FAMILIES {
        let to = (lab.outside(), outside);
        assert_limited(upload(Some(&slow), lab.host(), to, BYTES), "what it sends");
        assert_limited(upload(Some(&inner), lab.host(), to, BYTES), "what a cgroup inside sends");
        assert_unlimited("what another sends", || upload(Some(&other), lab.host(), to, BYTES));
        assert_unlimited("what no cgroup sends", || upload(None, lab.host(), to, BYTES));
    }
    // What does not leave by the uplink is not limited.
    assert_unlimited("what stays on the host", || {
        upload(Some(&slow), lab.host(), (lab.host(), "127.0.0.1".parse().unwrap()), BYTES)
    });
    lab.vnet_ok(&["limit", "rm", "--cgroup", &path]);
    assert_eq!(disciplines(&lab), before, "the uplink has what it had");
    assert_unlimited("what it sends afterwards", || {
        upload(Some(&slow), lab.host(), (lab.outside(), FAMILIES[0].0), BYTES)
    });
}

#[test]
fn limits_inside_one_another_all_hold() {
    let lab = Lab::up();
    let outer = Cgroup::unified(&lab, "outer");
    let (a, b) = (outer.inner("a"), outer.inner("b"));
    let to = (lab.outside(), FAMILIES[0].0);
    // The inner one is there first.
    lab.vnet_ok(&["limit", "set", "--cgroup", a.path(), "--egress", "20mbit"]);
    lab.vnet_ok(&["limit", "set", "--cgroup", outer.path(), "--egress", RATE_TEXT]);
    let took = upload(Some(&a), lab.host(), to, BYTES / 2);
    assert_limited(took, "half as much at half the rate, inside");
    assert_limited(upload(Some(&b), lab.host(), to, BYTES), "what has only the outer limit");
    // Both at once have no more than the outer one allows, even if each for itself may have all of that.
    lab.vnet_ok(&["limit", "set", "--cgroup", a.path(), "--egress", RATE_TEXT]);
    lab.vnet_ok(&["limit", "set", "--cgroup", b.path(), "--egress", RATE_TEXT]);
    let start = Instant::now();
    let senders: Vec<_> = [&a, &b]
        .map(|cgroup| {
            let (port, receiver) = receiver(lab.outside());
            (cgroup.start(lab.host(), &sending(to.1, port, BYTES / 2)), receiver)
        })
        .into_iter()
        .collect();
    for (mut sender, receiver) in senders {
        assert_eq!(sender.wait(), Some(0));
        assert_eq!(receiver.join().unwrap().0, BYTES / 2);
    }
    assert_limited(start.elapsed(), "both at once");
    lab.vnet_ok(&["limit", "set", "--cgroup", a.path(), "--egress", "20mbit"]);
    lab.vnet_ok(&["limit", "set", "--cgroup", b.path(), "--egress", "none"]);
    lab.vnet_ok(&["limit", "set", "--cgroup", outer.path(), "--egress", "none"]);
    assert_limited(upload(Some(&a), lab.host(), to, BYTES / 2), "half as much, with the inner limit alone");
    assert_unlimited("what has none any more", || upload(Some(&b), lab.host(), to, BYTES));
}

#[test]
fn processes_of_a_class_send_no_faster_than_they_may() {
    let lab = Lab::up();
    let Some(cgroup) = Cgroup::classified(&lab, "0x10010") else {
        return report("not tried with net_cls: this kernel mounts none");
    };
    lab.vnet_ok(&["limit", "set", "--classid", "1:10", "--egress", RATE_TEXT]);
    for (outside, _) in FAMILIES {
        let to = (lab.outside(), outside);
        assert_limited(upload(Some(&cgroup), lab.host(), to, BYTES), "what the class sends");
        assert_unlimited("what another sends", || upload(None, lab.host(), to, BYTES));
    }
    lab.vnet_ok(&["limit", "rm", "--classid", "0x10010"]);
    assert_unlimited("what the class sends afterwards", || {
        upload(Some(&cgroup), lab.host(), (lab.outside(), FAMILIES[0].0), BYTES)
    });
}

#[test]
fn a_class_is_called_a_class() {
    let lab = Lab::up();
    let set = lab.vnet_ok(&["limit", "set", "--classid", "1:10", "--egress", "1mbit"]);
    assert!(set.stdout.starts_with("class 1:10: egress 1mbit, by "), "{set}");
    let plan = lab.vnet_ok(&["limit", "set", "--classid", "0x10010", "--egress", "2mbit", "--dry-run"]);
    assert!(plan.stdout.contains("what class 1:10 sends"), "{plan}");
    assert_eq!(lab.vnet_ok(&["limit", "rm", "--classid", "1:10"]).stdout, "class 1:10: no limit\n");
    assert_eq!(lab.vnet_ok(&["limit", "rm", "--classid", "1:10"]).stdout, "class 1:10: no limit (already)\n");
    let files = tempfile::tempdir().expect("a directory");
    let limit = |class: &str| format!("[[limits]]\nclassid = \"{class}\"\negress = \"2mbit\"\n");
    let both = file(&files, &(limit("1:10") + &limit("0x10010")));
    let twice = "limits.toml:4:1: the limit of class 1:10 is there twice";
    lab.vnet(&["apply", "-f", &both]).fails_with(2, &[twice, "limits.toml:1:1"]);
}

#[test]
fn datagrams_of_a_cgroup_beyond_the_rate_wait_or_are_dropped() {
    const SIZE: u64 = 1_000;
    let lab = Lab::up();
    let slow = Cgroup::unified(&lab, "slow");
    lab.vnet_ok(&["limit", "set", "--cgroup", slow.path(), "--egress", "8mbit"]);
    let socket = lab.outside().enter(|| UdpSocket::bind("0.0.0.0:5002")).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    let mut sender = slow.start(
        lab.host(),
        &format!("timeout 3 dd if=/dev/zero bs={SIZE} status=none > /dev/udp/{}/5002", FAMILIES[0].0),
    );
    let (mut came, mut buffer, mut first) = (0, [0; SIZE as usize], None);
    let mut last = Instant::now();
    while first.is_none() || socket.recv(&mut buffer).is_ok() {
        if first.is_none() {
            socket.recv(&mut buffer).expect("a first datagram");
            first = Some(Instant::now());
        }
        last = Instant::now();
        came += 1;
    }
    sender.wait();
    let seconds = (last - first.expect("a datagram")).as_secs_f64();
    let bits = (came * (SIZE + 42) * 8) as f64;
    let most = 8e6 * seconds * 1.02 + 8.0 * AT_ONCE as f64;
    assert!(bits <= most, "{bits} bits in {seconds} s");
    assert!(bits >= 8e6 * seconds * 0.5, "{bits} bits in {seconds} s: the uplink is idle");
}

#[test]
fn a_limit_is_changed_while_a_connection_goes_on() {
    let lab = Lab::up();
    let slow = Cgroup::unified(&lab, "slow");
    lab.vnet_ok(&["limit", "set", "--cgroup", slow.path(), "--egress", "1mbit"]);
    let (port, receiver) = receiver(lab.outside());
    // Forty seconds at that rate.
    let mut sender = slow.start(lab.host(), &sending(FAMILIES[0].0, port, BYTES));
    for rate in ["2mbit", "1mbit", "10mbit", "none"] {
        lab.vnet_ok(&["limit", "set", "--cgroup", slow.path(), "--egress", rate]);
        if rate != "none" {
            assert!(!receiver.is_finished(), "at {rate} it takes longer");
        }
    }
    let start = Instant::now();
    assert_eq!(sender.wait(), Some(0));
    assert_eq!(receiver.join().unwrap().0, BYTES, "nothing is lost of the connection");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?} without a limit", start.elapsed());
}

#[test]
fn a_queueing_discipline_that_somebody_has_chosen_is_left_alone() {
    let lab = Lab::up();
    let slow = Cgroup::unified(&lab, "slow");
    let tbf = ["tc", "qdisc", "add", "dev", UPLINK, "root", "handle", "5:", "tbf", "rate", "1gbit"];
    lab.host().run(&[&tbf[..], &["burst", "100k", "latency", "50ms"]].concat()).ok();
    let before = disciplines(&lab);
    let set = ["limit", "set", "--cgroup", slow.path(), "--egress", RATE_TEXT];
    lab.vnet(&set).fails_with(1, &[UPLINK, "tbf 5:", "tc qdisc del dev", "vnet"]);
    assert_eq!(disciplines(&lab), before);
    assert!(lab.vnet_list(&["limit", "ls"], "limits").is_empty(), "nothing is recorded of it");
    lab.host().run(&["tc", "qdisc", "del", "dev", UPLINK, "root"]).ok();
    lab.vnet_ok(&set);
    assert_limited(upload(Some(&slow), lab.host(), (lab.outside(), FAMILIES[0].0), BYTES), "what it sends");
}

#[test]
fn what_is_lost_comes_back_and_goes_with_the_instance() {
    let lab = Lab::up();
    let slow = Cgroup::unified(&lab, "slow");
    let to = (lab.outside(), FAMILIES[0].0);
    let before = disciplines(&lab);
    lab.vnet_ok(&["limit", "set", "--cgroup", slow.path(), "--egress", RATE_TEXT]);
    let limited = disciplines(&lab);
    assert_ne!(limited, before);
    // Somebody takes the discipline away, and the program.
    lab.host().run(&["tc", "qdisc", "del", "dev", UPLINK, "root"]).ok();
    fs::remove_file(lab.pin_dir().join(format!("links/shape@{UPLINK}"))).expect("remove the link's pin");
    assert_unlimited("what is not limited any more", || upload(Some(&slow), lab.host(), to, BYTES));
    assert_diagnosed(&lab, &["queueing discipline", "program shape"]);
    lab.vnet_ok(&["up"]);
    assert_eq!(disciplines(&lab), limited);
    assert_limited(upload(Some(&slow), lab.host(), to, BYTES), "what came back");
    assert_diagnosed(&lab, &[]);
    lab.vnet_ok(&["down"]);
    assert_eq!(disciplines(&lab), before);
}

#[test]
fn a_cgroup_that_comes_and_goes_is_limited_when_it_is_there() {
    let lab = Lab::up();
    let path = {
        let slow = Cgroup::unified(&lab, "slow");
        slow.path().to_owned()
    };
    let set = lab.vnet_ok(&["limit", "set", "--cgroup", &path, "--egress", RATE_TEXT]);
    assert!(set.stderr.contains("there is no cgroup"), "{}", set.stderr);
    assert_diagnosed(&lab, &["there is no cgroup"]);
    let to = (lab.outside(), FAMILIES[0].0);
    for _ in 0..2 {
        // Another each time, of the same name.
        let slow = Cgroup::unified(&lab, "slow");
        assert_unlimited("what nobody has noticed yet", || upload(Some(&slow), lab.host(), to, BYTES));
        lab.vnet_ok(&["up"]);
        assert_limited(upload(Some(&slow), lab.host(), to, BYTES), "what is noticed");
    }
}

#[test]
fn the_resident_part_notices_at_once_when_a_cgroup_comes_or_goes() {
    let lab = Lab::up();
    let path = format!("/{}", lab.name("slow"));
    lab.vnet_ok(&["limit", "set", "--cgroup", &path, "--egress", RATE_TEXT]);
    // Looking at everything from time to time has no part in it.
    let mut run = lab.vnet_start(&["run", "--check", "3600"]);
    let _ = run.line_with(&["is looked after"]);
    let becomes = |wanted: &[&Cgroup]| {
        let mut wanted: Vec<u64> = wanted.iter().map(|cgroup| cgroup.number()).collect();
        wanted.sort_unstable();
        let found = || {
            let entries = lab.entries::<LimitKey, LimitValue>(vnet_common::maps::LIMITS);
            let mut found: Vec<u64> = entries.iter().map(|(key, _)| key.cgroup).collect();
            found.sort_unstable();
            found
        };
        eventually(
            || (found() == wanted).then_some(()),
            || format!("limits of {wanted:?}, not {:?}", found()),
        );
    };
    for _ in 0..2 {
        // Another each time, of the same name.
        let slow = Cgroup::unified(&lab, "slow");
        becomes(&[&slow]);
        let took = upload(Some(&slow), lab.host(), (lab.outside(), FAMILIES[0].0), BYTES);
        assert_limited(took, "what is noticed");
        drop(slow);
        becomes(&[]);
    }
    // One that is limited meanwhile, and what it is to be in is not there either.
    lab.vnet_ok(&["limit", "set", "--cgroup", &format!("/{}/a/b", lab.name("outer")), "--egress", RATE_TEXT]);
    if by(&lab) != "htb" {
        // No class is made for it that there would be news of.
        run.signal(nix::sys::signal::Signal::SIGHUP);
        let _ = run.line_with(&["reload"]);
    }
    let outer = Cgroup::unified(&lab, "outer");
    let a = outer.inner("a");
    let b = a.inner("b");
    becomes(&[&b]);
    let slow = Cgroup::unified(&lab, "slow");
    becomes(&[&b, &slow]);
    drop(b);
    becomes(&[&slow]);
    // A cgroup goes after those inside it.
    drop((a, outer));
    run.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(run.wait(), Some(0));
}

#[test]
fn what_is_no_cgroup_of_version_2_is_refused_with_the_cause_and_the_way_out() {
    let lab = Lab::up();
    let slow = Cgroup::unified(&lab, "slow");
    let root = unified_root();
    let files = tempfile::tempdir().expect("a directory");
    let refused = |path: &str, cause: &str| {
        let words = [path, "is no cgroup of version 2", cause, &root, "--classid"];
        lab.vnet(&["limit", "set", "--cgroup", path, "--egress", RATE_TEXT]).fails_with(1, &words);
        let described = file(&files, &format!("[[limits]]\ncgroup = \"{path}\"\negress = \"1mbit\"\n"));
        lab.vnet(&["apply", "-f", &described]).fails_with(1, &[&words[..], &["limits.toml:1:1: "]].concat());
    };
    let directory = files.path().to_str().expect("text");
    refused(directory, "it is on another file system (");
    refused(&format!("{directory}/none"), "it does not exist");
    refused(&format!("{}/cgroup.procs", slow.path()), "it is a file");
    let classified = Cgroup::classified(&lab, "0x10010");
    match classified.as_ref().map(|cgroup| cgroup.path().to_owned()).or_else(|| mounted("cgroup")) {
        Some(of_v1) => refused(&of_v1, "it is of version 1 ("),
        None => report("not tried with a cgroup of version 1: none is mounted"),
    }
    // As on hosts that have both versions.
    let usual = Path::new("/sys/fs/cgroup");
    if usual.is_dir() && Path::new(&root) != usual {
        refused(
            &format!("/sys/fs/cgroup/{}", lab.name("slow")),
            "it does not exist, and /sys/fs/cgroup is on",
        );
    }
    assert!(lab.vnet_list(&["limit", "ls"], "limits").is_empty(), "nothing is recorded of them");
}

#[test]
fn a_cgroup_has_one_limit_however_it_is_written() {
    let lab = Lab::up();
    let slow = Cgroup::unified(&lab, "slow");
    let (root, name) = (unified_root(), lab.name("slow"));
    let path = format!("/{name}");
    let files = tempfile::tempdir().expect("a directory");
    let link = files.path().join("link");
    std::os::unix::fs::symlink(slow.path(), &link).expect("a link");
    let bound = Bound::of(Path::new(slow.path()), files.path().join("bound"));
    let [link, bound] = [&link, &bound.0].map(|path| path.to_str().expect("text").to_owned());
    let as_text = [path.clone(), name.clone(), format!("{name}/"), format!("//{name}/.")];
    let as_found = [format!("{root}/./{name}"), format!("{root}{path}/"), link.clone(), bound.clone()];
    for (nth, written) in as_text.iter().chain(&as_found).enumerate() {
        let rate = 1_000_000 * (nth as u64 + 1);
        lab.vnet_ok(&["limit", "set", "--cgroup", written, "--egress", &format!("{}mbit", nth + 1)]);
        let listed = lab.vnet_list(&["limit", "ls"], "limits");
        assert_eq!(listed.len(), 1, "{written}: {listed:?}");
        assert_eq!((&listed[0]["cgroup"], &listed[0]["egress"]), (&json!(path), &json!(rate)), "{written}");
    }
    // In a file the other one is named.
    for (written, code) in
        as_text[1..].iter().map(|written| (written, 2)).chain(as_found.iter().map(|written| (written, 1)))
    {
        let limit = |cgroup: &str| format!("[[limits]]\ncgroup = \"{cgroup}\"\negress = \"2mbit\"\n");
        let both = file(&files, &(limit(&path) + &limit(written)));
        let twice = format!("limits.toml:4:1: the limit of cgroup {path} is there twice");
        lab.vnet(&["apply", "-f", &both]).fails_with(code, &[&twice, "limits.toml:1:1"]);
        // By itself it is the one that is there.
        let alone = file(&files, &limit(written));
        lab.vnet_ok(&["apply", "-f", &alone]);
        assert_eq!(lab.vnet_list(&["limit", "ls"], "limits")[0]["cgroup"], path, "{written}");
    }
    // What is not there yet is told by what it will be in.
    lab.vnet_ok(&["limit", "set", "--cgroup", &format!("{link}/inner"), "--egress", "1mbit"]);
    lab.vnet_ok(&["limit", "rm", "--cgroup", &format!("{bound}/inner")]);
    lab.vnet_ok(&["limit", "rm", "--cgroup", &link]);
    assert!(lab.vnet_list(&["limit", "ls"], "limits").is_empty());
}

#[test]
fn an_inner_limit_keeps_its_rate_beside_what_competes_with_it() {
    let lab = Lab::up();
    let outer = Cgroup::unified(&lab, "outer");
    let (slow, other) = (outer.inner("slow"), outer.inner("other"));
    lab.vnet_ok(&["limit", "set", "--cgroup", outer.path(), "--egress", RATE_TEXT]);
    lab.vnet_ok(&["limit", "set", "--cgroup", slow.path(), "--egress", "10mbit"]);
    let to = FAMILIES[0].0;
    let (few, many) = (BYTES, 4 * BYTES);
    let mut tried = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let senders = [(&slow, few), (&other, many)].map(|(cgroup, bytes)| {
            let (port, receiver) = receiver(lab.outside());
            (cgroup.start(lab.host(), &sending(to, port, bytes)), receiver)
        });
        let took = senders.map(|(mut sender, receiver)| {
            assert_eq!(sender.wait(), Some(0));
            receiver.join().expect("the receiver").1
        });
        let least =
            |bytes: u64, rate: u64| Duration::from_secs_f64((bytes - AT_ONCE) as f64 * 8.0 / rate as f64);
        assert!(took[0] >= least(few, RATE / 4), "beyond its own limit: {took:?}");
        assert!(start.elapsed() >= least(few + many, RATE), "together beyond the outer limit: {took:?}");
        tried.push(few as f64 * 8.0 / took[0].as_secs_f64() / 1e6);
        if by(&lab) != "htb" {
            return report(format_args!("{tried:?} of 10 Mbit/s beside another, by {}", by(&lab)));
        }
        // What the headers take is not counted here.
        if tried.iter().any(|rate| *rate > 9.0) {
            return report(format_args!("{tried:?} of 10 Mbit/s beside another"));
        }
    }
    panic!("{tried:?} of 10 Mbit/s beside another");
}

#[test]
fn datagrams_at_half_and_a_whole_gigabit_keep_to_the_limit() {
    let lab = Lab::up();
    let slow = Cgroup::unified(&lab, "slow");
    for (text, rate) in [("500mbit", 5e8), ("1gbit", 1e9)] {
        lab.vnet_ok(&["limit", "set", "--cgroup", slow.path(), "--egress", text]);
        assert_keeps_to(rate, &format!("what a cgroup sends, by {}", by(&lab)), || {
            let receiver = lab.outside().enter(|| UdpSocket::bind("0.0.0.0:5003")).expect("a socket");
            flood(&slow.socket(lab.host(), FAMILIES[0].0, 5003), &receiver, rate, flood_time())
        });
    }
}

#[test]
fn what_an_endpoint_sends_to_the_world_is_the_cgroups_too() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let slow = Cgroup::unified(&lab, "slow");
    lab.vnet_ok(&["limit", "set", "--cgroup", slow.path(), "--egress", RATE_TEXT]);
    for (outside, _) in FAMILIES {
        let to = (lab.outside(), outside);
        assert_limited(upload(Some(&slow), &net1, to, BYTES), "what a process in the endpoint sends");
        assert_unlimited("what another process there sends", || upload(None, &net1, to, BYTES));
    }
}
