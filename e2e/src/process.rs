//! A server process that runs as long as a test needs it and never longer.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Number of log lines that are printed when a test fails.
const SHOWN_LINES: usize = 60;

/// A running server. Dropping it kills it. If the test has failed, the end of its log is printed.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a program whose output is appended to `log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Process> {
        let file = File::options().create(true).append(true).open(log).context("cannot open the log file")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Process { name: name.to_owned(), child, log: log.to_owned(), ended: None })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All output so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }

    /// The exit status, if the process has exited.
    ///
    /// # Errors
    /// If the system does not report it.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process no longer exists.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("invalid process id")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Waits until the process exits by itself.
    ///
    /// # Errors
    /// If it does not exit within `deadline`.
    pub async fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let start = std::time::Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if start.elapsed() > deadline {
                bail!("{} did not end within {deadline:?}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills the process and waits until it has exited.
    ///
    /// # Errors
    /// If the system does not report the exit.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.child.kill()?;
        let status = self.child.wait()?;
        self.ended = Some(status);
        Ok(status)
    }

    /// Waits until the server answers.
    ///
    /// # Errors
    /// If the server exits first, or the deadline passes; the message contains its log.
    pub async fn until_ready<F, C>(&mut self, deadline: Duration, mut answers: F) -> Result<()>
    where
        F: FnMut() -> C,
        C: Future<Output = bool>,
    {
        let start = std::time::Instant::now();
        while !answers().await {
            if let Some(status) = self.ended()? {
                bail!("{} ended before it was ready: {status}\n{}", self.name, self.last_lines());
            }
            if start.elapsed() > deadline {
                bail!("{} was not ready within {deadline:?}\n{}", self.name, self.last_lines());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let killed = self.kill();
        if std::thread::panicking() {
            eprintln!("--- last lines of the log of {} (exit: {killed:?})\n{}", self.name, self.last_lines());
        }
    }
}
