//! A minimal volume provisioner: each volume is a folder on the Kubernetes node to which the pod
//! was scheduled.
//!
//! It creates a volume for a claim, resizes it if its StorageClass allows that, and deletes it with
//! its claim. It does not enforce volume sizes.

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const NAME: &str = "entrepot.dev/folders";
/// The StorageClass whose volumes can be expanded; the default class.
pub const GROWING: &str = "standard";
/// The StorageClass whose volumes cannot be expanded.
pub const FIXED: &str = "fixed";
/// Delay before everything is checked again after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// The StorageClasses of a cluster.
pub fn classes() -> [Value; 2] {
    [(GROWING, true), (FIXED, false)].map(|(name, grows)| {
        json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": name,
                "annotations": {"storageclass.kubernetes.io/is-default-class": (name == GROWING).to_string()},
            },
            "provisioner": NAME,
            "allowVolumeExpansion": grows,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer",
        })
    })
}

/// Runs until it is killed. `machines` is the folder with the machines of the cluster, named after
/// the Kubernetes nodes.
///
/// # Errors
/// If the file is not a valid kubeconfig.
pub async fn serve(kubeconfig: &Path, machines: PathBuf) -> Result<()> {
    let client = super::control::client(kubeconfig).await?;
    let provisioner =
        Provisioner { claims: Api::all(client.clone()), volumes: Api::all(client.clone()), client, machines };
    println!("volume provisioner started");
    // Every event triggers a check of all claims and volumes. There are few, so this is cheap, and
    // none is missed.
    let claims = watcher(provisioner.claims.clone(), watcher::Config::default()).map(drop);
    let volumes = watcher(provisioner.volumes.clone(), watcher::Config::default()).map(drop);
    let mut events = futures::stream::select(claims, volumes).boxed();
    let mut failed = false;
    loop {
        let pause = if failed { AGAIN } else { Duration::from_secs(3600) };
        // The stream restarts a failed watch at once, so the loop needs its own delay.
        let event = tokio::time::timeout(pause, events.next()).await;
        if matches!(event, Ok(None)) {
            return Ok(());
        }
        failed = match provisioner.look().await {
            Ok(()) => false,
            Err(error) => {
                println!("{error:#}");
                tokio::time::sleep(AGAIN).await;
                true
            }
        };
    }
}

struct Provisioner {
    client: kube::Client,
    claims: Api<PersistentVolumeClaim>,
    volumes: Api<PersistentVolume>,
    machines: PathBuf,
}

impl Provisioner {
    async fn look(&self) -> Result<()> {
        let volumes = self.volumes.list(&ListParams::default()).await?.items;
        for volume in volumes.iter().filter(|volume| is_ours(volume)) {
            if volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Released") {
                self.delete(volume).await?;
            }
        }
        for claim in self.claims.list(&ListParams::default()).await?.items {
            let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
            match name.and_then(|name| volumes.iter().find(|volume| volume.metadata.name.as_ref() == Some(&name))) {
                Some(volume) if is_ours(volume) => self.grow(&claim, volume).await?,
                Some(_) => (),
                None => self.provide(&claim).await?,
            }
        }
        Ok(())
    }

    async fn provide(&self, claim: &PersistentVolumeClaim) -> Result<()> {
        let annotation = |name: &str| claim.metadata.annotations.as_ref()?.get(name).cloned();
        let ours = annotation("volume.kubernetes.io/storage-provisioner").as_deref() == Some(NAME);
        // The scheduler sets this annotation as soon as a pod uses the claim.
        let Some(node) = annotation("volume.kubernetes.io/selected-node").filter(|_| ours) else { return Ok(()) };
        let uid = claim.metadata.uid.as_deref().context("the claim has no uid")?;
        let name = format!("pvc-{uid}");
        if self.volumes.get_opt(&name).await?.is_some() {
            return Ok(());
        }
        let folder = self.folder(&node, &name);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        // Pods of any user write to the folder, as to a cloud's new volume with the fsGroup set.
        fs::set_permissions(&folder, Permissions::from_mode(0o777))?;
        let spec = claim.spec.as_ref().context("the claim has no spec")?;
        let volume = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": NAME}},
            "spec": {
                "capacity": {"storage": requested(claim)},
                "accessModes": spec.access_modes,
                "storageClassName": spec.storage_class_name,
                "persistentVolumeReclaimPolicy": "Delete",
                "local": {"path": format!("/var/lib/volumes/{name}")},
                "claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "uid": uid,
                    "namespace": claim.metadata.namespace, "name": claim.metadata.name,
                },
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]},
                ]}]}},
            },
        });
        self.volumes.create(&PostParams::default(), &serde_json::from_value(volume)?).await?;
        println!("created volume {name} on {node}");
        Ok(())
    }

    /// The API server ensures that a claim is enlarged only if its class allows it.
    async fn grow(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<()> {
        let has = |claim: &PersistentVolumeClaim| {
            serde_json::to_value(claim.status.as_ref()?.capacity.as_ref()?.get("storage")?).ok()
        };
        let wanted = requested(claim);
        let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        if !bound || has(claim).as_ref() == Some(&wanted) {
            return Ok(());
        }
        let (namespace, claim_name) = (
            claim.metadata.namespace.as_deref().context("the claim has no namespace")?,
            claim.metadata.name.as_deref().context("the claim has no name")?,
        );
        let name = volume.metadata.name.as_deref().context("the volume has no name")?;
        let params = PatchParams::default();
        let capacity = json!({"spec": {"capacity": {"storage": wanted}}});
        self.volumes.patch(name, &params, &Patch::Merge(capacity)).await?;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let status = json!({"status": {"capacity": {"storage": wanted}}});
        claims.patch_status(claim_name, &params, &Patch::Merge(status)).await?;
        println!("resized volume {name} to {wanted}");
        Ok(())
    }

    async fn delete(&self, volume: &PersistentVolume) -> Result<()> {
        let name = volume.metadata.name.as_deref().context("the volume has no name")?;
        for machine in fs::read_dir(&self.machines)? {
            let folder = machine?.path().join("lib/volumes").join(name);
            if folder.exists() {
                fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
            }
        }
        match self.volumes.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => (),
            other => drop(other?),
        }
        println!("deleted volume {name}");
        Ok(())
    }

    fn folder(&self, node: &str, volume: &str) -> PathBuf {
        self.machines.join(node).join("lib/volumes").join(volume)
    }
}

fn is_ours(volume: &PersistentVolume) -> bool {
    let annotations = volume.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get("pv.kubernetes.io/provisioned-by")).is_some_and(|name| name == NAME)
}

/// The capacity that a claim requests.
fn requested(claim: &PersistentVolumeClaim) -> Value {
    let requests = || claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage");
    serde_json::to_value(requests()).unwrap_or_default()
}
