//! The packet logic as XDP programs, for the tests that compare the runners; never attached.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::EbpfContext as _;
    use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
    use aya_ebpf::bindings::xdp_md;
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;
    use vnet_common::Hook;
    use vnet_datapath::step;
    use vnet_ebpf::steps::Outlined;
    use vnet_ebpf::xdp::Frame;
    use vnet_ebpf::{maps, verdict};

    vnet_ebpf::steps!(xdp_md, Frame::new);

    #[xdp]
    fn xdp_from_endpoint(context: XdpContext) -> u32 {
        let Some(scratch) = maps::scratch() else { return XDP_ABORTED };
        let mut frame = Frame::new(context.ctx);
        scratch.place.ifindex = frame.ifindex();
        scratch.place.waited = 0;
        let step = step::run(&mut Outlined::new(context.as_ptr(), Hook::FromEndpoint), scratch);
        verdict::xdp(&mut frame, Hook::FromEndpoint, scratch, step)
    }

    #[xdp]
    fn xdp_from_uplink(context: XdpContext) -> u32 {
        let Some(scratch) = maps::scratch() else { return XDP_ABORTED };
        let mut frame = Frame::new(context.ctx);
        scratch.place.ifindex = frame.ifindex();
        scratch.place.waited = 0;
        let step = step::run(&mut Outlined::new(context.as_ptr(), Hook::FromUplink), scratch);
        verdict::xdp(&mut frame, Hook::FromUplink, scratch, step)
    }

    /// Some helpers are for programs under the GPL only.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
