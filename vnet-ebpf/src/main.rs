//! The programs that vnet loads, three lines each.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::EbpfContext as _;
    use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_md};
    use aya_ebpf::macros::{cgroup_sock_addr, classifier, xdp};
    use aya_ebpf::programs::{SockAddrContext, TcContext, XdpContext};
    use vnet_common::Hook;
    use vnet_datapath::step::{self, Steps as _};
    use vnet_ebpf::sk_addr::{self, Family};
    use vnet_ebpf::skb::Skb;
    use vnet_ebpf::steps::Outlined;
    use vnet_ebpf::xdp::Frame;
    use vnet_ebpf::{early, maps, shape, verdict};

    vnet_ebpf::steps!(__sk_buff, Skb::new);
    vnet_ebpf::shown!(vnet_dropped_early(xdp_md), Frame::new);

    #[classifier]
    fn from_endpoint(context: TcContext) -> i32 {
        let Some(scratch) = maps::scratch() else { return TC_ACT_SHOT };
        let mut skb = Skb::new(context.skb.skb);
        scratch.place.ifindex = skb.ifindex();
        scratch.place.waited = verdict::has_waited(&mut skb) as u32;
        let step = step::run(&mut Outlined::new(context.as_ptr(), Hook::FromEndpoint), scratch);
        verdict::tc(&mut skb, Hook::FromEndpoint, scratch, step)
    }

    #[classifier]
    fn from_uplink(context: TcContext) -> i32 {
        let Some(scratch) = maps::scratch() else { return TC_ACT_UNSPEC };
        let mut skb = Skb::new(context.skb.skb);
        scratch.place.ifindex = skb.ifindex();
        scratch.place.waited = verdict::has_waited(&mut skb) as u32;
        let step = step::run(&mut Outlined::new(context.as_ptr(), Hook::FromUplink), scratch);
        verdict::tc(&mut skb, Hook::FromUplink, scratch, step)
    }

    #[classifier]
    fn to_uplink(context: TcContext) -> i32 {
        let mut skb = Skb::new(context.skb.skb);
        let arrived = skb.ingress_ifindex();
        // What the host itself sends, and what has been translated already.
        if arrived == 0 || skb.tc_index() == verdict::FORWARDED {
            return TC_ACT_UNSPEC;
        }
        let Some(scratch) = maps::scratch() else { return TC_ACT_SHOT };
        scratch.place.ifindex = skb.ifindex();
        scratch.place.arrived = arrived;
        let step = step::run(&mut Outlined::new(context.as_ptr(), Hook::ToUplink), scratch);
        verdict::tc(&mut skb, Hook::ToUplink, scratch, step)
    }

    #[classifier]
    fn shape(context: TcContext) -> i32 {
        shape::run(&mut Skb::new(context.skb.skb))
    }

    #[classifier]
    fn from_hold(context: TcContext) -> i32 {
        let mut skb = Skb::new(context.skb.skb);
        let Some((origin, waited)) = verdict::waiting(&skb) else { return TC_ACT_SHOT };
        let Some(scratch) = maps::scratch() else { return TC_ACT_SHOT };
        scratch.place.ifindex = skb.ifindex();
        scratch.place.arrived = origin;
        scratch.place.waited = waited as u32;
        let mut steps = Outlined::new(context.as_ptr(), Hook::FromHold);
        steps.read(scratch);
        let step = steps.look(scratch);
        verdict::tc(&mut skb, Hook::FromHold, scratch, step)
    }

    #[xdp]
    fn xdp_uplink(context: XdpContext) -> u32 {
        early::run(context.ctx)
    }

    #[cgroup_sock_addr(bind4)]
    fn host_bind4(context: SockAddrContext) -> i32 {
        sk_addr::bind(context.sock_addr, Family::V4)
    }

    #[cgroup_sock_addr(bind6)]
    fn host_bind6(context: SockAddrContext) -> i32 {
        sk_addr::bind(context.sock_addr, Family::V6)
    }

    #[classifier]
    fn to_bridge(context: TcContext) -> i32 {
        let mut skb = Skb::new(context.skb.skb);
        let arrived = skb.ingress_ifindex();
        // What the host itself sends.
        if arrived == 0 {
            return TC_ACT_UNSPEC;
        }
        let Some(scratch) = maps::scratch() else { return TC_ACT_SHOT };
        scratch.place.ifindex = skb.ifindex();
        scratch.place.arrived = arrived;
        // There is no other step on this hook.
        let mut steps = Outlined::new(context.as_ptr(), Hook::ToBridge);
        steps.read(scratch);
        let step = steps.look(scratch);
        verdict::tc(&mut skb, Hook::ToBridge, scratch, step)
    }

    #[classifier]
    fn to_network(context: TcContext) -> i32 {
        let Some(scratch) = maps::scratch() else { return TC_ACT_SHOT };
        let mut skb = Skb::new(context.skb.skb);
        scratch.place.ifindex = skb.ifindex();
        scratch.place.arrived = skb.ingress_ifindex();
        // There is no other step on this hook either.
        let mut steps = Outlined::new(context.as_ptr(), Hook::ToNetwork);
        steps.read(scratch);
        let step = steps.look(scratch);
        verdict::tc(&mut skb, Hook::ToNetwork, scratch, step)
    }

    #[cgroup_sock_addr(connect4)]
    fn host_connect4(context: SockAddrContext) -> i32 {
        sk_addr::dial(context.sock_addr, Family::V4)
    }

    #[cgroup_sock_addr(connect6)]
    fn host_connect6(context: SockAddrContext) -> i32 {
        sk_addr::dial(context.sock_addr, Family::V6)
    }

    #[cgroup_sock_addr(sendmsg4)]
    fn host_sendmsg4(context: SockAddrContext) -> i32 {
        sk_addr::dial(context.sock_addr, Family::V4)
    }

    #[cgroup_sock_addr(sendmsg6)]
    fn host_sendmsg6(context: SockAddrContext) -> i32 {
        sk_addr::dial(context.sock_addr, Family::V6)
    }

    #[cgroup_sock_addr(recvmsg4)]
    fn host_recvmsg4(context: SockAddrContext) -> i32 {
        sk_addr::hear(context.sock_addr, Family::V4)
    }

    #[cgroup_sock_addr(recvmsg6)]
    fn host_recvmsg6(context: SockAddrContext) -> i32 {
        sk_addr::hear(context.sock_addr, Family::V6)
    }

    #[cgroup_sock_addr(getpeername4)]
    fn host_getpeername4(context: SockAddrContext) -> i32 {
        sk_addr::hear(context.sock_addr, Family::V4)
    }

    #[cgroup_sock_addr(getpeername6)]
    fn host_getpeername6(context: SockAddrContext) -> i32 {
        sk_addr::hear(context.sock_addr, Family::V6)
    }

    /// Some helpers are for programs under the GPL only.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
