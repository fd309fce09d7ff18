//! Whether what becomes of a packet is right: of its bytes, and of who may send it to whom.

use vnet_common::{Addr, DropReason, EndpointValue, Hook, NetworkValue, Tuple, Zone};
use vnet_datapath::model::Model;
use vnet_datapath::{Delivery, Headers, Parsed, Verdict};

use crate::packet::{NETWORK, quoted, read, sums, untranslated};
use crate::rules::{Passage, Rules, WayOut, is_open, keeps_address, network, way_out};
use crate::story::Met;
use crate::world::UPLINK;

/// What holds, or what does not.
type Ruling = Result<(), String>;

/// Who has seen everything.
#[derive(Debug)]
pub(crate) struct Judge {
    rules: Rules,
}

/// A packet that has gone on.
struct Gone<'a> {
    model: &'a Model,
    met: &'a Met,
    headers: Headers,
    tuple: Tuple,
    after: &'a [u8],
    became: Tuple,
}

impl Gone<'_> {
    /// Its passage from one side to another.
    fn passage(&self, from: Zone, to: Zone) -> Passage {
        let Self { tuple, became, headers, .. } = self;
        Passage {
            tuple: Tuple { zone: from, ..*tuple },
            became: Tuple { zone: to, ..*became },
            l4: headers.l4(),
        }
    }

    /// Whether it has ports of its own to be known by.
    fn has_ports(&self) -> bool {
        self.headers.is_translatable()
    }
}

impl Judge {
    pub(crate) fn new(evicts: bool) -> Self {
        Self { rules: Rules::new(evicts) }
    }

    /// What is known of the ports of a packet.
    pub(crate) fn about(&self, tuple: &Tuple) -> String {
        self.rules.about(tuple)
    }

    /// Judges what has become of a packet.
    pub(crate) fn hold(
        &mut self,
        model: &Model,
        met: &Met,
        after: &[u8],
        verdict: &Result<Verdict, DropReason>,
    ) -> Ruling {
        let (parsed, tuple) = read(&met.frame);
        let Ok(verdict) = verdict else {
            if matches!(met.hook, Hook::FromEndpoint | Hook::ToUplink) {
                self.rules.fails(model, &tuple);
            }
            return require(met.frame == after, "a packet that is dropped has changed");
        };
        let Ok(Parsed::Ip(headers)) = parsed else {
            require(met.frame == after, "what is no packet has changed")?;
            return hold_what_is_no_packet(model, met, &tuple, parsed.is_ok());
        };
        if met.hook == Hook::FromEndpoint {
            check_sender(met, &tuple, model.endpoints.get(&tuple.src))?;
        }
        let became = check_bytes(met, after, &headers, verdict)?;
        let gone = Gone { model, met, headers, tuple, after, became };
        match verdict {
            Verdict::Deliver(delivery) => self.hold_delivery(&gone, delivery),
            Verdict::Forward(next_hop) => {
                require(met.hook == Hook::FromEndpoint, "forwarded back to where it came from")?;
                let way = way_out(model, &tuple.dst).filter(|way| way.ifindex == next_hop.ifindex);
                let way = way.ok_or("forwarded where no route leads")?;
                require(!is_the_hosts(model, &became.dst), "what is the host's is forwarded")?;
                self.hold_departure(&gone, &way)
            }
            Verdict::Pass => match met.hook {
                Hook::FromEndpoint => {
                    require(met.frame == after, "translated, and left to the stack")?;
                    let sender = model.endpoints.get(&tuple.src);
                    require(!sender.is_some_and(is_unbridged), "left to a bridge that is not there")
                }
                Hook::ToUplink => {
                    self.hold_departure(&gone, &WayOut::by(model, met.place.ifindex, &tuple.dst))
                }
                Hook::FromUplink => self.hold_arrival(&gone),
                Hook::ToBridge => hold_entry(&gone),
                Hook::FromHold => Err("it passes by where fragments wait".to_owned()),
                Hook::ToNetwork => {
                    require(tuple.dst.is_multicast_or_broadcast(), "what is for one is for nobody")
                }
                Hook::XdpUplink | Hook::Shape => Err("it was never sent there".to_owned()),
            },
            Verdict::Enter(interface) => hold_stay(&gone, *interface),
            Verdict::Hold => {
                require(headers.piece.is_later(), "it waits, and is no later fragment")?;
                require(met.place.waited == 0, "it waits again")?;
                require(met.frame == after, "it has changed before it waits")
            }
            Verdict::Return => {
                require(met.hook == Hook::FromHold, "it returns, and has not waited")?;
                require(met.frame == after, "it has changed while it waited")
            }
        }
    }

