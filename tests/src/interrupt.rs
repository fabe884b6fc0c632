//! What if a command dies at this very step? Runs one under ptrace and kills it before its n-th system call that would
//! change something: nothing in the command knows of it, and n = 1, 2, 3 .. is every step there is.

use std::{
    io,
    io::Read as _,
    mem,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    ptr, thread,
};

/// What became of the command.
#[derive(Debug)]
pub enum Ran {
    /// It was killed before this.
    Killed(String),
    /// It made only so many changes and ended.
    Ended { changes: usize, status: i32, stderr: String },
}

/// Runs `command` until it is about to make its n-th change, from 1, of anything outside itself.
pub fn before_change(command: &mut Command, nth: usize) -> Ran {
    let mut changes = 0;
    let mut last = None;
    let ended = until_call(command, &mut |tid, call, args| {
        let Some(change) = change(tid, call, args) else { return false };
        changes += 1;
        last = Some(change);
        changes == nth
    });
    match ended {
        None => Ran::Killed(last.unwrap_or_default()),
        Some((status, stderr)) => Ran::Ended { changes, status, stderr },
    }
}

/// What a command asks of the kernel's BPF, by the number of the call's command, before it writes to stdout for the n-th time, from
/// 1, when it is killed; or until it ends.
pub fn bpf_before_write(command: &mut Command, nth: usize) -> Vec<u64> {
    let (mut calls, mut writes) = (Vec::new(), 0);
    until_call(command, &mut |_, call, args| {
        if call == libc::SYS_bpf {
            calls.push(args[0]);
        }
        writes += usize::from(call == libc::SYS_write && args[0] == 1);
        writes == nth
    });
    calls
}

/// Says of a system call that a thread is about to make whether the command is killed now.
type Stop<'a> = &'a mut (dyn FnMut(libc::pid_t, libc::c_long, [u64; 6]) -> bool + Send);

/// Runs a command; unless it was killed, its status and what it said on stderr.
fn until_call(command: &mut Command, stop: Stop<'_>) -> Option<(i32, String)> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // SAFETY: ptrace with PTRACE_TRACEME takes no pointers and is safe to call between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    // Tracees are a thread's, and wait() shall find no other child of the test.
    thread::scope(|scope| scope.spawn(|| trace(command, stop)).join().expect("the tracing thread"))
}

#[expect(clippy::zombie_processes, reason = "waitpid of the tracer reaps it")]
fn trace(command: &mut Command, stop: Stop<'_>) -> Option<(i32, String)> {
    let mut child = command.spawn().unwrap_or_else(|err| panic!("start {command:?}: {err}"));
    let pid = child.id().cast_signed();
    let mut stderr = child.stderr.take().expect("piped");
    let (stopped, _) = wait();
    assert_eq!(stopped, pid, "the child stops when it has become its program");
    let options = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_EXITKILL;
    ptrace(libc::PTRACE_SETOPTIONS, pid, options as usize).expect("set the tracer's options");
    resume(pid, 0);
    loop {
        let (tid, status) = wait();
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            if tid != pid {
                continue;
            }
            let mut said = String::new();
            let _unreadable = stderr.read_to_string(&mut said);
            let status = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 };
            return Some((status, said));
        }
        let signal = libc::WSTOPSIG(status);
        if signal == libc::SIGTRAP | 0x80 {
            if entered(tid).is_some_and(|(call, args)| stop(tid, call, args)) {
                kill(pid);
                return None;
            }
            resume(tid, 0);
        } else {
            // Stops of the tracer's own asking, and the first one of a new thread, are no signals to hand on.
            let own = status >> 16 != 0 || matches!(signal, libc::SIGTRAP | libc::SIGSTOP);
            resume(tid, if own { 0 } else { signal });
        }
    }
}

/// Kills it where it has stopped, at the entry of a system call, which is then not carried out; waits for its end.
fn kill(pid: libc::pid_t) {
    // SAFETY: no pointers; the process is our child and has not been waited for.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    loop {
        let (tid, status) = wait();
        if tid == pid && (libc::WIFEXITED(status) || libc::WIFSIGNALED(status)) {
            return;
        }
    }
}

