//! Names of endpoints at the gateways of their networks: `vnet run --resolver`.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tempfile::NamedTempFile;
use vnet_tests::lab::{Background, End, Endpoint, Fate, HOST_V4, Lab, Netns, OUTSIDE_V4, UPLINK, eventually};
use vnet_tests::report::report;

const PATIENCE: Duration = Duration::from_secs(8);

fn run(lab: &Lab, args: &[&str]) -> Background {
    let run = lab.vnet_start(&[&["run", "--resolver"], args].concat());
    let _ = run.line_with(&["started"]);
    run
}

/// The same on a host that has these resolvers.
fn run_with(lab: &Lab, resolvers: &NamedTempFile, args: &[&str]) -> Background {
    let script = format!(
        "mount --make-rslave / && mount --bind {} /etc/resolv.conf && exec {} run --resolver {}",
        resolvers.path().display(),
        vnet_tests::lab::vnet_binary().display(),
        args.join(" ")
    );
    let argv = ["unshare", "--mount", "sh", "-c", script.as_str()].map(str::to_owned);
    let run = lab.host().start_with(&argv, &lab.environment());
    let _ = run.line_with(&["started"]);
    run
}

fn listing(resolvers: &[IpAddr]) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a file");
    list(&file, resolvers);
    file
}

fn list(file: &NamedTempFile, resolvers: &[IpAddr]) {
    let lines: String = resolvers.iter().map(|addr| format!("nameserver {addr}\n")).collect();
    fs::write(file.path(), lines).expect("write");
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
    // What an endpoint has no address of is not what does not exist.
    assert_eq!(resolve(&one, two.name(), RecordType::AAAA), Ok(Vec::new()));
    assert_eq!(resolve(&web, &db.name().to_uppercase(), RecordType::A), Ok(vec![v4.clone()]));
    // Somebody outside, and an endpoint of another network, are not even listened to.
    let asked = question(db.name(), RecordType::A);
    let brief = Duration::from_millis(500);
    lab.outside().ip(&format!("route add {}/32 via {HOST_V4}", web.gateways()[0]));
    for (who, server) in
        [(lab.outside(), web.gateways()[0]), (inner.netns(), web.gateways()[0]), (lab.outside(), HOST_V4)]
    {
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
    let resolvers = listing(&[OUTSIDE_V4]);
    let socket = lab.run_dir().join("metrics.sock");
    let place = format!("unix:{}", socket.display());
    let mut run = run_with(&lab, &resolvers, &["--resolver-domain", "lab.example", "--metrics", &place]);
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

/// An endpoint's address, asked for by another by a datagram, and how long the answer took.
fn asked(from: &Endpoint, name: &str) -> (Option<Message>, Duration) {
    let begun = Instant::now();
    let answer = by_datagram(from.netns(), from.gateways()[0], &question(name, RecordType::A), PATIENCE);
    (answer, begun.elapsed())
}

/// Waits until an endpoint is answered.
fn answered(from: &Endpoint, run: &Background) {
    let message = question(from.name(), RecordType::A);
    let brief = Duration::from_millis(200);
    eventually(
        || by_datagram(from.netns(), from.gateways()[0], &message, brief),
        || format!("an answer: {:#?}", run.lines()),
    );
}

/// That it is answered at once what an endpoint's address is, although something else takes its time.
#[track_caller]
fn is_answered_at_once(from: &Endpoint, of: &Endpoint, why: &str) {
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let (answer, took) = asked(from, of.name());
        let answer = answer.unwrap_or_else(|| panic!("no answer, {why}"));
        assert_eq!(answer.answers[0].data.to_string(), of.v4().to_string());
        longest = longest.max(took);
    }
    report(format_args!("{why}: the longest of 20 answers took {longest:.1?}"));
    assert!(longest < Duration::from_secs(5), "{longest:?}, {why}");
}

#[test]
fn a_command_that_has_the_instance_keeps_no_question_waiting() {
    let lab = Lab::up();
    let (web, db) = (lab.endpoint("web"), lab.endpoint("db"));
    let late = lab.name("late");
    let run = run(&lab, &[]);
    answered(&web, &run);
    let mut held = false;
    let end = lab.vnet_followed(&["ns", "create", &late], |call| {
        if !held && call.name() == "mount" {
            held = true;
            let lock = File::open(lab.run_dir().join("lock")).expect("open the lock");
            assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)), "the command has it");
            is_answered_at_once(&web, &db, "a command has the instance");
            // What it may be making is waited for, and not for ever.
            let (answer, took) = asked(&web, &late);
            assert_eq!(answer.expect("an answer").response_code, ResponseCode::NXDomain);
            assert!(took > Duration::from_millis(400) && took < Duration::from_secs(8), "{took:?}");
        }
        Fate::GoesOn
    });
    assert!(held && end == End::Exited(0), "{end:?}");
    let (answer, _) = asked(&web, &late);
    assert_eq!(answer.expect("an answer").answers.len(), 1, "known as soon as its command has ended");
}

