use super::certificate::describe;
use super::testing::{Authority, Files};
use super::{ClientCertificate, PeerTls, ServerTls};
use entrepot_config::{self as config, ClientCertificates, NodeConfig};
use entrepot_runtime::Clock;
use entrepot_runtime::clock::Timestamp;
use rcgen::SanType;

fn now() -> Timestamp {
    Clock::system().now()
}

fn server(files: &Files) -> config::Tls {
    config::Tls { cert_file: files.cert(), key_file: files.key(), ..config::Tls::default() }
}

fn refusal(tls: &config::Tls) -> String {
    ServerTls::load(tls, now()).err().expect("the files are refused").to_string()
}

#[test]
fn a_start_with_files_that_cannot_be_used_names_the_field() {
    let (authority, files) = (Authority::new(), Files::new());
    let tls = server(&files);
    assert!(refusal(&tls).starts_with("http.tls.certFile: "), "a missing file");
    let valid = authority.issue(&["a.example"]);
    files.put(&valid);
    ServerTls::load(&tls, now()).unwrap();
    std::fs::write(files.cert(), "").unwrap();
    assert!(refusal(&tls).contains("http.tls.certFile") && refusal(&tls).contains("contains no certificate"));
    std::fs::write(files.cert(), &valid.key).unwrap();
    assert!(refusal(&tls).contains("contains no certificate"), "{}", refusal(&tls));
    files.put(&valid);
    std::fs::write(files.key(), &valid.cert).unwrap();
    assert!(refusal(&tls).starts_with("http.tls.keyFile: ") && refusal(&tls).contains("private key"));
    std::fs::write(files.key(), authority.issue(&["a.example"]).key).unwrap();
    assert!(refusal(&tls).starts_with("http.tls.keyFile: ") && refusal(&tls).contains("does not belong"));
    files.put(&authority.issue_with(&["a.example"], |params| params.not_after = rcgen::date_time_ymd(2024, 1, 2)));
    assert!(refusal(&tls).contains("expired at 2024-01-02T00:00:00Z"), "{}", refusal(&tls));
    files.put(&valid);
    let with_authority = config::Tls { client_ca_file: Some(files.authority()), ..tls };
    assert!(refusal(&with_authority).starts_with("http.tls.clientCaFile: "));
    std::fs::write(files.authority(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(refusal(&with_authority).contains("invalid certificate"), "{}", refusal(&with_authority));
    std::fs::write(files.authority(), authority.pem()).unwrap();
    ServerTls::load(&with_authority, now()).unwrap();
}

#[test]
fn files_that_change_to_invalid_ones_are_refused_until_they_are_valid() {
    let (authority, files) = (Authority::new(), Files::new());
    let first = authority.issue(&["a.example"]);
    files.put(&first);
    let tls = ServerTls::load(&server(&files), now()).unwrap();
    let before = tls.config();
    std::fs::remove_file(files.cert()).unwrap();
    tls.reload(now());
    assert!(tls.refused().unwrap().to_string().starts_with("http.tls.certFile: "));
    assert!(std::sync::Arc::ptr_eq(&before, &tls.config()));
    files.put(&authority.issue_with(&["b.example"], |params| params.not_after = rcgen::date_time_ymd(2024, 1, 2)));
    tls.reload(now());
    assert!(tls.refused().unwrap().to_string().contains("expired"));
    // The same files again: nothing changed, and nothing is wrong any more.
    files.put(&first);
    tls.reload(now());
    assert!(tls.refused().is_none() && std::sync::Arc::ptr_eq(&before, &tls.config()));
    files.put(&authority.issue(&["b.example"]));
    tls.reload(now());
    assert_eq!((tls.refused(), tls.certificate().names), (None, vec!["b.example".to_owned()]));
}

#[test]
fn a_certificate_in_use_is_served_after_its_end() {
    let (authority, files) = (Authority::new(), Files::new());
    files.put(&authority.issue_with(&["a.example"], |params| params.not_after = rcgen::date_time_ymd(2024, 1, 2)));
    let tls = ServerTls::load(&server(&files), Timestamp(0)).unwrap();
    tls.reload(now());
    assert_eq!((tls.refused(), tls.not_after()), (None, 1_704_153_600));
}

#[test]
fn configurations_share_no_sessions_and_with_client_certificates_there_are_none() {
    let (authority, files) = (Authority::new(), Files::new());
    files.put(&authority.issue(&["a.example"]));
    let tls = ServerTls::load(&server(&files), now()).unwrap();
    let first = tls.config();
    assert!(first.session_storage.can_cache());
    first.session_storage.put(b"k".to_vec(), b"v".to_vec());
    files.put(&authority.issue(&["a.example"]));
    tls.reload(now());
    assert_eq!(tls.config().session_storage.get(b"k"), None);
    assert_eq!(first.session_storage.get(b"k"), Some(b"v".to_vec()));
    std::fs::write(files.authority(), authority.pem()).unwrap();
    for client_certificates in [ClientCertificates::Optional, ClientCertificates::Required] {
        let tls = config::Tls { client_ca_file: Some(files.authority()), client_certificates, ..server(&files) };
        let config = ServerTls::load(&tls, now()).unwrap().config();
        assert!(!config.session_storage.can_cache() && !config.ticketer.enabled());
        assert_eq!(config.send_tls13_tickets, 0);
    }
}

#[test]
fn the_name_of_a_client_is_its_first_uri_else_dns_name_else_common_name() {
    let authority = Authority::new();
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
    let of = |names: &[SanType], common| ClientCertificate::of(&authority.client(common, &["sre"], names).der());
    let named = |name: &str| Some(ClientCertificate { name: name.into(), groups: vec!["sre".into()] });
    assert_eq!(of(&[dns("a.example"), uri("spiffe://x/1"), uri("spiffe://x/2")], "alice"), named("spiffe://x/1"));
    assert_eq!(of(&[dns("a.example"), dns("b.example")], "alice"), named("a.example"));
    assert_eq!(of(&[], "alice"), named("alice"));
    assert_eq!(of(&[], ""), None);
}

#[test]
fn a_certificate_is_described_for_the_status() {
    let authority = Authority::new();
    let issued = authority.issue_with(&["a.example", "10.0.0.7", "::1"], |params| {
        params.not_before = rcgen::date_time_ymd(2026, 1, 2);
        params.not_after = rcgen::date_time_ymd(2036, 1, 2);
    });
    let (status, not_after) = describe(&issued.der()).unwrap();
    assert_eq!(status.names, ["a.example", "10.0.0.7", "::1"]);
    assert_eq!(
        (status.not_before.as_str(), status.not_after.as_str()),
        ("2026-01-02T00:00:00Z", "2036-01-02T00:00:00Z")
    );
    assert!(status.issuer.contains("CN=authority"), "{}", status.issuer);
    assert_eq!(not_after, 2_082_844_800);
}

#[test]
fn a_node_identifies_itself_to_others_only_where_certificates_are_required() {
    let (authority, files) = (Authority::new(), Files::new());
    files.put(&authority.issue(&["a.example"]));
    std::fs::write(files.authority(), authority.pem()).unwrap();
    let config = |client_certificates| {
        let yaml = format!("node: {{peers: {{b: 'https://b'}}, peerCaFile: '{}'}}", files.authority().display());
        let mut config = NodeConfig::from_yaml(&yaml).unwrap();
        let authorities = Some(files.authority());
        config.http.tls = Some(config::Tls { client_certificates, client_ca_file: authorities, ..server(&files) });
        PeerTls::load(&config, now()).unwrap().config()
    };
    assert!(!config(ClientCertificates::Optional).client_auth_cert_resolver.has_certs());
    assert!(config(ClientCertificates::Required).client_auth_cert_resolver.has_certs());
}

#[test]
fn a_changed_authority_of_other_nodes_is_used_and_an_invalid_one_is_not() {
    let files = Files::new();
    std::fs::write(files.authority(), Authority::new().pem()).unwrap();
    let yaml = format!("node: {{peers: {{b: 'https://b'}}, peerCaFile: '{}'}}", files.authority().display());
    let config = NodeConfig::from_yaml(&yaml).unwrap();
    let tls = PeerTls::load(&config, now()).unwrap();
    let before = tls.config();
    std::fs::write(files.authority(), "").unwrap();
    tls.reload(now());
    assert!(tls.refused().unwrap().to_string().starts_with("node.peerCaFile: "));
    assert!(std::sync::Arc::ptr_eq(&before, &tls.config()));
    std::fs::write(files.authority(), Authority::new().pem()).unwrap();
    tls.reload(now());
    assert!(tls.refused().is_none() && !std::sync::Arc::ptr_eq(&before, &tls.config()));
}
