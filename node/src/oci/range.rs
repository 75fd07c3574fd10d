//! Two kinds of range: what a reader asks for (`Range: bytes=…`) and where an upload's chunk lies
//! (`Content-Range: <start>-<end>`).

use std::ops::Range;

/// What a `Range` header asks for, once the size of the content is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestRange {
    /// Everything: there was no `Range`, or one that RFC 9110 (section 14.2) lets a server ignore: another unit,
    /// not well formed, or several ranges at once.
    Whole,
    /// One satisfiable range, end exclusive, within the content.
    Part(Range<u64>),
}

/// The range lies outside the content: 416 with `Content-Range: bytes */<size>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the range lies outside the content of {size} bytes")]
pub struct RangeRefused {
    /// Size of the content in bytes.
    pub size: u64,
}

impl RequestRange {
    /// Resolves a `Range` header against content of `size` bytes (RFC 9110, section 14).
    ///
    /// # Errors
    /// When the header is well formed and no byte of the content lies in it, or its end lies before its start: that
    /// may be rejected or ignored (RFC 9110, 14.2), and whoever miscounted is better told than sent the whole.
    pub fn resolve(header: Option<&str>, size: u64) -> Result<RequestRange, RangeRefused> {
        if header.is_some_and(ends_before_it_starts) {
            return Err(RangeRefused { size });
        }
        let Some(parsed) = header.and_then(|text| http_range_header::parse_range_header(text).ok()) else {
            return Ok(RequestRange::Whole);
        };
        if size == 0 {
            return Err(RangeRefused { size });
        }
        let ranges = parsed.validate(size).map_err(|_| RangeRefused { size })?;
        match ranges.as_slice() {
            [one] => Ok(RequestRange::Part(*one.start()..*one.end() + 1)),
            _ => Ok(RequestRange::Whole),
        }
    }
}

fn ends_before_it_starts(header: &str) -> bool {
    let range = header.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let numbers = range.and_then(|(start, end)| start.parse::<u64>().ok().zip(end.parse::<u64>().ok()));
    numbers.is_some_and(|(start, end)| end < start)
}

/// Where a chunk of an upload lies: `Content-Range: <start>-<end>`, both inclusive, and no unit
/// (distribution-spec, "Pushing a blob in chunks").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadRange {
    start: u64,
    end: u64,
}

/// Why a text is not the range of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Content-Range of a chunk is <first byte>-<last byte>, as in 0-1023")]
pub struct UploadRangeError;

impl UploadRange {
    /// Parses `<start>-<end>`.
    ///
    /// # Errors
    /// When either is not a plain decimal number or the end lies before the start.
    pub fn parse(text: &str) -> Result<UploadRange, UploadRangeError> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if digits { text.parse::<u64>().ok() } else { None }
        };
        let (start, end) = text.split_once('-').ok_or(UploadRangeError)?;
        let (start, end) = number(start).zip(number(end)).ok_or(UploadRangeError)?;
        if end < start || end == u64::MAX { Err(UploadRangeError) } else { Ok(UploadRange { start, end }) }
    }

    /// Offset of the first byte.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Number of bytes in the chunk.
    pub fn length(&self) -> u64 {
        self.end - self.start + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_resolved_against_the_size() {
        let resolve = |header| RequestRange::resolve(Some(header), 100);
        assert_eq!(resolve("bytes=0-9"), Ok(RequestRange::Part(0..10)));
        assert_eq!(resolve("bytes=90-"), Ok(RequestRange::Part(90..100)));
        assert_eq!(resolve("bytes=-10"), Ok(RequestRange::Part(90..100)));
        assert_eq!(resolve("bytes=50-1000"), Ok(RequestRange::Part(50..100)));
        assert_eq!(resolve("bytes=-1000"), Ok(RequestRange::Part(0..100)));
        assert_eq!(resolve("bytes=100-"), Err(RangeRefused { size: 100 }));
        assert_eq!(resolve("bytes=9-0"), Err(RangeRefused { size: 100 }));
        assert_eq!(RequestRange::resolve(None, 100), Ok(RequestRange::Whole));
    }

    #[test]
    fn a_range_that_a_server_may_ignore_is_ignored() {
        for header in ["lines=0-9", "bytes=a-b", "bytes", "", "bytes=0-1,5-9"] {
            assert_eq!(RequestRange::resolve(Some(header), 100), Ok(RequestRange::Whole), "{header}");
        }
    }

    #[test]
    fn no_range_lies_in_empty_content() {
        assert_eq!(RequestRange::resolve(Some("bytes=0-0"), 0), Err(RangeRefused { size: 0 }));
    }

    #[test]
    fn chunks_have_plain_numbers_in_order() {
        let range = UploadRange::parse("5-9").unwrap();
        assert_eq!((range.start(), range.length()), (5, 5));
        for text in
            ["", "-", "5", "9-5", "+1-2", "bytes 0-1", "0-18446744073709551615", "0-99999999999999999999", " 0-1"]
        {
            assert!(UploadRange::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_resolved_range_is_never_empty_and_never_outside(header in "bytes=[0-9,-]{0,24}", size in any::<u64>()) {
            if let Ok(RequestRange::Part(range)) = RequestRange::resolve(Some(&header), size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }

        #[test]
        fn no_text_makes_a_chunk_range_overflow(text in "[0-9]{0,22}-?[0-9]{0,22}") {
            if let Ok(range) = UploadRange::parse(&text) {
                prop_assert!(range.start().checked_add(range.length()).is_some());
            }
        }
    }
}
