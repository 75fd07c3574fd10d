//! Owners of temporary files. Each open bucket has a name, and a lock that shows that it is alive.

use rustix::fs::fstat;
use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// One open bucket in one process. Its lock (flock(2)) is held for as long as the value lives. The
/// kernel releases it when the process ends, in any way.
pub(super) struct Owner {
    name: Uuid,
    path: PathBuf,
    _lock: File,
}

impl Owner {
    /// A new owner with its file in `folder`.
    pub(super) fn new(folder: &Path) -> io::Result<Owner> {
        loop {
            let name = Uuid::new_v4();
            let path = folder.join(name.to_string());
            let lock = File::options().write(true).create_new(true).open(&path)?;
            // Another node that starts at this moment may have taken the lock first; it then
            // removes the file.
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if fstat(&lock)?.st_nlink > 0 {
                return Ok(Owner { name, path, _lock: lock });
            }
        }
    }

    /// A new unique name that contains the owner.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.name, Uuid::new_v4())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // A file that cannot be removed now is removed by the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The owner and the unique part of a name from [`Owner::name`].
pub(super) fn parse(name: &str) -> Option<(Uuid, Uuid)> {
    let (owner, own) = name.split_once('.')?;
    Some((Uuid::parse_str(owner).ok()?, Uuid::parse_str(own).ok()?))
}

/// The dead owners. Each owner is checked once.
pub(super) struct Census<'a> {
    folder: &'a Path,
    dead: HashMap<Uuid, bool>,
}

impl Census<'_> {
    pub(super) fn of(folder: &Path) -> Census<'_> {
        Census { folder, dead: HashMap::new() }
    }

    /// Whether an owner has ended. An owner takes its lock before it creates anything.
    pub(super) fn is_dead(&mut self, owner: Uuid) -> bool {
        let path = self.folder.join(owner.to_string());
        *self.dead.entry(owner).or_insert_with(|| bury(&path))
    }

    /// Checks all owners, including those that left nothing.
    pub(super) fn complete(&mut self) -> io::Result<()> {
        for entry in std::fs::read_dir(self.folder)? {
            let entry = entry?;
            if let Some(owner) = entry.file_name().to_str().and_then(|name| Uuid::parse_str(name).ok()) {
                self.is_dead(owner);
            }
        }
        Ok(())
    }
}

/// Whether the owner of a lock file is dead; if so, removes the file. An owner that cannot be
/// checked counts as alive.
fn bury(path: &Path) -> bool {
    match File::options().write(true).open(path) {
        Ok(file) => {
            // The file is removed while this process holds its lock, so an owner that takes the
            // lock afterwards sees that its file is gone.
            let is_dead = file.try_lock().is_ok();
            if is_dead {
                let _ = std::fs::remove_file(path);
            }
            is_dead
        }
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_alive_until_its_value_or_process_ends() {
        let folder = tempfile::tempdir().unwrap();
        let owner = Owner::new(folder.path()).unwrap();
        let (name, own) = parse(&owner.name()).unwrap();
        assert!(name == owner.name && own != name);
        Census::of(folder.path()).complete().unwrap();
        assert!(!Census::of(folder.path()).is_dead(name));
        // A killed process leaves its file, and the kernel releases the lock.
        std::fs::hard_link(&owner.path, folder.path().join("kept")).unwrap();
        let path = owner.path.clone();
        drop(owner);
        std::fs::rename(folder.path().join("kept"), &path).unwrap();
        assert!(Census::of(folder.path()).is_dead(name));
        assert!(!path.exists());
    }

    #[test]
    fn other_names_have_no_owner() {
        for name in ["", ".", "a.b", "9f0c1d7e-0000-4000-8000-000000000000", "9f0c1d7e-0000-4000-8000-000000000000."] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
