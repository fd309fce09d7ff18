//! The system call `bpf(2)`, for programs that come without an object file.

use std::ffi::c_char;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use aya_obj::generated::{
    bpf_attach_type, bpf_attr__bindgen_ty_1 as MapCreate, bpf_attr__bindgen_ty_2 as Element,
    bpf_attr__bindgen_ty_4 as Load, bpf_attr__bindgen_ty_7 as TestRun, bpf_attr__bindgen_ty_14 as LinkCreate,
    bpf_cmd, bpf_map_type, bpf_prog_type,
};
use nix::libc;

use super::instruction::Instruction;

/// Enough for what the verifier says of a short program.
const LOG_BYTES: usize = 1 << 16;

/// A classifier that the kernel has accepted; it goes with its last attachment.
#[derive(Debug)]
pub(crate) struct Classifier(OwnedFd);

impl Classifier {
    /// Has the kernel check and translate a program.
    ///
    /// # Errors
    /// With what the verifier says.
    pub(crate) fn load(name: &str, instructions: &[Instruction]) -> Result<Self> {
        let mut log = vec![0_u8; LOG_BYTES];
        let mut load: Load = unset();
        load.prog_type = bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32;
        load.insn_cnt = u32::try_from(instructions.len())?;
        load.insns = instructions.as_ptr() as u64;
        load.license = c"GPL".as_ptr() as u64;
        (load.log_level, load.log_size, load.log_buf) = (1, LOG_BYTES as u32, log.as_mut_ptr() as u64);
        for (to, from) in load.prog_name.iter_mut().take(15).zip(name.bytes()) {
            *to = from as c_char;
        }
        match descriptor(bpf_cmd::BPF_PROG_LOAD, &mut load) {
            Ok(fd) => Ok(Self(fd)),
            Err(error) => {
                let said = String::from_utf8_lossy(&log);
                Err(error).with_context(|| format!("load {name}: {}", said.trim_end_matches('\0').trim()))
            }
        }
    }

    /// Attaches it to what arrives on an interface of the calling thread's namespace, for as long as the answer is
    /// kept.
    ///
    /// # Errors
    /// When the kernel refuses: before Linux 6.6 there is no such attachment.
    pub(crate) fn attach_ingress(&self, ifindex: u32) -> Result<OwnedFd> {
        let mut link: LinkCreate = unset();
        link.__bindgen_anon_1.prog_fd = raw(&self.0);
        link.__bindgen_anon_2.target_ifindex = ifindex;
        link.attach_type = bpf_attach_type::BPF_TCX_INGRESS as u32;
        descriptor(bpf_cmd::BPF_LINK_CREATE, &mut link)
            .with_context(|| format!("attach a program to interface {ifindex}"))
    }
}

/// What came of test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    /// What the last of them returned.
    pub(crate) verdict: i32,
    /// What each took, in nanoseconds: the mean, rounded down.
    pub(crate) nanoseconds: u32,
}

impl Classifier {
    /// Runs it so many times on the same packet, each time on what the time before has left of it. The packet is one
    /// that arrives on an interface of the calling thread's namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn test_run(&self, ifindex: u32, frame: &[u8], times: u32) -> Result<Ran> {
        // `struct __sk_buff`: all else has to be zero.
        const CONTEXT: usize = 192;
        const IFINDEX: usize = 40;
        let mut context = [0_u8; CONTEXT];
        context[IFINDEX..IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
        let mut run: TestRun = unset();
        run.prog_fd = raw(&self.0);
        (run.data_in, run.data_size_in) = (frame.as_ptr() as u64, u32::try_from(frame.len())?);
        (run.ctx_in, run.ctx_size_in) = (context.as_ptr() as u64, CONTEXT as u32);
        run.repeat = times;
        system_call(bpf_cmd::BPF_PROG_TEST_RUN, &mut run).context("run a program")?;
        Ok(Ran { verdict: run.retval as i32, nanoseconds: run.duration })
    }
}

impl AsFd for Classifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A map.
#[derive(Debug)]
pub(crate) struct Map {
    fd: OwnedFd,
    key: usize,
    value: usize,
}

impl Map {
    /// Makes a map with keys and values of so many bytes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn new(kind: bpf_map_type, (key, value): (usize, usize), entries: u32) -> Result<Self> {
        let mut create: MapCreate = unset();
        create.map_type = kind as u32;
        create.key_size = u32::try_from(key)?;
        create.value_size = u32::try_from(value)?;
        create.max_entries = entries;
        let fd = descriptor(bpf_cmd::BPF_MAP_CREATE, &mut create).context("make a map")?;
        Ok(Self { fd, key, value })
    }

    /// By what number programs know it while they are loaded.
    pub(crate) fn number(&self) -> u32 {
        raw(&self.fd)
    }

    /// Writes an entry.
    ///
    /// # Errors
    /// When the kernel refuses.
    ///
    /// # Panics
    /// When key or value are of another size.
    pub(crate) fn set(&self, key: &[u8], value: &[u8]) -> Result<()> {
        assert_eq!((key.len(), value.len()), (self.key, self.value), "sizes of key and value");
        let mut element: Element = unset();
        element.map_fd = self.number();
        element.key = key.as_ptr() as u64;
        element.__bindgen_anon_1.value = value.as_ptr() as u64;
        system_call(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut element).map(drop).context("write into a map")
    }
}

fn raw(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd() as u32
}

/// What a command is given, with nothing given yet.
fn unset<T: Attributes>() -> T {
    // SAFETY: all zero is a value of each of them, and what the kernel takes for "not given".
    unsafe { std::mem::zeroed() }
}

/// A part of `union bpf_attr`, which belongs to some commands.
///
/// # Safety
/// All zero is a value of the type, and it is a field of that union.
unsafe trait Attributes {}

// SAFETY: as demanded: plain numbers.
unsafe impl Attributes for Load {}
// SAFETY: as above.
unsafe impl Attributes for LinkCreate {}
// SAFETY: as above.
unsafe impl Attributes for MapCreate {}
// SAFETY: as above.
unsafe impl Attributes for Element {}
// SAFETY: as above.
unsafe impl Attributes for TestRun {}

/// A command that answers with a descriptor.
fn descriptor(command: bpf_cmd, attributes: &mut impl Attributes) -> Result<OwnedFd> {
    let fd = system_call(command, attributes)?;
    // SAFETY: the kernel has just made it for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) })
}

fn system_call<T: Attributes>(command: bpf_cmd, attributes: &mut T) -> Result<i64> {
    // SAFETY: the kernel reads and writes no more than the size given; what the attributes point to is alive in our
    // callers.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as u32, std::ptr::from_mut(attributes), size_of::<T>())
    };
    if result < 0 {
        bail!(std::io::Error::last_os_error());
    }
    Ok(result)
}
