//! What the programs log, by aya-log, for `vnet run --program-log`.
//!
//! Nothing is logged from inside the steps, whose calls take all of the stack at their deepest: they note what happens in
//! the packet's working memory, and whoever carries out the verdict has it logged then. Off, all of that is one
//! comparison, of a number that stands beside what every packet reads. The XDP program logs nothing: it takes 416 bytes of
//! the stack's 512, and a record 192.

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use aya_log_ebpf::macro_support::Level;
use vnet_common::{Addr, LogKind, LogLevel, LogVerdict, Tuple};
use vnet_datapath::step::Step;
use vnet_datapath::{Decided, Scratch};

use crate::maps;
use crate::steps;

/// Flows of which it is kept that they ended while one packet was dealt with: a power of two, and more than a packet
/// looks at.
const ENDED: usize = 32;

/// What a packet has ended.
#[repr(C)]
struct Ended {
    /// How many flows.
    count: u32,
    reserved: u32,
    /// The two tuples of each.
    flows: [[Tuple; 2]; ENDED],
    /// All zeros: what a tuple becomes that becomes nothing.
    nothing: Tuple,
}

/// Not pinned: nobody else has any use for it.
#[btf_map(name = "log_ended")]
static LOG_ENDED: PerCpuArray<Ended, 1> = PerCpuArray::new();

/// How much is logged.
#[inline(always)]
pub fn level() -> u32 {
    maps::CONFIG.get(0).map_or(0, |config| config.log_level)
}

/// Logs what has become of a packet, if anything is logged.
#[inline(always)]
pub fn packet(scratch: &mut Scratch, step: Step, hook: u32) {
    if level() != LogLevel::Off as u32 {
        // SAFETY: the pointer is valid for the call.
        unsafe { steps::vnet_log(scratch, step.code as u32, hook) };
    }
}

/// Notes a flow that has ended, for [`logged`] to log.
#[inline(always)]
pub fn ended(tuple: &Tuple, twin: &Tuple) {
    if level() < LogLevel::Debug as u32 {
        return;
    }
    let Some(ended) = LOG_ENDED.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own, and the index is within bounds.
    unsafe {
        let place = &mut (*ended).flows[(*ended).count as usize % ENDED];
        place[0] = *tuple;
        place[1] = *twin;
        (*ended).count = (*ended).count.wrapping_add(1);
    }
}

/// [`packet`], as a function of its own.
#[inline(always)]
pub fn logged(scratch: &mut Scratch, code: u32, hook: u32) {
    let step = Step { code: code as i32 };
    let level = level();
    let ifindex = scratch.place.ifindex;
    if let Some(reason) = step.reason() {
        let of_drop = LogLevel::of_drop(reason);
        if of_drop as u32 <= level {
            let what = (reason as u32, ifindex);
            write((LogKind::Drop, of_drop), hook, &scratch.tuple, core::ptr::null(), what);
        }
    }
    if level < LogLevel::Debug as u32 {
        return;
    }
    if let Some(ended) = LOG_ENDED.get_ptr_mut(0) {
        // SAFETY: this CPU's own, and the index is within bounds.
        unsafe {
            let count = (*ended).count;
            for nth in 0..ENDED {
                if nth as u32 >= count {
                    break;
                }
                let [tuple, twin] = &(*ended).flows[nth];
                write((LogKind::End, LogLevel::Debug), hook, tuple, twin, (0, ifindex));
            }
            (*ended).count = 0;
        }
    }
    if scratch.happened & Scratch::HAPPENED_BEGIN != 0 {
        write((LogKind::Begin, LogLevel::Debug), hook, &scratch.tuple, &scratch.translated, (0, ifindex));
    }
    if scratch.happened & Scratch::HAPPENED_CONFIRM != 0 {
        write((LogKind::Confirm, LogLevel::Debug), hook, &scratch.tuple, &scratch.translated, (0, ifindex));
    }
    // What is not told twice, should carrying out the verdict fail.
    scratch.happened = 0;
    if level >= LogLevel::Trace as u32 {
        let verdict = verdict(scratch, step) as u32;
        let becomes = if step == Step::DONE { &raw const scratch.translated } else { core::ptr::null() };
        write((LogKind::Packet, LogLevel::Trace), hook, &scratch.tuple, becomes, (verdict, ifindex));
    }
}

#[inline(always)]
fn verdict(scratch: &Scratch, step: Step) -> LogVerdict {
    if step == Step::HOLD {
        LogVerdict::Hold
    } else if step == Step::RETURN {
        LogVerdict::Return
    } else if step.reason().is_some() {
        if scratch.answering.is_wanted() { LogVerdict::Answer } else { LogVerdict::Drop }
    } else if step != Step::DONE {
        LogVerdict::Pass
    } else if scratch.decided.kind() == Decided::FORWARD {
        LogVerdict::Forward
    } else if scratch.decided.kind() == Decided::DELIVER {
        LogVerdict::Deliver
    } else {
        LogVerdict::Pass
    }
}

#[inline(always)]
fn write(
    (kind, level): (LogKind, LogLevel),
    hook: u32,
    tuple: *const Tuple,
    becomes: *const Tuple,
    (number, ifindex): (u32, u32),
) {
    let what = kind as u32 | (level as u32) << 8 | hook << 16;
    // SAFETY: both pointers are valid for the call, or null.
    unsafe { steps::vnet_log_record(tuple, becomes, what, number, ifindex) };
}

/// Hands over one record. Those that find no room are lost, and counted by their being more than are read.
///
/// # Safety
/// Both pointers are valid for the call, or null.
#[inline(always)]
pub unsafe fn record(tuple: *const Tuple, becomes: *const Tuple, what: u32, number: u32, ifindex: u32) {
    let Some(logged) = maps::LOGGED.get_ptr_mut(0) else { return };
    let Some(ended) = LOG_ENDED.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own counter; a place in a map, which stays mapped while the program runs; the caller's tuples, or
    // null.
    let (tuple, becomes) = unsafe {
        *logged += 1;
        let nothing = &(*ended).nothing;
        (tuple.as_ref().unwrap_or(nothing), becomes.as_ref().unwrap_or(nothing))
    };
    let level = match what >> 8 & 0xff {
        1 => Level::Error,
        2 => Level::Warn,
        3 => Level::Info,
        4 => Level::Debug,
        _ => Level::Trace,
    };
    let Tuple { src: Addr { bytes: src }, dst: Addr { bytes: dst }, .. } = *tuple;
    let Tuple { src: Addr { bytes: new_src }, dst: Addr { bytes: new_dst }, .. } = *becomes;
    // No text but spaces between: `vnet_common::LogKind` says what stands where.
    aya_log_ebpf::log!(
        (),
        target: "vnet",
        level,
        "{} {} {} {} {} {} {:i} {} {:i} {} {} {} {:i} {} {:i} {}",
        what & 0xff,
        what >> 16,
        ifindex,
        number,
        tuple.proto.number,
        tuple.zone.id,
        src,
        tuple.sport.number(),
        dst,
        tuple.dport.number(),
        becomes.proto.number,
        becomes.zone.id,
        new_src,
        becomes.sport.number(),
        new_dst,
        becomes.dport.number(),
    );
}
