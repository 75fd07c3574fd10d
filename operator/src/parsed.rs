//! Objects as they come from the API server, each decoded on its own: one that cannot be decoded is
//! kept with the reason and never ends the list or watch that it came with.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::DynamicResourceScope;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// An object, or why it cannot be decoded. Its `Deserialize` fails only where the input is not
/// JSON.
#[derive(Clone, Debug)]
pub struct Parsed<K> {
    /// Without annotations and managed fields, which only `content` has.
    metadata: ObjectMeta,
    pub content: Result<Arc<K>, Arc<Unreadable>>,
}

/// Why an object does not have the structure of its kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// The field, such as `spec.resources.limits.memory`; `.` for the whole object.
    pub path: String,
    pub problem: String,
    /// The present status of the object in the API server.
    pub status: Option<Value>,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

/// The parts that are decoded of an object that cannot be decoded as a whole. All other fields are
/// skipped, however deeply they nest.
#[derive(Default, Deserialize)]
struct PartialObject {
    metadata: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
}

impl<K: DeserializeOwned + Resource> Parsed<K> {
    fn read(json: &str) -> Parsed<K> {
        let mut read = parse::<K>(json);
        if let Err(error) = &read
            && error.path().to_string().starts_with(MANAGED_FIELDS)
            && let Some(rest) = without_managed_fields(json)
        {
            read = parse(&rest);
        }
        match read {
            Ok(object) => {
                let full = object.meta();
                let metadata = ObjectMeta {
                    name: full.name.clone(),
                    namespace: full.namespace.clone(),
                    uid: full.uid.clone(),
                    resource_version: full.resource_version.clone(),
                    generation: full.generation,
                    labels: full.labels.clone(),
                    deletion_timestamp: full.deletion_timestamp.clone(),
                    ..ObjectMeta::default()
                };
                Parsed { metadata, content: Ok(Arc::new(object)) }
            }
            Err(error) => Parsed::unreadable(json, shortened(error.path()), error.into_inner().to_string()),
        }
    }

    fn unreadable(json: &str, path: String, problem: String) -> Parsed<K> {
        let head: PartialObject = serde_json::from_str(json).unwrap_or_default();
        let metadata = head.metadata.as_ref().map(|raw| least_metadata(raw.get())).unwrap_or_default();
        let status = head.status.and_then(|raw| serde_json::from_str(raw.get()).ok());
        // The position in the text of a list is of no use to a user.
        let problem = problem.split(" at line ").next().unwrap_or_default().to_owned();
        Parsed { metadata, content: Err(Arc::new(Unreadable { path, problem, status })) }
    }
}

/// Who wrote which field. The API server maintains it, and it nests as deeply as the fields
/// themselves. No user can correct it.
const MANAGED_FIELDS: &str = "metadata.managedFields";

fn parse<K: DeserializeOwned>(json: &str) -> Result<K, serde_path_to_error::Error<serde_json::Error>> {
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(json))
}

fn without_managed_fields(json: &str) -> Option<String> {
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(json).ok()?;
    let mut metadata: BTreeMap<String, Box<RawValue>> = field(fields.remove("metadata"))?;
    metadata.remove("managedFields")?;
    fields.insert("metadata".into(), serde_json::value::to_raw_value(&metadata).ok()?);
    serde_json::to_string(&fields).ok()
}

/// A path, cut where it is long, because only its beginning helps a user.
fn shortened(path: &serde_path_to_error::Path) -> String {
    const SEGMENTS: usize = 12;
    let begin: Vec<_> = path.iter().take(SEGMENTS).map(ToString::to_string).collect();
    match path.iter().nth(SEGMENTS) {
        Some(_) => format!("{}…", begin.join(".").replace(".[", "[")),
        None => path.to_string(),
    }
}

/// The metadata that identifies an object. Its managed fields nest as deeply as the object itself,
/// so they are skipped as well.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeastMetadata {
    name: Option<Box<RawValue>>,
    namespace: Option<Box<RawValue>>,
    uid: Option<Box<RawValue>>,
    resource_version: Option<Box<RawValue>>,
    generation: Option<Box<RawValue>>,
    deletion_timestamp: Option<Box<RawValue>>,
    labels: Option<Box<RawValue>>,
}

fn field<T: DeserializeOwned>(raw: Option<Box<RawValue>>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

/// Those fields of the metadata that are valid, each decoded on its own.
fn least_metadata(json: &str) -> ObjectMeta {
    let found: LeastMetadata = serde_json::from_str(json).unwrap_or_default();
    let labels: Option<BTreeMap<String, Value>> = field(found.labels);
    let text = |(name, value): (String, Value)| Some((name, value.as_str()?.to_owned()));
    ObjectMeta {
        name: field(found.name),
        namespace: field(found.namespace),
        uid: field(found.uid),
        resource_version: field(found.resource_version),
        generation: field(found.generation),
        deletion_timestamp: field(found.deletion_timestamp),
        labels: labels.map(|labels| labels.into_iter().filter_map(text).collect()),
        ..ObjectMeta::default()
    }
}

impl<'de, K: DeserializeOwned + Resource> Deserialize<'de> for Parsed<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parsed<K>, D::Error> {
        // Take the text, in which any depth is skipped, so that too deep a nesting is found in
        // `read` as well. The API server writes the type of a watch event before the object, so
        // serde has not buffered the object by then.
        Box::<RawValue>::deserialize(deserializer).map(|raw| Parsed::read(raw.get()))
    }
}

