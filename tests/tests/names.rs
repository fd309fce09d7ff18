//! Names of endpoints at the gateways of their networks: `vnet run --resolver`.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use nix::sys::signal::Signal;
use vnet_tests::lab::{Background, Endpoint, Lab, Netns, OUTSIDE_V4, eventually};
use vnet_tests::report::report;

const PATIENCE: Duration = Duration::from_secs(8);

fn run(lab: &Lab, args: &[&str]) -> Background {
    let run = lab.vnet_start(&[&["run", "--resolver"], args].concat());
    let _ = run.line_with(&["started"]);
    run
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message
}

fn by_datagram(from: &Netns, server: IpAddr, message: &Message, patience: Duration) -> Option<Message> {
    from.enter(|| {
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).expect("a socket");
        socket.set_read_timeout(Some(patience)).expect("a limit");
        socket.connect((server, 53)).ok()?;
        socket.send(&message.to_vec().expect("a message")).ok()?;
        let mut answer = [0; 4096];
        let length = socket.recv(&mut answer).ok()?;
        Some(Message::from_vec(&answer[..length]).expect("a message"))
    })
}

fn by_connection(from: &Netns, server: IpAddr, message: &Message) -> Option<Message> {
    from.enter(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(server, 53), PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let bytes = message.to_vec().expect("a message");
        let length = u16::try_from(bytes.len()).expect("a short message");
        stream.write_all(&[&length.to_be_bytes(), bytes.as_slice()].concat()).ok()?;
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).ok()?;
        Some(Message::from_vec(&answer).expect("a message"))
    })
}

