//! Requests to the API server.

use super::{API_SERVER, unavailable};
use crate::AuthError;
use crate::https::{HttpsClient, HttpsOptions, HttpsResponse, Trust};
use entrepot_config::Kubernetes;
use entrepot_runtime::tasks::blocking;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Time for a question. A client waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Questions at the same time. Others wait for their turn, within their time.
const AT_ONCE: usize = 32;

/// An answer is a few KiB. Directories with many groups give more.
const MAX_ANSWER: usize = 1 << 20;

/// The API server, as this node may ask it.
pub(super) struct Api {
    client: HttpsClient,
    url: String,
    token_file: PathBuf,
}

/// A kind of question.
pub(super) struct Kind {
    api_version: &'static str,
    kind: &'static str,
    /// The name of the kind in a path.
    resource: &'static str,
}

/// Who a token belongs to.
pub(super) const TOKEN_REVIEW: Kind =
    Kind { api_version: "authentication.k8s.io/v1", kind: "TokenReview", resource: "tokenreviews" };

/// Whether somebody may do something.
pub(super) const ACCESS_REVIEW: Kind =
    Kind { api_version: "authorization.k8s.io/v1", kind: "SubjectAccessReview", resource: "subjectaccessreviews" };

/// A question: an object that is created and never stored.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a, S> {
    api_version: &'static str,
    kind: &'static str,
    spec: &'a S,
}

#[derive(Deserialize)]
struct Answer<T> {
    status: T,
}

impl Api {
    pub(super) fn new(config: &Kubernetes) -> Api {
        let options = HttpsOptions {
            trust: Trust::Only(config.ca_file.clone()),
            timeout: PATIENCE,
            max_response: MAX_ANSWER,
            at_once: AT_ONCE,
        };
        let url = config.api_server.trim_end_matches('/').to_owned();
        Api { client: HttpsClient::new(options), url, token_file: config.token_file.clone() }
    }

    /// The token of this node, read again: the kubelet replaces it.
    pub(super) async fn own_token(&self) -> Result<SecretString, AuthError> {
        let path = self.token_file.clone();
        let text = blocking(move || std::fs::read_to_string(path)).await.flatten();
        text.map(|text| SecretString::from(text.trim().to_owned())).map_err(|error| {
            unavailable(format!("cannot read auth.kubernetes.tokenFile {}: {error}", self.token_file.display()))
        })
    }

    /// The status that the API server gives to `spec`.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        kind: &Kind,
        spec: &(impl Serialize + Sync),
    ) -> Result<T, AuthError> {
        let Kind { api_version, kind, resource } = kind;
        let token = self.own_token().await?;
        let url = format!("{}/apis/{api_version}/{resource}", self.url);
        let sent = self.client.post_json(&url, Some(&token), &Question { api_version, kind, spec }).await;
        let HttpsResponse { status, body } = sent.map_err(|error| error.unavailable(API_SERVER))?;
        match status {
            200 | 201 => {}
            401 => return Err(unavailable("it refuses the token of this node (auth.kubernetes.tokenFile)")),
            403 => {
                let why = format!("this node may not create {resource}: bind the ClusterRole system:auth-delegator");
                return Err(unavailable(why));
            }
            status => return Err(unavailable(format!("it answers {status} to {kind}"))),
        }
        // Neither the answer nor the error of the parser is shown, because they may contain a token.
        let answer = serde_json::from_slice::<Answer<T>>(&body);
        answer.map(|answer| answer.status).map_err(|_| unavailable(format!("its answer is not a {kind}")))
    }
}
