//! Brings the memory of the machine into the state of a machine that has run for a while: filled
//! with page cache.
//!
//! A virtual machine may return free memory to the hypervisor (free page reporting of the virtio
//! balloon). The first access to a returned page is expensive. On the machine of
//! `docs/reference/benchmarks.md`, writing a GiB to the page cache took 2 s of CPU time with returned pages,
//! and 0.3 s with pages that held other cached files. Without a common state, a system that writes
//! more files paid this cost or not, depending on what the machine had done an hour before.

use anyhow::{Context, Result};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

/// Bytes that stay free. This is above the watermarks at which the kernel starts to reclaim memory.
const FREE: u64 = 256 << 20;
/// Size of the sparse file in bytes, more than any run reads. The file has no blocks on disk.
const LENGTH: u64 = 8 << 40;

/// A sparse file, and the number of its bytes that were read.
struct Hole {
    file: File,
    read: u64,
}

static HOLE: Mutex<Option<Hole>> = Mutex::new(None);

/// Writes dirty pages to the disks and fills the free memory with the page cache of an otherwise
/// unused file. Each system needs this before a measurement in which files are written.
///
/// # Errors
/// If a temporary file cannot be created or read.
pub fn settle() -> Result<()> {
    rustix::fs::sync();
    let mut hole = HOLE.lock().unwrap_or_else(PoisonError::into_inner);
    let hole = match &mut *hole {
        Some(hole) => hole,
        none => none.insert(Hole::new().context("cannot create a sparse file in the temporary directory")?),
    };
    hole.read_on(free().saturating_sub(FREE)).context("cannot read the sparse file")
}

impl Hole {
    fn new() -> io::Result<Hole> {
        let file = tempfile::tempfile()?;
        file.set_len(LENGTH)?;
        Ok(Hole { file, read: 0 })
    }

    /// Reads the next bytes. Those that were read before may be cached already.
    fn read_on(&mut self, bytes: u64) -> Result<()> {
        let mut piece = vec![0; 1 << 20];
        let end = self.read + bytes;
        while self.read < end {
            self.file.read_exact_at(&mut piece, self.read)?;
            self.read += piece.len() as u64;
        }
        Ok(())
    }
}

/// Bytes of free memory, which is not even used for page cache.
fn free() -> u64 {
    let info = rustix::system::sysinfo();
    info.freeram * u64::from(info.mem_unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_file_is_read_from_where_the_last_read_ended() {
        let mut hole = Hole::new().unwrap();
        hole.read_on(3 << 20).unwrap();
        hole.read_on(1).unwrap();
        assert_eq!(hole.read, 4 << 20);
        assert!(free() > 0);
    }
}
