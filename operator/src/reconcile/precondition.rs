//! The version of an object on which a decision is based, and writes to only that version. A watch
//! may lag behind; the write then fails instead of being done twice or to an object that has
//! changed.

use crate::names::MANAGER;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// One observed version of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Precondition {
    pub uid: String,
    pub resource_version: String,
}

impl Precondition {
    /// The version of an object from the API server; an object that was only built has none.
    pub fn of(object: &impl Resource) -> Option<Precondition> {
        Some(Precondition { uid: object.uid()?, resource_version: object.resource_version()? })
    }

    /// Starts the deletion of the object. Returns `false` if the object is gone or has changed; the
    /// watch will show that, and a later reconciliation decides again.
    ///
    /// # Errors
    /// If the API server rejects it for another reason, or does not respond.
    pub async fn delete<K>(
        &self,
        api: &Api<K>,
        name: &str,
        propagation_policy: Option<PropagationPolicy>,
    ) -> kube::Result<bool>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let this = Preconditions { uid: Some(self.uid.clone()), resource_version: Some(self.resource_version.clone()) };
        let parameters = DeleteParams { preconditions: Some(this), propagation_policy, ..DeleteParams::default() };
        is_done(api.delete(name, &parameters).await)
    }

    /// Changes the object by a merge patch. Returns `false` in the cases of [`Precondition::delete`].
    ///
    /// # Errors
    /// As [`Precondition::delete`].
    pub async fn patch<K>(&self, api: &Api<K>, name: &str, mut patch: Value) -> kube::Result<bool>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        patch["metadata"] = json!({"uid": self.uid, "resourceVersion": self.resource_version});
        let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        is_done(api.patch(name, &parameters, &Patch::Merge(&patch)).await)
    }
}

fn is_done<T>(answer: kube::Result<T>) -> kube::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Method, Request, Response};
    use http_body_util::BodyExt;
    use k8s_openapi::api::apps::v1::StatefulSet;
    use kube::Client;
    use kube::client::Body;
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    /// An API server that has one StatefulSet. Every write creates another version of it, and so
    /// does the start of its deletion. After `refuse` it responds only with 403.
    #[derive(Default)]
    struct Server {
        version: Mutex<u32>,
        refuse: Mutex<bool>,
    }

    impl Server {
        async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
            let place = if request.method() == Method::DELETE { "/preconditions" } else { "/metadata" };
            let body: Value = serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
            let mut version = self.version.lock().unwrap();
            let current = json!({"uid": "set", "resourceVersion": version.to_string()});
            let code = match (*self.refuse.lock().unwrap(), body.pointer(place) == Some(&current)) {
                (true, _) => 403,
                (false, true) => 200,
                (false, false) => 409,
            };
            let answer = if code == 200 {
                *version += 1;
                json!({
                    "apiVersion": "apps/v1", "kind": "StatefulSet",
                    "metadata": {"name": "images", "uid": "set", "resourceVersion": version.to_string()},
                })
            } else {
                json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "message": "no", "code": code})
            };
            Ok(Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap())
        }
    }

    #[tokio::test]
    async fn a_write_happens_once_although_the_watch_is_late() {
        let server = Arc::new(Server::default());
        let answers = Arc::clone(&server);
        let service = tower::service_fn(move |request| {
            let server = Arc::clone(&answers);
            async move { server.answer(request).await }
        });
        let api: Api<StatefulSet> = Api::namespaced(Client::new(service, "registry"), "registry");
        let seen = |version: &str| Precondition { uid: "set".into(), resource_version: version.into() };

        let larger = || json!({"spec": {"replicas": 2}});
        assert!(seen("0").patch(&api, "images", larger()).await.unwrap());
        assert!(!seen("0").patch(&api, "images", larger()).await.unwrap());
        assert!(!seen("0").delete(&api, "images", None).await.unwrap());
        assert!(seen("1").delete(&api, "images", Some(PropagationPolicy::Orphan)).await.unwrap());
        assert!(!seen("1").delete(&api, "images", Some(PropagationPolicy::Orphan)).await.unwrap());

        *server.refuse.lock().unwrap() = true;
        assert!(seen("2").delete(&api, "images", None).await.is_err());
        assert!(seen("2").patch(&api, "images", larger()).await.is_err());
        assert_eq!(*server.version.lock().unwrap(), 2);
    }
}
