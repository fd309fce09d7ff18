//! The questions of the packet logic to the kernel itself, for `vnet trace`: run by `BPF_PROG_TEST_RUN`, never attached.
//! The functions that answer are those of the programs that vnet attaches. Nothing is changed by them.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::EbpfContext as _;
    use aya_ebpf::bindings::TC_ACT_UNSPEC;
    use aya_ebpf::btf_maps::Array;
    use aya_ebpf::macros::{btf_map, classifier};
    use aya_ebpf::programs::TcContext;
    use vnet_datapath::probe::{self, Question, Response};
    use vnet_ebpf::Maps;

    /// The question, written before each run.
    #[btf_map(name = "question")]
    static QUESTION: Array<Question, 1> = Array::new();

    /// The answer, read after it.
    #[btf_map(name = "response")]
    static RESPONSE: Array<Response, 1> = Array::new();

    #[classifier]
    fn probe(context: TcContext) -> i32 {
        let (Some(question), Some(response)) = (QUESTION.get(0), RESPONSE.get_ptr_mut(0)) else {
            return TC_ACT_UNSPEC;
        };
        // SAFETY: the maps' only elements, which nobody else writes while the one process that has them runs this.
        let response = unsafe { &mut *response };
        probe::ask(&Maps::new(context.as_ptr()), question, response);
        TC_ACT_UNSPEC
    }

    /// Some helpers are for programs under the GPL only.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
