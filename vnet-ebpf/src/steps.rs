//! The steps of a packet's way as functions of their own: the verifier looks at each once, whatever leads there, and
//! each has the stack to itself. What they hand on is in the working memory of the packet.

use core::ffi::c_void;

use vnet_common::{Hook, Tuple};
use vnet_datapath::Scratch;
use vnet_datapath::step::{Step, Steps};

unsafe extern "C" {
    fn vnet_read(context: *mut c_void, scratch: *mut Scratch) -> i32;
    fn vnet_from_endpoint(context: *mut c_void, scratch: *mut Scratch) -> i32;
    fn vnet_from_uplink(context: *mut c_void, scratch: *mut Scratch) -> i32;
    fn vnet_to_uplink(scratch: *mut Scratch) -> i32;
    fn vnet_to_bridge(scratch: *mut Scratch) -> i32;
    fn vnet_to_network(scratch: *mut Scratch) -> i32;
    fn vnet_from_hold(scratch: *mut Scratch) -> i32;
    fn vnet_begin_from_endpoint(scratch: *mut Scratch) -> i32;
    fn vnet_begin_from_uplink(context: *mut c_void, scratch: *mut Scratch) -> i32;
    fn vnet_begin_to_uplink(scratch: *mut Scratch) -> i32;
    fn vnet_world_bound(context: *mut c_void, scratch: *mut Scratch) -> i32;
    fn vnet_relate(context: *mut c_void, scratch: *mut Scratch) -> i32;
    fn vnet_relay(context: *mut c_void, scratch: *mut Scratch) -> i32;
    fn vnet_prepare(scratch: *mut Scratch) -> i32;
    fn vnet_try_port(context: *mut c_void, scratch: *mut Scratch) -> i32;
    fn vnet_complete(scratch: *mut Scratch) -> i32;
    fn vnet_advance(context: *mut c_void, scratch: *mut Scratch) -> i32;
    fn vnet_note(scratch: *mut Scratch) -> i32;
    fn vnet_straggler(scratch: *mut Scratch, hook: u32) -> i32;
    fn vnet_rewrite(context: *mut c_void, scratch: *mut Scratch) -> i32;
    pub(crate) fn vnet_option(context: *mut c_void, at: u32) -> u32;
    fn vnet_decide_on_answer(scratch: *mut Scratch) -> i32;
    pub(crate) fn vnet_build_answer(context: *mut c_void, scratch: *mut Scratch) -> i32;
    pub(crate) fn vnet_end(tuple: *const Tuple) -> i32;
    pub(crate) fn vnet_look_at_slot(scratch: *mut Scratch) -> i32;
    pub(crate) fn vnet_sweep_slot(scratch: *mut Scratch) -> i32;
    pub(crate) fn vnet_confirm_half(scratch: *mut Scratch) -> i32;
    pub(crate) fn vnet_find_target(scratch: *mut Scratch) -> i32;
    pub(crate) fn vnet_admit(scratch: *mut Scratch) -> i32;
    pub(crate) fn vnet_dropped(context: *mut c_void, reason: u32, hook: u32) -> i32;
    pub(crate) fn vnet_log(scratch: *mut Scratch, code: u32, hook: u32) -> i32;
    pub(crate) fn vnet_log_record(
        tuple: *const Tuple,
        becomes: *const Tuple,
        what: u32,
        number: u32,
        ifindex: u32,
    ) -> i32;
    pub(crate) fn vnet_dropped_early(context: *mut c_void, reason: u32, hook: u32) -> i32;
}

/// Calls the steps for the packet of a program's context.
#[derive(Debug)]
pub struct Outlined {
    context: *mut c_void,
    hook: Hook,
}

impl Outlined {
    /// For a program on this hook, which has to be a constant where this is inlined.
    #[inline(always)]
    pub fn new(context: *mut c_void, hook: Hook) -> Self {
        Self { context, hook }
    }
}

impl Steps for Outlined {
    #[inline(always)]
    fn read(&mut self, scratch: &mut Scratch) {
        // SAFETY: both pointers are valid for the call.
        unsafe { vnet_read(self.context, scratch) };
    }

    #[inline(always)]
    fn look(&mut self, scratch: &mut Scratch) -> Step {
        // SAFETY: as above.
        let code = unsafe {
            match self.hook {
                Hook::FromEndpoint => vnet_from_endpoint(self.context, scratch),
                Hook::FromUplink => vnet_from_uplink(self.context, scratch),
                Hook::ToUplink => vnet_to_uplink(scratch),
                Hook::ToBridge => vnet_to_bridge(scratch),
                Hook::ToNetwork => vnet_to_network(scratch),
                Hook::FromHold => vnet_from_hold(scratch),
                Hook::XdpUplink | Hook::Shape => Step::PASS.code,
            }
        };
        Step { code }
    }

