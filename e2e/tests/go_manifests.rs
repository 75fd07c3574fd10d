//! What this registry reads in a manifest that it accepts, compared with what Go's `encoding/json`
//! reads, with which most clients read it.

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use entrepot_e2e::tools::Tool;
use entrepot_oci::{Content, Descriptor, Manifest, Place};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

const DOCUMENTS: usize = 20_000;

/// Members that clients read, with a value that changes what is read.
const MEMBERS: [(&str, &str); 20] = [
    ("schemaVersion", "2"),
    ("mediaType", "\"application/vnd.oci.image.manifest.v1+json\""),
    ("artifactType", "\"x/y\""),
    ("config", "DESCRIPTOR"),
    ("layers", "[DESCRIPTOR,DESCRIPTOR]"),
    ("layers", "null"),
    ("manifests", "[DESCRIPTOR]"),
    ("manifests", "null"),
    ("subject", "DESCRIPTOR"),
    ("subject", "null"),
    ("annotations", "{\"layers\":\"a\",\"Layers\":\"b\"}"),
    ("digest", "\"sha256:abababababababababababababababababababababababababababababababab\""),
    ("size", "9223372036854775807"),
    ("size", "9223372036854775808"),
    ("size", "1e3"),
    ("urls", "[\"https://a/\"]"),
    ("urls", "null"),
    ("platform", "{\"os\":\"linux\"}"),
    ("kind", "[[{\"size\":1}]]"),
    ("arrays", "\"\\ud800\""),
];

fn descriptor(random: &mut StdRng) -> String {
    let digest = format!("sha256:{:064x}", random.random::<u128>());
    format!(r#"{{"mediaType":"m/{}","digest":"{digest}","size":{}}}"#, random.random::<u8>(), random.random::<u16>())
}

/// The name as it is, or with letters that Go takes for the same ones.
fn name(random: &mut StdRng, name: &str) -> String {
    if random.random_bool(0.8) {
        return name.to_owned();
    }
    let letters = name.chars().map(|letter| match (random.random_range(0..4), letter) {
        (0, letter) => letter.to_uppercase().to_string(),
        (1, 's') => "\u{17f}".to_owned(),
        (1, 'k') => "\u{212a}".to_owned(),
        (2, letter) => format!("\\u{:04x}", u32::from(letter)),
        (_, letter) => letter.to_string(),
    });
    letters.collect()
}

/// A manifest or index with up to three further members somewhere.
fn document(random: &mut StdRng) -> String {
    let (one, other) = (descriptor(random), descriptor(random));
    let mut text = if random.random_bool(0.5) {
        format!(r#"{{"schemaVersion":2,"config":{one},"layers":[{other}]}}"#)
    } else {
        format!(r#"{{"schemaVersion":2,"manifests":[{one},{other}]}}"#)
    };
    for _ in 0..random.random_range(0..4) {
        let (known, value) = MEMBERS.choose(random).copied().unwrap_or_default();
        let value = value.replace("DESCRIPTOR", &descriptor(random));
        let member = format!("\"{}\":{value}", name(random, known));
        let places: Vec<usize> = text.match_indices(['{', '}']).map(|(at, _)| at).collect();
        let at = places.choose(random).copied().unwrap_or_default();
        if text[at..].starts_with('{') {
            text.insert_str(at + 1, &format!("{member},"));
        } else {
            text.insert_str(at, &format!(",{member}"));
        }
    }
    text
}

/// What Go reads of each document; `null` if it refuses the document.
fn read_by_go(documents: &[String]) -> Result<Vec<Value>> {
    let mut go = Command::new(Tool::GoManifest.path()?).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = go.stdin.take().context("no standard input")?;
    let lines: Vec<String> = documents.iter().map(|text| BASE64_STANDARD.encode(text) + "\n").collect();
    let writing = std::thread::spawn(move || lines.iter().try_for_each(|line| input.write_all(line.as_bytes())));
    let output = go.wait_with_output()?;
    writing.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    String::from_utf8(output.stdout)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn described(descriptor: &Descriptor) -> Value {
    let Descriptor { media_type, digest, size, urls, .. } = descriptor;
    json!({"mediaType": media_type, "digest": digest.to_string(), "size": size, "urls": urls})
}

/// The same members of a descriptor that Go has read.
fn described_by_go(read: &Value) -> Value {
    let urls = if read["urls"].is_null() { json!([]) } else { read["urls"].clone() };
    json!({"mediaType": read["mediaType"], "digest": read["digest"], "size": read["size"], "urls": urls})
}

fn list(read: &Value) -> Vec<Value> {
    read.as_array().into_iter().flatten().map(described_by_go).collect()
}

fn optional(read: &Value) -> Option<Value> {
    (!read.is_null()).then(|| described_by_go(read))
}

#[test]
fn go_reads_in_an_accepted_manifest_what_the_registry_reads() {
    let seed = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let documents: Vec<String> = (0..DOCUMENTS).map(|_| document(&mut random)).collect();
    let read = read_by_go(&documents).unwrap();
    assert_eq!(read.len(), documents.len());
    let mut accepted = 0;
    for (text, read) in documents.iter().zip(&read) {
        let Ok(manifest) = Manifest::parse_pushed(text.as_bytes(), None) else { continue };
        accepted += 1;
        let what = format!("{text} (seed {seed})");
        assert!(!read.is_null(), "Go refuses {what}");
        let descriptors = |is: fn(&Place) -> bool| -> Vec<Value> {
            let all = manifest.content.descriptors().iter();
            all.filter(|descriptor| is(&descriptor.place)).map(described).collect()
        };
        assert_eq!(descriptors(|place| matches!(place, Place::Layer(_))), list(&read["layers"]), "{what}");
        assert_eq!(descriptors(|place| matches!(place, Place::Manifest(_))), list(&read["manifests"]), "{what}");
        let config = descriptors(|place| matches!(place, Place::Config)).pop();
        assert_eq!(config, optional(&read["config"]), "{what}");
        assert_eq!(manifest.subject.as_ref().map(described), optional(&read["subject"]), "{what}");
        let is_index = matches!(manifest.content, Content::Index(_));
        assert_eq!(is_index, read["config"].is_null() && read["layers"].is_null(), "{what}");
        if read["mediaType"] != "" {
            assert_eq!(read["mediaType"], manifest.media_type, "{what}");
        }
        let annotations = read["annotations"].as_object().map_or(0, serde_json::Map::len);
        assert_eq!(manifest.annotations.len(), annotations, "{what}");
    }
    assert!((DOCUMENTS / 10..DOCUMENTS).contains(&accepted), "{accepted} documents are accepted");
}
