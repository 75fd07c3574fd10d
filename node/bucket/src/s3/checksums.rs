//! The checksums of writes, so that S3 rejects bytes that differ from those that were received.
//!
//! - A small body in memory is signed with its hash and needs no checksum.
//! - A whole file whose SHA-256 is known carries it; nothing is read twice.
//! - A part carries its CRC-32C. The header precedes the body, so the part is read once more before
//!   it is sent, usually from the page cache. CPUs have an instruction for CRC-32C. As a trailer
//!   the checksum would need no second read, but not every service accepts `aws-chunked` bodies.
//! - A digest that S3 does not support (SHA-512, or any digest for parts) is compared here, in the
//!   same read.

use super::errors::Failed;
use super::{BucketErrorKind, Operation};
use crate::Key;
use crate::checksum::{crc32c, crc32c_of_file};
use crate::{Checksum, PutBody, READ_SIZE};
use aws_smithy_types::base64;
use entrepot_oci::Algorithm;
use entrepot_runtime::tasks::blocking;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether writes carry checksums.
pub(super) struct Checksums {
    on: AtomicBool,
}

/// A checksum in base64, as sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Declared {
    /// The checksum that the caller passed.
    Sha256(String),
    /// The checksum that the caller passed.
    Crc32c(String),
    /// A checksum computed just now. It detects damage in transit only.
    Crc32cOfNow(String),
}

impl Declared {
    pub(super) fn sha256(&self) -> Option<String> {
        if let Declared::Sha256(text) = self { Some(text.clone()) } else { None }
    }

    pub(super) fn crc32c(&self) -> Option<String> {
        match self {
            Declared::Crc32c(text) | Declared::Crc32cOfNow(text) => Some(text.clone()),
            Declared::Sha256(_) => None,
        }
    }

    fn now(crc: u32) -> Declared {
        Declared::Crc32cOfNow(base64::encode(crc.to_be_bytes()))
    }
}

/// Whether a mismatch proves that the bytes differ from those that the caller received.
pub(super) trait Names {
    fn names_received_bytes(&self) -> bool;
}

impl Names for Declared {
    fn names_received_bytes(&self) -> bool {
        !matches!(self, Declared::Crc32cOfNow(_))
    }
}

/// The start of a multipart upload only announces checksums.
impl Names for () {
    fn names_received_bytes(&self) -> bool {
        false
    }
}

impl Checksums {
    pub(super) fn new(config: entrepot_config::S3Checksums) -> Checksums {
        Checksums { on: AtomicBool::new(config == entrepot_config::S3Checksums::Auto) }
    }

    pub(super) fn are_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// The checksum of a whole object.
    pub(super) async fn of_object(&self, key: &Key, body: &PutBody) -> Result<Option<Declared>, Failed> {
        if self.are_on()
            && let PutBody::File { checksum: Some(Checksum::Digest(digest) | Checksum::Verified(digest)), .. } = body
            && digest.algorithm() == Algorithm::Sha256
        {
            return Ok(Some(Declared::Sha256(base64::encode(digest.bytes()))));
        }
        self.of_body(Operation::Put, key, body).await
    }

    /// The checksum of a part.
    pub(super) async fn of_part(&self, key: &Key, body: &PutBody) -> Result<Option<Declared>, Failed> {
        match self.of_body(Operation::MultipartPart, key, body).await? {
            // The upload was started with CRC-32C, so a small part in memory must carry it too.
            None if self.are_on() => match body {
                PutBody::Bytes(bytes) => Ok(Some(Declared::now(crc32c(bytes)))),
                PutBody::File { .. } => Ok(None),
            },
            declared => Ok(declared),
        }
    }

    async fn of_body(&self, operation: Operation, key: &Key, body: &PutBody) -> Result<Option<Declared>, Failed> {
        let on = self.are_on();
        match body {
            PutBody::Bytes(bytes) if on && bytes.len() > READ_SIZE => {
                let bytes = bytes.clone();
                let crc = blocking(move || crc32c(&bytes)).await;
                let crc =
                    crc.map_err(|error| Failed::new(operation, key.as_str(), BucketErrorKind::Server).because(error))?;
                Ok(Some(Declared::now(crc)))
            }
            PutBody::File { checksum: Some(Checksum::Crc32c(crc)), .. } if on => {
                Ok(Some(Declared::Crc32c(base64::encode(crc.to_be_bytes()))))
            }
            PutBody::File { path, range, checksum } if on || checksum.is_some() => {
                let crc = read(operation, key, path, range, *checksum).await?;
                Ok(on.then(|| Declared::now(crc)))
            }
            PutBody::Bytes(_) | PutBody::File { .. } => Ok(None),
        }
    }

    /// Sends a request with its checksum. If the service rejects the request but accepts it without
    /// the checksum, checksums are turned off for this node.
    pub(super) async fn send<D: Names + Clone, T, F>(
        &self,
        bucket: &str,
        declared: Option<D>,
        send: impl Fn(Option<D>) -> F,
    ) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let answer = send(declared.clone()).await;
        let mut failed = match answer {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        if failed.error.kind == BucketErrorKind::WrongContent
            && !declared.as_ref().is_some_and(Names::names_received_bytes)
        {
            // The bytes were correct a moment ago, so they were damaged in transit and a retry may
            // succeed.
            failed.error.kind = BucketErrorKind::Server;
        }
        let may_be_refused = matches!(failed.status, Some(400 | 501)) && failed.error.kind == BucketErrorKind::Refused;
        if declared.is_none() || !may_be_refused {
            return Err(failed);
        }
        // Happens once in the life of a node, or for a request that is rejected for another reason;
        // the second request tells them apart.
        let Ok(answer) = send(None).await else { return Err(failed) };
        if self.on.swap(false, Ordering::Relaxed) {
            tracing::warn!(bucket, refused = %failed.told(),
                "the S3 service rejects checksums; sending writes without checksums from now on");
        }
        Ok(answer)
    }
}

/// Reads a range of a file and returns its CRC-32C, if the range matches the expected checksum.
async fn read(
    operation: Operation,
    key: &Key,
    path: &Path,
    range: &Range<u64>,
    expected: Option<Checksum>,
) -> Result<u32, Failed> {
    let (path, range): (PathBuf, _) = (path.to_owned(), range.clone());
    let read = blocking(move || crc32c_of_file(&path, range, expected)).await.and_then(|read| read);
    let failed = |kind| Failed::new(operation, key.as_str(), kind);
    match read {
        Ok((crc, true)) => Ok(crc),
        Ok((_, false)) => Err(failed(BucketErrorKind::WrongContent)),
        Err(error) => Err(failed(BucketErrorKind::LocalFile).because(error)),
    }
}
