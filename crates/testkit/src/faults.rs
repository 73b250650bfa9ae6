//! Faults of the system: a program runs under a tracer, which makes one of its system calls fail or do half.
//!
//! The program is a child process that calls [`traced`] around what is to be tested. Every system call within, of
//! whichever thread, gets a number; [`run`] lets all of them through and lists them, or injects one [`Fault`] into one
//! of them. A call that is to fail never reaches the kernel, but for `close`, which is done and then reported as failed:
//! that is what a real one does.
//!
//! Works by ptrace (of a child that asks for it, which needs no rights), on x86-64 Linux: registers are changed.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What happens instead of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// The device fails.
    Io,
    /// The disk is full.
    Full,
    /// A signal came first.
    Interrupted,
    /// The system has no more memory, threads or locks.
    Exhausted,
    /// Half of the bytes are transferred.
    Short,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Io, Self::Full, Self::Interrupted, Self::Exhausted, Self::Short];

    fn errno(self) -> Option<Errno> {
        match self {
            Self::Io => Some(Errno::EIO),
            Self::Full => Some(Errno::ENOSPC),
            Self::Interrupted => Some(Errno::EINTR),
            Self::Exhausted => Some(Errno::EAGAIN),
            Self::Short => None,
        }
    }

    /// Whether a program must go on as if nothing had happened.
    pub fn is_harmless(self) -> bool {
        matches!(self, Self::Interrupted | Self::Short)
    }
}

/// Which faults a call can have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It transfers as many bytes as this argument says.
    Transfer(Count),
    /// It changes names or lengths.
    Change,
    /// It asks for something.
    Ask,
    /// It is done in any case.
    Close,
    /// It is refused where memory, threads or locks are short.
    Resource,
}

/// The argument that has the count of bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Count {
    Third,
    Fourth,
    Fifth,
}

/// The calls that faults are injected into. What is not here is bookkeeping of the process itself (signals, futexes,
/// memory of its own).
const CALLS: &[(libc::c_long, &str, Kind)] = &[
    (libc::SYS_read, "read", Kind::Transfer(Count::Third)),
    (libc::SYS_pread64, "pread64", Kind::Transfer(Count::Third)),
    (libc::SYS_write, "write", Kind::Transfer(Count::Third)),
    (libc::SYS_pwrite64, "pwrite64", Kind::Transfer(Count::Third)),
    (libc::SYS_sendfile, "sendfile", Kind::Transfer(Count::Fourth)),
    (libc::SYS_copy_file_range, "copy_file_range", Kind::Transfer(Count::Fifth)),
    (libc::SYS_readv, "readv", Kind::Change),
    (libc::SYS_preadv, "preadv", Kind::Change),
    (libc::SYS_writev, "writev", Kind::Change),
    (libc::SYS_pwritev, "pwritev", Kind::Change),
    (libc::SYS_fsync, "fsync", Kind::Change),
    (libc::SYS_fdatasync, "fdatasync", Kind::Change),
    (libc::SYS_sync_file_range, "sync_file_range", Kind::Change),
    (libc::SYS_ftruncate, "ftruncate", Kind::Change),
    (libc::SYS_fallocate, "fallocate", Kind::Change),
    (libc::SYS_open, "open", Kind::Change),
    (libc::SYS_openat, "openat", Kind::Change),
    (libc::SYS_rename, "rename", Kind::Change),
    (libc::SYS_renameat, "renameat", Kind::Change),
    (libc::SYS_renameat2, "renameat2", Kind::Change),
    (libc::SYS_link, "link", Kind::Change),
    (libc::SYS_linkat, "linkat", Kind::Change),
    (libc::SYS_symlink, "symlink", Kind::Change),
    (libc::SYS_symlinkat, "symlinkat", Kind::Change),
    (libc::SYS_mkdir, "mkdir", Kind::Change),
    (libc::SYS_mkdirat, "mkdirat", Kind::Change),
    (libc::SYS_unlink, "unlink", Kind::Change),
    (libc::SYS_unlinkat, "unlinkat", Kind::Change),
    (libc::SYS_rmdir, "rmdir", Kind::Change),
    (libc::SYS_chmod, "chmod", Kind::Change),
    (libc::SYS_fchmod, "fchmod", Kind::Change),
    (libc::SYS_fchmodat, "fchmodat", Kind::Change),
    (libc::SYS_utimensat, "utimensat", Kind::Change),
    (libc::SYS_stat, "stat", Kind::Ask),
    (libc::SYS_lstat, "lstat", Kind::Ask),
    (libc::SYS_fstat, "fstat", Kind::Ask),
    (libc::SYS_newfstatat, "newfstatat", Kind::Ask),
    (libc::SYS_statx, "statx", Kind::Ask),
    (libc::SYS_statfs, "statfs", Kind::Ask),
    (libc::SYS_fstatfs, "fstatfs", Kind::Ask),
    (libc::SYS_readlink, "readlink", Kind::Ask),
    (libc::SYS_readlinkat, "readlinkat", Kind::Ask),
    (libc::SYS_getdents64, "getdents64", Kind::Ask),
    (libc::SYS_lseek, "lseek", Kind::Ask),
    (libc::SYS_getcwd, "getcwd", Kind::Ask),
    (libc::SYS_access, "access", Kind::Ask),
    (libc::SYS_fcntl, "fcntl", Kind::Ask),
    (libc::SYS_ioctl, "ioctl", Kind::Ask),
    (libc::SYS_close, "close", Kind::Close),
    (libc::SYS_flock, "flock", Kind::Resource),
    (libc::SYS_clone, "clone", Kind::Resource),
    (libc::SYS_clone3, "clone3", Kind::Resource),
    (libc::SYS_mmap, "mmap", Kind::Resource),
    (libc::SYS_madvise, "madvise", Kind::Resource),
];

