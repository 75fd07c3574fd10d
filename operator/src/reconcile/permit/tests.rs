use super::*;
use crate::crd::RegistryCluster;
use crate::testing::{cluster, installation};
use serde_json::{Value, json};

fn spec(difference: &Value) -> RegistryClusterSpec {
    serde_json::from_value::<RegistryCluster>(cluster("images", difference)).unwrap().spec
}

fn refusal(difference: &Value) -> Option<Refusal> {
    check(&spec(difference), "team", &[], &installation())
}

#[test]
fn what_the_installation_does_not_allow_is_refused_with_field_value_and_setting() {
    let annotations = |name: &str| json!({"annotations": {name: "x"}});
    let role = json!({"serviceAccountAnnotations": {"example.com/role": "x"}});
    let snippet = "nginx.ingress.kubernetes.io/configuration-snippet";
    for (difference, field, value, setting) in [
        (json!({"nodeImage": "other/entrepot-node:1"}), "spec.nodeImage", "other/entrepot-node:1", "nodeImages"),
        (json!({"nodeImage": "entrepot-node-2:1"}), "spec.nodeImage", "entrepot-node-2:1", "nodeImages"),
        (
            json!({"scheduling": {"priorityClassName": "system-cluster-critical"}}),
            "spec.scheduling.priorityClassName",
            "system-cluster-critical",
            "priorityClasses",
        ),
        (
            json!({"bucket": {"endpoint": "https://user@attacker.example:80"}}),
            "spec.bucket.endpoint",
            "attacker.example",
            "endpoints",
        ),
        (
            json!({"bucket": {"auth": {"secretRef": null, "workloadIdentity": role}}}),
            "spec.bucket.auth.workloadIdentity.serviceAccountAnnotations",
            "example.com/role",
            "serviceAccountAnnotations",
        ),
        (json!({"service": annotations("a/b")}), "spec.service.annotations", "a/b", "serviceAnnotations"),
        (json!({"ingress": annotations(snippet)}), "spec.ingress.annotations", snippet, "ingressAnnotations"),
    ] {
        let Refusal { reason, message } = refusal(&difference).unwrap();
        assert_eq!(reason, "NotAllowed");
        assert!(message.starts_with(&format!("{field}: {value:?} ")), "{message}");
        assert!(message.contains(&format!(" allowed.{setting} ")), "{message}");
    }
}

#[test]
fn what_the_installation_allows_is_not_refused() {
    let role = json!({"serviceAccountAnnotations": {"eks.amazonaws.com/role-arn": "x"}});
    for difference in [
        json!({}),
        json!({"nodeImage": "entrepot-node:other-tag"}),
        json!({"nodeImage": "entrepot-node@sha256:0123"}),
        json!({"nodeImage": "mirror.example/entrepot-node:1"}),
        json!({"scheduling": {"priorityClassName": ""}}),
        json!({"bucket": {"endpoint": "https://S3.storage.svc:9000/"}}),
        json!({"bucket": {"region": "eu-west-1"}}),
        json!({"bucket": {"auth": {"secretRef": null, "workloadIdentity": role}}}),
        json!({"ingress": {"annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "0"}}}),
    ] {
        assert_eq!(refusal(&difference), None, "{difference}");
    }
}

#[test]
fn every_refused_value_is_named() {
    let refused = refusal(&json!({"nodeImage": "a", "service": {"annotations": {"b": "", "c": ""}}})).unwrap();
    assert_eq!(refused.message.matches("is not allowed").count(), 3, "{}", refused.message);
}

#[test]
fn a_secret_has_to_exist_and_to_allow_its_use() {
    let of = |purpose, state| {
        let secret = ReferencedSecret { purpose, name: "database".into(), state };
        check(&spec(&json!({})), "team", &[secret], &installation())
    };
    for purpose in [Purpose::Bucket, Purpose::Ca] {
        assert_eq!(of(purpose, SecretState::Allowed), None);
        // The failed read is a failure of the reconciliation.
        assert_eq!(of(purpose, SecretState::Unknown), None);
    }
    let missing = |purpose| of(purpose, SecretState::Missing).unwrap().reason;
    assert_eq!((missing(Purpose::Bucket), missing(Purpose::Ca)), ("SecretMissing", "CaBundleMissing"));
    let Refusal { reason, message } = of(Purpose::Bucket, SecretState::NotLabelled).unwrap();
    assert_eq!(reason, "SecretNotLabelled");
    assert!(message.ends_with("kubectl -n team label secret database entrepot.dev/use=bucket"), "{message}");
    assert!(of(Purpose::Ca, SecretState::NotLabelled).unwrap().message.ends_with(" entrepot.dev/use=ca"));
}
