//! One network namespace: closures, programs and `ip` run inside it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::process::{self, Background, Output};

/// A named network namespace. Copies name the same one; the lab removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// The namespace visible as `/run/netns/NAME`, whether it exists or not.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(super::NETNS).join(&self.name)
    }

    /// Whether it exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// Makes it, with its loopback up.
    ///
    /// # Panics
    /// When that fails.
    pub fn create(&self) {
        process::run(&["ip".into(), "netns".into(), "add".into(), self.name.clone()], &[]).ok();
        self.ip("link set lo up");
    }

    /// Removes it; one that is not there is removed already.
    pub fn delete(&self) {
        let _ = process::run(&["ip".into(), "netns".into(), "delete".into(), self.name.clone()], &[]);
    }

    /// Ends every process that lives inside.
    pub(super) fn end_processes(&self) {
        let pids = process::run(&["ip".into(), "netns".into(), "pids".into(), self.name.clone()], &[]);
        for pid in pids.stdout.lines().filter_map(|line| line.trim().parse().ok()) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// Runs a closure inside, on a thread of its own, and waits for it. Sockets made there stay there, wherever
    /// they are used later. A panic inside is passed on.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.switch();
                inside()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread inside.
    pub fn spawn<T: Send + 'static>(
        &self,
        inside: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let netns = self.clone();
        thread::spawn(move || {
            netns.switch();
            inside()
        })
    }

    /// Runs a program inside and waits for it.
    pub fn run(&self, argv: &[&str]) -> Output {
        self.run_with(&owned(argv), &[])
    }

    /// Runs a program inside with additions to its environment.
    pub fn run_with(&self, argv: &[String], environment: &[(String, String)]) -> Output {
        // A child is born in the namespace of the thread that makes it. Nothing else changes: mounts stay
        // visible as they are, unlike with `ip netns exec`, which mounts /sys anew and so hides bpffs.
        self.enter(|| process::run(argv, environment))
    }

    /// Starts a program inside and leaves it running.
    #[must_use]
    pub fn start(&self, argv: &[&str]) -> Background {
        self.start_with(&owned(argv), &[])
    }

    /// Starts a program inside with additions to its environment.
    #[must_use]
    pub fn start_with(&self, argv: &[String], environment: &[(String, String)]) -> Background {
        self.enter(|| Background::start(argv, environment))
    }

    /// Runs `ip` with arguments separated by blanks; it must succeed.
    pub fn ip(&self, args: &str) -> Output {
        self.run(&[&["ip"], &args.split_whitespace().collect::<Vec<_>>()[..]].concat()).ok()
    }

    /// Reads a file of `/proc/sys/net` or `/proc/net` as this namespace has it.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn read(&self, path: &str) -> String {
        // /proc/net belongs to the process's first thread, which has not moved.
        let path = path.replace("/proc/net/", "/proc/thread-self/net/");
        self.enter(|| std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {path}: {e}")))
    }

    /// Writes a file of `/proc/sys/net` as this namespace has it.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str) {
        self.enter(|| std::fs::write(path, text).unwrap_or_else(|e| panic!("write {text:?} to {path}: {e}")));
    }

    fn switch(&self) {
        let path = self.path();
        let file = File::open(&path).unwrap_or_else(|e| panic!("open {}: {e}", path.display()));
        setns(file, CloneFlags::CLONE_NEWNET).unwrap_or_else(|e| panic!("enter {}: {e}", path.display()));
    }
}

fn owned(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|&arg| arg.to_owned()).collect()
}