impl Kind {
    fn can(self, name: &str, fault: Fault) -> bool {
        match (self, fault) {
            (Self::Transfer(_), Fault::Full) => !name.contains("read"),
            (Self::Transfer(_), fault) => fault != Fault::Exhausted,
            (Self::Change, fault) => matches!(fault, Fault::Io | Fault::Full | Fault::Interrupted),
            (Self::Ask, fault) => fault == Fault::Io,
            (Self::Close, fault) => matches!(fault, Fault::Io | Fault::Full | Fault::Interrupted),
            (Self::Resource, Fault::Interrupted) => name == "flock",
            (Self::Resource, fault) => fault == Fault::Exhausted,
        }
    }
}

/// A system call of a traced program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// How many bytes it was to transfer, where it transfers any.
    pub count: Option<u64>,
    /// Whether it is the end of reading a folder, which the system does not refuse (and Rust's library does not expect).
    folder: bool,
    at: usize,
}

impl Call {
    /// Whether this fault can be injected into it.
    pub fn can(&self, fault: Fault) -> bool {
        let (_, name, kind) = CALLS[self.at];
        let folder = self.folder && fault != Fault::Interrupted;
        !folder && kind.can(name, fault) && (fault != Fault::Short || self.count.is_some_and(|n| n >= 2))
    }
}

/// What became of a traced program.
#[derive(Debug)]
pub struct Trace {
    /// The calls that could have failed, in their order.
    pub calls: Vec<Call>,
    /// The call that the fault was injected into.
    pub injected: Option<Call>,
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub output: String,
}

/// Calls `f` where the tracer that started this process sees every system call of it.
///
/// # Panics
/// If this process was not started by [`run`], or the system does not let it be traced.
pub fn traced<T>(f: impl FnOnce() -> T) -> T {
    ptrace::traceme().expect("this process may be traced");
    raise(Signal::SIGSTOP).expect("a signal to itself");
    let out = f();
    raise(Signal::SIGSTOP).expect("a signal to itself");
    out
}

/// What a thread is doing between the two stops of a system call.
#[derive(Clone, Copy)]
enum Within {
    Call,
    /// The result is to be replaced.
    Replaced(Errno),
}