    /// Judges the ICMP error that a packet is answered with.
    pub(crate) fn hold_answer(&self, model: &Model, met: &Met, answer: Option<&[u8]>) -> Ruling {
        let Some(answer) = answer else { return Ok(()) };
        let (_, about) = read(&met.frame);
        let (Ok(Parsed::Ip(headers)), tuple) = read(answer) else {
            return Err("an answer that cannot be read".to_owned());
        };
        require(headers.is_icmp_error(), "an answer that is no error")?;
        let sums = sums(answer);
        require(sums.network && sums.transport, "an answer with a wrong sum")?;
        require(tuple.dst == about.src, "an answer to somebody else")?;
        let end = NETWORK + answer.len() - headers.l4_offset as usize - 8;
        require(
            met.frame.get(NETWORK..end) == answer.get(headers.l4_offset as usize + 8..),
            "an answer about another packet",
        )?;
        let dialled = tuple.src == about.dst;
        require(dialled || is_the_hosts(model, &tuple.src), "an answer in the name of another")?;
        let inside = network(model, &tuple.dst).is_some();
        let from_inside = matches!(met.hook, Hook::FromEndpoint | Hook::ToUplink);
        require(inside == from_inside, "an answer to the other side")?;
        let tells = !inside && model.endpoints.contains_key(&tuple.src);
        require(!tells, "an answer tells of an endpoint's address")
    }

    /// Whether an ICMP error is about a packet of a conversation that is known: one between the address quoted as the
    /// destination and the endpoint that gets it or, if an endpoint sends it, the other way about.
    fn is_about_what_is_known(&self, gone: &Gone<'_>, to_endpoint: bool) -> bool {
        let Some((src, dst)) = quoted(gone.after, &gone.headers) else { return false };
        if to_endpoint {
            src == gone.became.dst && self.rules.have_met(&dst, &src)
        } else {
            src == gone.became.dst && self.rules.have_left(&dst, &src)
        }
    }

    /// A packet that leaves by an uplink.
    fn hold_departure(&mut self, gone: &Gone<'_>, way: &WayOut) -> Ruling {
        let Gone { model, tuple, became, headers, .. } = gone;
        let Some(sender) = model.endpoints.get(&tuple.src) else {
            return require(network(model, &became.src).is_none(), "nobody's address leaves");
        };
        if gone.has_ports() {
            return self.rules.leaves(model, &gone.passage(sender.zone, Zone::WORLD), way);
        }
        if headers.is_icmp_error() {
            let known = self.is_about_what_is_known(gone, false);
            return require(known, "an error leaves about what is not known");
        }
        let ours = model.endpoints.contains_key(&became.src);
        let known = self.rules.have_met(&tuple.dst, &tuple.src);
        require(!ours || known || keeps_address(model, sender, tuple), "an endpoint's address leaves")
    }

    /// A packet from the world that the host's stack gets, and sends to an endpoint if it is for one.
    fn hold_arrival(&mut self, gone: &Gone<'_>) -> Ruling {
        let Gone { model, tuple, became, .. } = gone;
        let Some(network) = network(model, &became.dst) else {
            return require(tuple == became, "translated, but for nobody");
        };
        if is_the_hosts(model, &became.dst) && tuple == became {
            return Ok(());
        }
        require(model.endpoints.contains_key(&became.dst), "let in, but for nobody")?;
        self.hold_what_comes_in(gone, network.zone)
    }

