//! The number of requests in which a blob is sent. Pure functions.

use entrepot_bucket::Capabilities;
use std::ops::Range;

/// S3 accepts at most this many parts in one multipart upload (Amazon S3, "Multipart upload
/// limits").
const MOST_PARTS: u64 = 10_000;

/// How a blob is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// In one request.
    One,
    /// In parts, each with these bytes.
    Parts(Vec<Range<u64>>),
}

/// Plans a blob of `size` bytes with parts of `part_size` bytes. Parts are larger if there would be
/// more than [`MOST_PARTS`].
pub(super) fn plan(size: u64, part_size: u64, bucket: Capabilities) -> Plan {
    if size <= part_size.max(bucket.part_threshold) {
        return Plan::One;
    }
    let part_size = part_size.max(size.div_ceil(MOST_PARTS));
    let starts = (0..size.div_ceil(part_size)).map(|number| number * part_size);
    Plan::Parts(starts.map(|start| start..size.min(start + part_size)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S3: Capabilities = Capabilities {
        conditional_put: true,
        conditional_delete: true,
        cheap_reads: false,
        part_threshold: 0,
        parallel_ranges: true,
        adopts_files: false,
    };

    #[test]
    fn one_request_is_enough_up_to_the_part_size() {
        assert_eq!(plan(0, 10, S3), Plan::One);
        assert_eq!(plan(10, 10, S3), Plan::One);
        assert_eq!(plan(11, 10, S3), Plan::Parts(vec![0..10, 10..11]));
        assert_eq!(plan(1 << 40, 10, Capabilities { part_threshold: u64::MAX, ..S3 }), Plan::One);
    }

    proptest! {
        #[test]
        fn parts_cover_the_blob_once_in_order_and_stay_within_the_limit(size in 1u64..1 << 45, part in 1u64..1 << 33) {
            if let Plan::Parts(parts) = plan(size, part, S3) {
                prop_assert!(parts.len() as u64 <= MOST_PARTS && parts.len() > 1);
                prop_assert_eq!(parts[0].start, 0);
                prop_assert_eq!(parts[parts.len() - 1].end, size);
                prop_assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
                prop_assert!(parts.iter().all(|range| range.start < range.end));
                // Only the last part may be smaller than the others: S3 rejects a small part before
                // it.
                let first = parts[0].end;
                prop_assert!(parts[..parts.len() - 1].iter().all(|range| range.end - range.start == first));
            }
        }
    }
}
