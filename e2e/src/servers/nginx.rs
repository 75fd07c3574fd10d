use super::{START, free_port};
use crate::client::Registry;
use crate::process::Process;
use crate::{tools, usage};
use anyhow::{Context, Result};
use rustix::process::Signal;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// nginx with sendfile: as a file server, as a cache in front of a bucket (for comparison), or as a
/// load balancer in front of a node.
pub struct Nginx {
    pub url: String,
    process: Process,
    folder: TempDir,
}

/// A request to which nginx has responded.
#[derive(Clone, Debug)]
pub struct LoggedRequest {
    pub method: String,
    pub path: String,
    pub status: u16,
    /// Time since the epoch.
    pub began: Duration,
    pub took: Duration,
}

/// The log format from which [`LoggedRequest`] is parsed: end and duration in seconds, status, method,
/// path.
const LOG_FORMAT: &str = "log_format answered '$msec $request_time $status $request_method $uri';";

impl Nginx {
    /// Serves a folder.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(root: &Path) -> Result<Nginx> {
        Nginx::run(TempDir::new()?, "", &format!("root {};", root.display())).await
    }

    /// Caches responses of a server by path; the query is passed on and ignored in the cache key.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn caching(server: &str, folder: &Path) -> Result<Nginx> {
        let host = Registry::new(server).host().to_owned();
        let zone =
            format!("proxy_cache_path {} keys_zone=cache:10m max_size=100g use_temp_path=off;", folder.display());
        let location = format!(
            "location / {{ proxy_pass {server}; proxy_set_header Host {host}; proxy_http_version 1.1; \
             proxy_set_header Connection ''; proxy_cache cache; proxy_cache_key $uri; proxy_cache_valid 200 1h; \
             proxy_cache_lock on; proxy_max_temp_file_size 0; }}"
        );
        Nginx::run(TempDir::new()?, &zone, &location).await
    }

    /// Forwards requests to a server without buffering, as a load balancer does. It responds with
    /// 504 after the server was silent for `silence`. The requests are in
    /// [`Nginx::logged_requests`].
    ///
    /// # Errors
    /// If it does not start.
    pub async fn balancing(server: &str, silence: Duration) -> Result<Nginx> {
        let host = Registry::new(server).host().to_owned();
        let silence = silence.as_millis();
        let http = format!("{LOG_FORMAT} upstream node {{ server {host}; keepalive 16; }}");
        let location = format!(
            "access_log access.log answered; client_max_body_size 0; location / {{ proxy_pass http://node; \
             proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $http_host; \
             proxy_request_buffering off; proxy_read_timeout {silence}ms; proxy_send_timeout {silence}ms; }}"
        );
        Nginx::run(TempDir::new()?, &http, &location).await
    }

    /// Forwards requests to several servers in turn, as [`balancing`](Nginx::balancing) does to one.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn balancing_all(servers: &[&str]) -> Result<Nginx> {
        let folder = TempDir::new()?;
        let own = folder.path().display();
        // A group of all servers, and for each server a group without it.
        let group = |name: &str, without: Option<usize>| {
            let servers = servers.iter().enumerate().filter(|(number, _)| Some(*number) != without);
            let servers: String =
                servers.map(|(_, url)| format!("server {} max_fails=0; ", Registry::new(url).host())).collect();
            format!("upstream {name} {{ {servers}keepalive 16; }}\n")
        };
        let mut http = format!("{LOG_FORMAT}\n{}", group("all", None));
        let mut server = "access_log access.log answered; client_max_body_size 0; set $nodes all; ".to_owned();
        for number in 0..servers.len() {
            let name = without(number);
            http.push_str(&group(&name, Some(number)));
            // The file is looked up at each request: no reload closes connections of clients.
            server.push_str(&format!("if (-f {own}/{name}) {{ set $nodes {name}; }} "));
        }
        server.push_str(
            "location / { proxy_pass http://$nodes; proxy_http_version 1.1; proxy_set_header Connection ''; \
             proxy_set_header Host $http_host; proxy_request_buffering off; }",
        );
        Nginx::run(folder, &http, &server).await
    }

    /// Sends no new requests to a server of [`balancing_all`](Nginx::balancing_all), as a Service
    /// does with a pod that is not ready.
    ///
    /// # Errors
    /// If the file that says so cannot be created.
    pub fn leave_out(&self, number: usize) -> Result<()> {
        Ok(std::fs::write(self.folder.path().join(without(number)), "")?)
    }

    /// Sends requests to a server that was left out.
    ///
    /// # Errors
    /// If it was not left out.
    pub fn take_in(&self, number: usize) -> Result<()> {
        Ok(std::fs::remove_file(self.folder.path().join(without(number)))?)
    }

    async fn run(folder: TempDir, http: &str, server: &str) -> Result<Nginx> {
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
        command.arg("-p").arg(folder.path()).arg("-c").arg(&file).arg("-e").arg(folder.path().join("error.log"));
        let mut process = Process::start("nginx", &mut command, &folder.path().join("log"))?;
        let url = format!("http://{address}");
        let probe = Registry::new(&url);
        process.until_ready(START, || async { probe.get("/").await.is_ok() }).await?;
        Ok(Nginx { url, process, folder })
    }

    /// The requests since [`balancing`](Nginx::balancing) started, in the order of their ends.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn logged_requests(&self) -> Result<Vec<LoggedRequest>> {
        let log = std::fs::read_to_string(self.folder.path().join("access.log"))
            .context("cannot read the access log of nginx")?;
        log.lines()
            .map(|line| {
                LoggedRequest::parse(line).with_context(|| format!("cannot parse the log line {line} of nginx"))
            })
            .collect()
    }

    /// The worker processes. The master has other children as well, some of which exit by
    /// themselves.
    ///
    /// # Errors
    /// If it has exited.
    pub fn workers(&self) -> Result<Vec<u32>> {
        let serves = |process: &u32| {
            std::fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|line| line.starts_with(b"nginx: worker"))
        };
        Ok(usage::children(self.process.id())?.into_iter().filter(serves).collect())
    }
}

/// The name of the group of servers without this one, and of the file that selects it.
fn without(number: usize) -> String {
    format!("without_{number}")
}

impl LoggedRequest {
    fn parse(line: &str) -> Option<LoggedRequest> {
        let mut words = line.splitn(5, ' ');
        let mut seconds = || Some(Duration::from_secs_f64(words.next()?.parse().ok()?));
        let (ended, took) = (seconds()?, seconds()?);
        let status = words.next()?.parse().ok()?;
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(LoggedRequest { method, path, status, began: ended.saturating_sub(took), took })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM stops the master and its workers. SIGKILL would leave the workers running.
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        let told = self.process.signal(Signal::TERM).is_ok();
        while told && matches!(self.process.ended(), Ok(None)) && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_request_is_parsed_from_a_log_line() {
        let answered = LoggedRequest::parse("1700000060.250 50.001 503 PUT /v2/a/blobs/uploads/x y").unwrap();
        assert_eq!((answered.status, answered.method.as_str()), (503, "PUT"));
        assert_eq!(answered.path, "/v2/a/blobs/uploads/x y");
        assert_eq!(answered.began, Duration::from_millis(1_700_000_010_249));
        assert!(LoggedRequest::parse("1700000060.250 - 503 PUT /").is_none());
    }
}
