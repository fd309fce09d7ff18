//! The judge, on rule sets as values.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::spec::Protocol;

/// A connection from the world to the host, by IPv4 over eth0, to TCP ports.
fn to(ports: &str) -> Connection {
    Connection {
        hook: Hook::Input,
        input: Link { name: "eth0".to_owned(), index: 2 },
        output: None,
        v4: true,
        destination: Some("203.0.113.1".parse().unwrap()),
        protocol: Protocol::Tcp,
        ports: ports.parse().unwrap(),
    }
}

fn over_v6(ports: &str) -> Connection {
    Connection { v4: false, destination: Some("2001:db8::1".parse().unwrap()), ..to(ports) }
}

fn when(conditions: Vec<Condition>, action: Action) -> Rule {
    Rule { conditions, action }
}

fn always(action: Action) -> Rule {
    when(Vec::new(), action)
}

fn part(field: Field, test: Test) -> Condition {
    Condition::Holds { parts: vec![field.into()], test }
}

fn equals(field: Field, value: &[u8]) -> Condition {
    part(field, Test::equals(value.to_vec()))
}

fn port_in(first: u16, last: u16) -> Condition {
    let ranges = vec![(first.to_be_bytes().to_vec(), last.to_be_bytes().to_vec())];
    part(Field::Transport { offset: 2, length: 2 }, Test::Within { ranges, inverted: false })
}

fn tcp_port(port: u16) -> Vec<Condition> {
    vec![equals(Field::Protocol, &[6]), port_in(port, port)]
}

fn coming_by(name: &str) -> Condition {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    equals(Field::InputName, &bytes)
}

fn state(bits: u32) -> Condition {
    let part = Part { mask: bits.to_ne_bytes().to_vec(), ..Field::State.into() };
    Condition::Holds { parts: vec![part], test: Test::equals(vec![0; 4]).inverted_if(true) }
}

fn from_ten() -> Condition {
    equals(Field::Network { offset: 12, length: 4 }, &[10])
}

fn unknown(usually: bool) -> Condition {
    Condition::Unknown { what: "the weather".to_owned(), usually }
}

fn jump(chain: &str) -> Action {
    Action::Jump(chain.to_owned())
}

fn goto(chain: &str) -> Action {
    Action::Goto(chain.to_owned())
}

fn user(rules: Vec<Rule>) -> Chain {
    Chain { base: None, rules }
}

fn input(policy: Policy, rules: Vec<Rule>) -> Chain {
    Chain { base: Some(Base { hook: Hook::Input, priority: 0, policy }), rules }
}

fn table(families: Families, name: &str, chains: Vec<(&str, Chain)>) -> Table {
    Table {
        families,
        name: name.to_owned(),
        backend: Backend::Nftables,
        chains: chains.into_iter().map(|(name, chain)| (name.to_owned(), chain)).collect(),
        sets: BTreeMap::new(),
    }
}

fn netfilter(tables: Vec<Table>) -> Netfilter {
    Netfilter { tables, ..Netfilter::default() }
}

/// One chain at the input hook, as people write it with nft.
fn simple(policy: Policy, rules: Vec<Rule>) -> Netfilter {
    netfilter(vec![table(Families::Both, "mine", vec![("in", input(policy, rules))])])
}

fn with_set(mut netfilter: Netfilter, name: &str, elements: Option<Vec<Element>>) -> Netfilter {
    netfilter.tables[0].sets.insert(name.to_owned(), Set { elements });
    netfilter
}

fn element(low: u16, high: u16, action: Option<Action>) -> Element {
    Element { low: low.to_be_bytes().to_vec(), high: high.to_be_bytes().to_vec(), action }
}

#[track_caller]
fn blocked(netfilter: &Netfilter, connection: &Connection) -> String {
    match judge(netfilter, connection) {
        Verdict::Blocked(block) => block.to_string(),
        verdict => panic!("expected a block: {verdict:?}"),
    }
}

#[track_caller]
fn undecided(netfilter: &Netfilter, connection: &Connection) -> (String, bool) {
    match judge(netfilter, connection) {
        Verdict::Undecided { why, block } => (why, block.is_some()),
        verdict => panic!("expected no decision: {verdict:?}"),
    }
}

#[test]
fn without_rules_everything_is_open() {
    assert!(Netfilter::default().is_empty());
    assert_eq!(judge(&Netfilter::default(), &to("8088")), Verdict::Open);
    assert_eq!(judge(&simple(Policy::Accept, vec![]), &to("8088")), Verdict::Open);
}

