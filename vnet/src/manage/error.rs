//! Why a command could not be carried out: what was asked, what stands in the way, what to do.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Part;
use crate::plan::Resource;
use crate::reconcile::Failure;
use crate::spec::{
    Bytes, Cgroup, CgroupPath, Cidr, ExtraRoute, Floating, InterfaceName, Name, PortMap, Ports, Protocol,
    Published, TargetHost,
};
use crate::{ipam, spec, store};

/// A command that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state could not be read or written.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The description makes no sense.
    #[error(transparent)]
    Spec(#[from] spec::Error),
    /// An address cannot be had.
    #[error("address for endpoint {endpoint}")]
    Address {
        /// The endpoint.
        endpoint: Name,
        /// Why not.
        source: ipam::Error,
    },
    /// A namespace that is to be attached cannot be opened.
    #[error("look at the namespace to attach")]
    NamespaceToAttach {
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Several things speak against one request.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Error>),
    /// The kernel could not be asked.
    #[error("{doing}")]
    Kernel {
        /// What was attempted.
        doing: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The instance is another host's.
    #[error(
        "instance {instance} lives in another network namespace: run the command there, or name an instance of \
         this one with --instance; if that namespace is gone, remove {} and run `vnet down`",
        directory.display()
    )]
    OtherNamespace {
        /// The instance.
        instance: String,
        /// Directory of its record.
        directory: std::path::PathBuf,
    },
    /// The namespace of a router is gone, or another has its name.
    #[error(
        "the namespace of router {instance} is gone: {} is not there, or is another; \
         `vnet --instance {instance} up` brings the router back",
        path.display()
    )]
    HomeGone {
        /// The instance.
        instance: String,
        /// Where it was.
        path: std::path::PathBuf,
    },
    /// An instance that is to be a router is none.
    #[error(
        "instance {instance} is up and is no router: choose another name, or take it down first with \
         `vnet --instance {instance} down`"
    )]
    NoRouter {
        /// The instance.
        instance: String,
    },
    /// A router of a host in another network namespace.
    #[error(
        "router {instance} belongs to a host in another network namespace, where its bridge is: run the command \
         there; if that namespace is gone, remove {}, `ip netns del {instance}`, and run `vnet down`",
        directory.display()
    )]
    OtherHost {
        /// The router's instance.
        instance: String,
        /// Directory of its record.
        directory: std::path::PathBuf,
    },
    /// A router is to be on a bridge that there is not.
    #[error("there is no bridge {name} outside{candidates}")]
    NoBridge {
        /// What was named.
        name: InterfaceName,
        /// The bridges that there are.
        candidates: String,
    },
    /// A router is to be on something that is no bridge.
    #[error(
        "{name} outside is {what} and no bridge: name the bridge that it is a port of, or that leads where it does{candidates}"
    )]
    NotABridge {
        /// What was named.
        name: InterfaceName,
        /// What it is.
        what: String,
        /// The bridges that there are.
        candidates: String,
    },
    /// The bridge that a router is on has gone.
    #[error(
        "bridge {bridge} outside, which router {instance} is on, is gone{instead}: whoever has made it has to make it \
         again; then `vnet up` puts the router's link on it"
    )]
    OutsideGone {
        /// The bridge.
        bridge: InterfaceName,
        /// The router.
        instance: String,
        /// What has its name now, after a comma.
        instead: String,
    },
    /// Another router on the same bridge has an address.
    #[error(
        "{addr} is {what} of router {instance}, which is on bridge {bridge} as well: choose another address"
    )]
    OutsideTaken {
        /// The address.
        addr: IpAddr,
        /// What it is there.
        what: &'static str,
        /// The other router.
        instance: String,
        /// The bridge.
        bridge: InterfaceName,
    },
    /// Another router on the same bridge has the hardware address.
    #[error(
        "{mac} is the hardware address of router {instance}, which is on bridge {bridge} as well: choose another with --mac"
    )]
    OutsideMacTaken {
        /// The address.
        mac: vnet_common::Mac,
        /// The other router.
        instance: String,
        /// The bridge.
        bridge: InterfaceName,
    },
    /// A router's bridge is a network's.
    #[error(
        "bridge {bridge} is that of network {network} of instance {instance}, which knows who is on it: put the router \
         on a bridge of your own"
    )]
    OwnBridge {
        /// The bridge.
        bridge: InterfaceName,
        /// The network.
        network: Name,
        /// Whose it is.
        instance: String,
    },
    /// All names for a router's link are taken.
    #[error("no {what} is left for router {instance}")]
    NoRouterNameLeft {
        /// What is missing.
        what: &'static str,
        /// The instance.
        instance: String,
    },
    /// What a router has outside cannot be dealt with from its own namespace.
    #[error(
        "instance {instance} is a router, and this command deals with its link outside as well, which its own \
         namespace does not see: run the command on its host"
    )]
    FromWithin {
        /// The router's instance.
        instance: String,
    },
    /// Another build would be undone.
    #[error(
        "another build of vnet has taken the instance over, and nothing is repaired any more: start `vnet run` anew, of \
         that build"
    )]
    OtherBuild,
    /// A step failed; what was done before it is undone.
    #[error("{what} was not made: {failure}")]
    NotMade {
        /// What was being made.
        what: String,
        /// The steps.
        failure: Failure,
    },
    /// A step failed, and not all that was done before could be undone.
    #[error("{what} was made in part: {failure}; remove it, or ask for it again")]
    MadeInPart {
        /// What was being made.
        what: String,
        /// The steps.
        failure: Failure,
    },
    /// Steps of a removal failed; everything else is gone.
    #[error("{what} was removed in part: {failure}; remove it again once the cause is gone")]
    RemovedInPart {
        /// What was being removed.
        what: String,
        /// The steps.
        failure: Failure,
    },
    /// Something is recorded to be as it was asked for, and is not altogether.
    #[error("{what} is not complete: {failure}; run the same command again once the cause is gone")]
    Unsettled {
        /// What.
        what: String,
        /// The steps.
        failure: Failure,
    },
    /// The instance is up, but some of what it had could not be brought back.
    #[error("the instance is up, but not all of it could be brought back: {}", failures.join("; "))]
    Incomplete {
        /// What could not.
        failures: Vec<String>,
    },
    /// Something of that name is there and is not vnet's.
    #[error("{}", foreign(resource, state))]
    Foreign {
        /// What is there.
        resource: Box<Resource>,
        /// How it differs.
        state: String,
    },
    /// Something of that name is vnet's, but described otherwise.
    #[error("{what} is there already, with {differences}: to change it, first run `{remove}`")]
    Differs {
        /// What it is.
        what: String,
        /// What differs.
        differences: String,
        /// How to remove it.
        remove: String,
    },
    /// No default route says which interface leads to the world.
    #[error(
        "no default route over an Ethernet interface says which is the uplink: name it with --uplink IF{candidates}"
    )]
    NoUplink {
        /// What could be one.
        candidates: String,
    },
    /// There is no such interface.
    #[error("there is no interface {name}{candidates}")]
    NoSuchInterface {
        /// The name.
        name: InterfaceName,
        /// What there is.
        candidates: String,
    },
    /// The interface has no hardware address.
    #[error("{name} cannot be an uplink: it is not an Ethernet interface{candidates}")]
    NotEthernet {
        /// The name.
        name: InterfaceName,
        /// What could be one.
        candidates: String,
    },
    /// The interface is one of the instance's own.
    #[error("{name} cannot be an uplink: it is an interface of this instance")]
    OwnInterface {
        /// The name.
        name: InterfaceName,
    },
    /// A network was to have an uplink for its bridge.
    #[error(
        "{name} cannot be the bridge of a network, which vnet makes: it is the uplink; choose another name with --bridge, \
         or leave that out"
    )]
    BridgeIsUplink {
        /// The uplink.
        name: InterfaceName,
    },
    /// The interface is no uplink of the instance.
    #[error("{name} is no uplink of this instance{uplinks}: XDP is for uplinks alone")]
    NotThisUplink {
        /// The name.
        name: InterfaceName,
        /// What the uplinks are.
        uplinks: String,
    },
    /// Nothing looks at the deny list.
    #[error(
        "the deny list is for uplinks with XDP, and none has it: switch it on first, `vnet up --xdp native`"
    )]
    NoXdp,
    /// What is to be denied is the uplink's own neighbourhood.
    #[error(
        "denying {sources} would cut the host off: it covers {addr}, an address of uplink {uplink}; deny prefixes \
         that do not"
    )]
    DeniesUplink {
        /// The sources.
        sources: Cidr,
        /// The address.
        addr: IpAddr,
        /// The uplink.
        uplink: InterfaceName,
    },
    /// The prefix is another network's.
    #[error("{subnet} overlaps {other} of network {network}: choose another prefix with --subnet")]
    OverlapsNetwork {
        /// The prefix.
        subnet: IpNet,
        /// The other.
        other: IpNet,
        /// Whose it is.
        network: Name,
    },
    /// The host uses the prefix.
    #[error("{subnet} overlaps {what}: choose another prefix with --subnet")]
    OverlapsHost {
        /// The prefix.
        subnet: IpNet,
        /// The route or address.
        what: String,
    },
    /// The default network's own prefix is in use.
    #[error(
        "the default network cannot have {subnet}, which overlaps {clash}: bring it up with others, that are free, as in \
         `vnet up {instead}`"
    )]
    DefaultTaken {
        /// The prefix.
        subnet: IpNet,
        /// What uses it.
        clash: String,
        /// Options that name free ones.
        instead: String,
    },
    /// Every prefix that a network could get without asking for one is in use.
    #[error(
        "all of {pools} is in use, so that network {name} gets no prefix from there: name one with --subnet"
    )]
    PoolsTaken {
        /// The network.
        name: Name,
        /// Where its prefix was to come from.
        pools: String,
    },
    /// There is no such network.
    #[error("there is no network {name}{existing}")]
    NoSuchNetwork {
        /// The name.
        name: Name,
        /// What there is.
        existing: String,
    },
    /// There is no such endpoint.
    #[error("there is no endpoint {name}{existing}")]
    NoSuchEndpoint {
        /// The name or address.
        name: TargetHost,
        /// What there is.
        existing: String,
    },
    /// The endpoint's namespace is another endpoint's.
    #[error(
        "endpoint {endpoint} has no link of its own: it shares the namespace of endpoint {with}; name that"
    )]
    Shares {
        /// The endpoint.
        endpoint: Name,
        /// Whose namespace it is.
        with: Name,
    },
    /// The endpoint has no namespace of its own.
    #[error(
        "endpoint {endpoint} has the host's namespace (--mode host), and no link that this could be done to"
    )]
    InHost {
        /// The endpoint.
        endpoint: Name,
    },
    /// There is no other namespace to share.
    #[error("endpoint {with} has the host's namespace itself: use --mode host")]
    SharesHost {
        /// The endpoint whose namespace was to be shared.
        with: Name,
    },
    /// The endpoint was to share its own namespace.
    #[error("endpoint {name} cannot share its own namespace: name another one")]
    SharesItself {
        /// The endpoint.
        name: Name,
    },
    /// Others share the endpoint's namespace.
    #[error(
        "endpoint {endpoint} shares its namespace with {others}: remove them first, with `vnet ns rm NAME`"
    )]
    SharedWith {
        /// The endpoint.
        endpoint: Name,
        /// The others.
        others: String,
    },
    /// Both ends of a direct link are one endpoint's.
    #[error("endpoint {endpoint} cannot be joined to itself: name another one")]
    JoinsItself {
        /// The endpoint.
        endpoint: Name,
    },
    /// Another interface of the endpoint has this name.
    #[error("endpoint {endpoint} has an interface {ifname} already: choose another name with --ifname")]
    OwnIfnameTaken {
        /// The endpoint.
        endpoint: Name,
        /// The name.
        ifname: InterfaceName,
    },
    /// The endpoint leads to an end of a direct link by another interface.
    #[error(
        "{net} overlaps {other}, which endpoint {endpoint} has already: it would lead there by two interfaces; choose another prefix"
    )]
    DirectOverlaps {
        /// The endpoint.
        endpoint: Name,
        /// The address that was to be.
        net: IpNet,
        /// The one that it has.
        other: IpNet,
    },
    /// The endpoint is recorded, and gone.
    #[error("endpoint {endpoint} is not there: `vnet up` brings it back, then it can be connected")]
    NotThere {
        /// The endpoint.
        endpoint: Name,
    },
    /// All names, hardware addresses or numbers that could be made up are taken.
    #[error("no free {what} is left for {name}")]
    NoneLeft {
        /// What is missing.
        what: &'static str,
        /// For what.
        name: Name,
    },
    /// The interface name is in use by this instance.
    #[error("{name} is an interface of this instance already: choose another name")]
    InterfaceTaken {
        /// The name.
        name: InterfaceName,
    },
    /// The hardware address is in use by this instance.
    #[error("{mac} is the hardware address of another endpoint: choose another with --mac")]
    MacTaken {
        /// The address.
        mac: vnet_common::Mac,
    },
    /// Another link of the endpoint has an interface of this name.
    #[error(
        "endpoint {endpoint} has an interface {ifname} already, its link to network {network}: choose another name with \
         --ifname"
    )]
    IfnameTaken {
        /// The endpoint.
        endpoint: Name,
        /// The name.
        ifname: InterfaceName,
        /// Where the other link leads.
        network: Name,
    },
    /// A route that an endpoint cannot have.
    #[error("endpoint {endpoint} cannot have the route {route}: {reason}")]
    ExtraRoute {
        /// The endpoint.
        endpoint: Name,
        /// The route.
        route: Box<ExtraRoute>,
        /// What is wrong with it.
        reason: String,
    },
    /// An MTU no network can have.
    #[error("{mtu} cannot be the MTU: {reason}")]
    Mtu {
        /// The MTU.
        mtu: u32,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An address of a family that the network has not.
    #[error("network {network} has no {family} prefix for {addr}")]
    NoFamily {
        /// The network.
        network: Name,
        /// "IPv4" or "IPv6".
        family: &'static str,
        /// The address.
        addr: IpAddr,
    },
    /// Two addresses of one family.
    #[error("{addr} is the second {family} address: an endpoint has one of each family")]
    SecondAddress {
        /// The address.
        addr: IpAddr,
        /// "IPv4" or "IPv6".
        family: &'static str,
    },
    /// The network has endpoints.
    #[error(
        "network {network} is in use by {endpoints}: remove them first, with `vnet ns rm NAME`, or disconnect them, with \
         `vnet network disconnect {network} NAME`"
    )]
    NetworkInUse {
        /// The network.
        network: Name,
        /// Its endpoints.
        endpoints: String,
    },
    /// The default network goes with the instance.
    #[error("network default is part of the instance: it goes with `vnet down`")]
    DefaultNetwork,
    /// The endpoint has no network.
    #[error("endpoint {endpoint} is on no network, so nothing of it can be published")]
    NotLinked {
        /// The endpoint.
        endpoint: Name,
    },
    /// The endpoint has no link.
    #[error(
        "endpoint {endpoint} is on no network: there is nothing that it could send or receive too much of"
    )]
    NothingToLimit {
        /// The endpoint.
        endpoint: Name,
    },
    /// The kernel has nothing to make packets wait with.
    #[error(
        "limits of cgroups need a queueing discipline of the kernel, sch_fq or sch_htb, and it has neither: load one \
         (`modprobe sch_fq`), or limit endpoints, which takes sch_tbf"
    )]
    NoPacing,
    /// The program does not look as deep as that.
    #[error(
        "cgroup {cgroup} is {} levels below the root of its hierarchy, and only cgroups up to {most} levels below it can \
         be limited: limit one around it",
        cgroup.depth()
    )]
    CgroupTooDeep {
        /// The cgroup.
        cgroup: CgroupPath,
        /// How many levels below the root one can be.
        most: usize,
    },
    /// The kernel has no classes as deep as that.
    #[error(
        "the limit of cgroup {cgroup} would be inside {} others ({}), and sch_htb, by which packets wait here, has room for \
         {most} inside one another: take one of them away (`vnet limit rm --cgroup {}`), or all limits, and have the \
         kernel load sch_fq (`modprobe sch_fq`), which has no such bound",
        levels.len(), levels.join(", "), levels.last().map_or("PATH", String::as_str)
    )]
    TooManyLevels {
        /// The innermost cgroup.
        cgroup: Cgroup,
        /// The cgroups around it that are limited, the outermost first.
        levels: Vec<String>,
        /// How many limits can be inside one another.
        most: usize,
    },
    /// There is no class left for another limit.
    #[error(
        "{most} cgroups are limited, and no more can be: limit one around them, or remove some with \
         `vnet limit rm --cgroup PATH` or `--classid CLASS`"
    )]
    TooManyLimits {
        /// How many there can be.
        most: u16,
    },
    /// A packet would never be sent.
    #[error(
        "a burst of {burst} bytes has no room for a packet of endpoint {endpoint}, which has up to {mtu} bytes and a \
         header: use {least} at least, or leave --burst out"
    )]
    BurstTooSmall {
        /// The endpoint.
        endpoint: Name,
        /// The burst.
        burst: Bytes,
        /// The least.
        least: u32,
        /// The network's MTU.
        mtu: u32,
    },
    /// The endpoint's network is internal.
    #[error("endpoint {endpoint} is on the internal network {network}, so nothing of it can be published")]
    InternalNetwork {
        /// The endpoint.
        endpoint: Name,
        /// The network.
        network: Name,
    },
    /// The ports are kept for masquerade.
    #[error("{ports} cannot be published: {reserved} are kept as source ports for masquerade")]
    PortsReserved {
        /// The ports.
        ports: Ports,
        /// Those that are kept.
        reserved: Ports,
    },
    /// Ports that masquerade was to have are published.
    #[error(
        "{ports} cannot be kept as source ports for masquerade: {mapping} is published, remove it with \
         `vnet portmap rm {remove}`"
    )]
    PortsPublished {
        /// The ports.
        ports: Ports,
        /// What is published.
        mapping: Box<PortMap>,
        /// What removes that.
        remove: String,
    },
    /// Choices of a network that can be changed, but not by asking for the network.
    #[error(
        "network {network} is there already, with {differences}: to change it, run `vnet network set {network}`"
    )]
    OptionsDiffer {
        /// The network.
        network: Name,
        /// What differs.
        differences: String,
    },
    /// An internal network that the world is to reach.
    #[error(
        "network {network} cannot have gateway mode {mode}: it is internal, so nothing passes between it and the world"
    )]
    InternalMode {
        /// The network.
        network: Name,
        /// The mode.
        mode: crate::spec::GatewayMode,
    },
    /// A network is to have a bridge of a name, and none.
    #[error(
        "network {network} is to have the bridge {bridge} and to have none: leave out one of the two; what a network \
         has instead of a bridge is named by vnet"
    )]
    BridgeAndNone {
        /// The network.
        network: Name,
        /// The bridge.
        bridge: InterfaceName,
    },
    /// The ports are published already.
    #[error(
        "{published}/{protocol} is taken: {other} is published, remove it with `vnet portmap rm {name}`, \
         or have it lead elsewhere with `vnet portmap move {name} TARGET`"
    )]
    PortsTaken {
        /// What was to be published.
        published: Published,
        /// Its protocol.
        protocol: Protocol,
        /// What is published.
        other: Box<PortMap>,
        /// What names it on the command line.
        name: String,
    },
    /// The same command asks for the ports twice.
    #[error("{published}/{protocol} is asked for twice: {other} is one of the others")]
    PortsAskedTwice {
        /// What was to be published.
        published: Published,
        /// Its protocol.
        protocol: Protocol,
        /// What else asks for them.
        other: Box<PortMap>,
    },
    /// Some of many requests cannot be fulfilled, so none was.
    #[error("{}", list_refused(.0))]
    Refused(Vec<Refused>),
    /// Some parts of a description cannot be had, so nothing of it was made.
    #[error("{}", list_refused_parts(.0))]
    RefusedParts(Vec<RefusedPart>),
    /// The ports are not published.
    #[error("{published}/{protocol} is not published: publish it with `vnet portmap add`")]
    NotPublished {
        /// What was to be moved.
        published: Published,
        /// Its protocol.
        protocol: Protocol,
    },
    /// A program of the host holds one of the ports.
    #[error(
        "port {port}/{protocol} is held by {holder} on {on}: stop it, have it use another address or port, or \
         publish another port"
    )]
    PortHeld {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// The program, as well as is known.
        holder: String,
        /// The address and port that its socket is bound to.
        on: std::net::SocketAddr,
    },
    /// The ports are part of a range.
    #[error("{published}/{protocol} is not published as such: {other} is, {advice} {name}`")]
    OtherRange {
        /// What was to be removed or moved.
        published: Published,
        /// Its protocol.
        protocol: Protocol,
        /// What is published.
        other: Box<PortMap>,
        /// What to do with that, up to its name.
        advice: &'static str,
        /// What names it on the command line.
        name: String,
    },
    /// The host has no such address.
    #[error("{addr} is not an address of this host, which has {addresses}")]
    NotOurAddress {
        /// The address.
        addr: IpAddr,
        /// What it has.
        addresses: String,
    },
    /// The endpoint's own address is not reached from outside.
    #[error(
        "the own addresses of endpoint {endpoint} are behind the NAT of network {network}: publish on an address of the \
         host, or make the network routed with `vnet network set {network} --gateway-mode routed`"
    )]
    NotRouted {
        /// The endpoint.
        endpoint: Name,
        /// Its network.
        network: Name,
    },
    /// A port on the endpoint's own address stays what it is.
    #[error(
        "{published} on the endpoint's own address cannot lead to {target}: no port is translated there, so both must be the same"
    )]
    DirectPorts {
        /// What is published.
        published: Ports,
        /// Where it is to lead.
        target: Ports,
    },
    /// The endpoint has no address of the published family.
    #[error(
        "{host} cannot lead to endpoint {endpoint}, which has no {family} address, and the families are not \
         translated into each other: publish on another address of the host, or leave the address out"
    )]
    TargetFamily {
        /// The host's address.
        host: IpAddr,
        /// The endpoint.
        endpoint: Name,
        /// "IPv4" or "IPv6".
        family: &'static str,
    },
    /// An address that cannot be an endpoint's alone.
    #[error("{external} cannot be a floating address: {reason}")]
    ExternalAddress {
        /// The address.
        external: IpAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// The host has not the address that is to float.
    #[error(
        "{external} is not an address of this host: add it to an uplink first, with `ip addr add {net} dev UPLINK`"
    )]
    ExternalMissing {
        /// The address.
        external: IpAddr,
        /// The address with the length of a host's prefix.
        net: IpNet,
    },
    /// A router does not give itself the address that is to float.
    #[error(
        "{external} is in no prefix of the addresses of router {instance} ({prefixes}), so that the router does not give \
         it to its link by itself: choose one that is, or have {external} routed to the router and add it there first, with \
         `ip -n {instance} addr add {net} dev {ifname}`"
    )]
    ExternalElsewhere {
        /// The address.
        external: IpAddr,
        /// The router.
        instance: String,
        /// Its addresses.
        prefixes: String,
        /// The address with the length of a host's prefix.
        net: IpNet,
        /// The router's link.
        ifname: InterfaceName,
    },
    /// The endpoint's address is of the other family.
    #[error("{external} cannot lead to {target}, which has no {family} address")]
    FloatingFamily {
        /// The host's address.
        external: IpAddr,
        /// The endpoint, as it was named.
        target: TargetHost,
        /// "IPv4" or "IPv6".
        family: &'static str,
    },
    /// One of the two addresses has another already.
    #[error(
        "{} cannot float to {}: {other} floats already, remove it with `vnet floating rm {}`",
        wish.external, wish.addr, other.external
    )]
    FloatingTaken {
        /// What was wanted.
        wish: Box<Floating>,
        /// What is there.
        other: Box<Floating>,
    },
    /// The address that is to float has published ports.
    #[error(
        "{external} cannot float: {mapping} is published on it, remove it with `vnet portmap rm {}{}`",
        mapping.published, protocol_option(mapping.protocol)
    )]
    PublishedOn {
        /// The address.
        external: IpAddr,
        /// What is published.
        mapping: Box<PortMap>,
    },
    /// The address has a masquerade rule of its own.
    #[error("{subnet} has a masquerade rule of its own: remove it first, with `vnet masquerade rm {subnet}`")]
    MasqueradedAlready {
        /// The address.
        subnet: Cidr,
    },
    /// The address floats.
    #[error("{addr} is the floating address {floating}: remove that first, with `vnet floating rm {}`", floating.external)]
    Floats {
        /// The address, the host's or the endpoint's.
        addr: IpAddr,
        /// The floating address.
        floating: Box<Floating>,
    },
    /// The endpoint keeps its own address towards the world.
    #[error(
        "endpoint {endpoint} is on the routed network {network}, so it keeps its own address: a floating address \
         needs gateway mode nat"
    )]
    RoutedNetwork {
        /// The endpoint.
        endpoint: Name,
        /// The network.
        network: Name,
    },
    /// An address that cannot be masqueraded with.
    #[error("{to} cannot stand for {subnet}: {reason}")]
    MasqueradeTo {
        /// The address.
        to: IpAddr,
        /// The prefix.
        subnet: IpNet,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// One of many requests that cannot be fulfilled.
#[derive(Debug)]
pub struct Refused {
    /// Which of them, counted from 0.
    pub nth: usize,
    /// Why not.
    pub error: Error,
}

/// A part of a description that cannot be had.
#[derive(Debug)]
pub struct RefusedPart {
    /// Which.
    pub part: Part,
    /// Why not.
    pub error: Error,
}

impl Error {
    /// Whether it speaks against the request alone: others can be looked at nevertheless.
    pub(super) fn is_refusal(&self) -> bool {
        !matches!(self, Self::Store(_) | Self::Kernel { .. })
    }

    /// Each thing that speaks against the request, which it is a refusal of.
    pub(super) fn each(self) -> Vec<Self> {
        match self {
            Self::Several(errors) => errors,
            error => vec![error],
        }
    }

    /// What a prefix overlaps, if that is what is wrong.
    pub(super) fn clash(&self) -> String {
        match self {
            Self::OverlapsNetwork { other, network, .. } => format!("{other} of network {network}"),
            Self::OverlapsHost { what, .. } => what.clone(),
            other => other.to_string(),
        }
    }

    /// The reason why the only request was refused.
    pub(super) fn of_the_only(self) -> Self {
        match self {
            Self::Refused(mut refused) if refused.len() == 1 => refused.remove(0).error,
            error => error,
        }
    }
}

/// What speaks against a request, found one after the other and told together.
#[derive(Debug, Default)]
pub(super) struct Refusals(Vec<Error>);

impl Refusals {
    /// What was found, unless it was refused. What is no refusal ends it all.
    pub(super) fn take<T>(&mut self, result: Result<T, Error>) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_refusal() => {
                self.0.extend(error.each());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Nothing, unless something was refused.
    pub(super) fn into_result(self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(self.into_error()) }
    }

    /// All that was refused.
    pub(super) fn into_error(mut self) -> Error {
        if self.0.len() == 1 { self.0.remove(0) } else { Error::Several(self.0) }
    }
}

fn list_refused(refused: &[Refused]) -> String {
    let lines = refused.iter().map(|Refused { nth, error }| format!("request {}: {error}", nth + 1));
    lines.collect::<Vec<_>>().join("; ")
}

fn list_refused_parts(refused: &[RefusedPart]) -> String {
    let lines = refused.iter().map(|RefusedPart { part, error }| format!("{part}: {error}"));
    lines.collect::<Vec<_>>().join("; ")
}

fn foreign(resource: &Resource, state: &str) -> String {
    let (what, advice) = match resource {
        Resource::Bridge { name, far_end, .. } => {
            let choose = if far_end.is_none() { "choose another name with --bridge, or " } else { "" };
            (format!("interface {name}"), format!("{choose}remove it"))
        }
        Resource::Namespace { name } => {
            let attach = format!("`vnet ns attach {name} --netns /run/netns/{name}`");
            (
                format!("namespace {name}"),
                format!("choose another name, remove it, or serve it with {attach}"),
            )
        }
        Resource::Home { name } => {
            (format!("namespace {name}"), "choose another name, or remove it".to_owned())
        }
        Resource::Veth(veth) | Resource::Leg(veth) => {
            (format!("interface {}", veth.host), "remove it".to_owned())
        }
        Resource::DataPath(_) => {
            ("a data path of this instance's name".to_owned(), "remove it with `vnet down`".to_owned())
        }
        other => (other.to_string(), "remove it".to_owned()),
    };
    let state = if state.is_empty() { String::new() } else { format!(" ({state})") };
    format!("{what} exists{state} and is not vnet's, or its record is lost: {advice}")
}

/// How the command line names a protocol: nothing for the usual one.
pub(super) fn protocol_option(protocol: Protocol) -> String {
    if protocol == Protocol::default() { String::new() } else { format!(" --proto {protocol}") }
}

/// ": there are A B C", or nothing.
pub(super) fn there_are(names: impl IntoIterator<Item = impl ToString>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    match names.len() {
        0 => String::new(),
        1..=16 => format!(": there is {}", names.join(", ")),
        more => format!(": there is {}, and {} more", names[..16].join(", "), more - 16),
    }
}

/// The one of some names that another is most likely a slip of: so many letters apart at most as every third of it is one.
pub(super) fn nearest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let near = name.chars().count().div_ceil(3);
    let apart = names.into_iter().map(|other| (distance(name, other), other));
    apart.filter(|(apart, _)| *apart <= near).min().map(|(_, other)| other)
}

/// How many letters have to be put in, left out or exchanged to make one word of another (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (nth, letter) in from.chars().enumerate() {
        let mut before = nth;
        row[0] = nth + 1;
        for (at, other) in to.iter().enumerate() {
            let exchanged = before + usize::from(letter != *other);
            before = row[at + 1];
            row[at + 1] = exchanged.min(before + 1).min(row[at] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_one_that_is_near() {
        for (from, to, expected) in
            [("web", "web", 0), ("wbe", "web", 2), ("kitten", "sitting", 3), ("", "ab", 2)]
        {
            assert_eq!((distance(from, to), distance(to, from)), (expected, expected), "{from} {to}");
        }
        let names = ["web", "web1", "db"];
        for (name, expected) in
            [("wweb", Some("web")), ("web2", Some("web")), ("mail", None), ("wdb", Some("db"))]
        {
            assert_eq!(nearest(name, names), expected, "{name}");
        }
    }
}
