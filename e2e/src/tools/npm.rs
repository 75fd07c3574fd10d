//! The Node.js program that the tests run. `e2e/tools/oidc-provider/package-lock.json` pins the hash
//! of every package.

use super::{cache, fingerprint, lock, remove_folder, system};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The files of the program.
const FILES: [&str; 3] = ["package.json", "package-lock.json", "main.js"];

/// Node.js, and the main file of the issuer of OpenID Connect; installs it if necessary.
///
/// # Errors
/// If Node.js is missing, or the packages cannot be installed.
pub fn oidc_provider() -> Result<(PathBuf, PathBuf)> {
    let node = system("node")?;
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/oidc-provider");
    let mut pinned = Vec::new();
    for file in FILES {
        pinned.extend(fs::read(module.join(file)).with_context(|| format!("cannot read {file} of oidc-provider"))?);
    }
    let folder = cache()?.join(format!("oidc-provider-{}", fingerprint(&pinned)));
    if !folder.exists() {
        install(&module, &folder)?;
    }
    Ok((node, folder.join("main.js")))
}

/// The folder gets its name at the end, so that an interrupted installation leaves no incomplete one.
fn install(module: &Path, folder: &Path) -> Result<()> {
    let start = Instant::now();
    let npm = system("npm")?;
    let _lock = lock()?;
    if folder.exists() {
        return Ok(());
    }
    let unfinished = folder.with_extension("unfinished");
    remove_folder(&unfinished)?;
    fs::create_dir_all(&unfinished)?;
    for file in FILES {
        fs::copy(module.join(file), unfinished.join(file))?;
    }
    let mut command = Command::new(npm);
    command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]).current_dir(&unfinished);
    let status = command.status().context("cannot run npm")?;
    ensure!(status.success(), "{command:?} failed: {status}");
    fs::rename(&unfinished, folder)?;
    println!("installed {} in {:.0?}", folder.display(), start.elapsed());
    Ok(())
}
