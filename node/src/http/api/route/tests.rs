use super::*;
use proptest::prelude::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const SESSION: &str = "images-0.67e55044-10b1-426f-9247-bb680e5fe0c8";

fn status(method: &str, target: &str) -> u16 {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    match Route::parse(&method, path, query) {
        Ok(_) => 200,
        Err(error) => error.refusal().status.as_u16(),
    }
}

fn get(target: &str) -> Route {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    Route::parse(&Method::GET, path, query).unwrap()
}

fn repository(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

#[test]
fn names_with_slashes_are_read_from_the_right() {
    for name in ["a", "library/alpine", "a/manifests/b", "blobs/uploads", "tags/list", "a/blobs/uploads/b"] {
        let expected = repository(name);
        for tail in ["tags/list", "manifests/latest", &format!("blobs/{DIGEST}"), &format!("referrers/{DIGEST}")] {
            assert_eq!(get(&format!("/v2/{name}/{tail}")).repository(), Some(&expected), "{name} {tail}");
        }
        let session = get(&format!("/v2/{name}/blobs/uploads/{SESSION}"));
        assert!(matches!(session, Route::UploadStatus { repository, .. } if repository == expected));
    }
}

#[test]
fn an_encoded_colon_is_a_colon() {
    let encoded = DIGEST.replace(':', "%3A");
    assert_eq!(get(&format!("/v2/a/blobs/{encoded}")), get(&format!("/v2/a/blobs/{DIGEST}")));
}

#[test]
fn every_refusal_has_its_status() {
    let digest = DIGEST;
    for (method, target, expected) in [
        ("GET", "/".to_owned(), 200),
        ("GET", "/v2".into(), 200),
        ("GET", "/v2/".into(), 200),
        ("POST", "/v2/".into(), 405),
        ("GET", "/v1/".into(), 404),
        ("GET", "/v2/a".into(), 404),
        ("GET", "/v2/a/b/c".into(), 404),
        ("GET", "/v2//tags/list".into(), 400),
        ("GET", "/v2/A/tags/list".into(), 400),
        ("GET", "/v2/a/tags/list?n=0".into(), 200),
        ("GET", "/v2/a/tags/list?n=-1".into(), 400),
        ("GET", "/v2/a/tags/list?n=1e3".into(), 400),
        ("GET", "/v2/a/tags/list?n=99999999999999999999999".into(), 200),
        ("PUT", "/v2/a/tags/list".into(), 405),
        ("GET", "/v2/a/manifests/.INVALID".into(), 404),
        ("PUT", "/v2/a/manifests/.INVALID".into(), 400),
        ("GET", "/v2/a/manifests/sha256:abc".into(), 400),
        ("PUT", "/v2/a/manifests/sha256:abc".into(), 400),
        ("POST", "/v2/a/manifests/latest".into(), 405),
        ("GET", "/v2/a/blobs/latest".into(), 400),
        ("GET", format!("/v2/a/blobs/{digest}"), 200),
        ("PATCH", format!("/v2/a/blobs/{digest}"), 405),
        ("GET", "/v2/a/blobs/uploads/".into(), 405),
        ("POST", "/v2/a/blobs/uploads".into(), 200),
        ("POST", "/v2/a/blobs/uploads/?digest=x".into(), 400),
        ("POST", "/v2/a/blobs/uploads/?mount=x&from=b".into(), 400),
        ("POST", format!("/v2/a/blobs/uploads/?mount={digest}&from=B"), 200),
        ("PATCH", "/v2/a/blobs/uploads/nobody".into(), 404),
        ("PUT", format!("/v2/a/blobs/uploads/{SESSION}"), 400),
        ("PUT", format!("/v2/a/blobs/uploads/{SESSION}?digest={digest}"), 200),
        ("PUT", format!("/v2/a/blobs/uploads/{SESSION}?offset=7&digest={digest}"), 200),
        ("PATCH", format!("/v2/a/blobs/uploads/{SESSION}?offset=0"), 200),
        ("PATCH", format!("/v2/a/blobs/uploads/{SESSION}?offset=+1"), 404),
        ("PATCH", format!("/v2/a/blobs/uploads/{SESSION}?offset=99999999999999999999"), 404),
        ("POST", format!("/v2/a/blobs/uploads/{SESSION}"), 405),
        ("GET", format!("/v2/a/referrers/{digest}?artifactType=a/b"), 200),
        ("GET", "/v2/a/referrers/latest".into(), 400),
        ("GET", format!("/v2/a/tags/list?{}", "a=b&".repeat(40)), 414),
        ("PUT", format!("/v2/a/manifests/{digest}?{}", "tag=a&".repeat(16)), 414),
        ("PUT", format!("/v2/a/manifests/{digest}?tag=a&tag=.b"), 400),
        ("PUT", format!("/v2/a/manifests/{digest}?tag=a%2Fb"), 400),
        ("PUT", format!("/v2/a/manifests/{digest}?tag=%ff"), 400),
    ] {
        assert_eq!(status(method, &target), expected, "{method} {target}");
    }
}

#[test]
fn only_a_push_by_digest_has_the_tags_of_its_query() {
    let pushed = |reference: &str, query: &str| match Route::parse(
        &Method::PUT,
        &format!("/v2/a/manifests/{reference}"),
        Some(query),
    )
    .unwrap()
    {
        Route::PushManifest { tags, .. } => tags.iter().map(|tag| tag.as_str().to_owned()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(pushed(DIGEST, "tag=1.2&tag=1&tag=&tag=1.2&tag=l%61test"), ["1.2", "1", "latest"]);
    assert!(pushed(DIGEST, "").is_empty() && pushed("latest", "tag=1").is_empty());
    let ten: Vec<String> = (0..10).map(|number| format!("{}{number}", "t".repeat(127))).collect();
    assert_eq!(pushed(DIGEST, &format!("tag={}", ten.join("&tag="))), ten);
}

#[test]
fn a_mount_from_an_invalid_repository_opens_a_session() {
    let begin = |query: &str| match Route::parse(&Method::POST, "/v2/a/blobs/uploads/", Some(query)).unwrap() {
        Route::BeginUpload { begin, .. } => begin,
        other => panic!("{other:?}"),
    };
    let digest = Digest::parse(DIGEST).unwrap();
    assert_eq!(begin(&format!("mount={DIGEST}")), Begin::Session);
    assert_eq!(begin(&format!("mount={DIGEST}&from=../b")), Begin::Session);
    assert_eq!(begin(&format!("mount={DIGEST}&from=c%2Fb")), Begin::Mount { digest, from: repository("c/b") });
    assert_eq!(begin(&format!("digest={DIGEST}")), Begin::Whole(digest));
}

#[test]
fn traversal_is_refused_in_every_position() {
    let long = "a".repeat(300);
    let parts = [
        "..",
        "%2e%2e",
        ".%2E",
        "%2e",
        "%2f",
        "a%2fb",
        "..%2f..",
        "%00",
        "\0",
        "é",
        "%c3%a9",
        "%ff",
        "%252e",
        "",
        "%5c",
        "\\",
        "~",
        "%",
        "%2",
        " ",
        &long,
        "_layers",
        "a%2f..%2fb",
    ];
    for part in parts {
        for path in [
            format!("/{part}"),
            format!("/v2/{part}"),
            format!("/{part}/v2/a/tags/list"),
            format!("/v2/{part}/tags/list"),
            format!("/v2/a/{part}/tags/list"),
            format!("/v2/{part}/a/manifests/latest"),
            format!("/v2/a/{part}/b/manifests/{DIGEST}"),
            format!("/v2/{part}/blobs/{DIGEST}"),
            format!("/v2/a/blobs/{part}"),
            format!("/v2/a/blobs/{DIGEST}/{part}"),
            format!("/v2/a/{part}/blobs/uploads/{SESSION}"),
            format!("/v2/a/blobs/uploads/{part}/{SESSION}"),
            format!("/v2/a/referrers/{part}"),
        ] {
            let harmless = path == "/" || path == "/v2/";
            assert!(harmless || matches!(status("GET", &path), 400 | 404), "{path:?}: {}", status("GET", &path));
        }
        let tag = format!("/v2/a/manifests/{part}");
        let is_tag = matches!(part, "_layers");
        assert!(is_tag || matches!(status("GET", &tag), 400 | 404), "{tag}");
        assert!(is_tag || matches!(status("PUT", &tag), 400 | 404), "{tag}");
    }
}

proptest! {
    #[test]
    fn no_path_panics_and_labels_are_of_a_fixed_set(path in "(/|v2|\\PC|%[0-9a-f]{0,2}|blobs|uploads|manifests|tags/list|\\.\\.){0,12}", query in "(\\PC|[&=%n]){0,20}") {
        for method in ["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "BREW"] {
            let _ = Route::parse(&Method::from_bytes(method.as_bytes()).unwrap(), &path, Some(&query));
        }
        let labels = ["home", "version", "catalog", "tags", "referrers", "manifest", "blob", "uploads", "session", "unknown"];
        prop_assert!(labels.contains(&EndpointKind::of(&path).label()));
    }

    #[test]
    fn an_accepted_repository_has_no_segment_that_leaves_its_folder(name in "([a-z0-9._/%-]|%2e|%2f|\\.\\.){1,20}") {
        if let Ok(route) = Route::parse(&Method::GET, &format!("/v2/{name}/tags/list"), None)
            && let Some(repository) = route.repository()
        {
            prop_assert!(repository.as_str().split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
        }
    }
}
