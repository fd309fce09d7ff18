//! Names of endpoints, as a name server answers them: pure. The messages are hickory's.
//!
//! An endpoint is asked for as `NAME` or `NAME.NETWORK`, with the instance's domain behind it or without. Whoever asks
//! learns of the networks that it is on, and of no others; on an isolated network of nobody but itself. What may be a name
//! of the instance's is never asked elsewhere: what is unknown does not exist.

use std::collections::HashMap;
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use ipnet::IpNet;

/// Seconds that an answer may be kept: endpoints come and go.
const TTL: u32 = 5;
/// Bytes of a datagram that whoever asks is told it may send.
const DATAGRAM: u16 = 1232;

/// A network, as far as names are concerned.
#[derive(Clone, Debug)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its prefixes.
    pub subnets: Vec<IpNet>,
    /// Its endpoints do not reach each other.
    pub isolated: bool,
    /// Its endpoints do not reach the world, and so nothing is asked there for them.
    pub internal: bool,
}

/// An endpoint.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its networks, by name, and its addresses there.
    pub links: Vec<(String, Vec<IpAddr>)>,
}

/// What there is to answer.
#[derive(Clone, Debug, Default)]
pub struct Names {
    domain: String,
    networks: HashMap<String, Network>,
    hosts: Vec<Host>,
    by_name: HashMap<String, Vec<usize>>,
    by_addr: HashMap<(String, IpAddr), usize>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// By which network.
    pub network: &'a str,
    /// From which address.
    pub addr: IpAddr,
    /// Most bytes of the answer; any number without.
    pub room: Option<u16>,
}

/// What to do about a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This is the answer.
    Answer(Outcome, Vec<u8>),
    /// It is for others to answer.
    Forward,
    /// It is none.
    Ignore,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What was asked for, if only that there is nothing of this kind.
    Answered,
    /// That there is no such name.
    Unknown,
    /// That this is not answered.
    Refused,
}

impl Names {
    /// Names below a domain.
    #[must_use]
    pub fn new(domain: &str, networks: Vec<Network>, hosts: Vec<Host>) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        let mut by_addr = HashMap::new();
        for (index, host) in hosts.iter().enumerate() {
            by_name.entry(host.name.to_ascii_lowercase()).or_default().push(index);
            for (network, addrs) in &host.links {
                by_addr.extend(addrs.iter().map(|addr| ((network.clone(), *addr), index)));
            }
        }
        let networks = networks.into_iter().map(|network| (network.name.clone(), network)).collect();
        Self { domain: domain.trim_matches('.').to_ascii_lowercase(), networks, hosts, by_name, by_addr }
    }

    /// The name of the endpoint that asks, by whichever of its addresses; nothing if it is none.
    #[must_use]
    pub fn asker(&self, network: &str, addr: IpAddr) -> Option<&str> {
        let own = self.by_addr.get(&(network.to_owned(), addr))?;
        Some(&self.hosts[*own].name)
    }

    /// What to do about a question of somebody's.
    #[must_use]
    pub fn judge(&self, question: &[u8], asker: Asker<'_>) -> Verdict {
        let Ok(question) = Message::from_vec(question) else { return Verdict::Ignore };
        if question.message_type != MessageType::Query {
            return Verdict::Ignore;
        }
        let reply = |code| Reply::new(&question, code, asker.room);
        let [query] = question.queries.as_slice() else { return reply(ResponseCode::FormErr).refuse() };
        if question.op_code != OpCode::Query {
            return reply(ResponseCode::NotImp).refuse();
        }
        let known = self.by_addr.get(&(asker.network.to_owned(), asker.addr));
        let Some(own) = known.filter(|_| query.query_class() == DNSClass::IN) else {
            return reply(ResponseCode::Refused).refuse();
        };
        let sight = Sight { names: self, own: *own, network: asker.network };
        match sight.find(query) {
            Some(found) => self.answer(query, &found, reply),
            // Names are a way out as well.
            None if self.networks.get(asker.network).is_none_or(|network| network.internal) => {
                reply(ResponseCode::Refused).refuse()
            }
            None => Verdict::Forward,
        }
    }

    fn answer(&self, query: &Query, found: &Found, reply: impl Fn(ResponseCode) -> Reply) -> Verdict {
        let wanted = query.query_type();
        let record = |data| Record::from_rdata(query.name().clone(), TTL, data);
        let of_kind = |data: &RData| wanted == RecordType::ANY || data.record_type() == wanted;
        let data: Vec<RData> = match found {
            Found::Nothing => {
                return reply(ResponseCode::NXDomain).without(self.authority(), Outcome::Unknown);
            }
            Found::Addresses(addrs) => addrs
                .iter()
                .map(|addr| match addr {
                    IpAddr::V4(addr) => RData::A(A(*addr)),
                    IpAddr::V6(addr) => RData::AAAA(AAAA(*addr)),
                })
                .collect(),
            Found::Host(name) => {
                let Ok(name) = Name::from_ascii(format!("{name}.{}.", self.domain)) else {
                    return reply(ResponseCode::ServFail).without(None, Outcome::Unknown);
                };
                vec![RData::PTR(PTR(name))]
            }
        };
        let records: Vec<Record> = data.into_iter().filter(of_kind).map(record).collect();
        if records.is_empty() {
            return reply(ResponseCode::NoError).without(self.authority(), Outcome::Answered);
        }
        reply(ResponseCode::NoError).with(records)
    }

    /// How long it may be remembered that there is nothing (RFC 2308).
    fn authority(&self) -> Option<Record> {
        let domain = Name::from_ascii(format!("{}.", self.domain)).ok()?;
        let name = |first: &str| domain.prepend_label(first).ok();
        let soa = SOA::new(name("ns")?, name("hostmaster")?, 1, 3600, 600, 86_400, TTL);
        Some(Record::from_rdata(domain.clone(), TTL, RData::SOA(soa)))
    }

    fn is_inside(&self, addr: IpAddr) -> bool {
        self.networks.values().any(|network| network.subnets.iter().any(|subnet| subnet.contains(&addr)))
    }
}

