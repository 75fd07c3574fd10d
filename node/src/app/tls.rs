//! Changes of the TLS files while the node runs, and what the node tells about them.

use super::error::StartError;
use super::live::PERIOD;
use crate::http::tls::{PeerTls, ServerTls};
use entrepot_config::{NodeConfig, TlsStatus};
use entrepot_runtime::{Clock, Tasks};
use prometheus::{IntGauge, Opts, Registry};

/// The TLS configurations of a node. Clones share them.
#[derive(Clone)]
pub struct LiveTls {
    /// `None` if the registry API is plain HTTP.
    pub server: Option<ServerTls>,
    /// For connections to other nodes.
    pub peers: PeerTls,
    clock: Clock,
    /// `None` if the node does not use TLS.
    gauges: Option<Gauges>,
}

#[derive(Clone)]
struct Gauges {
    refused: IntGauge,
    not_after: IntGauge,
}

impl Gauges {
    fn register(registry: &Registry) -> Result<Gauges, prometheus::Error> {
        let gauge = |name: &str, help: &str| IntGauge::with_opts(Opts::new(name, help).namespace("entrepot"));
        let refused =
            gauge("tls_refused", "1 if the current TLS files are invalid and the previous ones are in use, else 0.")?;
        let not_after = gauge(
            "tls_not_after_seconds",
            "End of the validity of the certificate in use, in seconds since the Unix epoch.",
        )?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(not_after.clone()))?;
        Ok(Gauges { refused, not_after })
    }
}

impl LiveTls {
    /// Reads the files. Blocking.
    ///
    /// # Errors
    /// If they are invalid, or a metric with the same name is already registered.
    pub fn load(config: &NodeConfig, clock: Clock, registry: &Registry) -> Result<LiveTls, StartError> {
        let server = config.http.tls.as_ref().map(|tls| ServerTls::load(tls, clock.now())).transpose()?;
        let peers = PeerTls::load(config, clock.now())?;
        let used = server.is_some() || config.node.has_https_peers();
        let gauges = if used { Some(Gauges::register(registry)?) } else { None };
        let live = LiveTls { server, peers, clock, gauges };
        live.measure();
        Ok(live)
    }

    /// Reads the files repeatedly, until the node stops.
    pub fn watch(&self, tasks: &Tasks) {
        if self.gauges.is_none() {
            return;
        }
        let live = self.clone();
        tasks.repeat("tls", PERIOD, move || live.reload());
    }

    fn reload(&self) {
        let now = self.clock.now();
        if let Some(server) = &self.server {
            server.reload(now);
        }
        self.peers.reload(now);
        self.measure();
    }

    /// `None` if the node does not use TLS.
    pub fn status(&self) -> Option<TlsStatus> {
        self.gauges.as_ref()?;
        Some(TlsStatus { certificate: self.server.as_ref().map(ServerTls::certificate), refused: self.refused() })
    }

    fn refused(&self) -> Option<String> {
        let refused = self.server.as_ref().and_then(ServerTls::refused).or_else(|| self.peers.refused());
        refused.map(|why| why.to_string())
    }

    fn measure(&self) {
        let Some(gauges) = &self.gauges else { return };
        gauges.refused.set(self.refused().is_some().into());
        if let Some(server) = &self.server {
            gauges.not_after.set(server.not_after());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tls::testing::{Authority, Files};
    use crate::observe::Metrics;
    use entrepot_config as config;

    #[test]
    fn a_key_of_another_certificate_is_told_and_changes_nothing() {
        let (authority, files) = (Authority::new(), Files::new());
        files.put(&authority.issue(&["a.example"]));
        let tls = config::Tls { cert_file: files.cert(), key_file: files.key(), ..config::Tls::default() };
        let http = config::Http { tls: Some(tls), ..config::Http::default() };
        let config = NodeConfig { http, ..NodeConfig::default() };
        let metrics = Metrics::new().unwrap();
        let live = LiveTls::load(&config, Clock::system(), metrics.registry()).unwrap();
        let names = |live: &LiveTls| live.status().unwrap().certificate.unwrap().names;
        let told = |live: &LiveTls| {
            let text = String::from_utf8(metrics.text().unwrap()).unwrap();
            (live.status().unwrap().refused, text.contains("\nentrepot_tls_refused 1\n"))
        };
        assert_eq!(told(&live), (None, false));
        let other = authority.issue(&["b.example"]);
        std::fs::write(files.cert(), &other.cert).unwrap();
        live.reload();
        assert_eq!(names(&live), ["a.example"]);
        let (why, gauge) = told(&live);
        let why = why.unwrap();
        assert!(gauge && why.starts_with("http.tls.keyFile: ") && why.contains("does not belong"), "{why}");
        files.put(&other);
        live.reload();
        assert_eq!((names(&live), told(&live)), (vec!["b.example".to_owned()], (None, false)));
    }

    #[test]
    fn a_node_without_tls_tells_nothing_of_it() {
        let metrics = Metrics::new().unwrap();
        let live = LiveTls::load(&NodeConfig::default(), Clock::system(), metrics.registry()).unwrap();
        assert!(live.server.is_none() && live.status().is_none());
        assert!(!String::from_utf8(metrics.text().unwrap()).unwrap().contains("tls"));
    }
}
