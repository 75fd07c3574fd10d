//! A machine of the cluster: namespaces of its own for processes, mounts, network and name, and an init in them.
//!
//! Whatever runs in it (programs, containers, shims), whatever they mount and whatever firewall rules they make
//! vanishes with its init: the kernel ends every process of a process namespace with its first, and mounts and networks
//! go when nobody is left in their namespaces. Nothing is cleaned up one by one, and nothing can be forgotten.

use super::state::ProcessId;
use crate::process::Process;
use crate::tools;
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A machine starts within milliseconds; on a loaded one it has waited for a second.
const START: Duration = Duration::from_secs(30);

/// Settings of the whole kernel that a kubelet changes when they differ. It reads these values, and changes nothing.
const AS_A_KUBELET_WANTS_THEM: &str = "vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 \
    kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000";

/// What the first process of the machine does before it becomes its init. `$1` is the folder, `$2` the name, `$3` the
/// kernel's settings, the rest the init.
const SETUP: &str = r#"
set -e
folder=$1 name=$2 settings=$3; shift 3
mount --make-rshared /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mount --bind "$folder/lib" /var/lib
mount --bind "$folder/log" /var/log
hostname "$name"
ip link set lo up
for setting in $settings; do
    path=/proc/sys/${setting%%=*}
    [ -e "$path" ] || continue
    seen=/run/settings/$(basename "$path"); mkdir -p /run/settings
    echo "${setting#*=}" > "$seen"
    mount --bind "$seen" "$path"
done
touch "$folder/ready"
exec "$@"
"#;

/// How long a machine lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as the process that started it, however that one ends.
    Ours,
    /// Until it is stopped.
    Kept,
}

/// A machine that runs.
pub struct Machine {
    name: String,
    folder: PathBuf,
    init: ProcessId,
    /// Its standard input keeps a machine of `Lifetime::Ours` alive: the kernel closes it when we end.
    _launcher: Child,
}

impl Machine {
    /// Starts a machine with its files in `folder`.
    ///
    /// # Errors
    /// When namespaces cannot be made: that takes root.
    pub async fn start(name: &str, folder: &Path, lifetime: Lifetime) -> Result<Machine> {
        for hidden in ["/run", "/var/lib", "/var/log", "/proc"] {
            anyhow::ensure!(
                !folder.starts_with(hidden),
                "{} lies in {hidden}, which a machine has of its own; set XDG_CACHE_HOME elsewhere",
                folder.display()
            );
        }
        for part in ["lib", "log"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let log = folder.join("init.log");
        let output = fs::File::create(&log)?;
        let mut command = Command::new(tools::system("unshare")?);
        command.args(["--fork", "--kill-child", "--pid", "--mount", "--net", "--uts", "--ipc"]);
        command.args(["/bin/sh", "-c", SETUP, "machine"]).arg(folder).args([name, AS_A_KUBELET_WANTS_THEM]);
        command.arg(tools::system("catatonit")?).arg("--");
        match lifetime {
            Lifetime::Ours => command.arg("cat").stdin(Stdio::piped()),
            Lifetime::Kept => command.args(["sleep", "infinity"]).stdin(Stdio::null()),
        };
        // A group of its own: Ctrl-C is for us, and we stop the cluster in order.
        command.process_group(0).stdout(output.try_clone()?).stderr(output);
        let mut launcher = command.spawn().context("cannot run unshare")?;
        let shown = || fs::read_to_string(&log).unwrap_or_default();
        let ready = folder.join("ready");
        let start = std::time::Instant::now();
        while !ready.exists() {
            if let Some(status) = launcher.try_wait()? {
                bail!("the machine {name} did not start: {status}; it takes root\n{}", shown());
            }
            if start.elapsed() > START {
                bail!("the machine {name} did not start within {START:?}\n{}", shown());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let init = ProcessId::child_of(launcher.id()).with_context(|| format!("the init of {name}"))?;
        Ok(Machine { name: name.to_owned(), folder: folder.to_owned(), init, _launcher: launcher })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its files, as the host sees them. `lib` is its `/var/lib`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its first process.
    pub fn init(&self) -> ProcessId {
        self.init
    }

    /// A command that runs a program in the machine.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.pid.to_string(), "--pid", "--mount", "--net", "--uts", "--ipc", "--"]);
        command.arg(program);
        command
    }

    /// Starts a program that serves; its output goes to `log/<name>.log`. It ends with the machine, not with the value,
    /// which may be dropped as soon as the program is seen to serve.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn serve(&self, name: &str, program: &Path, arguments: &[String]) -> Result<Process> {
        let mut command = self.command(program);
        command.args(arguments).process_group(0);
        Process::start(name, &mut command, &self.folder.join("log").join(format!("{name}.log")))
    }

    /// Runs a program of the host in the machine's network: the way to wire it and to cut it off.
    ///
    /// # Errors
    /// When it fails; the message has all that it wrote.
    pub async fn network(&self, command: &str) -> Result<String> {
        let mut entered = tokio::process::Command::new("nsenter");
        entered.args(["--target", &self.init.pid.to_string(), "--net", "--"]).args(command.split_whitespace());
        crate::commands::run(&mut entered).await
    }
}
