//! The identity of a verified file: shows, without reading it, whether a file is still the one
//! whose bytes were hashed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;

/// The metadata of a file when its bytes were verified. Writing to the file or replacing it changes
/// the times or the inode. A program cannot set back the change time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Size in bytes.
    pub(super) size: u64,
    inode: u64,
    modified: Time,
    changed: Time,
}

/// Seconds since the epoch, and nanoseconds.
type Time = (i64, i64);

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Identity {
        Identity {
            size: metadata.len(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file with this metadata is the verified one, unchanged.
    ///
    /// While a folder as bucket has a hard link to the file, the times are ignored, because they
    /// are those of the object: the bucket sets them. The store removes its own link soon after
    /// (`Store::drop_if_hard_linked`).
    pub(super) fn is(&self, metadata: &Metadata) -> bool {
        let now = Identity::of(metadata);
        if metadata.nlink() > 1 { self.size == now.size && self.inode == now.inode } else { *self == now }
    }
}

/// The format in the mark of a clean shutdown.
impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Identity { size, inode, modified, changed } = self;
        write!(f, "{size} {inode} {} {} {} {}", modified.0, modified.1, changed.0, changed.1)
    }
}

/// The text is not a valid identity.
#[derive(Debug)]
pub(super) struct NoIdentity;

impl FromStr for Identity {
    type Err = NoIdentity;

    fn from_str(text: &str) -> Result<Identity, NoIdentity> {
        let mut words = text.split(' ');
        let mut next = || words.next().ok_or(NoIdentity);
        let number = |word: &str| word.parse().map_err(|_| NoIdentity);
        let time = |word: &str| word.parse().map_err(|_| NoIdentity);
        let identity = Identity {
            size: number(next()?)?,
            inode: number(next()?)?,
            modified: (time(next()?)?, time(next()?)?),
            changed: (time(next()?)?, time(next()?)?),
        };
        if words.next().is_none() { Ok(identity) } else { Err(NoIdentity) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, FileTimes};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_written_replaced_or_touched_file_has_another_identity() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let at = |seconds| FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(seconds));
        fs::write(&path, "bytes").unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_times(at(1000)).unwrap();
        let before = Identity::of(&fs::metadata(&path).unwrap());
        assert!(before.is(&fs::metadata(&path).unwrap()));
        assert_eq!(before.to_string().parse::<Identity>().unwrap(), before);

        file.set_times(at(1001)).unwrap();
        assert!(!before.is(&fs::metadata(&path).unwrap()), "other times");
        let before = Identity::of(&fs::metadata(&path).unwrap());
        let other = folder.path().join("other");
        fs::write(&other, "bytes").unwrap();
        fs::File::options().write(true).open(&other).unwrap().set_times(at(1001)).unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(!before.is(&fs::metadata(&path).unwrap()), "another inode");
    }

    #[test]
    fn a_hard_link_in_the_bucket_keeps_the_identity() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "bytes").unwrap();
        let identity = Identity::of(&fs::metadata(&path).unwrap());
        fs::hard_link(&path, folder.path().join("object")).unwrap();
        let times = FileTimes::new().set_modified(UNIX_EPOCH);
        fs::File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
        assert!(identity.is(&fs::metadata(&path).unwrap()));
        fs::write(&path, "other bytes").unwrap();
        assert!(!identity.is(&fs::metadata(&path).unwrap()));
    }

    #[test]
    fn text_that_is_too_short_or_too_long_is_not_an_identity() {
        for text in ["", "1", "1 2 3 4 5", "1 2 3 4 5 ", "1 2 3 4 5 6 7", "a b c d e f", "-1 2 3 4 5 6"] {
            assert!(text.parse::<Identity>().is_err(), "{text:?}");
        }
    }
}
