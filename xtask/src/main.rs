//! What can a developer of vswitch ask for? One subcommand a file.

mod build;
mod cargo;
mod ci;
mod demo;
mod dist;
mod fuzz;
mod packages;
mod probe;
mod route;
mod setup;
mod step;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set up, build and test vswitch
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install what building eBPF, the demo and the tests need
    Setup(setup::Args),
    /// Build the BPF object and the binary that carries it, target/release/vswitch
    Build(build::Args),
    /// Watch hosts in namespaces talk through a switch; as root
    Demo(demo::Args),
    /// Run the tests: host, kernel, namespaces (the last two as root)
    Test(test::Args),
    /// Run the tests of levels 2 and 3 on another kernel, in an emulator
    Vm(vm::Args),
    /// Everything that must pass before a change is taken: format, lints, all tests
    Ci,
    /// Look for inputs that break what must always hold, and keep those that reach new code
    Fuzz(fuzz::Args),
    /// Shell completions, man pages and a Debian package, into target/dist
    Dist(dist::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Vm(args) => vm::run(&args),
        Command::Ci => ci::run(),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Dist(args) => dist::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
