//! Why a client is not authenticated or a decision is not possible.

/// Why a client is not authenticated or a decision is not possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The credential is wrong. The reason is for the log; the client does not learn it.
    #[error("credential refused: {reason}")]
    Refused {
        /// What is wrong, without any secret.
        reason: String,
    },
    /// A service that has to be asked does not answer.
    #[error("{service} cannot be asked: {reason}")]
    Unavailable {
        /// The service, such as `the Kubernetes API server`.
        service: String,
        /// What failed.
        reason: String,
    },
    /// Too many wrong passwords, or too many passwords to verify at the same time.
    #[error("too many password attempts; retry in {retry_after_seconds} s")]
    TooMany {
        /// Seconds after which the client may retry.
        retry_after_seconds: u32,
    },
}

impl AuthError {
    /// A refusal for this reason.
    pub fn refused(reason: impl Into<String>) -> AuthError {
        AuthError::Refused { reason: reason.into() }
    }
}
