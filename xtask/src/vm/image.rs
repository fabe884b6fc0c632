//! What is the guest's file system? An initramfs: the tests, the tools that they call, and the kernel's modules for networks.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{TESTED, fresh, kernel::Unpacked, quietly};
use crate::{packages::TOOLS, probe};

/// What the guest has of the host besides [`TOOLS`]: what the tests call, what the kernel calls, what scripts need in the
/// host's own form. For the rest there is busybox.
const PROGRAMS: [&str; 14] = [
    "bridge", "busybox", "chrt", "find", "flock", "modprobe", "mount", "nsenter", "setpriv", "sh", "stat",
    "tc", "umount", "unshare",
];
/// Who users and groups are.
const CONFIGURATION: [&str; 4] = ["/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/protocols"];
/// The modules that something of a switch, its ports or its tests could ask for.
const MODULES: [&str; 4] = ["net", "drivers/net", "lib", "crypto"];

/// Makes the image. `contents` is what is under test, and its names.
pub(crate) fn make(
    directory: &Path,
    kernel: &Unpacked,
    contents: &[(PathBuf, String)],
    script: &str,
) -> Result<PathBuf> {
    let root = directory.join("root");
    fresh(&root)?;
    let mut image = Image { root, libraries: BTreeSet::new() };
    image.skeleton(script).context("the image's skeleton")?;
    for name in TOOLS.iter().map(|tool| tool.command).chain(PROGRAMS) {
        let Some(path) = probe::find(name) else {
            bail!("{name}: not found: the tests need it in the guest")
        };
        image.program(&path, &Path::new("usr/bin").join(name))?;
    }
    // By this path the kernel asks for modules.
    symlink("../bin/modprobe", image.root.join("usr/sbin/modprobe")).context("link modprobe")?;
    for (path, name) in contents {
        let target = Path::new(TESTED.trim_start_matches('/')).join(name);
        image.program(path, &target)?;
        // What is not stripped costs memory alone.
        let _whole =
            Command::new("strip").arg("-g").arg(image.root.join(&target)).stderr(Stdio::null()).status();
    }
    image.modules(kernel)?;
    image.pack(&directory.join("initramfs"))
}

struct Image {
    root: PathBuf,
    libraries: BTreeSet<PathBuf>,
}

impl Image {
    fn skeleton(&self, script: &str) -> Result<()> {
        for name in
            ["dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64"]
        {
            fs::create_dir_all(self.root.join(name))?;
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            symlink(Path::new("usr").join(name), self.root.join(name))?;
        }
        for path in CONFIGURATION.iter().filter(|path| Path::new(path).exists()) {
            fs::copy(path, self.root.join(path.trim_start_matches('/')))?;
        }
        fs::write(self.root.join("tests.sh"), script)?;
        let init = self.root.join("init");
        fs::write(&init, include_str!("init.sh"))?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// Copies a file of the host, and the libraries that it is linked with.
    fn program(&mut self, from: &Path, to: &Path) -> Result<()> {
        self.copy(from, to)?;
        // Of what is not dynamically linked `ldd` says so, and fails.
        let ldd = probe::output(Command::new("ldd").arg(from)).unwrap_or_default();
        let paths = ldd.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
        for library in paths {
            if self.libraries.insert(library.clone()) {
                self.copy(&library, library.strip_prefix("/").unwrap_or(&library))?;
            }
        }
        Ok(())
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let to = self.root.join(to);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        fs::copy(from, &to).with_context(|| format!("copy {} into the image", from.display())).map(|_| ())
    }

    fn modules(&self, kernel: &Unpacked) -> Result<()> {
        let to = self.root.join("usr/lib/modules").join(&kernel.release);
        for part in MODULES {
            copy_tree(&kernel.modules.join("kernel").join(part), &to.join("kernel").join(part))?;
        }
        for name in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
            let from = kernel.modules.join(name);
            fs::copy(&from, to.join(name)).with_context(|| format!("copy {}", from.display()))?;
        }
        let Some(depmod) = probe::find("depmod") else { bail!("depmod: not found") };
        quietly(Command::new(depmod).arg("-b").arg(&self.root).arg(&kernel.release), "depmod").map(|_| ())
    }

    /// Not compressed: the emulated CPU would take longer to unpack it than the host to load it.
    fn pack(&self, image: &Path) -> Result<PathBuf> {
        let file = fs::File::create(image).with_context(|| format!("create {}", image.display()))?;
        let mut find = Command::new("find")
            .args([".", "-print0"])
            .current_dir(&self.root)
            .stdout(Stdio::piped())
            .spawn()
            .context("start find")?;
        let names = find.stdout.take().context("find's output")?;
        let packed = Command::new("cpio")
            .args(["--create", "--format=newc", "--null", "--quiet", "--owner=0:0"])
            .current_dir(&self.root)
            .stdin(names)
            .stdout(file)
            .status()
            .context("start cpio")?;
        let listed = find.wait().context("wait for find")?;
        if !packed.success() || !listed.success() {
            bail!("cpio failed ({packed}): is there room at {}?", image.display());
        }
        Ok(image.to_owned())
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    let entries = fs::read_dir(from).with_context(|| format!("read {}", from.display()))?;
    for entry in entries {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_tree(&path, &target)?;
        } else {
            fs::copy(&path, &target).with_context(|| format!("copy {}", path.display()))?;
        }
    }
    Ok(())
}