#[test]
fn a_policy_blocks_what_no_rule_accepts() {
    let rules = vec![
        when(vec![state(2 | 4)], Action::Accept),
        when(vec![state(1)], Action::Drop),
        when(vec![coming_by("lo")], Action::Accept),
        when(tcp_port(22), Action::Accept),
    ];
    let netfilter = simple(Policy::Drop, rules);
    assert_eq!(blocked(&netfilter, &to("8088")), "the policy of chain in in table inet mine (nft)");
    assert_eq!(blocked(&netfilter, &over_v6("8088")), "the policy of chain in in table inet mine (nft)");
    assert_eq!(judge(&netfilter, &to("22")), Verdict::Open);
    let datagrams = Connection { protocol: Protocol::Udp, ..to("22") };
    assert!(matches!(judge(&netfilter, &datagrams), Verdict::Blocked(_)));
    assert_eq!(
        judge(&netfilter, &Connection { input: Link { name: "lo".into(), index: 1 }, ..to("8088") }),
        Verdict::Open
    );
}

#[test]
fn a_rule_at_the_end_blocks_as_a_policy_does() {
    let netfilter = simple(Policy::Accept, vec![when(tcp_port(22), Action::Accept), always(Action::Drop)]);
    assert_eq!(blocked(&netfilter, &to("8088")), "a rule of chain in in table inet mine (nft)");
    assert_eq!(judge(&netfilter, &to("22")), Verdict::Open);
}

#[test]
fn a_rule_may_block_one_port_only() {
    let netfilter = simple(Policy::Accept, vec![when(tcp_port(8088), Action::Drop)]);
    assert!(blocked(&netfilter, &to("8088")).starts_with("a rule"));
    assert_eq!(judge(&netfilter, &to("8089")), Verdict::Open);
}

#[test]
fn a_range_is_open_only_if_all_of_it_is() {
    let netfilter = simple(Policy::Drop, vec![when(vec![port_in(8000, 8010)], Action::Accept)]);
    assert_eq!(judge(&netfilter, &to("8000-8010")), Verdict::Open);
    assert_eq!(judge(&netfilter, &to("8003-8004")), Verdict::Open);
    assert!(matches!(judge(&netfilter, &to("8011-8020")), Verdict::Blocked(_)));
    assert_eq!(undecided(&netfilter, &to("8005-8020")), ("which of the ports it is".to_owned(), true));
}

#[test]
fn who_connects_is_not_known() {
    let allowed = simple(Policy::Drop, vec![when(vec![from_ten()], Action::Accept)]);
    assert_eq!(undecided(&allowed, &to("8088")), ("the source address".to_owned(), true));
    let refused = simple(Policy::Accept, vec![when(vec![from_ten()], Action::Drop)]);
    assert_eq!(undecided(&refused, &to("8088")), ("the source address".to_owned(), false));
    // "All but": a stranger is among them.
    let Condition::Holds { parts, test } = from_ten() else { panic!() };
    let strangers = Condition::Holds { parts, test: test.inverted_if(true) };
    let refused = simple(Policy::Accept, vec![when(vec![strangers], Action::Drop)]);
    assert_eq!(undecided(&refused, &to("8088")), ("the source address".to_owned(), true));
}

#[test]
fn what_is_not_understood_is_never_decided() {
    for (policy, action, stopped) in
        [(Policy::Drop, Action::Accept, true), (Policy::Accept, Action::Drop, false)]
    {
        let netfilter = simple(policy, vec![when(vec![unknown(false)], action)]);
        assert_eq!(undecided(&netfilter, &to("8088")), ("the weather".to_owned(), stopped));
    }
    let queue = simple(Policy::Drop, vec![always(Action::Unknown("a program".to_owned()))]);
    assert_eq!(undecided(&queue, &to("8088")), ("a program".to_owned(), true));
    let lost = simple(Policy::Accept, vec![always(jump("nowhere"))]);
    assert_eq!(undecided(&lost, &to("8088")).0, "chain nowhere, which was not read");
}

