//! A registry with `readOnly` refuses every request that needs the right to push or delete.

use super::call::Call;
use crate::http::api::access::Access;
use crate::http::api::endpoint::EndpointKind;
use crate::http::error::ApiError;

/// Whether this registry is read-only.
pub struct ReadOnly(pub bool);

impl ReadOnly {
    /// # Errors
    /// 405, with the methods of the endpoint that remain.
    pub fn check(&self, call: &Call<'_>) -> Result<(), ApiError> {
        if self.0 && call.route.access().any(Access::writes) {
            return Err(ApiError::ReadOnly { allowed: EndpointKind::of(call.head.uri.path()).read_methods() });
        }
        Ok(())
    }
}
