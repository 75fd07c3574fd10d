//! HTTP: the OCI distribution-spec 1.1 over HTTP/1.1 and HTTP/2 without TLS. The only place that knows status codes.
//!
//! A request is parsed into a [`routes::Route`], which holds nothing but valid types; a handler (`uploads`, `blobs`,
//! `manifests`, `tags`, `referrers`, `catalog`) asks one flow and writes the answer; every refusal and failure is an
//! [`error::ApiError`], whose `IntoResponse` alone chooses statuses and codes. `dispatch` leads through that, as the one
//! handler of an axum router, and observes and limits it; `namespace` refuses what is another registry's, and `cors` says
//! which web pages may read an answer. `server` owns connections and what slow clients may do to them, `exchange` knows
//! what each is doing, and `places` which of them ends when there are too many; `forward` passes requests of a session to
//! the node that has it; `operations` is the second listener.
//!
//! Bodies of blobs are streams in both directions. The flows decide what is true; nothing here touches the bucket or
//! the disk.
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
