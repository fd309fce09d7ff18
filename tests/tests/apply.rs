//! Instances described in files: made, exported, made again, changed, refused, killed on the way.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vnet::file;
use vnet_tests::lab::{Endpoint, FAMILIES, Lab, Netns, Output, Snapshot, vnet_binary};
use vnet_tests::peer::{Ask, Ping, Server, Service};

/// A file for one test.
struct File {
    _directory: TempDir,
    path: PathBuf,
}

impl File {
    fn new(text: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("vnet.toml");
        fs::write(&path, text).unwrap();
        Self { _directory: directory, path }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

/// Something of most kinds; names are the lab's own, since namespaces are global.
fn whole(lab: &Lab) -> String {
    let (web, db) = (lab.name("web"), lab.name("db"));
    format!(
        r#"
excluded = ["10.8.0.0/16"]
[instance]
endpoint-flows = 1000
timeouts = {{ udp-replied = "10m" }}
[networks.blue]
subnets = ["10.1.0.0/24", "fd00:1::/64"]
isolated = true
[endpoints.{web}]
[endpoints.{db}]
network = "blue"
addresses = ["10.1.0.80"]
mac = "02:00:00:00:00:80"
[[portmaps]]
publish = 8088
target = "{web}:80"
[[portmaps]]
publish = "9000-9010"
target = "{db}:9000-9010"
protocol = "udp"
[[portmaps]]
publish = "[2001:db8:113::1]:8443"
target = "{db}:80"
allow-from = ["2001:db8:113::/64"]
[[masquerades]]
sources = "10.1.0.80/32"
to = "203.0.113.1"
"#
    )
}

fn apply(lab: &Lab, text: &str, options: &[&str]) -> Output {
    let file = File::new(text);
    lab.vnet(&[&["apply", "-f", file.path()], options].concat())
}

/// Lines of a file, with what is expected to be said of some.
struct Lines(Vec<(String, &'static str)>);

impl Lines {
    fn new(lines: &[(&str, &'static str)]) -> Self {
        Self(lines.iter().map(|(line, said)| ((*line).to_owned(), *said)).collect())
    }

    fn text(&self) -> String {
        self.0.iter().map(|(line, _)| format!("{line}\n")).collect()
    }

    /// The places and words that are expected of a file of this name.
    fn expected(&self, name: &str) -> Vec<(String, &'static str)> {
        let lines = self.0.iter().enumerate().filter(|(_, (_, said))| !said.is_empty());
        lines.map(|(nth, (_, said))| (format!("{name}:{}:", nth + 1), *said)).collect()
    }
}

/// Checks that exactly what is expected is said of the files.
#[track_caller]
fn says_exactly(output: &Output, status: i32, expected: &[(String, &str)]) {
    let said: Vec<&str> = output.stderr.lines().filter(|line| !line.starts_with("vnet: ")).collect();
    for (place, words) in expected {
        let is_it = |line: &&&str| line.contains(place.as_str()) && line.contains(words);
        assert!(said.iter().any(|line| is_it(&line)), "{place} {words}\n{output}");
    }
    assert!(said.len() == expected.len() && output.status == Some(status), "{}\n{output}", expected.len());
}

fn export(lab: &Lab) -> String {
    lab.vnet_ok(&["export"]).stdout
}

/// The world reaches the endpoint by a published port, and the endpoint reaches the world.
#[track_caller]
fn traffic_flows(lab: &Lab, published: u16, short: &str, port: u16) {
    let endpoint = Endpoint::observe(&lab.name(short));
    let _server = Server::tcp(endpoint.netns(), &format!("[::]:{port}"), Service::Echo);
    for (outside, host) in FAMILIES {
        Ask::tcp((host, published).into()).in_netns(lab.outside());
        Ping::to(outside).in_netns(endpoint.netns());
    }
}

#[test]
fn an_instance_is_made_exported_and_made_again() {
    let lab = Lab::new();
    let clean = lab.snapshot();
    let text = whole(&lab);
    let planned = apply(&lab, &text, &["--dry-run"]).ok().stdout;
    assert!(planned.contains(&format!("+ endpoint {}", lab.name("web"))), "{planned}");
    lab.snapshot().assert_same_as(&clean);
    let made = apply(&lab, &text, &[]).ok();
    assert!(made.stdout.contains("0 changed, 0 removed"), "{made}");
    traffic_flows(&lab, 8088, "web", 80);
    let whole_lab: Snapshot = lab.snapshot();
    let first = export(&lab);
    // The same in JSON.
    let json = lab.vnet_ok(&["export", "--json"]).stdout;
    assert!(json.starts_with("{\"version\":1,"), "{json}");
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("vnet.json");
    fs::write(&path, &json).unwrap();
    let again = lab.vnet_ok(&["apply", "-f", path.to_str().unwrap()]).stdout;
    assert_eq!(again, "nothing to change: everything is as described\n");
    for (what, options) in [(&text, &[][..]), (&first, &[]), (&text, &["--prune"]), (&first, &["--prune"])] {
        let again = apply(&lab, what, options).ok();
        assert_eq!(again.stdout, "nothing to change: everything is as described\n", "{again}");
    }
    lab.snapshot().assert_same_as(&whole_lab);
    lab.vnet_ok(&["down"]);
    lab.snapshot().assert_same_as(&clean);
    apply(&lab, &first, &[]).ok();
    assert_eq!(export(&lab), first);
    traffic_flows(&lab, 8088, "web", 80);
}

#[test]
fn what_commands_made_is_exported() {
    let lab = Lab::up();
    let net1 = lab.endpoint_with("net1", &["--ip", "192.168.0.77", "--ifname", "lan0"]);
    lab.vnet_ok(&["network", "create", "blue", "--subnet", "10.1.0.0/24", "--gateway", "10.1.0.9"]);
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    lab.vnet_ok(&["masquerade", "exclude", "10.8.0.0/16"]);
    lab.host().ip("addr add 203.0.113.77/32 dev eth0");
    lab.vnet_ok(&["floating", "add", "203.0.113.77", net1.name()]);
    lab.vnet_ok(&["up", "--timeout", "dns=20s"]);
    let text = export(&lab);
    assert!(text.contains("dns = \"20s\"") && text.contains("gateways = [\"10.1.0.9\"]"), "{text}");
    lab.vnet_ok(&["down"]);
    apply(&lab, &text, &[]).ok();
    assert_eq!(export(&lab), text);
    traffic_flows(&lab, 8088, "net1", 80);
}

#[test]
fn changes_are_seen_before_and_made_with_the_rest_going_only_when_asked() {
    let lab = Lab::new();
    apply(&lab, &whole(&lab), &[]).ok();
    let (web, db) = (lab.name("web"), lab.name("db"));
    let other = format!(
        "[networks.blue]\nsubnets = [\"10.1.0.0/24\", \"fd00:1::/64\"]\nisolated = true\n\
         [endpoints.{db}]\nnetwork = \"blue\"\n[[portmaps]]\npublish = 8088\ntarget = \"{db}:80\"\n"
    );
    let planned = apply(&lab, &other, &["--dry-run"]).ok().stdout;
    let change = format!("~ portmap 8088/tcp: target {web}:80 -> {db}:80");
    assert!(planned.lines().any(|line| line == change), "{planned}");
    assert!(planned.contains(&format!("= endpoint {web}: not in the file")), "{planned}");
    apply(&lab, &other, &[]).ok();
    traffic_flows(&lab, 8088, "db", 80);
    let planned = apply(&lab, &other, &["--prune", "--dry-run"]).ok().stdout;
    assert!(planned.contains(&format!("- endpoint {web}")) && !planned.contains("\n= "), "{planned}");
    let json = apply(&lab, &other, &["--prune", "--dry-run", "--json"]).ok().json();
    let removed = json["changes"].as_array().unwrap().iter().filter(|it| it["action"] == "remove").count();
    assert!(removed == 5 && json["version"] == 1, "{json:#}");
    let done = apply(&lab, &other, &["--prune"]).ok();
    assert!(done.stdout.contains("5 removed"), "{done}");
    assert_eq!(lab.vnet_list(&["ns", "ls"], "endpoints").len(), 1);
    assert_eq!(lab.vnet_list(&["portmap", "ls"], "portmaps").len(), 1);
    traffic_flows(&lab, 8088, "db", 80);
}

#[test]
fn everything_wrong_is_refused_at_once_with_its_place_and_nothing_is_touched() {
    let lab = Lab::new();
    let clean = lab.snapshot();
    let nonsense = "[instance]\nuplinks = \"eth0\"\n[endpoints.a]\nadress = 1\n[[portmaps]]\npublish = 1\n";
    let output = apply(&lab, nonsense, &[]);
    let words =
        ["3 problems", "vnet.toml:2:11: ", "vnet.toml:4:1: \"adress\" is not known", "vnet.toml:5:1: "];
    output.fails_with(2, &words);
    let (a, b) = (lab.name("a"), lab.name("b"));
    let impossible = format!(
        "[instance]\nuplinks = [\"eth7\"]\n[networks.red]\nsubnets = [\"203.0.113.0/25\"]\n[endpoints.{a}]\n\
         addresses = [\"10.9.9.9\"]\n[endpoints.{b}]\n[[floating]]\nexternal = \"203.0.113.99\"\ntarget = \"{b}\"\n"
    );
    let words =
        ["vnet.toml:1:1: ", "eth7", "vnet.toml:3:11: ", "vnet.toml:5:12: ", "vnet.toml:8:1: ", "ip addr add"];
    apply(&lab, &impossible, &[]).fails_with(1, &words);
    lab.snapshot().assert_same_as(&clean);
    assert!(!lab.run_dir().exists(), "no record of an instance that did not come up");
    lab.vnet(&["apply", "-f", "/nowhere.toml"]).fails_with(1, &["/nowhere.toml"]);
    let empty = TempDir::new().unwrap();
    lab.vnet(&["apply", "-f", empty.path().to_str().unwrap()]).fails_with(1, &["no *.toml"]);
}

/// One error of every class, in files of a description that is not up: found in the text, between parts, between files,
/// and against the host.
#[test]
fn errors_of_every_class_are_told_in_one_run_whatever_else_is_wrong() {
    let lab = Lab::new();
    let [a, b, c, d, e, f, g] = ["a", "b", "c", "d", "e", "f", "g"].map(|name| lab.name(name));
    let taken = Netns::named(&f);
    taken.create();
    let _server = Server::tcp(lab.host(), "0.0.0.0:7000", Service::Echo);
    let clean = lab.snapshot();
    let first = Lines::new(&[
        ("[instance]", "no interface eth7"),
        ("uplinks = [\"eth7\"]", ""),
        ("[networks.red]", "overlaps the address 203.0.113.1"),
        ("subnets = [\"203.0.113.0/25\"]", ""),
        ("[networks.green]", ""),
        ("subnets = [\"10.3.0.1/24\"]", "the prefix is 10.3.0.0/24"),
        (&format!("[endpoints.{a}]"), ""),
        ("adress = 1", "\"adress\" is not known"),
        (&format!("[endpoints.{b}]"), "10.9.9.9"),
        ("addresses = [\"10.9.9.9\"]", ""),
        (&format!("[endpoints.{c}]"), "/run/netns/vnet-nowhere"),
        ("netns = \"/run/netns/vnet-nowhere\"", ""),
        // What is wrong with their network is not wrong with them.
        (&format!("[endpoints.{d}]"), ""),
        ("network = \"green\"", ""),
        (&format!("[endpoints.{g}]"), ""),
        ("network = \"red\"", ""),
        (&format!("[endpoints.{f}]"), "exists"),
        ("[[portmaps]]", ""),
        ("publish = 8080", ""),
        ("target = \"nobody:80\"", "there is no endpoint nobody"),
        ("[[portmaps]]", ""),
        ("publish = 8081", ""),
        (&format!("target = \"{a}:80\""), ""),
        ("[[portmaps]]", "port 7000/tcp is held by"),
        ("publish = 7000", ""),
        (&format!("target = \"{e}:80\""), ""),
        ("[[floating]]", "not an address of this host"),
        ("external = \"203.0.113.99\"", ""),
        (&format!("target = \"{e}\""), ""),
    ]);
    let second = Lines::new(&[
        (&format!("[endpoints.{e}]"), ""),
        ("[[portmaps]]", "8080/tcp is published twice"),
        ("publish = 8080", ""),
        (&format!("target = \"{e}:80\""), ""),
        ("[instance]", ""),
        ("flood-rate = -1", "a number from 0"),
    ]);
    let directory = TempDir::new().unwrap();
    let write = |name: &str, text: String| fs::write(directory.path().join(name), text).unwrap();
    write("10-first.toml", first.text());
    write("20-second.toml", second.text());
    let apply = |options: &[&str]| {
        let files = ["apply", "-f", directory.path().to_str().unwrap()];
        lab.vnet(&[&files[..], options].concat())
    };
    // Whether there is such an uplink is not asked of an instance about which something is wrong in itself.
    let uplink = ("10-first.toml:1:".to_owned(), "no interface eth7");
    let mut expected = first.expected("10-first.toml");
    expected.extend(second.expected("20-second.toml"));
    expected.retain(|problem| *problem != uplink);
    for options in [&[][..], &["--dry-run"], &["--prune"], &["--json"]] {
        says_exactly(&apply(options), 2, &expected);
    }
    // What could not be understood may hold what is named elsewhere; all else is still told.
    write("30-third.toml", format!("[endpoints.nobody]\n[endpoints.{d}-2\n"));
    expected.retain(|(_, said)| !said.contains("nobody"));
    expected.push(("30-third.toml:2:".to_owned(), "this is not TOML"));
    says_exactly(&apply(&[]), 2, &expected);
    lab.snapshot().assert_same_as(&clean);
    assert!(!lab.run_dir().exists(), "no record of an instance that did not come up");

    // Once the files make sense, the uplink is looked for as well, beside all else that the host has against them.
    fs::remove_file(directory.path().join("30-third.toml")).unwrap();
    write("20-second.toml", format!("[endpoints.{e}]\n"));
    let mended = first.text().replace("adress = 1", "").replace("10.3.0.1/24", "10.3.0.0/24");
    write("10-first.toml", mended.replace("nobody", &e));
    let mut expected = first.expected("10-first.toml");
    expected
        .retain(|(_, said)| ["the prefix is", "adress", "nobody"].iter().all(|word| !said.contains(word)));
    says_exactly(&apply(&[]), 1, &expected);
    lab.snapshot().assert_same_as(&clean);
    taken.delete();
}

#[test]
fn the_default_network_is_as_it_is_where_no_file_names_it() {
    let lab = Lab::new();
    let web = lab.name("web");
    let whole = "[networks.default]\nsubnets = [\"192.168.7.0/24\"]\nranges = [\"192.168.7.128/25\"]\n\
                 no-bridge = true\nisolated = true\nudp-mapping = \"address-and-port\"\n";
    apply(&lab, whole, &[]).ok();
    let before = export(&lab);
    let endpoint = format!("[endpoints.{web}]\n");
    let made = apply(&lab, &endpoint, &[]).ok().stdout;
    assert_eq!(made.lines().next(), Some("1 added, 0 changed, 0 removed"), "{made}");
    assert_eq!(lab.vnet_list(&["ns", "ls"], "endpoints")[0]["addresses"][0], "192.168.7.128");
    assert_eq!(apply(&lab, &endpoint, &[]).ok().stdout, "nothing to change: everything is as described\n");
    // What can be changed is as documented where nobody says otherwise and nothing else is to be.
    let planned = apply(&lab, &endpoint, &["--prune", "--dry-run"]).ok().stdout;
    assert!(planned.starts_with("~ network default: udp-mapping address-and-port -> default\n"), "{planned}");
    apply(&lab, &endpoint, &["--prune"]).ok();
    let after = export(&lab);
    assert!(after.contains("no-bridge = true") && after.contains("isolated = true"), "{after}");
    apply(&lab, whole, &["--prune"]).ok();
    assert_eq!(export(&lab), before);
}

#[test]
fn several_files_and_standard_input_are_one_description() {
    let lab = Lab::new();
    let directory = TempDir::new().unwrap();
    let (web, db) = (lab.name("web"), lab.name("db"));
    fs::write(directory.path().join("10-web.toml"), format!("[endpoints.{web}]\n")).unwrap();
    fs::write(directory.path().join("20-db.toml"), format!("[endpoints.{db}]\n")).unwrap();
    fs::write(directory.path().join("ignored.txt"), "nonsense").unwrap();
    let ports = File::new(&format!("[[portmaps]]\npublish = 8088\ntarget = \"{web}:80\"\n"));
    let from_stdin = |arguments: &str, stdin: &str| {
        let vnet = vnet_binary();
        let line = format!("exec {} apply {arguments} <{stdin}", vnet.display());
        lab.host().run_with(&["sh".to_owned(), "-c".to_owned(), line], &lab.environment())
    };
    let directory_path = directory.path().to_str().unwrap();
    from_stdin(&format!("-f {directory_path} -f -"), ports.path()).ok();
    traffic_flows(&lab, 8088, "web", 80);
    let conflict = from_stdin(&format!("-f {directory_path} -f -"), &format!("{directory_path}/20-db.toml"));
    let both = ["standard input:1:12: ", "is described twice", "20-db.toml:1:12"];
    conflict.fails_with(2, &both);
    // As of a program that has failed to write anything.
    from_stdin("-f - --prune", "/dev/null")
        .fails_with(1, &["--prune would remove everything", "`vnet down`"]);
    traffic_flows(&lab, 8088, "web", 80);
}

#[test]
fn what_has_gone_is_brought_back() {
    let lab = Lab::new();
    let text = whole(&lab);
    apply(&lab, &text, &[]).ok();
    lab.host().ip("link del vnet0");
    let planned = apply(&lab, &text, &["--dry-run"]).ok().stdout;
    assert!(planned.contains("~ create bridge vnet0"), "{planned}");
    let done = apply(&lab, &text, &[]).ok();
    assert!(done.stdout.contains("brought back what had gone"), "{done}");
    assert_eq!(apply(&lab, &text, &[]).ok().stdout, "nothing to change: everything is as described\n");
    traffic_flows(&lab, 8088, "web", 80);
}

/// Kills the command a little later each time, whatever it is doing then.
#[test]
fn a_killed_command_is_completed_by_the_same_command() {
    let lab = Lab::new();
    let text = whole(&lab);
    let file = File::new(&text);
    let begun = Instant::now();
    apply(&lab, &text, &[]).ok();
    let whole_time = begun.elapsed();
    let expected = export(&lab);
    let mut killed = 0;
    for nth in 1..=12 {
        if nth % 3 != 0 {
            lab.vnet_ok(&["down"]);
        } else {
            // A change of what is up, on every third.
            apply(&lab, "[endpoints]\n", &["--prune"]).ok();
        }
        let mut child = lab.vnet_start(&["apply", "-f", file.path()]);
        // Not to wait for anything: this is when it is killed.
        std::thread::sleep(whole_time * nth / 13 + Duration::from_millis(1));
        if child.is_running() {
            child.signal(nix::sys::signal::Signal::SIGKILL);
        }
        killed += u32::from(child.wait() != Some(0));
        apply(&lab, &text, &[]).ok();
        assert_eq!(export(&lab), expected, "killed at {nth}/13");
        let again = apply(&lab, &text, &[]).ok();
        assert_eq!(again.stdout, "nothing to change: everything is as described\n", "{again}");
    }
    assert!(killed >= 4, "only {killed} commands were killed before they were done");
    traffic_flows(&lab, 8088, "web", 80);
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

#[test]
fn the_schema_is_current() {
    let path = docs().join("vnet.schema.json");
    if std::env::var_os("VNET_UPDATE_SCHEMA").is_some() {
        fs::write(&path, file::schema()).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == file::schema(),
        "run VNET_UPDATE_SCHEMA=1 cargo test -p vnet-tests --test apply schema"
    );
}

#[test]
fn the_examples_can_be_applied() {
    let mut examples: Vec<PathBuf> =
        fs::read_dir(docs().join("examples")).unwrap().map(|entry| entry.unwrap().path()).collect();
    examples.sort();
    assert!(examples.len() >= 3, "{examples:?}");
    for path in examples {
        let lab = Lab::new();
        let planned = lab.vnet_ok(&["apply", "--dry-run", "-f", path.to_str().unwrap()]);
        assert!(planned.stdout.contains("+ endpoint"), "{}: {planned}", path.display());
    }
}

#[test]
fn the_unit_is_understood_by_systemd() {
    let unit = fs::read_to_string(docs().join("systemd/vnet.service")).unwrap();
    // It is to be verified here, where vnet is another file.
    let vnet = vnet_binary();
    let unit = unit.replace("/usr/local/bin/vnet", vnet.to_str().unwrap());
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("vnet.service");
    fs::write(&path, unit).unwrap();
    let verified = Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&path).output();
    match verified {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: there is no systemd-analyze on this machine");
        }
        Err(error) => panic!("run systemd-analyze: {error}"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let about_it: Vec<&str> = said.lines().filter(|line| line.contains("vnet.service")).collect();
            assert!(output.status.success() && output.status.signal().is_none(), "{said}");
            assert!(about_it.is_empty(), "{about_it:#?}");
        }
    }
}