/// The addresses, or the error, that a name has for an endpoint, which must be the same however it asks.
fn resolve(from: &Endpoint, name: &str, kind: RecordType) -> Result<Vec<String>, ResponseCode> {
    let mut answers = Vec::new();
    for server in from.gateways() {
        let message = question(name, kind);
        let answered = [by_datagram(from, server, &message, PATIENCE), by_connection(from, server, &message)];
        for answer in answered {
            let answer = answer.unwrap_or_else(|| panic!("no answer of {server} for {name}"));
            assert_eq!(answer.id, message.id);
            let data: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
            answers.push(if answer.response_code == ResponseCode::NoError {
                Ok(data)
            } else {
                Err(answer.response_code)
            });
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{name}: {answers:?}");
    answers.pop().expect("an answer")
}

fn addresses(endpoint: &Endpoint) -> [String; 2] {
    [endpoint.v4().to_string(), endpoint.v6().to_string()]
}

fn file_of(endpoint: &str) -> PathBuf {
    PathBuf::from("/etc/netns").join(endpoint).join("resolv.conf")
}

#[test]
fn endpoints_find_each_other_by_name_and_nobody_else_does() {
    let lab = Lab::up();
    let (web, db) = (lab.endpoint("web"), lab.endpoint("db"));
    lab.vnet_ok(&["network", "create", "blue", "--subnet", "10.55.0.0/24", "--internal"]);
    let inner = lab.endpoint_with("inner", &["--network", "blue"]);
    let mut run = run(&lab, &[]);
    let answers = || {
        by_datagram(&web, web.gateways()[0], &question(db.name(), RecordType::A), Duration::from_millis(200))
    };
    eventually(answers, || format!("an answer: {:#?}", run.lines()));
    let [v4, v6] = addresses(&db);
    for name in
        [db.name().to_owned(), format!("{}.internal.", db.name()), format!("{}.default.internal.", db.name())]
    {
        assert_eq!(resolve(&web, &name, RecordType::A).as_deref(), Ok(&[v4.clone()][..]), "{name}");
        assert_eq!(resolve(&web, &name, RecordType::AAAA).as_deref(), Ok(&[v6.clone()][..]), "{name}");
    }
    for addr in [db.v4(), db.v6()] {
        let name = Name::from(addr).to_ascii();
        let expected = [format!("{}.internal.", db.name())];
        assert_eq!(resolve(&web, &name, RecordType::PTR).as_deref(), Ok(&expected[..]));
    }
    // What is unknown does not exist, and neither do endpoints of other networks.
    for name in
        ["nobody.internal.".to_owned(), format!("{}.internal.", inner.name()), inner.name().to_owned()]
    {
        assert_eq!(resolve(&web, &name, RecordType::A), Err(ResponseCode::NXDomain), "{name}");
    }
    // One that is made is known, one that goes is not.
    let late = lab.endpoint("late");
    assert_eq!(resolve(&web, late.name(), RecordType::A), Ok(vec![late.v4().to_string()]));
    lab.vnet_ok(&["ns", "rm", late.name()]);
    assert_eq!(resolve(&web, late.name(), RecordType::A), Err(ResponseCode::NXDomain));
    // An internal network has no way out by names either.
    assert_eq!(resolve(&inner, "example.com.", RecordType::A), Err(ResponseCode::Refused));
    // A network without a bridge has a gateway as well.
    lab.vnet_ok(&["network", "create", "wide", "--subnet", "10.56.0.0/24", "--no-bridge"]);
    let (one, two) =
        (lab.endpoint_with("one", &["--network", "wide"]), lab.endpoint_with("two", &["--network", "wide"]));
    eventually(
        || {
            by_datagram(
                &one,
                one.gateways()[0],
                &question(two.name(), RecordType::A),
                Duration::from_millis(200),
            )
        },
        || format!("an answer: {:#?}", run.lines()),
    );
    assert_eq!(resolve(&one, two.name(), RecordType::A), Ok(vec![two.v4().to_string()]));
    // Somebody outside, and an endpoint of another network, are not even listened to.
    let asked = question(db.name(), RecordType::A);
    let brief = Duration::from_millis(500);
    lab.outside().ip(&format!("route add {}/32 via {}", web.gateways()[0], vnet_tests::lab::HOST_V4));
    for (who, server) in [
        (lab.outside(), web.gateways()[0]),
        (inner.netns(), web.gateways()[0]),
        (lab.outside(), vnet_tests::lab::HOST_V4),
    ] {
        assert!(by_datagram(who, server, &asked, brief).is_none(), "{} was answered", who.name());
    }
    // Processes inside find it by themselves.
    let shown = lab.vnet_ok(&["ns", "exec", web.name(), "cat", "/etc/resolv.conf"]).stdout;
    assert!(
        shown.contains(&format!("nameserver {}", web.gateways()[0])) && shown.contains("search internal"),
        "{shown}"
    );
    let found = lab.vnet_ok(&["ns", "exec", web.name(), "getent", "ahostsv4", db.name()]).stdout;
    assert!(found.contains(&v4), "{found}");
    let found =
        lab.host().run(&["ip", "netns", "exec", web.name(), "getent", "ahostsv6", db.name()]).ok().stdout;
    assert!(found.contains(&v6), "{found}");
    let files = [web.name(), db.name(), inner.name()].map(file_of);
    assert!(files.iter().all(|file| file.exists()));
    run.signal(Signal::SIGTERM);
    assert_eq!(run.wait(), Some(0));
    assert!(!files.iter().any(|file| file.exists()), "what was written is taken back");
    assert!(answers().is_none());
}

/// A name server of the outside's: answers every question for an address with this one, others with an error.
fn serve(lab: &Lab, addr: SocketAddr) {
    let socket = lab.outside().enter(|| UdpSocket::bind(addr).expect("a socket"));
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let asked = Message::from_vec(&bytes[..length]).expect("a message");
            let mut answer = Message::response(asked.id, asked.op_code);
            answer.add_queries(asked.queries.iter().cloned());
            let name = asked.queries[0].name().clone();
            let data = RData::A("198.51.100.7".parse().expect("an address"));
            answer.add_answer(hickory_proto::rr::Record::from_rdata(name.clone(), 60, data));
            // Somebody who guesses is too early.
            let mut forged = answer.clone();
            forged.metadata.id = answer.id.wrapping_add(1);
            for answer in [forged, answer] {
                let _ = socket.send_to(&answer.to_vec().expect("a message"), from);
            }
            if name.to_ascii().starts_with("end.") {
                return;
            }
        }
    });
}

