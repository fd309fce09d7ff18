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
    let entered = Namespace::open(&command.namespace).and_then(|namespace| namespace.enter());
    if let Err(error) = entered {
        return error;
    }
    let source = process::Command::new(program).args(arguments).exec();
    Error::Execute { program: program.clone(), namespace: command.namespace.clone(), source }
}
