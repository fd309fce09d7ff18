//! Taking files apart: everything that is wrong with them is found, not only the first of it.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::conflicts::{self, Found, Missing};
use super::json;
use super::model::VERSION;
use super::problem::{Problem, Problems, Source, Spot};
use crate::manage::{
    CgroupLimitRequest, Description, DirectRequest, Doubt, EndpointRequest, FloatingRequest, LimitChange,
    MasqueradeRequest, NetworkRequest, Part, Place, PortMapRequest, RefusedPart, RouterRequest,
};
use crate::spec::{
    self, Bytes, Cgroup, Limit, LinkMode, Name, Namespace, NetworkChange, Protocol, RateSetting, Seconds,
    TableSizes, TargetHost, Timeout, TimeoutSetting, Xdp, XdpSetting, parse_mac, parse_nat_ports,
};

/// Files that make sense: what they describe, and where.
#[derive(Debug)]
pub struct File {
    /// What they describe.
    pub description: Description,
    spots: HashMap<Part, Spot>,
    sources: Vec<Source>,
}

impl File {
    /// Where the parts that were refused stand, and why they were.
    #[must_use]
    pub fn refused(&self, refused: Vec<RefusedPart>) -> Problems {
        Problems::new(&self.sources, self.problems(refused), false)
    }

    fn problems(&self, refused: Vec<RefusedPart>) -> Vec<Problem> {
        let spot = |part| self.spots.get(&part).copied().unwrap_or_default();
        let problem = |RefusedPart { part, error }: RefusedPart| Problem {
            spot: spot(part),
            message: in_full(&error),
            other: None,
        };
        refused.into_iter().map(problem).collect()
    }

    /// What it describes, less some parts of it.
    fn without(self, flawed: &HashSet<Part>) -> Self {
        let Self { description, spots, sources } = self;
        let mut sound = Parts { flawed, before: spots, now: HashMap::new() };
        let description = Description {
            uplinks: sound.only(Part::Instance, description.uplinks),
            change: sound.only(Part::Instance, description.change),
            router: sound.only(Part::Router, description.router),
            networks: sound.each(Part::Network, description.networks),
            endpoints: sound.each(Part::Endpoint, description.endpoints),
            directs: sound.each(Part::Direct, description.directs),
            port_maps: sound.each(Part::PortMap, description.port_maps),
            masquerades: sound.each(Part::Masquerade, description.masquerades),
            excluded: sound.each(Part::Excluded, description.excluded),
            floating: sound.each(Part::Floating, description.floating),
            denied: sound.each(Part::Denied, description.denied),
            cgroup_limits: sound.each(Part::CgroupLimit, description.cgroup_limits),
        };
        Self { description, spots: sound.now, sources }
    }
}

/// Parts of a description that are kept, and where they stand.
struct Parts<'a> {
    flawed: &'a HashSet<Part>,
    before: HashMap<Part, Spot>,
    now: HashMap<Part, Spot>,
}

impl Parts<'_> {
    fn keep(&mut self, part: Part, as_part: Part) -> bool {
        if self.flawed.contains(&part) {
            return false;
        }
        self.now.extend(self.before.get(&part).map(|spot| (as_part, *spot)));
        true
    }

    fn only<T: Default>(&mut self, part: Part, value: T) -> T {
        if self.keep(part, part) { value } else { T::default() }
    }

    fn each<T>(&mut self, part: fn(usize) -> Part, values: Vec<T>) -> Vec<T> {
        let mut kept = Vec::with_capacity(values.len());
        for (nth, value) in values.into_iter().enumerate() {
            if self.keep(part(nth), part(kept.len())) {
                kept.push(value);
            }
        }
        kept
    }
}

/// Files with which something is wrong.
#[derive(Debug)]
pub struct Flawed {
    /// Those parts of them that make sense.
    pub sound: File,
    /// What they may say besides.
    pub doubt: Doubt,
    problems: Vec<Problem>,
    /// What makes sense in itself, but not on this host.
    refused: Vec<Problem>,
}

impl From<File> for Flawed {
    /// Files with which nothing is wrong in themselves.
    fn from(sound: File) -> Self {
        Self { sound, doubt: Doubt::default(), problems: Vec::new(), refused: Vec::new() }
    }
}

impl Flawed {
    /// The same, with the cgroups that are limited as `recorded` has them, however they are written, and without limits of
    /// those that are none and of those that are written in two ways.
    #[must_use]
    pub fn with_cgroups<E: std::error::Error>(self, recorded: impl Fn(&Cgroup) -> Result<Cgroup, E>) -> Self {
        let Self { mut sound, doubt, problems, mut refused } = self;
        let spots = &sound.spots;
        for (nth, request) in sound.description.cgroup_limits.iter_mut().enumerate() {
            match recorded(&request.cgroup) {
                Ok(cgroup) => request.cgroup = cgroup,
                Err(error) => {
                    let spot = spots.get(&Part::CgroupLimit(nth)).copied().unwrap_or_default();
                    refused.push(Problem { spot, message: in_full(&error), other: None });
                }
            }
        }
        refused.extend(conflicts::limited_twice(&sound.description, spots));
        let is_refused = |spot: &Spot| refused.iter().any(|problem| problem.spot == *spot);
        let flawed = spots.iter().filter(|(_, spot)| is_refused(spot)).map(|(part, _)| *part).collect();
        Self { sound: sound.without(&flawed), doubt, problems, refused }
    }

