//! What is on this machine already?

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    cargo,
    route::{Facts, Linker, Privilege, Rustc},
};

pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

pub(crate) fn facts() -> Facts {
    Facts {
        nightly: nightly(),
        debian: debian(),
        linker: linker(),
        llvm_dev: llvm_dev(),
        apt: find("apt-get").is_some(),
        privilege: privilege(),
    }
}

/// Looks for a command as root's shell would: Debian keeps /usr/sbin out of a user's PATH.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

pub(crate) fn privilege() -> Privilege {
    if output(Command::new("id").arg("-u")).is_some_and(|uid| uid.trim() == "0") {
        Privilege::Root
    } else if find("sudo").is_some() {
        Privilege::Sudo
    } else {
        Privilege::None
    }
}

/// Standard output of a command that succeeded.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command in rustup's nightly, if rustup is here. Asking must not install a toolchain.
pub(crate) fn in_nightly(program: &str) -> Command {
    let mut command = cargo::clean("rustup");
    command
        .args(["run", "nightly", program])
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTUP_TOOLCHAIN_SOURCE")
        .env_remove("RUSTC")
        .env("RUSTUP_AUTO_INSTALL", "0");
    command
}

fn nightly() -> Option<Rustc> {
    find("rustup")?;
    let sysroot = output(in_nightly("rustc").args(["--print", "sysroot"]))?;
    if !Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir() {
        return None;
    }
    parse_rustc(&output(in_nightly("rustc").arg("-vV"))?)
}

pub(crate) fn debian() -> Option<Rustc> {
    let library = fs::read_dir("/usr/lib/rustlib/bpfel-unknown-none/lib").ok()?;
    let has_core = library.filter_map(Result::ok).any(|entry| {
        entry.file_name().to_str().is_some_and(|n| n.starts_with("libcore-") && n.ends_with(".rlib"))
    });
    if !has_core {
        return None;
    }
    parse_rustc(&output(cargo::clean(DEBIAN_RUSTC).arg("-vV"))?)
}

fn linker() -> Option<Linker> {
    // cargo installs where PATH need not lead.
    let installed = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
        .map(|home| home.join("bin/bpf-linker"))
        .filter(|path| path.is_file());
    let path = installed.or_else(|| find("bpf-linker"))?;
    // One whose libLLVM is gone is no linker.
    output(cargo::clean(&path).arg("--version"))?;
    let llvm = output(Command::new("ldd").arg(&path)).as_deref().and_then(parse_ldd);
    Some(Linker { path, llvm })
}

fn llvm_dev() -> Vec<u32> {
    let Ok(library) = fs::read_dir("/usr/lib") else { return Vec::new() };
    let mut majors: Vec<u32> = library
        .filter_map(Result::ok)
        // llvm-config alone comes with llvm-N; linking needs the library's bare name from llvm-N-dev.
        .filter(|entry| {
            entry.path().join("bin/llvm-config").exists() && entry.path().join("lib/libLLVM.so").exists()
        })
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("llvm-")?.parse().ok())
        .collect();
    majors.sort_unstable();
    majors
}

fn parse_rustc(text: &str) -> Option<Rustc> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let mut release = field("release: ")?.split('.');
    let version = (release.next()?.parse().ok()?, release.next()?.parse().ok()?);
    Some(Rustc { version, llvm: field("LLVM version: ")?.split('.').next()?.parse().ok()? })
}

fn parse_ldd(text: &str) -> Option<u32> {
    let (_, after) = text.split_once("libLLVM")?;
    after.trim_start_matches(['-', '.', 's', 'o']).split(['.', ' ', '-']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rustc_says_its_version_and_llvm() {
        let text = "rustc 1.96.0 (built from a source tarball)\nhost: x86_64\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(parse_rustc(text), Some(Rustc { version: (1, 96), llvm: 22 }));
        assert_eq!(parse_rustc("nonsense"), None);
    }

    #[test]
    fn ldd_names_the_llvm_of_a_linker() {
        assert_eq!(parse_ldd("\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x0)"), Some(22));
        assert_eq!(parse_ldd("\tlibLLVM-15.so.1 => /lib/x (0x0)"), Some(15));
        assert_eq!(parse_ldd("\tlibc.so.6 => /lib/libc.so.6"), None);
    }
}
