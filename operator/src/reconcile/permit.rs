//! Whether a spec may be applied: the operator's installation allows what it uses, and the owner of
//! each Secret allows its use. Pure. If not, nothing of the spec is applied, and the registry that
//! runs goes on.

#[cfg(test)]
mod tests;

use super::observe::{Purpose, ReferencedSecret, SecretState};
use crate::allowed::{Patterns, repository};
use crate::crd::{Bucket, RegistryClusterSpec};
use crate::installation::Installation;
use crate::names::USE;
use hyper::Uri;

/// Why a spec is not applied, in the form of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: &'static str,
    pub message: String,
}

/// Every reason for which the spec is not applied, as one; `None` if there is none.
pub fn check(
    spec: &RegistryClusterSpec,
    namespace: &str,
    secrets: &[ReferencedSecret],
    installation: &Installation,
) -> Option<Refusal> {
    let mut refusals = used(spec, installation);
    refusals.extend(secrets.iter().filter_map(|secret| of_secret(secret, namespace)));
    let reason = refusals.first()?.reason;
    let messages: Vec<_> = refusals.into_iter().map(|refusal| refusal.message).collect();
    Some(Refusal { reason, message: messages.join("; ") })
}

/// What the spec uses and the installation does not allow.
fn used(spec: &RegistryClusterSpec, installation: &Installation) -> Vec<Refusal> {
    let allowed = &installation.allowed;
    let mut refused = Vec::new();
    let mut need = |patterns: &Patterns, setting: &str, field: &str, value: &str| {
        if !patterns.matches(value) {
            refused.push(not_allowed(setting, field, value));
        }
    };
    if let Some(image) = &spec.node_image
        && repository(image) != repository(&installation.node_image)
    {
        need(&allowed.node_images, "nodeImages", "spec.nodeImage", image);
    }
    if let Some(class) = spec.scheduling.priority_class_name.as_ref().filter(|class| !class.is_empty()) {
        need(&allowed.priority_classes, "priorityClasses", "spec.scheduling.priorityClassName", class);
    }
    need(&allowed.endpoints, "endpoints", "spec.bucket.endpoint", &host(&spec.bucket));
    let workload = spec.bucket.auth.workload_identity.as_ref();
    for name in workload.iter().flat_map(|workload| workload.service_account_annotations.keys()) {
        let field = "spec.bucket.auth.workloadIdentity.serviceAccountAnnotations";
        need(&allowed.service_account_annotations, "serviceAccountAnnotations", field, name);
    }
    for name in spec.service.annotations.keys() {
        need(&allowed.service_annotations, "serviceAnnotations", "spec.service.annotations", name);
    }
    for name in spec.ingress.annotations.keys() {
        need(&allowed.ingress_annotations, "ingressAnnotations", "spec.ingress.annotations", name);
    }
    refused
}

fn not_allowed(setting: &str, field: &str, value: &str) -> Refusal {
    let message = format!(
        "{field}: {value:?} is not allowed by the operator's installation; its administrator can add it to \
         allowed.{setting} in the values of the chart"
    );
    Refusal { reason: "NotAllowed", message }
}

/// The host to which the credentials are sent.
fn host(bucket: &Bucket) -> String {
    let Some(endpoint) = &bucket.endpoint else {
        return format!("s3.{}.amazonaws.com", bucket.region.as_deref().unwrap_or("us-east-1"));
    };
    let parsed = endpoint.parse::<Uri>().ok();
    // The whole text, if it has no host: then it is not on a list of hosts.
    parsed.as_ref().and_then(Uri::host).unwrap_or(endpoint).to_ascii_lowercase()
}

fn of_secret(secret: &ReferencedSecret, namespace: &str) -> Option<Refusal> {
    let ReferencedSecret { purpose, name, state } = secret;
    let (field, label) = (purpose.field(), purpose.label());
    match state {
        SecretState::Allowed | SecretState::Unknown => None,
        SecretState::Missing => Some(Refusal {
            reason: match purpose {
                Purpose::Bucket => "SecretMissing",
                Purpose::Ca => "CaBundleMissing",
            },
            message: format!("Secret {name} ({field}) does not exist; create it with the label {USE}={label}"),
        }),
        SecretState::NotLabelled => Some(Refusal {
            reason: "SecretNotLabelled",
            message: format!(
                "Secret {name} ({field}) does not allow its use by registries; allow it with: \
                 kubectl -n {namespace} label secret {name} {USE}={label}"
            ),
        }),
    }
}
