//! docker-proxy, the real one: a process that accepts connections on the host and carries their bytes.

use std::path::PathBuf;
use std::process::Command;

use vnet_tests::lab::eventually;

use super::bridged::{Bridged, NET1};
use super::{Absent, PUBLISHED, Rival, Site, TARGET_PORT, find};
use crate::case::Case;

/// Says where the program is; `cargo xtask bench` sets it.
const LOCATION: &str = "VNET_DOCKER_PROXY";
/// What it is out of where it is not installed.
const VERSION: &str = "VNET_DOCKER_PROXY_VERSION";

#[derive(Debug)]
pub(super) struct DockerProxy;

impl Rival for DockerProxy {
    fn name(&self) -> &'static str {
        "docker-proxy"
    }

    fn what(&self) -> &'static str {
        "Docker's userland proxy alone, one process for TCP and one for UDP, free to run on any CPU"
    }

    fn version(&self) -> Result<String, Absent> {
        let program =
            program().ok_or_else(|| Absent("no docker-proxy (Debian's package docker.io)".into()))?;
        if let Ok(version) = std::env::var(VERSION) {
            return Ok(format!("docker.io {version}"));
        }
        let query = ["--show", "--showformat=${Version}", "docker.io"];
        let said = Command::new("dpkg-query").args(query).output();
        let said = said.ok().filter(|said| said.status.success()).map(|said| said.stdout);
        let Some(said) = said else {
            // It answers no question about itself.
            let name = program.file_name().unwrap_or_default();
            return Ok(format!("{} of unknown version", name.to_string_lossy()));
        };
        Ok(format!("docker.io {}", String::from_utf8_lossy(&said)))
    }

    fn lacks(&self, case: Case) -> Option<&'static str> {
        match case {
            Case::Masquerade | Case::Direct => Some("it only publishes ports"),
            Case::Published | Case::Hairpin | Case::HostLocal => None,
        }
    }

    fn set_up(&self) -> Box<dyn Site> {
        let mut host = Bridged::new();
        let program = program().expect("looked for before");
        for proto in ["tcp", "udp"] {
            // It reports to descriptor 3. The shell opens that and becomes the proxy, which so keeps the process id.
            let script = "exec \"$0\" -proto \"$1\" -host-ip 0.0.0.0 -host-port \"$2\" -container-ip \"$3\" \
                          -container-port \"$4\" 3>&1";
            let arguments =
                [proto.to_owned(), PUBLISHED.to_string(), NET1.to_string(), TARGET_PORT.to_string()];
            let mut argv = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
            argv.push(program.to_str().expect("a path in UTF-8").to_owned());
            argv.extend(arguments);
            let proxy = host.lab.host().start_with(&argv, &[]);
            // "0" is that it listens, "1" and a reason that it does not.
            let report =
                eventually(|| proxy.lines().into_iter().next(), || "docker-proxy to report".to_owned());
            assert_eq!(report, "0", "docker-proxy: {:?}", proxy.lines());
            host.programs.push(proxy);
        }
        Box::new(host)
    }
}

fn program() -> Option<PathBuf> {
    let named = std::env::var_os(LOCATION).map(PathBuf::from);
    let usual = ["/usr/libexec/docker/docker-proxy", "/usr/lib/docker/docker-proxy"].map(PathBuf::from);
    let found = named.into_iter().chain(find("docker-proxy")).chain(usual);
    found.into_iter().find(|path| path.is_file())
}
