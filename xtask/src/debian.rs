//! Which distribution this is, and what Debian calls the parts of Rust in its releases.

use std::fs;

/// `ID` and `VERSION_CODENAME` of os-release(5).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OsRelease {
    id: String,
    codename: String,
}

/// Debian's packages of one Rust toolchain. They conflict with those of any other toolchain of Debian's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RustPackages {
    pub(crate) rustc: &'static str,
    /// The prebuilt core for bpfel-unknown-none.
    pub(crate) core: &'static str,
    pub(crate) rustfmt: &'static str,
    pub(crate) clippy: &'static str,
    /// The suite to take them from, where the release itself has only older ones.
    pub(crate) suite: Option<&'static str>,
}

impl OsRelease {
    pub(crate) fn read() -> Self {
        let read = |path| fs::read_to_string(path).ok();
        Self::parse(&read("/etc/os-release").or_else(|| read("/usr/lib/os-release")).unwrap_or_default())
    }

    pub(crate) fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let mut assignments = text.lines().filter_map(|line| line.split_once('='));
            let found = assignments.find(|(name, _)| *name == key);
            found.map(|(_, value)| value.trim().trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
        };
        Self { id: value("ID"), codename: value("VERSION_CODENAME") }
    }

    pub(crate) fn is_debian(&self) -> bool {
        self.id == "debian"
    }

    /// What to install for Rust with eBPF. Bookworm's new toolchain is the one packaged for web browsers; trixie has one
    /// in its backports; later releases have it under the plain names.
    pub(crate) fn rust_packages(&self) -> RustPackages {
        let plain = RustPackages {
            rustc: "rustc",
            core: "libstd-rust-dev-bpf",
            rustfmt: "rustfmt",
            clippy: "rust-clippy",
            suite: None,
        };
        match self.codename.as_str() {
            "bookworm" => RustPackages {
                rustc: "rustc-web",
                core: "libstd-rust-web-dev-bpf",
                rustfmt: "rustfmt-web",
                clippy: "rust-web-clippy",
                suite: None,
            },
            "trixie" => RustPackages { suite: Some("trixie-backports"), ..plain },
            _ => plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{OsRelease, RustPackages};

    const BOOKWORM: &str =
        "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n";

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        let expected = OsRelease { id: "debian".into(), codename: "bookworm".into() };
        assert_eq!(OsRelease::parse(BOOKWORM), expected);
        assert_eq!(OsRelease::parse("ID='debian'\nVERSION_CODENAME=\"bookworm\""), expected);
        assert_eq!(OsRelease::parse(""), OsRelease { id: String::new(), codename: String::new() });
    }

    #[test]
    fn a_derivative_is_not_debian() {
        assert!(OsRelease::parse(BOOKWORM).is_debian());
        assert!(!OsRelease::parse("ID=ubuntu\nID_LIKE=debian\n").is_debian());
    }

    #[test]
    fn every_release_of_debian_has_its_names_for_rust() {
        let packages = |codename: &str| {
            let os = OsRelease { id: "debian".into(), codename: codename.into() };
            let RustPackages { rustc, core, suite, .. } = os.rust_packages();
            (rustc, core, suite)
        };
        assert_eq!(packages("bookworm"), ("rustc-web", "libstd-rust-web-dev-bpf", None));
        assert_eq!(packages("trixie"), ("rustc", "libstd-rust-dev-bpf", Some("trixie-backports")));
        assert_eq!(packages("forky"), ("rustc", "libstd-rust-dev-bpf", None));
        assert_eq!(packages("sid"), packages("forky"));
    }
}
