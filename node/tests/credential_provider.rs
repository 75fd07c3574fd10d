//! Runs `entrepot-node credential-provider` as a kubelet does.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str], input: &str) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_entrepot-node"))
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    program.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    program.wait_with_output().unwrap()
}

fn request(token: &str) -> String {
    format!(
        r#"{{"apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderRequest",
             "image": "registry.example.com/team-a/web", "serviceAccountToken": "{token}"}}"#
    )
}

#[test]
fn a_kubelet_gets_the_response_on_standard_output() {
    let output = run(&["credential-provider"], &request("secret"));
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let expected = r#"{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderResponse","cacheKeyType":"Registry","cacheDuration":"0s","auth":{"registry.example.com":{"username":"token","password":"secret"}}}"#;
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), expected);
    let output = run(&["credential-provider", "--cache-duration", "5m"], &request("secret"));
    assert!(String::from_utf8(output.stdout).unwrap().contains(r#""cacheDuration":"5m""#));
}

#[test]
fn a_failure_is_told_on_standard_error_alone() {
    for (arguments, input, text) in [
        (&["credential-provider"][..], request(""), "serviceAccountTokenAudience"),
        (&["credential-provider"], "nothing".into(), "CredentialProviderRequest"),
        (&["credential-provider", "--cache-duration", "soon"], request("secret"), "--cache-duration"),
        (&["credential-provider", "--config", "x"], request("secret"), "--config"),
    ] {
        let output = run(arguments, &input);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}");
        assert!(error.contains(text) && !error.contains("secret"), "{error}");
    }
}
