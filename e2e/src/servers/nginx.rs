use super::{START, free_port};
use crate::client::Registry;
use crate::process::Process;
use crate::tools;
use anyhow::Result;
use rustix::process::Signal;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// nginx with sendfile, serving a folder: what a stored blob is measured against.
pub struct Nginx {
    pub url: String,
    process: Process,
    _folder: TempDir,
}

impl Nginx {
    /// # Errors
    /// When it does not start.
    pub async fn start(root: &Path) -> Result<Nginx> {
        let folder = TempDir::new()?;
        let (own, root) = (folder.path().display(), root.display());
        let address = format!("127.0.0.1:{}", free_port()?);
        let config = format!(
            "daemon off; user root; worker_processes auto; pid {own}/pid; error_log {own}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n  sendfile on; tcp_nopush on; access_log off; keepalive_requests 1000000;\n  \
             client_body_temp_path {own}/body; proxy_temp_path {own}/proxy; fastcgi_temp_path {own}/fastcgi;\n  \
             uwsgi_temp_path {own}/uwsgi; scgi_temp_path {own}/scgi;\n  \
             server {{ listen {address}; root {root}; }}\n}}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config)?;
        let mut command = Command::new(tools::system("nginx")?);
        command.arg("-c").arg(&file).arg("-e").arg(folder.path().join("error.log"));
        let mut process = Process::start("nginx", &mut command, &folder.path().join("log"))?;
        let url = format!("http://{address}");
        let probe = Registry::new(&url);
        process.until_ready(START, || async { probe.get("/").await.is_ok() }).await?;
        Ok(Nginx { url, process, _folder: folder })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Killed, the master would leave its workers behind; told to end, it ends them.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        let told = self.process.signal(Signal::TERM).is_ok();
        while told && matches!(self.process.ended(), Ok(None)) && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
