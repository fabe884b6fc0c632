//! What does the bench measure with? Its own BPF object: generator, receivers and floors.

#[path = "../embed.rs"]
mod embed;

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    match embed::embed("bench.o", "VSWITCH_BENCH_BPF_OBJECT", Path::new("../../target")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}
