//! `docs/reference/configuration.md` is generated from the configuration type. Run with `UPDATE_DOCS=1` to
//! regenerate it.

#![allow(clippy::unwrap_used)]

use entrepot_config::{NodeConfig, S3, S3Credentials, Tls};
use schemars::schema_for;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

const HEAD: &str = "# Configuration of a node

<!-- Generated from node/config by `UPDATE_DOCS=1 cargo test -p entrepot-config --test reference`. Do not edit. -->

This page lists the fields of the YAML file that a registry node reads. On Kubernetes the operator writes this file from a
RegistryCluster; [Field mapping](field-mapping.md) shows which field comes from
where.

The command-line option `--config FILE` names the file. Every field has a default. Without a file, a node is a working
registry on 127.0.0.1:5000 that keeps all data under `./entrepot-data`. A node does not start with an unknown field or an
invalid value; the error names the path of the field. `entrepot-node --check-config --config FILE` validates a file without
starting the node.

Sizes have the form of Kubernetes quantities without fractions (`512Mi`, `10Gi`, `5G`). Durations are an integer with a
unit (`250ms`, `10s`, `5m`, `24h`, `7d`). In the column \"default\", `none` means that the field is unset.

```yaml
# One of three nodes on Kubernetes that share a bucket.
node: {name: \"${POD_NAME}\", peerUrl: \"http://{node}.images.registry.svc:5000\"}
http: {listen: \"0.0.0.0:5000\"}
operations: {listen: \"0.0.0.0:5001\"}
bucket:
  s3: {name: images, region: us-east-1, endpoint: \"https://s3.storage:7070\", pathStyle: true}
store: {path: /var/lib/entrepot, capacity: 190Gi, lowFree: 10%, targetFree: 20%}
```
";

/// The defaults of all fields, including those of sections that are unset by default.
fn defaults() -> Value {
    let mut defaults = json!(NodeConfig::default());
    defaults["http"]["tls"] = json!(Tls::default());
    defaults["bucket"]["s3"] = json!(S3 { credentials: Some(S3Credentials::default()), ..S3::default() });
    defaults
}

struct Writer<'a> {
    definitions: &'a Value,
    text: String,
}

impl Writer<'_> {
    /// The definition that a schema refers to, directly or, for an optional field, in `anyOf`.
    fn definition<'s>(&'s self, schema: &'s Value) -> &'s Value {
        let reference = schema["$ref"].as_str().or_else(|| schema["anyOf"][0]["$ref"].as_str());
        match reference.and_then(|reference| reference.strip_prefix("#/$defs/")) {
            Some(name) => &self.definitions[name],
            None => schema,
        }
    }

    fn section(&mut self, path: &str, schema: &Value, defaults: &Value) {
        let mut sections = Vec::new();
        let properties = schema["properties"].as_object().unwrap();
        self.text.push_str("\n| field | default | meaning |\n|---|---|---|\n");
        for (name, property) in properties {
            let definition = self.definition(property).clone();
            let field = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if definition["properties"].is_object() {
                sections.push((field, definition, defaults[name].clone()));
                continue;
            }
            let mut meaning =
                one_line(property["description"].as_str().or(definition["description"].as_str()).unwrap());
            for choice in definition["oneOf"].as_array().into_iter().flatten() {
                let value = choice["const"].as_str().unwrap();
                write!(meaning, "<br>`{value}`: {}", one_line(choice["description"].as_str().unwrap_or(value)))
                    .unwrap();
            }
            if let Some(choices) = definition["enum"].as_array() {
                let choices: Vec<String> =
                    choices.iter().map(|choice| format!("`{}`", choice.as_str().unwrap())).collect();
                write!(meaning, " One of {}.", choices.join(", ")).unwrap();
            }
            writeln!(self.text, "| `{field}` | {} | {meaning} |", shown(&defaults[name])).unwrap();
        }
        for (field, definition, defaults) in sections {
            let level = "#".repeat(2 + field.matches('.').count());
            let description = one_line(definition["description"].as_str().unwrap());
            write!(self.text, "\n{level} `{field}`\n{description}\n").unwrap();
            self.section(&field, &definition, &defaults);
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) if text.is_empty() => "empty".into(),
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    }
}

fn document() -> String {
    let schema = json!(schema_for!(NodeConfig));
    let mut writer = Writer { definitions: &schema["$defs"], text: HEAD.into() };
    writer.section("", &schema, &defaults());
    writer.text
}

#[test]
fn the_documentation_matches_the_configuration_type() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/configuration.md");
    let document = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == document, "docs/reference/configuration.md is out of date; run with UPDATE_DOCS=1");
}

#[test]
fn the_example_in_the_documentation_is_a_valid_configuration() {
    let example = HEAD.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let example = example.replace("${POD_NAME}", "images-0");
    NodeConfig::from_yaml(&example).unwrap();
}
