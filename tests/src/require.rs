//! Can this test run here? If not, it says so and what is missing; where all must run, that is a failure.

use std::{env, path::Path};

/// Something that a machine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Root,
    /// The kernel's type information, without which no program of ours loads.
    Btf,
    Tool(&'static str),
    /// A file named by an environment variable, such as the binary under test.
    FileIn(&'static str),
}

/// What every test with namespaces needs.
pub const NAMESPACES: &[Need] = &[Need::Root, Need::Tool("ip"), Need::Tool("bridge"), Need::Tool("nsenter")];

/// The first line of a test: `require!(NAMESPACES)` returns from it if the machine lacks something.
#[macro_export]
macro_rules! require {
    ($needs:expr) => {
        // A closure's type is the only thing that knows the name of the function around it.
        if !$crate::require::available(std::any::type_name_of_val(&|| ()), $needs) {
            return;
        }
    };
}

/// False if the test must be left out, which has then been said on stderr.
///
/// # Panics
/// If something is missing and `VSWITCH_REQUIRE=all`.
pub fn available(inside: &str, needs: &[Need]) -> bool {
    let test = inside.trim_end_matches("::{{closure}}");
    let missing = needs.iter().filter_map(|need| need.missing()).collect::<Vec<_>>().join(", ");
    if missing.is_empty() {
        return true;
    }
    assert!(
        !env::var("VSWITCH_REQUIRE").is_ok_and(|value| value == "all"),
        "{test} cannot run and VSWITCH_REQUIRE=all: {missing}"
    );
    skipped(test, &missing);
    false
}

/// Says that a test is left out. For what no machine can be told to have there is no more to do.
pub fn skipped(test: &str, why: &str) {
    // The test harness captures eprintln! of a passing test; a skip must be seen.
    let message = format!("SKIPPED {test}: {why}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), message.as_bytes());
}

/// Whether tc programs are attached by links, and not as clsact filters.
pub fn kernel_has_tcx() -> bool {
    kernel() >= (6, 6)
}

/// The running kernel's version.
pub fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split('.').map(|number| number.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

impl Need {
    fn missing(self) -> Option<String> {
        let (available, lack) = match self {
            // SAFETY: no arguments, and it cannot fail.
            Self::Root => (unsafe { libc::geteuid() } == 0, "needs root".to_owned()),
            Self::Btf => (
                Path::new("/sys/kernel/btf/vmlinux").exists(),
                "needs /sys/kernel/btf/vmlinux (CONFIG_DEBUG_INFO_BTF)".to_owned(),
            ),
            Self::Tool(name) => (in_path(name), format!("needs the program {name} in PATH")),
            Self::FileIn(variable) => (
                env::var_os(variable).is_some_and(|path| Path::new(&path).is_file()),
                format!("needs {variable} to name a file"),
            ),
        };
        (!available).then_some(lack)
    }
}

fn in_path(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(name).is_file())
}
