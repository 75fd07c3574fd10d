//! The pod template of a node. It satisfies the restricted Pod Security Standard.

use super::paths::{CA_FOLDER, CONFIG_FILE, CONFIG_FOLDER, CREDENTIALS_FOLDER, VOLUME_FOLDER};
use super::shutdown::{PRE_STOP, TERMINATION_GRACE};
use super::sources::Sources;
use crate::crd::{Bucket, CaKind, RegistryClusterSpec};
use crate::names::{CONFIG_HASH, CONTAINER, Identity, OPERATIONS_PORT, REGISTRY_PORT, VOLUME};
use serde_json::{Value, json};

/// The unprivileged user of the image.
const USER: i64 = 65532;

pub(super) fn template(sources: &Sources<'_>) -> Value {
    let Sources { identity, spec, image, config_hash, .. } = sources;
    let mut pod = json!({
        "serviceAccountName": identity.name,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": TERMINATION_GRACE.as_secs(),
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            // A store has many files: their owner is changed only once, not at every start.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            spread(identity, "kubernetes.io/hostname"),
            spread(identity, "topology.kubernetes.io/zone"),
        ],
        "containers": [container(spec, image)],
        "volumes": volumes(identity, &spec.bucket),
    });
    let scheduling = &spec.scheduling;
    if !scheduling.node_selector.is_empty() {
        pod["nodeSelector"] = json!(scheduling.node_selector);
    }
    if !scheduling.tolerations.is_empty() {
        pod["tolerations"] = json!(scheduling.tolerations);
    }
    if let Some(affinity) = &scheduling.affinity {
        pod["affinity"] = json!(affinity);
    }
    if let Some(class) = &scheduling.priority_class_name {
        pod["priorityClassName"] = json!(class);
    }
    json!({
        "metadata": {"labels": identity.labels(), "annotations": {CONFIG_HASH: config_hash}},
        "spec": pod,
    })
}

/// Spreads pods where possible; a cluster with a single Kubernetes node still runs all of them.
fn spread(identity: &Identity, key: &str) -> Value {
    json!({
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": identity.selector()},
    })
}

fn container(spec: &RegistryClusterSpec, image: &str) -> Value {
    let mut resources = json!({});
    if !spec.resources.requests.is_empty() {
        resources["requests"] = json!(spec.resources.requests);
    }
    if !spec.resources.limits.is_empty() {
        resources["limits"] = json!(spec.resources.limits);
    }
    json!({
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["--config", format!("{CONFIG_FOLDER}/{CONFIG_FILE}")],
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [
            {"name": "registry", "containerPort": REGISTRY_PORT, "protocol": "TCP"},
            {"name": "operations", "containerPort": OPERATIONS_PORT, "protocol": "TCP"},
        ],
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
        },
        "volumeMounts": mounts(&spec.bucket),
        // Opening a large store takes a while. The kubelet restarts the container after ten
        // minutes.
        "startupProbe": probe("/livez", 1, 600),
        "livenessProbe": probe("/livez", 10, 6),
        "readinessProbe": probe("/readyz", 2, 2),
        // The kubelet itself sleeps, because the image has no shell.
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP.as_secs()}}},
    })
}

fn probe(path: &str, period: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": "operations"},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 5,
    })
}

fn mounts(bucket: &Bucket) -> Value {
    let mut mounts = vec![
        json!({"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": true}),
        json!({"name": VOLUME, "mountPath": VOLUME_FOLDER}),
    ];
    if bucket.auth.secret_ref.is_some() {
        mounts.push(json!({"name": "credentials", "mountPath": CREDENTIALS_FOLDER, "readOnly": true}));
    }
    if bucket.ca_bundle_ref.is_some() {
        mounts.push(json!({"name": "ca", "mountPath": CA_FOLDER, "readOnly": true}));
    }
    json!(mounts)
}

fn volumes(identity: &Identity, bucket: &Bucket) -> Value {
    let mut volumes = vec![json!({"name": "config", "configMap": {"name": identity.config_map()}})];
    if let Some(secret) = &bucket.auth.secret_ref {
        let mut items = vec![
            json!({"key": secret.access_key_id_key, "path": "accessKeyId"}),
            json!({"key": secret.secret_access_key_key, "path": "secretAccessKey"}),
        ];
        if let Some(key) = &secret.session_token_key {
            items.push(json!({"key": key, "path": "sessionToken"}));
        }
        // Optional, so that nodes start without the Secret and serve what they have stored; a
        // condition reports what is missing.
        volumes.push(json!({
            "name": "credentials",
            "secret": {"secretName": secret.name, "items": items, "optional": true, "defaultMode": 0o440},
        }));
    }
    if let Some(bundle) = &bucket.ca_bundle_ref {
        let items = json!([{"key": bundle.key, "path": "ca.crt"}]);
        volumes.push(match bundle.kind {
            CaKind::ConfigMap => json!({"name": "ca", "configMap": {"name": bundle.name, "items": items}}),
            CaKind::Secret => {
                json!({"name": "ca", "secret": {"secretName": bundle.name, "items": items, "defaultMode": 0o440}})
            }
        });
    }
    json!(volumes)
}
