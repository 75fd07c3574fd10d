//! The machine's memory as it is on one that has served for a while: full of cached files.
//!
//! Where memory that nobody uses goes back to a hypervisor, as free page reporting of virtio's balloon has it, touching it
//! again costs more than what is then done with it: on the machine of `docs/benchmarks.md`, 2 s of a core for a GiB of
//! page cache, and 0.3 s when its pages only change their owner. A system that writes more files paid that or did not,
//! depending on what the machine had done an hour before.

use anyhow::{Context, Result};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

/// Bytes that stay free: above the watermarks at which the kernel begins to take memory back.
const FREE: u64 = 256 << 20;
/// Bytes of the file, more than any run reads; it has no blocks, only length.
const LENGTH: u64 = 8 << 40;

/// What [`settle`] does, as the documents say it.
pub const STATE: &str = "Before anything is timed that writes files, what is still to be written to disks is written, and \
                         memory that nothing uses is filled with cached files, as on a machine that has served for a while.";

/// A file without blocks, and how much of it was read.
struct Hole {
    file: File,
    read: u64,
}

static HOLE: Mutex<Option<Hole>> = Mutex::new(None);

/// Writes to the disks what is still to be written, and fills the memory that nothing uses with the page cache of a file
/// that nobody wants: before anything is timed that writes files, for each system alike.
///
/// # Errors
/// When a temporary file cannot be made or read.
pub fn settle() -> Result<()> {
    rustix::fs::sync();
    let mut hole = HOLE.lock().unwrap_or_else(PoisonError::into_inner);
    let hole = match &mut *hole {
        Some(hole) => hole,
        none => none.insert(Hole::new().context("a file of nothing but length, where temporary files go")?),
    };
    hole.read_on(free().saturating_sub(FREE)).context("reading a file of nothing but length")
}

impl Hole {
    fn new() -> io::Result<Hole> {
        let file = tempfile::tempfile()?;
        file.set_len(LENGTH)?;
        Ok(Hole { file, read: 0 })
    }

    /// Reads what was not read before: that may be cached already.
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

/// Bytes of memory that nothing uses, not even for cached files.
fn free() -> u64 {
    let info = rustix::system::sysinfo();
    info.freeram * u64::from(info.mem_unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_nothing_but_length_is_read_on() {
        let mut hole = Hole::new().unwrap();
        hole.read_on(3 << 20).unwrap();
        hole.read_on(1).unwrap();
        assert_eq!(hole.read, 4 << 20);
        assert!(free() > 0);
    }
}
