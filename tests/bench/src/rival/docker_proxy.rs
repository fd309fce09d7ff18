//! docker-proxy, the real one: a process that accepts connections on the host and carries their bytes.

use vnet_tests::lab::eventually;

use super::bridged::{Bridged, NET1};
use super::{Absent, PUBLISHED, Rival, Site, TARGET_PORT};
use crate::case::Case;
use crate::packaged::Packaged;

const PROXY: Packaged = Packaged {
    program: "docker-proxy",
    package: "docker.io",
    variable: "VNET_DOCKER_PROXY",
    places: &["/usr/libexec/docker", "/usr/lib/docker"],
};

#[derive(Debug)]
pub(super) struct DockerProxy;

impl Rival for DockerProxy {
    fn name(&self) -> &'static str {
        super::DOCKER_PROXY
    }

    fn what(&self) -> &'static str {
        "Docker's userland proxy alone, one process for TCP and one for UDP, free to run on any CPU"
    }

    fn version(&self) -> Result<String, Absent> {
        PROXY.version()
    }

    fn lacks(&self, case: Case) -> Option<&'static str> {
        match case {
            Case::Masquerade | Case::Direct => Some("it only publishes ports"),
            Case::Published | Case::Hairpin | Case::HostLocal => None,
        }
    }

    fn set_up(&self) -> Box<dyn Site> {
        let mut host = Bridged::new();
        let program = PROXY.path().expect("looked for before");
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