    /// The files, if nothing is wrong with them.
    ///
    /// # Errors
    /// These, if something is.
    pub fn whole(self) -> Result<File, Box<Self>> {
        let is_read = self.sound.sources.iter().all(|source| source.text.is_ok());
        if is_read && self.problems.is_empty() && self.refused.is_empty() {
            Ok(self.sound)
        } else {
            Err(Box::new(self))
        }
    }

    /// Everything that is wrong with them, and why parts that make sense were refused.
    #[must_use]
    pub fn problems(self, refused: Vec<RefusedPart>) -> Problems {
        let Self { sound, mut problems, refused: here, .. } = self;
        let make_no_sense = !problems.is_empty();
        problems.extend(here);
        problems.extend(sound.problems(refused));
        Problems::new(&sound.sources, problems, make_no_sense)
    }
}

/// What there is without being described.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Networks.
    pub networks: HashSet<Name>,
    /// Endpoints.
    pub endpoints: HashSet<Name>,
}

/// Reads files, of which later ones add to earlier ones.
///
/// # Errors
/// Everything that is wrong with them, and the rest of what they say.
pub fn read(sources: Vec<Source>, known: &Known) -> Result<File, Box<Flawed>> {
    let mut reader = Reader::default();
    for (nth, source) in sources.iter().enumerate() {
        reader.source = nth;
        match &source.text {
            Ok(text) => reader.read(text),
            Err(_) => reader.partial.push(nth),
        }
    }
    let Found { conflicts, missing } =
        conflicts::find(&reader.description, &reader.spots, &reader.places, known, &reader.named);
    let owners = reader.owners();
    let partial: Vec<&Source> = reader.partial.iter().map(|nth| &sources[*nth]).collect();
    let may_say = |word: &str| partial.iter().any(|source| source.may_say(word));
    for problem in conflicts {
        reader.flawed.extend(owners.get(&problem.spot));
        reader.problems.push(problem);
    }
    for Missing { spot, message, name } in missing {
        if may_say(name.as_str()) {
            // It may be described where that could not be understood.
            name.put_into(&mut reader.doubt);
        } else {
            reader.flawed.extend(owners.get(&spot));
            reader.problems.push(Problem { spot, message, other: None });
        }
    }
    reader.doubt_flawed(known, may_say);
    let is_whole = partial.is_empty();
    let Reader { description, spots, problems, flawed, doubt, .. } = reader;
    let file = File { description, spots, sources };
    if problems.is_empty() && is_whole {
        return Ok(file);
    }
    Err(Box::new(Flawed { sound: file.without(&flawed), doubt, problems, refused: Vec::new() }))
}

/// Whether files say that an instance is a router, whatever else they say.
#[must_use]
pub fn describes_router(sources: &[Source]) -> bool {
    let says_so = |source: &Source| {
        let text = json::as_toml(source.known());
        DeTable::parse_recoverable(text.as_deref().unwrap_or_default()).0.get_ref().contains_key("router")
    };
    sources.iter().any(says_so)
}

/// An error with its causes.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Where within a part something is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// The network of its nth link.
    Network(usize),
    /// Its nth prefix.
    Nth(usize),
    /// Of its nth link, which address.
    Address(usize, usize),
    /// Its bridge.
    Bridge,
    /// How it is linked.
    Mode,
    /// The hardware address of its nth link.
    Mac(usize),
    /// Where it leads.
    Target,
}

/// Names that are given to parts, even to those about which something is wrong: they are not unknown.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) networks: HashMap<Name, Spot>,
    pub(super) endpoints: HashMap<Name, Spot>,
}

/// Where names of a kind of thing are kept: those that are given, and those of which too little is known.
type Names = (fn(&mut Named) -> &mut HashMap<Name, Spot>, fn(&mut Doubt) -> &mut HashSet<Name>);

#[derive(Default)]
struct Reader {
    source: usize,
    description: Description,
    spots: HashMap<Part, Spot>,
    places: HashMap<(Part, Key), Spot>,
    named: Named,
    /// Where single values of the instance are said.
    said: HashMap<String, Spot>,
    problems: Vec<Problem>,
    /// Parts about which something is wrong.
    flawed: HashSet<Part>,
    /// What may be described besides, and could make a difference to what is.
    doubt: Doubt,
    /// The sources of which not all could be understood.
    partial: Vec<usize>,
}

/// The table of a part, and which of its keys were asked for.
struct Fields<'t, 'i> {
    /// What it is, with an article.
    what: &'static str,
    table: &'t DeTable<'i>,
    spot: Spot,
    known: Vec<&'static str>,
}

type Value<'i> = Spanned<DeValue<'i>>;

impl<'t, 'i> Fields<'t, 'i> {
    fn get(&mut self, key: &'static str) -> Option<&'t Value<'i>> {
        self.known.push(key);
        self.table.get(key)
    }
}

