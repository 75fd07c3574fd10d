//! The address of the client of a request, which a trusted proxy states in `X-Forwarded-For`.

use axum::http::Extensions;
use axum::http::header::{HeaderMap, HeaderName};
use entrepot_config::Network;
use entrepot_runtime::share::Holder;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Where a request came from; an extension of the request for all stages and handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    /// The address of the client.
    pub address: IpAddr,
    /// A trusted proxy stated the address. Otherwise it is that of the connection.
    pub forwarded: bool,
    /// The client uses HTTPS. A trusted proxy may state the scheme; otherwise it is that of the
    /// connection.
    pub https: bool,
}

/// An extension of the requests of a connection with TLS.
#[derive(Clone, Copy, Debug)]
pub struct OverTls;

impl ClientAddress {
    /// Who has the places of the request: the network of the client.
    pub fn holder(&self) -> Holder {
        Holder::of_address(self.address)
    }
}

/// `http.trustedProxies`.
#[derive(Clone, Debug)]
pub struct TrustedProxies(Arc<[Network]>);

impl TrustedProxies {
    pub fn new(networks: &[Network]) -> TrustedProxies {
        TrustedProxies(networks.into())
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// The client of a request that arrived from `peer`. Each proxy appends the address from which it
    /// received the request, so the client is the last one that is not a trusted proxy: everything
    /// before it may be invented. If all are trusted proxies, or one is not an address, the client is
    /// the last proxy that is certain.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap, extensions: &Extensions) -> ClientAddress {
        let https = extensions.get::<OverTls>().is_some();
        let mut client = ClientAddress { address: peer.to_canonical(), forwarded: false, https };
        if !self.contains(peer) {
            return client;
        }
        if let Some(scheme) = listed(headers, &FORWARDED_PROTO).last() {
            client.https = scheme.eq_ignore_ascii_case("https");
        }
        let hops: Vec<_> = listed(headers, &FORWARDED_FOR).collect();
        for address in hops.into_iter().rev().map_while(parse) {
            (client.address, client.forwarded) = (address, true);
            if !self.contains(address) {
                break;
            }
        }
        client
    }
}

/// The values of a list, in all headers of this name.
fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|list| list.split(',')).map(str::trim)
}

/// An address, which some proxies write with a port or in brackets.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> (String, bool) {
        let proxies = TrustedProxies::new(&["10.0.0.0/8".parse().unwrap(), "fd00::1".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let client = proxies.client(peer.parse().unwrap(), &headers, &Extensions::new());
        (client.address.to_string(), client.forwarded)
    }

    #[test]
    fn the_client_is_the_last_address_that_is_not_a_trusted_proxy() {
        let forwarded = |address: &str| (address.to_owned(), true);
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 2.2.2.2"]), forwarded("2.2.2.2"));
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 2.2.2.2, 10.9.9.9"]), forwarded("2.2.2.2"));
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "2.2.2.2", "10.9.9.9"]), forwarded("2.2.2.2"));
        assert_eq!(client("fd00::1", &["2001:db8::1"]), forwarded("2001:db8::1"));
        for with_port in ["[2001:db8::1]:443", "[2001:db8::1]"] {
            assert_eq!(client("10.0.0.1", &[with_port]), forwarded("2001:db8::1"));
        }
        assert_eq!(client("::ffff:10.0.0.1", &["2.2.2.2:81"]), forwarded("2.2.2.2"));
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        assert_eq!(client("3.3.3.3", &["1.1.1.1"]), ("3.3.3.3".to_owned(), false));
        assert_eq!(client("10.0.0.1", &[]), ("10.0.0.1".to_owned(), false));
        assert_eq!(client("10.0.0.1", &["1.1.1.1, unknown"]), ("10.0.0.1".to_owned(), false));
        assert_eq!(client("10.0.0.1", &["1.1.1.1, unknown, 10.2.2.2"]), ("10.2.2.2".to_owned(), true));
    }

    #[test]
    fn the_scheme_of_the_client_is_known_from_a_trusted_proxy_or_the_connection() {
        let proxies = TrustedProxies::new(&["10.0.0.1".parse().unwrap()]);
        let (mut tls, plain) = (Extensions::new(), Extensions::new());
        tls.insert(OverTls);
        let https = |peer: &str, scheme: Option<&str>, connection: &Extensions| {
            let headers = scheme.map(|scheme| (FORWARDED_PROTO, scheme.parse().unwrap()));
            proxies.client(peer.parse().unwrap(), &headers.into_iter().collect(), connection).https
        };
        assert!(https("10.0.0.1", Some("HTTPS"), &plain));
        assert!(!https("10.0.0.1", Some("http"), &tls));
        assert!(!https("10.0.0.2", Some("https"), &plain));
        assert!(https("10.0.0.2", Some("http"), &tls));
        assert!(https("10.0.0.1", None, &tls) && !https("10.0.0.1", None, &plain));
    }
}
