//! Errors of the local disk.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of the local disk store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not enough space, and nothing more may be removed: everything is pending or being
    /// downloaded, or the content is larger than the store.
    #[error("not enough free space in the store for {0} more bytes")]
    NoRoom(u64),
    /// Another process uses the directory of the store.
    #[error("{0} is locked by another entrepot-node process")]
    Locked(PathBuf),
    /// The system refuses an access to the directory of the store.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The action, as in "open".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl StoreError {
    /// Whether more space would help: no capacity is left, or the file system is full.
    pub fn is_no_room(&self) -> bool {
        match self {
            StoreError::NoRoom(_) => true,
            StoreError::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            StoreError::Locked(_) => false,
        }
    }

    /// For `map_err`: adds the action and the path. `action` completes the sentence "cannot ...
    /// <path>".
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
        let path = path.to_owned();
        move |source| StoreError::Io { action, path, source }
    }
}

/// Whether an error means that the file is damaged, as opposed to a lack of memory or file
/// descriptors.
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
    fn a_lack_of_descriptors_is_not_damage() {
        use rustix::io::Errno;
        assert!(is_damage(&Errno::IO.into()));
        assert!(!is_damage(&Errno::MFILE.into()));
        assert!(!is_damage(&Errno::NOMEM.into()));
    }
}
