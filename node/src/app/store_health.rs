//! Whether this node can write to its store, for `/readyz`. A node that cannot write accepts no
//! pushes, and load balancers should send them to another node. A full store does not count as a
//! failure: the node still serves its content, and eviction frees space.

use entrepot_runtime::clock::Stopwatch;
use entrepot_runtime::tasks::begin_blocking;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, oneshot};

/// How long a result is reused. Each check costs the disk a write and a sync, and the kubelet asks
/// every few seconds.
const FRESH: Duration = Duration::from_secs(5);
/// How long a request waits for the disk: less than the kubelet's timeout of one second. If the
/// disk takes longer, the previous result is returned, until `HANGS` has passed.
const PATIENCE: Duration = Duration::from_millis(500);
/// A disk that does not respond for this long counts as failed. On a busy disk a sync took up to
/// two seconds.
const HANGS: Duration = Duration::from_secs(10);

/// Whether the store can be written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreVerdict {
    /// A file could be written and removed, or the disk is only full.
    Writable,
    /// The reason, as text.
    Failing(String),
}

/// Checks the store's disk, one check at a time, so that a disk that hangs blocks only one thread.
pub struct StoreHealth {
    probe: Arc<dyn Fn() -> io::Result<()> + Send + Sync>,
    state: Mutex<State>,
}

struct State {
    last: Option<(Stopwatch, StoreVerdict)>,
    running: Option<(Stopwatch, oneshot::Receiver<io::Result<()>>)>,
}

impl StoreHealth {
    /// Checks the store in this directory.
    pub fn new(folder: &Path) -> StoreHealth {
        let file = folder.join("probe");
        StoreHealth::probing(move || write_and_remove(&file))
    }

    fn probing(probe: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> StoreHealth {
        StoreHealth { probe: Arc::new(probe), state: Mutex::new(State { last: None, running: None }) }
    }

    /// Whether the store can be written to, at most a few seconds old.
    pub async fn ask(&self) -> StoreVerdict {
        let mut state = self.state.lock().await;
        if let Some((asked, verdict)) = &state.last
            && asked.elapsed() < FRESH
        {
            return verdict.clone();
        }
        let (since, mut answer) = state.running.take().unwrap_or_else(|| self.begin());
        let verdict = match tokio::time::timeout(PATIENCE, &mut answer).await {
            Ok(Ok(result)) => told(result),
            Ok(Err(_)) => StoreVerdict::Failing("the check was cancelled".into()),
            Err(_) => {
                let hangs = since.elapsed() >= HANGS;
                let before = state.last.as_ref().map_or(StoreVerdict::Writable, |(_, verdict)| verdict.clone());
                state.running = Some((since, answer));
                return if hangs { StoreVerdict::Failing("the disk does not respond".into()) } else { before };
            }
        };
        state.last = Some((Stopwatch::start(), verdict.clone()));
        verdict
    }

    fn begin(&self) -> (Stopwatch, oneshot::Receiver<io::Result<()>>) {
        let (done, answer) = oneshot::channel();
        let probe = self.probe.clone();
        begin_blocking(move || done.send(probe()));
        (Stopwatch::start(), answer)
    }
}

fn told(result: io::Result<()>) -> StoreVerdict {
    match result {
        Ok(()) => StoreVerdict::Writable,
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            StoreVerdict::Writable
        }
        Err(error) => StoreVerdict::Failing(error.to_string()),
    }
}

/// Includes a sync, because a disk may accept bytes and then lose them.
fn write_and_remove(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(b"entrepot\n")?;
    file.sync_all()?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::sync_channel;

    async fn verdict(kind: io::ErrorKind) -> StoreVerdict {
        StoreHealth::probing(move || Err(kind.into())).ask().await
    }

    #[tokio::test]
    async fn a_writable_store_keeps_no_file_of_the_check() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(StoreHealth::new(folder.path()).ask().await, StoreVerdict::Writable);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let gone = StoreHealth::new(&folder.path().join("gone")).ask().await;
        assert!(matches!(&gone, StoreVerdict::Failing(why) if why.contains("No such file")), "{gone:?}");
    }

    #[tokio::test]
    async fn a_disk_that_fails_is_reported_and_a_full_one_is_not() {
        assert!(matches!(verdict(io::ErrorKind::ReadOnlyFilesystem).await, StoreVerdict::Failing(_)));
        assert!(matches!(verdict(io::ErrorKind::Other).await, StoreVerdict::Failing(_)));
        assert_eq!(verdict(io::ErrorKind::StorageFull).await, StoreVerdict::Writable);
        assert_eq!(verdict(io::ErrorKind::QuotaExceeded).await, StoreVerdict::Writable);
    }

    #[tokio::test]
    async fn concurrent_callers_share_one_check_of_the_disk() {
        let asked = Arc::new(AtomicU64::new(0));
        let counted = asked.clone();
        let health = StoreHealth::probing(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        tokio::join!(health.ask(), health.ask());
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        health.state.lock().await.last = None;
        health.ask().await;
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_disk_that_hangs_blocks_one_thread_and_is_reported_after_a_while() {
        let (release, released) = sync_channel(1);
        let released = parking_lot::Mutex::new(released);
        let asked = Arc::new(AtomicU64::new(0));
        let counted = asked.clone();
        let health = StoreHealth::probing(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            released.lock().recv().map_err(io::Error::other)
        });
        assert_eq!(health.ask().await, StoreVerdict::Writable, "it is only slow");
        let long_ago = Stopwatch::started_before(HANGS);
        if let Some((since, _)) = &mut health.state.lock().await.running {
            *since = long_ago;
        }
        assert!(matches!(health.ask().await, StoreVerdict::Failing(_)));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        release.send(()).unwrap();
        assert_eq!(health.ask().await, StoreVerdict::Writable);
    }
}