impl Reader {
    /// Whose each place is.
    fn owners(&self) -> HashMap<Spot, Part> {
        let places = self.places.iter().map(|((part, _), spot)| (*spot, *part));
        self.spots.iter().map(|(part, spot)| (*spot, *part)).chain(places).collect()
    }

    /// Doubts what was not understood, and could make a difference to what was.
    fn doubt_flawed(&mut self, known: &Known, may_say: impl Fn(&str) -> bool) {
        let Self { description, flawed, named, doubt, .. } = self;
        doubt.instance |= may_say("instance") || flawed.contains(&Part::Instance);
        doubt.router |= may_say("router") || flawed.contains(&Part::Router);
        let part = |(nth, it): (usize, _)| flawed.contains(&Part::Network(nth)).then_some(it);
        let networks = description.networks.iter().map(|network| &network.name);
        doubt.networks.extend(networks.enumerate().filter_map(part).cloned());
        let default = Name::default_network();
        let is_known = named.networks.contains_key(&default) || known.networks.contains(&default);
        if !is_known && may_say(default.as_str()) {
            doubt.networks.insert(default);
        }
        let part = |(nth, it): (usize, _)| flawed.contains(&Part::Endpoint(nth)).then_some(it);
        let endpoints = description.endpoints.iter().map(|endpoint| &endpoint.name);
        doubt.endpoints.extend(endpoints.enumerate().filter_map(part).cloned());
    }

    /// Notes of a part that something is wrong about it, if there are more problems than `before`.
    fn done_with(&mut self, part: Part, before: usize) {
        if self.problems.len() > before {
            self.flawed.insert(part);
        }
    }

    fn read(&mut self, text: &str) {
        let text = match json::as_toml(text) {
            Ok(text) => text,
            Err(json::Error { offset, message }) => {
                self.partial.push(self.source);
                return self.problem(offset, message);
            }
        };
        let (document, errors) = DeTable::parse_recoverable(&text);
        if !errors.is_empty() {
            // What could not be understood would be missing elsewhere: only the errors themselves are sure.
            self.partial.push(self.source);
            for error in errors {
                let offset = error.span().map_or(0, |span| span.start);
                self.problem(offset, format!("this is not TOML: {}", error.message().replace('\n', ", ")));
            }
            return;
        }
        let mut top =
            Fields { what: "a file", table: document.get_ref(), spot: self.spot(0), known: Vec::new() };
        self.version(&mut top);
        if let Some(value) = top.get("instance")
            && let Some(table) = self.table(value)
        {
            let before = self.problems.len();
            self.instance(value.span().start, table);
            self.done_with(Part::Instance, before);
        }
        if let Some(value) = top.get("router")
            && let Some(table) = self.table(value)
        {
            let before = self.problems.len();
            self.router(value.span().start, table);
            self.done_with(Part::Router, before);
        }
        let names: Names = (|named| &mut named.networks, |doubt| &mut doubt.networks);
        self.each_named(&mut top, "networks", names, Self::network);
        let names: Names = (|named| &mut named.endpoints, |doubt| &mut doubt.endpoints);
        self.each_named(&mut top, "endpoints", names, Self::endpoint);
        self.each(&mut top, "portmaps", "a mapping", Self::port_map);
        self.each(&mut top, "direct", "a direct link", Self::direct);
        self.each(&mut top, "masquerades", "a masquerade rule", Self::masquerade);
        self.each(&mut top, "floating", "a floating address", Self::floating);
        self.each(&mut top, "limits", "a limit", Self::cgroup_limit);
        for (offset, prefix) in self.list(&mut top, "excluded", str::parse::<spec::Cidr>) {
            self.spots.insert(Part::Excluded(self.description.excluded.len()), self.spot(offset));
            self.description.excluded.push(prefix);
        }
        for (offset, prefix) in self.list(&mut top, "denied", str::parse::<spec::Cidr>) {
            self.spots.insert(Part::Denied(self.description.denied.len()), self.spot(offset));
            self.description.denied.push(prefix);
        }
        self.unknown(&top);
    }

    fn version(&mut self, top: &mut Fields<'_, '_>) {
        let Some(value) = top.get("version") else { return };
        let written = self.number(value, 0..=u32::MAX);
        if let Some(written) = written.filter(|written| *written != VERSION) {
            let message =
                format!("version {written} of the format is not known: this vnet reads version {VERSION}");
            self.problem(value.span().start, message);
        }
    }