#[test]
fn what_is_not_understood_need_not_be_if_all_ways_end_alike() {
    let chains = vec![
        ("in", input(Policy::Drop, vec![when(vec![unknown(false)], jump("sub"))])),
        ("sub", user(vec![when(tcp_port(80), Action::Drop)])),
    ];
    let netfilter = netfilter(vec![table(Families::Both, "mine", chains)]);
    assert!(blocked(&netfilter, &to("80")).contains("policy"));
    assert!(blocked(&netfilter, &to("81")).contains("policy"));
}

#[test]
fn what_only_counts_or_logs_is_not_asked_about() {
    let rules = vec![when(vec![unknown(true)], Action::Continue), when(tcp_port(80), Action::Accept)];
    assert!(matches!(judge(&simple(Policy::Drop, rules.clone()), &to("8088")), Verdict::Blocked(_)));
    assert_eq!(judge(&simple(Policy::Drop, rules), &to("80")), Verdict::Open);
}

#[test]
fn a_limit_lets_a_stranger_pass() {
    let rule = when([tcp_port(80), vec![unknown(true)]].concat(), Action::Accept);
    assert_eq!(undecided(&simple(Policy::Drop, vec![rule]), &to("80")), ("the weather".to_owned(), false));
}

#[test]
fn chains_are_jumped_to_left_and_gone_to_for_good() {
    let chains = |first: Action| {
        vec![
            ("in", input(Policy::Drop, vec![always(first), when(tcp_port(80), Action::Accept)])),
            (
                "sub",
                user(vec![
                    when(tcp_port(443), Action::Accept),
                    always(Action::Return),
                    always(Action::Accept),
                ]),
            ),
        ]
    };
    let jumped = netfilter(vec![table(Families::Both, "mine", chains(jump("sub")))]);
    assert_eq!(judge(&jumped, &to("443")), Verdict::Open);
    assert_eq!(judge(&jumped, &to("80")), Verdict::Open);
    assert!(matches!(judge(&jumped, &to("81")), Verdict::Blocked(_)));
    let gone = netfilter(vec![table(Families::Both, "mine", chains(goto("sub")))]);
    assert_eq!(judge(&gone, &to("443")), Verdict::Open);
    assert_eq!(blocked(&gone, &to("80")), "the policy of chain in in table inet mine (nft)");
}

#[test]
fn chains_that_call_each_other_for_ever_are_given_up() {
    let chains = vec![
        ("in", input(Policy::Accept, vec![always(jump("a"))])),
        ("a", user(vec![always(jump("b"))])),
        ("b", user(vec![always(jump("a"))])),
    ];
    assert!(matches!(
        judge(&netfilter(vec![table(Families::Both, "mine", chains)]), &to("1")),
        Verdict::Undecided { .. }
    ));
}

#[test]
fn sets_hold_ports_and_ranges() {
    let in_set = |inverted| {
        let test = Test::InSet { set: "web".to_owned(), inverted };
        part(Field::Transport { offset: 2, length: 2 }, test)
    };
    let elements = vec![element(80, 80, None), element(8000, 8010, None)];
    let rules = vec![when(vec![in_set(false)], Action::Accept)];
    let allowed = with_set(simple(Policy::Drop, rules), "web", Some(elements.clone()));
    for (ports, open) in [("80", true), ("8010", true), ("81", false), ("8011", false)] {
        assert_eq!(judge(&allowed, &to(ports)) == Verdict::Open, open, "{ports}");
    }
    let rules = vec![when(vec![in_set(true)], Action::Drop)];
    let refused = with_set(simple(Policy::Accept, rules.clone()), "web", Some(elements));
    assert_eq!(judge(&refused, &to("80")), Verdict::Open);
    assert!(matches!(judge(&refused, &to("81")), Verdict::Blocked(_)));
    let unread = with_set(simple(Policy::Accept, rules), "web", None);
    assert!(matches!(judge(&unread, &to("80")), Verdict::Undecided { .. }));
}

