//! Whether this node can write to its store, for `/readyz`: a node that cannot takes no pushes, and load balancers are to
//! send them to another. A full store is no such case: it serves what it has, and the cleaner makes room.

use super::clock::Stopwatch;
use super::tasks::begin_blocking;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, oneshot};

/// For how long an answer is given again. Each asks the disk for a write and a sync, and kubelet comes every few seconds.
const FRESH: Duration = Duration::from_secs(5);
/// For how long a question waits for the disk: less than the second that kubelet waits for the answer. A disk that takes
/// longer is taken to be as it was before, until it hangs.
const PATIENCE: Duration = Duration::from_millis(500);
/// A disk that says nothing for so long hangs: on a busy one a sync took up to two seconds.
const HANGS: Duration = Duration::from_secs(10);

/// Whether the store takes what is written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreVerdict {
    Writable,
    /// Why not, in words.
    Failing(String),
}

/// Asks the store's disk, one question at a time: a disk that hangs keeps one thread and no more.
pub struct StoreHealth {
    probe: Arc<dyn Fn() -> io::Result<()> + Send + Sync>,
    state: Mutex<State>,
}

struct State {
    last: Option<(Stopwatch, StoreVerdict)>,
    running: Option<(Stopwatch, oneshot::Receiver<io::Result<()>>)>,
}

impl StoreHealth {
    /// Of the store in this folder.
    pub fn new(folder: &Path) -> StoreHealth {
        let file = folder.join("probe");
        StoreHealth::probing(move || write_and_remove(&file))
    }

    fn probing(probe: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> StoreHealth {
        StoreHealth { probe: Arc::new(probe), state: Mutex::new(State { last: None, running: None }) }
    }

    /// Whether the store can be written to, as of a few seconds ago at most.
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
            Ok(Err(_)) => StoreVerdict::Failing("the probe was cut off".into()),
            Err(_) => {
                let hangs = since.elapsed() >= HANGS;
                let before = state.last.as_ref().map_or(StoreVerdict::Writable, |(_, verdict)| verdict.clone());
                state.running = Some((since, answer));
                return if hangs { StoreVerdict::Failing("the disk does not answer".into()) } else { before };
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

/// With a sync: a disk may take bytes that it then loses.
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
    async fn a_store_that_takes_a_file_is_writable_and_keeps_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(StoreHealth::new(folder.path()).ask().await, StoreVerdict::Writable);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let gone = StoreHealth::new(&folder.path().join("gone")).ask().await;
        assert!(matches!(&gone, StoreVerdict::Failing(why) if why.contains("No such file")), "{gone:?}");
    }

    #[tokio::test]
    async fn a_disk_that_fails_is_told_and_a_full_one_is_not() {
        assert!(matches!(verdict(io::ErrorKind::ReadOnlyFilesystem).await, StoreVerdict::Failing(_)));
        assert!(matches!(verdict(io::ErrorKind::Other).await, StoreVerdict::Failing(_)));
        assert_eq!(verdict(io::ErrorKind::StorageFull).await, StoreVerdict::Writable);
        assert_eq!(verdict(io::ErrorKind::QuotaExceeded).await, StoreVerdict::Writable);
    }

    #[tokio::test]
    async fn the_disk_is_asked_once_for_all_who_ask_at_a_time() {
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
    async fn a_disk_that_hangs_keeps_one_thread_and_is_told_only_when_it_does_so_for_long() {
        let (release, released) = sync_channel(1);
        let released = std::sync::Mutex::new(released);
        let asked = Arc::new(AtomicU64::new(0));
        let counted = asked.clone();
        let health = StoreHealth::probing(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            released.lock().unwrap().recv().map_err(io::Error::other)
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
