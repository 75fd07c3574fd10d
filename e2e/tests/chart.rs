//! The operator's chart: it passes helm's lint, renders the recorded output, and rejects invalid
//! values. `deploy/`, for `kubectl apply -k`, holds the same, rendered.

use entrepot_e2e::tools::Tool;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Without this option, helm as built from its module renders for a very old version of Kubernetes.
const KUBE_VERSION: &str = "--kube-version=1.34.0";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn helm(arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::new(Tool::Helm.path().unwrap())
        .args(arguments)
        .current_dir(root())
        .env("HOME", home.path())
        .env("HELM_CACHE_HOME", home.path())
        .output()
        .unwrap()
}

fn rendered(arguments: &[&str]) -> String {
    let base = ["template", "entrepot", "charts/entrepot", "--namespace", "entrepot-system", KUBE_VERSION];
    let output = helm(&[&base, arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Compares with a file, or writes it if UPDATE_CHART is set.
fn assert_is(path: &str, text: &str) {
    let file = root().join(path);
    if std::env::var_os("UPDATE_CHART").is_some() {
        std::fs::write(&file, text).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == text, "{path} is out of date; run with UPDATE_CHART=1");
}

#[test]
fn the_chart_passes_the_lint_of_helm() {
    let output = helm(&["lint", "--strict", "charts/entrepot"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn deploy_is_what_the_chart_renders() {
    let operator = rendered(&["--set", "crds.install=false"]).replace("managed-by: Helm", "managed-by: kustomize");
    assert_is("deploy/operator.yaml", &operator);
    assert!(!operator.contains("CustomResourceDefinition"));
}

#[test]
fn the_crd_in_the_chart_is_the_generated_one() {
    let generated = std::fs::read_to_string(root().join("crds/entrepot.dev_registryclusters.yaml")).unwrap();
    assert_is("charts/entrepot/files/registryclusters.yaml", &generated);
    let rendered = rendered(&["--show-only", "templates/crds.yaml"]);
    // The template changes nothing of it, and it stays after the release is uninstalled.
    assert_eq!(
        rendered.matches("x-kubernetes-validations:").count(),
        generated.matches("x-kubernetes-validations:").count()
    );
    assert!(rendered.contains("helm.sh/resource-policy: keep"));
}

#[test]
fn the_chart_with_all_values_renders_the_recorded_output() {
    let values = root().join("e2e/tests/chart/values.yaml");
    let rendered = rendered(&["--set", "crds.install=false", "--values", values.to_str().unwrap()]);
    assert_is("e2e/tests/chart/rendered.yaml", &rendered);
}

#[test]
fn invalid_values_are_rejected_by_name() {
    for (value, field) in [
        ("replicas=many", "replicas"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("image.repository=", "repository"),
        ("imagee.tag=1", "imagee"),
        ("logLevel=", "logLevel"),
        ("allowed.nodeImage={a}", "nodeImage"),
        ("watchNamespaces={Team}", "watchNamespaces"),
    ] {
        let output = helm(&["template", "x", "charts/entrepot", KUBE_VERSION, "--set", value]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(field), "{value}: {error}");
    }
}

#[test]
fn a_single_replica_has_no_disruption_budget_that_would_block_a_drain() {
    assert!(rendered(&[]).contains("kind: PodDisruptionBudget"));
    assert!(!rendered(&["--set", "replicas=1"]).contains("kind: PodDisruptionBudget"));
}

/// The permissions of the operator outside of its own namespace.
fn rules(rendered: &str, kind: &str) -> Vec<String> {
    let objects = rendered.split("\n---").filter(|object| object.contains(&format!("\nkind: {kind}\n")));
    objects.map(|object| object.split("\nrules:").nth(1).unwrap_or_default().to_owned()).collect()
}

#[test]
fn an_operator_of_some_namespaces_has_no_permission_elsewhere_except_to_read_storage_classes() {
    let everywhere = rendered(&[]);
    assert_eq!(rules(&everywhere, "Role").len(), 1, "the Role for the Lease");
    let some = rendered(&["--set", "watchNamespaces={team-a,team-b}"]);
    let of_cluster = rules(&some, "ClusterRole");
    assert_eq!(of_cluster.len(), 1);
    assert_eq!(of_cluster[0].matches("resources: [").count(), 1, "{}", of_cluster[0]);
    assert!(of_cluster[0].contains("resources: [storageclasses]"), "{}", of_cluster[0]);
    for namespace in ["team-a", "team-b"] {
        assert_eq!(some.matches(&format!("\n  namespace: \"{namespace}\"\n")).count(), 2, "a Role and a RoleBinding");
    }
    let in_namespace = rules(&some, "Role").into_iter().filter(|rules| rules.contains("[secrets]")).count();
    assert_eq!(in_namespace, 2);
}
