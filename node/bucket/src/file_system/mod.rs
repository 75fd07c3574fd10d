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
mod tree;
mod walk;

use super::{
    Bucket, BucketError, BucketErrorKind, Capabilities, Delete, ETag, Get, GetOptions, ListOptions, MultipartId,
    Object, ObjectMeta, Operation, Page, PartTag, Put, PutBody, PutMode, file_pieces, resolve_range,
};
use crate::Key;
use async_trait::async_trait;
use entrepot_runtime::Clock;
use entrepot_runtime::tasks::blocking;
use folders::Folders;
use futures::StreamExt;
use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
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
