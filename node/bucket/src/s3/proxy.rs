//! The proxy of the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`), and the
//! hosts that are always reached directly: this machine, and the link-local services of a cloud,
//! such as the metadata service with the credentials of the machine. A proxy would reach its own
//! instead.

use aws_sdk_s3::config::SharedHttpClient;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use std::net::IpAddr;

/// A client that uses the proxy for all hosts except near ones.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) proxied: SharedHttpClient,
    pub(super) direct: SharedHttpClient,
}

impl HttpClient for Routed {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Routes {
            proxied: self.proxied.http_connector(settings, components),
            direct: self.direct.http_connector(settings, components),
        })
    }
}

#[derive(Debug)]
struct Routes {
    proxied: SharedHttpConnector,
    direct: SharedHttpConnector,
}

impl HttpConnector for Routes {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let host = request.uri().parse::<hyper::Uri>().ok().and_then(|uri| uri.host().map(is_near));
        if host.unwrap_or_default() { self.direct.call(request) } else { self.proxied.call(request) }
    }
}

/// Whether a host is this machine or on its own link, as the metadata services of clouds are.
fn is_near(host: &str) -> bool {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    match name.parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        // The instance services of Amazon have addresses in fd00:ec2::/32 ("Use IMDS", "EKS Pod
        // Identity").
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.is_unicast_link_local() || address.segments()[..2] == [0xfd00, 0xec2]
        }
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails with its name.
    #[derive(Debug)]
    struct Named(&'static str);

    impl HttpConnector for Named {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            let error = aws_smithy_runtime_api::client::result::ConnectorError::other(self.0.into(), None);
            HttpConnectorFuture::ready(Err(error))
        }
    }

    #[tokio::test]
    async fn near_hosts_are_reached_without_the_proxy() {
        let (proxied, direct) = (SharedHttpConnector::new(Named("proxied")), SharedHttpConnector::new(Named("direct")));
        let routes = Routes { proxied, direct };
        for (uri, route) in [
            ("https://images.s3.eu-central-1.amazonaws.com/docker", "proxied"),
            ("http://s3.storage:7070/images/docker", "proxied"),
            ("http://169.254.169.254/latest/meta-data", "direct"),
            ("http://127.0.0.1:9000/images/docker", "direct"),
        ] {
            let error = routes.call(HttpRequest::get(uri).unwrap()).await.unwrap_err();
            assert!(format!("{error:?}").contains(route), "{uri}: {error:?}");
        }
    }

    #[test]
    fn this_machine_and_its_metadata_services_are_near() {
        for host in
            ["localhost", "127.0.0.1", "[::1]", "169.254.169.254", "169.254.170.2", "[fd00:ec2::254]", "[fe80::1]"]
        {
            assert!(is_near(host), "{host}");
        }
        for host in ["s3.eu-central-1.amazonaws.com", "10.0.0.1", "192.168.1.1", "[2001:db8::1]", "localhost.example"] {
            assert!(!is_near(host), "{host}");
        }
    }
}
