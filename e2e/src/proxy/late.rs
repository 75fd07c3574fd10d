//! Requests that arrive after whoever sent them has given up.

use super::{AnswerBody, Dropped, Shared, forward};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is held, and what was.
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

/// Reads the whole request, and passes it on after `delay` in a task of its own. The answer goes to whoever still waits.
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
        // Its whole answer, because only then nothing of it is still to happen.
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
