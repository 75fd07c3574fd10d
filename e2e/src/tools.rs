//! The programs that the tests need, built or installed once, with only Rust, Go and Debian's
//! packages.
//!
//! Each Go program has its own module under `e2e/tools`, whose `go.sum` pins the hash of every
//! source. It is therefore built with the dependency versions of its own release. Only the programs
//! of Kubernetes and those that run next to them share a module, because most of their code is then
//! compiled once. The programs are built into `$XDG_CACHE_HOME/entrepot-e2e` (or
//! `~/.cache/entrepot-e2e`), in a folder named after the hash of the module's `go.sum`.

pub mod linters;
pub mod npm;

use anyhow::{Context, Result, bail, ensure};
use entrepot_oci::{Algorithm, Digest};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

/// A Go program that the tests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// An S3 gateway over a file system.
    Versitygw,
    /// An S3 server.
    Minio,
    /// CNCF Distribution v3.
    Registry,
    Crane,
    Regctl,
    Oras,
    /// Logs in, pushes and pulls with the code of Docker Engine.
    DockerPush,
    /// Pushes and pulls with the resolver of containerd.
    ContainerdClient,
    /// The conformance suite of the OCI distribution-spec.
    Conformance,
    /// Renders and checks the chart.
    Helm,
    KubeApiserver,
    KubeControllerManager,
    KubeScheduler,
    Kubelet,
    KubeProxy,
    Kubectl,
    /// The cluster's DNS server.
    Coredns,
    /// Provides autoscalers with the resource usage of pods.
    MetricsServer,
    /// Checks histories of tags with porcupine.
    Linearizable,
    /// Reads manifests as clients in Go do.
    GoManifest,
}

impl Tool {
    pub const ALL: [Tool; 20] = [
        Tool::Versitygw,
        Tool::Minio,
        Tool::Registry,
        Tool::Crane,
        Tool::Regctl,
        Tool::Oras,
        Tool::DockerPush,
        Tool::ContainerdClient,
        Tool::Conformance,
        Tool::Helm,
        Tool::KubeApiserver,
        Tool::KubeControllerManager,
        Tool::KubeScheduler,
        Tool::Kubelet,
        Tool::KubeProxy,
        Tool::Kubectl,
        Tool::Coredns,
        Tool::MetricsServer,
        Tool::Linearizable,
        Tool::GoManifest,
    ];

    /// The name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Tool::Versitygw => "versitygw",
            Tool::Minio => "minio",
            Tool::Registry => "registry",
            Tool::Crane => "crane",
            Tool::Regctl => "regctl",
            Tool::Oras => "oras",
            Tool::DockerPush => "docker-push",
            Tool::ContainerdClient => "containerd-client",
            Tool::Conformance => "conformance",
            Tool::Helm => "helm",
            Tool::KubeApiserver => "kube-apiserver",
            Tool::KubeControllerManager => "kube-controller-manager",
            Tool::KubeScheduler => "kube-scheduler",
            Tool::Kubelet => "kubelet",
            Tool::KubeProxy => "kube-proxy",
            Tool::Kubectl => "kubectl",
            Tool::Coredns => "coredns",
            Tool::MetricsServer => "metrics-server",
            Tool::Linearizable => "linearizable",
            Tool::GoManifest => "go-manifest",
        }
    }

    /// The name of the program's folder under `e2e/tools`.
    fn module(self) -> &'static str {
        match self {
            Tool::KubeApiserver
            | Tool::KubeControllerManager
            | Tool::KubeScheduler
            | Tool::Kubelet
            | Tool::KubeProxy
            | Tool::Kubectl
            | Tool::Coredns
            | Tool::MetricsServer => "kubernetes",
            Tool::Linearizable => "porcupine",
            Tool::GoManifest => "go-json",
            single => single.name(),
        }
    }

    /// Path of the program; builds its module if necessary.
    ///
    /// # Errors
    /// If Go is missing, or the build fails.
    pub fn path(self) -> Result<PathBuf> {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(self.module());
        let pinned = pinned(&module).with_context(|| format!("cannot read the sources of {}", self.name()))?;
        let folder = cache()?.join(format!("{}-{}", self.module(), fingerprint(&pinned)));
        let program = folder.join(self.name());
        if program.exists() {
            return Ok(program);
        }
        let _lock = lock()?;
        if !program.exists() {
            build(self.module(), &module, &folder)?;
        }
        Ok(program)
    }
}

