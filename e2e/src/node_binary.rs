//! Builds the node's program once, with the cargo that runs the tests.

use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

/// A build of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// The release build: static, so that it is the only file in its image.
    Release,
    /// With crash points, and unoptimised, because its behaviour is tested and not its speed.
    CrashPoints,
}

impl Variant {
    fn name(self) -> &'static str {
        match self {
            Variant::Release => "entrepot-node",
            Variant::CrashPoints => "entrepot-node-crash-points",
        }
    }

    /// Path of the program, built from the present sources.
    ///
    /// # Errors
    /// If the build fails.
    pub fn path(self) -> Result<PathBuf> {
        static BUILT: Mutex<Vec<(Variant, PathBuf)>> = Mutex::new(Vec::new());
        let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, path)) = built.iter().find(|(variant, _)| *variant == self) {
            return Ok(path.clone());
        }
        let path = build(self)?;
        built.push((self, path.clone()));
        Ok(path)
    }
}

fn build(variant: Variant) -> Result<PathBuf> {
    let start = Instant::now();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("workspace root not found")?;
    let built = match variant {
        Variant::Release => released("entrepot-node", workspace, None)?,
        // All packages, as for the tests, so that their dependencies are compiled once for both.
        Variant::CrashPoints => compile("entrepot-node", workspace, |command| {
            command.args(["--workspace", "--features", "entrepot-node/crash-points"]);
        })?,
    };
    // Both variants may be built to the same path, so each is copied under its own name.
    let folder = target_folder(&built).context("target folder not found")?.join("e2e");
    let kept = keep(&built, &folder, variant.name())?;
    println!("built {} ({:.0?})", variant.name(), start.elapsed());
    Ok(kept)
}

/// Builds a program of the workspace as it is released: static, and with the same bytes wherever
/// and whenever it is built with the same compiler. `target` is the target folder; `None` means
/// cargo's default.
///
/// # Errors
/// If the build fails.
pub fn released(program: &str, workspace: &Path, target: Option<&Path>) -> Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = match home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"))) {
        Some(home) => home.canonicalize()?,
        None => bail!("neither CARGO_HOME nor HOME is set"),
    };
    // Panics and logs contain paths of dependencies; cargo itself makes our paths relative to the
    // workspace.
    let flags = ["-Ctarget-feature=+crt-static".to_owned(), format!("--remap-path-prefix={}=/cargo", home.display())];
    compile(program, workspace, |command| {
        // Both released packages together, so that their dependencies are compiled once with one
        // set of features.
        command.args(["--package", "entrepot-node", "--package", "entrepot-operator"]);
        // With an explicit target, cargo does not apply the flags to build scripts and macros,
        // which cannot be static.
        command.args(["--profile", "release", "--target", "host-tuple"]);
        command.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        command.env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
        if let Some(target) = target {
            command.env("CARGO_TARGET_DIR", target);
        }
    })
}

/// Runs cargo to build a program. `adjust` selects the packages.
fn compile(program: &str, workspace: &Path, adjust: impl FnOnce(&mut Command)) -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command.args(["build", "--bin", program]);
    command.args(["--message-format", "json-render-diagnostics"]);
    // Build scripts would rerun because of the variables that cargo sets for a running test.
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
    {
        command.env_remove(name);
    }
    adjust(&mut command);
    command.current_dir(workspace).stderr(Stdio::inherit());
    let output = command.output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("building {program} failed: {}", output.status);
    }
    executable(&output.stdout).context("cargo reported no executable")
}

/// The target folder of cargo, recognised by its cache tag.
pub fn target_folder(program: &Path) -> Option<&Path> {
    // The folder of an explicit target has the tag as well, so take the outermost.
    program.ancestors().filter(|folder| folder.join("CACHEDIR.TAG").exists()).last()
}

/// The path of the program in cargo's messages.
fn executable(messages: &[u8]) -> Option<PathBuf> {
    String::from_utf8_lossy(messages).lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message["executable"].as_str()?))
    })
}

/// Copies the program. Another process may be running the old file, so it is replaced and not
/// overwritten.
fn keep(built: &Path, folder: &Path, name: &str) -> Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    let (kept, unfinished) = (folder.join(name), folder.join(format!("{name}.unfinished")));
    fs::copy(built, &unfinished)?;
    fs::rename(&unfinished, &kept)?;
    Ok(kept)
}
