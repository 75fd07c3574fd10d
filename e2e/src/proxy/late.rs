//! Requests that arrive after their client has given up.

use super::{AnswerBody, Dropped, Shared, forward};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The requests that are held, and those that arrived late.
#[derive(Default)]
pub struct Late {
    held: AtomicU32,
    arrived: Mutex<Vec<(Method, String)>>,
}

impl Late {
    pub fn held(&self) -> u32 {
        self.held.load(Ordering::SeqCst)
    }

    pub fn arrived(&self) -> Vec<(Method, String)> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads the whole request and forwards it after `delay` in its own task. The client gets the
/// response if it still waits.
pub async fn hold(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    target: String,
    delay: Duration,
) -> Result<Response<AnswerBody>, Dropped> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    shared.late.held.fetch_add(1, Ordering::SeqCst);
    let delivery = tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        let arrived = (parts.method.clone(), target.clone());
        let answer = forward(&shared, Request::from_parts(parts, Full::new(body)), &target, None).await;
        // Read the whole response, because only then is the request surely completed.
        let answer = match answer {
            Ok(answer) => {
                let (parts, body) = answer.into_parts();
                body.collect().await.map(|body| Response::from_parts(parts, body.to_bytes()))
            }
            Err(error) => Err(error),
        };
        shared.late.arrived.lock().unwrap_or_else(PoisonError::into_inner).push(arrived);
        shared.late.held.fetch_sub(1, Ordering::SeqCst);
        answer
    });
    let answer = delivery.await.map_err(io::Error::other)??;
    Ok(answer.map(|body| Full::new(body).map_err(super::infallible).boxed_unsync()))
}

#[cfg(test)]
mod tests {
    use crate::Registry;
    use crate::client::full;
    use crate::proxy::{Fault, Proxy, Rule};
    use crate::wait;
    use http::Method;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server for requests with a body of four bytes, and the bodies that it received.
    async fn server() -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let taken: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = taken.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.windows(4).any(|end| end == b"\r\n\r\n") || request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let mut body = vec![*request.last().unwrap(); 4];
                stream.read_exact(&mut body[1..]).await.unwrap();
                noted.lock().unwrap().push(String::from_utf8(body).unwrap());
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
            }
        });
        (url, taken)
    }

    #[tokio::test]
    async fn a_late_request_arrives_after_its_client_gave_up() {
        let (url, taken) = server().await;
        let proxy = Proxy::start(&url).await.unwrap();
        proxy.fail(Rule::always("/late", Fault::Late(Duration::from_millis(200))).times(1));
        let registry = Registry::new(&proxy.url);
        let first = registry.send(Method::PUT, "/late", &[], full("late"));
        assert!(
            tokio::time::timeout(Duration::from_millis(50), first).await.is_err(),
            "the request got a response at once"
        );
        registry.send(Method::PUT, "/late", &[], full("next")).await.unwrap().expect(200).unwrap();
        assert_eq!(proxy.held(), 1);
        wait::until("the held request arrives", Duration::from_secs(10), || async { proxy.held() == 0 }).await.unwrap();
        assert_eq!(*taken.lock().unwrap(), ["next", "late"]);
        assert_eq!(proxy.arrived_late(), [(Method::PUT, "/late".to_owned())]);
    }

    #[tokio::test]
    async fn a_late_request_is_answered_when_its_client_waits() {
        let (url, _) = server().await;
        let proxy = Proxy::start(&url).await.unwrap();
        proxy.fail(Rule::always("/late", Fault::Late(Duration::from_millis(20))).times(1));
        let reply = Registry::new(&proxy.url).send(Method::PUT, "/late", &[], full("late")).await.unwrap();
        assert_eq!((reply.status, &reply.body[..]), (200, &b"ok"[..]));
    }

    #[tokio::test]
    async fn a_request_whose_answer_is_lost_was_done() {
        let (url, taken) = server().await;
        let proxy = Proxy::start(&url).await.unwrap();
        proxy.fail(Rule::always("/lost", Fault::LoseAnswer).times(1));
        let registry = Registry::new(&proxy.url);
        assert!(registry.send(Method::PUT, "/lost", &[], full("once")).await.is_err());
        assert_eq!(*taken.lock().unwrap(), ["once"]);
        let seen = proxy.take_requests();
        assert_eq!(seen[0].fault, Some("response lost"));
    }
}