    #[inline(always)]
    fn begin(&mut self, scratch: &mut Scratch) -> Step {
        // SAFETY: as above.
        let code = unsafe {
            match self.hook {
                Hook::FromEndpoint => vnet_begin_from_endpoint(scratch),
                Hook::FromUplink => vnet_begin_from_uplink(self.context, scratch),
                Hook::ToUplink => vnet_begin_to_uplink(scratch),
                Hook::ToBridge | Hook::ToNetwork | Hook::FromHold | Hook::XdpUplink | Hook::Shape => {
                    Step::PASS.code
                }
            }
        };
        Step { code }
    }

    #[inline(always)]
    fn straggler(&mut self, scratch: &mut Scratch) -> Step {
        // SAFETY: as above.
        Step { code: unsafe { vnet_straggler(scratch, self.hook as u32) } }
    }

    #[inline(always)]
    fn world_bound(&mut self, scratch: &mut Scratch) -> Step {
        match self.hook {
            // SAFETY: as above.
            Hook::FromEndpoint => Step { code: unsafe { vnet_world_bound(self.context, scratch) } },
            _ => Step::PASS,
        }
    }

    #[inline(always)]
    fn relate(&mut self, scratch: &mut Scratch) -> Step {
        // SAFETY: as above.
        Step { code: unsafe { vnet_relate(self.context, scratch) } }
    }

    #[inline(always)]
    fn relay(&mut self, scratch: &mut Scratch) -> bool {
        // SAFETY: as above.
        unsafe { vnet_relay(self.context, scratch) != 0 }
    }

    #[inline(always)]
    fn prepare(&mut self, scratch: &mut Scratch) -> bool {
        // SAFETY: as above.
        unsafe { vnet_prepare(scratch) != 0 }
    }

    #[inline(always)]
    fn try_port(&mut self, scratch: &mut Scratch) -> bool {
        // SAFETY: as above.
        unsafe { vnet_try_port(self.context, scratch) != 0 }
    }

    #[inline(always)]
    fn complete(&mut self, scratch: &mut Scratch) -> bool {
        // SAFETY: as above.
        unsafe { vnet_complete(scratch) != 0 }
    }

    #[inline(always)]
    fn advance(&mut self, scratch: &mut Scratch) -> Step {
        // SAFETY: as above.
        Step { code: unsafe { vnet_advance(self.context, scratch) } }
    }

    #[inline(always)]
    fn note(&mut self, scratch: &mut Scratch) {
        // SAFETY: as above.
        unsafe { vnet_note(scratch) };
    }

    #[inline(always)]
    fn rewrite(&mut self, scratch: &mut Scratch) -> bool {
        // SAFETY: as above.
        unsafe { vnet_rewrite(self.context, scratch) != 0 }
    }

    #[inline(always)]
    fn answer(&mut self, scratch: &mut Scratch) {
        // SAFETY: as above.
        unsafe { vnet_decide_on_answer(scratch) };
    }
}

