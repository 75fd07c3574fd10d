//! `docs/reference/registrycluster.md` is generated from the CRD. Run with `UPDATE_DOCS=1` to regenerate it.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

const HEAD: &str = "# RegistryCluster

<!-- Generated from operator/src/crd by `UPDATE_DOCS=1 cargo test -p entrepot-operator --test reference`. Do not edit. -->

`apiVersion: entrepot.dev/v1alpha1`, `kind: RegistryCluster`, short name `rgc`, namespaced. `kubectl explain rgc.spec --recursive`
shows the same fields. [Field mapping](field-mapping.md) shows which node fields they become,
[Conditions and events](conditions.md) what the status reports.

In the column \"default\", `required` means that the field must be set, and `none` that it is unset.
";

/// Whether the fields of an object are described here, and not in the documentation of Kubernetes.
fn is_described(object: &Value) -> bool {
    let fields = object["properties"].as_object();
    fields.is_some_and(|fields| fields.values().any(|field| field["description"].is_string()))
}

/// The fields of an object as a table, then a section for each object below it.
fn section(text: &mut String, path: &str, schema: &Value) {
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let fields = schema["properties"].as_object().unwrap();
    text.push_str("\n| field | type | default | meaning |\n|---|---|---|---|\n");
    for (name, field) in fields {
        let default = match &field["default"] {
            Value::Null if required.contains(&name.as_str()) => "required".to_owned(),
            Value::Null => "none".to_owned(),
            Value::Object(_) => "see below".to_owned(),
            default => format!("`{default}`"),
        };
        let meaning = one_line(field["description"].as_str().unwrap_or_default());
        writeln!(text, "| `{name}` | {} | {default} | {meaning} |", type_of(field)).unwrap();
    }
    rules(text, schema);
    for (name, field) in fields {
        let below = if field["items"]["properties"].is_object() { &field["items"] } else { field };
        if is_described(below) {
            let path = format!("{path}.{name}");
            write!(text, "\n## {path}\n{}\n", one_line(field["description"].as_str().unwrap_or_default())).unwrap();
            section(text, &path, below);
        }
    }
}

fn type_of(field: &Value) -> String {
    if let Some(choices) = field["enum"].as_array() {
        let choices: Vec<_> = choices.iter().filter_map(Value::as_str).map(|choice| format!("`{choice}`")).collect();
        return choices.join(", ");
    }
    if field["x-kubernetes-int-or-string"] == json!(true) {
        return "integer or string".into();
    }
    match field["type"].as_str().unwrap_or("any") {
        "array" => format!("list of {}", field["items"]["type"].as_str().unwrap_or("objects")),
        "object" if field["additionalProperties"].is_object() => "map".into(),
        name => name.into(),
    }
}

/// What the API server rejects in addition to the schema.
fn rules(text: &mut String, schema: &Value) {
    let Some(rules) = schema["x-kubernetes-validations"].as_array() else { return };
    text.push_str("\nThe API server rejects a spec that breaks one of these rules:\n");
    for rule in rules {
        let field = rule["fieldPath"].as_str().map_or(String::new(), |path| format!("`{}`: ", &path[1..]));
        writeln!(text, "- {field}{}", one_line(rule["message"].as_str().unwrap())).unwrap();
    }
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

fn document() -> String {
    let definition = json!(entrepot_operator::definition().unwrap());
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let mut text = HEAD.to_owned();
    for part in ["spec", "status"] {
        write!(text, "\n## {part}\n{}\n", one_line(schema[part]["description"].as_str().unwrap_or_default())).unwrap();
        section(&mut text, part, &schema[part]);
    }
    text
}

#[test]
fn the_reference_matches_the_custom_resource_definition() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/registrycluster.md");
    let document = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == document, "docs/reference/registrycluster.md is out of date; run with UPDATE_DOCS=1");
}
