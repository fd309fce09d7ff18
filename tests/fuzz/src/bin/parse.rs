//! The fuzz target `parse`: see [`vnet_fuzz::parse`].
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| vnet_fuzz::parse(data));

#[cfg(not(fuzzing))]
fn main() {
    vnet_fuzz::replay(vnet_fuzz::parse);
}
