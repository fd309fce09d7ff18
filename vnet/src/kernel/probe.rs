//! Asks the kernel what the programs ask it: by a program that asks as they do, run once for each question
//! (`BPF_PROG_TEST_RUN`), in the network namespace of the calling process. It is attached to nothing and gone with the
//! process.

use std::cell::RefCell;
use std::fmt;
use std::io;

use aya::maps::{Array, MapData};
use aya::programs::{Program, SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use vnet_common::{features, maps};
use vnet_datapath::probe::{Question, Response};

use super::error::Error;
use super::features as kernel_features;
use super::maps::Abi;
use super::object;
use crate::instance::Instance;

/// The program, and its maps.
const PROGRAM: &str = "probe";
const QUESTION: &str = "question";
const RESPONSE: &str = "response";

/// Bytes of the frame that the program is run on, and never looks at: some of them after the link header.
const FRAME: [u8; 64] = [0; 64];

/// `struct __sk_buff`, of which a test run takes the index of an interface of the caller's network namespace; all else
/// has to be zero.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Context {
    before: [u32; 10],
    ifindex: u32,
    after: [u32; 37],
}

/// The program.
pub(super) struct Probe {
    program: Ebpf,
    question: RefCell<Array<MapData, Abi<Question>>>,
    response: Array<MapData, Abi<Response>>,
}

impl Probe {
    /// Loads the program, to ask as those of an instance do.
    pub(super) fn load(instance: &Instance) -> Result<Self, Error> {
        let failed = |source| Error::LoadObject { source: Box::new(source) };
        let bits = kernel_features::of_running_kernel();
        let mut loader = EbpfLoader::new();
        loader.override_global(features::SYMBOL, &bits, false);
        for name in maps::ALL {
            let pin = instance.map_pin(name);
            // The object has all of them, if only because they stand in one file. Those of the instance take no memory,
            // and one of them is looked at: the host's addresses, where routing does not say.
            if pin.exists() {
                loader.map_pin_path(name, pin);
            } else {
                loader.map_max_entries(name, 1);
            }
        }
        let mut program = loader.load(object::probe()?).map_err(failed)?;
        let question = array(&mut program, QUESTION)?;
        let response = array(&mut program, RESPONSE)?;
        if let Some(Program::SchedClassifier(probe)) = program.program_mut(PROGRAM) {
            probe.load().map_err(|source| failed(source.into()))?;
        }
        Ok(Self { program, question: RefCell::new(question), response })
    }

    /// Asks, as a program on an interface would.
    pub(super) fn ask(&self, question: Question, ifindex: u32) -> Result<Response, Error> {
        let failed = |source| Error::Probe { source };
        let written = self.question.borrow_mut().set(0, Abi(question), 0);
        written.map_err(|source| failed(io::Error::other(source)))?;
        let context = Context { before: [0; 10], ifindex, after: [0; 37] };
        let options = TestRunOptions {
            data_in: Some(&FRAME),
            ctx_in: Some(bytemuck::bytes_of(&context)),
            ..TestRunOptions::new()
        };
        self.classifier()?.test_run(options).map_err(|source| failed(io::Error::other(source)))?;
        let Abi(response) = self.response.get(&0, 0).map_err(|source| failed(io::Error::other(source)))?;
        Ok(response)
    }

    fn classifier(&self) -> Result<&SchedClassifier, Error> {
        match self.program.program(PROGRAM) {
            Some(Program::SchedClassifier(probe)) => Ok(probe),
            _ => Err(Error::BuiltWithoutPrograms),
        }
    }
}

/// A map of the program.
fn array<T: bytemuck::Pod>(program: &mut Ebpf, name: &'static str) -> Result<Array<MapData, Abi<T>>, Error> {
    let map = program.take_map(name).ok_or(Error::BuiltWithoutPrograms)?;
    Array::try_from(map).map_err(|source| Error::ReadMap { map: name, source })
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").finish_non_exhaustive()
    }
}
