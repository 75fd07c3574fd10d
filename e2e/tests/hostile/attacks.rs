//! The attacks, in bounded form: each opens a number of connections and holds them.

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

/// How long the client tries to send. A node that does not read more must not block the attack.
const SENDING: Duration = Duration::from_secs(5);
/// Number of connections that are opened at the same time.
const AT_ONCE: usize = 64;

/// What is attacked.
pub struct Target {
    /// Address and port.
    pub host: String,
    /// Path of a blob that the node cannot store.
    pub large: String,
    /// Path of a blob that the node has stored.
    pub stored: String,
}

/// The connections of an attack. It ends when they are dropped.
pub type Held = Vec<TcpStream>;

/// Starts an attack.
pub type Attack = for<'a> fn(&'a Target) -> BoxFuture<'a, Held>;

/// All attacks, by what they use up.
pub const ATTACKS: &[(&str, Attack)] = &[
    ("connections with half a head", |target| open(target, 3000, "GET /v2/ HTTP/1.1\r\nHost: x\r\n".into()).boxed()),
    ("large unfinished heads", |target| {
        open(target, 1000, format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Long: {}", "a".repeat(60_000))).boxed()
    }),
    ("unfinished manifests", |target| {
        let length = 4 << 20;
        let head = format!("PUT /v2/hostile/a/manifests/t HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        open(target, 100, head + &" ".repeat(length - 1)).boxed()
    }),
    ("bodies that stop", |target| {
        let head = "POST /v2/hostile/a/blobs/uploads/?digest=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 \
                    HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nx";
        open(target, 600, head.to_owned()).boxed()
    }),
    ("readers that do not read what is stored", |target| open(target, 1000, get(&target.stored)).boxed()),
    ("readers that do not read what passes through", |target| open(target, 200, get(&target.large)).boxed()),
];

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// Opens connections that receive as little as possible, and sends the same on each.
async fn open(target: &Target, count: usize, text: String) -> Held {
    let address: SocketAddr = target.host.parse().unwrap();
    let connect = |_| {
        let text = text.as_bytes();
        async move {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            let mut stream = socket.connect(address).await.ok()?;
            // The node may close the connection or stop reading, as it should.
            let _ = tokio::time::timeout(SENDING, stream.write_all(text)).await;
            Some(stream)
        }
    };
    let opened = futures::stream::iter(0..count).map(connect).buffer_unordered(AT_ONCE);
    opened.filter_map(std::future::ready).collect().await
}

/// Raises the limit of open files to what the system allows.
pub fn allow_many_sockets() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let most = limit.current.unwrap_or(u64::MAX);
    assert!(most >= 8192, "at most {most} open files: raise the hard limit (ulimit -Hn) to 8192");
}
