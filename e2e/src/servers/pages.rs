use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Serves documents at fixed paths, which is all that a client needs to verify an OpenID provider's
/// tokens. Every other path gets 404.
pub struct Pages {
    pub url: String,
    documents: Documents,
    task: JoinHandle<()>,
}

/// Documents by path.
#[derive(Clone, Default)]
struct Documents(Arc<Mutex<BTreeMap<String, String>>>);

impl Documents {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let found = self.lock().get(request.uri().path()).cloned();
        let status = if found.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
        let mut answer = Response::new(Full::from(found.unwrap_or_default()));
        *answer.status_mut() = status;
        answer
    }
}

impl Pages {
    /// A server without any document.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start() -> Result<Pages> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let documents = Documents::default();
        let task = tokio::spawn(accept(listener, documents.clone()));
        Ok(Pages { url, documents, task })
    }

    /// Serves a document at a path from now on.
    pub fn put(&self, path: &str, text: String) {
        self.documents.lock().insert(path.to_owned(), text);
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, documents: Documents) {
    while let Ok((stream, _)) = listener.accept().await {
        let documents = documents.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = documents.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
        });
    }
}
