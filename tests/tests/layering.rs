//! Who may use whom: the architecture as a table that cannot go stale.
//!
//! Cargo keeps crates apart only as long as nobody adds a dependency, and rooms inside a crate not at all. So this
//! reads the manifests and the sources and compares them with the tables below. To allow something new, change the
//! table, where everybody sees it.

use std::fs;
use std::path::{Path, PathBuf};

/// A crate of the workspace.
struct Crate {
    dir: &'static str,
    /// Crates of the workspace that it may depend on.
    uses: &'static [&'static str],
    /// Other crates that it may depend on; `None` for any that [`NEVER`] allows.
    others: Option<&'static [&'static str]>,
}

/// Lowest first: a crate uses only what stands above it.
const CRATES: [Crate; 8] = [
    Crate { dir: "vnet-common", uses: &[], others: Some(&["bytemuck"]) },
    Crate { dir: "vnet-datapath", uses: &["vnet-common"], others: Some(&["bytemuck", "network-types"]) },
    Crate {
        dir: "vnet-ebpf",
        uses: &["vnet-common", "vnet-datapath"],
        others: Some(&["aya-ebpf", "aya-log-ebpf", "bytemuck"]),
    },
    Crate { dir: "vnet", uses: &["vnet-common", "vnet-datapath"], others: None },
    Crate { dir: "tests", uses: &["vnet-common", "vnet-datapath", "vnet"], others: None },
    Crate {
        dir: "tests/fuzz",
        uses: &["vnet-common", "vnet-datapath"],
        others: Some(&["bytemuck", "libfuzzer-sys"]),
    },
    Crate {
        dir: "tests/bench",
        uses: &["vnet-common", "vnet-datapath", "vnet", "tests"],
        others: Some(&[
            "anyhow",
            "aya",
            "aya-obj",
            "bytemuck",
            "clap",
            "nix",
            "serde",
            "serde_json",
            "tempfile",
            "tokio",
        ]),
    },
    Crate { dir: "xtask", uses: &[], others: Some(&["anyhow", "clap"]) },
];

/// What no crate without a list of its own may depend on: it is for the programs alone.
const NEVER: [&str; 2] = ["aya-ebpf", "aya-log-ebpf"];

/// Crates that are forbidden to hold unsafe code.
const SAFE: [&str; 2] = ["vnet-common", "vnet-datapath"];

/// A room of the control plane: a module of `vnet/src`, with all that is inside.
struct Room {
    name: &'static str,
    /// Rooms that it may use.
    uses: &'static [&'static str],
    /// What it may name of the system.
    may: May,
}

/// What a room may name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum May {
    /// Everything.
    TouchTheSystem,
    /// What moves bytes and waits, but not [`SYSTEM`].
    DoIo,
    /// Neither that nor [`IO`]: values in, values out.
    Compute,
}

/// Highest first: a room uses only what stands below it.
const ROOMS: [Room; 23] = [
    Room { name: "main", uses: &["cli"], may: May::DoIo },
    Room {
        name: "cli",
        uses: &[
            "run", "events", "file", "graph", "manage", "store", "output", "kernel", "top", "trace",
            "firewall", "flow", "plan", "spec", "runtime", "instance",
        ],
        may: May::DoIo,
    },
    Room {
        name: "run",
        uses: &["events", "metrics", "manage", "store", "output", "kernel", "flow", "names", "instance"],
        may: May::DoIo,
    },
    Room { name: "runtime", uses: &[], may: May::DoIo },
    Room { name: "events", uses: &["kernel", "instance"], may: May::DoIo },
    Room { name: "file", uses: &["manage", "spec"], may: May::Compute },
    Room { name: "top", uses: &["output", "flow"], may: May::DoIo },
    Room { name: "graph", uses: &["output", "flow", "spec"], may: May::Compute },
    Room {
        name: "manage",
        uses: &[
            "reconcile",
            "store",
            "kernel",
            "firewall",
            "flow",
            "plan",
            "ipam",
            "ours",
            "spec",
            "instance",
        ],
        may: May::DoIo,
    },
    Room { name: "reconcile", uses: &["kernel", "firewall", "flow", "plan"], may: May::DoIo },
    Room { name: "store", uses: &["plan", "ours", "spec", "instance"], may: May::DoIo },
    Room { name: "output", uses: &["trace", "firewall", "flow", "plan", "spec"], may: May::DoIo },
    Room {
        name: "kernel",
        uses: &["trace", "firewall", "flow", "plan", "instance"],
        may: May::TouchTheSystem,
    },
    Room { name: "names", uses: &[], may: May::Compute },
    Room { name: "metrics", uses: &["flow"], may: May::Compute },
    Room { name: "trace", uses: &[], may: May::Compute },
    Room { name: "firewall", uses: &["spec"], may: May::Compute },
    Room { name: "flow", uses: &[], may: May::Compute },
    Room { name: "plan", uses: &["ours", "spec"], may: May::Compute },
    Room { name: "ipam", uses: &["spec"], may: May::Compute },
    Room { name: "ours", uses: &["spec"], may: May::Compute },
    Room { name: "spec", uses: &[], may: May::Compute },
    Room { name: "instance", uses: &[], may: May::DoIo },
];

