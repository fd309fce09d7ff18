//! A command in a namespace, in place of this process.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::Command;
use super::error::Error;
use super::netns::{self, Namespace};

/// Whom the host asks for names.
const RESOLVERS: &str = "/etc/resolv.conf";

/// Replaces the process; returns only on failure.
///
/// Only the network namespace changes, and whom it asks for names, if somebody has said so
/// (`/etc/netns/NAME/resolv.conf`): other mounts stay, so that bpffs and cgroups are where they were (`ip netns exec`
/// hides both). The process keeps its number, its terminal and its parent, so signals and the exit status go where they
/// would without vnet; `exec` of the standard library gives back what Rust changes at its start (SIGPIPE).
pub(super) fn replace_process(command: &Command) -> Error {
    let [program, arguments @ ..] = command.argv.as_slice() else { return Error::NoCommand };
    if let Some(namespace) = &command.namespace {
        let entered = Namespace::open(namespace).and_then(|namespace| namespace.enter());
        if let Err(error) = entered {
            return error;
        }
        if let Some(file) = resolvers_of(namespace)
            && let Err(source) = mount_resolvers(&file)
        {
            return Error::ReadFile { path: file, source };
        }
    }
    let source = process::Command::new(program).args(arguments).exec();
    let place =
        command.namespace.as_ref().map_or("the host's namespace".into(), |it| it.display().to_string());
    Error::Execute { program: program.clone(), place, source }
}

/// The file with whom to ask for names in a namespace, if there is one for it.
fn resolvers_of(namespace: &Path) -> Option<PathBuf> {
    let name = namespace.strip_prefix(netns::DIRECTORY).ok()?;
    let file = Path::new("/etc/netns").join(name).join("resolv.conf");
    (file.is_file() && Path::new(RESOLVERS).exists()).then_some(file)
}

/// Puts it in the place of the host's, for this process and those that it starts alone.
fn mount_resolvers(file: &Path) -> io::Result<()> {
    const NOTHING: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    // What is mounted here is not seen elsewhere; what is mounted elsewhere from now on is seen here.
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_SLAVE, NOTHING)?;
    mount(Some(file), RESOLVERS, NOTHING, MsFlags::MS_BIND, NOTHING)?;
    Ok(())
}