/// What was found of a name.
enum Found {
    /// It is one of the instance's, and there is none such.
    Nothing,
    Addresses(Vec<IpAddr>),
    Host(String),
}

/// What an endpoint may know.
struct Sight<'a> {
    names: &'a Names,
    own: usize,
    network: &'a str,
}

impl Sight<'_> {
    /// What is to be said of a name; nothing if it is not the instance's.
    fn find(&self, query: &Query) -> Option<Found> {
        let text = query.name().to_lowercase().to_ascii();
        let text = text.trim_end_matches('.');
        let domain = &self.names.domain;
        if text == domain {
            return Some(Found::Addresses(Vec::new()));
        }
        if let Some(name) = text.strip_suffix(domain.as_str()).and_then(|text| text.strip_suffix('.')) {
            return Some(self.addresses(name));
        }
        if let Ok(net) = query.name().parse_arpa_name()
            && net.prefix_len() == net.max_prefix_len()
        {
            return self.names.is_inside(net.addr()).then(|| self.host(net.addr()));
        }
        let of_addresses = [RecordType::A, RecordType::AAAA, RecordType::ANY, RecordType::HTTPS]
            .contains(&query.query_type());
        let is_plain = !text.is_empty() && !text.contains('.') && of_addresses;
        let of_network =
            text.rsplit_once('.').is_some_and(|(_, last)| self.networks().any(|name| name == last));
        (is_plain || of_network).then(|| self.addresses(text))
    }

    /// The networks of whoever asks, the one by which it does first, in small letters.
    fn networks(&self) -> impl Iterator<Item = String> {
        let links = self.names.hosts[self.own].links.iter().map(|(network, _)| network.as_str());
        let others = links.filter(|network| *network != self.network);
        std::iter::once(self.network).chain(others).map(str::to_ascii_lowercase)
    }

    /// The addresses of an endpoint by its name, which may be that of its network as well.
    fn addresses(&self, name: &str) -> Found {
        let mut addrs = Vec::new();
        for network in self.networks() {
            let of_network = name.strip_suffix(network.as_str()).and_then(|name| name.strip_suffix('.'));
            for name in [Some(name), of_network].into_iter().flatten() {
                let hosts = self.names.by_name.get(name).into_iter().flatten();
                addrs.extend(hosts.flat_map(|host| self.seen(*host, &network)));
            }
        }
        if addrs.is_empty() { Found::Nothing } else { Found::Addresses(addrs) }
    }

    /// The addresses that an endpoint has on a network, as far as they are told.
    fn seen(&self, host: usize, network: &str) -> Vec<IpAddr> {
        let links = self.names.hosts[host].links.iter();
        let (name, addrs) = match links.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(network)) {
            Some(link) => link,
            None => return Vec::new(),
        };
        let isolated = self.names.networks.get(name).is_none_or(|network| network.isolated);
        if isolated && host != self.own { Vec::new() } else { addrs.clone() }
    }

    /// The name of the endpoint that has an address.
    fn host(&self, addr: IpAddr) -> Found {
        let links = &self.names.hosts[self.own].links;
        let found = links.iter().find_map(|(network, _)| {
            let host = *self.names.by_addr.get(&(network.clone(), addr))?;
            self.seen(host, network).contains(&addr).then_some(host)
        });
        found.map_or(Found::Nothing, |host| Found::Host(self.names.hosts[host].name.clone()))
    }
}