impl<K: Resource> Resource for Parsed<K> {
    type DynamicType = K::DynamicType;
    // All kinds that are decoded so are namespaced; kube knows that only of some.
    type Scope = DynamicResourceScope;

    fn kind(kind: &K::DynamicType) -> Cow<'_, str> {
        K::kind(kind)
    }

    fn group(kind: &K::DynamicType) -> Cow<'_, str> {
        K::group(kind)
    }

    fn version(kind: &K::DynamicType) -> Cow<'_, str> {
        K::version(kind)
    }

    fn plural(kind: &K::DynamicType) -> Cow<'_, str> {
        K::plural(kind)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::RegistryCluster;
    use crate::testing::cluster;
    use k8s_openapi::api::core::v1::Pod;
    use kube::ResourceExt;
    use kube::api::{DynamicObject, ObjectList, WatchEvent};
    use serde_json::json;

    fn list<K: DeserializeOwned + Resource + Clone>(items: &[Value]) -> Vec<Parsed<K>> {
        let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "9"}, "items": items});
        serde_json::from_str::<ObjectList<Parsed<K>>>(&list.to_string()).unwrap().items
    }

    /// Deeper than serde_json's recursion limit of 128.
    fn deep() -> Value {
        (0..300).fold(json!({}), |inner, _| json!({"a": inner}))
    }

    #[test]
    fn an_object_that_cannot_be_decoded_does_not_affect_the_others_in_its_list() {
        for (path, difference) in [
            (
                "spec.podDisruptionBudget.minAvailable",
                json!({"podDisruptionBudget": {"minAvailable": 4_294_967_296_u64}}),
            ),
            ("spec.resources.limits.memory", json!({"resources": {"limits": {"memory": "lots"}}})),
            ("spec.scheduling.affinity", json!({"scheduling": {"affinity": {"podAntiAfinity": {}}}})),
            ("spec.store.size", json!({"store": {"size": "9999999Pi"}})),
            ("spec.bucket", json!({"bucket": {"name": null}})),
        ] {
            let mut odd = cluster("odd", &difference);
            odd["status"] = json!({"conditions": []});
            let found = list::<RegistryCluster>(&[odd, cluster("good", &json!({}))]);
            let odd = found[0].content.as_ref().unwrap_err();
            assert_eq!(odd.path, path, "{odd}");
            assert!(!odd.problem.contains("line") && odd.status == Some(json!({"conditions": []})), "{odd}");
            assert_eq!((found[0].name_any().as_str(), found[0].metadata.generation), ("odd", Some(3)));
            assert!(found[1].content.is_ok());
        }
    }

    #[test]
    fn too_deep_a_nesting_affects_one_object_only() {
        let mut odd = cluster("odd", &json!({"scheduling": {"affinity": deep()}}));
        odd["metadata"]["managedFields"] = json!([{"manager": "kubectl", "fieldsV1": deep()}]);
        let found = list::<RegistryCluster>(&[odd.clone(), cluster("good", &json!({}))]);
        let why = found[0].content.as_ref().unwrap_err();
        assert!(why.problem.contains("recursion limit") && why.path.len() < 100, "{why}");
        assert!(why.path.starts_with("spec.scheduling.affinity.a"), "{why}");
        assert_eq!((found[0].name_any().as_str(), found[1].content.is_ok()), ("odd", true));
        let event = format!(r#"{{"type":"MODIFIED","object":{odd}}}"#);
        let WatchEvent::Modified(object) = serde_json::from_str::<WatchEvent<Parsed<RegistryCluster>>>(&event).unwrap()
        else {
            panic!("another event")
        };
        assert_eq!(object.resource_version().as_deref(), Some("7"));
    }

    #[test]
    fn an_object_is_readable_although_its_managed_fields_are_not() {
        let mut odd = cluster("odd", &json!({}));
        odd["metadata"]["managedFields"] = json!([{"manager": "kubectl", "fieldsV1": deep()}]);
        assert!(list::<RegistryCluster>(&[odd])[0].content.is_ok());
    }

    #[test]
    fn invalid_metadata_affects_one_child_only() {
        let odd = json!({"metadata": {"name": "odd", "namespace": "a", "finalizers": 3, "labels": {"a": "b", "c": 1}}});
        let pods = list::<Pod>(&[odd.clone(), json!({"metadata": {"name": "good"}})]);
        assert!(pods[0].content.is_err() && pods[1].content.is_ok());
        assert_eq!((pods[0].name_any().as_str(), pods[0].labels().len()), ("odd", 1));
        let children = list::<DynamicObject>(&[odd, json!({"apiVersion": "v1", "kind": "Service", "metadata": {}})]);
        assert!(children[0].content.is_err() && children[1].content.is_ok());
        assert!(list::<Pod>(&[json!(3)])[0].content.is_err());
    }
}
