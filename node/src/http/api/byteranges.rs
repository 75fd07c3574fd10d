//! The body of a response to several ranges: `multipart/byteranges` (RFC 9110, section 14.6).

use super::body::exactly;
use crate::fetch::Content;
use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::ops::Range;
use uuid::Uuid;

/// Parts of content, each with a header that states its position.
pub struct ByteRanges {
    /// 122 random bits. The content is older, so it does not contain them.
    boundary: String,
    /// Size of the whole content in bytes.
    size: u64,
    ranges: Vec<Range<u64>>,
}

impl ByteRanges {
    pub fn new(ranges: Vec<Range<u64>>, size: u64) -> ByteRanges {
        ByteRanges { boundary: Uuid::new_v4().simple().to_string(), size, ranges }
    }

    /// The `Content-Type` of the response.
    pub fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// The length of the body in bytes.
    pub fn length(&self) -> u64 {
        let parts = (0..self.ranges.len()).map(|number| {
            let range = &self.ranges[number];
            self.head(number).len() as u64 + (range.end - range.start)
        });
        parts.sum::<u64>() + self.end().len() as u64
    }

    /// The body. A part is read when all parts before it were sent.
    pub fn body(self, content: Content) -> Body {
        let length = self.length();
        let heads: Vec<String> = (0..self.ranges.len()).map(|number| self.head(number)).collect();
        let end = self.end();
        let parts = heads.into_iter().zip(content.read_each(self.ranges));
        let parts = stream::iter(parts).flat_map(|(head, bytes)| text(head).chain(bytes));
        exactly(length, parts.chain(text(end)).boxed())
    }

    /// The header of a part, with the line break that ends the previous part.
    fn head(&self, number: usize) -> String {
        let (range, line) = (&self.ranges[number], if number == 0 { "" } else { "\r\n" });
        format!(
            "{line}--{}\r\nContent-Type: application/octet-stream\r\nContent-Range: {}\r\n\r\n",
            self.boundary,
            content_range(range, self.size)
        )
    }

    fn end(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }
}

/// The `Content-Range` of a non-empty range in content of `size` bytes.
pub fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
}

fn text(text: String) -> stream::Once<std::future::Ready<std::io::Result<Bytes>>> {
    stream::once(std::future::ready(Ok(Bytes::from(text))))
}
