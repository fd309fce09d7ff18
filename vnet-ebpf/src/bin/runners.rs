//! The packet logic as XDP programs, for the tests that compare the runners; never attached.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::EbpfContext as _;
    use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;
    use vnet_common::Hook;
    use vnet_datapath::pipeline;
    use vnet_ebpf::xdp::Frame;
    use vnet_ebpf::{Maps, maps, verdict};

    #[xdp]
    fn xdp_from_endpoint(context: XdpContext) -> u32 {
        let Some(scratch) = maps::scratch() else { return XDP_ABORTED };
        let mut frame = Frame::new(context.ctx);
        let ifindex = frame.ifindex();
        let result = pipeline::from_endpoint(&mut frame, &Maps::new(context.as_ptr()), scratch, ifindex);
        verdict::xdp(&mut frame, Hook::FromEndpoint, &scratch.tuple, result)
    }

    #[xdp]
    fn xdp_from_uplink(context: XdpContext) -> u32 {
        let Some(scratch) = maps::scratch() else { return XDP_ABORTED };
        let mut frame = Frame::new(context.ctx);
        let result = pipeline::from_uplink(&mut frame, &Maps::new(context.as_ptr()), scratch);
        verdict::xdp(&mut frame, Hook::FromUplink, &scratch.tuple, result)
    }

    /// Some helpers are for programs under the GPL only.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
