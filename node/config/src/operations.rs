//! The listener for probes and metrics.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The listener for probes and metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Operations {
    /// Address and port of `/livez`, `/readyz`, `/metrics` and `/status`. Do not expose it to
    /// clients.
    pub listen: SocketAddr,
}

impl Default for Operations {
    fn default() -> Operations {
        Operations { listen: SocketAddr::from(([127, 0, 0, 1], 5001)) }
    }
}
