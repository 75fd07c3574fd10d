//! Kubernetes clusters on which scenarios run: one of our own ([`OwnCluster`]), or an existing one
//! that a kubeconfig names ([`ExternalCluster`]).
//!
//! Our own cluster runs on one machine: etcd, API server, controllers, scheduler, and Kubernetes
//! nodes with containerd and kubelet. Every Kubernetes node runs in its own Linux namespaces, as a
//! `machine`. So does the storage: an S3 server and a registry for images. One network link
//! connects the host to them, over which it reaches Kubernetes nodes, pods and Services by their own
//! addresses. On the host, a cluster creates only this link, its routes, cgroups, and a folder in the
//! cache; `state` removes them even after this process was killed. It never touches a cluster that
//! it did not start.

mod audit;
mod control;
mod external;
mod kill;
mod kubectl;
mod machine;
mod network;
mod node;
mod own;
mod plan;
mod provisioner;
mod s3_keys;
mod services;
mod state;
mod storage;

pub use audit::{Audit, Mark, Request};
pub use external::{ExternalCluster, variables};
pub use kubectl::Kubectl;
pub use machine::{Lifetime, Machine};
pub use own::{Options, OwnCluster, with};
pub use provisioner::{FIXED, GROWING, classes, serve as provision};
pub use s3_keys::S3Request;
pub use state::{ProcessId, State, remove_unwanted};

use crate::container::Image;
use crate::s3::S3;
use anyhow::Result;
use futures::future::BoxFuture;
use std::path::Path;
use std::time::Duration;

/// Time limit for a part of the cluster to respond. The API server takes ten seconds on a loaded
/// machine.
const START: Duration = Duration::from_secs(180);

/// A Kubernetes cluster, as far as every backend has it. [`Kubectl`] adds what needs only this.
///
/// The host reaches pods and Services by their addresses.
pub trait Cluster: Send + Sync {
    /// A client with an administrator's credentials.
    fn client(&self) -> &kube::Client;

    /// The kubeconfig of an administrator.
    fn kubeconfig(&self) -> &Path;

    /// A folder for temporary files, which is removed with the cluster or at the end of the run.
    fn folder(&self) -> &Path;

    /// The S3 server, with one bucket. Its endpoint is reachable from the host; pods use
    /// `http://s3.storage:7070`.
    fn s3(&self) -> &S3;

    /// Pushes an image to a registry from which the cluster pulls, and returns its name for pods.
    /// `name` has a tag.
    ///
    /// # Errors
    /// If the registry rejects it.
    fn load_image<'a>(&'a self, image: &'a Image, name: &'a str) -> BoxFuture<'a, Result<String>>;

    /// The cluster as one of our own, whose nodes, S3 server and audit log are accessible; `None`
    /// for any other.
    fn own(&self) -> Option<&OwnCluster> {
        None
    }
}

async fn push_image(image: &Image, name: String) -> Result<String> {
    image.push(&name).await?;
    Ok(name)
}
