//! Locks for keys, shared by all nodes that use the folder.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Number of locks for all keys. Keys share them, so there is not one file for each key. With this
/// number, of a hundred concurrent writes fewer than a fifth wait for a write of another key.
const LOCKS: u32 = 256;

/// Files whose locks (flock(2)) stand for keys.
///
/// Each holder opens the file separately, so threads of one node exclude each other as processes
/// do. The kernel releases the locks of a process when it ends, in any way. Whether locks work
/// between machines depends on the file system: they do on NFS since Linux 2.6.12 and on most
/// cluster file systems. FUSE and mounts with `nolock` or `local_lock` exclude only within one
/// machine.
pub(super) struct Locks {
    folder: PathBuf,
}

/// A lock that is held for as long as the value lives.
pub(super) struct Held {
    _file: File,
}

impl Locks {
    /// Creates the directory, and checks that its file system supports locks.
    pub(super) fn open(folder: PathBuf) -> io::Result<Locks> {
        std::fs::create_dir_all(&folder)?;
        let locks = Locks { folder };
        locks.hold("")?;
        Ok(locks)
    }

    /// Waits for the lock of a key. It is held for a check and a rename: microseconds on a local
    /// disk.
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

/// Adds what to do, because the system's message ("No locks available") does not say it.
fn without_locks(path: &Path, error: &io::Error) -> io::Error {
    let path = path.display();
    let why = format!(
        "{path}: {error}: the file system of the bucket must support locks (flock); \
         on NFS, run rpc.statd or use version 4"
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
    fn the_error_for_a_file_system_without_locks_says_what_to_do() {
        let error = without_locks(Path::new("locks/7"), &rustix::io::Errno::NOLCK.into());
        assert!(error.to_string().contains("locks/7") && error.to_string().contains("NFS"), "{error}");
    }
}
