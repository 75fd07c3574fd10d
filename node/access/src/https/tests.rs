use super::*;
use crate::testing::{Server, response};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn options(trust: Trust) -> HttpsOptions {
    HttpsOptions { trust, timeout: Duration::from_secs(20), max_response: 1000, at_once: 2 }
}

fn client(server: &Server) -> HttpsClient {
    HttpsClient::new(options(Trust::Only(server.ca_file())))
}

#[tokio::test]
async fn a_request_carries_the_token_and_the_json_and_gets_status_and_body() {
    let server = Server::start(|request: Request<Bytes>| async move {
        let header = |name| request.headers().get(name).map_or("none", |value| value.to_str().unwrap());
        let (token, kind) = (header("authorization"), header("content-type"));
        let body = String::from_utf8_lossy(request.body());
        response(418, format!("{} {} {token} {kind} {body}", request.method(), request.uri()))
    })
    .await;
    let client = client(&server);
    let token = SecretString::from("secret\n");
    let got = client.get(&format!("{}/a?b", server.url), Some(&token)).await.unwrap();
    assert_eq!(got, HttpsResponse { status: 418, body: "GET /a?b Bearer secret none ".into() });
    let got = client.post_json(&server.url, None, &serde_json::json!({"a": 1})).await.unwrap();
    assert_eq!(got.body, "POST / none application/json {\"a\":1}");
}

#[tokio::test]
async fn a_server_is_trusted_only_by_its_ca_and_a_replaced_ca_file_takes_effect_at_once() {
    let (server, other) =
        (Server::start(|_| async { response(200, "") }).await, Server::start(|_| async { response(200, "") }).await);
    for trust in [Trust::System(None), Trust::System(Some(other.ca_file())), Trust::Only(other.ca_file())] {
        let error = HttpsClient::new(options(trust)).get(&server.url, None).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    assert!(HttpsClient::new(options(Trust::System(Some(server.ca_file())))).get(&server.url, None).await.is_ok());
    let file = other.ca_file();
    let client = HttpsClient::new(options(Trust::Only(file.clone())));
    assert!(client.get(&server.url, None).await.is_err());
    std::fs::copy(server.ca_file(), &file).unwrap();
    assert!(client.get(&server.url, None).await.is_ok());
    std::fs::write(&file, "nothing").unwrap();
    let error = client.get(&server.url, None).await.unwrap_err().to_string();
    assert!(error.contains("ca.crt: it contains no certificate"), "{error}");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_a_large_response_is_refused() {
    let hits = Arc::new(AtomicUsize::new(0));
    let counted = hits.clone();
    let server = Server::start(move |request: Request<Bytes>| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            match request.uri().path() {
                "/large" => response(200, vec![b'x'; 1001]),
                "/exact" => response(200, vec![b'x'; 1000]),
                _ => {
                    let mut redirect = response(302, "");
                    redirect.headers_mut().insert("location", "/exact".parse().unwrap());
                    redirect
                }
            }
        }
    })
    .await;
    let client = client(&server);
    assert_eq!(client.get(&server.url, None).await.unwrap().status, 302);
    assert_eq!(hits.load(Ordering::SeqCst), 1);
    assert_eq!(client.get(&format!("{}/exact", server.url), None).await.unwrap().body.len(), 1000);
    let error = client.get(&format!("{}/large?token=secret", server.url), None).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{}/large: the response is larger than 1000 bytes", server.url));
}

#[tokio::test]
async fn a_request_that_takes_too_long_fails_and_frees_its_turn() {
    let server = Server::start(|request: Request<Bytes>| async move {
        if request.uri().path() == "/hang" {
            std::future::pending::<()>().await;
        }
        response(200, "")
    })
    .await;
    // The turns are held until the timeout, so the third request waits for one and fails with them.
    let short = HttpsOptions { timeout: Duration::from_secs(2), ..options(Trust::Only(server.ca_file())) };
    let client = HttpsClient::new(short);
    let hang = format!("{}/hang", server.url);
    let (one, two, three) = tokio::join!(client.get(&hang, None), client.get(&hang, None), client.get(&hang, None));
    for error in [one.unwrap_err(), two.unwrap_err(), three.unwrap_err()] {
        assert_eq!(error, HttpsError::Timeout { url: hang.clone(), limit: Duration::from_secs(2) });
    }
    let patient = client.get(&server.url, None).await;
    assert_eq!(patient.map(|response| response.status), Ok(200));
}

#[tokio::test]
async fn no_more_requests_than_allowed_run_at_the_same_time() {
    let running = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let seen = running.clone();
    let server = Server::start(move |_| {
        let running = running.clone();
        async move {
            let now = running.0.fetch_add(1, Ordering::SeqCst) + 1;
            running.1.fetch_max(now, Ordering::SeqCst);
            tokio::task::yield_now().await;
            running.0.fetch_sub(1, Ordering::SeqCst);
            response(200, "")
        }
    })
    .await;
    let client = client(&server);
    let get = || client.get(&server.url, None);
    let (a, b, c, d, e) = tokio::join!(get(), get(), get(), get(), get());
    assert!([a, b, c, d, e].iter().all(Result::is_ok));
    assert!(seen.1.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn a_plain_url_is_refused_unless_it_is_of_this_machine_and_no_error_shows_a_secret() {
    let client = HttpsClient::new(options(Trust::System(None)));
    for url in ["http://example.com/x", "ftp://localhost/x", "http://127.0.0.1.example.com", "x", "https:///x"] {
        let error = client.get(url, None).await.unwrap_err();
        assert!(matches!(error, HttpsError::Invalid { .. }), "{url}: {error}");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for scheme in ["http", "https"] {
        let error = client.get(&format!("{scheme}://user:secret@{closed}/path?key=secret"), None).await.unwrap_err();
        assert!(matches!(error, HttpsError::Failed { .. }), "{error:?}");
        assert!(error.to_string().starts_with(&format!("{scheme}://{closed}/path: ")), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let token = SecretString::from("sec\nret");
    let error = client.get("https://localhost/", Some(&token)).await.unwrap_err();
    assert!(!error.to_string().contains("ret") && matches!(error, HttpsError::Invalid { .. }), "{error}");
}
