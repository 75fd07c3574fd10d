//! The listeners and their limits.

use crate::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The listener of the registry API, and limits of both listeners.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Http {
    /// Address and port of the registry API, at which clients push and pull. Plain HTTP, without
    /// authentication.
    pub listen: SocketAddr,
    // The former name of `operations.listen`, which scripts that run against every build still write.
    #[doc(hidden)]
    #[serde(rename = "operations", skip_serializing)]
    #[schemars(skip)]
    pub old_operations: Option<SocketAddr>,
    /// Maximum number of open connections. Further connections wait in the accept queue of the
    /// operating system.
    pub max_connections: u32,
    /// Maximum number of concurrent requests. Further requests get 503 with `Retry-After`.
    pub max_requests: u32,
    /// Time limit for receiving the headers of a request: measured from the start of the connection
    /// for the first request, and from the first byte for each later one.
    pub header_timeout: Duration,
    /// A connection without a request is closed after this time. It must be longer than the idle
    /// timeout of the load balancer in front of the nodes, because a request that arrives while the
    /// node closes the connection is lost. The usual timeouts are 60 s (nginx, AWS) and 600 s
    /// (Google). If all of `maxConnections` are in use, a new connection closes the one that was
    /// idle for the longest time.
    pub idle_timeout: Duration,
    /// A connection is closed if the client neither sends nor receives a byte of a body for this
    /// long.
    pub stall_timeout: Duration,
    /// Origins, such as `https://ui.example.com`, whose web pages may read responses of this
    /// registry in a browser (CORS). `*` allows every origin. If empty, no origin is allowed.
    pub allowed_origins: Vec<String>,
    /// Names of this registry in addition to the address to which the client connects, such as
    /// `registry.example.com`. They are needed if containerd reaches the registry through a mirror
    /// (`hosts.toml`) under a name that differs from the one in the image reference: a request with
    /// `?ns=` and any other name gets 404.
    pub namespaces: Vec<String>,
}

impl Default for Http {
    fn default() -> Http {
        Http {
            listen: SocketAddr::from(([127, 0, 0, 1], 5000)),
            old_operations: None,
            max_connections: 4096,
            max_requests: 1024,
            header_timeout: Duration::from_secs(15),
            // 20 s longer than the longest usual idle timeout, which is Google's: 600 s.
            idle_timeout: Duration::from_secs(620),
            stall_timeout: Duration::from_secs(60),
            allowed_origins: Vec::new(),
            namespaces: Vec::new(),
        }
    }
}
