//! The position of a request's bytes in its session.

use entrepot_oci::UploadRange;

/// The position that a request states. A request that states none appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The position in its `Content-Range` (distribution-spec, "Pushing a blob in chunks").
    Range(UploadRange),
    /// The offset in the `Location` that it was sent to.
    Offset(u64),
}

/// What to do with the bytes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The bytes follow those of the session.
    Append,
    /// The session has bytes from there on that were never acknowledged. They are replaced.
    Again { from: u64 },
    /// The bytes do not follow those of the session, or the session has acknowledged bytes there.
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

    /// The number of bytes, if the request states it.
    pub(super) fn length(self) -> Option<u64> {
        match self {
            Place::Range(range) => Some(range.length()),
            Place::Offset(_) => None,
        }
    }

    /// What to do with bytes at this position, in a session of `end` bytes of which the first
    /// `answered` were acknowledged.
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
    fn bytes_follow_the_end_or_replace_what_was_never_acknowledged() {
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
    fn a_range_has_a_length_and_an_offset_has_none() {
        let range = Place::Range(UploadRange::parse("3-7").unwrap());
        assert_eq!((range.start(), range.length()), (3, Some(5)));
        assert_eq!((Place::Offset(3).start(), Place::Offset(3).length()), (3, None));
    }
}