#[test]
fn maps_have_an_action_for_each() {
    let map = |field: Field| always(Action::Map { parts: vec![field.into()], set: "map".to_owned() });
    let ports = vec![
        element(80, 80, Some(Action::Accept)),
        element(443, 443, Some(jump("sub"))),
        element(8000, 8010, Some(Action::Drop)),
    ];
    let chains = vec![
        ("in", input(Policy::Accept, vec![map(Field::Transport { offset: 2, length: 2 })])),
        ("sub", user(vec![always(Action::Drop)])),
    ];
    let of_ports = with_set(netfilter(vec![table(Families::Both, "mine", chains)]), "map", Some(ports));
    assert_eq!(judge(&of_ports, &to("80")), Verdict::Open);
    assert_eq!(judge(&of_ports, &to("81")), Verdict::Open);
    assert_eq!(blocked(&of_ports, &to("443")), "a rule of chain sub in table inet mine (nft)");
    assert!(blocked(&of_ports, &to("8005")).contains("chain in"));
    assert!(matches!(judge(&of_ports, &to("7999-8001")), Verdict::Undecided { block: None, .. }));
    // ct state vmap { established : accept, related : accept, invalid : drop }
    let bits = |bits: u32, action| {
        let bytes = bits.to_ne_bytes().to_vec();
        Element { low: bytes.clone(), high: bytes, action: Some(action) }
    };
    let states = vec![bits(2, Action::Accept), bits(4, Action::Accept), bits(1, Action::Drop)];
    let of_states = with_set(simple(Policy::Drop, vec![map(Field::State)]), "map", Some(states));
    assert!(matches!(judge(&of_states, &to("80")), Verdict::Blocked(_)));
}

#[test]
fn what_a_map_has_for_everything_else_counts_where_nothing_else_does() {
    let everything = Element { low: vec![], high: vec![], action: Some(Action::Drop) };
    let elements = vec![element(80, 90, Some(Action::Accept)), everything];
    let parts = vec![Field::Transport { offset: 2, length: 2 }.into()];
    let rule = always(Action::Map { parts, set: "map".to_owned() });
    let netfilter = with_set(simple(Policy::Accept, vec![rule]), "map", Some(elements));
    assert_eq!(judge(&netfilter, &to("80")), Verdict::Open);
    assert!(matches!(judge(&netfilter, &to("81-85")), Verdict::Open));
    assert!(matches!(judge(&netfilter, &to("91")), Verdict::Blocked(_)));
    assert!(matches!(judge(&netfilter, &to("85-95")), Verdict::Undecided { .. }));
}

#[test]
fn two_fields_in_one_register_are_told_apart() {
    // udp sport 67 udp dport 68, as iptables writes it: four bytes at once.
    let both = equals(Field::Transport { offset: 0, length: 4 }, &[0, 67, 0, 68]);
    let netfilter = simple(Policy::Drop, vec![when(vec![both], Action::Accept)]);
    assert!(matches!(judge(&netfilter, &to("8088")), Verdict::Blocked(_)));
    assert_eq!(undecided(&netfilter, &to("68")), ("the source port".to_owned(), true));
}

#[test]
fn every_table_has_its_say() {
    let accepts =
        table(Families::Both, "first", vec![("in", input(Policy::Accept, vec![always(Action::Accept)]))]);
    let drops = table(Families::V4, "second", vec![("in", input(Policy::Drop, vec![]))]);
    let both = netfilter(vec![accepts, drops]);
    assert_eq!(blocked(&both, &to("80")), "the policy of chain in in table ip second (nft)");
    assert_eq!(judge(&both, &over_v6("80")), Verdict::Open, "the other family has no such table");
}

#[test]
fn rules_that_could_not_be_read_are_not_open() {
    let unread = Netfilter { unread: vec!["a table".to_owned()], ..Netfilter::default() };
    assert!(!unread.is_empty());
    assert_eq!(undecided(&unread, &to("80")), ("a table".to_owned(), false));
    let unread = Netfilter { unread: vec!["a table".to_owned()], ..simple(Policy::Drop, vec![]) };
    assert!(matches!(judge(&unread, &to("80")), Verdict::Blocked(_)));
}

#[test]
fn a_first_segment_is_a_first_segment() {
    // "A new connection that does not begin with SYN": a common guard.
    let flags = Part { mask: vec![0x17], ..Field::Transport { offset: 13, length: 1 }.into() };
    let no_syn = Condition::Holds { parts: vec![flags], test: Test::equals(vec![0x02]).inverted_if(true) };
    let guard = vec![when(vec![state(8), no_syn], Action::Drop), when(tcp_port(80), Action::Accept)];
    assert_eq!(judge(&simple(Policy::Drop, guard), &to("80")), Verdict::Open);
    let fragment = Part { mask: vec![0x1f, 0xff], ..Field::Network { offset: 6, length: 2 }.into() };
    let pieces = Condition::Holds { parts: vec![fragment], test: Test::equals(vec![0, 0]).inverted_if(true) };
    assert_eq!(
        judge(&simple(Policy::Accept, vec![when(vec![pieces], Action::Drop)]), &to("80")),
        Verdict::Open
    );
}

