//! The cluster itself: what every other scenario relies on.

use crate::client::{Registry, empty};
use crate::cluster::{Cluster, FIXED, GROWING};
use crate::{container, wait};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Within this a healthy cluster has done anything that is asked of it here.
const SOON: Duration = Duration::from_secs(120);

/// Names, Services, pods on both nodes, volumes, metrics.
pub async fn cluster_is_whole(cluster: &Cluster) -> Result<()> {
    let mark = cluster.audit().mark()?;
    let image = cluster.load(&container::busybox()?, "busybox:1").await?;
    cluster.apply(&web(&image)).await?;
    cluster.kubectl(["-n", "whole", "rollout", "status", "statefulset/web", "--timeout=120s"]).await?;

    let nodes = cluster.kubectl(["-n", "whole", "get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"]).await?;
    let mut nodes: Vec<_> = nodes.split_whitespace().collect();
    nodes.sort_unstable();
    ensure!(nodes == cluster.nodes(), "the pods are on {nodes:?}");

    // A pod by its name, from another node; then a Service by its name.
    let seen = answered(cluster, "web-0", "http://web-1.web.whole.svc.cluster.local:8080/").await?;
    ensure!(seen == "web-1", "web-1 answered {seen:?}");
    let seen = answered(cluster, "web-1", "http://entry:8080/").await?;
    ensure!(seen.starts_with("web-"), "the Service answered {seen:?}");
    ensure!(fetch(cluster, "web-0", "http://none.whole:8080/").await.is_err(), "a name that nobody has is answered");
    // The S3 server answers a stranger 403: it is there.
    let refused = fetch(cluster, "web-0", "http://s3.storage:7070/").await.err().context("S3 answered a stranger")?;
    ensure!(format!("{refused:#}").contains("403"), "{refused:#}");
    // From the host, through the Service's own address.
    let host = Registry::new(&format!("http://{}", cluster.service("whole", "entry").await?));
    let ask = async || host.send(http::Method::GET, "/", &[], empty()).await.ok();
    let reply = wait::value("the Service answers the host", SOON, ask).await?.expect(200)?;
    ensure!(reply.body.starts_with(b"web-"), "the host was answered {:?}", reply.body);

    from_pod_to_host(cluster).await?;
    volumes(cluster).await?;
    let mine = cluster.audit().of("entrepot-tests", mark)?;
    let creates =
        |name: &str| mine.iter().any(|r| r.is_write() && r.object_ref.name == name && r.response_status.code == 201);
    ensure!(creates("web") && !creates("none"), "the audit log has {mine:?}");
    wait::until("the metrics of pods are known", SOON, || async {
        cluster.kubectl(["-n", "whole", "top", "pods"]).await.is_ok_and(|output| output.contains("web-0"))
    })
    .await?;
    cluster.kubectl(["delete", "namespace", "whole"]).await?;
    wait::until("the volumes are deleted with their claims", SOON, || async {
        cluster.kubectl(["get", "pv", "-o", "name"]).await.is_ok_and(|output| output.trim().is_empty())
    })
    .await
}

/// A pod reaches what listens on the host's end of the wire.
async fn from_pod_to_host(cluster: &Cluster) -> Result<()> {
    let listener = TcpListener::bind((cluster.host(), 0)).await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let answer = async {
        let (mut client, _) = listener.accept().await?;
        // Closed with a request unread, the connection would be reset.
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            ensure!(client.read_buf(&mut request).await? > 0, "half a request: {request:?}");
        }
        Ok(client.write_all(b"HTTP/1.0 200 OK\r\n\r\nhost").await?)
    };
    let (seen, ()) = tokio::try_join!(fetch(cluster, "web-1", &url), answer)?;
    ensure!(seen == "host", "the host answered {seen:?}");
    Ok(())
}

async fn volumes(cluster: &Cluster) -> Result<()> {
    let capacity =
        || cluster.kubectl(["-n", "whole", "get", "pvc/data-web-0", "-o", "jsonpath={.status.capacity.storage}"]);
    ensure!(capacity().await? == "16Mi");
    let larger = r#"{"spec":{"resources":{"requests":{"storage":"32Mi"}}}}"#;
    cluster.kubectl(["-n", "whole", "patch", "pvc/data-web-0", "-p", larger]).await?;
    wait::until("the volume is larger", SOON, || async { capacity().await.is_ok_and(|size| size == "32Mi") }).await?;
    let refused = cluster.kubectl(["-n", "whole", "patch", "pvc/fixed-web-0", "-p", larger]).await;
    let refused = refused.err().context("a volume of a class that cannot grow was to grow")?;
    ensure!(format!("{refused:#}").contains("must support resize"), "{refused:#}");
    Ok(())
}

/// The same from an address that the DNS server or a machine may not know yet: pods are ready a moment before all have
/// heard of it.
async fn answered(cluster: &Cluster, pod: &str, url: &str) -> Result<String> {
    wait::value(&format!("{url} answers {pod}"), SOON, async || fetch(cluster, pod, url).await.ok()).await
}

/// What a pod gets from an address.
async fn fetch(cluster: &Cluster, pod: &str, url: &str) -> Result<String> {
    let wget = ["-n", "whole", "exec", pod, "--", "busybox", "wget", "-q", "-O", "-", url];
    Ok(cluster.kubectl(wget).await?.trim().to_owned())
}

/// Two pods on two nodes that serve their own names from their volumes.
fn web(image: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Namespace
metadata: {{name: whole}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: whole}}
spec: {{clusterIP: None, selector: {{app: web}}, ports: [{{name: http, port: 8080}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: entry, namespace: whole}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 8080}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: web, namespace: whole}}
spec:
  serviceName: web
  replicas: 2
  podManagementPolicy: Parallel
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: DoNotSchedule
          labelSelector: {{matchLabels: {{app: web}}}}
      containers:
        - name: web
          image: {image}
          command: [busybox, sh, -c, "hostname > /data/index.html && exec busybox httpd -f -p 8080 -h /data"]
          readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
          resources: {{requests: {{cpu: 10m, memory: 16Mi}}}}
          volumeMounts: [{{name: data, mountPath: /data}}, {{name: fixed, mountPath: /fixed}}]
  volumeClaimTemplates:
    - metadata: {{name: data}}
      spec: {{storageClassName: {GROWING}, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 16Mi}}}}}}
    - metadata: {{name: fixed}}
      spec: {{storageClassName: {FIXED}, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 16Mi}}}}}}
"#
    )
}
