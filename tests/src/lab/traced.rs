//! Programs that are followed from one system call to the next, in all their threads, and killed at one of them, or told
//! that it failed.

use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::process::{TIME_LIMIT, pid_of, shown};

/// A system call that a program is about to make.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    thread: Pid,
    number: u64,
    arguments: [u64; 6],
}

/// What becomes of a program that is about to make a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It makes it.
    GoesOn,
    /// It does not make it, and is told this error.
    Fails(Errno),
    /// It is killed, whole.
    Killed,
}

impl Fate {
    /// Whether programs can be told of failures here: who does that has to know how the machine's system calls are made.
    pub const CAN_FAIL: bool = cfg!(target_arch = "x86_64");
}

/// How a program that was followed ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this exit code.
    Exited(i32),
    /// By a signal of somebody else.
    Signalled(Signal),
    /// It was killed.
    Killed,
}

impl Call {
    /// Its number.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Its name, of those that change anything.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let known = CHANGING.iter().find(|(number, _)| u64::try_from(*number) == Ok(self.number));
        known.map_or("a system call that changes nothing", |(_, name)| name)
    }

    /// Whether it can leave something behind that outlives the program. Two kills with no such call between them find
    /// the same, so it is enough to kill a program before each of these.
    #[must_use]
    pub fn changes_something(&self) -> bool {
        let Ok(number) = libc::c_long::try_from(self.number) else { return false };
        if !CHANGING.iter().any(|(changing, _)| *changing == number) {
            return false;
        }
        match number {
            libc::SYS_bpf => BPF_CHANGES.contains(&self.arguments[0]),
            libc::SYS_openat => self.arguments[2] & libc::O_CREAT as u64 != 0,
            libc::SYS_sendto => !self.is_question(self.arguments[1]),
            libc::SYS_sendmsg => !self
                .word(self.arguments[1] + MSG_IOV)
                .and_then(|iov| self.word(iov))
                .is_some_and(|base| self.is_question(base)),
            _ => true,
        }
    }

    /// Whether a netlink message asks for something (`RTM_GET...`): every fourth kind, from the third on.
    fn is_question(&self, message: u64) -> bool {
        const FIRST: u64 = libc::RTM_NEWLINK as u64;
        let kind = self.word(message).map(|word| word >> 32 & 0xffff);
        kind.is_some_and(|kind| kind >= FIRST && (kind - FIRST) % 4 == 2)
    }

    fn word(&self, address: u64) -> Option<u64> {
        let word = ptrace::read(self.thread, address as ptrace::AddressType).ok()?;
        Some(word as u64)
    }
}

/// Where `struct msghdr` has the address of its parts.
const MSG_IOV: u64 = 16;

/// Commands of `bpf` that change more than the caller's descriptors (`enum bpf_cmd`).
const BPF_CHANGES: [u64; 12] = [
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    6,  // BPF_OBJ_PIN
    8,  // BPF_PROG_ATTACH
    9,  // BPF_PROG_DETACH
    21, // BPF_MAP_LOOKUP_AND_DELETE_ELEM
    25, // BPF_MAP_LOOKUP_AND_DELETE_BATCH
    26, // BPF_MAP_UPDATE_BATCH
    27, // BPF_MAP_DELETE_BATCH
    28, // BPF_LINK_CREATE
    29, // BPF_LINK_UPDATE
    34, // BPF_LINK_DETACH
];

/// System calls that may change something beyond the process that makes them.
const CHANGING: &[(libc::c_long, &str)] = &[
    (libc::SYS_bpf, "bpf"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_write, "write"),
    (libc::SYS_writev, "writev"),
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_fallocate, "fallocate"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_openat, "openat"),
    (libc::SYS_flock, "flock"),
    (libc::SYS_renameat, "renameat"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_mkdirat, "mkdirat"),
    (libc::SYS_mount, "mount"),
    (libc::SYS_umount2, "umount2"),
    (libc::SYS_setns, "setns"),
    (libc::SYS_unshare, "unshare"),
    (libc::SYS_exit_group, "exit_group"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, "rmdir"),
];

/// Runs a program and shows each system call to `before`, whichever thread is about to make it, which says what becomes
/// of it. What the program prints is thrown away.
///
/// # Panics
/// When it cannot be started or followed.
pub(super) fn follow(
    argv: &[String],
    environment: &[(String, String)],
    before: impl FnMut(&Call) -> Fate + Send,
) -> End {
    let command = shown(argv);
    // Who traces is the thread that starts it, and it waits for all its children: so it has no others.
    thread::scope(|scope| {
        let tracer = scope.spawn(|| start_and_follow(argv, environment, before));
        let ended = tracer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ended.unwrap_or_else(|e| panic!("trace `{command}`: {e:#}"))
    })
}

