//! The issuers of OpenID Connect in use, and their metrics.

use entrepot_access::oidc::Oidc;
use entrepot_access::{AuthError, Rules};
use entrepot_config::Auth;
use entrepot_runtime::Clock;
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, Opts, Registry};
use std::sync::Arc;

/// The issuers in use. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Issuers(Arc<Mutex<Vec<Arc<Oidc>>>>);

impl Issuers {
    /// The issuers of the configuration. One whose configuration has not changed is the same object
    /// as before, because it remembers keys and verified tokens.
    ///
    /// # Errors
    /// If the system provides no random bytes. The issuers before stay in use then.
    pub(super) fn replace(&self, auth: &Auth, rules: &Rules, clock: &Clock) -> Result<Vec<Arc<Oidc>>, AuthError> {
        let mut current = self.0.lock();
        let wanted = auth.oidc.iter().map(|config| match current.iter().find(|issuer| issuer.config() == config) {
            Some(known) => Ok(Arc::clone(known)),
            None => Oidc::new(config, rules, clock).map(Arc::new),
        });
        let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
        for issuer in &wanted {
            issuer.replace_rules(rules);
        }
        current.clone_from(&wanted);
        Ok(wanted)
    }

    /// Forgets all issuers, because access control was turned off.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    /// # Errors
    /// If a metric with the same name is already registered.
    pub(super) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(IssuerMetrics::new(self.clone())?))
    }
}

/// The metrics of the issuers, computed when they are read.
struct IssuerMetrics {
    issuers: Issuers,
    age: GaugeVec,
    fetches: IntCounterVec,
}

impl IssuerMetrics {
    fn new(issuers: Issuers) -> Result<IssuerMetrics, prometheus::Error> {
        let options = |name: &str, help: &str| Opts::new(name, help).namespace("entrepot");
        let age = options(
            "auth_issuer_age_seconds",
            "Time since the keys of an OpenID Connect issuer were fetched; absent before the first fetch.",
        );
        let fetches = options("auth_issuer_fetches_total", "Total number of fetches of the keys of an issuer.");
        Ok(IssuerMetrics {
            issuers,
            age: GaugeVec::new(age, &["issuer"])?,
            fetches: IntCounterVec::new(fetches, &["issuer", "result"])?,
        })
    }
}

impl Collector for IssuerMetrics {
    fn desc(&self) -> Vec<&Desc> {
        [self.age.desc(), self.fetches.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let issuers = self.issuers.0.lock();
        self.age.reset();
        self.fetches.reset();
        for issuer in issuers.iter() {
            let (name, status) = (issuer.config().name.as_str(), issuer.status());
            if let Some(age) = status.age {
                self.age.with_label_values(&[name]).set(age.as_secs_f64());
            }
            self.fetches.with_label_values(&[name, "ok"]).inc_by(status.fetched);
            self.fetches.with_label_values(&[name, "failed"]).inc_by(status.failed);
        }
        [self.age.collect(), self.fetches.collect()].concat()
    }
}
