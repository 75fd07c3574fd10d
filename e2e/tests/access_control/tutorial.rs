//! The tutorial of access control, as it is printed.

use anyhow::{Context, Result, ensure};
use entrepot_e2e::node_binary::Variant;
use entrepot_e2e::process::Process;
use entrepot_e2e::{commands, tools};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

/// Time limit for the node to listen.
const START: Duration = Duration::from_secs(30);

/// The address in the tutorial.
const ADDRESS: &str = "127.0.0.1:5443";

/// A command with the output that is printed below it.
#[derive(Debug, Default, PartialEq)]
struct Step {
    command: String,
    output: String,
}

/// The commands in the console blocks of a document.
fn steps(document: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    let mut heredoc = false;
    for line in document.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside && !heredoc) {
            heredoc = command.ends_with("<<EOF");
            steps.push(Step { command: command.to_owned(), output: String::new() });
        } else if let Some(step) = steps.last_mut().filter(|_| inside) {
            let text = if heredoc { &mut step.command } else { &mut step.output };
            if heredoc || !text.is_empty() {
                text.push('\n');
            }
            text.push_str(line);
            heredoc = heredoc && line != "EOF";
        }
    }
    steps
}

/// The folder in which the commands run, and where podman keeps its images.
struct Desk {
    folder: TempDir,
    home: TempDir,
}

impl Desk {
    fn new() -> Result<Desk> {
        let desk = Desk { folder: TempDir::new()?, home: TempDir::new()? };
        let home = desk.home.path();
        let storage =
            format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{0}/root\"\nrunroot = \"{0}/run\"\n", home.display());
        fs::write(home.join("storage.conf"), storage)?;
        fs::write(home.join("containers.conf"), "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n")?;
        fs::create_dir(home.join("bin"))?;
        // The unoptimised build under the name that the tutorial uses.
        fs::copy(Variant::CrashPoints.path()?, home.join("bin/entrepot-node"))?;
        Ok(desk)
    }

    /// bash with a command, in the environment of a user who has the programs of the tutorial.
    fn shell(&self, command: &str) -> std::process::Command {
        let home = self.home.path();
        let path = format!("{}:{}", home.join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let mut shell = std::process::Command::new("bash");
        shell.args(["-o", "pipefail", "-c", command]).current_dir(&self.folder).env("PATH", path);
        shell.env("HOME", home).env("NO_PROXY", "localhost").env("no_proxy", "localhost");
        shell.env("CONTAINERS_STORAGE_CONF", home.join("storage.conf"));
        shell.env("CONTAINERS_CONF", home.join("containers.conf"));
        shell
    }

    /// Starts what the tutorial runs in the background, and waits until it listens.
    async fn start(&self, command: &str) -> Result<Process> {
        let log = self.home.path().join("log");
        // Without the shell in between, which would outlive the test's signal.
        let mut process = Process::start("the tutorial's node", &mut self.shell(&format!("exec {command}")), &log)?;
        process.until_ready(START, || async { TcpStream::connect(ADDRESS).await.is_ok() }).await?;
        Ok(process)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tutorial_works_as_it_is_printed() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tutorials/users-and-rules.md");
    let steps = steps(&fs::read_to_string(document).unwrap());
    assert!(steps.len() > 9, "{steps:?}");
    for program in ["openssl", "htpasswd", "podman", "curl"] {
        tools::system(program).unwrap();
    }
    let desk = Desk::new().unwrap();
    let mut node = None;
    for step in &steps {
        println!("$ {}", step.command);
        if let Some(command) = step.command.strip_suffix(" &") {
            node = Some(desk.start(command).await.unwrap());
        } else {
            run(&desk, step).await.unwrap();
        }
    }
    let log = node.context("the tutorial starts no node").unwrap().log();
    assert!(log.contains("\"log\":\"audit\"") && !log.contains("secret-of") && !log.contains("eyJ"), "{log}");
}

async fn run(desk: &Desk, step: &Step) -> Result<()> {
    let output = commands::run(&mut Command::from(desk.shell(&step.command))).await?;
    let printed = output.trim();
    ensure!(step.output.is_empty() || printed == step.output, "{} printed {printed}", step.command);
    Ok(())
}

#[test]
fn commands_are_read_with_their_input_and_their_output() {
    let document = "$ not here\n```console\n$ cat > a <<EOF\n$ x\nEOF\n$ one\n$ two\nline\nmore\n```\ntext\n";
    let step = |command: &str, output: &str| Step { command: command.to_owned(), output: output.to_owned() };
    assert_eq!(steps(document), [step("cat > a <<EOF\n$ x\nEOF", ""), step("one", ""), step("two", "line\nmore")]);
}