/// A short hash of what determines the programs in a folder.
fn fingerprint(pinned: &[u8]) -> String {
    Digest::of(Algorithm::Sha256, pinned).hex()[..16].to_owned()
}

/// Everything that determines the programs of a module: the hashes of its dependencies, and its own
/// sources.
fn pinned(module: &Path) -> Result<Vec<u8>> {
    let mut pinned = fs::read(module.join("go.sum"))?;
    let entries: std::io::Result<Vec<_>> = fs::read_dir(module)?.map(|entry| Ok(entry?.path())).collect();
    let mut own: Vec<_> = entries?.into_iter().map(|path| path.join("main.go")).filter(|path| path.exists()).collect();
    own.sort();
    for program in own {
        pinned.extend(fs::read(program)?);
    }
    Ok(pinned)
}

fn build(name: &str, module: &Path, folder: &Path) -> Result<()> {
    let start = Instant::now();
    println!("building {name} from its pinned source");
    let modfile = fs::read_to_string(module.join("go.mod"))?;
    // Built in a temporary folder and then renamed, so that an interrupted build leaves no
    // incomplete program.
    let unfinished = folder.with_extension("unfinished");
    remove_folder(&unfinished)?;
    remove_folder(folder)?;
    fs::create_dir_all(&unfinished)?;
    let status = Command::new("go")
        .args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly"])
        .arg(format!("-ldflags=-s -w{}", kubernetes_version(&modfile)))
        .arg("-o")
        .arg(format!("{}/", unfinished.display()))
        .args(programs(&modfile))
        .env("CGO_ENABLED", "0")
        .current_dir(module)
        .status()
        .context("cannot run go; install Go 1.26 or newer")?;
    ensure!(status.success(), "building {name} failed: {status}");
    fs::rename(&unfinished, folder)?;
    println!("built {name} in {:.0?}", start.elapsed());
    Ok(())
}

/// The packages in the `tool` directives of a module, which are its programs.
fn programs(modfile: &str) -> Vec<&str> {
    let mut programs = Vec::new();
    let mut inside = false;
    for line in modfile.lines() {
        match line.trim() {
            "tool (" => inside = true,
            ")" => inside = false,
            package if inside => programs.push(package),
            directive => programs.extend(directive.strip_prefix("tool ")),
        }
    }
    programs
}

/// The pinned version of a program.
///
/// # Errors
/// If its module does not name one.
pub fn version(tool: Tool) -> Result<String> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(tool.module());
    let modfile = fs::read_to_string(module.join("go.mod"))?;
    let programs = programs(&modfile);
    let version = required(&modfile, |path| programs.iter().any(|program| program.starts_with(path)));
    Ok(version.with_context(|| format!("{module:?} does not require a version of the program"))?.to_owned())
}

/// The version of the required module for which `wanted` is true; of several, the one with the
/// longest path.
fn required(modfile: &str, wanted: impl Fn(&str) -> bool) -> Option<&str> {
    let lines = modfile.lines().map(|line| line.trim().trim_start_matches("require ").split_whitespace());
    let modules = lines.filter_map(|mut words| Some((words.next()?, words.next()?)));
    modules.filter(|(path, _)| wanted(path)).max_by_key(|(path, _)| path.len()).map(|(_, version)| version)
}