/// The system call that the thread is about to make, with its arguments; `None` where it has just made one.
fn entered(tid: libc::pid_t) -> Option<(libc::c_long, [u64; 6])> {
    // SAFETY: a plain C struct, for which all zeroes is a valid value.
    let mut info = unsafe { mem::zeroed::<libc::ptrace_syscall_info>() };
    // SAFETY: the kernel writes at most as many bytes as it is told that the struct has.
    let done = unsafe {
        libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, tid, size_of_val(&info), ptr::from_mut(&mut info))
    };
    if done <= 0 || info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: the kernel fills this member of the union at an entry.
    let entry = unsafe { info.u.entry };
    Some((entry.nr as libc::c_long, entry.args))
}

/// Names what a system call changes outside the process, if it does.
fn change(tid: libc::pid_t, call: libc::c_long, args: [u64; 6]) -> Option<String> {
    match call {
        libc::SYS_bpf => bpf(args[0]).map(str::to_owned),
        libc::SYS_sendto | libc::SYS_sendmsg => {
            let at = if call == libc::SYS_sendto { args[1] } else { peek(tid, peek(tid, args[1] + 16)) };
            // struct nlmsghdr: length, type. Every fourth type asks and changes nothing.
            let kind = (peek(tid, at) >> 32) as u16;
            (kind % 4 != 2).then(|| format!("netlink message {kind}"))
        }
        libc::SYS_ioctl => match args[1] {
            0x8946 => Some("ethtool ioctl".to_owned()),
            0x8914 => Some("SIOCSIFFLAGS".to_owned()),
            0x4004_54ca..=0x4004_54d9 => Some("tun ioctl".to_owned()),
            _ => None,
        },
        libc::SYS_unlink | libc::SYS_unlinkat => Some("unlink".to_owned()),
        libc::SYS_rmdir => Some("rmdir".to_owned()),
        libc::SYS_mkdir | libc::SYS_mkdirat => Some("mkdir".to_owned()),
        libc::SYS_rename | libc::SYS_renameat | libc::SYS_renameat2 => Some("rename".to_owned()),
        libc::SYS_symlink | libc::SYS_symlinkat => Some("symlink".to_owned()),
        libc::SYS_chmod | libc::SYS_fchmodat => Some("chmod".to_owned()),
        libc::SYS_chown | libc::SYS_fchownat => Some("chown".to_owned()),
        libc::SYS_mount => Some("mount".to_owned()),
        _ => None,
    }
}

fn bpf(command: u64) -> Option<&'static str> {
    Some(match command {
        2 => "BPF_MAP_UPDATE_ELEM",
        3 => "BPF_MAP_DELETE_ELEM",
        6 => "BPF_OBJ_PIN",
        8 => "BPF_PROG_ATTACH",
        9 => "BPF_PROG_DETACH",
        26 => "BPF_MAP_UPDATE_BATCH",
        27 => "BPF_MAP_DELETE_BATCH",
        28 => "BPF_LINK_CREATE",
        29 => "BPF_LINK_UPDATE",
        34 => "BPF_LINK_DETACH",
        _ => return None,
    })
}

/// Eight bytes of the tracee's memory.
fn peek(tid: libc::pid_t, address: u64) -> u64 {
    // SAFETY: PTRACE_PEEKDATA reads the tracee's memory, and none of ours.
    unsafe { libc::ptrace(libc::PTRACE_PEEKDATA, tid, address as usize, 0) as u64 }
}

/// A change of state of a tracee of this thread.
fn wait() -> (libc::pid_t, libc::c_int) {
    let mut status = 0;
    // SAFETY: the pointer is to an int of ours.
    let tid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    assert!(tid > 0, "wait for the tracee: {}", io::Error::last_os_error());
    (tid, status)
}

fn resume(tid: libc::pid_t, signal: libc::c_int) {
    // It may have been killed meanwhile; then its end comes next.
    let _gone = ptrace(libc::PTRACE_SYSCALL, tid, signal as usize);
}

fn ptrace(request: libc::c_uint, tid: libc::pid_t, data: usize) -> io::Result<()> {
    // SAFETY: for the requests used here `data` is a number and no pointer.
    match unsafe { libc::ptrace(request, tid, 0, data) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
