//! A value that is made of files, and made again when their text changes. The texts are compared,
//! which detects every way to replace a file, including the kubelet's (see `app::live`).

use super::pem::{Pem, PemFile, TlsError};
use entrepot_oci::Digest;
use entrepot_runtime::clock::Timestamp;
use parking_lot::Mutex;
use std::sync::Arc;

/// Makes the value of the texts of all files, in their order, at a time.
type Make<T> = Box<dyn Fn(&[Pem<'_>], Timestamp) -> Result<T, TlsError> + Send + Sync>;

/// The value in use, and why the current files are not.
pub struct Live<T> {
    files: Vec<PemFile>,
    make: Make<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    /// Of the files that the value is made of.
    digests: Vec<Digest>,
    value: Arc<T>,
    refused: Option<TlsError>,
}

impl<T> Live<T> {
    /// Reads the files. Blocking.
    ///
    /// # Errors
    /// If they are invalid.
    pub fn load(files: Vec<PemFile>, make: Make<T>, now: Timestamp) -> Result<Live<T>, TlsError> {
        let texts = read(&files)?;
        let value = Arc::new(make(&texts, now)?);
        let digests = digests(&texts);
        drop(texts);
        Ok(Live { files, make, state: Mutex::new(State { digests, value, refused: None }) })
    }

    /// The value in use.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.state.lock().value)
    }

    /// Why the current files are not in use.
    pub fn refused(&self) -> Option<TlsError> {
        self.state.lock().refused.clone()
    }

    /// Reads the files again, and uses them if they changed and are valid. Otherwise the value stays.
    /// Blocking. Returns whether the value is a new one.
    pub fn reload(&self, now: Timestamp) -> bool {
        let read = match read(&self.files) {
            Ok(texts) => texts,
            Err(why) => return self.refuse(why),
        };
        let new = digests(&read);
        if new == self.state.lock().digests {
            self.state.lock().refused = None;
            return false;
        }
        // Files that are being replaced may be of two versions; the next round reads them again.
        if self.read_digests().as_ref() != Ok(&new) {
            return false;
        }
        match (self.make)(&read, now) {
            Ok(value) => {
                *self.state.lock() = State { digests: new, value: Arc::new(value), refused: None };
                true
            }
            Err(why) => self.refuse(why),
        }
    }

    fn read_digests(&self) -> Result<Vec<Digest>, TlsError> {
        read(&self.files).map(|texts| digests(&texts))
    }

    fn refuse(&self, why: TlsError) -> bool {
        let mut state = self.state.lock();
        // Logged once, not at every read.
        if state.refused.as_ref() != Some(&why) {
            tracing::error!(error = %why, "invalid or unreadable TLS files; keeping the previous ones");
        }
        state.refused = Some(why);
        false
    }
}

fn read(files: &[PemFile]) -> Result<Vec<Pem<'_>>, TlsError> {
    files.iter().map(PemFile::read).collect()
}

fn digests(texts: &[Pem<'_>]) -> Vec<Digest> {
    texts.iter().map(Pem::digest).collect()
}