fn start_and_follow(
    argv: &[String],
    environment: &[(String, String)],
    mut before: impl FnMut(&Call) -> Fate,
) -> anyhow::Result<End> {
    let mut traced = Command::new(&argv[0]);
    traced.args(&argv[1..]).envs(environment.iter().cloned());
    traced.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec it makes one system call, and allocates nothing.
    unsafe { traced.pre_exec(|| ptrace::traceme().map_err(Into::into)) };
    #[allow(clippy::zombie_processes, reason = "who follows its system calls waits for it")]
    let child = traced.spawn().context("start it")?;
    let pid = pid_of(&child);
    let (ended, watched) = mpsc::channel::<()>();
    thread::spawn(move || {
        if watched.recv_timeout(TIME_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    let end = follow_system_calls(pid, &mut before);
    drop(ended);
    end
}

/// Lets a traced program run to its end, from one system call to the next.
fn follow_system_calls(pid: Pid, before: &mut dyn FnMut(&Call) -> Fate) -> anyhow::Result<End> {
    let mut killed = false;
    // Threads in a call that is not made, and what they are to be told.
    let mut failing: HashMap<Pid, Errno> = HashMap::new();
    loop {
        // All of its threads and nobody else: the children of this thread alone, of whichever kind.
        let status = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD))?;
        let (thread, signal) = match status {
            // It begins.
            WaitStatus::Stopped(thread, Signal::SIGTRAP) => {
                let options = Options::PTRACE_O_TRACESYSGOOD
                    | Options::PTRACE_O_TRACECLONE
                    | Options::PTRACE_O_EXITKILL;
                ptrace::setoptions(thread, options)?;
                (thread, None)
            }
            // A thread begins, or tells of the one it has begun.
            WaitStatus::Stopped(thread, Signal::SIGSTOP) | WaitStatus::PtraceEvent(thread, ..) => {
                (thread, None)
            }
            // One is about to make a call, or has made it.
            WaitStatus::PtraceSyscall(thread) => {
                if let Some(errno) = failing.remove(&thread) {
                    tell(thread, errno)?;
                } else if let Some(call) = entered(thread).filter(|_| !killed) {
                    match before(&call) {
                        Fate::GoesOn => {}
                        Fate::Fails(errno) => {
                            withhold(thread)?;
                            failing.insert(thread, errno);
                        }
                        Fate::Killed => {
                            kill(pid, Signal::SIGKILL)?;
                            killed = true;
                        }
                    }
                }
                (thread, None)
            }
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..) if thread != pid => continue,
            WaitStatus::Exited(_, code) => return Ok(End::Exited(code)),
            WaitStatus::Signaled(..) if killed => return Ok(End::Killed),
            WaitStatus::Signaled(_, signal, _) => return Ok(End::Signalled(signal)),
            other => bail!("it stopped otherwise: {other:?}"),
        };
        match ptrace::syscall(thread, signal) {
            // It has been killed meanwhile.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).context("let it go on"),
        }
    }
}

/// The call that a thread which has stopped is about to make; nothing if it has just made one, or is dead.
fn entered(thread: Pid) -> Option<Call> {
    let info = ptrace::syscall_info(thread).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: this is what is there before a system call.
    let entry = unsafe { info.u.entry };
    Some(Call { thread, number: entry.nr, arguments: entry.args })
}

/// Has a thread that is about to make a system call make none.
#[cfg(target_arch = "x86_64")]
fn withhold(thread: Pid) -> anyhow::Result<()> {
    let mut registers = ptrace::getregs(thread).context("read its registers")?;
    // No call has this number.
    registers.orig_rax = u64::MAX;
    ptrace::setregs(thread, registers).context("withhold a call from it")
}

/// Tells a thread, after a system call, that it failed.
#[cfg(target_arch = "x86_64")]
fn tell(thread: Pid, errno: Errno) -> anyhow::Result<()> {
    let mut registers = ptrace::getregs(thread).context("read its registers")?;
    registers.rax = i64::from(-(errno as i32)).cast_unsigned();
    ptrace::setregs(thread, registers).context("tell it of a failure")
}

#[cfg(not(target_arch = "x86_64"))]
fn withhold(_: Pid) -> anyhow::Result<()> {
    bail!("{NO_FAILURES}")
}

#[cfg(not(target_arch = "x86_64"))]
fn tell(_: Pid, _: Errno) -> anyhow::Result<()> {
    bail!("{NO_FAILURES}")
}

#[cfg(not(target_arch = "x86_64"))]
const NO_FAILURES: &str = "how system calls are made on this machine is not known here";
