//! Repositories: the folders that hold `_layers` or `_manifests`, found by a walk with a few lists under way ahead of
//! it, so that a page of many repositories is not as many round trips one after the other.

use super::{LIST_MAX, Listed};
use crate::oci::Repository;
use crate::store::Layout;
use crate::store::bucket::{Bucket, BucketError, ListOptions};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};

/// Folders listed ahead of the walk, at each depth of it.
const AHEAD: usize = 8;

/// See [`super::Discover::repositories`].
pub(super) async fn page(
    bucket: &dyn Bucket,
    layout: &Layout,
    last: Option<&Repository>,
    max: usize,
) -> Result<Listed<Repository>, BucketError> {
    let walk = Walk { bucket, root: layout.repositories(), at_once: LIST_MAX };
    let found = walk.after(last).take(max.saturating_add(1)).try_collect().await?;
    Ok(Listed::first(max, found))
}

pub(super) struct Walk<'a> {
    pub(super) bucket: &'a dyn Bucket,
    /// The folder of all repositories, with its `/`.
    pub(super) root: String,
    /// Folders asked for by one list request.
    pub(super) at_once: usize,
}

/// What one folder holds, as far as it is read.
struct Folder {
    /// Its path below the root, with its `/`; empty for the root.
    path: String,
    is_repository: bool,
    /// Names of folders in it that may be or hold repositories, each with its `/`.
    children: Vec<String>,
    /// Where its listing goes on.
    next: Option<String>,
}

type Found<'a> = BoxStream<'a, Result<Repository, BucketError>>;

impl<'a> Walk<'a> {
    /// All repositories after `last`. What lies before it is not listed: from the deepest folder of `last` upwards,
    /// each folder is listed from behind the way that leads to `last`.
    pub(super) fn after(&'a self, last: Option<&Repository>) -> Found<'a> {
        let Some(last) = last else { return self.below(String::new(), None) };
        let path = format!("{last}/");
        let parents = path.match_indices('/').map(|(slash, _)| &path[..=slash]).rev();
        let mut starts = vec![(path.clone(), None)];
        for child in parents {
            let parent = child.trim_end_matches('/').rfind('/').map_or("", |slash| &child[..=slash]);
            starts.push((parent.to_owned(), Some(child.to_owned())));
        }
        stream::iter(starts).flat_map(move |(folder, after)| self.below(folder, after)).boxed()
    }

    /// The repositories in a folder, without itself, whose path comes after `after`.
    fn below(&'a self, folder: String, after: Option<String>) -> Found<'a> {
        let after = after.map(|path| format!("{}{path}", self.root));
        stream::once(self.list(folder, after)).map_ok(move |folder| self.children(folder)).try_flatten().boxed()
    }

    /// A folder that is listed, if it is a repository, and those in it.
    fn within(&'a self, folder: Folder) -> Found<'a> {
        let itself = folder.is_repository.then(|| Repository::parse(folder.path.trim_end_matches('/')).ok()).flatten();
        stream::iter(itself.map(Ok)).chain(self.children(folder)).boxed()
    }

    /// The repositories in a folder that is listed.
    fn children(&'a self, folder: Folder) -> Found<'a> {
        let Folder { path, children, next, .. } = folder;
        let parent = path.clone();
        let listed = stream::iter(children)
            .map(move |child| self.open(format!("{parent}{child}")))
            .buffered(AHEAD)
            .map_ok(move |child| self.within(child))
            .try_flatten();
        let rest = stream::iter(next).flat_map(move |next| {
            stream::once(self.list(path.clone(), Some(next)))
                .map_ok(move |folder| self.children(folder))
                .try_flatten()
                .boxed()
        });
        listed.chain(rest).boxed()
    }

    /// Lists a folder from its beginning and finds out whether it is a repository.
    async fn open(&self, path: String) -> Result<Folder, BucketError> {
        let mut folder = self.list(path, None).await?;
        if !folder.is_repository && folder.next.is_some() {
            // `_layers` may lie beyond the first page, behind folders that begin with a digit.
            let prefix = format!("{}{}", self.root, folder.path);
            let after = Some(format!("{prefix}_l"));
            let options = ListOptions { prefix: prefix.clone(), delimiter: true, after, max: 1 };
            let first = self.bucket.list(options).await?;
            folder.is_repository = first.prefixes.iter().any(|path| is_mark(path.strip_prefix(&prefix)));
        }
        Ok(folder)
    }

    /// Lists a folder, one request, from behind `after`, which is a whole key.
    async fn list(&self, path: String, after: Option<String>) -> Result<Folder, BucketError> {
        let prefix = format!("{}{path}", self.root);
        let options = ListOptions { prefix: prefix.clone(), delimiter: true, after, max: self.at_once };
        let listing = self.bucket.list(options).await?;
        let names = || listing.prefixes.iter().filter_map(|path| path.strip_prefix(&prefix));
        Ok(Folder {
            is_repository: names().any(|name| is_mark(Some(name))),
            children: names().filter(|name| !name.starts_with('_')).map(str::to_owned).collect(),
            next: listing.next,
            path,
        })
    }
}

/// A folder with this in it is a repository.
fn is_mark(name: Option<&str>) -> bool {
    matches!(name, Some("_layers/" | "_manifests/"))
}
