//! Frames generated in the kernel, for tests and benchmarks: run by `BPF_PROG_TEST_RUN` with live frames, each of which
//! goes where this says. Also, attached to an interface, what sends all it receives to another.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::bindings::xdp_action::XDP_DROP;
    use aya_ebpf::btf_maps::Array;
    use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_redirect};
    use aya_ebpf::macros::{btf_map, xdp};
    use aya_ebpf::programs::XdpContext;
    use vnet_datapath::Packet as _;
    use vnet_datapath::checksum::Delta;
    use vnet_ebpf::xdp::Frame;

    /// The interface that frames leave by; `u32::MAX` if they are dropped at once. Replaced before loading.
    #[unsafe(no_mangle)]
    static OUT: u32 = u32::MAX;

    /// The frame, TCP over IPv4 without options or data. Replaced before loading.
    #[unsafe(no_mangle)]
    static FRAME: [u8; LENGTH] = [0; LENGTH];

    /// Whether each frame is written anew: who had its memory before may have changed it. 0 for no, 1 for yes, 2 for yes
    /// and with another source, of 65,536 prefixes of 24 bits. Replaced before loading.
    #[unsafe(no_mangle)]
    static WRITE: u32 = 0;

    /// Nanoseconds from one frame to the next, on average: [`TOGETHER`] of them come at once, as from a network card that
    /// does not interrupt for each; a run in between sends none. Replaced before loading.
    #[unsafe(no_mangle)]
    static INTERVAL: u64 = 0;
    const TOGETHER: u64 = 64;

    /// When the next frames are due, in nanoseconds since boot, and how many of those that were due have not been sent.
    #[btf_map(name = "due")]
    static DUE: Array<[u64; 2], 1> = Array::new();

    const LENGTH: usize = 54;

    /// The middle of the source, and the sums.
    const SOURCE: u32 = 14 + 12 + 1;
    const IP_SUM: u32 = 14 + 10;
    const TCP_SUM: u32 = 14 + 20 + 16;

    #[xdp]
    fn generate(context: XdpContext) -> u32 {
        // SAFETY: plain statics; volatile because the loader replaces their values after compilation.
        let (out, write) =
            unsafe { (core::ptr::read_volatile(&raw const OUT), core::ptr::read_volatile(&raw const WRITE)) };
        if !is_due() {
            return XDP_DROP;
        }
        if write != 0 && anew(&mut Frame::new(context.ctx), write == 2).is_none() {
            return XDP_DROP;
        }
        match out {
            u32::MAX => XDP_DROP,
            // SAFETY: plain numbers.
            ifindex => unsafe { bpf_redirect(ifindex, 0) as u32 },
        }
    }

    /// Whether a frame is due. What is late is sent at once, but not what is later than a millisecond.
    #[inline(always)]
    fn is_due() -> bool {
        const LATE: u64 = 1_000_000;
        // SAFETY: as above.
        let interval = unsafe { core::ptr::read_volatile(&raw const INTERVAL) };
        if interval == 0 {
            return true;
        }
        let Some(state) = DUE.get_ptr_mut(0) else { return false };
        // SAFETY: reading the clock has no preconditions; the value is this program's alone, which runs once.
        unsafe {
            let [due, left] = &mut *state;
            if *left == 0 {
                let now = bpf_ktime_get_ns();
                if now < *due {
                    return false;
                }
                *due = (*due).max(now.saturating_sub(LATE)) + interval * TOGETHER;
                *left = TOGETHER;
            }
            *left -= 1;
        }
        true
    }

    /// Writes a frame.
    #[inline(always)]
    fn anew(frame: &mut Frame, vary: bool) -> Option<()> {
        // SAFETY: as above.
        let bytes = unsafe { core::ptr::read_volatile(&raw const FRAME) };
        frame.store(0, &bytes)?;
        if !vary {
            return Some(());
        }
        // SAFETY: no preconditions.
        let [b, c, _, _] = unsafe { bpf_get_prandom_u32() }.to_ne_bytes();
        let [old_b, old_c] = frame.load::<2>(SOURCE)?;
        frame.store(SOURCE, &[b, c])?;
        // The two bytes are of two words.
        let delta = Delta::NONE.replace4([0, old_b, old_c, 0], [0, b, c, 0]);
        frame.fix_l3(IP_SUM, delta)?;
        frame.fix_l3(TCP_SUM, delta)
    }

    /// Some helpers are for programs under the GPL only.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
