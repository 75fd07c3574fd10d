//! Tests of the RegistryCluster CRD without an API server: `crds/` holds what is generated, and the
//! CEL expressions of the schema are evaluated on specs that they must admit and refuse.

#![allow(clippy::unwrap_used)]

use entrepot_operator::{RegistryCluster, definition, definition_yaml};
use kube_cel::{ScopeContext, Validator, check_rule_scope, compile_schema, estimate_rule_cost};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

fn schema() -> Value {
    let definition = definition().unwrap();
    serde_json::to_value(definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap())
        .unwrap()
}

/// Specs that the rules admit or refuse, the latter with the beginning of the message. An e2e
/// scenario applies the same cases to a real API server.
fn cases(name: &str) -> Vec<Value> {
    rules_file()[name].as_array().unwrap().clone()
}

fn rules_file() -> Value {
    serde_json::from_str(include_str!("rules.json")).unwrap()
}

/// A valid cluster with the difference merged into its spec; null removes a field.
fn cluster(difference: &Value) -> Value {
    let mut cluster = rules_file()["cluster"].clone();
    json_patch::merge(&mut cluster["spec"], difference);
    cluster
}

/// The messages with which a cluster is refused.
fn refusals(new: &Value, old: Option<&Value>) -> BTreeSet<String> {
    match Validator::new().validate(&schema(), new, old) {
        Ok(()) => BTreeSet::new(),
        Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
    }
}

fn named(name: &Value) -> Value {
    let mut cluster = cluster(&json!({}));
    cluster["metadata"]["name"] = name.clone();
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
fn valid_specs_are_admitted() {
    for difference in cases("admitted") {
        let cluster = cluster(&difference);
        assert_eq!(refusals(&cluster, None), BTreeSet::new(), "{difference}");
        assert_eq!(refusals(&cluster, Some(&cluster)), BTreeSet::new(), "{difference} unchanged");
        serde_json::from_value::<RegistryCluster>(cluster).unwrap();
    }
}

#[test]
fn invalid_specs_are_refused_by_the_rule_that_they_break() {
    for case in cases("refused") {
        let refusals = refusals(&cluster(&case[0]), None);
        assert!(refusals.iter().any(|refusal| refusal.starts_with(case[1].as_str().unwrap())), "{case}: {refusals:?}");
    }
}

#[test]
fn changes_of_immutable_fields_are_refused_and_others_admitted() {
    for case in cases("changes refused") {
        let refusals = refusals(&cluster(&case[1]), Some(&cluster(&case[0])));
        assert!(refusals.iter().any(|refusal| refusal.starts_with(case[2].as_str().unwrap())), "{case}: {refusals:?}");
    }
    for case in cases("changes admitted") {
        assert_eq!(refusals(&cluster(&case[1]), Some(&cluster(&case[0]))), BTreeSet::new(), "{case}");
    }
}

#[test]
fn a_size_that_the_storage_class_cannot_provide_may_be_restored() {
    let told = |reason: &str| {
        let mut cluster = cluster(&json!({"store": {"size": "300Gi"}}));
        let condition = json!({"type": "StorageResized", "status": "False", "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        cluster["status"] = json!({"conditions": [condition]});
        cluster
    };
    let set_back = |old: &Value| {
        let mut new = old.clone();
        new["spec"]["store"]["size"] = json!("200Gi");
        refusals(&new, Some(old))
    };
    assert_eq!(set_back(&told("StorageClassCannotExpand")), BTreeSet::new());
    assert_eq!(set_back(&told("Expanding")).len(), 1);
}

#[test]
fn names_that_cannot_name_pods_and_services_are_refused() {
    for name in cases("names refused") {
        assert_eq!(refusals(&named(&name), None).len(), 1, "{name}");
    }
    for name in cases("names admitted") {
        assert_eq!(refusals(&named(&name), None), BTreeSet::new(), "{name}");
    }
}

/// All rules of a schema, each with the schema that contains it.
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
fn every_rule_has_a_message_stays_within_the_cost_budget_and_refuses_a_case() {
    let mut found = Vec::new();
    rules(&schema(), &mut found);
    assert!(found.len() >= 12, "{found:?}");
    let mut seen = BTreeSet::new();
    seen.extend(cases("refused").iter().flat_map(|case| refusals(&cluster(&case[0]), None)));
    seen.extend(
        cases("changes refused").iter().flat_map(|case| refusals(&cluster(&case[1]), Some(&cluster(&case[0])))),
    );
    seen.extend(cases("names refused").iter().flat_map(|name| refusals(&named(name), None)));
    for (rule, message, schema) in found {
        assert!(seen.contains(&message), "nothing is refused by: {message}");
        let compiled = compile_schema(&schema);
        assert!(!compiled.has_errors(), "{:?}", compiled.compilation_errors());
        let warnings = estimate_rule_cost(&rule, &compiled);
        assert!(warnings.is_empty() || rule.contains("metadata"), "{rule}: {warnings:?}");
        // `exists` binds this name, which the check reports as unknown.
        let unknown = check_rule_scope(&rule, ScopeContext::CrdValidation);
        assert!(unknown.iter().all(|unknown| unknown.message.starts_with("variable 'told'")), "{rule}: {unknown:?}");
    }
}

#[test]
fn the_schema_has_the_same_defaults_as_the_types() {
    let defaulted = kube_cel::apply_defaults(&schema(), &cluster(&json!({})));
    let by_schema: RegistryCluster = serde_json::from_value(defaulted).unwrap();
    let by_type: RegistryCluster = serde_json::from_value(cluster(&json!({}))).unwrap();
    assert_eq!(by_schema, by_type);
    assert_eq!(by_type.spec.replicas, 3);
}

#[test]
fn the_scale_subresource_maps_to_the_replicas() {
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
