//! The pending journal: a small file for each blob that is not yet durable.
//!
//! An entry appears whole (written beside, then renamed) and disappears when its blob is durable. There is nothing to
//! compact and nothing to repair: what cannot be read was never acknowledged.

use crate::oci::{Digest, Repository};
use crate::run::clock::Timestamp;
use crate::run::tasks::blocking;
use crate::store::disk::StoreError;
use crate::store::replicator::{Journaled, Pending};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use uuid::Uuid;

const ENTRY: &str = "json";
const UNFINISHED: &str = "new";

/// The entry as it lies on disk.
#[derive(Serialize, Deserialize)]
struct Line {
    repository: String,
    digest: String,
    size: u64,
    since: Timestamp,
}

/// The journal's folder.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    folder: PathBuf,
}

impl Journal {
    pub fn new(folder: PathBuf) -> Journal {
        Journal { folder }
    }

    /// Writes an entry; with `sync`, it and its name are on disk when this returns.
    pub async fn write(&self, pending: Pending, sync: bool) -> Result<Journaled, StoreError> {
        let folder = self.folder.clone();
        let name = Uuid::new_v4().to_string();
        let entry = folder.join(&name).with_extension(ENTRY);
        let action = "write the journal entry";
        let shown = entry.clone();
        blocking(move || {
            let line = Line {
                repository: pending.repository.to_string(),
                digest: pending.digest.to_string(),
                size: pending.size,
                since: pending.since,
            };
            let unfinished = folder.join(&name).with_extension(UNFINISHED);
            let mut file = File::create_new(&unfinished)?;
            file.write_all(&serde_json::to_vec(&line)?)?;
            if sync {
                file.sync_all()?;
            }
            fs::rename(&unfinished, &entry)?;
            if sync {
                File::open(&folder)?.sync_all()?;
            }
            Ok(Journaled { pending, entry })
        })
        .await
        .flatten()
        .map_err(StoreError::io(action, &shown))
    }

    /// Removes the entry of a blob that is durable, or whose content was never adopted.
    pub async fn remove(&self, journaled: &Journaled) -> Result<(), StoreError> {
        let entry = journaled.entry.clone();
        let removed = blocking(move || fs::remove_file(entry)).await.flatten();
        removed.map_err(StoreError::io("remove the journal entry", &journaled.entry))
    }

    /// What earlier runs left pending. Removes what is not an entry: a crash left it before anything relied on it.
    /// Blocking.
    pub fn left(&self) -> Result<Vec<Journaled>, StoreError> {
        let mut left = Vec::new();
        for found in fs::read_dir(&self.folder).map_err(StoreError::io("read the journal", &self.folder))? {
            let path = found.map_err(StoreError::io("read the journal", &self.folder))?.path();
            match read(&path) {
                Some(pending) => left.push(Journaled { pending, entry: path }),
                None => {
                    tracing::warn!(path = %path.display(), "removing an unfinished journal entry");
                    fs::remove_file(&path).map_err(StoreError::io("remove the unfinished journal entry", &path))?;
                }
            }
        }
        Ok(left)
    }
}

fn read(path: &Path) -> Option<Pending> {
    if path.extension()? != ENTRY {
        return None;
    }
    let line: Line = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    Some(Pending {
        repository: Repository::parse(&line.repository).ok()?,
        digest: Digest::parse(&line.digest).ok()?,
        size: line.size,
        since: line.since,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    fn pending() -> Pending {
        Pending {
            repository: Repository::parse("library/alpine").unwrap(),
            digest: Digest::of(Algorithm::Sha512, b"layer"),
            size: 5,
            since: Timestamp(7),
        }
    }

    #[tokio::test]
    async fn an_entry_is_there_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path().into());
        for sync in [true, false] {
            let journaled = journal.write(pending(), sync).await.unwrap();
            let left = journal.left().unwrap();
            assert_eq!(left.iter().map(|journaled| journaled.pending.clone()).collect::<Vec<_>>(), [pending()]);
            journal.remove(&journaled).await.unwrap();
            assert_eq!(journal.left().unwrap().len(), 0);
        }
    }

    #[tokio::test]
    async fn what_a_crash_left_unfinished_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path().into());
        for name in ["a.new", "b.json", "c"] {
            fs::write(folder.path().join(name), b"{\"repository\":\"a\"").unwrap();
        }
        assert_eq!(journal.left().unwrap().len(), 0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