    /// A packet from the world that reaches an endpoint.
    fn hold_what_comes_in(&mut self, gone: &Gone<'_>, zone: Zone) -> Ruling {
        if gone.has_ports() {
            return self.rules.arrives(gone.model, &gone.passage(Zone::WORLD, zone));
        }
        let known = if gone.headers.is_icmp_error() {
            self.is_about_what_is_known(gone, true)
        } else {
            gone.headers.piece.is_later() && self.rules.have_met(&gone.tuple.src, &gone.became.dst)
        };
        require(known, "what nobody asked for reaches an endpoint")
    }

    /// A packet that appears in an endpoint's namespace.
    fn hold_delivery(&mut self, gone: &Gone<'_>, delivery: &Delivery) -> Ruling {
        let Gone { model, met, headers, tuple, became, .. } = gone;
        let receiver = model.endpoints.values().find(|endpoint| endpoint.ifindex == delivery.ifindex);
        let receiver = receiver.ok_or("delivered to nobody")?;
        require(delivery.dst == receiver.mac, "delivered to another's hardware address")?;
        let owner = model.endpoints.get(&became.dst).map(|endpoint| endpoint.ifindex);
        if met.hook == Hook::ToNetwork {
            // The host's stack sends nothing that is too big for the interface.
            require(owner == Some(receiver.ifindex), "delivered to another than it is for")?;
            require(delivery.queued, "past the queue of another interface's pair")?;
            require(receiver.bridge == met.place.ifindex, "delivered to another network's")?;
            require(delivery.src == receiver.gateway_mac, "not from its gateway")?;
            return hold_entry(gone);
        }
        require(headers.wire_length <= receiver.mtu, "delivered, but too big")?;
        if !delivery.routed || is_switched(met.hook, tuple, became) {
            require(delivery.routed == is_unbridged(receiver), "switched with the wrong addresses")?;
            require(!delivery.routed || delivery.src == receiver.gateway_mac, "not from its gateway")?;
            require(met.hook == Hook::FromEndpoint, "switched from outside")?;
            let sender = &model.endpoints[&tuple.src];
            require(sender.zone == receiver.zone, "switched to another network")?;
            let isolated = sender.has(NetworkValue::FLAG_ISOLATED) && sender.ifindex != receiver.ifindex;
            return require(!isolated, "switched within an isolated network");
        }
        require(delivery.src == receiver.gateway_mac, "not from its gateway")?;
        require(owner == Some(receiver.ifindex), "delivered to another than it is for")?;
        if met.hook == Hook::FromUplink {
            return self.hold_what_comes_in(gone, receiver.zone);
        }
        if gone.has_ports() {
            let sender = &model.endpoints[&tuple.src];
            return self.rules.returns(model, &gone.passage(sender.zone, receiver.zone));
        }
        let known = if headers.is_icmp_error() {
            self.is_about_what_is_known(gone, true)
        } else {
            headers.piece.is_later() && self.rules.have_met(&became.src, &became.dst)
        };
        require(known, "what nobody asked for reaches a neighbour")
    }
}

/// A packet that the host's stack routes into a network. What came by the uplink has been judged there.
fn hold_entry(gone: &Gone<'_>) -> Ruling {
    let Gone { model, met, after, tuple, .. } = gone;
    require(met.frame == *after, "translated on the way in")?;
    let judged = [met.place.ifindex, UPLINK].contains(&met.place.arrived);
    if judged || !model.endpoints.contains_key(&tuple.dst) {
        return Ok(());
    }
    let open = is_open(model, &gone.passage(Zone::WORLD, Zone::WORLD));
    require(open, "an endpoint is reached by another interface")
}

