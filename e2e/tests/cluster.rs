//! Runs all scenarios on a Kubernetes cluster, in one test, because they share the cluster.

use entrepot_e2e::scenarios;

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_passes() {
    let program = env!("CARGO_BIN_EXE_entrepot-e2e").into();
    scenarios::run(program, &[]).await.unwrap();
}