/// An answer that is put together.
struct Reply {
    message: Message,
    room: Option<u16>,
}

impl Reply {
    fn new(question: &Message, code: ResponseCode, room: Option<u16>) -> Self {
        let mut message = Message::response(question.id, question.op_code);
        message.metadata.recursion_desired = question.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.add_queries(question.queries.iter().cloned());
        if question.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(DATAGRAM);
            message.set_edns(edns);
        }
        Self { message, room: room.map(|room| room.min(question.max_payload())) }
    }

    fn refuse(self) -> Verdict {
        self.finish(Outcome::Refused)
    }

    fn without(mut self, authority: Option<Record>, outcome: Outcome) -> Verdict {
        self.message.metadata.authoritative = true;
        self.message.add_authorities(authority);
        self.finish(outcome)
    }

    fn with(mut self, records: Vec<Record>) -> Verdict {
        self.message.metadata.authoritative = true;
        self.message.add_answers(records);
        self.finish(Outcome::Answered)
    }

    fn finish(self, outcome: Outcome) -> Verdict {
        let Ok(bytes) = self.message.to_vec() else { return Verdict::Ignore };
        if self.room.is_none_or(|room| bytes.len() <= usize::from(room)) {
            return Verdict::Answer(outcome, bytes);
        }
        self.message.truncate().to_vec().map_or(Verdict::Ignore, |bytes| Verdict::Answer(outcome, bytes))
    }
}

/// The same question under another number: whoever answers it must know that.
#[must_use]
pub fn renumbered(question: &[u8]) -> Vec<u8> {
    let mut question = question.to_vec();
    // A number nobody can foresee.
    let number = Message::query().id;
    if let Some(first) = question.first_chunk_mut() {
        *first = number.to_be_bytes();
    }
    question
}

/// The answer that nobody could be asked.
#[must_use]
pub fn failure(question: &[u8]) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok()?;
    match Reply::new(&question, ResponseCode::ServFail, None).refuse() {
        Verdict::Answer(_, bytes) => Some(bytes),
        _ => None,
    }
}

/// Whether an answer says that whoever gives it cannot or will not: others may (`SERVFAIL`, `NOTIMP`, `REFUSED`).
#[must_use]
pub fn is_refusal(answer: &[u8]) -> bool {
    let code = answer.get(3).map(|flags| ResponseCode::from(0, flags & 0x0f));
    matches!(code, Some(ResponseCode::ServFail | ResponseCode::NotImp | ResponseCode::Refused))
}

/// Whether a message is the answer to a question: its number, its kind and what it repeats of the question.
#[must_use]
pub fn is_answer_to(answer: &[u8], question: &[u8]) -> bool {
    const HEADER: usize = 12;
    const ANSWER: u8 = 0x80;
    let (Some(given), Some(asked)) = (answer.first_chunk::<HEADER>(), question.first_chunk::<HEADER>())
    else {
        return false;
    };
    let none_repeated = given[4..6] == [0, 0];
    let is_error = given[3] & 0x0f != 0;
    given[..2] == asked[..2]
        && given[2] & ANSWER != 0
        && (none_repeated && is_error
            || asked_for(answer).zip(asked_for(question)).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b)))
}

