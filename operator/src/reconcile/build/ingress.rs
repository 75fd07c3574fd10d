//! The Ingress for the clients' Service, if the spec has a host.

use super::child::{Child, Kind};
use crate::crd::RegistryClusterSpec;
use crate::names::Identity;
use serde_json::json;

pub(super) fn ingress(identity: &Identity, spec: &RegistryClusterSpec) -> Option<Child> {
    let host = spec.ingress.host.as_deref()?;
    let backend = json!({"service": {"name": identity.name, "port": {"name": "registry"}}});
    let mut body = json!({"spec": {
        "rules": [{"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}],
    }});
    if let Some(class) = &spec.ingress.class_name {
        body["spec"]["ingressClassName"] = json!(class);
    }
    if let Some(secret) = &spec.ingress.tls_secret_name {
        body["spec"]["tls"] = json!([{"hosts": [host], "secretName": secret}]);
    }
    let child = Child::new(Kind::Ingress, identity, identity.name.clone(), body);
    Some(child.annotate(&spec.ingress.annotations))
}
