//! Additional keys of the S3 server, and its log of which key each request used.

use super::machine::Machine;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// The folder with the server's accounts, below `/var/lib`. The server reads it for every request.
pub const ACCOUNTS: &str = "s3-accounts";
/// The server's request log, below `/var/log`.
pub const LOG: &str = "s3-requests.log";

/// A request to the S3 server that got a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Request {
    /// The client's address.
    pub from: String,
    /// The access key of its signature; `-` if the server did not accept it.
    pub by: String,
    pub key: String,
}

/// Sets the pairs of access key and secret key that the server accepts in addition to the default
/// pair.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn accept(machine: &Machine, keys: &[(&str, &str)]) -> Result<()> {
    let account = |(access, secret): &(&str, &str)| {
        let account = json!({
            "access": access, "secret": secret, "role": "admin", "userID": 0, "groupID": 0, "projectID": 0,
        });
        ((*access).to_owned(), account)
    };
    let accounts: serde_json::Map<String, Value> = keys.iter().map(account).collect();
    let folder = machine.folder().join("lib").join(ACCOUNTS);
    let unfinished = folder.join("unfinished");
    fs::write(&unfinished, json!({"accessAccounts": accounts}).to_string())?;
    // Renamed into place, so that the server never reads half of the file.
    fs::rename(unfinished, folder.join("users.json")).context("cannot write the accounts of the S3 server")
}

/// Every request for keys with the prefix, in the order of the responses.
///
/// # Errors
/// If the log does not exist.
pub(super) fn requests(machine: &Machine, prefix: &str) -> Result<Vec<S3Request>> {
    let path: PathBuf = machine.folder().join("log").join(LOG);
    let log = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(log.lines().filter_map(parse).filter(|request| request.key.starts_with(prefix)).collect())
}

/// Parses a line in the format of versitygw: owner, bucket, the time as two words, address, access
/// key, request, operation, key.
fn parse(line: &str) -> Option<S3Request> {
    let words: Vec<_> = line.split(' ').collect();
    let [_, _, _, _, from, by, _, _, key, ..] = words.as_slice() else { return None };
    Some(S3Request { from: (*from).to_owned(), by: (*by).to_owned(), key: (*key).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_gives_address_access_key_and_object_key() {
        let line = "entrepot images [25/November/2026:00:20:27 +0000] 10.1.2.3 key-1 ABC REST.GET.OBJECT a/b/c \
                    /images/a/b/c 200 - 0 0 1 1 - agent - host SigV4 - AuthHeader - - arn Yes";
        let request = S3Request { from: "10.1.2.3".to_owned(), by: "key-1".to_owned(), key: "a/b/c".to_owned() };
        assert_eq!(parse(line), Some(request));
        assert_eq!(parse("half a line"), None);
    }
}
