//! A client that discards what it reads and uses as little CPU time as possible, because the sender
//! is what the benchmarks measure.
//!
//! The task that reads from a connection also drives it, so no other thread wakes up for each
//! piece. All data is read into the same memory, as wrk does. hyper's pooled client has a task for
//! each connection; with it, cached pulls from every system ended near 3 GiB/s on the two cores of
//! `docs/reference/benchmarks.md`, because the client was the bottleneck.

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use entrepot_e2e::client::{TIMEOUT, UnexpectedStatus};
use entrepot_e2e::push::IMAGE;
use futures::FutureExt;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Bytes per read. This much stays in the nearest caches of a core.
const READ: usize = 64 << 10;

/// Downloads from one server. Clones share the connections.
#[derive(Clone)]
pub struct Downloads {
    /// Host and port.
    host: String,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Downloads {
    pub fn from(url: &str) -> Downloads {
        let host = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Downloads { host, idle: Arc::default() }
    }

    /// Downloads a path and discards the body. Returns the number of bytes and the time to the
    /// first byte.
    ///
    /// # Errors
    /// If the response is not 200, ends early, or takes longer than [`TIMEOUT`].
    pub async fn get(&self, path: &str) -> Result<(u64, Duration)> {
        let answer = tokio::time::timeout(TIMEOUT, self.answer(path)).await;
        answer.with_context(|| format!("{path}: the download took longer than {TIMEOUT:?}"))?
    }

    async fn answer(&self, path: &str) -> Result<(u64, Duration)> {
        let start = Instant::now();
        let mut connection = self.connection().await?;
        let request = Request::get(path)
            .header(header::HOST, &self.host)
            // Distribution does not accept `*/*` for its manifests.
            .header(header::ACCEPT, IMAGE)
            .body(Empty::new())?;
        let answer = connection.sender.send_request(request);
        let answer = driven(&mut connection.driver, answer).await?.with_context(|| path.to_owned())?;
        let status = answer.status().as_u16();
        if status != 200 {
            return Err(UnexpectedStatus::of(status, 200)).with_context(|| path.to_owned());
        }
        let (mut body, mut bytes, mut first) = (answer.into_body(), 0, None);
        while !body.is_end_stream() {
            let Some(frame) = driven(&mut connection.driver, body.frame()).await? else { break };
            first.get_or_insert_with(|| start.elapsed());
            bytes += frame?.data_ref().map_or(0, Bytes::len) as u64;
        }
        self.idle().push(connection);
        Ok((bytes, first.unwrap_or_else(|| start.elapsed())))
    }

    /// Downloads a path like [`Downloads::get`] and returns the throughput in bytes per second.
    ///
    /// # Errors
    /// The same as for [`Downloads::get`].
    pub async fn drain(&self, path: &str) -> Result<f64> {
        let start = Instant::now();
        let (bytes, _) = self.get(path).await?;
        Ok(bytes as f64 / start.elapsed().as_secs_f64())
    }

    /// An idle open connection, or a new one.
    async fn connection(&self) -> Result<Connection> {
        loop {
            let Some(mut connection) = self.idle().pop() else { return Connection::to(&self.host).await };
            if connection.is_open() {
                return Ok(connection);
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Driver = Pin<Box<http1::Connection<TokioIo<TcpStream>, Empty<Bytes>>>>;

struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    driver: Driver,
}

impl Connection {
    async fn to(host: &str) -> Result<Connection> {
        let stream = TcpStream::connect(host).await.with_context(|| host.to_owned())?;
        stream.set_nodelay(true)?;
        let mut builder = http1::Builder::new();
        builder.read_buf_exact_size(Some(READ));
        let (sender, driver) = builder.handshake(TokioIo::new(stream)).await?;
        Ok(Connection { sender, driver: Box::pin(driver) })
    }

    /// Whether the connection can take a request: the last response was read, and the server has
    /// not closed the connection since.
    fn is_open(&mut self) -> bool {
        (&mut self.driver).now_or_never().is_none() && self.sender.is_ready()
    }
}

/// Drives a connection until the awaited value is ready.
async fn driven<T>(driver: &mut Driver, awaited: impl Future<Output = T>) -> Result<T> {
    let mut awaited = pin!(awaited);
    poll_fn(|context| {
        if let Poll::Ready(value) = awaited.as_mut().poll(context) {
            return Poll::Ready(Ok(value));
        }
        let driven = driver.as_mut().poll(context);
        // The driver may just have received the awaited value, also if the connection ended.
        if let Poll::Ready(value) = awaited.as_mut().poll(context) {
            return Poll::Ready(Ok(value));
        }
        match driven {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(())) => Poll::Ready(Err(anyhow!("the server closed the connection"))),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_e2e::client::is_transient;
    use entrepot_e2e::wait;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    /// Serves a list of responses on each connection, one response per request, and closes the
    /// connection after the last.
    async fn serve(connections: &'static [&'static [&'static str]]) -> (Downloads, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let downloads = Downloads::from(&format!("http://{}", listener.local_addr().unwrap()));
        let server = tokio::spawn(async move {
            for answers in connections {
                let (mut stream, _) = listener.accept().await.unwrap();
                for answer in *answers {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        request.push(stream.read_u8().await.unwrap());
                    }
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        (downloads, server)
    }

    const FIVE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";

    #[tokio::test]
    async fn all_bytes_are_counted_over_one_connection() {
        let (downloads, server) = serve(&[&[FIVE, CHUNKED, FIVE]]).await;
        for bytes in [5, 7, 5] {
            assert_eq!(downloads.get("/").await.unwrap().0, bytes);
        }
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_is_replaced() {
        let (downloads, server) = serve(&[&[FIVE], &[FIVE]]).await;
        assert_eq!(downloads.get("/").await.unwrap().0, 5);
        let is_closed = async || !downloads.idle().iter_mut().all(Connection::is_open);
        wait::until("the connection is closed", Duration::from_secs(10), is_closed).await.unwrap();
        assert_eq!(downloads.get("/").await.unwrap().0, 5);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn half_an_answer_and_a_refusal_are_errors() {
        const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc";
        const REFUSAL: &str = "HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\n\r\n";
        let (downloads, server) = serve(&[&[HALF], &[REFUSAL]]).await;
        for _ in 0..2 {
            assert!(is_transient(&downloads.get("/").await.unwrap_err()));
        }
        assert!(downloads.idle().is_empty(), "neither connection is used again");
        server.await.unwrap();
        assert!(is_transient(&downloads.get("/").await.unwrap_err()), "no server listens");
    }
}
