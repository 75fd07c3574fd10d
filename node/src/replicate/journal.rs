//! The pending journal: one small file for each blob that is not yet durable.
//!
//! An entry appears as a whole (written under another name, then renamed) and is removed when its
//! blob is durable, so there is nothing to compact. A file that was not renamed yet belongs to a
//! blob that was never acknowledged; the next start removes it. An entry that cannot be read was
//! damaged by something else, and its blob may have been acknowledged. The journal sets that file
//! aside. Its name contains the digest and, unless it is very long, the repository, so the blob can
//! still be sent.
//!
//! ```text
//! <alg>-<hex>.<uuid>.<repository, + for />.json       an entry
//! <alg>-<hex>.<uuid>.json                             an entry of a repository with a very long name
//! <uuid>.new                                          being written
//! <name>.unreadable                                   set aside
//! ```

use crate::repository::replicator::{Journaled, Pending};
use crate::store::{StoreError, make_folder};
use entrepot_oci::{Algorithm, Digest, Repository};
use entrepot_runtime::tasks::blocking;
use std::fs::{self, DirEntry, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use uuid::Uuid;

const ENTRY: &str = ".json";
const UNFINISHED: &str = ".new";
const UNREADABLE: &str = ".unreadable";

/// The longest file name (Linux, NAME_MAX), minus the suffix that is appended when an entry is set
/// aside.
const LONGEST_NAME: usize = 255 - UNREADABLE.len();

/// Limit of set-aside files. They are kept for manual inspection; only disk damage creates them.
const MOST_SET_ASIDE: usize = 1000;

/// The journal, a directory on the store's disk.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    folder: PathBuf,
}

/// What earlier runs left in the journal.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Blobs that are not yet durable.
    pub entries: Vec<Journaled>,
    /// Blobs that may not be durable.
    pub unreadable: Vec<Unreadable>,
}

/// The part of an unreadable entry that its file name contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub digest: Digest,
    pub repository: Option<Repository>,
    /// The entry, unless it is set aside already. The caller sets it aside after it has journaled
    /// the blob again, so a crash before that finds it once more.
    pub entry: Option<PathBuf>,
}

impl Journal {
    pub fn new(folder: PathBuf) -> Journal {
        Journal { folder }
    }

    /// Writes an entry. With `sync`, the entry and its name are on disk when this returns.
    pub async fn write(&self, pending: Pending, sync: bool) -> Result<Journaled, StoreError> {
        let journal = self.clone();
        let failed = StoreError::io("write a journal entry in", &self.folder);
        blocking(move || journal.write_now(pending, sync)).await.map_err(failed)?
    }

    /// The same as [`Journal::write`], blocking.
    pub fn write_now(&self, pending: Pending, sync: bool) -> Result<Journaled, StoreError> {
        let id = Uuid::new_v4();
        let unfinished = self.folder.join(format!("{}{UNFINISHED}", id.simple()));
        let entry = self.folder.join(name(&pending, id));
        // Something may have removed the directory while the node runs.
        let create = || match File::create_new(&unfinished) {
            Err(error) if make_folder(&self.folder).is_ok_and(|made| made) => {
                tracing::error!(folder = %self.folder.display(), %error,
                    "the journal directory was removed while the node runs; created it again");
                File::create_new(&unfinished)
            }
            created => created,
        };
        let write = || {
            let mut file = create()?;
            file.write_all(&serde_json::to_vec(&pending)?)?;
            if sync {
                file.sync_all()?;
            }
            fs::rename(&unfinished, &entry)?;
            if sync {
                File::open(&self.folder)?.sync_all()?;
            }
            Ok(())
        };
        write().map_err(StoreError::io("write the journal entry", &entry))?;
        Ok(Journaled { pending, entry })
    }

    /// Removes the entry of a blob that is durable, or whose content was never adopted.
    pub async fn remove(&self, journaled: &Journaled) -> Result<(), StoreError> {
        let entry = journaled.entry.clone();
        let removed = blocking(move || fs::remove_file(entry)).await.flatten();
        removed
            .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
            .map_err(StoreError::io("remove the journal entry", &journaled.entry))
    }

    /// Reads what earlier runs left pending. No content of the directory prevents the node from
    /// starting. Blocking.
    pub fn left(&self) -> Left {
        let mut left = Left::default();
        let mut set_aside = Vec::new();
        for path in self.files() {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.ends_with(UNFINISHED) {
                tracing::warn!(path = %path.display(), "removing an unfinished journal entry");
                remove(&path);
            } else if name.ends_with(UNREADABLE) {
                set_aside.push(path);
            } else if let Some(pending) = read(&path) {
                left.entries.push(Journaled { pending, entry: path });
            } else {
                let mut lost = told_by(name);
                tracing::error!(path = %path.display(), blob = ?lost,
                    "cannot read a journal entry; setting it aside and treating its blob as not durable");
                match lost.as_mut().filter(|lost| lost.repository.is_some()) {
                    Some(lost) => lost.entry = Some(path),
                    None => set_aside.extend(self.set_aside(&path)),
                }
                left.unreadable.extend(lost);
            }
        }
        left.unreadable.extend(self.still_lost(set_aside, &left.unreadable));
        left
    }

