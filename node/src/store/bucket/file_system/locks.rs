//! The locks of keys, which all nodes of the folder take.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Locks for all keys together. Keys share them, so that no file is left behind for each; with this number, of a
/// hundred writes at once fewer than a fifth wait for one of another key.
const LOCKS: u32 = 256;

/// Files whose locks (flock(2)) stand for keys.
///
/// Each holder opens the file for itself, so that threads of one node exclude each other as processes do. The kernel lets
/// go of the lock of a process that ends in any way. Between machines it excludes as the file system does: NFS of
/// Linux since 2.6.12 and most cluster file systems do; FUSE and mounts with `nolock` or `local_lock` exclude only
/// within one machine.
pub(super) struct Locks {
    folder: PathBuf,
}

/// A lock that is held as long as the value lives.
pub(super) struct Held {
    _file: File,
}

impl Locks {
    /// Makes the folder, and shows that its file system has locks.
    pub(super) fn open(folder: PathBuf) -> io::Result<Locks> {
        std::fs::create_dir_all(&folder)?;
        let locks = Locks { folder };
        locks.hold("")?;
        Ok(locks)
    }

    /// Waits for the lock of a key. It is held for a look and a rename: microseconds on a local disk.
    pub(super) fn hold(&self, key: &str) -> io::Result<Held> {
        let number = key.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte))) % LOCKS;
        let path = self.folder.join(number.to_string());
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        loop {
            match file.lock() {
                Ok(()) => return Ok(Held { _file: file }),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(without_locks(&path, &error)),
            }
        }
    }
}

/// Says what to do: the system's own words ("No locks available") say it to nobody.
fn without_locks(path: &Path, error: &io::Error) -> io::Error {
    let path = path.display();
    let why = format!(
        "{path}: {error}: the file system of the bucket needs locks (flock); on NFS run rpc.statd or use version 4"
    );
    io::Error::new(error.kind(), why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_lock_excludes_other_holders_of_its_key_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (Locks::open(folder.path().into()).unwrap(), Locks::open(folder.path().into()).unwrap());
        let held = one.hold("tag").unwrap();
        let (sender, got) = mpsc::channel();
        let waiting = std::thread::spawn(move || {
            let _held = other.hold("tag").unwrap();
            sender.send(()).unwrap();
        });
        assert!(got.recv_timeout(Duration::from_millis(50)).is_err());
        drop(held);
        got.recv_timeout(Duration::from_secs(5)).unwrap();
        waiting.join().unwrap();
    }

    #[test]
    fn a_file_system_without_locks_is_told_with_what_to_do() {
        let error = without_locks(Path::new("locks/7"), &rustix::io::Errno::NOLCK.into());
        assert!(error.to_string().contains("locks/7") && error.to_string().contains("NFS"), "{error}");
    }
}
