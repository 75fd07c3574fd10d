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

#[path = "api/blobs.rs"]
mod blobs;
#[path = "api/body.rs"]
mod body;
#[path = "api/byteranges.rs"]
mod byteranges;
#[path = "api/catalog.rs"]
mod catalog;
#[path = "pipeline/cors.rs"]
mod cors;
#[path = "pipeline/mod.rs"]
mod dispatch;
mod error;
#[path = "listen/exchange.rs"]
mod exchange;
#[path = "pipeline/forward.rs"]
mod forward;
mod headers;
#[path = "pipeline/drain.rs"]
mod linger;
#[path = "api/manifests.rs"]
mod manifests;
#[path = "pipeline/namespace.rs"]
mod namespace;
pub mod operations;
#[path = "api/page.rs"]
mod page;
#[path = "listen/places.rs"]
mod places;
mod query;
#[path = "api/referrers.rs"]
mod referrers;
#[path = "pipeline/request_id.rs"]
mod request_id;
#[path = "api/route.rs"]
mod routes;
#[path = "listen/mod.rs"]
pub mod server;
#[path = "listen/watchdog.rs"]
mod stall;
#[path = "api/tags.rs"]
mod tags;
#[path = "api/uploads.rs"]
mod uploads;

pub use dispatch::{Services, router};
pub use server::Server;
