//! How do the BPF object and the binary that carries it come about?

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use object::{build::elf, elf::SHT_STRTAB};

use crate::{
    cargo, probe,
    route::Route,
    setup::{self, Toolchain},
};

const TARGET: &str = "bpfel-unknown-none";

/// The dataplane, and what `vswitch bench` measures with.
pub(crate) const BPF_BINS: [&str; 4] = ["--bin", "vswitch-bpf", "--bin", "vswitch-bench-bpf"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build the binary without optimisation, as target/debug/vswitch (the BPF object is always optimised)
    #[arg(long)]
    debug: bool,
}

/// What a build leaves behind.
pub(crate) struct Built {
    pub(crate) object: PathBuf,
    pub(crate) binary: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let built = build(args)?;
    println!(
        "object  {} ({} bytes)",
        built.object.display(),
        fs::metadata(&built.object).map_or(0, |m| m.len())
    );
    println!("binary  {}", built.binary.display());
    Ok(())
}

pub(crate) fn release() -> Result<Built> {
    build(&Args { debug: false })
}

fn build(args: &Args) -> Result<Built> {
    let Args { debug } = args;
    let toolchain = setup::toolchain()?;
    let object = bpf_objects(&toolchain)?;
    let mut command = cargo::cargo("build");
    command.args(["--package", "vswitch-command"]);
    if !debug {
        command.arg("--release");
    }
    cargo::run(&mut command, "build vswitch")?;
    let binary = cargo::target().join(if *debug { "debug" } else { "release" }).join("vswitch");
    Ok(Built { object, binary })
}

/// The objects that build scripts embed. They find them at these paths by themselves: passing the paths by
/// environment would rebuild vswitch whenever plain `cargo` and xtask alternate. Returns the dataplane's.
fn bpf_objects(toolchain: &Toolchain) -> Result<PathBuf> {
    let mut command = bpf_cargo(toolchain, "build");
    command.args(BPF_BINS);
    cargo::run(&mut command, "build the BPF objects")?;
    let directory = cargo::target().join("bpf");
    for (bin, object) in [("vswitch-bpf", "vswitch.o"), ("vswitch-bench-bpf", "bench.o")] {
        let built = bpf_target().join(TARGET).join("release").join(bin);
        let object = directory.join(object);
        let bytes = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
        let bytes = without_dwarf(&bytes).with_context(|| format!("strip {}", built.display()))?;
        // An unchanged file keeps its time stamp, and with it vswitch stays built.
        if fs::read(&object).ok().as_ref() != Some(&bytes) {
            fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
            fs::write(&object, &bytes).with_context(|| format!("write {}", object.display()))?;
        }
    }
    Ok(directory.join("vswitch.o"))
}

/// The kernel and its tools read BTF. DWARF, from which the linker has made it, is three quarters of an object.
fn without_dwarf(object: &[u8]) -> Result<Vec<u8>> {
    let mut elf = elf::Builder::read(object)?;
    for section in &mut elf.sections {
        section.delete = section.name.starts_with(b".debug_") || section.name.starts_with(b".rel.debug_");
    }
    elf.delete_orphans();
    ensure!(elf.sections.iter().any(|section| *section.name == *b".BTF"), "it has no BTF");
    // LLVM has one table for the names of sections and symbols, the writer two.
    let names = elf.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = elf::SectionData::SectionString;
    let mut stripped = Vec::new();
    elf.write(&mut stripped)?;
    Ok(stripped)
}

/// `cargo <subcommand>` for the BPF side of vswitch-ebpf, with the toolchain of the chosen route.
pub(crate) fn bpf_cargo(toolchain: &Toolchain, subcommand: &str) -> Command {
    let command = match toolchain.route {
        Route::Nightly => {
            let mut command = probe::in_nightly("cargo");
            command.args([subcommand, "-Zbuild-std=core"]);
            command
        }
        Route::Debian => cargo::cargo(subcommand),
    };
    for_bpf(toolchain, command)
}

/// Aims a cargo command at BPF.
pub(crate) fn for_bpf(toolchain: &Toolchain, mut command: Command) -> Command {
    if toolchain.route == Route::Debian {
        // A stable compiler: aya-ebpf needs its unstable features.
        command.env("RUSTC", probe::DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
    }
    command
        .current_dir(cargo::root())
        .env("CARGO_TARGET_DIR", bpf_target())
        .args(["--release", "--package", "vswitch-ebpf", "--target", TARGET])
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker)
        .env("RUSTFLAGS", "-Cdebuginfo=2 -Clink-arg=--btf")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

/// Apart from the host's, as the compiler and its flags differ.
fn bpf_target() -> PathBuf {
    cargo::target().join("bpf-build")
}
