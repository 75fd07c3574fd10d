//! Checks with porcupine that the operations on each tag have an order that explains all of them
//! (linearizability).

use super::record::{Kind, Outcome, Record};
use super::violations::{Broken, Violations};
use crate::commands;
use crate::tools::Tool;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// An operation on one tag, in the input format of the program in `tools/porcupine`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    id: u64,
    tag: String,
    kind: &'static str,
    value: String,
    call: u64,
    /// `None` if it may take effect at any time after its call, or never.
    #[serde(rename = "return")]
    returned: Option<u64>,
}

/// Porcupine's result for a tag.
#[derive(Clone, Debug, Deserialize)]
pub struct Verdict {
    pub tag: String,
    pub operations: u64,
    result: String,
    /// Ids of operations that have no order even by themselves.
    pub explanation: Vec<u64>,
}

impl Verdict {
    pub fn is_violated(&self) -> bool {
        self.result == "Illegal"
    }

    pub fn is_undecided(&self) -> bool {
        self.result == "Unknown"
    }
}

/// The operations of each tag.
///
/// A deletion by digest counts as one on every tag to which the digest was ever pushed: it removes
/// the tag if the tag names that digest. This is weaker than one atomic operation on all of them,
/// so whatever it rejects is a violation.
pub fn lines(records: &[Record]) -> Vec<Line> {
    let mut tagged: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.kind == Kind::PushManifest) {
        if let (Some(tag), Some(digest)) = (&record.tag, &record.digest) {
            tagged.entry((&record.repository, digest)).or_default().insert(tag);
        }
    }
    let mut lines = Vec::new();
    for record in records {
        let line = |tag: &str, kind, value: &str| Line {
            id: record.id,
            tag: format!("{}:{tag}", record.repository),
            kind,
            value: value.to_owned(),
            call: record.call,
            returned: record.returned,
        };
        let digest = record.digest.as_deref().unwrap_or_default();
        match (record.kind, record.outcome, &record.tag) {
            // A refused operation has no effect. A read without a response, or with an outdated
            // one, proves nothing.
            (Kind::PushManifest, Outcome::Done | Outcome::Unknown, Some(tag)) => lines.push(line(tag, "write", digest)),
            (Kind::ReadTag, Outcome::Done, Some(tag)) if !record.stale => lines.push(line(tag, "read", digest)),
            (Kind::ReadTag | Kind::DeleteTag, Outcome::Refused, Some(tag)) if record.status == Some(404) => {
                lines.push(line(tag, "read", ""));
            }
            (Kind::DeleteTag, Outcome::Done | Outcome::Unknown, Some(tag)) => lines.push(line(tag, "delete", "")),
            (Kind::DeleteManifest, Outcome::Done | Outcome::Unknown, _) => {
                let tags = tagged.get(&(record.repository.as_str(), digest)).into_iter().flatten();
                lines.extend(tags.map(|tag| line(tag, "delete-digest", digest)));
            }
            _ => {}
        }
    }
    lines
}

/// Runs porcupine on every tag of a history, which is written to `file`.
///
/// # Errors
/// If the program fails.
pub async fn verdicts(records: &[Record], file: &Path) -> Result<Vec<Verdict>> {
    let lines: Result<Vec<_>, _> = lines(records).iter().map(serde_json::to_string).collect();
    tokio::fs::write(file, lines?.join("\n")).await?;
    let output = commands::run(tokio::process::Command::new(Tool::Linearizable.path()?).arg(file)).await?;
    output.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// Adds a violation for each tag whose history has no order. Returns the number of tags that could
/// not be decided in time.
///
/// # Errors
/// If the program fails.
pub async fn check(records: &[Record], file: &Path, violations: &Violations) -> Result<u64> {
    let by_id: HashMap<_, _> = records.iter().map(|record| (record.id, record)).collect();
    let mut undecided = 0;
    for verdict in verdicts(records, file).await? {
        undecided += u64::from(verdict.is_undecided());
        if verdict.is_violated() {
            let mut explained: Vec<_> = verdict.explanation.iter().filter_map(|id| by_id.get(id)).collect();
            explained.sort_by_key(|record| record.call);
            let shown: Vec<_> = explained.iter().map(ToString::to_string).collect();
            let explanation = format!("these operations have no order:\n{}", shown.join("\n"));
            violations.add(Broken::Tag, &verdict.tag, &explanation);
        }
    }
    Ok(undecided)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64, kind: Kind, tag: Option<&str>, digest: &str, outcome: Outcome, status: u16) -> Record {
        Record {
            id,
            client: "c".into(),
            at: "node".into(),
            kind,
            repository: "r".into(),
            tag: tag.map(str::to_owned),
            digest: Some(digest.to_owned()).filter(|digest| !digest.is_empty()),
            call: id * 10,
            returned: (outcome != Outcome::Unknown).then_some(id * 10 + 5),
            status: Some(status),
            outcome,
            stale: false,
        }
    }

    #[test]
    fn a_deletion_by_digest_counts_for_each_tag_it_was_pushed_to() {
        let records = [
            record(1, Kind::PushManifest, Some("t"), "d", Outcome::Done, 201),
            record(2, Kind::PushManifest, Some("u"), "d", Outcome::Done, 201),
            record(3, Kind::PushManifest, Some("v"), "e", Outcome::Done, 201),
            record(4, Kind::DeleteManifest, None, "d", Outcome::Unknown, 503),
        ];
        let deletions: Vec<_> = lines(&records).into_iter().filter(|line| line.kind == "delete-digest").collect();
        assert_eq!(deletions.iter().map(|line| line.tag.as_str()).collect::<Vec<_>>(), ["r:t", "r:u"]);
        assert!(deletions.iter().all(|line| line.returned.is_none()), "the deletion may take effect later");
    }

    #[test]
    fn operations_that_prove_nothing_are_left_out() {
        let mut old = record(3, Kind::ReadTag, Some("t"), "d", Outcome::Done, 200);
        old.stale = true;
        let records = [
            record(1, Kind::PushManifest, Some("t"), "d", Outcome::Refused, 400),
            record(2, Kind::ReadTag, Some("t"), "", Outcome::Unknown, 503),
            old,
            record(4, Kind::DeleteTag, Some("t"), "", Outcome::Refused, 405),
        ];
        assert_eq!(lines(&records), []);
    }

    #[test]
    fn a_read_of_an_absent_tag_has_the_empty_value() {
        let lines = lines(&[
            record(1, Kind::ReadTag, Some("t"), "", Outcome::Refused, 404),
            record(2, Kind::DeleteTag, Some("t"), "", Outcome::Refused, 404),
        ]);
        assert!(lines.iter().all(|line| line.kind == "read" && line.value.is_empty()), "{lines:?}");
        assert_eq!(lines.len(), 2);
    }
}