/// What only [`May::TouchTheSystem`] may name.
const SYSTEM: [&str; 9] = [
    "aya",
    "aya_log",
    "rtnetlink",
    "netlink_packet_route",
    "netlink_packet_sock_diag",
    "nix",
    "libc",
    "unsafe",
    "\"/proc",
];

/// What [`May::Compute`] may not name either.
const IO: [&str; 14] = [
    "std::env",
    "std::fs",
    "std::io",
    "std::os",
    "std::process",
    "std::thread",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "tokio",
    "futures_util",
    "redb",
    "clap",
    "anyhow",
];

/// What stands where it does for a reason.
const EXCEPTIONS: [(&str, &str); 1] =
    // The path of a process's namespace is what `--pid` and `--container` are short for; nobody opens it there.
    [("runtime.rs", "\"/proc")];

#[test]
fn crates_use_only_what_is_below_them() {
    let problems: Vec<String> = CRATES
        .iter()
        .flat_map(|it| of_manifest(it, &read(&workspace().join(it.dir).join("Cargo.toml"))))
        .collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn every_crate_is_in_the_table() {
    let manifest = read(&workspace().join("Cargo.toml"));
    let members =
        manifest.lines().find_map(|line| line.strip_prefix("members = ")).expect("members on one line");
    let mut members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    members.sort_unstable();
    let mut table: Vec<&str> = CRATES.iter().map(|it| it.dir).collect();
    table.sort_unstable();
    assert_eq!(members, table);
}

#[test]
fn the_shared_crates_forbid_unsafe_code() {
    for name in SAFE {
        let lib = read(&workspace().join(name).join("src/lib.rs"));
        assert!(lib.contains("\n#![forbid(unsafe_code)]\n"), "{name} does not forbid unsafe code");
    }
}

#[test]
fn rooms_use_only_what_is_below_them() {
    let src = workspace().join("vnet/src");
    let mut problems = Vec::new();
    for path in sources(&src) {
        let name = path.strip_prefix(&src).expect("below").to_str().expect("UTF-8").to_owned();
        problems.extend(of_source(&name, &read(&path)));
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn every_room_is_in_the_table_and_nothing_else() {
    let src = workspace().join("vnet/src");
    let mut found: Vec<String> = sources(&src)
        .iter()
        .map(|path| room_of(path.strip_prefix(&src).expect("below").to_str().expect("UTF-8")).to_owned())
        .filter(|room| room != "lib")
        .collect();
    found.sort();
    found.dedup();
    let mut table: Vec<&str> = ROOMS.iter().map(|room| room.name).collect();
    table.sort_unstable();
    assert_eq!(found, table);
}

#[test]
fn the_tables_point_downwards() {
    for (n, room) in ROOMS.iter().enumerate() {
        let below: Vec<&str> = ROOMS[n + 1..].iter().map(|room| room.name).collect();
        assert!(room.uses.iter().all(|used| below.contains(used)), "{} uses what is not below it", room.name);
    }
    for (n, it) in CRATES.iter().enumerate() {
        let below: Vec<&str> = CRATES[..n].iter().map(|it| it.dir).collect();
        assert!(it.uses.iter().all(|used| below.contains(used)), "{} uses what is not below it", it.dir);
    }
}

/// A test that cannot fail is none.
#[test]
fn violations_are_noticed() {
    let manifest = |text: &str| of_manifest(&CRATES[1], text).len();
    assert_eq!(manifest("[dependencies]\nbytemuck.workspace = true\nvnet-common = { path = \"x\" }\n"), 0);
    assert_eq!(manifest("[dependencies]\nvnet-ebpf.workspace = true\n"), 1);
    assert_eq!(manifest("[dependencies]\nvnet-tests.workspace = true\n"), 1);
    assert_eq!(manifest("[dependencies]\nserde = \"1\"\n"), 1);
    assert_eq!(manifest("[dependencies.serde]\nversion = \"1\"\n"), 1);
    assert_eq!(manifest("[target.'cfg(unix)'.dependencies]\nserde = \"1\"\n"), 1);
    assert_eq!(manifest("[build-dependencies]\nserde = \"1\"\n"), 1);
    assert_eq!(manifest("[dev-dependencies]\nproptest = \"1\"\n"), 0, "tests may use what they like");
    assert_eq!(manifest("[dev-dependencies]\nvnet.workspace = true\n"), 1, "but not what is above");
    assert_eq!(of_manifest(&CRATES[3], "[dependencies]\naya-ebpf = \"1\"\nserde = \"1\"\n").len(), 1);

    for (file, text, expected) in [
        ("spec/mod.rs", "use std::net::IpAddr;\nuse serde::Serialize;", 0),
        ("spec/mod.rs", "use crate::plan::Op;", 1),
        ("spec.rs", "use super::plan::Op;", 1),
        ("spec/name.rs", "fn f() { crate::kernel::Kernel::open() }", 1),
        ("plan/op.rs", "use crate::{kernel::Kernel, spec::{Name, kernel}, store};", 2),
        ("plan/op.rs", "use crate::{\n    ours,\n    spec::Name,\n};", 0),
        (
            "plan/op.rs",
            "// use crate::kernel::Kernel;\n/* crate::store */ const A: &str = \"crate::cli\";",
            0,
        ),
        ("plan/op.rs", "use std::fs;", 1),
        ("plan/op.rs", "use std::{fmt, fs};", 1),
        ("plan/op.rs", "let text = std::fs::read_to_string(path);", 1),
        ("ipam.rs", "async fn f() { tokio::time::sleep(t).await }", 1),
        ("manage/up.rs", "use nix::errno::Errno;", 1),
        ("manage/up.rs", "let path = \"/proc/sys/net/ipv4/ip_forward\";", 1),
        ("manage/up.rs", "unsafe { std::hint::unreachable_unchecked() }", 1),
        ("store/lock.rs", "use aya::Ebpf;", 1),
        ("store/lock.rs", "use std::fs::File; // not the file of nix::fcntl", 0),
        ("store/lock.rs", "let quote = '\"'; use aya::Ebpf; let quote = '\"';", 1),
        ("store/lock.rs", "use redb::Database;\nlet phoenix = my::nix::Thing;", 0),
        ("kernel/maps.rs", "use aya::maps::Map; use crate::manage::Manager; unsafe {}", 1),
        ("manage/tests.rs", "let path = \"/proc/1/ns/net\"; use crate::cli::Cli;", 0),
        ("manage/tests/xdp.rs", "use crate::cli::Cli;", 0),
        ("manage/up.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::cli::Cli;\n}\n", 0),
    ] {
        assert_eq!(of_source(file, text).len(), expected, "{file}: {text}");
    }
}

/// What is wrong with a manifest.
fn of_manifest(it: &Crate, manifest: &str) -> Vec<String> {
    let ours: Vec<&str> = CRATES.iter().map(|it| it.dir).collect();
    let allowed = |name: &str, for_tests: bool| match it.others {
        _ if ours.contains(&dir_of(name)) => it.uses.contains(&dir_of(name)),
        _ if for_tests => true,
        Some(others) => others.contains(&name),
        None => !NEVER.contains(&name),
    };
    dependencies(manifest)
        .into_iter()
        .filter(|(name, for_tests)| !allowed(name, *for_tests))
        .map(|(name, _)| format!("{} must not depend on {name}", it.dir))
        .collect()
}

/// Where a crate lives, if it is one of the workspace.
fn dir_of(package: &str) -> &str {
    match package {
        "vnet-tests" => "tests",
        "vnet-bench" => "tests/bench",
        "vnet-fuzz" => "tests/fuzz",
        name => name,
    }
}

/// The names of all dependencies, and whether they are for tests alone.
fn dependencies(manifest: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let mut section = "";
    for line in manifest.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
            // A table for one dependency.
            if let Some((head, name)) = section.rsplit_once("dependencies.") {
                found.push((name.to_owned(), head.ends_with("dev-")));
            }
        } else if section.ends_with("dependencies") {
            let name = line.split(['.', '=', ' ']).next().unwrap_or(line);
            found.push((name.to_owned(), section.ends_with("dev-dependencies")));
        }
    }
    found
}

/// What is wrong with a source file of the control plane.
fn of_source(file: &str, text: &str) -> Vec<String> {
    let name = room_of(file);
    let Some(room) = ROOMS.iter().find(|room| room.name == name) else { return Vec::new() };
    if for_tests(file) {
        return Vec::new();
    }
    // A quotation mark as a character begins no string.
    let text = without_tests(&without_comments(&text.replace("'\"'", "' '")));
    let code = without_strings(&text);
    let used = rooms_used(file, &code).into_iter();
    let mut problems: Vec<String> = used
        .filter(|used| used != name && !room.uses.contains(&used.as_str()))
        .map(|used| format!("{file}: {name} must not use {used}"))
        .collect();
    let is_exception = |word: &&str| EXCEPTIONS.contains(&(file, *word));
    let named = |word: &&str| if word.starts_with('"') { text.contains(*word) } else { names(&code, word) };
    let mut refuse = |words: &[&'static str]| {
        let words = words.iter().copied().filter(|word| named(word) && !is_exception(word));
        problems.extend(words.map(|word| format!("{file}: {name} must not name {word}")));
    };
    if room.may != May::TouchTheSystem {
        refuse(&SYSTEM);
    }
    if room.may == May::Compute {
        refuse(&IO);
    }
    problems
}

/// The room a file belongs to: the first part of its path.
fn room_of(file: &str) -> &str {
    file.split('/').next().unwrap_or(file).trim_end_matches(".rs")
}

/// Whether a file holds nothing but tests, or what they need.
fn for_tests(file: &str) -> bool {
    ["/tests.rs", "/golden.rs", "/fake.rs"].iter().any(|name| file.ends_with(name))
        || file.contains("/tests/")
}

/// The rooms that code names: behind `crate::`, alone or in braces; in a room's own file also behind `super::`.
fn rooms_used(file: &str, code: &str) -> Vec<String> {
    let top = !file.contains('/') || file.ends_with("/mod.rs");
    let mut roots = vec!["crate::"];
    if top {
        roots.push("super::");
    }
    if file == "main.rs" {
        roots.push("vnet::");
    }
    let mut used = Vec::new();
    for root in roots {
        for (at, _) in code.match_indices(root) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':')) {
                continue;
            }
            used.extend(
                first_names(&code[at + root.len()..])
                    .into_iter()
                    .filter(|name| is_room(name) || root != "super::"),
            );
        }
    }
    used.retain(|name| is_room(name));
    used.sort();
    used.dedup();
    used
}

