//! Runs every check that a change must pass, step by step, and prints a summary of all tests.

use crate::disks;
use crate::tools::linters;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// A step: its name, and the commands that it runs, in this order. Each command starts with `cargo`
/// or with the name of a linter.
struct Step {
    name: &'static str,
    commands: Vec<String>,
}

/// The tests of this crate, the fast ones first.
const TESTS: [&str; 24] = [
    "chart",
    "embedded",
    "bucket_contract",
    "identity",
    "counts",
    "conformance",
    "distribution",
    "nodes",
    "access_control",
    "tls",
    "oidc",
    "bad_input",
    "hostile",
    "fuzz",
    "go_manifests",
    "faults",
    "fills",
    "crashes",
    "clients",
    "proxied",
    "cleaning",
    "history",
    "cluster",
    "images",
];

/// Those that run concurrently: they wait for most of their time, and measure nothing.
const CONCURRENT: [&str; 1] = ["access_control"];

/// Checks that need no other program: the unit tests of all crates and a few integration tests.
const UNIT: &str = "cargo test --workspace --lib --bins --test access --test admitted --test credential_provider \
                    --test crd --test registry --test private_files --test reference";

fn steps() -> Vec<Step> {
    let step = |name, command: &str| Step { name, commands: command.split(" && ").map(str::to_owned).collect() };
    let mut steps = vec![
        step("fmt", "cargo fmt --all -- --check"),
        step("clippy", "cargo clippy --workspace --all-targets --all-features -- -D warnings"),
        step("unit", UNIT),
        step("doc", "cargo doc --no-deps --workspace --config build.rustdocflags=[\"-Dwarnings\"]"),
        step("typos", "typos"),
        // Not advisories: they need the network, and change without a change of the code.
        step("deny", "cargo-deny --log-level warn check bans licenses sources"),
        step("machete", "cargo-machete"),
        // The second command checks the relative links and the anchors of all Markdown files.
        step("book", "mdbook build docs && rumdl check --no-config --no-cache --enable MD051,MD057 ."),
        step("tools", "cargo run -q --bin entrepot-e2e -- tools"),
        step("races", "cargo run -q --bin entrepot-e2e -- races"),
    ];
    // One test at a time, because the tests measure memory and count requests, and the machine may
    // be small.
    steps.extend(TESTS.map(|name| {
        let threads = if CONCURRENT.contains(&name) { 4 } else { 1 };
        step(name, &format!("cargo test --workspace --test {name} -- --test-threads={threads} --nocapture"))
    }));
    steps
}

/// The result of a step.
struct Outcome {
    name: &'static str,
    passed: u64,
    failed: u64,
    ok: bool,
    took: Duration,
}

/// Runs the named steps, or all steps without names, and prints a summary.
///
/// # Errors
/// If a name is not the name of a step, or cargo cannot be run.
pub fn run(names: &[String]) -> Result<ExitCode> {
    let mut steps = steps();
    if let Some(unknown) = names.iter().find(|name| steps.iter().all(|step| step.name != name.as_str())) {
        let known: Vec<_> = steps.iter().map(|step| step.name).collect();
        bail!("unknown step \"{unknown}\"; steps: {}", known.join(", "));
    }
    steps.retain(|step| names.is_empty() || names.iter().any(|name| name == step.name));
    let start = Instant::now();
    let mut outcomes = Vec::new();
    for step in &steps {
        outcomes.push(perform(step)?);
    }
    println!("\n== summary");
    for outcome in &outcomes {
        let word = if outcome.ok { "ok" } else { "FAILED" };
        let Outcome { name, passed, failed, took, .. } = outcome;
        println!("{name:<14} {word:<7} {:>6.1}s {passed:>5} passed {failed:>3} failed", took.as_secs_f64());
    }
    println!("all steps took {:.0?}", start.elapsed());
    // A step that fails without a failed test, such as one that does not compile, counts as one
    // failure.
    let passed: u64 = outcomes.iter().map(|outcome| outcome.passed).sum();
    let failed: u64 =
        outcomes.iter().map(|outcome| if outcome.ok { outcome.failed } else { outcome.failed.max(1) }).sum();
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn perform(step: &Step) -> Result<Outcome> {
    println!("\n== {}: {}", step.name, step.commands.join(" && "));
    println!("free disk space: {:.1} GiB", disks::free()? as f64 / f64::from(1 << 30));
    let start = Instant::now();
    let mut outcome = Outcome { name: step.name, passed: 0, failed: 0, ok: true, took: Duration::ZERO };
    for command in &step.commands {
        if outcome.ok {
            outcome.ok = run_command(command, &mut outcome)?;
        }
    }
    outcome.took = start.elapsed();
    let word = if outcome.ok { "ok" } else { "FAILED" };
    println!("== {} {word} in {:.1}s", step.name, outcome.took.as_secs_f64());
    Ok(outcome)
}

/// Runs one command of a step, prints its output, and adds the tests that it reports. Returns
/// whether it succeeded.
fn run_command(command: &str, outcome: &mut Outcome) -> Result<bool> {
    let mut words = command.split(' ');
    let program = match words.next() {
        Some("cargo") | None => "cargo".into(),
        Some(linter) => linters::path(linter)?,
    };
    let mut child = Command::new(&program)
        .args(words)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    for line in BufReader::new(child.stdout.take().context("cannot read the output of the command")?).split(b'\n') {
        let line = line?;
        let mut output = std::io::stdout().lock();
        output.write_all(&line)?;
        output.write_all(b"\n")?;
        if let Some((passed, failed)) = result(&String::from_utf8_lossy(&line)) {
            outcome.passed += passed;
            outcome.failed += failed;
        }
    }
    Ok(child.wait()?.success())
}

/// The counts in a line such as `test result: ok. 3 passed; 0 failed; …`.
fn result(line: &str) -> Option<(u64, u64)> {
    let line = line.strip_prefix("test result: ")?;
    let number = |word: &str| {
        let before = line.split(word).next()?;
        before.split_whitespace().last()?.parse().ok()
    };
    Some((number(" passed")?, number(" failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::CRATES;

    #[test]
    fn the_results_of_cargo_are_parsed() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(result(line), Some((12, 3)));
        assert_eq!(result("test a ... ok"), None);
    }

    /// The names of the integration tests of a crate.
    fn tests_of(package: &str) -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(package).join("tests");
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn every_test_of_this_crate_is_a_step() {
        let mut steps = TESTS.map(str::to_owned).to_vec();
        steps.sort();
        assert_eq!(tests_of("e2e"), steps);
    }

    #[test]
    fn every_test_of_the_other_crates_is_in_the_unit_step() {
        let others = CRATES.iter().filter_map(|sources| sources.strip_suffix("/src")).filter(|name| *name != "e2e");
        let names: Vec<_> = others.flat_map(tests_of).collect();
        assert!(names.len() > 3, "{names:?}");
        for name in names {
            assert!(UNIT.contains(&format!("--test {name}")), "{name}");
        }
    }
}