/// What `ufw enable` makes, in short.
fn ufw(user_rules: Vec<Rule>) -> Netfilter {
    let kind = |kind: u32| equals(Field::DestinationKind, &kind.to_ne_bytes());
    let chains = vec![
        (
            "INPUT",
            input(
                Policy::Drop,
                ["ufw-before-logging-input", "ufw-before-input", "ufw-after-input"]
                    .map(|to| always(jump(to)))
                    .to_vec(),
            ),
        ),
        ("ufw-before-logging-input", user(vec![])),
        (
            "ufw-before-input",
            user(vec![
                when(vec![coming_by("lo")], Action::Accept),
                when(vec![state(2 | 4)], Action::Accept),
                when(vec![state(1)], Action::Drop),
                always(jump("ufw-not-local")),
                always(jump("ufw-user-input")),
            ]),
        ),
        (
            "ufw-not-local",
            user(vec![
                when(vec![kind(2)], Action::Return),
                when(vec![kind(5)], Action::Return),
                when(vec![unknown(true)], jump("ufw-logging-deny")),
                always(Action::Drop),
            ]),
        ),
        ("ufw-logging-deny", user(vec![when(vec![unknown(true)], Action::Continue)])),
        ("ufw-user-input", user(user_rules)),
        ("ufw-after-input", user(vec![when(vec![unknown(true)], Action::Continue)])),
    ];
    netfilter(vec![table(Families::V4, "filter", chains)])
}

#[test]
fn ufw_is_known_by_its_chains_and_told_in_its_own_words() {
    let Verdict::Blocked(block) = judge(&ufw(vec![]), &to("8088")) else { panic!("open") };
    assert_eq!(block.to_string(), "the policy of chain INPUT in table ip filter (ufw)");
    assert_eq!(block.allow(Protocol::Tcp, "8088".parse().unwrap()), "ufw allow 8088/tcp");
    assert_eq!(block.allow(Protocol::Udp, "80-90".parse().unwrap()), "ufw allow 80:90/udp");
    assert_eq!(block.allow_forwarding("vnet0"), "ufw route allow in on vnet0");
    assert_eq!(judge(&ufw(vec![when(tcp_port(8088), Action::Accept)]), &to("8088")), Verdict::Open);
}

#[test]
fn firewalld_iptables_and_nft_are_told_in_their_own_words_too() {
    let words = |families, backend, name: &str, chain: &str| {
        let mut table = table(families, name, vec![(chain, input(Policy::Drop, vec![]))]);
        table.backend = backend;
        let connection = if families == Families::V6 { over_v6("8088") } else { to("8088") };
        let Verdict::Blocked(block) = judge(&netfilter(vec![table]), &connection) else { panic!("open") };
        block.allow(Protocol::Tcp, "8088-8090".parse().unwrap())
    };
    let nft = Backend::Nftables;
    assert_eq!(
        words(Families::Both, nft, "firewalld", "filter_INPUT"),
        "firewall-cmd --add-port=8088-8090/tcp"
    );
    assert_eq!(
        words(Families::V4, nft, "filter", "INPUT"),
        "iptables -I INPUT -p tcp --dport 8088:8090 -j ACCEPT"
    );
    assert_eq!(
        words(Families::V6, Backend::Legacy, "filter", "INPUT"),
        "ip6tables-legacy -I INPUT -p tcp --dport 8088:8090 -j ACCEPT"
    );
    assert_eq!(
        words(Families::Both, nft, "filter", "input"),
        "nft insert rule inet filter input tcp dport 8088-8090 accept"
    );
}

#[test]
fn forwarding_is_another_matter() {
    let chain = Chain {
        base: Some(Base { hook: Hook::Forward, priority: 0, policy: Policy::Drop }),
        rules: vec![when(vec![coming_by("docker0")], Action::Accept)],
    };
    let netfilter = netfilter(vec![table(Families::V4, "filter", vec![("FORWARD", chain)])]);
    assert_eq!(judge(&netfilter, &to("80")), Verdict::Open, "it is not asked about what is for the host");
    let bridge = Link { name: "vnet0".to_owned(), index: 7 };
    let out = Connection {
        hook: Hook::Forward,
        input: bridge.clone(),
        output: Some(Link { name: "eth0".to_owned(), index: 2 }),
        destination: None,
        ..to("80")
    };
    assert_eq!(blocked(&netfilter, &out), "the policy of chain FORWARD in table ip filter (iptables)");
    let docker = Connection { input: Link { name: "docker0".to_owned(), index: 8 }, ..out };
    assert_eq!(judge(&netfilter, &docker), Verdict::Open);
}

