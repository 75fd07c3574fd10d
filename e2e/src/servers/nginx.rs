use super::{START, free_port};
use crate::client::Registry;
use crate::process::Process;
use crate::{tools, usage};
use anyhow::Result;
use rustix::process::Signal;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// nginx with sendfile: what a cache in front of a bucket is measured against.
pub struct Nginx {
    pub url: String,
    process: Process,
    _folder: TempDir,
}

impl Nginx {
    /// Serves a folder.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(root: &Path) -> Result<Nginx> {
        Nginx::run("", &format!("root {};", root.display())).await
    }

    /// Caches what it gets from a server, by path; a query is passed on and makes no difference.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn caching(server: &str, folder: &Path) -> Result<Nginx> {
        let host = Registry::new(server).host().to_owned();
        let zone =
            format!("proxy_cache_path {} keys_zone=cache:10m max_size=100g use_temp_path=off;", folder.display());
        let location = format!(
            "location / {{ proxy_pass {server}; proxy_set_header Host {host}; proxy_http_version 1.1; \
             proxy_set_header Connection ''; proxy_cache cache; proxy_cache_key $uri; proxy_cache_valid 200 1h; \
             proxy_cache_lock on; proxy_max_temp_file_size 0; }}"
        );
        Nginx::run(&zone, &location).await
    }

    async fn run(http: &str, server: &str) -> Result<Nginx> {
        let folder = TempDir::new()?;
        let own = folder.path().display();
        let address = format!("127.0.0.1:{}", free_port()?);
        let config = format!(
            "daemon off; user root; worker_processes auto; pid {own}/pid; error_log {own}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n  sendfile on; tcp_nopush on; access_log off; keepalive_requests 1000000;\n  \
             client_body_temp_path {own}/body; proxy_temp_path {own}/proxy; fastcgi_temp_path {own}/fastcgi;\n  \
             uwsgi_temp_path {own}/uwsgi; scgi_temp_path {own}/scgi;\n  \
             {http}\n  server {{ listen {address}; {server} }}\n}}\n"
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

    /// The processes that serve. The master has others as well, some of which end by themselves.
    ///
    /// # Errors
    /// When it ended.
    pub fn workers(&self) -> Result<Vec<u32>> {
        let serves = |process: &u32| {
            std::fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|line| line.starts_with(b"nginx: worker"))
        };
        Ok(usage::children(self.process.id())?.into_iter().filter(serves).collect())
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
