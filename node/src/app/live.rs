//! Configuration changes while the node runs. The file is read every few seconds and its text is
//! compared. That detects every way to replace it, including the kubelet's, which swaps a symbolic
//! link two directories above.

use super::access::AccessFiles;
use crate::observe::audit::Audit;
use crate::store::Store;
use entrepot_config::{ConfigStatus, NodeConfig, is_live};
use entrepot_runtime::Tasks;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge, Opts, Registry};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Time between two reads of the files, which are small. The kubelet itself takes one to two minutes to
/// change a file.
pub(super) const PERIOD: Duration = Duration::from_secs(2);

/// The configuration in use, and the result of the last file. Clones share it.
#[derive(Clone)]
pub struct LiveConfig {
    inner: Arc<Inner>,
}

struct Inner {
    /// The configuration with which the node started.
    started: Arc<NodeConfig>,
    store: Store,
    access: AccessFiles,
    audit: Arc<Audit>,
    state: Mutex<State>,
    refusals: IntCounter,
    refused: IntGauge,
    waiting: IntGauge,
}

#[derive(Default)]
struct State {
    /// The text that was processed last.
    seen: Option<String>,
    status: ConfigStatus,
}

impl LiveConfig {
    /// # Errors
    /// If a metric with the same name is already registered.
    pub fn new(
        started: Arc<NodeConfig>,
        store: Store,
        access: AccessFiles,
        audit: Arc<Audit>,
        registry: &Registry,
    ) -> Result<LiveConfig, prometheus::Error> {
        let options = |name: &str, help: &str| Opts::new(name, help).namespace("entrepot");
        let refusals =
            IntCounter::with_opts(options("config_refusals_total", "Total number of invalid configuration files."))?;
        let refused = IntGauge::with_opts(options(
            "config_refused",
            "1 if the current configuration file is invalid and the previous one is in use, else 0.",
        ))?;
        let waiting = IntGauge::with_opts(options(
            "config_waiting_for_restart",
            "Number of changed fields that take effect after a restart.",
        ))?;
        registry.register(Box::new(refusals.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(waiting.clone()))?;
        let inner = Inner { started, store, access, audit, state: Mutex::default(), refusals, refused, waiting };
        Ok(LiveConfig { inner: Arc::new(inner) })
    }

    /// The result of the last file.
    pub fn status(&self) -> ConfigStatus {
        self.inner.state.lock().status.clone()
    }

    /// Reads the file of the configuration, if there is one, and those of access control repeatedly,
    /// until the node stops. One task reads both, so that an older configuration never replaces the
    /// access control of a newer one.
    pub fn watch(&self, path: Option<PathBuf>, tasks: &Tasks) {
        let live = self.clone();
        tasks.repeat("config", PERIOD, move || {
            if let Some(path) = &path {
                live.read(path);
            }
            live.inner.access.refresh();
        });
    }

    fn read(&self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.take(&text),
            Err(error) => self.refuse(None, &format!("{}: {error}", path.display())),
        }
    }

    /// Applies the text of a file, as far as a running node can.
    pub fn take(&self, text: &str) {
        if self.inner.state.lock().seen.as_deref() == Some(text) {
            return;
        }
        let config = match NodeConfig::from_yaml(text) {
            Ok(config) => config,
            Err(error) => return self.refuse(Some(text), &error.to_string()),
        };
        let started = &self.inner.started;
        let waiting: Vec<_> = started.differences(&config).into_iter().filter(|field| !is_live(field)).collect();
        self.inner.access.want(config.auth.clone());
        self.inner.audit.set(config.audit.clone());
        let before = self.inner.store.room.usage();
        self.inner.store.room.set_thresholds(config.store.low_free, config.store.target_free);
        let after = self.inner.store.room.usage();
        if (before.low_free, before.target_free) != (after.low_free, after.target_free) {
            tracing::info!(
                low_free = %config.store.low_free, target_free = %config.store.target_free,
                "applied new eviction thresholds"
            );
        }
        if !waiting.is_empty() {
            tracing::warn!(fields = waiting.join(", "), "changed configuration fields take effect after a restart");
        }
        self.inner.refused.set(0);
        self.inner.waiting.set(i64::try_from(waiting.len()).unwrap_or(i64::MAX));
        let status = ConfigStatus { refused: None, waiting_for_restart: waiting };
        *self.inner.state.lock() = State { seen: Some(text.to_owned()), status };
    }

