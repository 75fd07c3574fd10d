//! Whatever the API server admits as a RegistryCluster, the operator reads: one object that it could
//! not read would be reported and not reconciled, although nobody told its author at once.

#![allow(clippy::unwrap_used, clippy::panic)]

use entrepot_operator::{RegistryCluster, definition};
use kube_cel::Validator;
use proptest::prelude::*;
use proptest::strategy::Union;
use proptest::string::string_regex;
use serde_json::{Value, json};

/// A field of the spec: its path, as a JSON pointer, and its schema.
type Field = (String, Value);

fn schema() -> Value {
    let definition = definition().unwrap();
    serde_json::to_value(definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap())
        .unwrap()
}

fn valid() -> Value {
    let file: Value = serde_json::from_str(include_str!("rules.json")).unwrap();
    file["cluster"].clone()
}

/// All fields below a schema, also objects and lists as a whole.
fn fields(path: &str, schema: &Value, found: &mut Vec<Field>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        fields(&path, field, found);
        found.push((path, field.clone()));
    }
}

/// Values that a schema admits. Limits of lengths are kept, so that only the pattern, the type and the
/// rules decide; what a pattern leaves open is anything.
fn admitted(schema: &Value) -> BoxedStrategy<Value> {
    if let Some(choices) = schema["enum"].as_array() {
        return proptest::sample::select(choices.clone()).boxed();
    }
    if schema["x-kubernetes-int-or-string"] == json!(true) {
        return Union::new([integers(schema), texts(schema)]).boxed();
    }
    match schema["type"].as_str().unwrap() {
        "boolean" => any::<bool>().prop_map(Value::from).boxed(),
        "integer" => integers(schema),
        "string" => texts(schema),
        "array" => proptest::collection::vec(admitted(&schema["items"]), 0..3).prop_map(Value::from).boxed(),
        "object" if schema["additionalProperties"].is_object() => {
            let entries = proptest::collection::btree_map(".{0,70}", admitted(&schema["additionalProperties"]), 0..3);
            entries.prop_map(|entries| entries.into_iter().collect()).boxed()
        }
        "object" => objects(schema),
        other => panic!("a type that the test does not know: {other}"),
    }
}

fn integers(schema: &Value) -> BoxedStrategy<Value> {
    let limit = |name: &str| schema[name].as_f64().map(|limit| limit as i64);
    // The API server checks the limits of a format as well.
    let of_format =
        if schema["format"] == "int32" { (i64::from(i32::MIN), i64::from(i32::MAX)) } else { (i64::MIN, i64::MAX) };
    let (low, high) = (limit("minimum").unwrap_or(of_format.0), limit("maximum").unwrap_or(of_format.1));
    let edges = [low, high, 0, 1, 1 << 31, 1 << 32, i64::MAX, i64::MIN].map(|edge| edge.clamp(low, high));
    prop_oneof![proptest::sample::select(edges.to_vec()), low..=high].prop_map(Value::from).boxed()
}

fn texts(schema: &Value) -> BoxedStrategy<Value> {
    let longest = usize::try_from(schema["maxLength"].as_u64().unwrap_or(5000)).unwrap();
    let shortest = usize::try_from(schema["minLength"].as_u64().unwrap_or(0)).unwrap();
    let fits = move |text: &String| (shortest..=longest).contains(&text.chars().count());
    match schema["pattern"].as_str() {
        Some(pattern) => {
            let pattern = pattern.trim_start_matches('^').trim_end_matches('$');
            // As long as it may be, too: `+` alone seldom reaches the limit.
            let long = pattern.replace("]+", &format!("]{{1,{longest}}}"));
            let of = |pattern: &str| string_regex(pattern).unwrap().boxed();
            Union::new([of(pattern), of(&long)]).prop_filter("too long", fits).prop_map(Value::from).boxed()
        }
        None => {
            let long = Just("a".repeat(longest));
            let odd = proptest::sample::select(vec!["", " ", "0", "-1", "null", "é\u{202e}\n", "${X}", "{{x}}"]);
            prop_oneof!["\\PC{0,70}", long, odd.prop_map(str::to_owned)]
                .prop_filter("too short or too long", fits)
                .prop_map(Value::from)
                .boxed()
        }
    }
}

/// Objects with all required fields and some of the others.
fn objects(schema: &Value) -> BoxedStrategy<Value> {
    if schema["x-kubernetes-preserve-unknown-fields"] == json!(true) {
        // Read with the type of the Kubernetes API; what does not fit is reported.
        return Just(json!({})).boxed();
    }
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let members = schema["properties"].as_object().into_iter().flatten();
    let members: Vec<_> = members
        .map(|(name, member)| {
            let value = admitted(member);
            let value = if required.contains(&name.as_str()) {
                value.prop_map(Some).boxed()
            } else {
                proptest::option::of(value).boxed()
            };
            (Just(name.clone()), value)
        })
        .collect();
    let chosen = |all: Vec<(String, Option<Value>)>| all.into_iter().filter_map(|(name, value)| Some((name, value?)));
    members.prop_map(move |all| chosen(all).collect()).boxed()
}

/// A field of the valid cluster with another value, or without one.
fn changed() -> impl Strategy<Value = Value> {
    let mut found = Vec::new();
    fields("", &schema()["properties"]["spec"], &mut found);
    assert!(found.len() > 60, "{}", found.len());
    let changes = found.into_iter().map(|(path, field)| (Just(path), admitted(&field)).boxed());
    Union::new(changes).prop_map(|(path, value)| {
        let patch = path.rsplit('/').filter(|name| !name.is_empty()).fold(value, |inner, name| json!({name: inner}));
        let mut cluster = valid();
        json_patch::merge(&mut cluster["spec"], &patch);
        cluster
    })
}

/// Whether every object has the fields that its schema requires.
fn is_complete(schema: &Value, value: &Value) -> bool {
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let Some(object) = value.as_object() else { return true };
    required.into_iter().all(|name| object.contains_key(name))
        && object.iter().all(|(name, member)| is_complete(&schema["properties"][name], member))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_the_schema_admits_is_read(cluster in changed()) {
        if let Err(error) = serde_json::from_value::<RegistryCluster>(cluster.clone()) {
            let schema = schema();
            let refused = !is_complete(&schema, &cluster) || Validator::new().validate(&schema, &cluster, None).is_err();
            prop_assert!(refused, "{error}: {cluster}");
        }
    }
}
