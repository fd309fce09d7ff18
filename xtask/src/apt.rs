//! Installing Debian packages: never silently, never removing another, and asking for new package lists only when the
//! ones at hand do not do.

use crate::process;
use crate::steps::Steps;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Installs packages, from `suite` where the release's own would not do. One line says what and why.
pub(crate) fn install(steps: &mut Steps, packages: &[&str], suite: Option<&str>, why: &str) -> Result<()> {
    steps.step(&format!("installing {} with apt-get: {why}", packages.join(" ")), || {
        let fresh_lists = !all_known(packages)?;
        if fresh_lists {
            update()?;
        }
        match install_now(packages, suite) {
            // Lists get old: the version they name may be gone from the archive.
            Err(_) if !fresh_lists => update().and_then(|()| install_now(packages, suite)),
            result => result,
        }
    })
}

/// Downloads a package into a directory without installing it; returns its file.
pub(crate) fn download(package: &str, dir: &Path) -> Result<PathBuf> {
    let fresh_lists = !all_known(&[package])?;
    if fresh_lists {
        update()?;
    }
    let now = || process::output(apt_get().args(["download", package]).current_dir(dir));
    match now() {
        Err(_) if !fresh_lists => update().and_then(|()| now())?,
        result => result?,
    };
    let files = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    let mut files = files.flatten().map(|file| file.path());
    let file = files.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    file.with_context(|| format!("apt-get has not downloaded {package}"))
}

fn install_now(packages: &[&str], suite: Option<&str>) -> Result<()> {
    let mut command = apt_get();
    command.args(["install", "--yes", "--no-install-recommends", "--no-remove"]);
    command.args(suite.map(|suite| format!("--target-release={suite}")));
    process::output(command.args(packages)).map(drop)
}

fn update() -> Result<()> {
    process::output(apt_get().arg("update")).map(drop)
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // Another apt may be at work; waiting for it beats failing.
    command.args(["-q", "--option=DPkg::Lock::Timeout=300"]).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn all_known(packages: &[&str]) -> Result<bool> {
    let mut command = Command::new("apt-cache");
    let policy = process::output(command.arg("policy").args(packages).env("LC_ALL", "C"))?;
    Ok(candidates(&policy) == packages.len())
}

/// How many packages apt could install, from what `apt-cache policy` prints of each.
fn candidates(policy: &str) -> usize {
    let lines = policy.lines().filter_map(|line| line.trim().strip_prefix("Candidate: "));
    lines.filter(|candidate| *candidate != "(none)").count()
}

#[cfg(test)]
mod tests {
    use super::candidates;

    #[test]
    fn a_package_counts_when_it_has_a_candidate() {
        let policy = "curl:\n  Installed: (none)\n  Candidate: 7.88.1-10\n  Version table:\n     7.88.1-10 500\n\
                      gone:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n";
        assert_eq!(candidates(policy), 1);
        assert_eq!(candidates(""), 0);
    }
}
