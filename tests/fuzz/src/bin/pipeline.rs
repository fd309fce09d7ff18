//! The fuzz target `pipeline`: see [`vnet_fuzz::pipeline`].
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| vnet_fuzz::pipeline(data));

#[cfg(not(fuzzing))]
fn main() {
    vnet_fuzz::replay(vnet_fuzz::pipeline);
}
