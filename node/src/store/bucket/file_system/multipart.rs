//! Objects in parts: each part is a file of its own, and all are joined at the end. Nothing needs it for speed here; it
//! is what lets every flow treat every bucket alike.

use super::temporary::Temporaries;
use super::{Failure, Tree, copy, etag_of};
use crate::store::bucket::{MultipartId, PartTag, Put, PutBody, PutMode};
use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;

const NO_UPLOAD: Failure = Failure::Refused("there is no such multipart upload");

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
    // Not durable yet: the joined file will be, and after a crash nobody completes this upload.
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
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(Failure::Refused("a part was not sent")),
            opened => opened?,
        };
        let metadata = part.metadata()?;
        if etag_of(&metadata).0 != tag.0 {
            return Err(Failure::Refused("a part was sent again since"));
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
