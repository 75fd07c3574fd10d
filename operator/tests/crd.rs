//! The definition of RegistryCluster without a cluster: `crds/` holds what is generated, and the very expressions in
//! the schema are evaluated for what they admit and what they refuse.

#![allow(clippy::unwrap_used)]

use entrepot_operator::crd::{RegistryCluster, definition, definition_yaml};
use kube_cel::{ScopeContext, Validator, check_rule_scope, compile_schema, estimate_rule_cost};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

fn schema() -> Value {
    let definition = definition().unwrap();
    serde_json::to_value(definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap())
        .unwrap()
}

/// A valid cluster, with what differs merged into its spec; null removes.
fn cluster(difference: &Value) -> Value {
    let mut cluster = json!({
        "apiVersion": "entrepot.dev/v1alpha1",
        "kind": "RegistryCluster",
        "metadata": {"name": "images", "namespace": "registry"},
        "spec": {
            "bucket": {"name": "images", "auth": {"secretRef": {"name": "s3"}}},
            "cache": {"size": "200Gi"},
        },
    });
    merge(&mut cluster["spec"], difference);
    cluster
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                if value.is_null() {
                    into.remove(name);
                } else {
                    merge(into.entry(name.clone()).or_insert_with(|| json!({})), value);
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// The messages with which a cluster is refused.
fn refusals(new: &Value, old: Option<&Value>) -> BTreeSet<String> {
    match Validator::new().validate(&schema(), new, old) {
        Ok(()) => BTreeSet::new(),
        Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
    }
}

/// What is refused at creation, with the beginning of the message.
fn refused_at_creation() -> Vec<(Value, &'static str)> {
    let above = "cache.targetFree must be above cache.lowFree";
    let whole = "cache.targetFree must be below cache.size";
    let auth = "bucket.auth has exactly one";
    let prefix = "bucket.prefix is empty or a path";
    vec![
        (json!({"cache": {"lowFree": "20%", "targetFree": "20%"}}), above),
        (json!({"cache": {"lowFree": "20%", "targetFree": "10%"}}), above),
        (json!({"cache": {"lowFree": "9%", "targetFree": "10Gi", "size": "100Gi"}, "replicas": 1}), ""),
        (json!({"cache": {"lowFree": "30Gi", "targetFree": "10%"}}), above),
        (json!({"cache": {"lowFree": "10%", "targetFree": "10Gi"}}), above),
        (json!({"cache": {"lowFree": "2Gi", "targetFree": "2048Mi"}}), above),
        (json!({"cache": {"lowFree": "10%", "targetFree": "100%"}}), whole),
        (json!({"cache": {"lowFree": "10%", "targetFree": "200Gi"}}), whole),
        (json!({"bucket": {"auth": {"secretRef": null}}}), auth),
        (json!({"bucket": {"auth": {"workloadIdentity": {}}}}), auth),
        (json!({"bucket": {"prefix": "a"}}), prefix),
        (json!({"bucket": {"prefix": "/a/"}}), prefix),
        (json!({"bucket": {"prefix": "a//b/"}}), "bucket.prefix has no empty part"),
        (json!({"bucket": {"prefix": "a/../b/"}}), "bucket.prefix has no empty part"),
        (json!({"bucket": {"prefix": "./"}}), "bucket.prefix has no empty part"),
        (json!({"podDisruptionBudget": {"minAvailable": 1, "maxUnavailable": 1}}), "podDisruptionBudget has at most"),
        (json!({"service": {"nodePort": 30500}}), "service.nodePort needs"),
        (json!({"ingress": {"tlsSecretName": "tls"}}), "ingress.tlsSecretName needs"),
    ]
}

/// What is refused as a change, with the beginning of the message.
fn refused_as_change() -> Vec<(Value, Value, &'static str)> {
    let shrinks = "cache.size never shrinks";
    let class = "cache.storageClassName changes only";
    vec![
        (json!({}), json!({"bucket": {"name": "other"}}), "bucket.name cannot be changed"),
        (json!({}), json!({"bucket": {"prefix": "a/"}}), "bucket.prefix cannot be changed"),
        (json!({"bucket": {"prefix": "a/"}}), json!({}), "bucket.prefix cannot be changed"),
        (json!({}), json!({"cache": {"size": "199Gi"}}), shrinks),
        (json!({}), json!({"cache": {"size": "200G"}}), shrinks),
        (json!({}), json!({"cache": {"storageClassName": "fast"}}), class),
        (json!({"cache": {"storageClassName": "fast"}}), json!({}), class),
        (json!({"cache": {"storageClassName": "fast"}}), json!({"cache": {"storageClassName": "slow"}}), class),
    ]
}

fn named(name: &str) -> Value {
    let mut cluster = cluster(&json!({}));
    cluster["metadata"]["name"] = json!(name);
    cluster
}

#[test]
fn the_definition_in_the_repository_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/entrepot.dev_registryclusters.yaml");
    let generated = definition_yaml().unwrap();
    if std::env::var_os("UPDATE_CRDS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == generated, "crds/ is out of date; run with UPDATE_CRDS=1");
}

#[test]
fn what_is_right_is_admitted() {
    for difference in [
        json!({}),
        json!({"cache": {"lowFree": "10Gi", "targetFree": "20Gi"}}),
        json!({"cache": {"lowFree": "1Gi", "targetFree": "1%"}}),
        json!({"cache": {"lowFree": "0%", "targetFree": "1"}}),
        json!({"cache": {"lowFree": "98%", "targetFree": "99%", "storageClassName": "fast"}}),
        json!({"bucket": {"prefix": "a/b.c/", "auth": {"secretRef": null, "workloadIdentity": {}}}}),
        json!({"podDisruptionBudget": {"minAvailable": "50%"}}),
        json!({"service": {"type": "NodePort", "nodePort": 30500}, "ingress": {"host": "images.example"}}),
        json!({"ingress": {"host": "images.example", "tlsSecretName": "tls"}}),
    ] {
        let cluster = cluster(&difference);
        assert_eq!(refusals(&cluster, None), BTreeSet::new(), "{difference}");
        assert_eq!(refusals(&cluster, Some(&cluster)), BTreeSet::new(), "{difference} unchanged");
        serde_json::from_value::<RegistryCluster>(cluster).unwrap();
    }
}

#[test]
fn what_is_wrong_is_refused_by_the_rule_that_it_breaks() {
    for (difference, beginning) in refused_at_creation() {
        let refusals = refusals(&cluster(&difference), None);
        // Nothing expected: it is right, just within the bounds of its neighbours.
        let found = if beginning.is_empty() {
            refusals.is_empty()
        } else {
            refusals.iter().any(|refusal| refusal.starts_with(beginning))
        };
        assert!(found, "{difference}: {refusals:?}");
    }
}

#[test]
fn what_cannot_change_is_refused_and_what_can_is_admitted() {
    for (old, new, beginning) in refused_as_change() {
        let refusals = refusals(&cluster(&new), Some(&cluster(&old)));
        assert!(refusals.iter().any(|refusal| refusal.starts_with(beginning)), "{old} to {new}: {refusals:?}");
    }
    let recreate = |size: &str| json!({"cache": {"size": size, "resizePolicy": "Recreate"}});
    for (old, new) in [
        (json!({}), json!({"cache": {"size": "300Gi"}})),
        (json!({}), recreate("100Gi")),
        (recreate("300Gi"), json!({"cache": {"size": "300Gi"}})),
        (recreate("100Gi"), json!({"cache": {"size": "100Gi", "resizePolicy": "Recreate", "storageClassName": "x"}})),
        (json!({}), json!({"replicas": 5, "bucket": {"region": "eu-west-1"}, "cache": {"lowFree": "5%"}})),
        (json!({}), json!({"bucket": {"auth": {"secretRef": {"name": "other"}}}})),
    ] {
        assert_eq!(refusals(&cluster(&new), Some(&cluster(&old))), BTreeSet::new(), "{old} to {new}");
    }
}

#[test]
fn a_size_that_volumes_cannot_have_is_set_back() {
    let told = |reason: &str| {
        let mut cluster = cluster(&json!({"cache": {"size": "300Gi"}}));
        let condition = json!({"type": "StorageResized", "status": "False", "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        cluster["status"] = json!({"conditions": [condition]});
        cluster
    };
    let set_back = |old: &Value| {
        let mut new = old.clone();
        new["spec"]["cache"]["size"] = json!("200Gi");
        refusals(&new, Some(old))
    };
    assert_eq!(set_back(&told("StorageClassCannotExpand")), BTreeSet::new());
    assert_eq!(set_back(&told("Expanding")).len(), 1);
}

#[test]
fn names_that_cannot_name_pods_and_services_are_refused() {
    let (long, longest) = ("a".repeat(41), "a".repeat(40));
    for name in [&long, "1a", "a.b", "a-"] {
        assert_eq!(refusals(&named(name), None).len(), 1, "{name}");
    }
    for name in [&longest, "a", "a-1"] {
        assert_eq!(refusals(&named(name), None), BTreeSet::new(), "{name}");
    }
}

/// All rules of a schema with the schema that they are in.
fn rules(schema: &Value, found: &mut Vec<(String, String, Value)>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let text = |name: &str| rule[name].as_str().unwrap().to_owned();
        found.push((text("rule"), text("message"), schema.clone()));
    }
    for property in schema["properties"].as_object().into_iter().flat_map(|properties| properties.values()) {
        rules(property, found);
    }
}

#[test]
fn every_rule_has_a_message_is_within_the_cost_budget_and_is_seen_to_refuse() {
    let mut found = Vec::new();
    rules(&schema(), &mut found);
    assert!(found.len() >= 12, "{found:?}");
    let mut seen = BTreeSet::new();
    seen.extend(refused_at_creation().iter().flat_map(|(difference, _)| refusals(&cluster(difference), None)));
    for (old, new, _) in refused_as_change() {
        seen.extend(refusals(&cluster(&new), Some(&cluster(&old))));
    }
    seen.extend(["a.b", &"a".repeat(41)].into_iter().flat_map(|name| refusals(&named(name), None)));
    for (rule, message, schema) in found {
        assert!(seen.contains(&message), "nothing is refused by: {message}");
        let compiled = compile_schema(&schema);
        assert!(!compiled.has_errors(), "{:?}", compiled.compilation_errors());
        let warnings = estimate_rule_cost(&rule, &compiled);
        assert!(warnings.is_empty() || rule.contains("metadata"), "{rule}: {warnings:?}");
        // A name that `exists` binds is no variable of the scope.
        let unknown = check_rule_scope(&rule, ScopeContext::CrdValidation);
        assert!(unknown.iter().all(|unknown| unknown.message.starts_with("variable 'told'")), "{rule}: {unknown:?}");
    }
}

#[test]
fn defaults_of_the_schema_are_those_of_the_types() {
    let defaulted = kube_cel::apply_defaults(&schema(), &cluster(&json!({})));
    let by_schema: RegistryCluster = serde_json::from_value(defaulted).unwrap();
    let by_type: RegistryCluster = serde_json::from_value(cluster(&json!({}))).unwrap();
    assert_eq!(by_schema, by_type);
    assert_eq!(by_type.spec.replicas, 3);
}

#[test]
fn the_scale_subresource_reads_and_writes_the_replicas() {
    let definition = definition().unwrap();
    let subresources = definition.spec.versions[0].subresources.as_ref().unwrap();
    let scale = subresources.scale.as_ref().unwrap();
    assert_eq!(
        (scale.spec_replicas_path.as_str(), scale.status_replicas_path.as_str(), scale.label_selector_path.as_deref()),
        (".spec.replicas", ".status.replicas", Some(".status.selector"))
    );
    assert!(subresources.status.is_some());
    assert_eq!(definition.spec.names.short_names.as_deref(), Some(&["rgc".to_owned()][..]));
}