/// Runs a program that calls [`traced`], and injects a fault into the call of this number, if one is given.
///
/// # Errors
/// What starting and tracing meet.
pub fn run(command: &mut Command, inject: Option<(usize, Fault)>) -> io::Result<Trace> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let group = Pid::from_raw(-(child.id() as i32));
    let main = Pid::from_raw(child.id() as i32);
    let mut trace = Trace { calls: Vec::new(), injected: None, code: None, output: String::new() };
    let mut threads: HashMap<Pid, Option<Within>> = HashMap::new();
    let (mut root, mut done) = (None, false);
    loop {
        let status = match waitpid(group, Some(WaitPidFlag::__WALL)) {
            Ok(status) => status,
            Err(Errno::EINTR) => continue,
            Err(Errno::ECHILD) => break,
            Err(e) => return Err(e.into()),
        };
        let (pid, signal) = match status {
            WaitStatus::Exited(pid, code) => {
                trace.code = (pid == main).then_some(code).or(trace.code);
                threads.remove(&pid);
                continue;
            }
            WaitStatus::Signaled(pid, ..) => {
                threads.remove(&pid);
                continue;
            }
            WaitStatus::Stopped(pid, Signal::SIGSTOP) if root.is_none() => {
                let wanted = ptrace::Options::PTRACE_O_TRACESYSGOOD
                    | ptrace::Options::PTRACE_O_TRACECLONE
                    | ptrace::Options::PTRACE_O_EXITKILL;
                ptrace::setoptions(pid, wanted)?;
                root = Some(pid);
                (pid, None)
            }
            // The end of what is traced, or the first stop of a new thread.
            WaitStatus::Stopped(pid, Signal::SIGSTOP) => {
                done |= root == Some(pid);
                (pid, None)
            }
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            WaitStatus::PtraceSyscall(pid) => {
                let now = threads.remove(&pid).flatten();
                let next = match now {
                    None => Some(enter(pid, &mut trace, inject, done)?),
                    Some(Within::Call) => None,
                    Some(Within::Replaced(errno)) => {
                        let mut registers = ptrace::getregs(pid)?;
                        registers.rax = (-i64::from(errno as i32)) as u64;
                        ptrace::setregs(pid, registers)?;
                        None
                    }
                };
                threads.insert(pid, next);
                (pid, None)
            }
            WaitStatus::PtraceEvent(pid, ..) => (pid, None),
            WaitStatus::Continued(_) | WaitStatus::StillAlive => continue,
        };
        let resumed = if done { ptrace::cont(pid, signal) } else { ptrace::syscall(pid, signal) };
        match resumed {
            // It was ended meanwhile.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(e) => return Err(e.into()),
        }
    }
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut trace.output)?;
    }
    if root.is_none() {
        let what = format!("the program was never traced; it printed {:?}", trace.output);
        return Err(io::Error::other(what));
    }
    Ok(trace)
}

/// A thread enters a call: it gets its number, and its fault if it is the one.
fn enter(pid: Pid, trace: &mut Trace, inject: Option<(usize, Fault)>, done: bool) -> io::Result<Within> {
    let mut registers = ptrace::getregs(pid)?;
    let number = registers.orig_rax as libc::c_long;
    let Some(at) = CALLS.iter().position(|(call, ..)| *call == number) else { return Ok(Within::Call) };
    let (_, name, kind) = CALLS[at];
    let descriptor = registers.rdi as i32;
    // Memory of the process itself is no affair of a save, and neither is what it prints.
    let own_memory = name == "mmap" && registers.r8 as i32 == -1;
    let printing = matches!(name, "write" | "writev") && (0..3).contains(&descriptor);
    if done || own_memory || printing {
        return Ok(Within::Call);
    }
    let count = match kind {
        Kind::Transfer(Count::Third) => Some(&mut registers.rdx),
        Kind::Transfer(Count::Fourth) => Some(&mut registers.r10),
        Kind::Transfer(Count::Fifth) => Some(&mut registers.r8),
        _ => None,
    };
    let opened = || std::fs::metadata(format!("/proc/{pid}/fd/{descriptor}"));
    let folder = kind == Kind::Close && opened().is_ok_and(|m| m.is_dir());
    let call = Call { name, count: count.as_deref().copied(), folder, at };
    let wanted = inject.filter(|(index, fault)| *index == trace.calls.len() && call.can(*fault));
    trace.calls.push(call);
    let Some((_, fault)) = wanted else { return Ok(Within::Call) };
    trace.injected = Some(call);
    let Some(errno) = fault.errno() else {
        if let Some(count) = count {
            *count /= 2;
        }
        ptrace::setregs(pid, registers)?;
        return Ok(Within::Call);
    };
    if kind != Kind::Close {
        // A number that no call has: the kernel does nothing.
        registers.orig_rax = u64::MAX;
        ptrace::setregs(pid, registers)?;
    }
    Ok(Within::Replaced(errno))
}
