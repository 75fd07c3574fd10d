//! The SDK's client: connections, trust store, region, credentials. The SDK's own retries,
//! checksums and stall protection are off, because the decorators and `body` replace them.

use super::credentials::FileCredentials;
use super::proxy::Routed;
use super::web_identity::WebIdentity;
use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    IdentityCache, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Default region. Services other than Amazon's accept any region, and they and their tools assume
/// this one.
const DEFAULT_REGION: &str = "us-east-1";

/// Timeout of the instance metadata service, which is on the same machine or does not exist.
const METADATA_PATIENCE: Duration = Duration::from_secs(1);

/// Why the S3 settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file of `caFile` is not a list of certificates in PEM.
    #[error("caFile: cannot load {path}: {why}")]
    CaFile {
        /// The path in `caFile`.
        path: PathBuf,
        /// The reason, for people.
        why: String,
    },
}

/// The inputs of a client. The client is created with the first request, because the region may
/// have to be looked up.
pub(super) struct Settings {
    http: SharedHttpClient,
    /// The connection pool of [`super::S3::background`].
    background_http: SharedHttpClient,
    region: Option<String>,
    endpoint: Option<String>,
    path_style: bool,
    credentials: Option<FileCredentials>,
    connect_timeout: Duration,
}

impl Settings {
    pub(super) fn new(bucket: &entrepot_config::Bucket, s3: &entrepot_config::S3) -> Result<Settings, ConnectError> {
        let mut trust = TrustStore::default();
        if let Some(path) = &s3.ca_file {
            trust.add_pem_certificate(certificates(path)?);
        }
        let tls = TlsContext::builder().with_trust_store(trust).build();
        let tls = tls.map_err(|error| ConnectError::CaFile {
            path: s3.ca_file.clone().unwrap_or_default(),
            why: error.to_string(),
        })?;
        let connections = |proxy: ProxyConfig| {
            let (tls, idle) = (tls.clone(), bucket.max_requests as usize);
            aws_smithy_http_client::Builder::new().build_with_connector_fn(move |timeouts, components| {
                let mut connector = Connector::builder()
                    // As many idle connections as concurrent requests, so the requests after a
                    // burst need no new handshakes.
                    .pool_max_idle_per_host(idle)
                    .proxy_config(proxy.clone());
                connector.set_connector_settings(timeouts.cloned());
                connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
                connector.tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls.clone()).build()
            })
        };
        let routes = || {
            let (proxied, direct) = (connections(ProxyConfig::from_env()), connections(ProxyConfig::disabled()));
            SharedHttpClient::new(Routed { proxied, direct })
        };
        Ok(Settings {
            http: routes(),
            background_http: routes(),
            region: s3.region.clone(),
            endpoint: s3.endpoint.as_deref().map(with_slash),
            path_style: s3.path_style,
            credentials: s3.credentials.as_ref().map(FileCredentials::open),
            connect_timeout: bucket.request_timeout.get(),
        })
    }

    pub(super) async fn client(&self) -> Client {
        let timeouts = TimeoutConfig::builder().connect_timeout(self.connect_timeout).build();
        let mut environment = aws_config::defaults(BehaviorVersion::latest())
            .http_client(self.http.clone())
            .timeout_config(timeouts)
            .region(self.region().await);
        if let Some(credentials) = &self.credentials {
            // The provider caches the keys and watches the files itself.
            environment =
                environment.credentials_provider(credentials.clone()).identity_cache(IdentityCache::no_cache());
        }
        let mut environment = environment.load().await;
        if self.credentials.is_none()
            && let Some(identity) = WebIdentity::of_environment(&environment)
        {
            environment = self.identified(environment, identity);
        }
        let mut config = aws_sdk_s3::config::Builder::from(&environment)
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .force_path_style(self.path_style);
        // Without this setting, the endpoint of the environment applies.
        if let Some(endpoint) = &self.endpoint {
            config = config.endpoint_url(endpoint);
        }
        Client::from_conf(config.build())
    }

    /// The same client with the same credentials, using the background connection pool.
    pub(super) fn background(&self, client: &Client) -> Client {
        Client::from_conf(client.config().to_builder().http_client(self.background_http.clone()).build())
    }

    /// The SDK's order of credential sources, with our web identity provider in place of the SDK's.
    fn identified(&self, environment: SdkConfig, identity: WebIdentity) -> SdkConfig {
        let provider = ProviderConfig::default().with_region(environment.region().cloned());
        let provider = provider.with_http_client(self.http.clone());
        let profile = ProfileFileCredentialsProvider::builder().configure(&provider).build();
        let keys = EnvironmentVariableCredentialsProvider::new();
        let asked = CredentialsProviderChain::first_try("environment", keys).or_else("profile", profile);
        let asked = asked.or_else("web identity", identity);
        environment.into_builder().credentials_provider(SharedCredentialsProvider::new(asked)).build()
    }

    /// The region, from the first of: the configuration, the environment, the shared files, the
    /// instance metadata.
    async fn region(&self) -> Region {
        if let Some(region) = &self.region {
            return Region::new(region.clone());
        }
        let named = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new());
        if let Some(region) = named.region().await {
            return region;
        }
        // Services other than Amazon's have no instance metadata.
        let found = if self.endpoint.is_none() { self.region_of_machine().await } else { None };
        found.unwrap_or_else(|| Region::from_static(DEFAULT_REGION))
    }

    async fn region_of_machine(&self) -> Option<Region> {
        let provider = ProviderConfig::default().with_http_client(self.http.clone());
        let metadata = aws_config::imds::Client::builder()
            .configure(&provider)
            .connect_timeout(METADATA_PATIENCE)
            .read_timeout(METADATA_PATIENCE)
            .max_attempts(1)
            .build();
        ImdsRegionProvider::builder().configure(&provider).imds_client(metadata).build().region().await
    }
}

/// Adds a slash, because otherwise the SDK appends the bucket's name to the last path segment of
/// the endpoint.
fn with_slash(endpoint: &str) -> String {
    if endpoint.ends_with('/') { endpoint.to_owned() } else { format!("{endpoint}/") }
}

/// The certificates of a PEM file. Each is validated, because the TLS library aborts the process on
/// an invalid one.
fn certificates(path: &Path) -> Result<Vec<u8>, ConnectError> {
    let refused = |why: String| ConnectError::CaFile { path: path.to_owned(), why };
    let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| refused(format!("not a PEM file with certificates: {error}")))?;
    if found.is_empty() {
        return Err(refused("it contains no certificate".to_owned()));
    }
    for certificate in found {
        rustls::RootCertStore::empty().add(certificate).map_err(|error| refused(error.to_string()))?;
    }
    Ok(pem)
}