/// Defines the steps for one kind of program: its context, whose type the verifier wants to know, and its packet.
///
/// None has a parameter that it does not use: those would reach the verifier undefined.
#[macro_export]
macro_rules! steps {
    ($context:ty, $packet:path) => {
        $crate::step!(vnet_read(scratch, context: $context) => {
            pipeline::read(&$packet(context), scratch);
            0
        });
        $crate::step!(vnet_from_endpoint(scratch, context: $context) => {
            pipeline::look(&$packet(context), &Maps::new(context.cast()), scratch, Hook::FromEndpoint).code
        });
        $crate::step!(vnet_from_uplink(scratch, context: $context) => {
            pipeline::look(&$packet(context), &Maps::new(context.cast()), scratch, Hook::FromUplink).code
        });
        $crate::step!(vnet_to_uplink(scratch) => {
            pipeline::look_leaving(&Maps::without_context(), scratch).code
        });
        $crate::step!(vnet_to_bridge(scratch) => {
            pipeline::look_entering(&Maps::without_context(), scratch).code
        });
        $crate::step!(vnet_to_network(scratch) => {
            pipeline::look_delivering(&Maps::without_context(), scratch).code
        });
        $crate::step!(vnet_from_hold(scratch) => {
            fragments::from_hold(&Maps::without_context(), scratch).code
        });
        $crate::step!(vnet_begin_from_endpoint(scratch) => {
            begin::begin(&Maps::without_context(), scratch, Hook::FromEndpoint).code
        });
        $crate::step!(vnet_world_bound(scratch, context: $context) => {
            begin::world_bound(&Maps::new(context.cast()), scratch).code
        });
        $crate::step!(vnet_begin_from_uplink(scratch, context: $context) => {
            begin::begin(&Maps::new(context.cast()), scratch, Hook::FromUplink).code
        });
        $crate::step!(vnet_begin_to_uplink(scratch) => {
            begin::begin(&Maps::without_context(), scratch, Hook::ToUplink).code
        });
        $crate::step!(vnet_relate(scratch, context: $context) => {
            related::relate(&$packet(context), &Maps::new(context.cast()), scratch).code
        });
        $crate::step!(vnet_relay(scratch, context: $context) => {
            i32::from(related::relay(&mut $packet(context), scratch).is_some())
        });
        $crate::step!(vnet_prepare(scratch) => {
            i32::from(open::prepare(&Maps::without_context(), scratch))
        });
        $crate::step!(vnet_try_port(scratch, context: $context) => {
            i32::from(open::try_port(&Maps::new(context.cast()), scratch))
        });
        $crate::step!(vnet_complete(scratch) => {
            i32::from(open::complete(&Maps::without_context(), scratch))
        });
        $crate::step!(vnet_note(scratch) => {
            fragments::note(&Maps::without_context(), scratch);
            0
        });
        $crate::step!(vnet_rewrite(scratch, context: $context) => {
            i32::from(nat::rewrite(&mut $packet(context), scratch).is_some())
        });
        $crate::step!(vnet_decide_on_answer(scratch) => {
            answer::decide(&Maps::without_context(), scratch);
            0
        });
        $crate::step!(vnet_build_answer(scratch, context: $context) => {
            i32::from(answer::build(&mut $packet(context), scratch).is_some())
        });
        $crate::step!(vnet_look_at_slot(scratch) => {
            i32::from(conntrack::look_at_slot(&Maps::without_context(), scratch))
        });
        $crate::step!(vnet_advance(scratch, context: $context) => {
            conntrack::advance(&Maps::new(context.cast()), scratch).code
        });
        $crate::step!(vnet_sweep_slot(scratch) => {
            i32::from(conntrack::sweep_slot(&Maps::without_context(), scratch))
        });
        $crate::step!(vnet_confirm_half(scratch) => {
            i32::from(conntrack::confirm_half(&Maps::without_context(), scratch))
        });
        $crate::step!(vnet_find_target(scratch) => {
            begin::find_target(&Maps::without_context(), scratch).code
        });
        $crate::step!(vnet_admit(scratch) => {
            mappings::admit(&Maps::without_context(), scratch) as i32
        });

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn vnet_straggler(scratch: *mut $crate::Scratch, hook: u32) -> i32 {
            // SAFETY: the caller's working memory, or nothing.
            let scratch = unsafe { $crate::maps::handed_on(scratch) };
            let (Some(scratch), Some(hook)) = (scratch, $crate::Hook::from_u8(hook as u8)) else { return 0 };
            $crate::fragments::straggler(&$crate::Maps::without_context(), scratch, hook).code
        }

        $crate::shown!(vnet_dropped($context), $packet);

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn vnet_log(scratch: *mut $crate::Scratch, code: u32, hook: u32) -> i32 {
            // SAFETY: the caller's working memory, or nothing.
            let Some(scratch) = (unsafe { $crate::maps::handed_on(scratch) }) else { return 0 };
            $crate::log::logged(scratch, code, hook);
            0
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn vnet_log_record(
            tuple: *const $crate::Tuple,
            becomes: *const $crate::Tuple,
            what: u32,
            number: u32,
            ifindex: u32,
        ) -> i32 {
            // SAFETY: the caller's tuples, or nothing.
            unsafe { $crate::log::record(tuple, becomes, what, number, ifindex) };
            0
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn vnet_option(context: *mut $context, at: u32) -> u32 {
            $crate::option_at(&$packet(context), at)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn vnet_end(tuple: *const $crate::Tuple) -> i32 {
            // SAFETY: the caller's working memory, or nothing.
            let (Some(tuple), Some([ending, twin])) = (unsafe { tuple.as_ref() }, $crate::maps::ending()) else {
                return 0;
            };
            // Before Linux 6.2 the verifier takes no argument of a function for a key.
            *ending = *tuple;
            if $crate::conntrack::end(&$crate::Maps::without_context(), ending, twin) {
                $crate::log::ended(ending, twin);
            }
            0
        }
    };
}

/// Defines one step.
#[macro_export]
#[doc(hidden)]
macro_rules! step {
    ($name:ident($scratch:ident $(, $context:ident: $type:ty)?) => $body:block) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name($($context: *mut $type,)? scratch: *mut $crate::Scratch) -> i32 {
            #[allow(unused_imports, reason = "one list for all steps")]
            use $crate::{
                Hook, Maps, answer, begin, conntrack, fragments, mappings, nat, open, pipeline, related,
            };
            // SAFETY: the caller's working memory, or nothing.
            let Some($scratch) = (unsafe { $crate::maps::handed_on(scratch) }) else { return 0 };
            $body
        }
    };
}

/// Defines the function that shows dropped packets to whoever captures: one of its own, so that it takes none of the
/// stack of the programs.
#[macro_export]
macro_rules! shown {
    ($name:ident($context:ty), $packet:path) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(context: *mut $context, reason: u32, hook: u32) -> i32 {
            let packet = $packet(context);
            $crate::capture::show(context.cast(), &packet, packet.ifindex(), reason, hook);
            0
        }
    };
}
