//! A folder as a bucket. Keys are paths below it, exactly as in the file-system driver of CNCF
//! Distribution, so `registry` with `filesystem.rootdirectory` can serve the same folder.
//!
//! An object is written outside the tree, synced, and then gets its name in one step: by a hard
//! link if it must be the first of that name, by a rename if it replaces another. A reader keeps
//! the version that it opened. A whole file on the same file system becomes the object without a
//! copy, by a hard link. The owner of that file then removes its own link, because damage to one
//! file would otherwise affect both copies.
//!
//! Several nodes may mount one folder, and nothing here assumes exclusive access. Code that
//! replaces or removes an object holds the lock of its key (`locks`) from the check of the object
//! to the rename or unlink. A put that must be the first of its name needs no lock if the file
//! system has hard links, because a hard link never replaces an existing file.

mod cached;
mod copy;
mod folders;
mod locks;
mod multipart;
mod owners;
mod temporary;
mod walk;

use super::{
    Bucket, BucketError, BucketErrorKind, Capabilities, Checksum, Delete, ETag, Get, GetOptions, ListOptions,
    MultipartId, Object, ObjectMeta, Operation, Page, PartTag, Put, PutBody, PutMode, file_pieces, resolve_range,
};
use crate::Key;
use async_trait::async_trait;
use entrepot_runtime::Clock;
use entrepot_runtime::tasks::blocking;
use folders::Folders;
use futures::StreamExt;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use temporary::Temporaries;

/// The directory of everything that is not an object: temporary files, parts of multipart uploads,
/// locks, and owners.
const OWN_FOLDER: &str = ".entrepot";

/// A bucket in a folder.
#[derive(Clone)]
pub struct FileSystem {
    tree: Arc<Tree>,
}

/// The folder and the state that is kept about it. Its methods block.
struct Tree {
    root: PathBuf,
    folders: Folders,
    temporaries: Temporaries,
    /// Whether the sync of a linked file has failed. Files are copied from then on.
    sync_failed: AtomicBool,
}

impl FileSystem {
    /// Opens the folder, creates it if necessary, and removes what killed nodes left in it.
    ///
    /// # Errors
    /// If the folder cannot be created or written.
    pub fn open(root: &Path, clock: Clock) -> io::Result<FileSystem> {
        let temporaries = Temporaries::open(&root.join(OWN_FOLDER), clock)?;
        let (folders, sync_failed) = (Folders::new(root), AtomicBool::new(false));
        let tree = Tree { root: root.to_owned(), folders, temporaries, sync_failed };
        Ok(FileSystem { tree: Arc::new(tree) })
    }

    /// Runs blocking work on the tree, and adds the operation and the key to its errors.
    async fn run<T: Send + 'static>(
        &self,
        operation: Operation,
        key: &str,
        work: impl FnOnce(&Tree) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, BucketError> {
        let tree = self.tree.clone();
        let done = blocking(move || work(&tree)).await.unwrap_or_else(|error| Err(error.into()));
        done.map_err(|failure| {
            let error = BucketError::new(operation, key, failure.kind());
            match failure {
                Failure::Refused(why) => error.because(why),
                Failure::WrongContent => error,
                Failure::Local(source) | Failure::Bucket(source) => error.because(source),
            }
        })
    }
}

/// Why work on the tree failed.
enum Failure {
    /// The local file of a put cannot be read.
    Local(io::Error),
    Bucket(io::Error),
    /// The local file of a put does not match its checksum.
    WrongContent,
    Refused(&'static str),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Bucket(error)
    }
}

impl Failure {
    fn kind(&self) -> BucketErrorKind {
        match self {
            Failure::Local(_) => BucketErrorKind::LocalFile,
            Failure::WrongContent => BucketErrorKind::WrongContent,
            Failure::Refused(_) => BucketErrorKind::Refused,
            Failure::Bucket(error) => kind_of(error),
        }
    }
}

fn kind_of(error: &io::Error) -> BucketErrorKind {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => BucketErrorKind::Full,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => BucketErrorKind::Denied,
        ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::DirectoryNotEmpty
        | ErrorKind::InvalidFilename
        | ErrorKind::FileTooLarge => BucketErrorKind::Refused,
        ErrorKind::TimedOut => BucketErrorKind::Timeout,
        _ => BucketErrorKind::Server,
    }
}

/// Whether the error means that no object of that name exists.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename)
}

/// The version of a file. Another file has another inode, and a reused inode has another
/// modification time (see [`temporary::Temporaries::create`]).
fn etag_of(metadata: &Metadata) -> ETag {
    let time = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    ETag(format!("{:x}-{time:x}-{:x}", metadata.ino(), metadata.len()))
}

fn meta_of(metadata: &Metadata) -> ObjectMeta {
    ObjectMeta { size: metadata.len(), etag: etag_of(metadata) }
}