#[test]
fn the_graver_of_two_verdicts_counts() {
    let blocked = judge(&simple(Policy::Drop, vec![]), &to("1"));
    let depends = Verdict::Undecided { why: "x".to_owned(), block: None };
    assert_eq!(Verdict::Open.worse(depends.clone()), depends);
    assert_eq!(blocked.clone().worse(depends.clone()), blocked);
    assert_eq!(depends.worse(blocked.clone()), blocked);
}

fn some_condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        (1_u16..20, 0_u16..6).prop_map(|(first, more)| port_in(first, first + more)),
        Just(equals(Field::Protocol, &[6])),
        Just(equals(Field::Protocol, &[17])),
        Just(coming_by("eth0")),
        Just(state(8)),
        Just(state(2)),
        any::<bool>().prop_map(unknown),
        Just(Condition::Never),
    ]
}

fn some_rules() -> impl Strategy<Value = Vec<Rule>> {
    let action = prop_oneof![
        Just(Action::Continue),
        Just(Action::Accept),
        Just(Action::Drop),
        Just(Action::Return),
        Just(jump("a")),
        Just(goto("b")),
    ];
    let rule = (prop::collection::vec(some_condition(), 0..3), action);
    prop::collection::vec(rule.prop_map(|(conditions, action)| when(conditions, action)), 0..5)
}

/// What the rules do if everything that is not known is so or not so, as the bits of `unknowns` say in turn: the
/// textbook's way, one packet and one way.
fn walked(table: &Table, name: &str, port: u16, unknowns: &mut u32) -> Option<Action> {
    for Rule { conditions, action } in &table.chains[name].rules {
        // All are asked, so that a bit belongs to one condition.
        let met = conditions.iter().map(|condition| match condition {
            Condition::Unknown { .. } => {
                *unknowns = unknowns.rotate_right(1);
                *unknowns & 1 != 0
            }
            condition => {
                let rule = vec![when(vec![condition.clone()], Action::Drop)];
                judge(&simple(Policy::Accept, rule), &to(&port.to_string())) != Verdict::Open
            }
        });
        if !met.collect::<Vec<_>>().into_iter().all(|met| met) {
            continue;
        }
        match action {
            Action::Accept | Action::Drop => return Some(action.clone()),
            Action::Return => return None,
            Action::Jump(to) => match walked(table, to, port, unknowns) {
                None => {}
                decided => return decided,
            },
            Action::Goto(to) => return walked(table, to, port, unknowns),
            _ => {}
        }
    }
    None
}

proptest! {
    /// Whatever is not known, a packet fares as a certain verdict says.
    #[test]
    fn a_verdict_is_undecided_rather_than_wrong(
        [base, a, b] in [some_rules(), some_rules(), some_rules()],
        drops in any::<bool>(),
        port in 1_u16..25,
        further in 0_u16..4,
        unknowns in any::<u32>(),
    ) {
        let policy = if drops { Policy::Drop } else { Policy::Accept };
        // "a" calls "b", and "b" nobody.
        let calls = |rules: Vec<Rule>, whom: &[&str]| -> Vec<Rule> {
            let known = |rule: &Rule| match &rule.action {
                Action::Jump(to) | Action::Goto(to) => whom.contains(&to.as_str()),
                _ => true,
            };
            rules.into_iter().filter(known).collect()
        };
        let chains = vec![
            ("in", input(policy, base)),
            ("a", user(calls(a, &["b"]))),
            ("b", user(calls(b, &[]))),
        ];
        let table = table(Families::Both, "mine", chains);
        let verdict = judge(&netfilter(vec![table.clone()]), &to(&format!("{port}-{}", port + further)));
        for port in port..=port + further {
            let passes = match walked(&table, "in", port, &mut unknowns.clone()) {
                Some(action) => action == Action::Accept,
                None => !drops,
            };
            match verdict {
                Verdict::Open => prop_assert!(passes, "port {port}"),
                Verdict::Blocked(_) => prop_assert!(!passes, "port {port}"),
                Verdict::Undecided { .. } => {}
            }
        }
    }
}
