//! Small file systems of their own, that are full or broken on purpose, and what is free on the machine's. The former
//! need root, as `mount` does.

use crate::tools;
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{Advice, fadvise, statvfs};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Bytes that can still be written where temporary files go.
///
/// # Errors
/// When the system does not say.
pub fn free() -> Result<u64> {
    let folder = std::env::temp_dir();
    let answer = statvfs(&folder).with_context(|| format!("cannot ask what {} has free", folder.display()))?;
    Ok(answer.f_bavail * answer.f_frsize)
}

/// For a test that writes a lot: on a fuller disk it would fail somewhere in its middle, with the words of whatever
/// happens to write then.
///
/// # Errors
/// When fewer bytes are free, with what to do.
pub fn need(bytes: u64) -> Result<()> {
    let free = free()?;
    let folder = std::env::temp_dir();
    ensure!(
        free >= bytes,
        "this test writes up to {} MiB and {} has {} MiB free: make room, or set TMPDIR to a folder on a larger disk",
        bytes >> 20,
        folder.display(),
        free >> 20,
    );
    Ok(())
}

/// A mounted file system. It is unmounted with its value.
struct Mount {
    at: PathBuf,
}

impl Mount {
    fn new(at: &Path, arguments: &[&str]) -> Result<Mount> {
        fs::create_dir_all(at)?;
        run("mount", arguments, Some(at))?;
        Ok(Mount { at: at.to_owned() })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a node that is being killed may still have a file open.
        let _ = run("umount", &["--lazy"], Some(&self.at));
    }
}

/// A file system in memory that is full when so many bytes are written: `ENOSPC`.
pub struct SmallDisk {
    mount: Mount,
    _folder: TempDir,
}

impl SmallDisk {
    /// # Errors
    /// When it cannot be mounted.
    pub fn new(mebibytes: u64) -> Result<SmallDisk> {
        SmallDisk::mounted(&format!("size={mebibytes}m"))
    }

    /// A file system that has room for bytes but for only so many files and folders: what it refuses no one foresees.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn of_few_files(files: u32) -> Result<SmallDisk> {
        SmallDisk::mounted(&format!("size=1g,nr_inodes={files}"))
    }

    fn mounted(options: &str) -> Result<SmallDisk> {
        let folder = TempDir::new()?;
        let mount = Mount::new(&folder.path().join("disk"), &["-t", "tmpfs", "-o", options, "tmpfs"])?;
        Ok(SmallDisk { mount, _folder: folder })
    }

    pub fn path(&self) -> &Path {
        &self.mount.at
    }
}

/// An ext4 file system on a loop device whose medium fails: `EIO`.
///
/// The device is a sparse file of `seen` MiB on a file system that holds only `real` MiB. What is written past that is
/// lost, and the kernel says so when it is synced; what is cut off later fails when it is read.
pub struct FailingDisk {
    // In the order in which they have to go.
    mount: Mount,
    _device: Device,
    _medium: Mount,
    image: PathBuf,
    _folder: TempDir,
}

impl FailingDisk {
    /// # Errors
    /// When it cannot be made.
    pub fn new(seen: u64, real: u64) -> Result<FailingDisk> {
        tools::system("mkfs.ext4")?;
        let folder = TempDir::new()?;
        let size = format!("size={real}m");
        let medium = Mount::new(&folder.path().join("medium"), &["-t", "tmpfs", "-o", &size, "tmpfs"])?;
        let image = medium.at.join("image");
        File::create(&image)?.set_len(seen << 20)?;
        // Without a journal, and with its tables left unwritten: a failure of the journal would stop all writing.
        run("mkfs.ext4", &["-q", "-F", "-E", "nodiscard", "-O", "^has_journal"], Some(&image))?;
        let device = Device(run("losetup", &["--find", "--show"], Some(&image))?.trim().to_owned());
        let mount = Mount::new(&folder.path().join("disk"), &["-o", "errors=continue", &device.0])?;
        Ok(FailingDisk { mount, _device: device, _medium: medium, image, _folder: folder })
    }

    pub fn path(&self) -> &Path {
        &self.mount.at
    }

    /// From now on no byte of these files can be read.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn lose(&self, files: &[PathBuf]) -> Result<()> {
        let open: Vec<_> = files.iter().map(File::open).collect::<Result<_, _>>()?;
        open.iter().try_for_each(File::sync_all)?;
        // The first megabytes are the file system's own tables; what is open of them stays in memory anyway.
        File::options().write(true).open(&self.image)?.set_len(2 << 20)?;
        for file in &open {
            fadvise(file, 0, None, Advice::DontNeed)?;
        }
        Ok(())
    }
}

/// An ext4 file system that can die: from then on nothing can be written to it, as the kernel decides when it finds that
/// a disk fails (`EROFS`).
pub struct DyingDisk {
    // In the order in which they have to go.
    mount: Mount,
    _device: Device,
    _folder: TempDir,
}

impl DyingDisk {
    /// # Errors
    /// When it cannot be made.
    pub fn new(mebibytes: u64) -> Result<DyingDisk> {
        tools::system("mkfs.ext4")?;
        let folder = TempDir::new()?;
        let image = folder.path().join("image");
        File::create(&image)?.set_len(mebibytes << 20)?;
        run("mkfs.ext4", &["-q", "-F"], Some(&image))?;
        let device = Device(run("losetup", &["--find", "--show"], Some(&image))?.trim().to_owned());
        let mount = Mount::new(&folder.path().join("disk"), &["-o", "errors=continue", &device.0])?;
        Ok(DyingDisk { mount, _device: device, _folder: folder })
    }

    pub fn path(&self) -> &Path {
        &self.mount.at
    }

    /// From now on nothing can be written.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn die(&self) -> Result<()> {
        run("mount", &["-o", "remount,abort"], Some(&self.mount.at)).map(|_| ())
    }
}

/// A loop device.
struct Device(String);

impl Drop for Device {
    fn drop(&mut self) {
        let _ = run("losetup", &["--detach", &self.0], None);
    }
}

fn run(program: &str, arguments: &[&str], path: Option<&Path>) -> Result<String> {
    let output = Command::new(tools::system(program)?).args(arguments).args(path).output().context("starting it")?;
    if !output.status.success() {
        bail!("{program} {arguments:?} {path:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
