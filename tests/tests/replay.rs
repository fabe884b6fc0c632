//! Level 1: does still hold what fuzzing has tried? Replays the inputs in `fuzz/seeds` and `fuzz/crashes`.

#![allow(clippy::unwrap_used, reason = "test code: an input that cannot be read must stop the test")]

use std::{
    fs::{self, File},
    io::{self, Read as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use tar::{Archive, Entry};
use vswitch_tests::fuzz::{TARGETS, Target};

/// An input and what it is called.
type Input = (PathBuf, Vec<u8>);

fn directory(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind)
}

/// What fuzzing has found worth keeping for a target.
fn seeds(target: &str) -> Vec<Input> {
    let mut archive =
        Archive::new(File::open(directory("seeds").join(target).with_extension("tar")).unwrap());
    let read = |entry: io::Result<Entry<'_, File>>| {
        let mut entry = entry.unwrap();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        (entry.path().unwrap().into_owned(), data)
    };
    archive.entries().unwrap().map(read).collect()
}

/// What has failed once.
fn crashes(target: &str) -> Vec<Input> {
    let entries = fs::read_dir(directory("crashes").join(target)).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn replay((name, target): Target, inputs: &[Input]) {
    let fails = |(_, data): &&Input| catch_unwind(AssertUnwindSafe(|| target(data))).is_err();
    let bad: Vec<_> = inputs.iter().filter(fails).map(|(input, _)| input).collect();
    assert!(bad.is_empty(), "target {name} fails, as said above, for {bad:#?}");
}

#[test]
fn the_seeds_hold() {
    for target in TARGETS {
        let inputs = seeds(target.0);
        println!("{}: {} inputs", target.0, inputs.len());
        assert!(inputs.len() >= 10, "{} inputs are no corpus of {}", inputs.len(), target.0);
        replay(target, &inputs);
    }
}

#[test]
fn what_once_failed_holds() {
    for target in TARGETS {
        replay(target, &crashes(target.0));
    }
}

#[test]
fn all_that_is_kept_is_a_targets() {
    for kind in ["seeds", "crashes"] {
        for entry in fs::read_dir(directory(kind)).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap();
            assert!(TARGETS.iter().any(|(target, _)| name == *target), "{} is of no target", path.display());
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