    fn instance(&mut self, offset: usize, table: &DeTable<'_>) {
        let spot = self.spot(offset);
        self.spots.entry(Part::Instance).or_insert(spot);
        let mut fields = Fields { what: "an instance", table, spot, known: Vec::new() };
        for (_, uplink) in self.list(&mut fields, "uplinks", str::parse) {
            if !self.description.uplinks.contains(&uplink) {
                self.description.uplinks.push(uplink);
            }
        }
        let nat_ports = self.once(&mut fields, "nat-ports", |it, value| it.parsed(value, parse_nat_ports));
        let sizes = *TableSizes::BOUNDS.start() as u32..=*TableSizes::BOUNDS.end() as u32;
        let max_flows = self.once(&mut fields, "max-flows", |it, value| it.number(value, sizes.clone()));
        let max_unanswered =
            self.once(&mut fields, "max-unanswered", |it, value| it.number(value, sizes.clone()));
        let any = |it: &mut Self, value: &Value<'_>| it.number(value, 0..=u32::MAX);
        let endpoint_flows = self.once(&mut fields, "endpoint-flows", any);
        let endpoint_unanswered = self.once(&mut fields, "endpoint-unanswered", any);
        let firewall = self.once(&mut fields, "firewall", |it, value| it.parsed(value, str::parse));
        let flood_rate = self.once(&mut fields, "flood-rate", any);
        let flood_total = self.once(&mut fields, "flood-total", any);
        let change = &mut self.description.change;
        change.nat_ports = nat_ports.or(change.nat_ports);
        change.max_flows = max_flows.or(change.max_flows);
        change.max_unanswered = max_unanswered.or(change.max_unanswered);
        change.endpoint_flows = endpoint_flows.or(change.endpoint_flows);
        change.endpoint_unanswered = endpoint_unanswered.or(change.endpoint_unanswered);
        change.firewall = firewall.or(change.firewall);
        change.flood_rate = flood_rate.or(change.flood_rate);
        change.flood_total = flood_total.or(change.flood_total);
        self.xdp(&mut fields);
        self.timeouts(&mut fields);
        self.unknown(&fields);
    }

    fn router(&mut self, offset: usize, table: &DeTable<'_>) {
        let mut fields = Fields { what: "a router", table, spot: self.spot(offset), known: Vec::new() };
        let bridge = match fields.get("outside") {
            Some(value) => self.parsed(value, str::parse),
            None => self.missing(&fields, "outside", "\"br0\""),
        };
        if table.get("addresses").is_none() {
            self.missing::<()>(&fields, "addresses", "[\"203.0.113.5/24\"]");
        }
        let addresses = self.list(&mut fields, "addresses", with_prefix);
        let gateways = self.list(&mut fields, "gateways", address);
        let mac = self.optional(&mut fields, "mac", parse_mac);
        self.unknown(&fields);
        if !self.first_time("router", offset) {
            return;
        }
        let (at, addresses): (Vec<usize>, Vec<_>) = addresses.into_iter().unzip();
        let gateways: Vec<_> = gateways.into_iter().map(|(_, gateway)| gateway).collect();
        if let Some(at) = at.first() {
            self.understood(*at, spec::check_outside(&addresses, &gateways));
        }
        if let Some(bridge) = bridge {
            self.spots.insert(Part::Router, fields.spot);
            self.description.router = Some(RouterRequest { bridge, addresses, gateways, mac });
        }
    }

    fn xdp(&mut self, fields: &mut Fields<'_, '_>) {
        let Some(value) = fields.get("xdp") else { return };
        if !matches!(value.get_ref(), DeValue::Table(_)) {
            if let Some(mode) = self.parsed(value, str::parse::<Xdp>)
                && self.first_time("xdp", value.span().start)
            {
                self.description.change.xdp.push(XdpSetting { interface: None, mode });
            }
            return;
        }
        let Some(table) = self.table(value) else { return };
        for (key, value) in table {
            let offset = key.span().start;
            let interface = self.understood(offset, key.get_ref().parse());
            let mode = self.parsed(value, str::parse::<Xdp>);
            if let (Some(interface), Some(mode)) = (interface, mode)
                && self.first_time(&format!("xdp.{}", key.get_ref()), offset)
            {
                self.description.change.xdp.push(XdpSetting { interface: Some(interface), mode });
            }
        }
    }

    fn timeouts(&mut self, fields: &mut Fields<'_, '_>) {
        let Some(value) = fields.get("timeouts") else { return };
        let Some(table) = self.table(value) else { return };
        for (key, value) in table {
            let offset = key.span().start;
            let timeout = self.understood(offset, key.get_ref().parse::<Timeout>());
            let span = self
                .word(value)
                .and_then(|text| self.understood(value.span().start, text.parse::<Seconds>()));
            if let (Some(timeout), Some(value)) = (timeout, span)
                && self.first_time(&format!("timeouts.{timeout}"), offset)
            {
                self.description.change.timeouts.push(TimeoutSetting { timeout, value });
            }
        }
    }