fn is_room(name: &str) -> bool {
    ROOMS.iter().any(|room| room.name == name)
}

/// The first name of a path, or of each path of a group in braces.
fn first_names(path: &str) -> Vec<String> {
    let identifier = |text: &str| {
        let text = text.trim_start();
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        text[..end].to_owned()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![identifier(path)] };
    let (mut depth, mut names) = (0, vec![identifier(group)]);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(identifier(&group[at + 1..])),
            _ => {}
        }
    }
    names
}

/// Whether code names a word: a crate, a keyword, or a path of the standard library, in a group or not.
fn names(code: &str, word: &str) -> bool {
    if let Some((root, module)) = word.split_once("::") {
        let root = format!("{root}::");
        return code
            .match_indices(&root)
            .any(|(at, _)| first_names(&code[at + root.len()..]).iter().any(|name| name == module));
    }
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        let whole = !before.ends_with(part_of_name) && !after.starts_with(part_of_name);
        // A crate is named at the beginning of a path; what has its name within another path is something else.
        let a_crate = word.chars().all(|c| c.is_lowercase() || c == '_') && word != "unsafe";
        whole
            && (!a_crate || (!before.ends_with("::") && (after.starts_with("::") || after.starts_with(';'))))
    })
}

/// Everything but comments.
fn without_comments(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['/', '"']) {
        let (before, tail) = rest.split_at(at);
        kept.push_str(before);
        let length = if tail.starts_with("//") {
            tail.find('\n').unwrap_or(tail.len())
        } else if tail.starts_with("/*") {
            tail.find("*/").map_or(tail.len(), |end| end + 2)
        } else {
            let kept_length = if tail.starts_with('"') { length_of_string(tail) } else { 1 };
            kept.push_str(&tail[..kept_length]);
            kept_length
        };
        rest = &tail[length..];
    }
    kept + rest
}

/// Everything but what stands in strings.
fn without_strings(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('"') {
        kept.push_str(&rest[..at]);
        rest = &rest[at + length_of_string(&rest[at..])..];
    }
    kept + rest
}

/// The length of the string that text begins with, quotes included.
fn length_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Everything before a file's own tests, which stand last.
fn without_tests(text: &str) -> String {
    let end = text
        .find("#[cfg(test)]\nmod ")
        .filter(|at| text[*at..].lines().nth(1).is_some_and(|l| l.ends_with('{')));
    text[..end.unwrap_or(text.len())].to_owned()
}

/// All source files below a directory.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("list {}: {e}", dir.display()));
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}