    /// Renames an entry that cannot be read, for manual inspection. Returns its new path.
    pub fn set_aside(&self, path: &Path) -> Option<PathBuf> {
        let mut aside = path.to_owned().into_os_string();
        aside.push(UNREADABLE);
        let renamed = fs::rename(path, &aside);
        if let Err(error) = &renamed {
            tracing::error!(path = %path.display(), %error,
                "cannot rename an unreadable journal entry; it is read again at the next start");
        }
        renamed.is_ok().then(|| aside.into())
    }

    /// The blobs of set-aside entries, also those of earlier runs, whose repository is unknown. The
    /// others have been journaled again. Also removes the oldest set-aside files above the limit.
    fn still_lost(&self, mut set_aside: Vec<PathBuf>, known: &[Unreadable]) -> Vec<Unreadable> {
        let age = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).ok();
        set_aside.sort_by_key(age);
        let too_many = set_aside.len().saturating_sub(MOST_SET_ASIDE);
        for path in set_aside.drain(..too_many) {
            tracing::warn!(path = %path.display(), "too many unreadable journal entries; removing the oldest");
            remove(&path);
        }
        let names = set_aside.iter().filter_map(|path| path.file_name()?.to_str()?.strip_suffix(UNREADABLE));
        let lost = names.filter_map(told_by).filter(|lost| lost.repository.is_none());
        lost.filter(|lost| !known.contains(lost)).collect()
    }

    /// The files in the directory, as far as they can be listed.
    fn files(&self) -> Vec<PathBuf> {
        let listed: io::Result<Vec<_>> = fs::read_dir(&self.folder).and_then(Iterator::collect);
        let found = listed.unwrap_or_else(|error| {
            tracing::error!(folder = %self.folder.display(), %error,
                "cannot read the journal; blobs pending from earlier runs are not sent before the next start");
            Vec::new()
        });
        // A directory with the name of an entry counts as an unreadable entry.
        let is_foreign = |entry: &DirEntry| {
            let told = entry.file_name().to_str().and_then(told_by);
            told.is_none() && entry.file_type().is_ok_and(|kind| kind.is_dir())
        };
        let (folders, files): (Vec<_>, Vec<_>) = found.into_iter().partition(is_foreign);
        for folder in folders {
            tracing::warn!(folder = %folder.path().display(), "ignoring an unknown directory in the journal");
        }
        files.into_iter().map(|file| file.path()).collect()
    }
}

/// The file name of an entry. It repeats the digest and the repository.
fn name(pending: &Pending, id: Uuid) -> String {
    let Pending { repository, digest, .. } = pending;
    let blob = format!("{}-{}.{}", digest.algorithm().name(), digest.hex(), id.simple());
    // A repository name cannot contain `+`.
    let whole = format!("{blob}.{}{ENTRY}", repository.as_str().replace('/', "+"));
    if whole.len() <= LONGEST_NAME { whole } else { format!("{blob}{ENTRY}") }
}

/// The digest and the repository that a file name contains.
fn told_by(name: &str) -> Option<Unreadable> {
    let (algorithm, rest) = name.strip_suffix(ENTRY)?.split_once('-')?;
    let algorithm = Algorithm::ALL.into_iter().find(|known| known.name() == algorithm)?;
    let (hex, rest) = rest.split_once('.')?;
    let repository = rest.split_once('.').and_then(|(_, name)| Repository::parse(&name.replace('+', "/")).ok());
    Some(Unreadable { digest: Digest::from_hex(algorithm, hex).ok()?, repository, entry: None })
}

