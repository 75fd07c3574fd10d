//! Temporary credentials from a token in a file. The cluster uses the token to identify the pod to
//! the cloud.
//!
//! The SDK's own provider rejects a response that does not name the assumed role, and MinIO's does
//! not.

use super::credentials::read;
use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_sts::Client;
use entrepot_runtime::tasks::blocking;
use std::path::PathBuf;
use std::time::SystemTime;

/// Default name of the session in the cloud's log, unless the environment sets another.
const SESSION: &str = "entrepot";

/// Exchanges the token in a file for the credentials of a role, at a security token service (STS).
#[derive(Debug)]
pub(super) struct WebIdentity {
    sts: Client,
    token_file: PathBuf,
    role: String,
    session: String,
}

impl WebIdentity {
    /// `None` unless the environment names a token file and a role, as clouds set them in pods.
    pub(super) fn of_environment(config: &SdkConfig) -> Option<WebIdentity> {
        let named = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Some(WebIdentity {
            sts: service(config),
            token_file: named("AWS_WEB_IDENTITY_TOKEN_FILE")?.into(),
            role: named("AWS_ROLE_ARN")?,
            session: named("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| SESSION.to_owned()),
        })
    }

    async fn assume(&self) -> provider::Result {
        // Read each time, because the file gets a new token before the previous one expires.
        let path = self.token_file.clone();
        let token = blocking(move || read(&path)).await.map_err(CredentialsError::provider_error)?;
        let token = token.map_err(CredentialsError::provider_error)?;
        let request = self.sts.assume_role_with_web_identity();
        let request = request.role_arn(&self.role).role_session_name(&self.session).web_identity_token(token);
        let answer = request.send().await.map_err(CredentialsError::provider_error)?;
        let given = answer.credentials.ok_or_else(|| {
            CredentialsError::unhandled("the response of the security token service has no credentials")
        })?;
        let end = SystemTime::try_from(given.expiration).map_err(CredentialsError::unhandled)?;
        let token = Some(given.session_token);
        Ok(Credentials::new(given.access_key_id, given.secret_access_key, token, Some(end), "web identity"))
    }
}

/// A client of the service that the environment names, otherwise of Amazon's. The SDK does not
/// retry here either.
fn service(config: &SdkConfig) -> Client {
    let config = aws_sdk_sts::config::Builder::from(config).retry_config(RetryConfig::disabled());
    Client::from_conf(config.build())
}

impl ProvideCredentials for WebIdentity {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.assume())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::errors::Unanswered;
    use crate::s3::tests::{Answer, Scripted, answer};
    use crate::{BucketErrorKind, Operation};
    use aws_config::{BehaviorVersion, Region};
    use aws_credential_types::provider::SharedCredentialsProvider;

    /// MinIO's response, unchanged except for the keys.
    const GIVEN: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>
<AssumedRoleUser><Arn></Arn><AssumeRoleId></AssumeRoleId></AssumedRoleUser><Credentials>
<AccessKeyId>id</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><Expiration>2030-01-01T00:00:00Z</Expiration>
<SessionToken>session</SessionToken></Credentials><SubjectFromWebIdentityToken>nodes</SubjectFromWebIdentityToken>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"#;

    const REFUSED: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type></Type>
<Code>InvalidParameterValue</Code><Message>Token is expired</Message></Error></ErrorResponse>"#;

    /// The settings of a bucket and the identity of a pod, both with that endpoint.
    async fn pod(endpoint: &str, token: &tempfile::NamedTempFile) -> (SdkConfig, WebIdentity) {
        std::fs::write(token.path(), "token\n").unwrap();
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(Region::from_static("us-east-1"))
            .endpoint_url(endpoint)
            .no_credentials();
        let config = loader.load().await;
        let identity = WebIdentity {
            sts: service(&config),
            token_file: token.path().to_owned(),
            role: "arn:minio:iam:::role/nodes".into(),
            session: SESSION.into(),
        };
        (config, identity)
    }

    #[tokio::test]
    async fn a_response_that_does_not_name_the_role_is_accepted() {
        let (server, token) = (Scripted::start([answer("200 OK", "", GIVEN)]).await, file());
        let credentials = pod(&server.endpoint, &token).await.1.assume().await.unwrap();
        assert_eq!((credentials.access_key_id(), credentials.secret_access_key()), ("id", "secret"));
        assert_eq!(credentials.session_token(), Some("session"));
        assert!(credentials.expiry().is_some());
    }

    fn file() -> tempfile::NamedTempFile {
        tempfile::NamedTempFile::new().unwrap()
    }

    #[tokio::test]
    async fn a_failure_of_the_token_service_is_transient_and_a_rejection_is_not() {
        for (said, kind) in [
            (Answer::Close, BucketErrorKind::Connection),
            (answer("503 Service Unavailable", "", ""), BucketErrorKind::SlowDown),
            (answer("500 Internal Server Error", "", ""), BucketErrorKind::Server),
            (answer("400 Bad Request", "", REFUSED), BucketErrorKind::NoCredentials),
        ] {
            let (server, token) = (Scripted::start([said]).await, file());
            let (config, identity) = pod(&server.endpoint, &token).await;
            let config = config.into_builder().credentials_provider(SharedCredentialsProvider::new(identity)).build();
            let config = aws_sdk_s3::config::Builder::from(&config).retry_config(RetryConfig::disabled()).build();
            let request = aws_sdk_s3::Client::from_conf(config).get_object().bucket("images").key("key");
            let error = request.send().await.expect_err("there are no credentials").failed(Operation::Get, "key").error;
            assert_eq!(error.kind, kind, "{error:?}");
        }
    }

    #[tokio::test]
    async fn the_error_for_a_missing_token_names_its_file() {
        let (server, token) = (Scripted::start([]).await, file());
        let identity = pod(&server.endpoint, &token).await.1;
        let path = token.path().to_owned();
        token.close().unwrap();
        let error = identity.assume().await.unwrap_err();
        let causes: Vec<_> = crate::s3::errors::chain(&error).map(ToString::to_string).collect();
        assert!(causes.join(": ").contains(path.to_str().unwrap()), "{causes:?}");
    }
}