    fn network(&mut self, name: Name, offset: usize, table: &DeTable<'_>) {
        let part = Part::Network(self.description.networks.len());
        if !self.is_new(|named| &mut named.networks, &name, offset, "network") {
            return;
        }
        let before = self.problems.len();
        let mut fields = Fields { what: "a network", table, spot: self.spot(offset), known: Vec::new() };
        let subnets = self.list(&mut fields, "subnets", str::parse);
        for (nth, (at, _)) in subnets.iter().enumerate() {
            self.places.insert((part, Key::Nth(nth)), self.spot(*at));
        }
        let gateways = self.list(&mut fields, "gateways", address);
        let ranges = self.list(&mut fields, "ranges", str::parse);
        let reserved = self.list(&mut fields, "reserved", address);
        let bridge = self.optional(&mut fields, "bridge", str::parse);
        if let Some(value) = table.get("bridge") {
            self.places.insert((part, Key::Bridge), self.spot(value.span().start));
        }
        let no_bridge = self.flag(&mut fields, "no-bridge");
        let mtu = fields.get("mtu").and_then(|value| self.number(value, 68..=65535));
        let internal = self.flag(&mut fields, "internal");
        let isolated = self.flag(&mut fields, "isolated");
        let options = NetworkChange {
            gateway_mode: self.optional(&mut fields, "gateway-mode", str::parse),
            udp_mapping: self.optional(&mut fields, "udp-mapping", str::parse),
            tcp_mapping: self.optional(&mut fields, "tcp-mapping", str::parse),
            filtering: self.optional(&mut fields, "filtering", str::parse),
        };
        self.unknown(&fields);
        self.spots.insert(part, fields.spot);
        self.done_with(part, before);
        let values = |list: Vec<(usize, _)>| list.into_iter().map(|(_, value)| value).collect();
        let (subnets, gateways) = (values(subnets), gateways.into_iter().map(|(_, value)| value).collect());
        self.description.networks.push(NetworkRequest {
            name,
            subnets,
            gateways,
            ranges: ranges.into_iter().map(|(_, range)| range).collect(),
            reserved: reserved.into_iter().map(|(_, addr)| addr).collect(),
            bridge,
            no_bridge,
            mtu,
            internal,
            isolated,
            options,
        });
    }

    fn endpoint(&mut self, name: Name, offset: usize, table: &DeTable<'_>) {
        let part = Part::Endpoint(self.description.endpoints.len());
        if !self.is_new(|named| &mut named.endpoints, &name, offset, "endpoint") {
            return;
        }
        let before = self.problems.len();
        let mut fields = Fields { what: "an endpoint", table, spot: self.spot(offset), known: Vec::new() };
        let first = self.place(&mut fields, (part, 0));
        let mut places = vec![first.unwrap_or_else(|| Place::on(Name::default_network()))];
        for (nth, mut link) in self.tables(&mut fields, "links", "a link").into_iter().enumerate() {
            let place = self.place(&mut link, (part, nth + 1));
            self.unknown(&link);
            places.extend(place);
        }
        let mode = self.optional(&mut fields, "mode", str::parse::<LinkMode>).unwrap_or_default();
        if let Some(value) = table.get("mode") {
            self.places.insert((part, Key::Mode), self.spot(value.span().start));
        }
        let linked = mode == LinkMode::Bridge;
        let netns = fields.get("netns").and_then(|value| self.path(value));
        let limits = LimitChange {
            egress: self.limit(&mut fields, "egress", "egress-burst"),
            ingress: self.limit(&mut fields, "ingress", "ingress-burst"),
        };
        self.unknown(&fields);
        if let Some((key, _)) = table.get_key_value("netns")
            && matches!(mode, LinkMode::Host | LinkMode::Container(_))
        {
            let message = format!("mode \"{mode}\" has a namespace already: leave one of the two out");
            self.problem(key.span().start, message);
        }
        let placed = ["network", "addresses", "mac", "ifname", "routes", "links", "egress", "ingress"]
            .into_iter()
            .find_map(|key| table.get_key_value(key));
        if let (false, Some((key, _))) = (linked, placed) {
            let message = format!("mode \"{mode}\" has no {}: leave one of the two out", key.get_ref());
            self.problem(key.span().start, message);
        }
        if !linked {
            places.clear();
        }
        let namespace = match (mode, netns) {
            (LinkMode::Host, _) => Namespace::Host,
            (LinkMode::Container(with), _) => Namespace::Shared { with, path: PathBuf::new() },
            (LinkMode::Bridge | LinkMode::None, None) => Namespace::Own,
            (LinkMode::Bridge | LinkMode::None, Some(path)) => Namespace::Foreign { path },
        };
        self.spots.insert(part, fields.spot);
        self.done_with(part, before);
        self.description.endpoints.push(EndpointRequest { name, namespace, places, limits });
    }

    /// A place on a network, the nth of an endpoint: only the first may leave the network out, and it gives nothing then
    /// but what the default network has.
    fn place(&mut self, fields: &mut Fields<'_, '_>, (part, nth): (Part, usize)) -> Option<Place> {
        let network = self.optional(fields, "network", str::parse);
        if let Some(value) = fields.table.get("network") {
            self.places.insert((part, Key::Network(nth)), self.spot(value.span().start));
        } else if nth > 0 {
            self.missing::<()>(fields, "network", "\"blue\"");
        }
        let addresses = self.list(fields, "addresses", address);
        for (at, (offset, _)) in addresses.iter().enumerate() {
            self.places.insert((part, Key::Address(nth, at)), self.spot(*offset));
        }
        let mac = self.optional(fields, "mac", parse_mac);
        if let Some(value) = fields.table.get("mac") {
            self.places.insert((part, Key::Mac(nth)), self.spot(value.span().start));
        }
        let ifname = self.optional(fields, "ifname", str::parse);
        let routes = self.list(fields, "routes", str::parse);
        let network = if nth == 0 { Some(network.unwrap_or_else(Name::default_network)) } else { network };
        Some(Place {
            network: network?,
            addresses: addresses.into_iter().map(|(_, addr)| addr).collect(),
            mac,
            ifname,
            routes: routes.into_iter().map(|(_, route)| route).collect(),
        })
    }

