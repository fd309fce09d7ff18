//! What an instance keeps its record in fails: it is full, read-only, damaged, gone, or somebody else's. Commands are
//! refused with the way out, what is up goes on, and nothing is left half-way.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use vnet_tests::lab::{Endpoint, FAMILIES, Lab, Netns, OUTSIDE_V4, Output};
use vnet_tests::peer::{Ask, Ping, Server};
use vnet_tests::report::report;

use super::{Extent, chance, extent};

/// An instance with an endpoint and a published port.
struct World {
    lab: Lab,
    net1: Endpoint,
}

impl World {
    fn new() -> Self {
        let lab = Lab::up();
        let net1 = lab.endpoint("net1");
        lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
        Self { lab, net1 }
    }

    fn works(&self) {
        let _server = Server::echo(&self.net1, "[::]:80");
        for (outside, host) in FAMILIES {
            Ping::to(outside).in_netns(&self.net1);
            Ask::tcp((host, 8088).into()).in_netns(self.lab.outside());
        }
    }

    /// The file system that the record is in.
    fn mounted(&self) -> PathBuf {
        self.lab.run_dir().parent().expect("it is in one").to_owned()
    }

    fn state_file(&self) -> PathBuf {
        self.lab.run_dir().join("state.redb")
    }

    fn remount(&self, flags: MsFlags, options: &str) {
        let options = format!("mode=0700{options}");
        let done = mount(
            None::<&str>,
            &self.mounted(),
            None::<&str>,
            MsFlags::MS_REMOUNT | flags,
            Some(&options[..]),
        );
        done.expect("mount it otherwise");
    }
}

/// Removes by hand what the record would have told `vnet down` to remove.
fn remove_by_hand(lab: &Lab, endpoints: &[&Endpoint]) {
    for endpoint in endpoints {
        lab.host().ip(&format!("netns del {}", endpoint.name()));
    }
    for interface in ["vnet0", "vfrag0"] {
        lab.host().ip(&format!("link del {interface}"));
    }
}

#[test]
fn a_full_disk_changes_nothing() {
    let world = World::new();
    let lab = &world.lab;
    let before = lab.snapshot_with_contents();
    world.remount(MsFlags::empty(), ",size=4m");
    let ballast = world.mounted().join("ballast");
    let mut file = File::create(&ballast).expect("make a file");
    while file.write_all(&[1; 4096]).is_ok() {}
    let mappings: String =
        (20_000..40_000).map(|port| format!("{port} {}:{port}\n", world.net1.name())).collect();
    let many = tempfile::NamedTempFile::new().expect("a file");
    fs::write(many.path(), mappings).expect("write it");
    let many = many.path().to_str().expect("a path");
    let refused = lab.vnet(&["portmap", "add", "--file", many]);
    refused.fails_with(1, &["No space left", "make room"]);
    lab.snapshot_with_contents().assert_same_as(&before);
    world.works();
    // What needs no more room than there is can be done.
    let name = lab.name("net2");
    for args in [&["ns", "create", &name][..], &["ns", "rm", &name]] {
        let done = lab.vnet(args);
        if done.status != Some(0) {
            done.fails_with(1, &["No space left"]);
        }
        lab.assert_consistent();
    }
    lab.vnet_ok(&["ns", "ls"]);
    drop(file);
    fs::remove_file(&ballast).expect("remove it");
    world.remount(MsFlags::empty(), ",size=50%");
    lab.vnet_ok(&["portmap", "add", "--file", many]);
    assert_eq!(lab.vnet_list(&["portmap", "ls"], "portmaps").len(), 20_001);
    let ports: String = (20_000..40_000).map(|port| format!("{port}\n")).collect();
    fs::write(many, ports).expect("write it");
    lab.vnet_ok(&["portmap", "rm", "--file", many]);
    lab.vnet(&["ns", "rm", &name]);
    lab.snapshot_with_contents().assert_same_as(&before);
}

