//! The object storage that all nodes share.

use crate::{ByteSize, Duration};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::path::PathBuf;

/// The object storage that all nodes share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BucketFields", into = "BucketFields")]
pub struct Bucket {
    /// The service or the directory.
    pub backend: BucketConfig,
    /// Prefix of all object keys.
    pub prefix: String,
    /// Maximum number of concurrent requests.
    pub max_requests: u32,
    /// Maximum number of bytes that are sent at the same time.
    pub max_bytes_in_flight: ByteSize,
    /// Time limit for each step of a request.
    pub request_timeout: Duration,
    /// Total time for which a failed request is retried.
    pub retry_budget: Duration,
}

/// Where the objects are.
#[derive(Clone, Debug, PartialEq)]
pub enum BucketConfig {
    /// Amazon S3 or a compatible service.
    S3(S3),
    /// A directory.
    FileSystem(FileSystem),
}

impl Default for BucketConfig {
    fn default() -> BucketConfig {
        BucketConfig::FileSystem(FileSystem::default())
    }
}

impl Default for Bucket {
    fn default() -> Bucket {
        Bucket {
            backend: BucketConfig::default(),
            prefix: String::new(),
            max_requests: 128,
            max_bytes_in_flight: ByteSize::mebibytes(256),
            request_timeout: Duration::from_secs(30),
            retry_budget: Duration::from_secs(15),
        }
    }
}

impl Bucket {
    /// This bucket with the defaults of all other fields.
    #[must_use]
    pub fn of(backend: BucketConfig) -> Bucket {
        Bucket { backend, ..Bucket::default() }
    }
}

// The form of `Bucket` in YAML, where the name of a field selects the backend.
/// The object storage that all nodes share: exactly one of `s3` and `fileSystem`.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct BucketFields {
    /// Amazon S3 or a compatible service.
    s3: Option<S3>,
    /// A directory, for one node or for several nodes that mount the same file system.
    // The outer option is `None` if the field is missing, which selects the default directory
    // unless `s3` is set. The inner one is `None` for an explicit null, which selects nothing.
    #[serde(deserialize_with = "present")]
    #[schemars(with = "Option<FileSystem>")]
    file_system: Option<Option<FileSystem>>,
    /// Prefix of all object keys, before `docker/registry/v2/`: empty, or a relative path that ends
    /// with `/`. It corresponds to `rootdirectory` of CNCF Distribution without the leading slash.
    prefix: String,
    /// Maximum number of concurrent requests to the bucket.
    max_requests: u32,
    /// Maximum number of bytes that all uploads together send to the bucket at the same time.
    max_bytes_in_flight: ByteSize,
    /// Time limit of each step of a request to the bucket: connecting, the start of the response, and
    /// each pause within the request body or the response body.
    request_timeout: Duration,
    /// Total time for which a failed request to the bucket is retried, with growing and randomized
    /// pauses. After it, the client gets 503 with `Retry-After`.
    retry_budget: Duration,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<FileSystem>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Default for BucketFields {
    fn default() -> BucketFields {
        let mut fields = BucketFields::from(Bucket::default());
        fields.file_system = None;
        fields
    }
}

impl From<Bucket> for BucketFields {
    fn from(bucket: Bucket) -> BucketFields {
        let Bucket { backend, prefix, max_requests, max_bytes_in_flight, request_timeout, retry_budget } = bucket;
        let (s3, file_system) = match backend {
            BucketConfig::S3(s3) => (Some(s3), None),
            BucketConfig::FileSystem(folder) => (None, Some(folder)),
        };
        let file_system = Some(file_system);
        BucketFields { s3, file_system, prefix, max_requests, max_bytes_in_flight, request_timeout, retry_budget }
    }
}

impl TryFrom<BucketFields> for Bucket {
    type Error = &'static str;

    fn try_from(fields: BucketFields) -> Result<Bucket, &'static str> {
        let BucketFields { s3, file_system, prefix, max_requests, max_bytes_in_flight, request_timeout, retry_budget } =
            fields;
        let backend = match (s3, file_system) {
            (Some(s3), None | Some(None)) => BucketConfig::S3(s3),
            (None, Some(Some(folder))) => BucketConfig::FileSystem(folder),
            (None, None) => BucketConfig::default(),
            (None, Some(None)) => return Err("one of s3 and fileSystem is required"),
            (Some(_), Some(Some(_))) => return Err("s3 and fileSystem are mutually exclusive; remove one of them"),
        };
        Ok(Bucket { backend, prefix, max_requests, max_bytes_in_flight, request_timeout, retry_budget })
    }
}

impl JsonSchema for Bucket {
    fn schema_name() -> Cow<'static, str> {
        "Bucket".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BucketFields::json_schema(generator)
    }
}

/// Amazon S3 or a compatible service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct S3 {
    /// Name of the bucket. The bucket must exist.
    pub name: String,
    /// Region of the bucket. If unset: the region from the AWS environment variables or the AWS
    /// configuration files, else, without `endpoint`, the region from the instance metadata, else
    /// `us-east-1`.
    pub region: Option<String>,
    /// URL of an S3-compatible service, for example `https://s3.storage:7070`. If unset, the AWS
    /// endpoint of the region is used. Connections use the proxy that the environment variables
    /// `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` select. Over `http://` to another machine,
    /// everybody on the way can read the images and the access key ID, and can change what the node
    /// reads; a session token is refused then.
    pub endpoint: Option<String>,
    /// Use path-style instead of virtual-hosted-style addressing. Most S3-compatible services
    /// require it.
    pub path_style: bool,
    /// PEM file with CA certificates to trust in addition to those of the system. It is read once,
    /// at the start.
    pub ca_file: Option<PathBuf>,
    /// Static keys from files, which are read again when they change. If unset, the standard AWS
    /// credential chain is used: environment variables, shared files, web identity, container roles
    /// and instance roles.
    pub credentials: Option<S3Credentials>,
    /// Whether objects and parts are sent with checksums (SHA-256, CRC-32C). With a checksum, the
    /// service rejects bytes that differ from those that the node received. Use `Off` for a service
    /// that fails on checksums with an error that does not name them.
    pub checksums: S3Checksums,
}

/// Whether objects and parts are sent with checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum S3Checksums {
    /// Send checksums until the service rejects one as unsupported.
    #[default]
    Auto,
    /// Never send checksums.
    Off,
}

/// Static keys from files, such as the files of a mounted Kubernetes Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct S3Credentials {
    /// File with the access key ID. Required.
    pub access_key_id_file: PathBuf,
    /// File with the secret access key. Required.
    pub secret_access_key_file: PathBuf,
    /// File with the session token. If unset, no session token is used.
    pub session_token_file: Option<PathBuf>,
}

/// A directory that is used as the bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct FileSystem {
    /// The directory. It is created if it does not exist. It corresponds to `rootdirectory` of CNCF
    /// Distribution.
    pub path: PathBuf,
}

impl Default for FileSystem {
    fn default() -> FileSystem {
        FileSystem { path: "entrepot-data/bucket".into() }
    }
}
