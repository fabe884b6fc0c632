//! What if the kernel refuses the first way to wait for its programs, as one does that leaves CPUs alone (nohz_full=)?

use std::{io, os::unix::process::CommandExt as _, process::Command};

use vswitch_tests::require;

use crate::bad_input::{Bench, NEEDS};

/// Lets membarrier(2) fail with EINVAL in the command, as such a kernel does.
fn without_membarrier(command: &mut Command) -> &mut Command {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let filter = [
        // The system call's number is the first word that a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_membarrier as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let mut filter = filter;
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: the program and its statements live until the call returns, which copies them; prctl is safe to call between
        // fork and exec.
        match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: it allocates nothing and takes no locks.
    unsafe { command.pre_exec(install) }
}

#[test]
fn ports_and_addresses_go_without_membarrier() {
    require!(NEEDS);
    let bench = Bench::new();
    bench.run("up --uplink h1 h2 h3 --fdb-max 64");
    let run = |args: &str| {
        let output = without_membarrier(&mut bench.command(args)).output().expect("start vswitch");
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    };
    // Twice as many as there is room for: each time that there is none, those that were deleted are waited for.
    for last in 1..=128 {
        let mac = format!("02:00:00:00:07:{last:02x}");
        run(&format!("fdb add {mac} h2 --static"));
        run(&format!("fdb del {mac}"));
    }
    run("port del h2");
    let left = bench.run("-j port show");
    assert!(!String::from_utf8_lossy(&left.stdout).contains(r#""h2""#));
    bench.run("down");
}