#[test]
fn down_needs_no_room() {
    let lab = Lab::new();
    let untouched = lab.snapshot();
    lab.vnet_ok(&["up"]);
    let _net1 = lab.endpoint("net1");
    let mounted = lab.run_dir().parent().expect("it is in one").to_owned();
    let remount = |options: &str| {
        let done = mount(None::<&str>, &mounted, None::<&str>, MsFlags::MS_REMOUNT, Some(options));
        done.expect("mount it otherwise");
    };
    remount("mode=0700,size=4m");
    let mut file = File::create(mounted.join("ballast")).expect("make a file");
    while file.write_all(&[1; 4096]).is_ok() {}
    lab.vnet_ok(&["down"]);
    lab.snapshot().assert_same_as(&untouched);
    // Neither does it help an instance that there is no room for.
    while file.write_all(&[1; 4096]).is_ok() {}
    lab.vnet(&["up"]).fails_with(1, &["No space left", &mounted.display().to_string()]);
    lab.snapshot().assert_same_as(&untouched);
}

#[test]
fn a_read_only_record_is_read_and_nothing_is_changed() {
    let world = World::new();
    let lab = &world.lab;
    let before = lab.snapshot_with_contents();
    world.remount(MsFlags::MS_RDONLY, "");
    let name = lab.name("net2");
    let target = format!("{}:81", world.net1.name());
    for args in
        [&["up"][..], &["down"], &["ns", "create", &name], &["portmap", "add", "81", &target], &["ns", "ls"]]
    {
        lab.vnet(args).fails_with(1, &["Read-only", &lab.run_dir().display().to_string(), "writable"]);
    }
    world.works();
    world.remount(MsFlags::empty(), "");
    lab.snapshot_with_contents().assert_same_as(&before);
    lab.assert_consistent();
}

#[test]
fn a_damaged_record_is_refused_with_the_way_out() {
    let world = World::new();
    let lab = &world.lab;
    let good = fs::read(world.state_file()).expect("read the record");
    for (what, bad) in [
        ("nothing", Vec::new()),
        ("nonsense", b"nonsense".repeat(1000)),
        ("its beginning", good[..good.len() / 3].to_vec()),
        ("zeroes", vec![0; good.len()]),
    ] {
        fs::write(world.state_file(), bad).expect("damage it");
        for args in [&["up"][..], &["down"], &["ns", "ls"], &["status"]] {
            let refused = lab.vnet(args);
            assert_eq!(refused.status, Some(1), "a record of {what}: {refused}");
            refused.fails_with(1, &["cannot be read", "move it away", "vnet down"]);
        }
        world.works();
    }
    // A record that was put back is as good as ever.
    fs::write(world.state_file(), &good).expect("put it back");
    lab.assert_consistent();
    // The way out, as it was said.
    fs::write(world.state_file(), b"nonsense".repeat(1000)).expect("damage it");
    fs::rename(world.state_file(), world.mounted().join("damaged")).expect("move it away");
    lab.vnet_ok(&["down"]);
    // What the host's parameters were is noted elsewhere.
    assert_eq!(lab.host().read("/proc/sys/net/ipv4/ip_local_reserved_ports").trim(), "");
    remove_by_hand(lab, &[&world.net1]);
    lab.vnet_ok(&["up"]);
    Ping::to(OUTSIDE_V4).in_netns(&lab.endpoint("net1"));
}

/// Whether a command has ended as it should: done, or refused in words.
fn ended_in_words(output: &Output, what: &str) -> bool {
    match output.status {
        Some(0) => true,
        Some(1) => {
            assert!(
                output.stderr.starts_with("vnet: ") && !output.stderr.contains("panicked"),
                "{what}: {output}"
            );
            false
        }
        _ => panic!("{what}: {output}"),
    }
}

#[test]
fn a_byte_that_has_fallen_over_is_no_panic() {
    const TRIES: usize = 60;
    let world = World::new();
    let lab = &world.lab;
    let good = fs::read(world.state_file()).expect("read the record");
    let used: Vec<usize> = good
        .chunks(512)
        .enumerate()
        .filter(|(_, block)| block.iter().any(|byte| *byte != 0))
        .map(|(nth, _)| nth * 512)
        .collect();
    let tries = if extent() == Extent::Some { TRIES } else { 20 * TRIES };
    let mut refused = 0;
    for _ in 0..tries {
        let block = used[chance() as usize % used.len()];
        let place = block + chance() as usize % 512.min(good.len() - block);
        let mut bad = good.clone();
        bad[place] ^= 1 << (chance() % 8);
        fs::write(world.state_file(), bad).expect("damage it");
        for args in [&["up", "--dry-run"][..], &["portmap", "ls"]] {
            refused += usize::from(!ended_in_words(&lab.vnet(args), &format!("bit at {place}, {args:?}")));
        }
    }
    report(format_args!(
        "one bit of the record was wrong {tries} times: {refused} commands were refused, none panicked"
    ));
    fs::write(world.state_file(), &good).expect("put it back");
    world.works();
    lab.assert_consistent();
}

