//! Is all here that building eBPF, the demo and the tests need, and if not, can it be installed?

use std::{env, path::PathBuf, time::Instant};

use anyhow::{Context as _, Error, Result, anyhow, bail};

use crate::{
    cargo, packages, probe,
    route::{self, DEBIAN_PACKAGES, Facts, Plan, Privilege, Route},
    step,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Report only; exit 1 if something is missing
    #[arg(long)]
    check: bool,
}

/// What compiles the BPF object.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    pub(crate) route: Route,
    pub(crate) linker: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { check } = args;
    let started = Instant::now();
    let facts = probe::facts();
    let tools = packages::missing_tools();
    let tool_packages: Vec<&str> = tools.iter().map(|tool| tool.package).collect();
    let plan = route::choose(&facts);
    if *check || (tools.is_empty() && matches!(plan, Plan::Ready(_))) {
        report(&facts, &plan);
        if !tools.is_empty() || !matches!(plan, Plan::Ready(_)) {
            bail!("something is missing: run `cargo xtask setup`");
        }
        return Ok(());
    }
    if plan == Plan::Impossible {
        return Err(refusal(&facts, &tool_packages));
    }
    let whys: Vec<String> = tools.iter().map(|tool| format!("{} {}", tool.command, tool.why)).collect();
    // The tools go in one transaction with the compiler if there is one.
    let tools_done = install(&plan, &tool_packages, &whys)?;
    if !tools_done && !tools.is_empty() {
        if !facts.apt || facts.privilege == Privilege::None {
            return Err(refusal(&probe::facts(), &tool_packages));
        }
        packages::install(&tool_packages, &whys.join("; "))?;
    }
    let facts = probe::facts();
    report(&facts, &route::choose(&facts));
    println!("set up in {:.1} s", started.elapsed().as_secs_f32());
    Ok(())
}

/// Where nothing can be installed: says what to type instead.
fn refusal(facts: &Facts, tool_packages: &[&str]) -> Error {
    report(facts, &route::choose(facts));
    println!("\n{}", route::advice(facts, tool_packages));
    anyhow!("cannot install what is missing from here: type the commands above, then this one again")
}

/// Setup, in silence when nothing is missing: for subcommands that need the tools as well.
pub(crate) fn ensure() -> Result<()> {
    if packages::missing_tools().is_empty() && matches!(route::choose(&probe::facts()), Plan::Ready(_)) {
        return Ok(());
    }
    run(&Args { check: false })
}

/// The toolchain, installed first if need be; used by every subcommand that builds.
pub(crate) fn toolchain() -> Result<Toolchain> {
    let mut facts = probe::facts();
    let mut plan = route::choose(&facts);
    if !matches!(plan, Plan::Ready(_)) {
        if plan == Plan::Impossible {
            return Err(refusal(&facts, &[]));
        }
        install(&plan, &[], &[])?;
        facts = probe::facts();
        plan = route::choose(&facts);
    }
    match (plan, facts.linker) {
        (Plan::Ready(route), Some(linker)) => Ok(Toolchain { route, linker: linker.path }),
        _ => bail!(
            "the BPF toolchain was installed but is not found: `cargo xtask setup --check` says what is missing"
        ),
    }
}

/// True if the plan ran apt-get, and so took the further packages along.
fn install(plan: &Plan, further: &[&str], whys: &[String]) -> Result<bool> {
    match plan {
        Plan::Ready(_) => Ok(false),
        Plan::Linker(_, llvm) => install_linker(*llvm).map(|()| false),
        Plan::Packages => {
            let all: Vec<&str> = DEBIAN_PACKAGES.iter().chain(further).copied().collect();
            let mut why =
                vec!["a rustc with `core` for BPF, and the LLVM that bpf-linker is built with".to_owned()];
            why.extend_from_slice(whys);
            packages::install(&all, &why.join("; "))?;
            let facts = probe::facts();
            match route::choose(&facts) {
                Plan::Ready(_) => {}
                Plan::Linker(_, llvm) => install_linker(llvm)?,
                Plan::Packages | Plan::Impossible => bail!(
                    "the packages are installed, but /usr/bin/rustc is too old or without core for BPF: \
                     `apt-cache policy rustc-web` shows where it came from"
                ),
            }
            Ok(true)
        }
        Plan::Impossible => bail!("nothing can be installed from here"),
    }
}

fn install_linker(llvm: u32) -> Result<()> {
    let mut path = vec![PathBuf::from(format!("/usr/lib/llvm-{llvm}/bin"))];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let path = env::join_paths(path).context("PATH has an entry with a colon")?;
    let mut command = cargo::cargo("install");
    command
        .args(route::linker_install_args(llvm))
        .env("PATH", path)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR");
    let why =
        format!("links BPF objects; built from source against LLVM {llvm}, as no distribution packages it");
    step::run("cargo install bpf-linker", &why, &mut command)
}

fn report(facts: &Facts, plan: &Plan) {
    let line = |found: bool, name: &str, what: &str| {
        println!("{:<8} {name:<12} {what}", if found { "found" } else { "MISSING" });
    };
    let describe = |(major, minor): (u32, u32), llvm: u32| format!("{major}.{minor}, LLVM {llvm}");
    let route = match plan {
        Plan::Ready(route) | Plan::Linker(route, _) => Some(*route),
        Plan::Packages | Plan::Impossible => None,
    };
    let compiler = match (route, facts.nightly, facts.debian) {
        (Some(Route::Nightly), Some(rustc), _) => {
            Some(format!("rustup nightly {} with rust-src", describe(rustc.version, rustc.llvm)))
        }
        (Some(Route::Debian), _, Some(rustc)) => {
            Some(format!("{} {} with core for BPF", probe::DEBIAN_RUSTC, describe(rustc.version, rustc.llvm)))
        }
        _ => None,
    };
    let missing = "rustup's nightly with rust-src, or Debian's rustc-web with libstd-rust-web-dev-bpf";
    line(compiler.is_some(), "BPF compiler", compiler.as_deref().unwrap_or(missing));
    match (&facts.linker, plan) {
        (Some(linker), Plan::Linker(_, llvm)) => {
            line(false, "bpf-linker", &format!("{} is older than LLVM {llvm}", linker.path.display()));
        }
        (Some(linker), _) => line(true, "bpf-linker", &linker.path.display().to_string()),
        (None, _) => line(false, "bpf-linker", "links BPF objects"),
    }
    for tool in &packages::TOOLS {
        match probe::find(tool.command) {
            Some(path) => line(true, tool.command, &path.display().to_string()),
            None => line(false, tool.command, &format!("package {}: {}", tool.package, tool.why)),
        }
    }
}
