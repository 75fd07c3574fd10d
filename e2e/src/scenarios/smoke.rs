//! The cluster itself: features that every other scenario relies on.

use crate::client::{Registry, empty};
use crate::cluster::{Cluster, FIXED, GROWING, Kubectl, OwnCluster};
use crate::{container, wait};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Time limit for anything that a healthy cluster is asked to do here.
const TIMEOUT: Duration = Duration::from_secs(120);

/// DNS, Services, pods on both Kubernetes nodes, volumes, metrics.
pub async fn the_cluster_works(cluster: &OwnCluster) -> Result<()> {
    let mark = cluster.audit().mark()?;
    let image = cluster.load_image(&container::busybox()?, "busybox:1").await?;
    cluster.apply(&web(&image)).await?;
    cluster.kubectl(["-n", "smoke", "rollout", "status", "statefulset/web", "--timeout=120s"]).await?;

    let nodes = cluster.kubectl(["-n", "smoke", "get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"]).await?;
    let mut nodes: Vec<_> = nodes.split_whitespace().collect();
    nodes.sort_unstable();
    ensure!(nodes == cluster.nodes(), "the pods run on {nodes:?}");

    // A pod by its DNS name, from another Kubernetes node; then a Service by its DNS name.
    let seen = answered(cluster, "web-0", "http://web-1.web.smoke.svc.cluster.local:8080/").await?;
    ensure!(seen == "web-1", "the response of web-1 was {seen:?}");
    let seen = answered(cluster, "web-1", "http://entry:8080/").await?;
    ensure!(seen.starts_with("web-"), "the response of the Service was {seen:?}");
    ensure!(
        fetch(cluster, "web-0", "http://none.smoke:8080/").await.is_err(),
        "a DNS name that does not exist was resolved"
    );
    // The S3 server responds with 403 without credentials, which shows that it is reachable.
    let refused = fetch(cluster, "web-0", "http://s3.storage:7070/")
        .await
        .err()
        .context("S3 accepted a request without credentials")?;
    ensure!(format!("{refused:#}").contains("403"), "{refused:#}");
    // From the host, by the cluster IP of the Service.
    let host = Registry::new(&format!("http://{}", cluster.service("smoke", "entry").await?));
    let ask = async || host.send(http::Method::GET, "/", &[], empty()).await.ok();
    let reply = wait::value("the Service responds to the host", TIMEOUT, ask).await?.expect(200)?;
    ensure!(reply.body.starts_with(b"web-"), "the response to the host was {:?}", reply.body);

    from_pod_to_host(cluster).await?;
    volumes(cluster).await?;
    let mine = cluster.audit().of("entrepot-tests", mark)?;
    let creates =
        |name: &str| mine.iter().any(|r| r.is_write() && r.object_ref.name == name && r.response_status.code == 201);
    ensure!(creates("web") && !creates("none"), "unexpected requests in the audit log: {mine:?}");
    wait::until("the metrics of pods are available", TIMEOUT, || async {
        cluster.kubectl(["-n", "smoke", "top", "pods"]).await.is_ok_and(|output| output.contains("web-0"))
    })
    .await?;
    cluster.kubectl(["delete", "namespace", "smoke"]).await?;
    wait::until("the volumes are deleted with their claims", TIMEOUT, || async {
        cluster.kubectl(["get", "pv", "-o", "name"]).await.is_ok_and(|output| output.trim().is_empty())
    })
    .await
}

/// A pod connects to a listener at the host's end of the link.
async fn from_pod_to_host(cluster: &OwnCluster) -> Result<()> {
    let listener = TcpListener::bind((cluster.host(), 0)).await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let answer = async {
        let (mut client, _) = listener.accept().await?;
        // Closing the connection before the request is read would reset it.
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            ensure!(client.read_buf(&mut request).await? > 0, "incomplete request: {request:?}");
        }
        Ok(client.write_all(b"HTTP/1.0 200 OK\r\n\r\nhost").await?)
    };
    let (seen, ()) = tokio::try_join!(fetch(cluster, "web-1", &url), answer)?;
    ensure!(seen == "host", "the response of the host was {seen:?}");
    Ok(())
}

async fn volumes(cluster: &OwnCluster) -> Result<()> {
    let capacity =
        || cluster.kubectl(["-n", "smoke", "get", "pvc/data-web-0", "-o", "jsonpath={.status.capacity.storage}"]);
    ensure!(capacity().await? == "16Mi");
    let larger = r#"{"spec":{"resources":{"requests":{"storage":"32Mi"}}}}"#;
    cluster.kubectl(["-n", "smoke", "patch", "pvc/data-web-0", "-p", larger]).await?;
    wait::until("the volume is expanded", TIMEOUT, || async { capacity().await.is_ok_and(|size| size == "32Mi") })
        .await?;
    let refused = cluster.kubectl(["-n", "smoke", "patch", "pvc/fixed-web-0", "-p", larger]).await;
    let refused = refused.err().context("the expansion of a volume whose class does not allow it was accepted")?;
    ensure!(format!("{refused:#}").contains("must support resize"), "{refused:#}");
    Ok(())
}

/// Fetches from an address that the DNS server or a Kubernetes node may not know yet: pods are
/// ready shortly before all of them have learned about it.
async fn answered(cluster: &OwnCluster, pod: &str, url: &str) -> Result<String> {
    wait::value(&format!("{url} responds to {pod}"), TIMEOUT, async || fetch(cluster, pod, url).await.ok()).await
}

/// The response that a pod gets from an address.
async fn fetch(cluster: &OwnCluster, pod: &str, url: &str) -> Result<String> {
    let wget = ["-n", "smoke", "exec", pod, "--", "busybox", "wget", "-q", "-O", "-", url];
    Ok(cluster.kubectl(wget).await?.trim().to_owned())
}

/// Two pods on different Kubernetes nodes that serve their own names from their volumes.
fn web(image: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Namespace
metadata: {{name: smoke}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: smoke}}
spec: {{clusterIP: None, selector: {{app: web}}, ports: [{{name: http, port: 8080}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: entry, namespace: smoke}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 8080}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: web, namespace: smoke}}
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
