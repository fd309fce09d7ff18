//! A Docker daemon of the lab's own: its state in a directory that goes with it, its mounts its own, no bridge and no
//! rules. Its containers have no network but what the test attaches.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::process::{self, Background, Output};
use super::wait::eventually;
use super::{Lab, Netns};

/// What a daemon takes: the variables by which `cargo xtask test` says where it is, the name by which it is installed.
const PARTS: [(&str, &str); 3] =
    [("VNET_DOCKERD", "dockerd"), ("VNET_CONTAINERD", "containerd"), ("VNET_RUNC", "runc")];
/// The image that containers are made of: busybox and nothing else.
const IMAGE: &str = "busybox";

/// A daemon, until it is dropped.
#[derive(Debug)]
pub struct Docker {
    daemon: Background,
    environment: Vec<(String, String)>,
    socket: PathBuf,
    cgroup: String,
    // Goes last.
    _directory: TempDir,
}

impl Docker {
    /// Starts a daemon on the lab's host. Where there is none to start, the reason is printed.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(lab: &Lab) -> Option<Self> {
        let path = match search_path() {
            Ok(path) => path,
            Err(missing) => {
                eprintln!("no containers are tried: {missing}; `cargo xtask test` gets it");
                return None;
            }
        };
        let directory = TempDir::new().expect("a directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        let socket = directory.path().join("socket");
        let mut environment = vec![("PATH".to_owned(), path)];
        if let Some(library) = env::var_os("VNET_LIBDEVMAPPER") {
            let libraries = Path::new(&library).parent().expect("a library is in a directory");
            environment.push(("LD_LIBRARY_PATH".to_owned(), libraries.display().to_string()));
        }
        // What it mounts, and what it leaves in /run, is nobody else's.
        let command = format!(
            "mount -t tmpfs none /run && exec dockerd --data-root {} --exec-root {} --pidfile {} --host unix://{} \
             --storage-driver vfs --bridge none --iptables=false --ip6tables=false \
             --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent /{}",
            at("data"),
            at("exec"),
            at("pid"),
            socket.display(),
            lab.instance(),
        );
        let argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &command];
        let argv: Vec<String> = argv.into_iter().map(str::to_owned).collect();
        let daemon = lab.host().start_with(&argv, &environment);
        let cgroup = lab.instance().to_owned();
        let docker = Self { daemon, environment, socket, cgroup, _directory: directory };
        let _ready = docker.daemon.line_with(&["API listen on"]);
        docker.import(lab.host());
        Some(docker)
    }

    /// The socket at which it is asked, as `DOCKER_HOST` names it.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Starts a container that does nothing, with these options.
    ///
    /// # Panics
    /// When it does not start.
    pub fn run(&self, name: &str, options: &[&str]) {
        let sleeps = [IMAGE, "/bin/busybox", "sleep", "600"];
        self.docker(&[&["run", "--detach", "--name", name], options, &sleeps].concat());
    }

    /// Runs a program of busybox in a container.
    #[must_use]
    pub fn exec(&self, container: &str, argv: &[&str]) -> Output {
        self.docker_says(&[&["exec", container, "/bin/busybox"], argv].concat())
    }

    /// Runs its client, which must succeed.
    ///
    /// # Panics
    /// With what it said, if it does not.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> Output {
        self.docker_says(args).ok()
    }

    fn docker_says(&self, args: &[&str]) -> Output {
        let host = self.host();
        let argv = [&["docker", "--host", &host], args].concat();
        process::run(&argv.into_iter().map(str::to_owned).collect::<Vec<_>>(), &self.environment)
    }

    /// Makes the image.
    fn import(&self, host: &Netns) {
        let busybox =
            env::var_os("VNET_BUSYBOX").map_or_else(|| PathBuf::from("/bin/busybox"), PathBuf::from);
        let root = TempDir::new().expect("a directory");
        fs::create_dir(root.path().join("bin")).expect("a directory in it");
        fs::copy(&busybox, root.path().join("bin/busybox"))
            .unwrap_or_else(|e| panic!("copy {}: {e}", busybox.display()));
        let archive = root.path().join("image.tar").display().to_string();
        let directory = root.path().display().to_string();
        host.run(&["tar", "--create", "--file", &archive, "--directory", &directory, "bin"]).ok();
        self.docker(&["import", &archive, IMAGE]);
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // It stops its containers and its containerd, and then itself.
        let containers = self.docker_says(&["ps", "--all", "--quiet"]).stdout;
        for container in containers.lines() {
            self.docker_says(&["rm", "--force", container]);
        }
        self.daemon.signal(Signal::SIGTERM);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.daemon.wait()));
        if ended.is_err() && !std::thread::panicking() {
            panic!("dockerd does not stop: {:#?}", self.daemon.lines());
        }
        remove_cgroups(&self.cgroup);
    }
}

/// The search path for a daemon's programs; what is missing, if something is.
fn search_path() -> Result<String, String> {
    let usual = env::var_os("PATH").unwrap_or_default();
    let usual: Vec<PathBuf> = env::split_paths(&usual).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    let mut paths: Vec<PathBuf> = Vec::new();
    for (variable, program) in PARTS {
        match env::var_os(variable) {
            // Its client is in another directory of the same package.
            Some(path) => {
                let directory = Path::new(&path).parent().expect("a program is in a directory");
                paths.extend([directory.to_owned(), directory.join("../bin")]);
            }
            None if usual.iter().any(|directory| directory.join(program).is_file()) => {}
            None => return Err(format!("there is no {program}")),
        }
    }
    let all: OsString = env::join_paths(paths.into_iter().chain(usual)).map_err(|error| error.to_string())?;
    all.into_string().map_err(|path| format!("{} is no text", path.display()))
}

/// Removes the control groups that were made for the containers of a daemon that is gone: in the unified hierarchy, and in
/// those of older kernels beside it.
fn remove_cgroups(name: &str) {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        let group = hierarchy.join(name);
        if !group.is_dir() {
            continue;
        }
        let within = fs::read_dir(&group).into_iter().flatten().flatten().map(|entry| entry.path());
        let groups: Vec<PathBuf> = within.filter(|path| path.is_dir()).chain([group.clone()]).collect();
        for group in groups {
            eventually(
                || {
                    // Its last process may be on its way out.
                    let gone = fs::remove_dir(&group).is_ok() || !group.exists();
                    gone.then_some(())
                },
                || format!("{} to be empty", group.display()),
            );
        }
    }
}
