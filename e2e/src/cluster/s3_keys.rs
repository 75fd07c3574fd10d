//! Further keys of the S3 server, and what it says of who used which.

use super::machine::Machine;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// Where the server has its accounts, below `/var/lib`; it reads them for every request.
pub const ACCOUNTS: &str = "s3-accounts";
/// The log of its requests, below `/var/log`.
pub const LOG: &str = "s3-requests.log";

/// A request that the S3 server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The address that it came from.
    pub from: String,
    /// The access key that signed it; `-` when it was not accepted.
    pub by: String,
    pub key: String,
}

/// Makes exactly these pairs of access key and secret key valid, beside the first ones of all servers.
///
/// # Errors
/// When the file cannot be written.
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
    // At once: a reader must never see half of it.
    fs::rename(unfinished, folder.join("users.json")).context("the accounts of the S3 server")
}

/// Every request for keys that begin with the prefix, in the order of their answers.
///
/// # Errors
/// When there is no log.
pub(super) fn asked(machine: &Machine, prefix: &str) -> Result<Vec<Asked>> {
    let path: PathBuf = machine.folder().join("log").join(LOG);
    let log = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(log.lines().filter_map(parse).filter(|asked| asked.key.starts_with(prefix)).collect())
}

/// A line as versitygw writes it: owner, bucket, the time in two words, address, access key, request, operation, key.
fn parse(line: &str) -> Option<Asked> {
    let words: Vec<_> = line.split(' ').collect();
    let [_, _, _, _, from, by, _, _, key, ..] = words.as_slice() else { return None };
    Some(Asked { from: (*from).to_owned(), by: (*by).to_owned(), key: (*key).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_tells_who_asked_for_what() {
        let line = "entrepot images [25/November/2026:00:20:27 +0000] 10.1.2.3 key-1 ABC REST.GET.OBJECT a/b/c \
                    /images/a/b/c 200 - 0 0 1 1 - agent - host SigV4 - AuthHeader - - arn Yes";
        let asked = Asked { from: "10.1.2.3".to_owned(), by: "key-1".to_owned(), key: "a/b/c".to_owned() };
        assert_eq!(parse(line), Some(asked));
        assert_eq!(parse("half a line"), None);
    }
}
