//! The HTTP layer: the OCI distribution-spec 1.1 over HTTP/1.1 and HTTP/2, with or without
//! TLS. It is the only place that knows status codes.
//!
//! A request passes these folders from top to bottom; each uses only those below it:
//!
//! - `listen`: connections, and limits for how slow a client may be.
//! - `pipeline`: what happens to every request, as stages in one order.
//! - `api`: which operation a request is for, and the handlers. A handler calls one flow and writes
//!   the response.
//! - `error`: every refusal and failure. Only this folder chooses their statuses and codes.
//!
//! `tls` is the certificates and keys of `listen` and of requests to other nodes. `leave` wraps the
//! pipeline while the node drains. `operations` is the second listener.
//!
//! Bodies of blobs are streams in both directions. This layer never decides what is true (the flows
//! do), and never touches the bucket or the disk.
#![allow(clippy::disallowed_types)]

mod api;
mod authority;
mod client_address;
mod error;
mod headers;
mod leave;
mod listen;
pub mod operations;
mod pace;
mod pipeline;
mod query;
pub mod tls;

pub use api::Services;
pub use client_address::ClientAddress;
pub use leave::asking_to_leave;
pub use listen::Server;
pub use pipeline::{Forwarding, router};