impl Tree {
    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    fn metadata(&self, key: &str) -> io::Result<Option<Metadata>> {
        match std::fs::metadata(self.path(key)) {
            Ok(metadata) => Ok(Some(metadata).filter(Metadata::is_file)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn version(&self, key: &str) -> io::Result<Option<ETag>> {
        Ok(self.metadata(key)?.as_ref().map(etag_of))
    }

    fn open(&self, key: &str) -> io::Result<Option<(File, Metadata)>> {
        let file = match File::open(self.path(key)) {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        Ok(metadata.is_file().then_some((file, metadata)))
    }

    /// Gives a synced temporary file the name of the object.
    fn publish(&self, temporary: temporary::Temporary, key: &str, mode: &PutMode) -> io::Result<Put> {
        let target = self.path(key);
        let etag = etag_of(&temporary.file.metadata()?);
        let before = self.folders.now();
        let named = self.folders.within(&target, || match mode {
            PutMode::IfAbsent | PutMode::IfMatch(None) => {
                self.temporaries.link(&temporary, &target, key).map(|()| true)
            }
            PutMode::Overwrite => {
                let _held = self.temporaries.locks.hold(key)?;
                temporary.rename(&target).map(|()| true)
            }
            PutMode::IfMatch(Some(version)) => {
                let _held = self.temporaries.locks.hold(key)?;
                if self.version(key)?.as_ref() != Some(version) {
                    return Ok(false);
                }
                temporary.rename(&target).map(|()| true)
            }
        });
        match named {
            Ok(true) => Ok(Put::Done(etag)),
            Ok(false) => Ok(Put::Changed),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && *mode == PutMode::IfMatch(None) => {
                Ok(Put::Changed)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // The other put may not be durable yet, but the caller relies on it.
                self.folders.sync(&target, before)?;
                Ok(Put::Exists)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a conditional write can return at once because the object exists. This saves the
    /// copy in the usual case; the hard link at the end decides.
    fn is_taken(&self, key: &str, mode: &PutMode) -> io::Result<bool> {
        let before = self.folders.now();
        let is_taken = *mode == PutMode::IfAbsent && self.metadata(key)?.is_some();
        if is_taken {
            self.folders.sync(&self.path(key), before)?;
        }
        Ok(is_taken)
    }

    fn put(&self, key: &str, body: &PutBody, mode: &PutMode) -> Result<Put, Failure> {
        if self.is_taken(key, mode)? {
            return Ok(Put::Exists);
        }
        let temporary = match self.adopt(body)? {
            Some(adopted) => adopted,
            None => {
                let temporary = self.temporaries.create()?;
                copy::write(body, &temporary.file)?;
                temporary.finish()?;
                temporary
            }
        };
        Ok(self.publish(temporary, key, mode)?)
    }

    /// Adopts a whole file of the same file system as a synced temporary file, without a copy. The
    /// file is read once if a checksum is given that the caller has not verified itself.
    fn adopt(&self, body: &PutBody) -> Result<Option<temporary::Temporary>, Failure> {
        let PutBody::File { path, range, checksum } = body else { return Ok(None) };
        if range.start != 0 || self.sync_failed.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let Some(temporary) = self.temporaries.adopt(path, range.end) else { return Ok(None) };
        if let Some(checksum) = checksum.filter(|checksum| !matches!(checksum, Checksum::Verified(_)))
            && !checksum.is_of_file(path, range.clone()).map_err(Failure::Local)?
        {
            return Err(Failure::WrongContent);
        }
        match temporary.finish() {
            Ok(()) => Ok(Some(temporary)),
            Err(error) => {
                // The system reports a failed write only once and then treats the bytes as written,
                // so another attempt with this file would seem to succeed. A copy writes all bytes
                // again.
                self.sync_failed.store(true, Ordering::Relaxed);
                tracing::warn!(path = %path.display(), %error,
                    "cannot sync a linked file; copying files into the bucket from now on");
                Ok(None)
            }
        }
    }

    fn delete_if_match(&self, key: &str, version: &ETag) -> io::Result<Delete> {
        let held = self.temporaries.locks.hold(key)?;
        if self.version(key)?.as_ref() != Some(version) {
            return Ok(Delete::Changed);
        }
        self.remove(key, held).map(|()| Delete::Done)
    }

    fn delete(&self, key: &str) -> io::Result<()> {
        // Most deletes find nothing when several nodes remove the same keys, and then need no lock.
        if self.metadata(key)?.is_none() {
            return Ok(());
        }
        let held = self.temporaries.locks.hold(key)?;
        self.remove(key, held)
    }

    /// Removes an object, releases its lock, and then makes the removal durable.
    fn remove(&self, key: &str, held: locks::Held) -> io::Result<()> {
        let path = self.path(key);
        let removed = std::fs::remove_file(&path);
        drop(held);
        match removed {
            Err(error) if is_missing(&error) || error.kind() == ErrorKind::IsADirectory => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.folders.removed(&path),
        }
    }
}

#[async_trait]
impl Bucket for FileSystem {
    fn capabilities(&self) -> Capabilities {
        // One file is copied within the kernel, and read as fast as the disk allows: parts and
        // ranges gain nothing.
        Capabilities {
            conditional_put: true,
            conditional_delete: true,
            cheap_reads: true,
            part_threshold: u64::MAX,
            parallel_ranges: false,
            adopts_files: true,
        }
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, BucketError> {
        let name = key.clone();
        let found = self.run(Operation::Head, key.as_str(), move |tree| Ok(tree.metadata(name.as_str())?));
        Ok(found.await?.as_ref().map(meta_of))
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Get, BucketError> {
        if options.range.is_none()
            && let Some((meta, content)) = cached::read(&self.tree.path(key.as_str()), options.if_none_match.as_ref())
        {
            let Some(content) = content else { return Ok(Get::NotModified) };
            let body = futures::stream::iter([Ok(content)]).boxed();
            return Ok(Get::Found(Object { range: 0..meta.size, meta, body }));
        }
        let name = key.clone();
        let opened = self.run(Operation::Get, key.as_str(), move |tree| Ok(tree.open(name.as_str())?)).await?;
        let Some((file, metadata)) = opened else { return Ok(Get::Missing) };
        let meta = meta_of(&metadata);
        if options.if_none_match.as_ref() == Some(&meta.etag) {
            return Ok(Get::NotModified);
        }
        let range = resolve_range(key, options.range, meta.size)?;
        let name = key.clone();
        let body = file_pieces(Arc::new(file), range.clone()).map(move |piece| {
            piece.map_err(|error| {
                // A file never shrinks here, so something else has truncated it.
                let short = error.kind() == ErrorKind::UnexpectedEof;
                let kind = if short { BucketErrorKind::Truncated } else { kind_of(&error) };
                BucketError::new(Operation::Get, name.as_str(), kind).because(error)
            })
        });
        Ok(Get::Found(Object { meta, range, body: body.boxed() }))
    }

    async fn put(&self, key: &Key, body: PutBody, mode: PutMode) -> Result<Put, BucketError> {
        let name = key.clone();
        self.run(Operation::Put, key.as_str(), move |tree| tree.put(name.as_str(), &body, &mode)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), BucketError> {
        let name = key.clone();
        self.run(Operation::Delete, key.as_str(), move |tree| Ok(tree.delete(name.as_str())?)).await
    }

    async fn delete_if_match(&self, key: &Key, version: &ETag) -> Result<Delete, BucketError> {
        let (name, version) = (key.clone(), version.clone());
        let work = move |tree: &Tree| Ok(tree.delete_if_match(name.as_str(), &version)?);
        self.run(Operation::Delete, key.as_str(), work).await
    }

    async fn list(&self, options: ListOptions) -> Result<Page, BucketError> {
        let prefix = options.prefix.clone();
        self.run(Operation::List, &prefix, move |tree| Ok(walk::page(&tree.root, &options)?)).await
    }

    async fn multipart_begin(&self, key: &Key) -> Result<MultipartId, BucketError> {
        let name = key.clone();
        let work = move |tree: &Tree| Ok(tree.temporaries.begin_upload(name.as_str())?);
        self.run(Operation::MultipartBegin, key.as_str(), work).await
    }

    async fn multipart_part(
        &self,
        key: &Key,
        upload: &MultipartId,
        number: u32,
        body: PutBody,
    ) -> Result<PartTag, BucketError> {
        let upload = upload.clone();
        let work = move |tree: &Tree| multipart::put_part(&tree.temporaries, &upload, number, &body);
        self.run(Operation::MultipartPart, key.as_str(), work).await
    }

    async fn multipart_complete(
        &self,
        key: &Key,
        upload: &MultipartId,
        parts: Vec<PartTag>,
        mode: PutMode,
    ) -> Result<Put, BucketError> {
        let (name, upload) = (key.clone(), upload.clone());
        let work = move |tree: &Tree| multipart::complete(tree, name.as_str(), &upload, &parts, &mode);
        self.run(Operation::MultipartComplete, key.as_str(), work).await
    }

    async fn multipart_unfinished(&self, key: &Key) -> Result<Vec<MultipartId>, BucketError> {
        let name = key.clone();
        let work = move |tree: &Tree| Ok(tree.temporaries.uploads_of(name.as_str())?);
        self.run(Operation::MultipartUnfinished, key.as_str(), work).await
    }

    async fn multipart_abort(&self, key: &Key, upload: &MultipartId) -> Result<(), BucketError> {
        let upload = upload.clone();
        let work = move |tree: &Tree| Ok(tree.temporaries.end_upload(&upload)?);
        self.run(Operation::MultipartAbort, key.as_str(), work).await
    }
}

#[cfg(test)]
mod tests;
