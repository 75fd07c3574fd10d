//! A bucket and a disk that fail: each failure is answered as the design's table says.

#[path = "faults/bucket.rs"]
mod bucket;
#[path = "faults/disk.rs"]
mod disk;
