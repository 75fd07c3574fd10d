//! Two kinds of range: the part that a reader requests (`Range: bytes=…`), and the position of an
//! upload's chunk (`Content-Range: <start>-<end>`).

use http_range_header::{SyntacticallyCorrectRange, parse_range_header_with_max_ranges};
use std::num::NonZeroUsize;
use std::ops::Range;

/// Maximum number of ranges in one request. containers/storage requests as many when it pulls a
/// `zstd:chunked` layer in part (`maxNumberMissingChunks`). A request with more ranges gets the
/// whole content, as RFC 9110, section 14.2, allows.
const MAX_RANGES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// The meaning of a `Range` header, once the size of the content is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestRange {
    /// The whole content: there was no `Range`, or one that RFC 9110 (section 14.2) lets a server
    /// ignore: another unit, invalid syntax, or ranges that overlap so much that together they are
    /// larger than the content.
    Whole,
    /// One satisfiable range, end exclusive, within the content.
    Part(Range<u64>),
    /// Several such ranges, in the order of the request. They are not merged, although RFC 9110,
    /// section 15.3.7.2, allows it: containers/image expects as many parts as it requested, in that
    /// order, and fails otherwise. Together they are not larger than the content.
    Parts(Vec<Range<u64>>),
}

/// The range is outside the content: 416 with `Content-Range: bytes */<size>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("range not satisfiable: the content has {size} bytes")]
pub struct RangeRefused {
    /// Size of the content in bytes.
    pub size: u64,
}

impl RequestRange {
    /// Resolves a `Range` header for content of `size` bytes (RFC 9110, section 14).
    ///
    /// # Errors
    /// If the header is valid but contains no byte of the content, or its end is before its start.
    /// A server may reject or ignore the second case (RFC 9110, 14.2); rejecting it shows the
    /// client its mistake instead of sending everything.
    pub fn resolve(header: Option<&str>, size: u64) -> Result<RequestRange, RangeRefused> {
        if header.is_some_and(ends_before_it_starts) {
            return Err(RangeRefused { size });
        }
        let Some(parsed) = header.and_then(|text| parse_range_header_with_max_ranges(text, MAX_RANGES).ok()) else {
            return Ok(RequestRange::Whole);
        };
        // Of several ranges, those outside the content are left out (RFC 9110, section 15.3.7.2).
        let ranges: Vec<_> = parsed.into_ranges().into_iter().filter_map(|range| within(range, size)).collect();
        match ranges.as_slice() {
            [] => Err(RangeRefused { size }),
            [one] => Ok(RequestRange::Part(one.clone())),
            several => {
                let bytes = several.iter().fold(0, |sum: u64, range| sum.saturating_add(range.end - range.start));
                Ok(if bytes > size { RequestRange::Whole } else { RequestRange::Parts(ranges) })
            }
        }
    }
}

/// The part of content of `size` bytes that is in the range. `None` if there is none.
fn within(range: SyntacticallyCorrectRange, size: u64) -> Option<Range<u64>> {
    let range = match range {
        SyntacticallyCorrectRange::FromStart(start) => start..size,
        SyntacticallyCorrectRange::FromLast(length) => size.saturating_sub(length)..size,
        SyntacticallyCorrectRange::Indexed(start, end) => start..end.saturating_add(1).min(size),
    };
    (range.start < range.end).then_some(range)
}

fn ends_before_it_starts(header: &str) -> bool {
    let range = header.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let numbers = range.and_then(|(start, end)| start.parse::<u64>().ok().zip(end.parse::<u64>().ok()));
    numbers.is_some_and(|(start, end)| end < start)
}

/// The position of a chunk of an upload: `Content-Range: <start>-<end>`, both inclusive and without
/// a unit (distribution-spec, "Pushing a blob in chunks").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadRange {
    start: u64,
    end: u64,
}

/// Why a text is not the range of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid Content-Range: must have the form <start>-<end>, for example 0-1023")]
pub struct UploadRangeError;

impl UploadRange {
    /// Parses `<start>-<end>`.
    ///
    /// # Errors
    /// If either is not a plain decimal number, or the end is before the start.
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
        let many = format!("bytes={}0-0", "0-0,".repeat(1024));
        for header in ["lines=0-9", "bytes=a-b", "bytes", "", "bytes=0-1,a", "bytes=0-60,40-99", "bytes=0-,0-", &many] {
            assert_eq!(RequestRange::resolve(Some(header), 100), Ok(RequestRange::Whole), "{header}");
        }
    }

    #[test]
    fn several_ranges_keep_their_order_without_those_outside_the_content() {
        let resolve = |header| RequestRange::resolve(Some(header), 100);
        assert_eq!(resolve("bytes=0-9,10-19"), Ok(RequestRange::Parts(vec![0..10, 10..20])));
        assert_eq!(resolve("bytes=50-, 0-0,-1"), Ok(RequestRange::Parts(vec![50..100, 0..1, 99..100])));
        assert_eq!(resolve("bytes=0-9,5-14,7-9,8-99"), Ok(RequestRange::Whole));
        assert_eq!(resolve("bytes=0-9,5-14,7-9"), Ok(RequestRange::Parts(vec![0..10, 5..15, 7..10])));
        assert_eq!(resolve("bytes=0-0,100-200"), Ok(RequestRange::Part(0..1)));
        assert_eq!(resolve("bytes=100-,200-300"), Err(RangeRefused { size: 100 }));
        let most = format!("bytes={}0-0", "0-0,".repeat(1023));
        assert!(matches!(RequestRange::resolve(Some(&most), 1024), Ok(RequestRange::Parts(all)) if all.len() == 1024));
    }

    #[test]
    fn empty_content_satisfies_no_range() {
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
            let ranges = match RequestRange::resolve(Some(&header), size) {
                Ok(RequestRange::Part(range)) => vec![range],
                Ok(RequestRange::Parts(ranges)) => ranges,
                Ok(RequestRange::Whole) | Err(_) => Vec::new(),
            };
            prop_assert!(ranges.iter().all(|range| range.start < range.end && range.end <= size));
            prop_assert!(ranges.iter().map(|range| u128::from(range.end - range.start)).sum::<u128>() <= u128::from(size));
        }

        #[test]
        fn no_text_overflows_a_chunk_range(text in "[0-9]{0,22}-?[0-9]{0,22}") {
            if let Ok(range) = UploadRange::parse(&text) {
                prop_assert!(range.start().checked_add(range.length()).is_some());
            }
        }
    }
}
