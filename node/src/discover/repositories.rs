//! Repositories are the directories that contain `_layers` or `_manifests`. A walk finds them.
//! Several list requests run ahead of it, so that a page of many repositories does not take as many
//! sequential round trips.

use super::{LIST_MAX, Listed};
use crate::repository::Layout;
use entrepot_bucket::{Bucket, BucketError, ListOptions};
use entrepot_oci::Repository;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};

/// Number of directories listed ahead of the walk, per depth.
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
    /// The directory of all repositories, with a trailing `/`.
    pub(super) root: String,
    /// Maximum number of directories per list request.
    pub(super) at_once: usize,
}

/// The content of one directory, as far as it is listed.
struct Folder {
    /// Path below the root, with a trailing `/`; empty for the root.
    path: String,
    is_repository: bool,
    /// Names of subdirectories that may be or contain repositories, each with a trailing `/`.
    children: Vec<String>,
    /// The position at which the listing continues.
    next: Option<String>,
}

type Found<'a> = BoxStream<'a, Result<Repository, BucketError>>;

impl<'a> Walk<'a> {
    /// All repositories after `last`. Nothing before it is listed: from the deepest directory of
    /// `last` upwards, each directory is listed from just after the path to `last`.
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

    /// The repositories in a directory, without itself, whose path follows `after`.
    fn below(&'a self, folder: String, after: Option<String>) -> Found<'a> {
        let after = after.map(|path| format!("{}{path}", self.root));
        stream::once(self.list(folder, after)).map_ok(move |folder| self.children(folder)).try_flatten().boxed()
    }

    /// A listed directory, if it is a repository, and the repositories in it.
    fn within(&'a self, folder: Folder) -> Found<'a> {
        let itself = folder.is_repository.then(|| Repository::parse(folder.path.trim_end_matches('/')).ok()).flatten();
        stream::iter(itself.map(Ok)).chain(self.children(folder)).boxed()
    }

    /// The repositories in a listed directory.
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

    /// Lists a directory from its beginning and determines whether it is a repository.
    async fn open(&self, path: String) -> Result<Folder, BucketError> {
        let mut folder = self.list(path, None).await?;
        if !folder.is_repository && folder.next.is_some() {
            // `_layers` may be beyond the first page, because directories that begin with a digit
            // come first.
            let prefix = format!("{}{}", self.root, folder.path);
            let after = Some(format!("{prefix}_l"));
            let options = ListOptions { prefix: prefix.clone(), delimiter: true, after, max: 1 };
            let first = self.bucket.list(options).await?;
            folder.is_repository = first.prefixes.iter().any(|path| is_mark(path.strip_prefix(&prefix)));
        }
        Ok(folder)
    }

    /// Lists a directory after the key `after`, in one request.
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

/// Whether a directory that contains this name is a repository.
fn is_mark(name: Option<&str>) -> bool {
    matches!(name, Some("_layers/" | "_manifests/"))
}
