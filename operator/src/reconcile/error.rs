//! Why a pass failed.

/// A pass that could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error("cannot {what}: {source}")]
    Api { what: String, source: Box<kube::Error> },
    /// A write of a child or volume.
    #[error("cannot {what}: {source}")]
    Write { what: String, source: Box<kube::Error> },
    /// Something of that name is there and belongs to somebody else.
    #[error("{0} exists and does not belong to this RegistryCluster")]
    Taken(String),
    #[error("an object is not of its own form: {0}")]
    Form(serde_json::Error),
}

impl ReconcileError {
    /// A look at something failed.
    pub fn api(what: &'static str) -> impl Fn(kube::Error) -> ReconcileError {
        move |source| ReconcileError::Api { what: what.to_owned(), source: Box::new(source) }
    }

    /// A write of something failed.
    pub fn write(verb: &str, label: &str) -> impl Fn(kube::Error) -> ReconcileError {
        let what = format!("{verb} {label}");
        move |source| ReconcileError::Write { what: what.clone(), source: Box::new(source) }
    }

    /// What a user is told, when it is the API server's answer and will be the same next time. A conflict passes, and
    /// so does an API server that is overloaded.
    pub fn refusal(&self) -> Option<String> {
        match self {
            ReconcileError::Write { what, source } => match source.as_ref() {
                kube::Error::Api(status) if matches!(status.code, 400 | 403 | 404 | 405 | 413 | 422) => {
                    Some(format!("cannot {what}: {}", status.message))
                }
                _ => None,
            },
            ReconcileError::Taken(_) => Some(self.to_string()),
            ReconcileError::Api { .. } | ReconcileError::Form(_) => None,
        }
    }
}
