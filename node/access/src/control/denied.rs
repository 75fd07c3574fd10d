//! Why a request is refused.

use crate::AuthError;
use entrepot_config::Action;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The request has no credential, and clients without one may not do this.
    #[error("authentication required")]
    NoCredential,
    /// The token was issued for less than this. The caller may do it, or may have credentials that
    /// allow it, and can ask for another token.
    #[error("the token does not allow this request")]
    InsufficientScope,
    /// The credential is wrong.
    #[error("invalid credentials or token")]
    Credential(#[source] AuthError),
    /// The caller is known and may not do this.
    #[error("{caller} may not {} {repository}", verb(*action))]
    Forbidden {
        /// The name of the caller.
        caller: String,
        /// What it may not do.
        action: Action,
        /// Where.
        repository: String,
    },
    /// A service that has to decide cannot be asked.
    #[error("access cannot be decided now, because a service that decides does not answer; retry later")]
    Unavailable(#[source] AuthError),
    /// Too many wrong passwords.
    #[error("too many failed logins; retry later")]
    TooMany {
        /// Seconds after which the client may retry.
        retry_after_seconds: u32,
    },
}

fn verb(action: Action) -> &'static str {
    match action {
        Action::Pull => "pull from",
        Action::Push => "push to",
        Action::Delete => "delete from",
    }
}

impl From<AuthError> for Denied {
    fn from(error: AuthError) -> Denied {
        match error {
            AuthError::Refused { .. } => Denied::Credential(error),
            AuthError::Unavailable { .. } => Denied::Unavailable(error),
            AuthError::TooMany { retry_after_seconds } => Denied::TooMany { retry_after_seconds },
        }
    }
}