    /// A limit: its rate, and a burst that goes with it.
    fn limit(
        &mut self,
        fields: &mut Fields<'_, '_>,
        rate: &'static str,
        burst: &'static str,
    ) -> Option<Option<Limit>> {
        let setting: Option<RateSetting> = self.optional(fields, rate, str::parse);
        let Some(given) = fields.get(burst) else { return setting.map(|setting| setting.with(None)) };
        let Some(setting) = setting else {
            if fields.table.get(rate).is_none() {
                self.problem(given.span().start, format!("{burst} is nothing without {rate}: say that, too"));
            }
            return None;
        };
        let text = self.word(given)?;
        let bytes = self.understood(given.span().start, text.parse::<Bytes>())?;
        Some(setting.with(Some(bytes)))
    }

    fn cgroup_limit(&mut self, mut fields: Fields<'_, '_>) {
        let before = self.problems.len();
        let path = self.optional(&mut fields, "cgroup", str::parse::<spec::CgroupPath>);
        let class = self.optional(&mut fields, "classid", str::parse::<spec::ClassId>);
        let given = ["cgroup", "classid"].map(|key| fields.table.get_key_value(key));
        let cgroup = match given {
            [None, None] => {
                let message = format!(
                    "{} needs cgroup or classid: write cgroup = \"/user.slice\", or classid = \"1:10\" for a class of net_cls",
                    fields.what
                );
                self.problem(fields.spot.offset, message);
                None
            }
            [Some(_), Some((key, _))] => {
                let message = "a limit is for a cgroup or for a classid: leave one of the two out";
                self.problem(key.span().start, message.to_owned());
                None
            }
            _ => path.map(spec::Cgroup::Path).or(class.map(spec::Cgroup::ClassId)),
        };
        let limit = self.limit(&mut fields, "egress", "egress-burst");
        let part = Part::CgroupLimit(self.description.cgroup_limits.len());
        let limit = match limit {
            Some(Some(limit)) => Some(limit),
            Some(None) => {
                let message =
                    "a limit of \"none\" is none: leave it out, and `vnet apply --prune` removes it";
                self.problem(fields.spot.offset, message.to_owned());
                None
            }
            None if fields.table.get("egress").is_none() => self.missing(&fields, "egress", "\"50mbit\""),
            None => None,
        };
        self.unknown(&fields);
        if let (Some(cgroup), Some(limit)) = (cgroup, limit) {
            self.spots.insert(part, fields.spot);
            self.done_with(part, before);
            self.description.cgroup_limits.push(CgroupLimitRequest { cgroup, limit });
        }
    }

    fn port_map(&mut self, mut fields: Fields<'_, '_>) {
        let part = Part::PortMap(self.description.port_maps.len());
        let before = self.problems.len();
        let published = match fields.get("publish") {
            Some(value) => self
                .word(value)
                .and_then(|text| self.understood(value.span().start, text.parse::<spec::Published>())),
            None => self.missing(&fields, "publish", "8088"),
        };
        let target = match fields.get("target") {
            Some(value) => {
                self.places.insert((part, Key::Target), self.spot(value.span().start));
                self.parsed(value, str::parse::<spec::Target>)
            }
            None => self.missing(&fields, "target", "\"web:80\""),
        };
        let protocol = self.optional(&mut fields, "protocol", protocol).unwrap_or_default();
        let allow_from = self.list(&mut fields, "allow-from", str::parse);
        self.unknown(&fields);
        if let (Some(published), Some(target)) = (published, target) {
            let allow_from = allow_from.into_iter().map(|(_, clients)| clients).collect();
            self.spots.insert(part, fields.spot);
            self.done_with(part, before);
            let request = PortMapRequest { published, target, protocol, allow_from };
            self.description.port_maps.push(request);
        }
    }

    fn direct(&mut self, mut fields: Fields<'_, '_>) {
        let part = Part::Direct(self.description.directs.len());
        let before = self.problems.len();
        let between = self.list(&mut fields, "between", str::parse::<Name>);
        let whole = fields.table.get("between").is_some();
        if let Some(value) = fields.table.get("between") {
            self.places.insert((part, Key::Target), self.spot(value.span().start));
        }
        let addresses = self.list(&mut fields, "addresses", with_prefix);
        let mut ifnames = self.list(&mut fields, "ifnames", str::parse).into_iter().map(|(_, name)| name);
        let mtu = fields.get("mtu").and_then(|value| self.number(value, 1280..=65535));
        self.unknown(&fields);
        let endpoints: Vec<Name> = between.into_iter().map(|(_, name)| name).collect();
        let Ok(endpoints) = <[Name; 2]>::try_from(endpoints) else {
            if !whole {
                self.missing::<()>(&fields, "between", "[\"web\", \"db\"]");
            } else {
                let message = "a direct link is between two endpoints: name both".to_owned();
                self.problems.push(Problem { spot: fields.spot, message, other: None });
            }
            return;
        };
        if fields.table.get("addresses").is_none() {
            self.missing::<()>(&fields, "addresses", "[\"192.168.1.1/24\", \"192.168.1.2/24\"]");
            return;
        }
        let addresses: Vec<ipnet::IpNet> = addresses.into_iter().map(|(_, net)| net).collect();
        let ifnames = [ifnames.next(), ifnames.next()];
        self.spots.insert(part, fields.spot);
        self.done_with(part, before);
        self.description.directs.push(DirectRequest { endpoints, addresses, ifnames, mtu });
    }

