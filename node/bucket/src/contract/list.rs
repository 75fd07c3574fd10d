//! Listings: order, pages, delimiter.

use super::{Case, Place};
use futures::FutureExt;
use futures::stream::{self, StreamExt};

pub(super) const CASES: &[Case] = &[
    ("an empty prefix has an empty listing", |place| nothing(place).boxed()),
    ("keys are listed in the order of their bytes", |place| order(place).boxed()),
    ("a delimiter folds deeper keys", |place| delimiter(place).boxed()),
    ("a page starts after any text", |place| after(place).boxed()),
    ("a deleted object is not listed", |place| deleted(place).boxed()),
    ("more keys than a page holds are all listed", |place| many(place).boxed()),
];

/// In the order of their bytes: '-' < '.' < '/' < '0' < 'A' < '_' < 'a'. The name of a directory
/// alone would sort differently.
const NAMES: [&str; 11] = [
    "list/a-b/data",
    "list/a.b/c/data",
    "list/a.b/data",
    "list/a/b-c/data",
    "list/a/b/data",
    "list/a/link",
    "list/a0/data",
    "list/aA/data",
    "list/a_b/data",
    "list/aa",
    "list/b",
];

async fn put_all(place: &Place, names: impl IntoIterator<Item = String>) {
    stream::iter(names).for_each_concurrent(16, |name| async move { drop(place.put(&name, "x").await) }).await;
}

async fn put_names(place: &Place) {
    put_all(place, NAMES.map(str::to_owned)).await;
    // A neighbor whose name starts with that of the listed directory.
    put_all(place, ["list-other/data".to_owned(), "listing".to_owned()]).await;
}

async fn nothing(place: Place) {
    assert_eq!(place.list_all("", false, 1000).await, (vec![], vec![], 1));
    assert_eq!(place.list_all("no/such/folder/", true, 1).await, (vec![], vec![], 1));
}

async fn order(place: Place) {
    put_names(&place).await;
    for max in [1, 2, 3, 10, 11, 1000] {
        let (keys, prefixes, pages) = place.list_all("list/", false, max).await;
        assert_eq!((keys, prefixes.len()), (NAMES.map(str::to_owned).to_vec(), 0), "{max} a page");
        // On S3 the last page may be empty, because S3 does not always look ahead.
        assert!(pages <= NAMES.len() / max + 1, "{pages} pages of {max}");
    }
    assert_eq!(place.list_all("list/a/", false, 2).await.0, &NAMES[3..6]);
}

async fn delimiter(place: Place) {
    put_names(&place).await;
    let folders = ["list/a-b/", "list/a.b/", "list/a/", "list/a0/", "list/aA/", "list/a_b/"];
    for max in [1, 2, 3, 7, 8, 1000] {
        let (keys, prefixes, _) = place.list_all("list/", true, max).await;
        assert_eq!(prefixes, folders, "{max} a page");
        assert_eq!(keys, ["list/aa", "list/b"], "{max} a page");
    }
    let (keys, prefixes, _) = place.list_all("list/a/", true, 1000).await;
    assert_eq!((keys, prefixes), (vec!["list/a/link".to_owned()], vec!["list/a/b-c/".into(), "list/a/b/".into()]));
    let (keys, prefixes, _) = place.list_all("", true, 1000).await;
    assert_eq!((keys, prefixes), (vec!["listing".to_owned()], vec!["list-other/".into(), "list/".into()]));
}

async fn after(place: Place) {
    put_names(&place).await;
    let keys = |page: super::Page| page.keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    // After a key, after text that is not a key, before all keys, after all keys.
    assert_eq!(keys(place.list("list/", false, Some("list/a/b/data"), 2).await), &NAMES[5..7]);
    assert_eq!(keys(place.list("list/", false, Some("list/a/b"), 2).await), &NAMES[3..5]);
    assert_eq!(keys(place.list("list/", false, Some("a"), 1).await), &NAMES[..1]);
    assert_eq!(place.list("list/", false, Some("list/b"), 10).await, super::Page::default());
    assert_eq!(place.list("list/", true, Some("z"), 10).await, super::Page::default());
    // With a delimiter, after a directory: the directory and its content are not greater.
    let page = place.list("list/", true, Some("list/a/"), 2).await;
    assert_eq!((page.prefixes, page.next), (vec!["list/a0/".to_owned(), "list/aA/".into()], Some("list/aA/".into())));
    // After a key within a directory: the directory itself is not greater than the key.
    let page = place.list("list/", true, Some("list/a/b/data"), 1).await;
    assert_eq!(page.prefixes, ["list/a0/"]);
    // After the name of a directory without its slash: the directory is greater. Listing tags after
    // `last` relies on this.
    let page = place.list("list/", true, Some("list/a"), 10).await;
    assert_eq!(page.prefixes, ["list/a-b/", "list/a.b/", "list/a/", "list/a0/", "list/aA/", "list/a_b/"]);
}

async fn deleted(place: Place) {
    put_names(&place).await;
    for name in NAMES {
        if name.starts_with("list/a") {
            place.bucket.delete(&place.key(name)).await.unwrap();
        }
    }
    assert_eq!(place.list_all("list/", true, 1000).await, (vec!["list/b".to_owned()], vec![], 1));
    assert_eq!(place.list_all("list/", false, 1000).await.0, ["list/b"]);
}

async fn many(place: Place) {
    const COUNT: usize = 1100;
    let names: Vec<_> = (0..COUNT).map(|number| format!("tags/{number:04}/current/link")).collect();
    put_all(&place, names.iter().cloned()).await;
    let (keys, _, pages) = place.list_all("tags/", false, 1000).await;
    assert_eq!((keys == names, pages), (true, 2));
    let (keys, folders, _) = place.list_all("tags/", true, 100).await;
    assert!(keys.is_empty());
    let expected: Vec<_> = (0..COUNT).map(|number| format!("tags/{number:04}/")).collect();
    assert!(folders == expected, "{} folders", folders.len());
}
