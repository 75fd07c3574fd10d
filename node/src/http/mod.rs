//! The HTTP layer: the OCI distribution-spec 1.1 over HTTP/1.1 and HTTP/2 without TLS. It is the
//! only place that knows status codes.
//!
//! A request passes these folders from top to bottom; each uses only those below it:
//!
//! - `listen`: connections, and limits for how slow a client may be.
//! - `pipeline`: what happens to every request, as stages in one order.
//! - `api`: which operation a request is for, and the handlers. A handler calls one flow and writes
//!   the response.
//! - `error`: every refusal and failure. Only this folder chooses their statuses and codes.
//!
//! `operations` is the second listener.
//!
//! Bodies of blobs are streams in both directions. This layer never decides what is true (the flows
//! do), and never touches the bucket or the disk.
#![allow(clippy::disallowed_types)]

mod api;
mod error;
mod headers;
mod listen;
pub mod operations;
mod pipeline;
mod query;

pub use api::Services;
pub use listen::Server;
pub use pipeline::router;