    fn masquerade(&mut self, mut fields: Fields<'_, '_>) {
        let part = Part::Masquerade(self.description.masquerades.len());
        let before = self.problems.len();
        let subnet = match fields.get("sources") {
            Some(value) => self.parsed(value, str::parse),
            None => self.missing(&fields, "sources", "\"10.0.0.0/8\""),
        };
        let to = self.optional(&mut fields, "to", address);
        self.unknown(&fields);
        if let Some(subnet) = subnet {
            self.spots.insert(part, fields.spot);
            self.done_with(part, before);
            self.description.masquerades.push(MasqueradeRequest { subnet, to });
        }
    }

    fn floating(&mut self, mut fields: Fields<'_, '_>) {
        let part = Part::Floating(self.description.floating.len());
        let before = self.problems.len();
        let external = match fields.get("external") {
            Some(value) => self.parsed(value, address),
            None => self.missing(&fields, "external", "\"203.0.113.5\""),
        };
        let target = match fields.get("target") {
            Some(value) => {
                self.places.insert((part, Key::Target), self.spot(value.span().start));
                self.parsed(value, str::parse::<TargetHost>)
            }
            None => self.missing(&fields, "target", "\"web\""),
        };
        self.unknown(&fields);
        if let (Some(external), Some(target)) = (external, target) {
            self.spots.insert(part, fields.spot);
            self.done_with(part, before);
            self.description.floating.push(FloatingRequest { external, target });
        }
    }

    /// Reads each table of a table of tables, in the order of the file.
    fn each_named(
        &mut self,
        top: &mut Fields<'_, '_>,
        key: &'static str,
        (named, doubted): Names,
        read: fn(&mut Self, Name, usize, &DeTable<'_>),
    ) {
        let Some(value) = top.get(key) else { return };
        let Some(tables) = self.table(value) else { return };
        let mut tables: Vec<_> = tables.iter().collect();
        tables.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in tables {
            let offset = name.span().start;
            let parsed = self.understood(offset, name.get_ref().parse::<Name>());
            match (parsed, self.table(value)) {
                (Some(name), Some(table)) => read(self, name, offset, table),
                (Some(name), None) => {
                    named(&mut self.named)
                        .entry(name.clone())
                        .or_insert(Spot { source: self.source, offset });
                    doubted(&mut self.doubt).insert(name);
                }
                (None, _) => {}
            }
        }
    }

    /// Reads each table of a list.
    fn each(
        &mut self,
        top: &mut Fields<'_, '_>,
        key: &'static str,
        what: &'static str,
        read: fn(&mut Self, Fields<'_, '_>),
    ) {
        for fields in self.tables(top, key, what) {
            read(self, fields);
        }
    }

    /// The tables of a list.
    fn tables<'t, 'i>(
        &mut self,
        of: &mut Fields<'t, 'i>,
        key: &'static str,
        what: &'static str,
    ) -> Vec<Fields<'t, 'i>> {
        let Some(value) = of.get(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            let message = format!("{key} is a list of tables, not {}: write [[{key}]]", kind(value));
            self.problem(value.span().start, message);
            return Vec::new();
        };
        let mut tables = Vec::with_capacity(items.len());
        for item in items.iter() {
            if let Some(table) = self.table(item) {
                let spot = self.spot(item.span().start);
                tables.push(Fields { what, table, spot, known: Vec::new() });
            }
        }
        tables
    }

    /// Whether a name is given for the first time.
    fn is_new(
        &mut self,
        names: fn(&mut Named) -> &mut HashMap<Name, Spot>,
        name: &Name,
        offset: usize,
        what: &str,
    ) -> bool {
        let spot = self.spot(offset);
        let Some(other) = names(&mut self.named).get(name).copied() else {
            names(&mut self.named).insert(name.clone(), spot);
            return true;
        };
        let message = format!("{what} {name} is described twice: leave one of the two out");
        self.problems.push(Problem { spot, message, other: Some(other) });
        false
    }

    /// Whether a value of the instance is said for the first time.
    fn first_time(&mut self, key: &str, offset: usize) -> bool {
        let spot = self.spot(offset);
        let Some(other) = self.said.get(key).copied() else {
            self.said.insert(key.to_owned(), spot);
            return true;
        };
        let message = format!("{key} is said twice: leave one of the two out");
        self.problems.push(Problem { spot, message, other: Some(other) });
        false
    }

    fn once<T>(
        &mut self,
        fields: &mut Fields<'_, '_>,
        key: &'static str,
        read: impl Fn(&mut Self, &Value<'_>) -> Option<T>,
    ) -> Option<T> {
        let value = fields.get(key)?;
        let read = read(self, value)?;
        self.first_time(key, value.span().start).then_some(read)
    }

    fn optional<T, E: Display>(
        &mut self,
        fields: &mut Fields<'_, '_>,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let value = fields.get(key)?;
        self.parsed(value, parse)
    }

    /// What can be understood of a list of words, each with where it stands.
    fn list<T, E: Display>(
        &mut self,
        fields: &mut Fields<'_, '_>,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<(usize, T)> {
        let Some(value) = fields.get(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            let message = format!("{key} is a list, not {}: put it in brackets", kind(value));
            self.problem(value.span().start, message);
            return Vec::new();
        };
        let mut read = Vec::with_capacity(items.len());
        for item in items.iter() {
            if let Some(value) = self.parsed(item, &parse) {
                read.push((item.span().start, value));
            }
        }
        read
    }

    fn parsed<T, E: Display>(
        &mut self,
        value: &Value<'_>,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let DeValue::String(text) = value.get_ref() else {
            let message = format!("this is {} and is to be a string: put it in quotes", kind(value));
            self.problem(value.span().start, message);
            return None;
        };
        self.understood(value.span().start, parse(text))
    }

    fn understood<T, E: Display>(&mut self, offset: usize, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.problem(offset, error.to_string())).ok()
    }

    /// A string, or a number as one.
    fn word(&mut self, value: &Value<'_>) -> Option<String> {
        match value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
            _ => {
                let message = format!("this is {} and is to be a string or a number", kind(value));
                self.problem(value.span().start, message);
                None
            }
        }
    }

