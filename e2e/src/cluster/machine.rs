//! A machine of the cluster: its own namespaces for processes, mounts, network and host name, with
//! an init.
//!
//! Everything in it (programs, containers, shims, mounts, firewall rules) disappears with its init:
//! the kernel kills every process of a PID namespace with its first process, and removes mounts and
//! networks when no process is left in their namespaces. So nothing is removed one by one, and
//! nothing can be left over.

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

/// Time limit for a machine to start. It takes milliseconds, or about a second on a loaded host.
const START: Duration = Duration::from_secs(30);

/// Values of kernel-wide settings that a kubelet would change if they differed. In a machine it
/// reads these values, so it changes nothing on the host.
const AS_A_KUBELET_WANTS_THEM: &str = "vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 \
    kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000";

/// The setup that the first process of a machine runs before it executes its init. `$1` is the
/// folder, `$2` the name, `$3` the kernel settings, and the rest is the command of the init.
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

/// How long a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until the process that started it ends in any way.
    Ours,
    /// Until it is stopped explicitly.
    Kept,
}

/// A running machine.
pub struct Machine {
    name: String,
    folder: PathBuf,
    init: ProcessId,
    /// Its standard input keeps a machine of `Lifetime::Ours` running: the kernel closes the pipe
    /// when this process ends.
    _launcher: Child,
}

impl Machine {
    /// Starts a machine with its files in `folder`.
    ///
    /// # Errors
    /// If the namespaces cannot be created, for example without root.
    pub async fn start(name: &str, folder: &Path, lifetime: Lifetime) -> Result<Machine> {
        for hidden in ["/run", "/var/lib", "/var/log", "/proc"] {
            anyhow::ensure!(
                !folder.starts_with(hidden),
                "{} is under {hidden}, which each machine mounts privately; point XDG_CACHE_HOME elsewhere",
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
        // A process group of its own, so that Ctrl-C reaches only this process, which then stops
        // the cluster in order.
        command.process_group(0).stdout(output.try_clone()?).stderr(output);
        let mut launcher = command.spawn().context("cannot run unshare")?;
        let shown = || fs::read_to_string(&log).unwrap_or_default();
        let ready = folder.join("ready");
        let start = std::time::Instant::now();
        while !ready.exists() {
            if let Some(status) = launcher.try_wait()? {
                bail!("machine {name} did not start (root is required): {status}\n{}", shown());
            }
            if start.elapsed() > START {
                bail!("machine {name} did not start within {START:?}\n{}", shown());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let init = ProcessId::child_of(launcher.id())
            .with_context(|| format!("cannot find the init process of machine {name}"))?;
        Ok(Machine { name: name.to_owned(), folder: folder.to_owned(), init, _launcher: launcher })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder with its files on the host. `lib` is its `/var/lib`.
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

    /// Starts a server program; its output goes to `log/<name>.log`. It stops with the machine, not
    /// when the returned value is dropped after the program is ready.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn serve(&self, name: &str, program: &Path, arguments: &[String]) -> Result<Process> {
        let mut command = self.command(program);
        command.args(arguments).process_group(0);
        Process::start(name, &mut command, &self.folder.join("log").join(format!("{name}.log")))
    }

    /// Runs a program of the host in the machine's network namespace, to configure the network or
    /// cut the machine off.
    ///
    /// # Errors
    /// If it fails; the message contains all of its output.
    pub async fn network(&self, command: &str) -> Result<String> {
        let mut entered = tokio::process::Command::new("nsenter");
        entered.args(["--target", &self.init.pid.to_string(), "--net", "--"]).args(command.split_whitespace());
        crate::commands::run(&mut entered).await
    }
}