/// A frame that goes on although it cannot be read, or is not IP.
fn hold_what_is_no_packet(model: &Model, met: &Met, tuple: &Tuple, understood: bool) -> Ruling {
    match met.hook {
        Hook::FromEndpoint => require(understood, "an endpoint sends what cannot be read"),
        Hook::FromUplink => {
            let inside = network(model, &tuple.dst).is_some() && !is_the_hosts(model, &tuple.dst);
            require(understood || !inside, "what cannot be read passes to an endpoint")
        }
        Hook::ToUplink => {
            let ours = model.endpoints.contains_key(&tuple.src);
            require(understood || !ours, "what cannot be read leaves with an endpoint's address")
        }
        Hook::ToBridge => Ok(()),
        Hook::ToNetwork => require(understood, "what cannot be read enters a network"),
        Hook::FromHold => Err("what is no fragment has waited".to_owned()),
        Hook::XdpUplink | Hook::Shape => Err("it was never sent there".to_owned()),
    }
}

/// Whether what is delivered goes from one endpoint of a network to another, and not by an address of the host.
fn is_switched(hook: Hook, tuple: &Tuple, became: &Tuple) -> bool {
    hook == Hook::FromEndpoint && tuple == became
}

fn is_unbridged(endpoint: &EndpointValue) -> bool {
    endpoint.has(NetworkValue::FLAG_UNBRIDGED)
}

/// What goes on to the host's stack by what the sender's network has instead of a bridge.
fn hold_stay(gone: &Gone<'_>, interface: u32) -> Ruling {
    let Gone { model, met, after, tuple, .. } = gone;
    require(met.hook == Hook::FromEndpoint, "it enters from elsewhere than an endpoint")?;
    require(met.frame == *after, "translated, and left to the stack")?;
    let sender = model.endpoints.get(&tuple.src).ok_or("it enters in the name of nobody")?;
    require(is_unbridged(sender) && sender.bridge == interface, "it enters another network's interface")
}

fn is_the_hosts(model: &Model, addr: &Addr) -> bool {
    model.host_addresses.contains_key(addr)
}

fn require(holds: bool, otherwise: &str) -> Ruling {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

/// An endpoint may send under its own address from its own hardware address, or without any to its neighbours.
fn check_sender(met: &Met, tuple: &Tuple, sender: Option<&EndpointValue>) -> Ruling {
    match sender {
        Some(sender) => {
            require(sender.ifindex == met.place.ifindex, "in another's name")?;
            require(met.frame[6..12] == sender.mac.bytes, "from another's hardware address")
        }
        None => require(
            tuple.src == Addr::ANY_V6 && tuple.dst.is_multicast_or_broadcast(),
            "in the name of nobody",
        ),
    }
}

/// What a packet has become: nothing has changed that should not.
fn check_bytes(met: &Met, after: &[u8], headers: &Headers, verdict: &Verdict) -> Result<Tuple, String> {
    let before = met.frame.as_slice();
    let (Ok(Parsed::Ip(changed)), tuple) = read(after) else {
        return Err("it cannot be read any more".to_owned());
    };
    let routed = match verdict {
        Verdict::Forward(_) => true,
        // The host's stack has counted what it sends into a network.
        Verdict::Deliver(Delivery { routed: true, .. }) => {
            met.hook != Hook::ToNetwork && !is_switched(met.hook, &read(before).1, &tuple)
        }
        _ => false,
    };
    require(changed.hop_limit == headers.hop_limit - u8::from(routed), "hops are counted wrong")?;
    if before == after {
        return Ok(tuple);
    }
    require(before.len() == after.len(), "its length has changed")?;
    if headers.is_translatable() || headers.piece.is_later() {
        let kept = untranslated(before, headers) == untranslated(after, headers);
        require(kept, "more has changed than a translation may change")?;
    }
    let (before, after) = (sums(before), sums(after));
    require(after.network || !before.network, "the sum of the network header is wrong now")?;
    require(after.transport || !before.transport, "the sum of the transport header is wrong now")?;
    require(after.absent == before.absent, "a sum has come or gone")?;
    Ok(tuple)
}
