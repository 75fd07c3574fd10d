//! The result of starting a download.

use super::fill::Fill;
use bytes::Bytes;
use entrepot_bucket::Object;
use parking_lot::Mutex;
use std::sync::Arc;

/// The result of starting a download.
#[derive(Clone)]
pub(super) enum Opened {
    /// Small content, complete and verified.
    InMemory(Bytes),
    Fill(Arc<Fill>),
    /// There is no space for the content. The response to the first request serves the first reader
    /// that takes it.
    PassThrough(u64, Arc<Mutex<Option<Object>>>),
}

impl From<Bytes> for Opened {
    fn from(content: Bytes) -> Opened {
        Opened::InMemory(content)
    }
}
