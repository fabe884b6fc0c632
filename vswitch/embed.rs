//! How does a BPF object come into a package? For build scripts: of the switch and of the bench.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Puts the object `name` into $OUT_DIR: empty where none was built, since host-only work needs no BPF toolchain.
/// `variable` names another one in the environment; `target` is the workspace's target directory.
pub(crate) fn embed(name: &str, variable: &str, target: &Path) -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={variable}");
    let out_dir = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run by cargo only")?;
    let bytes = match env::var_os(variable) {
        Some(path) => {
            let path = PathBuf::from(path);
            watch(&path);
            fs::read(&path).map_err(|error| {
                format!("read {variable}={}: {error}; unset it, or `cargo xtask build`", path.display())
            })?
        }
        None => {
            // A watched file that is missing makes every build dirty, so watch the directory, and have one.
            let directory = target.join("bpf");
            if fs::create_dir_all(&directory).is_ok() {
                watch(&directory);
            }
            fs::read(directory.join(name)).unwrap_or_default()
        }
    };
    let embedded = Path::new(&out_dir).join(name);
    fs::write(&embedded, bytes).map_err(|error| format!("write {}: {error}", embedded.display()))
}

/// Has cargo run the build script again when `path` changes.
pub(crate) fn watch(path: &Path) {
    if path.exists() {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}