/// A thread of a program, stopped while the others go on: as one that waits for a disk.
struct Stopped(Pid);

impl Stopped {
    fn new(thread: Pid) -> Self {
        ptrace::seize(thread, ptrace::Options::empty()).expect("seize a thread");
        ptrace::interrupt(thread).expect("stop it");
        let _ = waitpid(thread, Some(WaitPidFlag::__WALL)).expect("see it stopped");
        Self(thread)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        ptrace::detach(self.0, None).expect("let it go on");
    }
}

/// A thread of a process by its name.
fn thread_of(process: &Background, name: &str) -> Pid {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.pid())).expect("its threads");
    let named = |path: &Path| fs::read_to_string(path.join("comm")).is_ok_and(|it| it.trim() == name);
    let found = tasks.map(|task| task.expect("a thread").path()).find(|path| named(path));
    let found = found.unwrap_or_else(|| panic!("a thread called {name}"));
    let number = found.file_name().and_then(|name| name.to_str()).expect("a number");
    Pid::from_raw(number.parse().expect("a number"))
}

/// Once a question was not answered for 8 seconds: whoever answers was looking at the instance, or waited for a disk.
#[test]
fn a_process_that_waits_for_a_disk_keeps_no_question_waiting() {
    let lab = Lab::up();
    let (web, db) = (lab.endpoint("web"), lab.endpoint("db"));
    let run = run(&lab, &[]);
    answered(&web, &run);
    {
        let _looking = Stopped::new(run.pid());
        is_answered_at_once(&web, &db, "a look at the instance takes its time");
        let late = lab.endpoint("late");
        assert_eq!(resolve(&web, late.name(), RecordType::A), Ok(vec![late.v4().to_string()]));
    }
    let reading = Stopped::new(thread_of(&run, "record"));
    let later = lab.endpoint("later");
    is_answered_at_once(&web, &db, "the record is read for long");
    assert_eq!(resolve(&web, later.name(), RecordType::A), Err(ResponseCode::NXDomain));
    drop(reading);
    assert_eq!(resolve(&web, later.name(), RecordType::A), Ok(vec![later.v4().to_string()]));
}

#[test]
fn connections_that_are_held_are_bounded_and_leave_others_theirs() {
    const HOLDERS: usize = 9;
    const EACH: usize = 40;
    let lab = Lab::up();
    let web = lab.endpoint("web");
    let holders: Vec<Endpoint> = (0..HOLDERS).map(|n| lab.endpoint(&format!("h{n}"))).collect();
    let run = run(&lab, &[]);
    answered(&web, &run);
    let server = SocketAddr::new(web.gateways()[0], 53);
    let begun = Instant::now();
    // Half a length, and no more: more of them than there is room for in all.
    let mut held: Vec<TcpStream> = Vec::new();
    for holder in &holders {
        held.extend(holder.netns().enter(|| {
            let connect = |_| TcpStream::connect_timeout(&server, PATIENCE).ok();
            (0..EACH).filter_map(connect).collect::<Vec<_>>()
        }));
    }
    held.iter_mut().for_each(|stream| drop(stream.write_all(&[0])));
    for _ in 0..5 {
        let answer = by_connection(web.netns(), server.ip(), &question(web.name(), RecordType::A));
        assert_eq!(answer.expect("an answer by a connection").answers.len(), 1);
    }
    is_answered_at_once(&web, &web, "others hold connections");
    let is_open = |stream: &mut TcpStream| {
        stream.set_nonblocking(true).expect("set");
        matches!(stream.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    let open = held.iter_mut().map(is_open).filter(|open| *open).count();
    report(format_args!("{open} of {} connections are open", held.len()));
    assert!(begun.elapsed() > Duration::from_secs(10) || (200..=256).contains(&open), "{open} are open");
    // Nobody holds them for longer than ten seconds.
    let all_closed = || held.iter_mut().all(|stream| !is_open(stream)).then_some(());
    eventually(all_closed, || "every connection closed".to_owned());
    assert!(begun.elapsed() > Duration::from_secs(9), "closed before their time");
}

/// What a name server of the outside's does.
#[derive(Clone, Copy)]
enum Manner {
    /// It hears, and says nothing.
    Silent,
    /// It cannot answer.
    Failing,
    /// It answers; but datagrams about `big.` are cut, and nothing is said of `lost.`.
    Good,
}

fn answer_of(manner: Manner, bytes: &[u8], by_datagram: bool) -> Option<Vec<u8>> {
    let asked = Message::from_vec(bytes).expect("a message");
    let name = asked.queries[0].name().clone();
    let mut answer = Message::response(asked.id, asked.op_code);
    answer.add_queries(asked.queries.iter().cloned());
    match manner {
        Manner::Silent => return None,
        Manner::Failing => answer.metadata.response_code = ResponseCode::ServFail,
        Manner::Good if name.to_ascii().starts_with("lost.") => return None,
        Manner::Good if name.to_ascii().starts_with("big.") => {
            answer.metadata.truncation = by_datagram;
            let all = if by_datagram { 0 } else { 200 };
            answer.add_answers((0..all).map(|n| {
                Record::from_rdata(name.clone(), 60, RData::A(Ipv4Addr::new(198, 51, 100, n).into()))
            }));
        }
        Manner::Good => {
            let data = RData::A("198.51.100.7".parse().expect("an address"));
            answer.add_answer(Record::from_rdata(name, 60, data));
        }
    }
    Some(answer.to_vec().expect("a message"))
}

fn serve_in(manner: Manner, lab: &Lab, addr: IpAddr) {
    let (socket, listener) = lab.outside().enter(|| {
        (UdpSocket::bind((addr, 53)).expect("a socket"), TcpListener::bind((addr, 53)).expect("a listener"))
    });
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            if let Some(answer) = answer_of(manner, &bytes[..length], true) {
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut length = [0; 2];
            stream.read_exact(&mut length).expect("a length");
            let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut bytes).expect("a message");
            let Some(answer) = answer_of(manner, &bytes, false) else { continue };
            let length = u16::try_from(answer.len()).expect("a length");
            let _ = stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat());
        }
    });
}

