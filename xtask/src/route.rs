//! Which of the two toolchains compiles the BPF object, and what must be installed first? Pure: facts in, plan out.

use std::path::PathBuf;

/// The LLVM of Debian's rustc-web, and so the one bpf-linker is built with. Bump both together.
pub(crate) const LLVM: u32 = 22;
/// Beyond this, bpf-linker has no feature `llvm-N`.
const LINKER_LLVM_MAX: u32 = 23;
pub(crate) const LINKER_VERSION: &str = "0.13.0";
/// The workspace's `rust-version`: cargo refuses an older rustc.
const RUSTC_MIN: (u32, u32) = (1, 95);
/// rustc, its LLVM back end, a prebuilt `core` for BPF, and what bpf-linker links against.
pub(crate) const DEBIAN_PACKAGES: [&str; 4] =
    ["rustc-web", "libstd-rust-web-dev-bpf", "rust-web-llvm", "llvm-22-dev"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// rustup's nightly builds `core` from rust-src.
    Nightly,
    /// Debian's /usr/bin/rustc, with a prebuilt `core`.
    Debian,
}

/// A compiler that has, or can build, `core` for BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rustc {
    pub(crate) version: (u32, u32),
    pub(crate) llvm: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linker {
    pub(crate) path: PathBuf,
    /// Unknown for a statically linked one, which is then trusted.
    pub(crate) llvm: Option<u32>,
}

/// How commands run as root here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    Root,
    Sudo,
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) nightly: Option<Rustc>,
    pub(crate) debian: Option<Rustc>,
    pub(crate) linker: Option<Linker>,
    /// Major versions whose /usr/lib/llvm-N/bin/llvm-config exists.
    pub(crate) llvm_dev: Vec<u32>,
    pub(crate) apt: bool,
    pub(crate) privilege: Privilege,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    Ready(Route),
    /// The compiler is here; build bpf-linker against this LLVM.
    Linker(Route, u32),
    /// Debian's packages, then, unless one that fits is here, bpf-linker.
    Packages,
    Impossible,
}

pub(crate) fn choose(facts: &Facts) -> Plan {
    let compilers = [(Route::Nightly, facts.nightly), (Route::Debian, facts.debian)];
    let usable = || {
        compilers
            .iter()
            .filter_map(|&(route, rustc)| Some((route, rustc.filter(|r| r.version >= RUSTC_MIN)?.llvm)))
    };
    if let Some((route, _)) = usable().find(|&(_, llvm)| linker_fits(facts.linker.as_ref(), llvm)) {
        return Plan::Ready(route);
    }
    let buildable =
        |llvm: u32| facts.llvm_dev.iter().copied().find(|&dev| dev >= llvm && dev <= LINKER_LLVM_MAX);
    if let Some((route, dev)) = usable().find_map(|(route, llvm)| Some((route, buildable(llvm)?))) {
        return Plan::Linker(route, dev);
    }
    if facts.apt && facts.privilege != Privilege::None { Plan::Packages } else { Plan::Impossible }
}

/// bpf-linker reads rustc's bitcode: an older LLVM cannot.
pub(crate) fn linker_fits(linker: Option<&Linker>, rustc_llvm: u32) -> bool {
    linker.is_some_and(|linker| linker.llvm.is_none_or(|llvm| llvm >= rustc_llvm))
}

pub(crate) fn linker_install_args(llvm: u32) -> Vec<String> {
    let feature = format!("llvm-{llvm}");
    [
        "bpf-linker",
        "--version",
        LINKER_VERSION,
        "--locked",
        "--force",
        "--no-default-features",
        "--features",
        &feature,
    ]
    .map(String::from)
    .to_vec()
}

