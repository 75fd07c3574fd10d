//! A range of a file as a stream of large pieces, read outside the async threads.

use super::READ_SIZE;
use bytes::Bytes;
use entrepot_runtime::tasks::blocking;
use futures::Stream;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;

/// The bytes of `range`. Fails with [`ErrorKind::UnexpectedEof`] if the file is shorter.
pub(crate) fn file_pieces(
    file: Arc<File>,
    range: Range<u64>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    futures::stream::try_unfold(range, move |range| {
        let file = file.clone();
        async move {
            if range.is_empty() {
                return Ok(None);
            }
            let (offset, left) = (range.start, range.end - range.start);
            let piece = blocking(move || read_at(&file, offset, left)).await??;
            let next = offset + piece.len() as u64..range.end;
            Ok(Some((piece, next)))
        }
    })
}

/// One piece of at most `left` bytes, and at least one.
fn read_at(file: &File, offset: u64, left: u64) -> io::Result<Bytes> {
    let size = usize::try_from(left).unwrap_or(usize::MAX).min(READ_SIZE);
    // Read into memory that was never written: clearing 512 KiB first would add a tenth to the time
    // of the read.
    let mut piece = Vec::with_capacity(size);
    while piece.len() < size {
        let at = offset + piece.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut piece), at) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The allocator may have returned more capacity than requested, and the read filled it.
    piece.truncate(size);
    Ok(piece.into())
}