/// What a message asks for, as it stands there: a name, a type and a class (RFC 1035 section 4.1.2).
fn asked_for(message: &[u8]) -> Option<&[u8]> {
    let rest = message.get(12..)?;
    let mut end = 0;
    loop {
        let length = usize::from(*rest.get(end)?);
        end += 1 + length;
        match length {
            0 => return rest.get(..end + 4),
            1..64 => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let network = |name: &str, subnet: &str, isolated, internal| Network {
            name: name.to_owned(),
            subnets: vec![subnet.parse().unwrap()],
            isolated,
            internal,
        };
        let host = |name: &str, links: &[(&str, &[&str])]| Host {
            name: name.to_owned(),
            links: links
                .iter()
                .map(|(network, addrs)| {
                    ((*network).to_owned(), addrs.iter().map(|addr| addr.parse().unwrap()).collect())
                })
                .collect(),
        };
        Names::new(
            "internal",
            vec![
                network("default", "10.0.0.0/24", false, false),
                network("blue", "10.1.0.0/24", false, true),
                network("red", "10.2.0.0/24", true, false),
            ],
            vec![
                host("web", &[("default", &["10.0.0.2", "fd00::2"])]),
                host("db", &[("default", &["10.0.0.3"]), ("blue", &["10.1.0.3"])]),
                host("inner", &[("blue", &["10.1.0.4"])]),
                host("a.b", &[("red", &["10.2.0.5"])]),
                host("alone", &[("red", &["10.2.0.6"])]),
            ],
        )
    }

    fn ask(name: &str, kind: RecordType, network: &str, addr: &str) -> (Verdict, Option<Message>) {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let asker = Asker { network, addr: addr.parse().unwrap(), room: Some(DATAGRAM) };
        let verdict = names().judge(&message.to_vec().unwrap(), asker);
        let answer = match &verdict {
            Verdict::Answer(_, bytes) => {
                assert!(is_answer_to(bytes, &message.to_vec().unwrap()));
                Some(Message::from_vec(bytes).unwrap())
            }
            _ => None,
        };
        (verdict, answer)
    }

    fn found(name: &str, kind: RecordType, network: &str, addr: &str) -> Vec<String> {
        let (verdict, answer) = ask(name, kind, network, addr);
        let answer = answer.unwrap_or_else(|| panic!("{name}: {verdict:?}"));
        assert_eq!(answer.response_code, ResponseCode::NoError, "{name}");
        answer.answers.iter().map(|record| record.data.to_string()).collect()
    }

    fn code(name: &str, kind: RecordType, network: &str, addr: &str) -> Option<ResponseCode> {
        ask(name, kind, network, addr).1.map(|answer| answer.response_code)
    }

    #[test]
    fn endpoints_of_the_own_networks_are_known_by_every_form_of_their_names() {
        for name in ["db.", "DB.", "db.internal.", "db.default.", "db.default.internal."] {
            assert_eq!(found(name, RecordType::A, "default", "10.0.0.2"), ["10.0.0.3"], "{name}");
        }
        assert_eq!(found("web.", RecordType::AAAA, "default", "10.0.0.3"), ["fd00::2"]);
        assert_eq!(found("db.", RecordType::AAAA, "default", "10.0.0.2"), [""; 0], "nothing of this kind");
        // The one by which is asked comes first.
        assert_eq!(found("db.", RecordType::A, "blue", "10.1.0.3"), ["10.1.0.3", "10.0.0.3"]);
        assert_eq!(found("3.0.0.10.in-addr.arpa.", RecordType::PTR, "default", "10.0.0.2"), ["db.internal."]);
    }

    #[test]
    fn others_are_not_and_nobody_else_is_asked_for_them() {
        let nothing = Some(ResponseCode::NXDomain);
        for name in [
            "inner.",
            "inner.internal.",
            "nobody.internal.",
            "nobody.",
            "nobody.default.",
            "db.blue.internal.",
        ] {
            assert_eq!(code(name, RecordType::A, "default", "10.0.0.2"), nothing, "{name}");
        }
        assert_eq!(code("4.0.1.10.in-addr.arpa.", RecordType::PTR, "default", "10.0.0.2"), nothing);
        // Isolated: but for the own name.
        assert_eq!(code("alone.internal.", RecordType::A, "red", "10.2.0.5"), nothing);
        assert_eq!(found("a.b.internal.", RecordType::A, "red", "10.2.0.5"), ["10.2.0.5"]);
        // Whoever is no endpoint there learns nothing.
        for addr in ["10.0.0.9", "10.1.0.4", "203.0.113.2"] {
            assert_eq!(code("db.", RecordType::A, "default", addr), Some(ResponseCode::Refused), "{addr}");
        }
    }

    #[test]
    fn the_rest_is_for_others_to_answer_but_not_for_internal_networks() {
        for (name, kind) in [
            ("example.com.", RecordType::A),
            ("internal.example.", RecordType::A),
            ("1.113.0.203.in-addr.arpa.", RecordType::PTR),
            ("com.", RecordType::NS),
            (".", RecordType::NS),
        ] {
            assert_eq!(ask(name, kind, "default", "10.0.0.2").0, Verdict::Forward, "{name}");
            assert_eq!(code(name, kind, "blue", "10.1.0.4"), Some(ResponseCode::Refused), "{name}");
        }
        let asker = Asker { network: "default", addr: "10.0.0.2".parse().unwrap(), room: None };
        for bytes in [&b""[..], b"x", &[0xff; 40]] {
            assert_eq!(names().judge(bytes, asker), Verdict::Ignore);
        }
    }

    #[test]
    fn what_does_not_exist_says_how_long_that_holds_and_so_does_what_has_nothing_of_the_kind() {
        for (name, kind, code) in [
            ("nobody.internal.", RecordType::A, ResponseCode::NXDomain),
            ("db.internal.", RecordType::AAAA, ResponseCode::NoError),
            ("db.internal.", RecordType::MX, ResponseCode::NoError),
            ("internal.", RecordType::A, ResponseCode::NoError),
            ("9.0.0.10.in-addr.arpa.", RecordType::PTR, ResponseCode::NXDomain),
        ] {
            let answer = ask(name, kind, "default", "10.0.0.2").1.unwrap();
            assert_eq!((answer.response_code, answer.answers.len()), (code, 0), "{name} {kind}");
            let [authority] = answer.authorities.as_slice() else { panic!("{name}: {answer:?}") };
            assert_eq!((authority.record_type(), authority.ttl), (RecordType::SOA, TTL));
            assert_eq!(authority.name.to_ascii(), "internal.");
        }
    }

    #[test]
    fn answers_are_cut_to_what_whoever_asks_takes_and_what_was_asked_is_repeated_as_it_was_written() {
        let addrs = (1..=60).map(|n| IpAddr::from([10, 0, 1, n])).collect();
        let hosts = vec![Host { name: "many".to_owned(), links: vec![("default".to_owned(), addrs)] }];
        let network = Network {
            name: "default".to_owned(),
            subnets: vec!["10.0.0.0/16".parse().unwrap()],
            isolated: false,
            internal: false,
        };
        let names = Names::new("internal", vec![network], hosts);
        for (takes, by_datagram, whole) in
            [(None, true, false), (Some(512), true, false), (Some(1232), true, true), (None, false, true)]
        {
            let mut message = Message::query();
            message.add_query(Query::query(Name::from_ascii("mANy.InterNAL.").unwrap(), RecordType::A));
            if let Some(takes) = takes {
                let mut edns = Edns::new();
                edns.set_max_payload(takes);
                message.set_edns(edns);
            }
            let question = message.to_vec().unwrap();
            let room = by_datagram.then_some(u16::MAX);
            let asker = Asker { network: "default", addr: "10.0.1.1".parse().unwrap(), room };
            let Verdict::Answer(Outcome::Answered, bytes) = names.judge(&question, asker) else {
                panic!("no answer")
            };
            let length = asked_for(&question).unwrap().len();
            assert_eq!(bytes[12..12 + length], question[12..12 + length], "in the same letters");
            let answer = Message::from_vec(&bytes).unwrap();
            let expected = if whole { (false, 60) } else { (true, 0) };
            assert_eq!((answer.metadata.truncation, answer.answers.len()), expected, "{takes:?}");
            assert_eq!(answer.edns.is_some(), takes.is_some(), "what is not understood is not sent");
            assert!(!by_datagram || bytes.len() <= usize::from(takes.unwrap_or(512)));
        }
    }

    #[test]
    fn an_address_in_a_shared_namespace_has_the_name_of_whose_it_is() {
        let network = Network {
            name: "default".to_owned(),
            subnets: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
            isolated: false,
            internal: false,
        };
        let addrs: Vec<IpAddr> = ["10.0.0.2", "fd00::2"].map(|addr| addr.parse().unwrap()).to_vec();
        let links = vec![("default".to_owned(), addrs.clone())];
        let host = |name: &str| Host { name: name.to_owned(), links: links.clone() };
        let names = Names::new("internal", vec![network], vec![host("a"), host("z"), host("m")]);
        for addr in addrs {
            assert_eq!(names.asker("default", addr), Some("m"), "which comes last");
            let mut message = Message::query();
            message.add_query(Query::query(Name::from(addr), RecordType::PTR));
            let asker = Asker { network: "default", addr, room: None };
            let verdict = names.judge(&message.to_vec().unwrap(), asker);
            let Verdict::Answer(_, bytes) = verdict else { panic!("{addr}: {verdict:?}") };
            assert_eq!(Message::from_vec(&bytes).unwrap().answers[0].data.to_string(), "m.internal.");
        }
    }

    #[test]
    fn answers_are_told_from_what_somebody_makes_up() {
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii("example.com.").unwrap(), RecordType::A));
        let asked = renumbered(&question.to_vec().unwrap());
        let mut answer = asked.clone();
        assert!(!is_answer_to(&answer, &asked), "that is the question");
        answer[2] |= 0x80;
        assert!(is_answer_to(&answer, &asked));
        let mut other = answer.clone();
        other[1] ^= 1;
        assert!(!is_answer_to(&other, &asked), "another number");
        let mut other = answer.clone();
        other[13] ^= 1;
        assert!(!is_answer_to(&other, &asked), "another name");
        assert!(!is_answer_to(&answer[..11], &asked) && !is_answer_to(&[], &asked));
    }
}
