//! The application: it wires the flows, applies configuration changes, reports status and health, and
//! shuts down. It owns the start and stop of every flow, and never handles content itself. Nothing
//! imports it except the program.

pub mod access;
pub mod bucket_health;
pub mod credential_provider;
pub mod error;
pub mod flows;
mod issuers;
pub mod live;
pub mod probes;
pub mod shutdown;
pub mod status;
pub mod store_health;
pub mod tls;
pub mod wiring;
