//! Multipart uploads: each part is a separate file, and completion joins them. A folder does not
//! need this for speed, but it lets every flow treat all buckets alike.

use super::temporary::Temporaries;
use super::{Failure, Tree, copy, etag_of};
use crate::{MultipartId, PartTag, Put, PutBody, PutMode};
use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;

const NO_UPLOAD: Failure = Failure::Refused("the multipart upload does not exist");

fn part_path(folder: &std::path::Path, number: u32) -> PathBuf {
    folder.join(number.to_string())
}

pub(super) fn put_part(
    temporaries: &Temporaries,
    upload: &MultipartId,
    number: u32,
    body: &PutBody,
) -> Result<PartTag, Failure> {
    let folder = temporaries.upload(upload).ok_or(NO_UPLOAD)?;
    let temporary = temporaries.create()?;
    copy::write(body, &temporary.file)?;
    temporary.stamp()?;
    // Not synced, because completion syncs the joined file, and no client completes this upload
    // after a crash.
    let tag = PartTag(etag_of(&temporary.file.metadata()?).0);
    match temporary.rename(&part_path(&folder, number)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(NO_UPLOAD),
        renamed => Ok(renamed.map(|()| tag)?),
    }
}

pub(super) fn complete(
    tree: &Tree,
    key: &str,
    upload: &MultipartId,
    parts: &[PartTag],
    mode: &PutMode,
) -> Result<Put, Failure> {
    let folder = tree.temporaries.upload(upload).ok_or(NO_UPLOAD)?;
    if tree.is_taken(key, mode)? {
        return Ok(Put::Exists);
    }
    let whole = tree.temporaries.create()?;
    for (number, tag) in (1..).zip(parts) {
        let part = match File::open(part_path(&folder, number)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Failure::Refused("a part of the multipart upload was not sent"));
            }
            opened => opened?,
        };
        let metadata = part.metadata()?;
        if etag_of(&metadata).0 != tag.0 {
            return Err(Failure::Refused("a part of the multipart upload was sent again after its tag was returned"));
        }
        copy::append(&part, metadata.len(), &whole.file)?;
    }
    whole.finish()?;
    let put = tree.publish(whole, key, mode)?;
    if let Put::Done(_) = put {
        tree.temporaries.end_upload(upload)?;
    }
    Ok(put)
}
