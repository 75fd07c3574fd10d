//! The configuration of the nodes, and its text in the ConfigMap.

use super::paths::{ACCESS_KEY_ID, CA_FILE, SECRET_ACCESS_KEY, SESSION_TOKEN, STORE_FOLDER};
use super::shutdown::DRAIN;
use crate::crd::{self, RegistryCluster};
use crate::names::{Identity, OPERATIONS_PORT, REGISTRY_PORT};
use crate::reconcile::storage::Volume;
use entrepot_config::{
    Bucket, BucketConfig, ByteSize, ConfigError, Duration, Http, Links, Log, LogFormat, Node, NodeConfig, NodeName,
    Operations, PeerUrl, Replication, S3, S3Credentials, Shutdown, Store, TagPatterns, Tags,
};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;

/// The environment variable from which a pod takes the name of its node.
pub const POD_NAME: &str = "POD_NAME";

/// The configuration as it is written to the ConfigMap.
pub(super) struct ConfigText {
    pub(super) text: String,
    /// Hash of the part of the configuration that requires a restart when it changes.
    pub(super) hash: String,
}

impl ConfigText {
    pub(super) fn of(config: &NodeConfig) -> Result<ConfigText, ConfigError> {
        let at_start = config.at_start().to_shared_yaml(POD_NAME)?;
        let hash = hex::encode(&Sha256::digest(at_start.as_bytes())[..8]);
        Ok(ConfigText { text: config.to_shared_yaml(POD_NAME)?, hash })
    }
}

/// The configuration of the nodes with volumes of this size. It has the name of the registry where a
/// pod puts its own.
///
/// # Errors
/// If a node would reject a value; the message names the node's field.
pub fn configuration(
    cluster: &RegistryCluster,
    identity: &Identity,
    volume: &Volume,
) -> Result<NodeConfig, ConfigError> {
    let spec = &cluster.spec;
    let Identity { namespace, .. } = identity;
    let on_all_addresses = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let peers = format!("http://{{node}}.{}.{namespace}.svc:{REGISTRY_PORT}", identity.nodes_service());
    Ok(NodeConfig {
        node: Node {
            name: NodeName::parse(&identity.name).map_err(|error| invalid("node.name", error))?,
            peer_url: Some(PeerUrl::parse(&peers).map_err(|error| invalid("node.peerUrl", error))?),
            ..Node::default()
        },
        http: Http { listen: on_all_addresses(REGISTRY_PORT), namespaces: spec.namespaces.clone(), ..Http::default() },
        operations: Operations { listen: on_all_addresses(OPERATIONS_PORT) },
        bucket: bucket(&spec.bucket),
        store: Store {
            path: STORE_FOLDER.into(),
            capacity: Some(capacity(&spec.store, volume)),
            low_free: spec.store.low_free,
            target_free: spec.store.target_free,
            eviction_policy: spec.store.eviction_policy,
            ..Store::default()
        },
        replication: Replication { mode: spec.replication, ..Replication::default() },
        links: Links { fresh_for: spec.links.fresh_for, stale_if_error: spec.links.stale_if_error },
        tags: Tags {
            fresh_for: spec.tags.fresh_for,
            immutable: TagPatterns::new(spec.tags.immutable.clone())
                .map_err(|error| invalid("tags.immutable", error))?,
        },
        read_only: spec.read_only,
        log: Log { format: LogFormat::Json, ..Log::default() },
        // The pod's preStop hook delays the SIGTERM, so the node does not have to.
        shutdown: Shutdown { drain_delay: Duration::from_secs(0), grace_period: Duration::from_secs(DRAIN.as_secs()) },
        ..NodeConfig::default()
    })
}

fn invalid(field: &'static str, error: impl std::error::Error) -> ConfigError {
    ConfigError::Value { field: field.to_owned(), problem: error.to_string() }
}

/// Size of the volumes, so that a node never uses more of a shared disk than its own share. While
/// an expansion runs and the old volumes are too small for the new thresholds, already the new
/// size; the node also limits itself to the size of its file system.
fn capacity(store: &crd::Store, volume: &Volume) -> ByteSize {
    let size = volume.size.get();
    let (low, target) = (store.low_free.of(size), store.target_free.of(size));
    if low < target && target < size { volume.size } else { store.size }
}

fn bucket(spec: &crd::Bucket) -> Bucket {
    let credentials = spec.auth.secret_ref.as_ref().map(|secret| S3Credentials {
        access_key_id_file: ACCESS_KEY_ID.into(),
        secret_access_key_file: SECRET_ACCESS_KEY.into(),
        session_token_file: secret.session_token_key.as_ref().map(|_| SESSION_TOKEN.into()),
    });
    let s3 = S3 {
        name: spec.name.clone(),
        region: spec.region.clone(),
        endpoint: spec.endpoint.clone(),
        path_style: spec.path_style,
        ca_file: spec.ca_bundle_ref.as_ref().map(|_| CA_FILE.into()),
        credentials,
        ..S3::default()
    };
    Bucket { prefix: spec.prefix.clone(), ..Bucket::of(BucketConfig::S3(s3)) }
}
