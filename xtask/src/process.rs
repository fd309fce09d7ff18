//! Child processes: every exit status is looked at, and every error names the command it comes from.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, fs};

/// Where Debian keeps the programs of the administrator, which the `PATH` of an ordinary shell leaves out.
const ADMIN_DIRS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Runs a command whose output the user sees.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs a command for its standard output; what else it said is in the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = captured(command).with_context(|| format!("start `{}`", shown(command)))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        bail!("`{}` failed: {}\n{}", shown(command), output.status, said.concat().trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As [`output`], but a program which is not there is an answer.
pub(crate) fn output_if_present(command: &mut Command) -> Result<Option<String>> {
    if program_path(command.get_program()).is_none() {
        return Ok(None);
    }
    output(command).map(Some)
}

/// Whether a command works: the program is there, starts and ends well. What it says does not matter.
pub(crate) fn works(command: &mut Command) -> Result<bool> {
    match captured(command) {
        Ok(output) => Ok(output.status.success()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("start `{}`", shown(command))),
    }
}

/// Becomes the command: it gets the terminal, the signals, and its exit status is ours.
pub(crate) fn become_command(command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("start `{}`", shown(command)))
}

/// Where a program is: as given if that is a path, else on `PATH` or among the administrator's programs.
pub(crate) fn program_path(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let program = Path::new(program.as_ref());
    if program.components().count() > 1 {
        return is_executable(program).then(|| program.to_owned());
    }
    env::split_paths(&path_with_admin_dirs()).map(|dir| dir.join(program)).find(|path| is_executable(path))
}

/// `PATH`, with the administrator's directories at the end where it lacks them.
pub(crate) fn path_with_admin_dirs() -> std::ffi::OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    for dir in ADMIN_DIRS.map(PathBuf::from) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    env::join_paths(dirs).unwrap_or(path)
}

/// Whether we are root: a process owns its own directory in /proc.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn captured(command: &mut Command) -> std::io::Result<Output> {
    command.stdin(Stdio::null()).output()
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// The command as one would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
