//! Level 1: does still hold what fuzzing has tried? Replays the inputs in `fuzz/corpus` and `fuzz/crashes`.

#![allow(clippy::unwrap_used, reason = "test code: a corpus that cannot be read must stop the test")]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use vswitch_tests::fuzz::{TARGETS, Target};

fn directory(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind)
}

/// Returns how many inputs there were.
fn replay(kind: &str, (name, target): Target) -> usize {
    let Ok(entries) = fs::read_dir(directory(kind).join(name)) else { return 0 };
    let mut inputs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    let holds = |input: &&PathBuf| {
        let data = fs::read(input).unwrap();
        catch_unwind(AssertUnwindSafe(|| target(&data))).is_ok()
    };
    let (good, bad): (Vec<_>, Vec<_>) = inputs.iter().partition(holds);
    assert!(bad.is_empty(), "target {name} fails, as said above, for {bad:#?}");
    good.len()
}

#[test]
fn the_corpora_hold() {
    for target in TARGETS {
        let inputs = replay("corpus", target);
        println!("{}: {inputs} inputs", target.0);
        assert!(inputs >= 10, "{} inputs are no corpus of {}", inputs, target.0);
    }
}

#[test]
fn what_once_failed_holds() {
    for target in TARGETS {
        replay("crashes", target);
    }
}

#[test]
fn every_directory_is_a_targets() {
    for kind in ["corpus", "crashes"] {
        for entry in fs::read_dir(directory(kind)).into_iter().flatten() {
            let name = entry.unwrap().file_name();
            assert!(TARGETS.iter().any(|(target, _)| name == *target), "{kind}/{name:?} is of no target");
        }
    }
}

#[test]
fn every_target_can_be_fuzzed() {
    let manifest = fs::read_to_string(directory("Cargo.toml")).unwrap();
    for (target, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{target}\"\n")), "{target} is not in {manifest}");
        let entrance = fs::read_to_string(directory("targets").join(format!("{target}.rs"))).unwrap();
        assert!(entrance.contains(&format!("vswitch_tests::fuzz::{target}(data)")), "{target}: {entrance}");
    }
}
