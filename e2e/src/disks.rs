//! Small file systems that are full or fail on purpose, and the free space of the machine. The file
//! systems require root, because `mount` does.

use crate::tools;
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{Advice, fadvise, statvfs};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Free bytes in the folder of temporary files.
///
/// # Errors
/// If the system does not report it.
pub fn free() -> Result<u64> {
    let folder = std::env::temp_dir();
    let answer = statvfs(&folder).with_context(|| format!("cannot read the free space of {}", folder.display()))?;
    Ok(answer.f_bavail * answer.f_frsize)
}

/// For tests that write a lot. Without this check, such a test would fail on a fuller disk in its
/// middle, with an unrelated error.
///
/// # Errors
/// If fewer bytes are free; the message says what to do.
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

/// A mounted file system. It is unmounted when the value is dropped.
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
        // A lazy unmount, because a node that is being killed may still have a file open.
        let _ = run("umount", &["--lazy"], Some(&self.at));
    }
}

/// A file system in memory that is full after so many bytes: `ENOSPC`.
pub struct SmallDisk {
    mount: Mount,
    _folder: TempDir,
}

impl SmallDisk {
    /// # Errors
    /// If it cannot be mounted.
    pub fn new(mebibytes: u64) -> Result<SmallDisk> {
        SmallDisk::mounted(&format!("size={mebibytes}m"))
    }

    /// A file system that has space for bytes but only for a limited number of files and folders,
    /// so that a write can fail although there is space.
    ///
    /// # Errors
    /// If it cannot be mounted.
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
/// The device is a sparse file of `seen` MiB on a file system with only `real` MiB. Writes beyond
/// that are lost, and the kernel reports it on a sync. Data that is cut off later fails on a read.
pub struct FailingDisk {
    // In the order in which they have to be dropped.
    mount: Mount,
    _device: Device,
    _medium: Mount,
    image: PathBuf,
    _folder: TempDir,
}

impl FailingDisk {
    /// # Errors
    /// If it cannot be created.
    pub fn new(seen: u64, real: u64) -> Result<FailingDisk> {
        tools::system("mkfs.ext4")?;
        let folder = TempDir::new()?;
        let size = format!("size={real}m");
        let medium = Mount::new(&folder.path().join("medium"), &["-t", "tmpfs", "-o", &size, "tmpfs"])?;
        let image = medium.at.join("image");
        File::create(&image)?.set_len(seen << 20)?;
        // Without a journal, because a failing journal would stop all writes, and without
        // initialised tables.
        run("mkfs.ext4", &["-q", "-F", "-E", "nodiscard", "-O", "^has_journal"], Some(&image))?;
        let device = Device(run("losetup", &["--find", "--show"], Some(&image))?.trim().to_owned());
        let mount = Mount::new(&folder.path().join("disk"), &["-o", "errors=continue", &device.0])?;
        Ok(FailingDisk { mount, _device: device, _medium: medium, image, _folder: folder })
    }

    pub fn path(&self) -> &Path {
        &self.mount.at
    }

    /// Makes all bytes of these files unreadable from now on.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn lose(&self, files: &[PathBuf]) -> Result<()> {
        let open: Vec<_> = files.iter().map(File::open).collect::<Result<_, _>>()?;
        open.iter().try_for_each(File::sync_all)?;
        // The first megabytes are the file system's own tables; the kernel keeps those of open
        // files in memory.
        File::options().write(true).open(&self.image)?.set_len(2 << 20)?;
        for file in &open {
            fadvise(file, 0, None, Advice::DontNeed)?;
        }
        Ok(())
    }
}

/// An ext4 file system that can become read-only: writes then fail with `EROFS`, as after the
/// kernel has found that a disk fails.
pub struct RemountedDisk {
    // In the order in which they have to be dropped.
    mount: Mount,
    _device: Device,
    _folder: TempDir,
}

impl RemountedDisk {
    /// # Errors
    /// If it cannot be created.
    pub fn new(mebibytes: u64) -> Result<RemountedDisk> {
        tools::system("mkfs.ext4")?;
        let folder = TempDir::new()?;
        let image = folder.path().join("image");
        File::create(&image)?.set_len(mebibytes << 20)?;
        run("mkfs.ext4", &["-q", "-F"], Some(&image))?;
        let device = Device(run("losetup", &["--find", "--show"], Some(&image))?.trim().to_owned());
        let mount = Mount::new(&folder.path().join("disk"), &["-o", "errors=continue", &device.0])?;
        Ok(RemountedDisk { mount, _device: device, _folder: folder })
    }

    pub fn path(&self) -> &Path {
        &self.mount.at
    }

    /// Makes every write fail from now on.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn make_read_only(&self) -> Result<()> {
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
    let output = Command::new(tools::system(program)?)
        .args(arguments)
        .args(path)
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} {arguments:?} {path:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
