//! The composition root: every flow of a node, built from one environment. Tests build theirs with the
//! same function.

use super::error::StartError;
use crate::clean;
use crate::discover::Discover;
use crate::fetch::{Fetch, FetchParts};
use crate::http::Services;
use crate::manage::Manage;
use crate::observe::audit::Audit;
use crate::replicate::{OldestPending, Replicate};
use crate::repository::Environment;
use crate::scrub::{Refill, Scrub};
use crate::store::StoreError;
use crate::upload::Uploads;
use entrepot_access::AccessControl;
use entrepot_oci::Digest;
use entrepot_runtime::{BackgroundBlocking, BackgroundRuntime};
use std::sync::Arc;
use tokio::runtime::Handle;

/// The low-priority threads of a node.
pub struct Background {
    /// Receives downloads of large content.
    pub runtime: BackgroundRuntime,
    /// Writes and hashes large content.
    pub blocking: BackgroundBlocking,
}

impl Background {
    /// # Errors
    /// If the system cannot start the threads.
    pub fn start() -> Result<Background, StartError> {
        let failed = |source| StartError::System { what: "start threads", source };
        let runtime = BackgroundRuntime::new().map_err(failed)?;
        Ok(Background { runtime, blocking: BackgroundBlocking::new().map_err(failed)? })
    }

    /// The same, with the downloads on an existing runtime: that of a test.
    ///
    /// # Errors
    /// As [`Background::start`].
    pub fn on(runtime: Handle) -> Result<Background, StartError> {
        let failed = |source| StartError::System { what: "start threads", source };
        Ok(Background { runtime: BackgroundRuntime::on(runtime), blocking: BackgroundBlocking::new().map_err(failed)? })
    }
}

/// The flows that requests use.
pub struct Flows {
    /// Makes acknowledged content durable.
    pub replicate: Replicate,
    /// Receives uploads.
    pub uploads: Uploads,
    /// Serves content and tags.
    pub fetch: Fetch,
    /// Deletes.
    pub manage: Manage,
    /// Lists.
    pub discover: Discover,
}

impl Flows {
    /// Builds the flows, and resumes the uploads and pending blobs of earlier runs. Blocking.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn wire(env: &Environment, background: &Background) -> Result<Flows, StoreError> {
        let replicate = Replicate::start(env.clone());
        let replicator = Arc::new(replicate.clone());
        let uploads = Uploads::start(env.clone(), replicator.clone())?;
        let fetch = Fetch::new(FetchParts {
            env: env.clone(),
            replicator: replicator.clone(),
            background_runtime: background.runtime.clone(),
            background: background.blocking.clone(),
        });
        let manage = Manage::new(env.clone(), replicator);
        let discover = Discover::new(env.bucket.clone(), env.layout.clone());
        Ok(Flows { replicate, uploads, fetch, manage, discover })
    }

    /// Starts what a node does without requests: eviction, the scrub, and the metric of the oldest
    /// pending blob.
    ///
    /// # Errors
    /// If the metric cannot be registered.
    pub fn work(&self, env: &Environment, background: BackgroundBlocking) -> Result<(), StartError> {
        env.metrics.registry().register(Box::new(OldestPending::new(&self.replicate)?))?;
        let policy = env.config.store.eviction_policy;
        let sessions = Arc::new(self.uploads.clone());
        clean::start(&env.tasks, env.store.clone(), policy, sessions, env.metrics.clone());
        let scrub = Scrub {
            store: env.store.clone(),
            background,
            refill: Arc::new(Refills(self.fetch.clone())),
            clock: env.clock.clone(),
            metrics: env.metrics.clone(),
        };
        scrub.start(&env.tasks, &env.config.store.scrub);
        Ok(())
    }

    /// The flows as the HTTP layer uses them.
    pub fn services(self, env: &Environment, access: AccessControl, audit: Arc<Audit>) -> Services {
        Services {
            uploads: self.uploads,
            fetch: self.fetch,
            discover: self.discover,
            manage: self.manage,
            access,
            audit,
            metrics: env.metrics.clone(),
            read_only: env.config.read_only,
        }
    }
}

/// Downloads content that the scrub removed.
struct Refills(Fetch);

impl Refill for Refills {
    fn refill(&self, digest: &Digest) {
        self.0.refill(digest);
    }
}
