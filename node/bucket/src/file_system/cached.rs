//! Reads small objects from the page cache, without switching to a blocking thread. This serves
//! links, which are read with every request.

use super::{ETag, ObjectMeta, meta_of};
use bytes::Bytes;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{ReadWriteFlags, preadv2};
use std::fs::File;
use std::io::IoSliceMut;
use std::path::Path;

/// Size limit in bytes. Larger objects are read in pieces outside the async threads.
const SMALL: usize = 1024;

/// The whole of a small object, or only its metadata if its version is `known`. `None`: use the
/// blocking read, which also reports errors.
pub(super) fn read(path: &Path, known: Option<&ETag>) -> Option<(ObjectMeta, Option<Bytes>)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED).ok()?);
    let metadata = file.metadata().ok().filter(|metadata| metadata.is_file())?;
    let meta = meta_of(&metadata);
    if known == Some(&meta.etag) {
        return Some((meta, None));
    }
    let size = usize::try_from(meta.size).ok().filter(|size| *size <= SMALL)?;
    let mut content = vec![0; size];
    let read = preadv2(&file, &mut [IoSliceMut::new(&mut content)], 0, ReadWriteFlags::NOWAIT).ok()?;
    (read == size).then(|| (meta, Some(content.into())))
}
