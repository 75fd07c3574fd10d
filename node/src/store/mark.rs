//! The mark of a clean shutdown: the files that were verified when the node stopped, with their
//! identities.
//!
//! One line per file, `<digest> <identity>`, and one line `scrubbed <digest>` for the progress of
//! the scrub. A file without a line, or with another identity than its line, is verified before its
//! first use. A mark that is damaged or older than the files therefore costs time, but causes no
//! error.

use super::error::StoreError;
use super::folders::{Folders, make_way_for_file, remove_file, sync_folder};
use super::identity::Identity;
use super::round::Round;
use entrepot_oci::Digest;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// The content of the mark.
pub(super) struct Mark {
    verified: HashMap<Digest, Identity>,
    pub(super) round: Round,
}

const SCRUBBED: &str = "scrubbed ";

impl Mark {
    /// Reads the mark and removes it. From now on a stop counts as unclean until the store is
    /// closed.
    pub(super) fn take(folders: &Folders) -> Mark {
        let path = folders.clean();
        let mark = match read(&path) {
            Ok(text) => Mark::parse(&text),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::error!(path = %path.display(), %error,
                        "cannot read the mark of the last clean shutdown; verifying all content before its first use");
                }
                Mark { verified: HashMap::new(), round: Round::anywhere() }
            }
        };
        let removed = make_way_for_file(&path).and_then(|()| remove_file(&path));
        if let Err(error) = removed.and_then(|()| sync_folder(folders.root())) {
            tracing::error!(%error, "cannot remove the mark of the last clean shutdown");
        }
        mark
    }

    fn parse(text: &[u8]) -> Mark {
        let mut mark = Mark { verified: HashMap::new(), round: Round::resumed(None) };
        let lines = text.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
        for line in lines {
            if let Some(scrubbed) = line.strip_prefix(SCRUBBED) {
                mark.round = Digest::parse(scrubbed).map_or_else(|_| Round::anywhere(), |at| Round::resumed(Some(at)));
            } else if let Some((digest, identity)) = line.split_once(' ')
                && let (Ok(digest), Ok(identity)) = (Digest::parse(digest), identity.parse())
            {
                mark.verified.insert(digest, identity);
            }
        }
        mark
    }

    /// The identity of a file, if it is unchanged since it was verified.
    pub(super) fn sound(&self, digest: &Digest, found: &Identity) -> Option<Identity> {
        self.verified.get(digest).filter(|verified| *verified == found).copied()
    }

    /// Writes the mark.
    pub(super) fn write(
        folders: &Folders,
        verified: impl Iterator<Item = (Digest, Identity)>,
        scrubbed: Option<Digest>,
    ) -> Result<(), StoreError> {
        let mut text = String::new();
        // Writing to a string never fails.
        for (digest, identity) in verified {
            let _ = writeln!(text, "{digest} {identity}");
        }
        if let Some(digest) = scrubbed {
            let _ = writeln!(text, "{SCRUBBED}{digest}");
        }
        let path = folders.clean();
        make_way_for_file(&path)?;
        File::create(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .map_err(StoreError::io("write", &path))?;
        sync_folder(folders.root())
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Only a regular file is read, because reading a named pipe would block forever.
    if fs::symlink_metadata(path)?.is_file() { fs::read(path) } else { Err(io::ErrorKind::InvalidData.into()) }
}
