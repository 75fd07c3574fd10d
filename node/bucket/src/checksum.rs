//! The expected checksum of a put, and the check of its bytes.

use super::READ_SIZE;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use entrepot_oci::{Digest, Hasher};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;

/// The expected checksum of the bytes of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The digest of the content.
    Digest(Digest),
    /// The digest of a file that the caller has just verified to be unchanged since it was hashed.
    /// A bucket that makes the file its object does not read it again. A bucket that copies or
    /// sends the file checks it as for [`Checksum::Digest`].
    Verified(Digest),
    /// CRC-32C (Castagnoli). It detects accidental damage, not manipulation.
    Crc32c(u32),
}

impl Checksum {
    /// Whether these bytes match.
    pub fn is_of(&self, content: &[u8]) -> bool {
        let mut check = Check::new(*self);
        check.update(content);
        check.matches()
    }

    /// Whether the range of a file matches. Blocks, and reads the whole range.
    ///
    /// # Errors
    /// If the file cannot be read, or ends within the range.
    pub(super) fn is_of_file(&self, path: &Path, range: Range<u64>) -> io::Result<bool> {
        let mut check = Check::new(*self);
        each_piece(path, range, |piece| check.update(piece))?;
        Ok(check.matches())
    }
}

/// An expected checksum, and the state of the computation so far.
pub(super) enum Check {
    Digest(Digest, Box<Hasher>),
    Crc32c(u32, Box<Crc>),
}

impl Check {
    pub(super) fn new(expected: Checksum) -> Check {
        match expected {
            Checksum::Digest(expected) | Checksum::Verified(expected) => {
                let hasher = Box::new(Hasher::new(expected.algorithm()));
                Check::Digest(expected, hasher)
            }
            Checksum::Crc32c(expected) => Check::Crc32c(expected, Box::new(Crc::new(CrcAlgorithm::Crc32Iscsi))),
        }
    }

    pub(super) fn update(&mut self, piece: &[u8]) {
        match self {
            Check::Digest(_, hasher) => hasher.update(piece),
            Check::Crc32c(_, crc) => crc.update(piece),
        }
    }

    pub(super) fn matches(self) -> bool {
        match self {
            Check::Digest(expected, hasher) => hasher.finish() == expected,
            Check::Crc32c(expected, crc) => crc.finalize() == u64::from(expected),
        }
    }
}

/// The CRC-32C of bytes.
pub(super) fn crc32c(content: &[u8]) -> u32 {
    let mut crc = Crc::new(CrcAlgorithm::Crc32Iscsi);
    crc.update(content);
    low(&crc)
}

/// The CRC-32C of a range of a file, and whether the range matches the expected checksum. Blocks,
/// and reads the whole range once.
///
/// # Errors
/// If the file cannot be read, or ends within the range.
pub(super) fn crc32c_of_file(path: &Path, range: Range<u64>, expected: Option<Checksum>) -> io::Result<(u32, bool)> {
    let (mut crc, mut check) = (Crc::new(CrcAlgorithm::Crc32Iscsi), expected.map(Check::new));
    each_piece(path, range, |piece| {
        crc.update(piece);
        if let Some(check) = &mut check {
            check.update(piece);
        }
    })?;
    Ok((low(&crc), check.is_none_or(Check::matches)))
}

/// The value of a 32-bit CRC, which the crate returns as 64 bits.
fn low(crc: &Crc) -> u32 {
    u32::try_from(crc.finalize()).unwrap_or_default()
}

fn each_piece(path: &Path, range: Range<u64>, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = File::open(path)?;
    let mut buffer = vec![0; READ_SIZE];
    let mut offset = range.start;
    while offset < range.end {
        let wanted = usize::try_from(range.end - offset).unwrap_or(READ_SIZE).min(READ_SIZE);
        match file.read_at(&mut buffer[..wanted], offset) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                each(&buffer[..read]);
                offset += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_oci::Algorithm;

    #[test]
    fn a_crc_matches_the_specification() {
        // RFC 3720, appendix B.4: 32 bytes of zeroes.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert!(Checksum::Crc32c(0x8a91_36aa).is_of(&[0; 32]));
        assert!(!Checksum::Crc32c(0x8a91_36aa).is_of(&[0; 31]));
    }

    #[test]
    fn a_range_of_a_file_is_compared_with_its_checksum() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..3 * READ_SIZE + 7).map(|number| number.to_le_bytes()[0]).collect();
        std::fs::write(file.path(), &content).unwrap();
        let (start, end) = (5, content.len() as u64 - 1);
        let part = &content[5..content.len() - 1];
        let digests = [Algorithm::Sha256, Algorithm::Sha512].map(|algorithm| Digest::of(algorithm, part));
        for checksum in digests.map(Checksum::Digest).into_iter().chain([Checksum::Crc32c(crc32c(part))]) {
            assert!(checksum.is_of_file(file.path(), start..end).unwrap());
            assert!(!checksum.is_of_file(file.path(), start..end - 1).unwrap());
            let both = |range| crc32c_of_file(file.path(), range, Some(checksum)).unwrap();
            assert_eq!(both(start..end), (crc32c(part), true));
            assert!(!both(start..end - 1).1);
        }
        let short = crc32c_of_file(file.path(), 0..end + 2, None).unwrap_err();
        assert_eq!(short.kind(), ErrorKind::UnexpectedEof);
    }
}
