//! A real Kubernetes, and every scenario on it: one test, for they share the cluster.

use entrepot_e2e::scenarios;

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_passes() {
    let program = env!("CARGO_BIN_EXE_entrepot-e2e").into();
    scenarios::run(program, &[]).await.unwrap();
}
