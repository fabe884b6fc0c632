//! Where does another kernel come from? Debian's archive; it is unpacked, not installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{fresh, quietly};
use crate::packages;

/// A kernel that the switch is tested on. Debian's for cloud machines are small, and have what a switch needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kernel {
    /// Debian 12's: before tcx
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's, which Debian 12 has too: tcx and netkit
    #[value(name = "6.12")]
    V6_12,
}

/// A kernel's files.
pub(crate) struct Unpacked {
    /// As `uname -r` says it.
    pub(crate) release: String,
    /// What boots.
    pub(crate) image: PathBuf,
    /// `lib/modules/RELEASE`.
    pub(crate) modules: PathBuf,
}

impl Kernel {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// The package that depends on the newest build of it.
    const fn meta_package(self) -> &'static str {
        match self {
            Self::V6_1 => "linux-image-cloud-amd64",
            Self::V6_12 => "linux-image-6.12-cloud-amd64",
        }
    }

    /// Downloads its package into `directory` and unpacks it there, unless that was done before.
    pub(crate) fn unpack(self, directory: &Path) -> Result<Unpacked> {
        let package = self.package()?;
        let root = directory.join(&package);
        if !root.is_dir() {
            fresh(directory)?;
            println!("apt-get download {package}: the kernel, which is not installed");
            packages::download(&package, directory)?;
            let archive = only(directory, "deb")?;
            let partial = directory.join("partial");
            quietly(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&partial), "unpack the kernel")?;
            fs::rename(&partial, &root).with_context(|| format!("name {}", root.display()))?;
            fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))?;
        }
        let release = package.trim_start_matches("linux-image-").to_owned();
        Ok(Unpacked {
            image: root.join("boot").join(format!("vmlinuz-{release}")),
            modules: root.join("lib/modules").join(&release),
            release,
        })
    }

    /// The package of the newest build.
    fn package(self) -> Result<String> {
        let meta = self.meta_package();
        packages::know(meta)?;
        let depends = quietly(Command::new("apt-cache").args(["depends", meta]), "apt-cache depends")?;
        let prefix = format!("linux-image-{}.", self.name());
        let found = String::from_utf8_lossy(&depends)
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|package| package.starts_with(&prefix))
            .map(str::to_owned);
        match found {
            Some(package) => Ok(package),
            None => bail!(
                "{meta} of this system's archives is no Linux {}: Debian 12's are in the suites bookworm and \
                 bookworm-security",
                self.name()
            ),
        }
    }
}

/// The one file of a directory that ends so.
fn only(directory: &Path, extension: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    let found = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|found| found == extension));
    found.with_context(|| format!("no .{extension} in {}", directory.display()))
}
