//! The bucket of the crash tests, accessed without a node.

use anyhow::{Context, Result, ensure};
use entrepot_e2e::node::Plan;
use entrepot_e2e::s3;
use entrepot_e2e::servers::Versitygw;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The bucket that the nodes of a test share.
pub enum Shared {
    S3 {
        server: Versitygw,
        keys: TempDir,
    },
    /// On the same file system as the stores.
    Folder(TempDir),
}

impl Shared {
    pub async fn s3() -> Result<Shared> {
        Ok(Shared::S3 { server: Versitygw::start().await?, keys: TempDir::new()? })
    }

    pub fn folder() -> Result<Shared> {
        Ok(Shared::Folder(TempDir::new()?))
    }

    pub fn plan(&self) -> Result<Plan> {
        Ok(match self {
            Shared::S3 { server, keys } => Plan::over(s3::node_bucket(&server.s3.endpoint, keys.path())?),
            Shared::Folder(folder) => Plan::over_folder(folder.path()),
        })
    }

    /// Whether a push over this bucket reaches the crash point.
    pub fn reaches(&self, point: &str) -> bool {
        let in_parts = ["replicate.multipart-begun", "replicate.part-sent", "replicate.parts-sent"];
        matches!(self, Shared::S3 { .. }) || !in_parts.contains(&point)
    }

    /// All keys below a prefix that ends with `/`.
    pub async fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        match self {
            Shared::S3 { server, .. } => server.s3.keys(prefix).await,
            Shared::Folder(folder) => {
                let below = files(&folder.path().join(prefix))?;
                let key = |path: PathBuf| Some(path.strip_prefix(folder.path()).ok()?.to_str()?.to_owned());
                Ok(below.into_iter().filter_map(key).collect())
            }
        }
    }

    pub async fn get(&self, key: &str) -> Result<Vec<u8>> {
        match self {
            Shared::S3 { server, .. } => Ok(server.s3.get(key).await?.to_vec()),
            Shared::Folder(folder) => Ok(fs::read(folder.path().join(key))?),
        }
    }

    /// Checks that nothing unfinished is in the bucket, and that no file of it is shared with a
    /// store.
    pub async fn nothing_is_left(&self, store: &Path) -> Result<()> {
        match self {
            Shared::S3 { server, .. } => {
                let open = server.s3.open_multiparts().await?;
                ensure!(open.is_empty(), "multipart uploads are left open: {open:?}");
            }
            Shared::Folder(folder) => {
                // Lock files of keys stay; their number is fixed.
                let unfinished = [".entrepot/put", ".entrepot/multipart"].map(|name| files(&folder.path().join(name)));
                let unfinished: Vec<_> = unfinished.into_iter().collect::<Result<Vec<_>>>()?.concat();
                ensure!(unfinished.is_empty(), "left in the bucket: {unfinished:?}");
                for file in files(&store.join("blobs"))? {
                    let names = fs::metadata(&file).with_context(|| file.display().to_string())?.nlink();
                    ensure!(names == 1, "{} is shared with the bucket", file.display());
                }
            }
        }
        Ok(())
    }
}

/// All files below a folder, which need not exist.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}