/// Linker flags that set the version of Kubernetes' programs, which their release script sets
/// otherwise. Empty for every other module.
fn kubernetes_version(modfile: &str) -> String {
    let Some(version) = required(modfile, |path| path == "k8s.io/kubernetes") else { return String::new() };
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let mut flags = String::new();
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (name, value) in [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)] {
            flags.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    flags
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The Debian packages that the tests need, each with a program by which an installed package is
/// recognised.
const PACKAGES: [(&str, &str); 22] = [
    ("podman", "podman"),
    ("skopeo", "skopeo"),
    ("wrk", "wrk"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("apache2-utils", "htpasswd"),
    ("nginx-light", "nginx"),
    ("e2fsprogs", "mkfs.ext4"),
    ("mount", "losetup"),
    ("util-linux", "blockdev"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("containernetworking-plugins", "/usr/lib/cni/ptp"),
    ("etcd-server", "etcd"),
    ("iptables", "iptables"),
    ("iproute2", "ip"),
    ("catatonit", "catatonit"),
    ("busybox-static", "busybox"),
    // Only its library is used, as a preload (`history::clock`).
    ("faketime", "faketime"),
    ("python3-pip", "pip3"),
    ("nodejs", "node"),
    ("npm", "npm"),
];

/// Path of a program from a Debian package; installs all missing packages if the program is not
/// found.
///
/// # Errors
/// If the program is not found and cannot be installed.
pub fn system(program: &str) -> Result<PathBuf> {
    if let Some(path) = find(program) {
        return Ok(path);
    }
    install_packages()?;
    find(program).with_context(|| format!("{program} is not installed"))
}

fn install_packages() -> Result<()> {
    let _lock = lock()?;
    let missing: Vec<_> =
        PACKAGES.iter().filter(|(_, program)| find(program).is_none()).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let start = Instant::now();
    println!("installing {} with apt-get", missing.join(", "));
    let _quiet = NoServices::enforce()?;
    for arguments in [vec!["update", "-q"], [vec!["install", "-qy", "--no-install-recommends"], missing].concat()] {
        let output = Command::new("apt-get")
            .args(&arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()
            .context("cannot run apt-get")?;
        if !output.status.success() {
            bail!("apt-get {arguments:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        }
    }
    println!("installed Debian's packages in {:.0?}", start.elapsed());
    Ok(())
}

/// While this exists, newly installed packages do not start their services, as etcd and containerd
/// would.
struct NoServices {
    /// The policy file to remove; `None` if the machine already has its own.
    policy: Option<&'static Path>,
}

impl NoServices {
    fn enforce() -> Result<NoServices> {
        const OURS: &str = "#!/bin/sh\n# Created by Entrepot's tests while they install packages.\nexit 101\n";
        let path = Path::new("/usr/sbin/policy-rc.d");
        // A policy that an interrupted installation left is reused.
        if path.exists() && fs::read_to_string(path).ok().as_deref() != Some(OURS) {
            return Ok(NoServices { policy: None });
        }
        fs::write(path, OURS).context("cannot write policy-rc.d; installing packages requires root")?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(NoServices { policy: Some(path) })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = self.policy {
            let _ = fs::remove_file(path);
        }
    }
}

/// Looks up a program on the PATH and in Debian's folders for administrators.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let administrator = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(administrator).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Installs all programs, and prints their paths and how long it took.
///
/// # Errors
/// If one cannot be installed.
pub fn install_all() -> Result<()> {
    let start = Instant::now();
    install_packages()?;
    for tool in Tool::ALL {
        println!("{:<24} {}", tool.name(), tool.path()?.display());
    }
    println!("{:<24} {}", "oidc-provider", npm::oidc_provider()?.1.display());
    println!("all tools installed ({:.0?})", start.elapsed());
    Ok(())
}

/// The folder for built programs, outside the working copy, so that all working copies share it.
///
/// # Errors
/// If neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn cache() -> Result<PathBuf> {
    let folder = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(folder), _) if !folder.is_empty() => PathBuf::from(folder),
        (_, Some(home)) => PathBuf::from(home).join(".cache"),
        _ => bail!("neither XDG_CACHE_HOME nor HOME is set"),
    };
    let folder = folder.join("entrepot-e2e");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Allows one installation at a time among all processes. The lock is released when the value is
/// dropped.
fn lock() -> Result<Lock> {
    // A file lock belongs to the process; the mutex excludes the threads of one process.
    static THREADS: Mutex<()> = Mutex::new(());
    let guard = THREADS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let file = File::create(cache()?.join("lock"))?;
    file.lock().context("cannot lock the cache folder")?;
    Ok(Lock { _file: file, _guard: guard })
}

struct Lock {
    _file: File,
    _guard: std::sync::MutexGuard<'static, ()>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_built_by_its_module() {
        for tool in Tool::ALL {
            let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(tool.module());
            let modfile = fs::read_to_string(module.join("go.mod")).unwrap();
            let built: Vec<_> =
                programs(&modfile).into_iter().map(|package| package.rsplit('/').next().unwrap()).collect();
            assert!(built.contains(&tool.name()), "{tool:?}: {built:?}");
        }
    }

    #[test]
    fn only_kubernetes_gets_its_version_by_linker_flags() {
        let flags = kubernetes_version("require (\n\tk8s.io/kubernetes v1.34.4 // indirect\n)");
        assert!(flags.contains("-X k8s.io/component-base/version.gitVersion=v1.34.4"), "{flags}");
        assert!(flags.contains("-X k8s.io/client-go/pkg/version.gitMinor=34"), "{flags}");
        assert_eq!(kubernetes_version("require k8s.io/client-go v0.34.4"), "");
    }
}
