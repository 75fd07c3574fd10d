//! What to show of an error of the Kubernetes API.

/// The API server's own message, if it responded.
pub fn message_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("the API server responded with status {}", status.code),
        other => other.to_string(),
    }
}