    /// Reports an invalid file. The configuration in use does not change.
    fn refuse(&self, text: Option<&str>, why: &str) {
        let mut state = self.inner.state.lock();
        // Logged once, not at every read.
        if state.status.refused.as_deref() != Some(why) {
            tracing::error!(
                error = why,
                "invalid or unreadable configuration file; keeping the previous configuration"
            );
            self.inner.refusals.inc();
        }
        self.inner.refused.set(1);
        state.seen = text.map(str::to_owned);
        state.status.refused = Some(why.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Metrics;
    use entrepot_access::AccessControl;
    use entrepot_config::{ByteSize, Store as StoreConfig};
    use entrepot_runtime::Clock;

    struct Setup {
        live: LiveConfig,
        store: Store,
        metrics: Arc<Metrics>,
        folder: tempfile::TempDir,
    }

    /// A node with a store of 1000 bytes, started with thresholds of 10 % and 20 %.
    fn setup() -> Setup {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let store = StoreConfig {
            path: folder.path().join("store"),
            capacity: Some(ByteSize::bytes(1000)),
            ..StoreConfig::default()
        };
        let started = NodeConfig { store: store.clone(), ..NodeConfig::default() };
        let store = Store::open(&store, Clock::system(), metrics.clone()).unwrap();
        let audit = Audit::new("a".into(), started.audit.clone(), Clock::system(), Box::new(std::io::sink()));
        let audit = Arc::new(audit);
        let control = AccessControl::default();
        let access = AccessFiles::start(&started, control, Clock::system(), audit.clone(), metrics.registry()).unwrap();
        let live = LiveConfig::new(Arc::new(started), store.clone(), access, audit, metrics.registry()).unwrap();
        Setup { live, store, metrics, folder }
    }

    impl Setup {
        fn text(&self, more: &str) -> String {
            let path = self.folder.path().join("store");
            format!("store: {{path: '{}', capacity: 1000{more}}}", path.display())
        }

        fn thresholds(&self) -> (u64, u64) {
            let usage = self.store.room.usage();
            (usage.low_free, usage.target_free)
        }

        fn metric(&self, line: &str) -> bool {
            String::from_utf8(self.metrics.text().unwrap()).unwrap().contains(line)
        }
    }

    #[tokio::test]
    async fn thresholds_take_effect_at_once() {
        let setup = setup();
        setup.live.take(&setup.text(", lowFree: 30%, targetFree: 400"));
        assert_eq!(setup.thresholds(), (300, 400));
        assert_eq!(setup.live.status(), ConfigStatus::default());
        setup.live.take(&setup.text(""));
        assert_eq!(setup.thresholds(), (100, 200));
    }

    #[tokio::test]
    async fn an_invalid_file_is_refused_and_the_previous_configuration_stays() {
        let setup = setup();
        setup.live.take(&setup.text(", lowFree: 30%, targetFree: 40%"));
        for _ in 0..3 {
            setup.live.take(&setup.text(", lowFree: 50%, targetFree: 40%"));
        }
        assert_eq!(setup.thresholds(), (300, 400));
        assert!(setup.live.status().refused.unwrap().starts_with("store.targetFree: "));
        assert!(setup.metric("entrepot_config_refusals_total 1") && setup.metric("entrepot_config_refused 1"));
        setup.live.take(&setup.text(""));
        assert_eq!(setup.live.status().refused, None);
        assert!(setup.metric("entrepot_config_refused 0"));
    }

    #[tokio::test]
    async fn fields_that_need_a_restart_are_reported_and_thresholds_still_apply() {
        let setup = setup();
        setup.live.take(&format!("readOnly: true\n{}", setup.text(", lowFree: 1%")));
        assert_eq!(setup.live.status().waiting_for_restart, ["readOnly"]);
        assert_eq!(setup.thresholds().0, 10);
        assert!(setup.metric("entrepot_config_waiting_for_restart 1"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_the_kubelet_replaces_is_detected() {
        let setup = setup();
        let mounted = setup.folder.path().join("config");
        let version = |name: &str, text: &str| {
            std::fs::create_dir_all(mounted.join(name)).unwrap();
            std::fs::write(mounted.join(name).join("config.yaml"), text).unwrap();
            let next = mounted.join("..data_tmp");
            std::os::unix::fs::symlink(name, &next).unwrap();
            std::fs::rename(next, mounted.join("..data")).unwrap();
        };
        version("..1", &setup.text(""));
        std::os::unix::fs::symlink("..data/config.yaml", mounted.join("config.yaml")).unwrap();
        let tasks = Tasks::new();
        setup.live.watch(Some(mounted.join("config.yaml")), &tasks);
        version("..2", &setup.text(", lowFree: 5%"));
        let seen = async {
            while setup.thresholds().0 != 50 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(600), seen).await.expect("the change was not detected");
        // A file that is missing for a moment changes nothing.
        std::fs::remove_file(mounted.join("config.yaml")).unwrap();
        let refused = async {
            while setup.live.status().refused.is_none() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(600), refused).await.expect("the missing file was not reported");
        assert_eq!(setup.thresholds().0, 50);
        assert!(tasks.stop(Duration::from_secs(60)).await);
    }
}
