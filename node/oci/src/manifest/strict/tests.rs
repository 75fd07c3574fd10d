use super::*;
use proptest::prelude::*;
use serde_json::Value;
use std::collections::HashMap;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn descriptor(extra: &str) -> String {
    format!(r#"{{"mediaType":"a/b","digest":"{DIGEST}","size":0{extra}}}"#)
}

fn image(extra: &str) -> String {
    let descriptor = descriptor("");
    format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{descriptor}]{extra}}}"#)
}

fn refused(document: impl AsRef<[u8]>) -> String {
    let text = String::from_utf8_lossy(document.as_ref()).into_owned();
    check(document.as_ref()).err().unwrap_or_else(|| panic!("{text} is accepted")).to_string()
}

#[test]
fn a_known_name_in_other_case_is_refused_at_every_level() {
    for name in ["Layers", "LAYERS", "Config", "Subject", "MediaType", "schemaversion", "FsLayers", "layer\u{17f}"] {
        let message = refused(image(&format!(r#","{name}":[]"#)));
        assert!(message.contains("differs from") && message.contains(name), "{message}");
    }
    // An escape in a name is the letter that it stands for.
    refused(image(r#","\u004cayers":[]"#));
    for name in ["Digest", "SIZE", "Urls", "artifacttype", "Data", "url\u{17f}"] {
        let descriptor = descriptor(&format!(r#","{name}":null"#));
        refused(format!(r#"{{"schemaVersion":2,"config":{descriptor}}}"#));
        refused(format!(r#"{{"schemaVersion":2,"manifests":[{descriptor}]}}"#));
        refused(image(&format!(r#","subject":{descriptor}"#)));
    }
    for name in ["OS", "Architecture", "Os.Version", "Variant", "o\u{17f}"] {
        let platform = descriptor(&format!(r#","platform":{{"os":"linux","{name}":"x"}}"#));
        refused(format!(r#"{{"schemaVersion":2,"manifests":[{platform}]}}"#));
    }
}

#[test]
fn names_that_no_client_reads_are_free() {
    check(
        image(r#","annotations":{"Layers":"a","layers":"b","Size":"c"},"x":{"Config":1,"config":2},"X":0"#).as_bytes(),
    )
    .unwrap();
    check(image(r#","layer":[],"layersx":[]"#).as_bytes()).unwrap();
    let platform = descriptor(r#","platform":{"os":"linux","os.features":["a"],"Other":1},"annotations":{"OS":"x"}"#);
    check(format!(r#"{{"schemaVersion":2,"manifests":[{platform}],"subject":null}}"#).as_bytes()).unwrap();
}

#[test]
fn a_known_name_twice_is_refused_even_if_the_registry_does_not_read_it() {
    refused(image(r#","layers":[]"#));
    let twice = descriptor(r#","platform":{"os":"a"},"platform":{"os":"b"}"#);
    assert!(refused(format!(r#"{{"schemaVersion":2,"manifests":[{twice}]}}"#)).contains("duplicate member"));
    let twice = descriptor(r#","platform":{"os":"a","os":"b"}"#);
    refused(format!(r#"{{"schemaVersion":2,"manifests":[{twice}]}}"#));
}

#[test]
fn what_no_client_can_parse_is_refused_in_every_field() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    check(image(&format!(r#","x":{}"#, nested(MAX_DEPTH - 1))).as_bytes()).unwrap();
    for depth in [MAX_DEPTH, 1_000_000] {
        assert!(refused(image(&format!(r#","x":{}"#, nested(depth)))).contains("nested"), "{depth}");
    }
    refused(image(&format!(r#","x":{}1{}"#, r#"{"x":"#.repeat(MAX_DEPTH), "}".repeat(MAX_DEPTH))));
    refused([image("").trim_end_matches('}').as_bytes(), b",\"x\":\"\xff\"}"].concat());
    refused([image("").trim_end_matches('}').as_bytes(), b",\"\xff\":1}"].concat());
    refused(image("").replace("\"a/b\"", "\"\\ud800\""));
    refused(image("") + "x");
}

#[test]
fn a_value_of_a_type_that_clients_do_not_expect_is_refused() {
    refused(image(r#","annotations":{"a":1}"#));
    refused(format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(r#","annotations":{"a":{}}"#)));
    refused(format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(r#","platform":{"os":1}"#)));
    refused(format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(r#","platform":{"os.features":"a"}"#)));
    // serde reads it as the members in the order of their declaration.
    refused(format!(r#"[2,null,null,{}]"#, descriptor("")));
    refused(format!(r#"{{"schemaVersion":2,"config":["a/b","{DIGEST}",0,null]}}"#));
    refused(format!(r#"{{"schemaVersion":2,"layers":{{"0":{}}}}}"#, descriptor("")));
}

#[test]
fn a_size_that_go_cannot_read_is_refused() {
    let sized = |size: u64| image("").replace("\"size\":0", &format!("\"size\":{size}"));
    check(sized(MAX_SIZE).as_bytes()).unwrap();
    assert!(refused(sized(MAX_SIZE + 1)).contains("size"));
}

/// How Go reads an object into a struct with these fields: exact names first, then names that are
/// equal under simple case folding, and the last member counts. Written from the documentation of
/// `encoding/json`, with Unicode's lower case instead of a table.
fn as_go(object: &[(String, Value)], fields: &[&str]) -> HashMap<String, Value> {
    let mut read = HashMap::new();
    for (name, value) in object {
        let exact = fields.iter().find(|field| *field == name);
        let lower = |text: &str| text.replace('\u{17f}', "s").to_lowercase();
        if let Some(field) = exact.or_else(|| fields.iter().find(|field| lower(field) == lower(name))) {
            read.insert((*field).to_owned(), value.clone());
        }
    }
    read
}

/// A name in the case that the bits select, with the two letters that fold to ASCII.
fn disguised(name: &str, bits: u32) -> String {
    let disguise = |(at, letter): (usize, char)| match (bits >> (2 * (at % 16)) & 3, letter) {
        (1, letter) => letter.to_ascii_uppercase(),
        (2, 's') => '\u{17f}',
        (2, 'k') => '\u{212a}',
        _ => letter,
    };
    name.chars().enumerate().map(disguise).collect()
}

proptest! {
    /// If a document is accepted, Go reads the same members from it as this registry does.
    #[test]
    fn go_reads_an_accepted_document_as_the_registry_does(
        members in proptest::collection::vec((0usize..14, prop_oneof![3 => Just(0u32), 1 => any::<u32>()], 0u8..3), 0..6),
    ) {
        let fields: Vec<&str> = DOCUMENT.iter().map(|(name, _)| *name).collect();
        let free = ["kind", "layer", "osx"];
        let object: Vec<(String, Value)> = members
            .iter()
            .map(|(which, bits, value)| {
                let name = fields.get(*which).copied().unwrap_or_else(|| free[*which % 3]);
                let of_shape = DOCUMENT.get(*which).map_or(Shape::Any, |(_, shape)| *shape);
                let value = match of_shape {
                    Shape::Descriptors => serde_json::json!([{"size": value}]),
                    Shape::Descriptor => serde_json::json!({"size": value}),
                    Shape::Annotations => serde_json::json!({"size": value.to_string()}),
                    _ => serde_json::json!(value),
                };
                (disguised(name, *bits), value)
            })
            .collect();
        let text: Vec<_> = object.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
        let text = format!("{{{}}}", text.join(","));
        let exact: HashMap<String, Value> =
            object.iter().filter(|(name, _)| fields.contains(&name.as_str())).cloned().collect();
        let unique = object.iter().filter(|(name, _)| fields.contains(&name.as_str())).count() == exact.len();
        let is_read_as_another = |name: &String| {
            !fields.contains(&name.as_str()) && !as_go(&[(name.clone(), Value::Null)], &fields).is_empty()
        };
        let ambiguous = object.iter().any(|(name, _)| is_read_as_another(name));
        let accepted = check(text.as_bytes()).is_ok();
        prop_assert_eq!(accepted, unique && !ambiguous, "{}", &text);
        if accepted {
            prop_assert_eq!(exact, as_go(&object, &fields), "{}", &text);
        }
    }
}