/// What someone with the rights that setup lacks would type.
pub(crate) fn advice(facts: &Facts, tool_packages: &[&str]) -> String {
    let linker = format!(
        "PATH=/usr/lib/llvm-{LLVM}/bin:$PATH cargo install {}",
        linker_install_args(LLVM).join(" ").replace("--force ", "")
    );
    let tools = tool_packages.join(" ");
    if facts.apt {
        let packages = if choose(facts) == Plan::Impossible {
            [DEBIAN_PACKAGES.join(" "), tools].join(" ")
        } else {
            tools
        };
        let mut lines = vec![
            "As root:".to_owned(),
            "  apt-get update".to_owned(),
            format!("  apt-get install -y --no-install-recommends {}", packages.trim()),
        ];
        if choose(facts) == Plan::Impossible {
            lines.extend(["As yourself:".to_owned(), format!("  {linker}")]);
        }
        return lines.join("\n");
    }
    let mut lines = vec!["This is not a Debian or Ubuntu system (no apt-get).".to_owned()];
    if choose(facts) == Plan::Impossible {
        lines.extend([
            "A BPF compiler, with rustup:".to_owned(),
            "  rustup toolchain install nightly --component rust-src".to_owned(),
            format!("bpf-linker, with LLVM {LLVM}'s development files (llvm-config) from your distribution:"),
            format!("  {linker}"),
        ]);
    }
    if !tools.is_empty() {
        lines.push(format!("Tools for the demo and the tests, by their Debian package names: {tools}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Rustc = Rustc { version: (1, 96), llvm: 22 };

    fn bare() -> Facts {
        Facts {
            nightly: None,
            debian: None,
            linker: None,
            llvm_dev: Vec::new(),
            apt: true,
            privilege: Privilege::Root,
        }
    }

    fn linker(llvm: Option<u32>) -> Option<Linker> {
        Some(Linker { path: PathBuf::from("/bin/bpf-linker"), llvm })
    }

    #[test]
    fn a_bare_machine_gets_packages_if_it_can() {
        assert_eq!(choose(&bare()), Plan::Packages);
        assert_eq!(choose(&Facts { privilege: Privilege::Sudo, ..bare() }), Plan::Packages);
        assert_eq!(choose(&Facts { privilege: Privilege::None, ..bare() }), Plan::Impossible);
        assert_eq!(choose(&Facts { apt: false, ..bare() }), Plan::Impossible);
    }

    #[test]
    fn nightly_comes_first() {
        let both = Facts { nightly: Some(NEW), debian: Some(NEW), linker: linker(Some(22)), ..bare() };
        assert_eq!(choose(&both), Plan::Ready(Route::Nightly));
        assert_eq!(choose(&Facts { nightly: None, ..both }), Plan::Ready(Route::Debian));
    }

    #[test]
    fn nightly_without_llvm_falls_back_to_packages() {
        let facts = Facts { nightly: Some(NEW), ..bare() };
        assert_eq!(choose(&facts), Plan::Packages);
        assert_eq!(choose(&Facts { llvm_dev: vec![14, 22], ..facts }), Plan::Linker(Route::Nightly, 22));
    }

    #[test]
    fn a_linker_older_than_rustc_is_replaced() {
        let facts = Facts { debian: Some(NEW), linker: linker(Some(21)), llvm_dev: vec![21, 22], ..bare() };
        assert_eq!(choose(&facts), Plan::Linker(Route::Debian, 22));
        assert_eq!(choose(&Facts { linker: linker(None), ..facts }), Plan::Ready(Route::Debian));
    }

    #[test]
    fn a_newer_nightly_leaves_debian_in_use() {
        let newer = Rustc { version: (1, 99), llvm: 23 };
        let facts = Facts { nightly: Some(newer), debian: Some(NEW), linker: linker(Some(22)), ..bare() };
        assert_eq!(choose(&facts), Plan::Ready(Route::Debian));
    }

    #[test]
    fn an_old_rustc_does_not_count() {
        let old = Rustc { version: (1, 85), llvm: 19 };
        assert_eq!(choose(&Facts { debian: Some(old), linker: linker(Some(22)), ..bare() }), Plan::Packages);
    }

    #[test]
    fn without_rights_the_exact_commands_are_printed() {
        let advice = advice(&Facts { privilege: Privilege::None, ..bare() }, &["jq"]);
        assert_eq!(
            advice,
            "As root:\n  apt-get update\n  apt-get install -y --no-install-recommends rustc-web \
             libstd-rust-web-dev-bpf rust-web-llvm llvm-22-dev jq\nAs yourself:\n  \
             PATH=/usr/lib/llvm-22/bin:$PATH cargo install bpf-linker --version 0.13.0 --locked \
             --no-default-features --features llvm-22"
        );
    }

    #[test]
    fn without_apt_the_rustup_route_is_named() {
        let advice = advice(&Facts { apt: false, ..bare() }, &[]);
        assert!(advice.contains("rustup toolchain install nightly --component rust-src"), "{advice}");
        assert!(!advice.contains("apt-get install"), "{advice}");
    }

    #[test]
    fn only_what_is_missing_is_advised() {
        let ready =
            Facts { debian: Some(NEW), linker: linker(Some(22)), privilege: Privilege::None, ..bare() };
        assert!(!advice(&ready, &["jq"]).contains("rustc-web"));
    }
}