/// Reads an entry. `None` if the file is not a valid entry, or if its name contains another blob.
fn read(path: &Path) -> Option<Pending> {
    // Reading a named pipe would block forever.
    if !fs::symlink_metadata(path).ok()?.is_file() {
        return None;
    }
    let pending: Pending = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let told = path.file_name().and_then(|name| told_by(name.to_str()?));
    let agree = told.is_none_or(|told| {
        told.digest == pending.digest && told.repository.is_none_or(|told| told == pending.repository)
    });
    agree.then_some(pending)
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::error!(path = %path.display(), %error, "cannot remove a file of the journal");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_runtime::clock::Timestamp;

    fn pending(repository: &str) -> Pending {
        Pending {
            repository: Repository::parse(repository).unwrap(),
            digest: Digest::of(Algorithm::Sha512, b"layer"),
            size: 5,
            since: Timestamp(7),
        }
    }

    fn entries(journal: &Journal) -> Vec<Pending> {
        journal.left().entries.into_iter().map(|journaled| journaled.pending).collect()
    }

    /// A repository name that does not fit into a file name next to a digest.
    fn long() -> String {
        ["a"; 60].join("/") + "/bc-d.e__f" + &"g".repeat(100)
    }

    #[tokio::test]
    async fn an_entry_exists_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path().into());
        for (repository, sync) in [("library/alpine", true), ("a", false), (&long(), true)] {
            let journaled = journal.write(pending(repository), sync).await.unwrap();
            assert_eq!(entries(&journal), [pending(repository)]);
            journal.remove(&journaled).await.unwrap();
            journal.remove(&journaled).await.unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[tokio::test]
    async fn the_form_of_an_entry_on_disk_does_not_change() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path().into());
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let text =
            format!(r#"{{"repository":"library/alpine","digest":"sha256:{hex}","size":5,"since":1700000000000}}"#);
        let name = format!("sha256-{hex}.67e5504410b1426f9247bb680e5fe0c8.library+alpine.json");
        fs::write(folder.path().join(&name), &text).unwrap();
        let [old] = entries(&journal).try_into().unwrap();
        assert_eq!((old.repository.as_str(), old.size, old.since), ("library/alpine", 5, Timestamp(1_700_000_000_000)));
        assert_eq!(old.digest, Digest::of(Algorithm::Sha256, b""));
        let new = journal.write(old, false).await.unwrap();
        assert_eq!(fs::read_to_string(new.entry).unwrap(), text);
    }

    #[tokio::test]
    async fn an_entry_that_a_crash_left_unfinished_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path().into());
        fs::write(folder.path().join("a.new"), b"{\"repository\":\"a\"").unwrap();
        let left = journal.left();
        assert_eq!((left.entries.len(), left.unreadable.len()), (0, 0));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_damaged_entry_is_set_aside_and_its_name_identifies_the_blob() {
        let damage: [fn(&Path); 5] = [
            |path| fs::write(path, b"").unwrap(),
            |path| fs::write(path, b"{\"rep").unwrap(),
            |path| fs::write(path, [0xff; 300]).unwrap(),
            |path| {
                fs::remove_file(path).unwrap();
                std::os::unix::fs::symlink("/nowhere", path).unwrap();
            },
            // The text of another entry.
            |path| {
                let text = fs::read_to_string(path).unwrap().replace("\"digest\":\"sha512:", "\"digest\":\"sha512:0");
                fs::write(path, text).unwrap();
            },
        ];
        for (damage, repository) in damage.into_iter().zip(["library/alpine", "a", "a-b.c__d/e", "x/y/z", "a"]) {
            let folder = tempfile::tempdir().unwrap();
            let journal = Journal::new(folder.path().into());
            let journaled = journal.write(pending(repository), false).await.unwrap();
            damage(&journaled.entry);
            let told = Unreadable {
                digest: pending("a").digest,
                repository: Some(Repository::parse(repository).unwrap()),
                entry: Some(journaled.entry.clone()),
            };
            let left = journal.left();
            for path in left.unreadable.iter().filter_map(|lost| lost.entry.as_ref()) {
                assert!(
                    path.symlink_metadata().is_ok(),
                    "{repository}: a crash before the blob is journaled again finds it once more"
                );
                journal.set_aside(path);
            }
            assert_eq!((left.entries.len(), left.unreadable), (0, vec![told]), "{repository}");
            assert!(!journaled.entry.exists(), "{repository}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{repository}: it is kept for inspection");
            assert_eq!(journal.left().unreadable, [], "{repository}: it is recovered once");
        }
    }

    #[tokio::test]
    async fn a_blob_whose_repository_is_lost_is_reported_at_each_start() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path().into());
        let journaled = journal.write(pending(&long()), false).await.unwrap();
        fs::write(&journaled.entry, b"").unwrap();
        let told = [Unreadable { digest: pending("a").digest, repository: None, entry: None }];
        assert_eq!(journal.left().unreadable, told);
        assert_eq!(journal.left().unreadable, told);
    }

    #[tokio::test]
    async fn an_entry_that_was_renamed_is_still_read() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path().into());
        let journaled = journal.write(pending("a"), false).await.unwrap();
        let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff\xfe");
        fs::rename(&journaled.entry, folder.path().join(name)).unwrap();
        assert_eq!(entries(&journal), [pending("a")]);
    }

    #[test]
    fn set_aside_files_are_bounded_and_folders_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path().into());
        for number in 0..MOST_SET_ASIDE + 5 {
            fs::write(folder.path().join(format!("{number}.json")), b"x").unwrap();
        }
        fs::create_dir(folder.path().join("folder.json")).unwrap();
        assert_eq!(journal.left().unreadable, []);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), MOST_SET_ASIDE + 1);
        fs::remove_dir_all(folder.path()).unwrap();
        assert_eq!(journal.left().entries.len(), 0, "a missing directory has no entries");
    }

    #[tokio::test]
    async fn a_journal_whose_folder_was_removed_while_the_node_runs_is_created_again() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path().join("pending"));
        journal.write(pending("a"), true).await.unwrap();
        fs::remove_dir_all(folder.path().join("pending")).unwrap();
        journal.write(pending("b"), true).await.unwrap();
        assert_eq!(entries(&journal), [pending("b")]);
    }
}