    fn number(&mut self, value: &Value<'_>, bounds: RangeInclusive<u32>) -> Option<u32> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => {
                let message = format!("this is {} and is to be a number without quotes", kind(value));
                self.problem(value.span().start, message);
                return None;
            }
        };
        let fits = number.filter(|number| bounds.contains(number));
        if fits.is_none() {
            let message = format!("this is to be a number from {} to {}", bounds.start(), bounds.end());
            self.problem(value.span().start, message);
        }
        fits
    }

    fn flag(&mut self, fields: &mut Fields<'_, '_>, key: &'static str) -> bool {
        match fields.get(key).map(|value| (value, value.get_ref())) {
            None => false,
            Some((_, DeValue::Boolean(flag))) => *flag,
            Some((value, _)) => {
                let message = format!("this is {} and is to be true or false", kind(value));
                self.problem(value.span().start, message);
                false
            }
        }
    }

    fn path(&mut self, value: &Value<'_>) -> Option<PathBuf> {
        self.parsed(value, |text| {
            let path = PathBuf::from(text);
            if path.is_absolute() {
                Ok(path)
            } else {
                Err(format!("{text:?} is not a path from the root: write /run/netns/NAME"))
            }
        })
    }

    fn table<'t, 'i>(&mut self, value: &'t Value<'i>) -> Option<&'t DeTable<'i>> {
        if let DeValue::Table(table) = value.get_ref() {
            return Some(table);
        }
        let message = format!("this is {} and is to be a table", kind(value));
        self.problem(value.span().start, message);
        None
    }

    fn missing<T>(&mut self, fields: &Fields<'_, '_>, key: &str, example: &str) -> Option<T> {
        let message = format!("{} needs {key}: write {key} = {example}", fields.what);
        self.problems.push(Problem { spot: fields.spot, message, other: None });
        None
    }

    /// Refuses every key that nobody asked for.
    fn unknown(&mut self, fields: &Fields<'_, '_>) {
        for (key, _) in fields.table {
            if !fields.known.contains(&key.get_ref().as_ref()) {
                let message = format!(
                    "{:?} is not known: {} may have {}",
                    key.get_ref(),
                    fields.what,
                    fields.known.join(", ")
                );
                self.problem(key.span().start, message);
            }
        }
    }

    fn spot(&self, offset: usize) -> Spot {
        Spot { source: self.source, offset }
    }

    fn problem(&mut self, offset: usize, message: String) {
        self.problems.push(Problem { spot: self.spot(offset), message, other: None });
    }
}

/// What a value is, with an article.
fn kind(value: &Value<'_>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn address(text: &str) -> Result<std::net::IpAddr, String> {
    std::net::IpAddr::from_str(text).map_err(|_| {
        format!("{text:?} is not an address: write it like 192.168.0.2 or fd00::2, without a prefix")
    })
}

fn with_prefix(text: &str) -> Result<ipnet::IpNet, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is not an address with the length of its prefix: write it like 192.168.1.1/24")
    })
}

fn protocol(text: &str) -> Result<Protocol, String> {
    let known = Protocol::ALL.into_iter().find(|protocol| protocol.to_string() == text);
    known.ok_or_else(|| format!("{text:?} is not a protocol: choose tcp, udp or sctp"))
}