#[test]
fn other_names_are_asked_of_the_hosts_resolvers_and_floods_are_bounded() {
    let lab = Lab::up();
    let web = lab.endpoint("web");
    serve(&lab, SocketAddr::new(OUTSIDE_V4, 53));
    // The host of the lab has resolvers of its own.
    let resolvers = tempfile::NamedTempFile::new().expect("a file");
    fs::write(resolvers.path(), format!("nameserver {OUTSIDE_V4}\n")).expect("write");
    let socket = lab.run_dir().join("metrics.sock");
    let place = format!("unix:{}", socket.display());
    let binary = vnet_tests::lab::vnet_binary();
    let script = format!(
        "mount --make-rslave / && mount --bind {} /etc/resolv.conf && exec {} run --resolver --resolver-domain lab.example --metrics {place}",
        resolvers.path().display(),
        binary.display()
    );
    let argv = ["unshare", "--mount", "sh", "-c", script.as_str()].map(str::to_owned);
    let mut run = lab.host().start_with(&argv, &lab.environment());
    let _ = run.line_with(&["started"]);
    eventually(
        || {
            by_datagram(
                &web,
                web.gateways()[0],
                &question("lab.example.", RecordType::A),
                Duration::from_millis(200),
            )
        },
        || format!("an answer: {:#?}", run.lines()),
    );
    let server = web.gateways()[0];
    let ask = |name: &str| {
        by_datagram(&web, server, &question(name, RecordType::A), PATIENCE).unwrap_or_else(|| {
            panic!("no answer for {name}: {:#?}, {}", run.lines(), lab.vnet_ok(&["drops"]).stdout)
        })
    };
    let answer = ask("www.example.com.");
    assert_eq!(answer.answers[0].data.to_string(), "198.51.100.7");
    assert_eq!(ask("nobody.lab.example.").response_code, ResponseCode::NXDomain);
    assert_eq!(
        ask(&format!("{}.lab.example.", web.name())).answers[0].data.to_string(),
        web.v4().to_string()
    );
    assert_eq!(ask("end.example.com.").answers.len(), 1);
    // From here on nobody answers: what is asked is bounded, and says so.
    let flood = 500;
    web.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.connect((server, 53)).expect("connect");
        for n in 0..flood {
            let message = question(&format!("n{n}.example.com."), RecordType::A);
            socket.send(&message.to_vec().expect("a message")).expect("send");
        }
    });
    assert_eq!(
        ask(&format!("{}.lab.example.", web.name())).answers.len(),
        1,
        "own names are answered all the same"
    );
    let counted = || {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("a server");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").expect("ask");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text.lines()
            .filter(|line| line.starts_with("vnet_dns_questions_total"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let dropped = |lines: &[String]| {
        let line = lines.iter().find(|line| line.contains("dropped"))?;
        line.rsplit(' ').next()?.parse::<u32>().ok().filter(|count| *count > 0)
    };
    let count = eventually(|| dropped(&counted()), || format!("{:#?}", counted()));
    report(format_args!("{count} of {flood} dropped: {:?}", counted()));
    // Killed, it leaves what the next one takes back.
    let file = file_of(web.name());
    assert!(file.exists());
    run.signal(Signal::SIGKILL);
    run.wait();
    assert!(file.exists());
    lab.vnet_ok(&["down"]);
    assert!(!file.exists(), "`vnet down` takes it back");
}

#[test]
fn what_a_killed_process_has_told_namespaces_is_found_and_taken_back() {
    let lab = Lab::up();
    let (web, db) = (lab.endpoint("web"), lab.endpoint("db"));
    let found = || -> Vec<String> {
        let findings = lab.vnet_list(&["doctor"], "findings");
        let found = findings.iter().filter(|finding| finding["check"] == "resolver");
        found.map(|finding| format!("{} {}", finding["problem"], finding["fix"])).collect()
    };
    let told = || {
        let mut run = run(&lab, &[]);
        let all = || [&web, &db].iter().all(|it| file_of(it.name()).exists()).then_some(());
        eventually(all, || format!("{:#?}", run.lines()));
        assert_eq!(found(), Vec::<String>::new(), "while it answers");
        run.signal(Signal::SIGKILL);
        run.wait();
    };
    told();
    let problems = found();
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].contains("resolv.conf") && problems[0].contains("`vnet up`"), "{problems:#?}");
    // That of an endpoint goes with it, and another's stays.
    lab.vnet_ok(&["ns", "rm", db.name(), "--dry-run"]);
    assert!(file_of(db.name()).exists());
    lab.vnet_ok(&["ns", "rm", db.name()]);
    assert!(!file_of(db.name()).exists() && file_of(web.name()).exists());
    lab.vnet_ok(&["up", "--dry-run"]);
    assert_eq!(found().len(), 1);
    lab.vnet_ok(&["up"]);
    assert!(!file_of(web.name()).exists());
    assert_eq!(found(), Vec::<String>::new());
}
