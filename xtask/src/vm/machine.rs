//! How does the guest run? QEMU; what the tests say comes by a serial line, how they ended by another.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail};

/// `timeout`'s exit code when it had to end the command.
const TIMED_OUT: i32 = 124;
const MEMORY: &str = "2G";

/// Runs the image until it has turned itself off.
pub(crate) fn run(directory: &Path, kernel: &Path, image: &Path, kvm: bool, limit: Duration) -> Result<()> {
    // One thread for both CPUs: with one each, QEMU 7.2 may translate what the other CPU is about to change, and kernels change
    // their code (int3 in bpf_dispatcher_xdp_func: a panic).
    let accelerator = if kvm { "kvm" } else { "tcg,thread=single" };
    let (console, status) = (directory.join("console.log"), directory.join("status"));
    fs::write(&status, "").with_context(|| format!("empty {}", status.display()))?;
    // `timeout` ends it even if xtask is killed; in the foreground, Ctrl-C reaches it. It is in nobody's way.
    let ended = Command::new("nice")
        .args(["-n", "10", "timeout", "--foreground", "--kill-after=5", &limit.as_secs().to_string()])
        .arg("qemu-system-x86_64")
        .args(["-machine", "q35", "-cpu", "max", "-smp", "2", "-m", MEMORY, "-accel", accelerator])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(image)
        // Nobody attacks this machine, and what keeps attackers out costs an emulated CPU most.
        .args(["-append", "console=ttyS0 loglevel=5 panic=-1 mitigations=off"])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-serial", "stdio", "-serial"])
        .arg(format!("file:{}", status.display()))
        .stdin(std::process::Stdio::null())
        .status()
        .context("start nice, timeout and qemu-system-x86_64")?;
    if ended.code() == Some(TIMED_OUT) {
        bail!("not done after {} s: its console is in {}", limit.as_secs(), console.display());
    }
    let said = fs::read_to_string(&status).with_context(|| format!("read {}", status.display()))?;
    match said.trim() {
        "0" => Ok(()),
        "" => bail!("the machine ended before its tests ({ended}): its console is in {}", console.display()),
        _ => bail!(
            "tests failed; the cause is printed above, the kernel's console is in {}",
            console.display()
        ),
    }
}