#[test]
fn resolvers_that_fail_are_passed_over_and_a_loop_comes_to_an_end() {
    let lab = Lab::up();
    let (web, db) = (lab.endpoint("web"), lab.endpoint("db"));
    let [silent, failing, good]: [IpAddr; 3] =
        ["203.0.113.61", "203.0.113.62", "203.0.113.63"].map(|addr| addr.parse().expect("an address"));
    for (addr, manner) in [(silent, Manner::Silent), (failing, Manner::Failing), (good, Manner::Good)] {
        lab.outside().ip(&format!("addr add {addr}/24 dev {UPLINK}"));
        serve_in(manner, &lab, addr);
    }
    let resolvers = listing(&[silent, failing, good]);
    let run = run_with(&lab, &resolvers, &[]);
    answered(&web, &run);
    let (first, slow) = asked(&web, "one.example.com.");
    assert_eq!(first.expect("an answer").answers[0].data.to_string(), "198.51.100.7");
    let (second, quick) = asked(&web, "two.example.com.");
    assert_eq!(second.expect("an answer").answers.len(), 1);
    report(format_args!("the first answer took {slow:.1?}, the second {quick:.1?}"));
    assert!(slow >= Duration::from_secs(1) && quick < slow, "{slow:?}, {quick:?}");
    // What is cut is asked for again by a connection, of the same resolvers.
    let big = question("big.example.com.", RecordType::A);
    let cut = by_datagram(web.netns(), web.gateways()[0], &big, PATIENCE).expect("an answer");
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let whole = by_connection(web.netns(), web.gateways()[0], &big).expect("an answer by a connection");
    assert_eq!(whole.answers.len(), 200);
    // If none answers, that is said before whoever asks gives up, and does not keep others waiting.
    thread::scope(|scope| {
        let lost = scope.spawn(|| asked(&web, "lost.example.com."));
        is_answered_at_once(&web, &db, "another name is asked elsewhere");
        let (answer, took) = lost.join().expect("a question");
        assert_eq!(answer.expect("an answer").response_code, ResponseCode::ServFail);
        assert!(took < Duration::from_secs(10), "{took:?}");
    });
    // Asked here, it would ask itself.
    list(&resolvers, &web.gateways());
    let looped = || {
        let (answer, took) = asked(&web, "three.example.com.");
        (answer?.response_code == ResponseCode::ServFail && took < Duration::from_secs(1)).then_some(())
    };
    eventually(looped, || format!("an error: {:#?}", run.lines()));
    let _late = lab.endpoint("late");
    let _ = run.line_with(&["names of others are not answered", "gateways of this instance"]);
}