#[test]
fn a_record_that_is_gone_leaves_what_down_can_find() {
    let world = World::new();
    let lab = &world.lab;
    fs::remove_dir_all(lab.run_dir()).expect("remove the record");
    world.works();
    lab.vnet(&["ns", "ls"]).fails_with(1, &["is not up"]);
    // What is there without a record is somebody else's, for all that is known.
    lab.vnet(&["up"]).fails_with(1, &["vnet down"]);
    world.works();
    lab.vnet_ok(&["down"]);
    remove_by_hand(lab, &[&world.net1]);
    lab.vnet_ok(&["up"]);
    Ping::to(OUTSIDE_V4).in_netns(&lab.endpoint("net1"));
}

#[test]
fn a_record_of_another_host_is_left_alone() {
    let world = World::new();
    let lab = &world.lab;
    let other = Netns::named(&lab.name("other"));
    other.create();
    for args in [&["up"][..], &["down"], &["ns", "create", "x"], &["status"]] {
        let refused = lab.vnet_from(&other, args);
        refused.fails_with(1, &["lives in another network namespace", &lab.run_dir().display().to_string()]);
    }
    other.delete();
    world.works();
    lab.assert_consistent();
}

#[test]
fn a_bpf_file_system_that_cannot_be_written_is_named() {
    let lab = Lab::new();
    let untouched = lab.snapshot();
    let pins = lab.pin_dir();
    let bpffs: &Path = pins.ancestors().nth(2).expect("where it is mounted");
    let remount = |flags| mount(None::<&str>, bpffs, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>);
    remount(MsFlags::MS_RDONLY | MsFlags::MS_BIND).expect("make it read-only");
    lab.vnet(&["up"]).fails_with(1, &[&bpffs.display().to_string(), "Read-only"]);
    remount(MsFlags::MS_BIND).expect("make it writable");
    lab.snapshot().assert_same_as(&untouched);
    // None is mounted: it is by vnet.
    umount2(bpffs, MntFlags::MNT_DETACH).expect("unmount it");
    lab.vnet_ok(&["up"]);
    Ping::to(OUTSIDE_V4).in_netns(&lab.endpoint("net1"));
    lab.vnet_ok(&["down"]);
    lab.snapshot().assert_same_as(&untouched);
}

/// Runs vnet where the parameters of the kernel cannot be written, as in many containers.
fn where_parameters_are_read_only(lab: &Lab, args: &[&str]) -> Output {
    let vnet = vnet_tests::lab::vnet_binary();
    let script = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$@\"";
    let mut argv = ["unshare", "--mount", "sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    argv.push(vnet.to_str().expect("a path").to_owned());
    argv.extend(args.iter().map(|&arg| arg.to_owned()));
    lab.host().run_with(&argv, &lab.environment())
}

#[test]
fn parameters_that_cannot_be_written_are_named_and_only_in_the_way_of_what_needs_them() {
    let lab = Lab::new();
    let untouched = lab.snapshot();
    where_parameters_are_read_only(&lab, &["up"]).fails_with(1, &["/proc/sys/net/", "Read-only"]);
    lab.snapshot().assert_same_as(&untouched);
    lab.vnet_ok(&["up"]);
    let net1 = lab.endpoint("net1");
    let before = lab.snapshot();
    let target = format!("{}:80", net1.name());
    for args in [&["up"][..], &["portmap", "add", "8088", &target], &["ns", "ls"], &["portmap", "rm", "8088"]]
    {
        where_parameters_are_read_only(&lab, args).ok();
    }
    where_parameters_are_read_only(&lab, &["ns", "create", &lab.name("net2")])
        .fails_with(1, &["/proc/sys/net/", "Read-only"]);
    lab.snapshot().assert_same_as(&before);
    where_parameters_are_read_only(&lab, &["down"]).fails_with(1, &["ip_local_reserved_ports", "Read-only"]);
    lab.vnet_ok(&["down"]);
    lab.snapshot().assert_same_as(&untouched);
}
