//! What a container runtime does for those who connect namespaces but do not make them: it makes the namespace by
//! system calls, without a process, and gives them a description on standard input.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use vnet_tests::lab::Netns;

/// Namespaces that we made and remove.
#[derive(Debug, Default)]
pub(super) struct Namespaces(RefCell<BTreeMap<u16, Netns>>);

impl Namespaces {
    /// Makes one. The directory is the lab's, which has made others there.
    pub(super) fn make(&self, number: u16, netns: &Netns) {
        let path = netns.path();
        File::create(&path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()));
        self.0.borrow_mut().insert(number, netns.clone());
        // On a thread of its own, which takes the new namespace with it when it ends.
        std::thread::scope(|scope| scope.spawn(|| become_new(&path)).join()).expect("make a namespace");
    }

    /// Removes one.
    pub(super) fn remove(&self, number: u16) {
        let netns = self.0.borrow_mut().remove(&number).expect("made before");
        unmake(&netns);
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.0.borrow().values().for_each(unmake);
    }
}

fn become_new(path: &Path) {
    unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
    let own = Some("/proc/thread-self/ns/net");
    mount(own, path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .unwrap_or_else(|e| panic!("mount the namespace on {}: {e}", path.display()));
}

/// As far as it was made.
fn unmake(netns: &Netns) {
    let _ = umount2(&netns.path(), MntFlags::MNT_DETACH);
    let _ = fs::remove_file(netns.path());
}

/// Runs a program in a namespace with something on its standard input; what it says.
///
/// # Panics
/// With what it complains of, when it fails.
pub(super) fn told(netns: &Netns, command: &mut Command, input: &str) -> String {
    netns.enter(|| {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("run {command:?}: {e}"));
        let mut stdin = child.stdin.take().expect("piped");
        // One that ends without reading says why.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().unwrap_or_else(|e| panic!("wait for {command:?}: {e}"));
        let [said, complaint] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
        assert!(output.status.success(), "{program}, {}: {said} {complaint}", output.status);
        said
    })
}
