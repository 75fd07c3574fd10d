//! Static keys from files, which are read again when they change.

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use entrepot_config::S3Credentials;
use entrepot_runtime::clock::Stopwatch;
use entrepot_runtime::tasks::blocking;
use parking_lot::{Mutex, MutexGuard};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long keys are used before their files are read again. A rotated key takes effect within this
/// time, and the files are read at most this often.
const FRESH: Duration = Duration::from_secs(5);

/// Maximum number of reads until two consecutive reads agree. Kubernetes replaces all files of a
/// Secret at once, and a read at that moment may mix old and new files.
const READINGS: usize = 5;

/// Provides the keys in the files.
#[derive(Clone)]
pub(super) struct FileCredentials {
    files: Arc<S3Credentials>,
    last: Arc<Mutex<Option<(Stopwatch, Credentials)>>>,
}

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the key file {path}: {source}")]
pub struct UnreadableKey {
    path: PathBuf,
    source: io::Error,
}

/// Omits the keys, so they are never printed.
impl fmt::Debug for FileCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileCredentials").field("files", &self.files).finish_non_exhaustive()
    }
}

impl FileCredentials {
    /// Reads the files for the first time. A failure is logged, and the files are read again with
    /// each request: in Kubernetes a Secret may be created after the pod that uses it.
    pub(super) fn open(files: &S3Credentials) -> FileCredentials {
        let last = match read_all(files) {
            Ok(credentials) => Some((Stopwatch::start(), credentials)),
            Err(error) => {
                tracing::error!(%error,
                    "cannot load the bucket credentials; \
                     serving cached content only until the key files are readable");
                None
            }
        };
        FileCredentials { files: Arc::new(files.clone()), last: Arc::new(Mutex::new(last)) }
    }

    fn last(&self) -> MutexGuard<'_, Option<(Stopwatch, Credentials)>> {
        self.last.lock()
    }

    async fn load(&self) -> provider::Result {
        if let Some((read, credentials)) = &*self.last()
            && read.elapsed() < FRESH
        {
            return Ok(credentials.clone());
        }
        let files = self.files.clone();
        let read = blocking(move || read_all(&files)).await.map_err(CredentialsError::provider_error)?;
        let credentials = read.map_err(CredentialsError::provider_error)?;
        *self.last() = Some((Stopwatch::start(), credentials.clone()));
        Ok(credentials)
    }
}

impl ProvideCredentials for FileCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.load())
    }
}

fn read_all(files: &S3Credentials) -> Result<Credentials, UnreadableKey> {
    let mut last = read_once(files)?;
    for _ in 1..READINGS {
        let again = read_once(files)?;
        if again == last {
            break;
        }
        last = again;
    }
    Ok(last)
}

fn read_once(files: &S3Credentials) -> Result<Credentials, UnreadableKey> {
    let id = read(&files.access_key_id_file)?;
    let secret = read(&files.secret_access_key_file)?;
    let token = files.session_token_file.as_deref().map(read).transpose()?;
    Ok(Credentials::new(id, secret, token, None, "bucket.s3.credentials"))
}

/// The text of a file, trimmed.
pub(super) fn read(path: &Path) -> Result<String, UnreadableKey> {
    let unreadable = |source| UnreadableKey { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let text = text.trim();
    if text.is_empty() {
        return Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, "the file is empty")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> S3Credentials {
        let file = |name| folder.join(name);
        S3Credentials {
            access_key_id_file: file("id"),
            secret_access_key_file: file("secret"),
            session_token_file: None,
        }
    }

    #[tokio::test]
    async fn keys_are_read_without_the_newline_and_read_again_when_they_are_old() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        std::fs::write(&files.access_key_id_file, "first\n").unwrap();
        std::fs::write(&files.secret_access_key_file, "secret\n").unwrap();
        let credentials = FileCredentials::open(&files);
        let id = || async { credentials.provide_credentials().await.unwrap().access_key_id().to_owned() };
        assert_eq!(id().await, "first");
        std::fs::write(&files.access_key_id_file, "second\n").unwrap();
        assert_eq!(id().await, "first");
        *credentials.last() = None;
        assert_eq!(id().await, "second");
    }

    #[tokio::test]
    async fn keys_may_be_created_after_the_node_started() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let credentials = FileCredentials::open(&files);
        assert!(credentials.provide_credentials().await.is_err());
        std::fs::write(&files.access_key_id_file, "id").unwrap();
        std::fs::write(&files.secret_access_key_file, "secret").unwrap();
        assert_eq!(credentials.provide_credentials().await.unwrap().access_key_id(), "id");
    }

    #[test]
    fn a_missing_or_empty_file_is_named_and_no_key_is_printed() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        std::fs::write(&files.access_key_id_file, "AKIA").unwrap();
        let error = read_all(&files).unwrap_err();
        assert!(error.to_string().contains("secret"), "{error}");
        std::fs::write(&files.secret_access_key_file, " \n").unwrap();
        assert!(read_all(&files).is_err());
        std::fs::write(&files.secret_access_key_file, "hush").unwrap();
        let printed = format!("{:?}", FileCredentials::open(&files));
        assert!(!printed.contains("hush"), "{printed}");
    }
}
