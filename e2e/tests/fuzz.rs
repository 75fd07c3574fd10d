//! Fuzz targets for all input that strangers write: names, digests, references, session ids,
//! ranges, manifests, configurations, scopes, tokens, files of users and keys. Here each runs for a limited time on random input; `cargo
//! bolero test NAME` runs the same target under a coverage-guided fuzzer.

use bolero::check;
use entrepot_access::scope::Scopes;
use entrepot_access::token::{Keys, Settings, Tokens};
use entrepot_access::users::Users;
use entrepot_config::NodeConfig;
use entrepot_oci::{Digest, Manifest, Reference, Repository, RequestRange, SessionId, UploadRange};
use entrepot_runtime::clock::Timestamp;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

/// Duration of each target, enough for some hundred thousand inputs.
const TIME: Duration = Duration::from_secs(4);

/// Text of characters that are meaningful in the grammar, so that random input gets deep into the
/// parser.
fn text(input: &[u8], alphabet: &[u8]) -> String {
    input.iter().map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()])).collect()
}

#[test]
fn names_and_references() {
    check!().with_max_len(300).with_test_time(TIME).for_each(|input: &[u8]| {
        for text in [String::from_utf8_lossy(input).into_owned(), text(input, b"abz09._-/:AZ%")] {
            if let Ok(name) = Repository::parse(&text) {
                assert_eq!(name.as_str(), text);
                assert!(text.split('/').all(|part| !part.is_empty() && !part.starts_with(['.', '_'])));
            }
            if let Ok(reference) = Reference::parse(&text) {
                assert_eq!(reference.to_string(), text);
                assert!(!text.contains('/') && !text.starts_with('.'));
            }
            if let Ok(id) = SessionId::parse(&text) {
                assert_eq!(id.to_string(), text);
            }
        }
    });
}

#[test]
fn digests() {
    check!().with_max_len(140).with_test_time(TIME).for_each(|input: &[u8]| {
        let hex = text(input, b"0123456789abcdef");
        for text in [format!("sha256:{hex}"), format!("sha512:{hex}"), String::from_utf8_lossy(input).into_owned()] {
            if let Ok(digest) = Digest::parse(&text) {
                assert_eq!(digest.to_string(), text);
            }
        }
    });
}

#[test]
fn ranges() {
    check!().with_type::<(Vec<u8>, u64)>().with_test_time(TIME).for_each(|(input, size)| {
        let numbers = text(input, b"0123456789-,=");
        for header in [format!("bytes={numbers}"), numbers.clone(), String::from_utf8_lossy(input).into_owned()] {
            if let Ok(RequestRange::Part(range)) = RequestRange::resolve(Some(&header), *size) {
                assert!(range.start < range.end && range.end <= *size);
            }
            if let Ok(range) = UploadRange::parse(&header) {
                assert!(range.length() > 0 && range.start().checked_add(range.length()).is_some());
            }
        }
    });
}

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
"artifactType":"a/b","config":{"mediaType":"c/d","digest":
"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},
"layers":[{"mediaType":"e/f","digest":
"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1,"urls":["http://x"]}],
"subject":{"mediaType":"g/h","digest":
"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":2},"annotations":{"i":"j"}}"#;

const CONFIG: &str = "node: {name: images-0, peerUrl: 'http://{node}.images:5000'}\nhttp: {listen: 0.0.0.0:5000}\n\
bucket: {prefix: a/, s3: {name: images, endpoint: 'https://s3:7070'}, retryBudget: 5s}\n\
store: {capacity: 10Gi, lowFree: 10%, targetFree: 20%, evictionPolicy: LeastFrequentlyUsed}\n\
replication: {mode: WriteBack, partSize: 16Mi}\ntags: {immutable: ['v*']}\n";

/// A valid text with some bytes changed, removed or doubled.
fn spoiled(valid: &str, changes: &[(u16, u8)]) -> Vec<u8> {
    let mut bytes = valid.as_bytes().to_vec();
    for (at, byte) in changes.iter().take(8) {
        if bytes.is_empty() {
            break;
        }
        let at = usize::from(*at) % bytes.len();
        match byte % 4 {
            0 => drop(bytes.remove(at)),
            1 => bytes.insert(at, *byte),
            2 => bytes.truncate(at),
            _ => bytes[at] = *byte,
        }
    }
    bytes
}

#[test]
fn manifests() {
    check!().with_type::<(Vec<(u16, u8)>, Vec<u8>)>().with_test_time(TIME).for_each(|(changes, input)| {
        for bytes in [spoiled(MANIFEST, changes), input.clone()] {
            let pushed = Manifest::parse_pushed(&bytes, None);
            if let Ok(manifest) = Manifest::parse(&bytes, None) {
                assert!(pushed.is_err() || pushed.is_ok_and(|pushed| pushed == manifest));
                let _ = Manifest::parse(&bytes, Some(&manifest.media_type)).map(|again| assert_eq!(again, manifest));
            }
        }
    });
}

#[test]
fn configurations() {
    assert!(NodeConfig::from_yaml(CONFIG).is_ok());
    check!().with_type::<Vec<(u16, u8)>>().with_test_time(TIME).for_each(|changes| {
        let text = String::from_utf8_lossy(&spoiled(CONFIG, changes)).into_owned();
        if let Ok(config) = NodeConfig::from_yaml(&text) {
            let written = config.to_yaml().unwrap_or_default();
            assert_eq!(NodeConfig::from_yaml(&written).ok(), Some(config), "{written}");
        }
    });
}

#[test]
fn scopes() {
    check!().with_max_len(300).with_test_time(TIME).for_each(|input: &[u8]| {
        for text in
            [String::from_utf8_lossy(input).into_owned(), format!("repository:{}", text(input, b"ab/:,* pulsh()"))]
        {
            let scopes = Scopes::parse(std::iter::once(text.as_str()));
            let written = scopes.to_string();
            assert_eq!(Scopes::parse(std::iter::once(written.as_str())), scopes, "{text}");
        }
    });
}

#[test]
fn tokens() {
    let keys = Keys::generate().unwrap();
    let settings = Settings { keys, lifetime: Duration::from_secs(60), not_before: None };
    let tokens = AssertUnwindSafe(Tokens::new(settings).unwrap());
    check!().with_max_len(300).with_test_time(TIME).for_each(|input: &[u8]| {
        // {"alg":"HS256","typ":"entrepot+jwt"
        let header = "eyJhbGciOiJIUzI1NiIsInR5cCI6ImVudHJlcG90K2p3dCI";
        for text in
            [String::from_utf8_lossy(input).into_owned(), format!("{header}{}", text(input, b"sImtpZCfQ.eyJ0_-"))]
        {
            assert!(tokens.verify(&text, Timestamp(0)).is_err());
        }
    });
}

#[test]
fn files_of_users_and_keys() {
    check!().with_max_len(300).with_test_time(TIME).for_each(|input: &[u8]| {
        let hash = "alice:$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe";
        for text in [
            String::from_utf8_lossy(input).into_owned(),
            format!("{hash}{}", text(input, b"W\n:$2y05C.argonid=,v")),
            format!("a:$argon2id${}", text(input, b"v=19$m,t2p1+/c")),
        ] {
            let _ = Users::parse(&text);
            let _ = Keys::parse(&text);
        }
    });
}
