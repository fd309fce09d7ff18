//! Kernel parameters below `/proc/sys/net`, which show the network namespace of the thread that opens them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::Error;

/// A parameter and the value it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    path: PathBuf,
    value: &'static str,
    optional: Optional,
}

/// Whether a kernel may do without a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Optional {
    No,
    Yes,
    /// As long as the interface has no IPv6 at all, as one with an MTU below 1280.
    WithIpv6,
}

impl Setting {
    /// A parameter of IPv4 for one interface.
    pub(super) fn v4(interface: &str, key: &str, value: &'static str) -> Self {
        Self { path: of_interface("ipv4", interface, key), value, optional: Optional::No }
    }

    /// A parameter of IPv6 for one interface; a kernel without IPv6 does without it, and so does an interface without.
    pub(super) fn v6(interface: &str, key: &str, value: &'static str) -> Self {
        let optional = if has_ipv6() { Optional::WithIpv6 } else { Optional::Yes };
        Self { path: of_interface("ipv6", interface, key), value, optional }
    }

    /// A parameter of IPv6 for one interface that newer kernels have.
    pub(super) fn v6_if_known(interface: &str, key: &str, value: &'static str) -> Self {
        Self { path: of_interface("ipv6", interface, key), value, optional: Optional::Yes }
    }

    /// What the parameter is instead, if it is not as it is to be.
    pub(super) fn difference(&self) -> Result<Option<String>, Error> {
        let other = self.current()?.filter(|value| value != self.value);
        Ok(other.map(|value| format!("{} is {value}, not {}", self.path.display(), self.value)))
    }

    /// What the parameter is; `None` if the kernel does without it.
    pub(super) fn current(&self) -> Result<Option<String>, Error> {
        match read(&self.path) {
            Err(Error::ReadSysctl { source, .. }) if self.may_be_missing(&source) => Ok(None),
            value => value.map(Some),
        }
    }

    /// The parameter's path, as what it is noted under.
    pub(super) fn key(&self) -> String {
        self.path.display().to_string()
    }

    /// Gives the parameter back what it was before it was applied, unless somebody else has changed it since or its
    /// interface is gone.
    pub(super) fn restore(&self, before: &str) -> Result<(), Error> {
        match read(&self.path) {
            Ok(value) if value == self.value && value != before => write(&self.path, before),
            Err(Error::ReadSysctl { source, .. }) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::ReadSysctl { path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// Gives the parameter its value.
    pub(super) fn apply(&self) -> Result<(), Error> {
        match write(&self.path, self.value) {
            Err(Error::WriteSysctl { source, .. }) if self.may_be_missing(&source) => Ok(()),
            done => done,
        }
    }

    fn may_be_missing(&self, error: &io::Error) -> bool {
        let may = match self.optional {
            Optional::No => false,
            Optional::Yes => true,
            Optional::WithIpv6 => self.path.parent().is_some_and(|of_interface| !of_interface.exists()),
        };
        may && error.kind() == io::ErrorKind::NotFound
    }
}

/// Reads a parameter, without the line's end.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    let text =
        fs::read_to_string(path).map_err(|source| Error::ReadSysctl { path: path.to_owned(), source })?;
    Ok(text.trim_end().to_owned())
}

/// Writes a parameter.
pub(super) fn write(path: &Path, value: &str) -> Result<(), Error> {
    // Not `fs::write`, which would have the file created: a missing parameter is then "permission denied".
    // The line's end matters: without it an empty value would be no write at all.
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|mut file| file.write_all(format!("{value}\n").as_bytes()))
        .map_err(|source| Error::WriteSysctl { path: path.to_owned(), value: value.to_owned(), source })
}

/// Whether a parameter of IPv6 is there for an interface, or all of them, and not 0.
pub(super) fn is_on_v6(interface: &str, key: &str) -> Result<bool, Error> {
    match read(&of_interface("ipv6", interface, key)) {
        Err(Error::ReadSysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        value => value.map(|value| value != "0"),
    }
}

/// Whether the kernel has IPv6.
pub(super) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6/conf/all").exists()
}

fn of_interface(family: &str, interface: &str, key: &str) -> PathBuf {
    ["/proc/sys/net", family, "conf", interface, key].iter().collect()
}
