//! Clients that push and pull all the time and retry as real clients do; a final refusal counts as
//! a failure.

use crate::client::{self, Registry};
use crate::push::{IMAGE, Image};
use crate::wait;
use anyhow::{Context, Result, ensure};
use rand::seq::IndexedRandom;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

/// Number of attempts, as of containerd, which retries a request with growing pauses.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Minimum time per operation of a client, so that the load leaves CPU for others.
const PACE: Duration = Duration::from_millis(150);
/// Time limit for the clients to make the progress that is waited for.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An image whose push was acknowledged.
pub struct Pushed {
    pub repository: String,
    pub tag: String,
    pub image: Image,
}

/// The clients' results so far.
#[derive(Default)]
struct Account {
    pushed: Mutex<Vec<Arc<Pushed>>>,
    pulled: AtomicUsize,
    /// Number of requests that were retried.
    again: AtomicUsize,
    failures: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// Running clients. They stop when the value is dropped.
pub struct Load {
    registry: Registry,
    account: Arc<Account>,
    clients: JoinSet<()>,
}

/// How a client uses connections: a kubelet opens new ones for each image, a build server keeps its
/// own.
#[derive(Clone, Copy)]
enum Connections {
    Fresh,
    Kept,
}

impl Load {
    /// Starts two clients that push and two that pull.
    pub fn start(registry: &Registry) -> Load {
        let account = Arc::new(Account::default());
        let mut clients = JoinSet::new();
        for (name, connections) in [("fresh", Connections::Fresh), ("kept", Connections::Kept)] {
            clients.spawn(push(name, registry.clone(), connections, Arc::clone(&account)));
            clients.spawn(pull(registry.clone(), connections, Arc::clone(&account)));
        }
        Load { registry: registry.clone(), account, clients }
    }

    /// Waits until this many more images were pushed, and this many pulled.
    ///
    /// # Errors
    /// If a client failed, or there is no progress.
    pub async fn goes_on(&self, more: usize) -> Result<()> {
        let (pushed, pulled) = (self.pushed() + more, self.account.pulled.load(Relaxed) + more);
        wait::until(&format!("{more} more images were pushed and pulled"), TIMEOUT, || async {
            let enough = self.pushed() >= pushed && self.account.pulled.load(Relaxed) >= pulled;
            enough || !lock(&self.account.failures).is_empty()
        })
        .await?;
        self.ensure_no_failure()
    }

    fn pushed(&self) -> usize {
        lock(&self.account.pushed).len()
    }

    fn ensure_no_failure(&self) -> Result<()> {
        let failures = lock(&self.account.failures);
        ensure!(failures.is_empty(), "{} clients failed: {}", failures.len(), failures.join("\n"));
        Ok(())
    }

    /// Lets the clients finish their operations, then pulls every acknowledged image.
    ///
    /// # Errors
    /// If a client failed at any time, or an image is not complete.
    pub async fn stop(mut self) -> Result<()> {
        self.account.stop.store(true, Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended?;
        }
        self.ensure_no_failure()?;
        let pushed = lock(&self.account.pushed).clone();
        println!(
            "{} images pushed, {} pulled, {} requests retried, none failed",
            pushed.len(),
            self.account.pulled.load(Relaxed),
            self.account.again.load(Relaxed)
        );
        for image in &pushed {
            pull_once(&self.registry, image, &self.account).await.context("cannot pull an acknowledged image")?;
        }
        Ok(())
    }
}

async fn push(name: &str, registry: Registry, connections: Connections, account: Arc<Account>) {
    let mut pace = tokio::time::interval(PACE);
    for number in 0.. {
        pace.tick().await;
        if account.stop.load(Relaxed) {
            return;
        }
        let registry = connections.of(&registry);
        let image = Image::fresh(&[70_000, 300]);
        let pushed = Pushed { repository: format!("load/{name}"), tag: number.to_string(), image };
        match push_once(&registry, &pushed, &account).await {
            Ok(()) => lock(&account.pushed).push(Arc::new(pushed)),
            Err(error) => lock(&account.failures).push(format!("{error:#}")),
        }
    }
}

async fn pull(registry: Registry, connections: Connections, account: Arc<Account>) {
    let mut pace = tokio::time::interval(PACE);
    loop {
        pace.tick().await;
        if account.stop.load(Relaxed) {
            return;
        }
        let Some(chosen) = lock(&account.pushed).choose(&mut rand::rng()).cloned() else { continue };
        match pull_once(&connections.of(&registry), &chosen, &account).await {
            Ok(()) => drop(account.pulled.fetch_add(1, Relaxed)),
            Err(error) => lock(&account.failures).push(format!("{error:#}")),
        }
    }
}

impl Connections {
    fn of(self, registry: &Registry) -> Registry {
        match self {
            Connections::Fresh => Registry::new(registry.url()),
            Connections::Kept => registry.clone(),
        }
    }
}

async fn push_once(registry: &Registry, pushed: &Pushed, account: &Account) -> Result<()> {
    let Pushed { repository, tag, image } = pushed;
    for blob in image.blobs() {
        retry(account, "push of a blob", || registry.push(repository, blob)).await?;
    }
    let manifest = || async { registry.put_manifest(repository, tag, IMAGE, &image.manifest).await?.expect(201) };
    retry(account, "push of a manifest", manifest).await.map(drop)
}

async fn pull_once(registry: &Registry, pushed: &Pushed, account: &Account) -> Result<()> {
    let Pushed { repository, tag, image } = pushed;
    let manifest = || async { registry.manifest(repository, tag).await?.expect(200) };
    let manifest = retry(account, "pull of a manifest", manifest).await?;
    ensure!(manifest.body == image.manifest, "{repository}:{tag} refers to a different manifest: {:?}", manifest.body);
    for blob in image.blobs() {
        retry(account, "pull of a blob", || registry.pull(repository, &blob.digest)).await?;
    }
    Ok(())
}

/// Retries transient errors, and prints each retry.
async fn retry<T, F>(account: &Account, what: &str, attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut tries = 1;
    let again = |error: &anyhow::Error| {
        tries += 1;
        account.again.fetch_add(1, Relaxed);
        println!("retrying {what}: {error:#}");
    };
    let result = client::retry(TRIES, FIRST_PAUSE, attempt, again).await;
    result.with_context(|| format!("{what} failed after {tries} attempts"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
