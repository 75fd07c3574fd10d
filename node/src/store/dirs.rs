//! Directories of the store that other flows own.

use super::folders::make_folder;
use super::inner::Inner;
use std::path::PathBuf;
use std::sync::Arc;

/// The directories of incomplete downloads, upload sessions and the journal. Clones share the state.
#[derive(Clone)]
pub struct Dirs {
    pub(super) inner: Arc<Inner>,
}

impl Dirs {
    /// An unused path for a new download. If its directory was removed, `make_folder` creates it
    /// again.
    pub fn new_fill(&self) -> PathBuf {
        self.inner.new_fill()
    }

    /// The directory of upload sessions. It is created again if it was removed.
    pub fn uploads(&self) -> PathBuf {
        let folder = self.inner.folders.uploads();
        if !folder.is_dir()
            && let Err(error) = make_folder(&folder)
        {
            tracing::error!(%error, "cannot create the directory of upload sessions");
        }
        folder
    }

    /// The directory of the journal. If it was removed, `make_folder` creates it again.
    pub fn pending(&self) -> PathBuf {
        self.inner.folders.pending()
    }
}
