//! What can go wrong with a disk.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of the local disk store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing more may be removed and the room is too small: everything is pending or being filled, or the content
    /// is larger than the store.
    #[error("the store has no room for {0} more bytes")]
    NoRoom(u64),
    /// The store's folder is used by another process.
    #[error("{0} is used by another node")]
    Locked(PathBuf),
    #[error("{action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl StoreError {
    /// Whether more room would help: no capacity left, or the file system is full.
    pub fn is_no_room(&self) -> bool {
        match self {
            StoreError::NoRoom(_) => true,
            StoreError::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            StoreError::Locked(_) => false,
        }
    }

    /// For `map_err`: what was being done, and to what.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
        let path = path.to_owned();
        move |source| StoreError::Io { action, path, source }
    }
}

/// Whether an error says that the file is damaged, and not that this process lacks memory or descriptors.
pub(super) fn is_damage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let damage = [Errno::IO, Errno::UCLEAN, Errno::BADMSG].map(Errno::raw_os_error);
    error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error().is_some_and(|code| damage.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_system_and_a_full_quota_mean_no_room() {
        use rustix::io::Errno;
        let failed = |errno: Errno| StoreError::io("write", Path::new("f"))(errno.into());
        assert!(failed(Errno::NOSPC).is_no_room());
        assert!(failed(Errno::DQUOT).is_no_room());
        assert!(StoreError::NoRoom(1).is_no_room());
        assert!(!failed(Errno::IO).is_no_room());
        assert!(!StoreError::Locked("s".into()).is_no_room());
    }

    #[test]
    fn a_lack_of_descriptors_is_no_damage() {
        use rustix::io::Errno;
        assert!(is_damage(&Errno::IO.into()));
        assert!(!is_damage(&Errno::MFILE.into()));
        assert!(!is_damage(&Errno::NOMEM.into()));
    }
}
