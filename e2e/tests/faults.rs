//! A bucket and a disk that fail: the response to each failure is the one in the design's table.

#[path = "faults/bucket.rs"]
mod bucket;
#[path = "faults/disk.rs"]
mod disk;
