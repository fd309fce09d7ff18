//! A command in a namespace, in place of this process.

use std::os::unix::process::CommandExt;
use std::process;

use super::Command;
use super::error::Error;
use super::netns::Namespace;

/// Replaces the process; returns only on failure.
///
/// Only the network namespace changes: mounts stay, so that bpffs and cgroups are where they were (`ip netns
/// exec` hides both). The process keeps its number, its terminal and its parent, so signals and the exit status
/// go where they would without vnet; `exec` of the standard library gives back what Rust changes at its start
/// (SIGPIPE).
pub(super) fn replace_process(command: &Command) -> Error {
    let [program, arguments @ ..] = command.argv.as_slice() else { return Error::NoCommand };
    if let Some(namespace) = &command.namespace {
        let entered = Namespace::open(namespace).and_then(|namespace| namespace.enter());
        if let Err(error) = entered {
            return error;
        }
    }
    let source = process::Command::new(program).args(arguments).exec();
    let place =
        command.namespace.as_ref().map_or("the host's namespace".into(), |it| it.display().to_string());
    Error::Execute { program: program.clone(), place, source }
}
