//! The HTTP layer: the OCI distribution-spec 1.1 over HTTP/1.1 and HTTP/2 without TLS. It is the
//! only place that knows status codes.
//!
//! A request is parsed into a `routes::Route`, which holds only valid types. A handler
//! (`uploads`, `blobs`, `manifests`, `tags`, `referrers`, `catalog`) calls one flow and writes the
//! response. Every refusal and failure is an `error::ApiError`, and only its `IntoResponse`
//! chooses statuses and codes.
//!
//! - `dispatch` is the one handler of an axum router: it runs these steps, limits requests and
//!   records metrics.
//! - `namespace` refuses requests for the content of another registry.
//! - `cors` states which web pages may read a response.
//! - `server` owns connections and limits how slow a client may be.
//! - `exchange` knows what each connection is doing.
//! - `places` chooses the connection to close when there are too many.
//! - `forward` sends requests of an upload session to the node that owns it.
//! - `operations` is the second listener.
//!
//! Bodies of blobs are streams in both directions. This layer never decides what is true (the flows
//! do), and never touches the bucket or the disk.
#![allow(clippy::disallowed_types)]

mod blobs;
mod body;
mod byteranges;
mod catalog;
mod cors;
mod dispatch;
mod error;
mod exchange;
mod forward;
mod headers;
mod linger;
mod manifests;
mod namespace;
pub mod operations;
mod page;
mod places;
mod query;
mod referrers;
mod request_id;
mod routes;
pub mod server;
mod stall;
mod tags;
mod uploads;

pub use dispatch::{Services, router};
pub use server::Server;
