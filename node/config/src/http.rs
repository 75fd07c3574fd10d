//! The listeners and their limits.

use crate::{ByteSize, Duration, Network, Tls};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The listener of the registry API, and limits of both listeners.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Http {
    /// Address and port of the registry API, at which clients push and pull: HTTPS if `tls` is set,
    /// else plain HTTP. Without authentication.
    pub listen: SocketAddr,
    /// The certificate of the registry API. If unset, the registry API is plain HTTP. The operations
    /// listener always is.
    pub tls: Option<Tls>,
    // The former name of `operations.listen`, which scripts that run against every build still write.
    #[doc(hidden)]
    #[serde(rename = "operations", skip_serializing)]
    #[schemars(skip)]
    pub old_operations: Option<SocketAddr>,
    /// Maximum number of open connections. Further connections wait in the accept queue of the
    /// operating system. One network (/24, or /64 for IPv6) may have as many connections as are
    /// free at the moment, so at most half. Above that, a new connection of this network closes its
    /// own idle or unfinished one, or is closed itself.
    pub max_connections: u32,
    /// Maximum number of concurrent requests. Further requests get 503 with `Retry-After`. One
    /// network (/24, or /64 for IPv6) may have as many as are free at the moment, so at most half.
    /// Above that, its requests wait up to 1 s for a place (10 s if they have a body), and then get
    /// 429 (503 if they have a body).
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
    /// A connection is closed if the client, while the node waits for it, neither sends nor receives
    /// `minRate` × this time of a body within this time.
    pub stall_timeout: Duration,
    /// Minimum rate in bytes per second at which a client must send and receive bodies, on average
    /// over `stallTimeout`. `0` requires only one byte within that time.
    pub min_rate: ByteSize,
    /// Networks or addresses of the proxies and load balancers in front of the nodes, such as
    /// `10.0.0.0/8`. The node believes `X-Forwarded-For` and `X-Forwarded-Proto` only from them: the
    /// client of a request is the last address in `X-Forwarded-For` that is not such a proxy. Without
    /// this, all clients behind a proxy count as one network.
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<Network>,
    /// Origins, such as `https://ui.example.com`, whose web pages may read responses of this
    /// registry in a browser (CORS), and may push and delete. `*` allows every origin. If empty, no
    /// origin is allowed. Requests of other web pages get 403.
    pub allowed_origins: Vec<String>,
    /// Names of this registry in addition to the address to which the client connects, such as
    /// `registry.example.com`. They are needed if containerd reaches the registry through a mirror
    /// (`hosts.toml`) under a name that differs from the one in the image reference: a request with
    /// `?ns=` and any other name gets 404. If `listen` is a loopback address, a request for another
    /// host name with a dot gets 403, unless a trusted proxy sent it, because a web page could reach
    /// the registry under such a name (DNS rebinding).
    pub namespaces: Vec<String>,
}

impl Default for Http {
    fn default() -> Http {
        Http {
            listen: SocketAddr::from(([127, 0, 0, 1], 5000)),
            tls: None,
            old_operations: None,
            max_connections: 4096,
            max_requests: 1024,
            header_timeout: Duration::from_secs(15),
            // 20 s longer than the longest usual idle timeout, which is Google's: 600 s.
            idle_timeout: Duration::from_secs(620),
            stall_timeout: Duration::from_secs(60),
            // With `stallTimeout`, 60 KiB in a minute. A socket reports that a client reads in steps
            // of up to 48 KiB (half of `TCP_NOTSENT_LOWAT`), so less could not be measured. Apache's
            // mod_reqtimeout requires 500 bytes per second, and Kestrel 240.
            min_rate: ByteSize::bytes(1024),
            trusted_proxies: Vec::new(),
            allowed_origins: Vec::new(),
            namespaces: Vec::new(),
        }
    }
}
