//! Where the bytes of a request belong in its session.

use crate::oci::UploadRange;

/// Where a request says that its bytes belong. A request that says nothing of it appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where its `Content-Range` says (distribution-spec, "Pushing a blob in chunks").
    Range(UploadRange),
    /// At the offset in the `Location` that it was sent to.
    Offset(u64),
}

/// What follows from the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The bytes follow those that the session has.
    Append,
    /// The session has bytes from there on, of a request that was never answered: they are taken again.
    Again { from: u64 },
    /// The bytes do not follow, or those that the session has there were acknowledged.
    Refuse,
}

impl Place {
    /// Offset of the first byte.
    pub(super) fn start(self) -> u64 {
        match self {
            Place::Range(range) => range.start(),
            Place::Offset(offset) => offset,
        }
    }

    /// The number of bytes, if the request says it.
    pub(super) fn length(self) -> Option<u64> {
        match self {
            Place::Range(range) => Some(range.length()),
            Place::Offset(_) => None,
        }
    }

    /// What to do with bytes for this place, in a session of `end` bytes of which the first `answered` were
    /// acknowledged.
    pub(super) fn step(self, answered: u64, end: u64) -> Step {
        match self.start() {
            start if start == end => Step::Append,
            start if (answered..end).contains(&start) => Step::Again { from: start },
            _ => Step::Refuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_follow_the_end_or_replace_what_was_never_answered() {
        for (start, answered, end, expected) in [
            (0, 0, 0, Step::Append),
            (9, 0, 9, Step::Append),
            (9, 9, 9, Step::Append),
            (0, 0, 9, Step::Again { from: 0 }),
            (4, 4, 9, Step::Again { from: 4 }),
            (6, 4, 9, Step::Again { from: 6 }),
            (3, 4, 9, Step::Refuse),
            (8, 9, 9, Step::Refuse),
            (10, 0, 9, Step::Refuse),
        ] {
            assert_eq!(Place::Offset(start).step(answered, end), expected, "{start} in {answered}, {end}");
        }
    }

    #[test]
    fn a_range_says_how_many_bytes_and_an_offset_does_not() {
        let range = Place::Range(UploadRange::parse("3-7").unwrap());
        assert_eq!((range.start(), range.length()), (3, Some(5)));
        assert_eq!((Place::Offset(3).start(), Place::Offset(3).length()), (3, None));
    }
}
